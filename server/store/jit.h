/*
 * Certificates of registered CAs that belong to no device yet (schema/0015_jit.sql): what is known
 * of one, and contacts that gave no device. Threads: any.
 */
#pragma once

#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "store/db.h"
#include "store/statements.h"

struct jit_known {
    const char *code;    /* "new"; "ok": a device's, and good; else the fault that keeps it out */
    const char *detail;  /* for operators; NULL: none */
    const char *serial;  /* of the device; NULL: it is none's */
    const char *waiting; /* status in jit_certificate; NULL: not in there */
    int64_t template_id; /* to use in place of the CA's; 0: the CA's */
    const char *parameters; /* JSON object that an operator gave; NULL: none */
};
enum err jit_find(struct db *db, struct bytes fingerprint, struct bytes spki, struct arena *arena,
                  struct jit_known *ret_known) MUST_CHECK;

/* Records a contact that gave no device; json is the argument of muster.jit_contact. */
enum err jit_contact(struct db *db, const char *json) MUST_CHECK;

extern const struct stmt_set jit_statements;
