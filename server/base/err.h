/*
 * The result type of every fallible function: few expected outcomes, checked by the compiler.
 * Why a request failed is a stable code in its struct fault (model/fault.h), never a number here.
 * Threads: any.
 */
#pragma once

#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))

enum err {
    ERR_OK = 0,
    ERR_INVALID,     /* the bytes do not parse or break a stated limit */
    ERR_NOT_FOUND,   /* what was asked for is not there */
    ERR_DENIED,      /* refused; the reason is in the caller's struct fault */
    ERR_CONFLICT,    /* another state is in the way */
    ERR_UNAVAILABLE, /* a peer (database, broker) is away; the same call may work later */
    ERR_NO_MEMORY,
    ERR_SYSTEM, /* errno tells */
};

/* A short English word for logs; never NULL. */
const char *err_name(enum err e);
