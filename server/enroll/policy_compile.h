/*
 * Policy documents of AWS IoT into the form that model/policy judges (docs/policies.md). Threads:
 * any.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"

enum { POLICY_WHY_BYTES = 160 };

/* Appends the compiled form. ERR_INVALID: no policy document, or too long; ret_why says why. What
 * is AWS's and means nothing here (actions of other services, resources that are no topic) compiles
 * to nothing; what is not understood compiles to a statement that never allows and always denies.
 */
enum err policy_compile(const char *json, size_t len, struct buf *out,
                        char ret_why[POLICY_WHY_BYTES]) MUST_CHECK;
