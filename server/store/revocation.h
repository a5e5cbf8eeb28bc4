/*
 * What is revoked of our issuing CAs, and the CRLs that were signed of it (schema/0021). Threads:
 * any.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "model/revocation.h"
#include "store/db.h"
#include "store/statements.h"

/* One CRL: of an issuer, of a shard of so many, whole or only what is younger than the whole. */
struct crl_name {
    int64_t issuer_id;
    int shards;
    int shard;
    bool delta;
};

struct crl_wish {
    struct crl_name name; /* delta: the full one needs nothing */
    int64_t number;
    int64_t base_number; /* of the full one; 0: there is none */
    int64_t base_at_s;   /* when that was made */
    const char *stamp;
};

struct crl_signed {
    struct crl_name name;
    int64_t number;
    int64_t this_update_s;
    int64_t next_update_s;
    size_t entries;
    const char *stamp;
    struct bytes der;
};

/* Called with the connection of that transaction; may be called again for the same wish. */
typedef enum err (*crl_sign_fn)(struct db_conn *conn, const struct crl_wish *wish, void *ctx);

struct crl_plan {
    const int64_t *issuers; /* whose keys are here */
    size_t issuer_count;
    int shards;      /* a power of two, up to 256 */
    const char *url; /* where they are served; NULL: nowhere that is known */
    int64_t every_s; /* how old a full CRL may be once something was revoked */
    crl_sign_fn sign;
    void *ctx;
};

/* Has every CRL signed that is due, each in a transaction that holds the leader's lock; stops where
 * another replica leads. */
enum err revocation_crls_run(struct db *db, const struct crl_plan *plan) MUST_CHECK;

/* What is to be on it, by the time of its revocation; life_s: of a full CRL; since_s: only what has
 * changed since, 0: all. In the arena. */
enum err revocation_entries(struct db_conn *conn, const struct crl_name *name, int64_t life_s,
                            int64_t since_s, struct arena *arena, struct revoked **ret_rows,
                            size_t *ret_count) MUST_CHECK;

enum err revocation_crl_store(struct db_conn *conn, struct arena *arena,
                              const struct crl_signed *crl) MUST_CHECK;

/* Number and times of the latest, without its DER; ERR_NOT_FOUND. */
enum err revocation_crl_look(struct db *db, const struct crl_name *name,
                             struct crl_signed *ret_crl) MUST_CHECK;

/* The same with its DER, in the arena. */
enum err revocation_crl_load(struct db *db, const struct crl_name *name, struct arena *arena,
                             struct crl_signed *ret_crl) MUST_CHECK;

/* The registry's word on one of our certificates, serial_number in at most 20 bytes. */
enum err revocation_status(struct db *db, struct bytes serial_number, int64_t issuer_id,
                           struct ocsp_status *ret_status) MUST_CHECK;

extern const struct stmt_set revocation_statements;
