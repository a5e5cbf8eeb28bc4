/* Loading everything that replicas cache. Rows live in the caller's arena. Threads: any. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "store/db.h"
#include "store/statements.h"

enum { CATALOG_ARENA_BYTES = 256 << 20 /* bounds what a replica caches */ };

struct product_row {
    int64_t id;
    const char *name;
    const char *serial_case;
    bool strip_separators;
};

struct template_row {
    int64_t id;
    int64_t product_id;
    const char *name;
    int version;
    const char *body;
};

struct ca_cached_row {
    int64_t id;
    const char *kind;
    const char *name;
    struct bytes der;
    const char *key_reference; /* NULL: not ours to sign with */
    bool active;
    bool has_claims;       /* below this registered CA */
    int64_t template_id;   /* 0: none */
    int64_t product_id;    /* of that template */
    const char *jit;       /* "jitp", "jitr"; "": no automatic registration */
    bool has_devices;      /* whose own certificates are of this registered CA */
    int64_t trust_until_s; /* 0: not at all */
    int64_t trust_template_id;
    bool crl_required;
    struct bytes crl; /* DER; len 0: none, or it does not count */
};

/* A group of devices with TLS-PSK. */
struct psk_row {
    int64_t id;
    const char *name;
    const char *name_lower;
    int64_t product_id;
    int64_t template_id;
    bool enabled;
    struct bytes keys[2]; /* sealed; primary, secondary */
};

struct catalog_rows {
    int64_t epoch; /* read first, so that a change while loading is seen as one */
    struct product_row *products;
    size_t product_count;
    struct template_row *templates; /* enabled ones, default version */
    size_t template_count;
    struct ca_cached_row *cas;
    size_t ca_count;
    struct psk_row *psks;
    size_t psk_count;
};

/* And what the registry takes the time for, microseconds since 1970. */
enum err catalog_epoch(struct db *db, int64_t *ret_epoch, int64_t *ret_wall_us) MUST_CHECK;
enum err catalog_load(struct db *db, struct arena *arena, struct catalog_rows *ret_rows) MUST_CHECK;

extern const struct stmt_set catalog_statements;
