/*
 * The compiled policies that certificates of the table refer to, by number. One never changes, so
 * it is put once; clearing hands the memory back a little with every call of policies_tidy. Whoever
 * made the store frees it. Threads: owner only.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

struct policies;

enum err policies_new(struct policies **ret_policies) MUST_CHECK;
void policies_free(struct policies *p);

/* Copies a valid form; one of that number that is there stays. */
enum err policies_put(struct policies *p, uint32_t number, struct bytes form) MUST_CHECK;

/* Borrowed until the store is cleared; len 0: there is none. */
struct bytes policies_find(const struct policies *p, uint32_t number);

/* Shows every one, in the order they came. */
void policies_each(const struct policies *p,
                   void (*take)(void *arg, uint32_t number, struct bytes form), void *arg);

void policies_clear(struct policies *p);
void policies_tidy(struct policies *p);
size_t policies_count(const struct policies *p);
