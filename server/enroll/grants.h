/*
 * What the policies of a certificate are to the broker's plugin: their compiled forms, and the
 * attributes of the thing that they name (model/broker_wire.h). Everything lives in the caller's
 * arena. Threads: any.
 */
#pragma once

#include "base/arena.h"
#include "base/bytes.h"
#include "base/err.h"
#include "store/gate.h"

/* The policies that a page's certificates refer to, by number; one that does not compile is left
 * out, so that the plugin refuses who has it. */
struct grant_form {
    uint32_t number;
    struct bytes form;
};

struct grant_forms {
    struct grant_form *rows;
    size_t count;
};

enum err grant_forms_load(struct db *db, struct arena *arena, const struct gate_page *page,
                          struct grant_forms *ret_forms) MUST_CHECK;

/* The grants of one certificate; len 0: it has no policies. What does not fit is left out: a number
 * that nobody knows stands for policies, and an attribute that is not there for one. */
enum err grants_encode(struct arena *arena, const struct gate_entry *entry,
                       const struct grant_forms *forms, struct bytes *ret_grants) MUST_CHECK;
