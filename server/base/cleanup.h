/*
 * Scope-bound ownership: a variable marked _cleanup_(fn) is released when it leaves scope;
 * TAKE_PTR hands it to the caller. Threads: any.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(fn) __attribute__((cleanup(fn)))

/* Returns the pointer and clears the variable, so that its cleanup has nothing left to free. */
#define TAKE_PTR(p)                                                                                \
    ({                                                                                             \
        __typeof__(p) take_ptr_ = (p);                                                             \
        (p) = NULL;                                                                                \
        take_ptr_;                                                                                 \
    })

/* Defines fn##p, a cleanup function for variables of pointer type `type`. */
#define DEFINE_CLEANUP(type, fn)                                                                   \
    static inline void fn##p(type *p)                                                              \
    {                                                                                              \
        if (*p)                                                                                    \
            fn(*p);                                                                                \
    }                                                                                              \
    struct cleanup_needs_semicolon_##fn

DEFINE_CLEANUP(FILE *, fclose);

static inline void freep(void *p)
{
    free(*(void **)p);
}

static inline void closep(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
