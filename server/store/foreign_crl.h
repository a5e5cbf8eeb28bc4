/* CRLs of registered CAs, and whom of their devices they are about (schema/0023). Threads: any. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "store/db.h"
#include "store/statements.h"

/* A live certificate of a device that some registered CA made. */
struct foreign_cert {
    int64_t id;
    struct bytes der;
};

/* Those with one of these serial numbers, of whatever CA. In the arena. */
enum err foreign_listed(struct db *db, struct arena *arena, const struct bytes *numbers,
                        size_t count, struct foreign_cert **ret_rows, size_t *ret_count) MUST_CHECK;

/* Revokes it for good; reason: of RFC 5280, one that the registry has. ret_new: it was not yet. */
enum err foreign_revoke(struct db *db, int64_t certificate_id, const char *reason,
                        bool *ret_new) MUST_CHECK;

/* CRLs that came, or began to count, a moment ago: the CA's certificate and the CRL, DER. */
struct foreign_crl {
    const char *ca;
    struct bytes ca_der;
    struct bytes der;
};
enum err foreign_recent(struct db *db, struct arena *arena, struct foreign_crl **ret_rows,
                        size_t *ret_count) MUST_CHECK;

/* Closes CAs whose required CRL is overdue, and opens others again; ret_moved: how many. */
enum err foreign_close(struct db *db, int *ret_moved) MUST_CHECK;

extern const struct stmt_set foreign_crl_statements;
