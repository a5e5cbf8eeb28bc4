/*
 * Who decides on certificates that wait for their registration (JITR), as a fleet owner's own
 * service would: asks the admin API again and again what waits below one CA, and activates each.
 * Threads: the loop's own.
 */
#pragma once

#include "dial.h"

struct worker;

/* MUSTER_ADMIN_URL and MUSTER_ADMIN_TOKEN say where. tls, loop and ca are borrowed. Says on
 * standard error what is wrong. */
enum err worker_new(const struct dial_target *target, const char *ca,
                    struct worker **ret_worker) MUST_CHECK;

/* Begins to ask. */
void worker_start(struct worker *w);
void worker_free(struct worker *w);

/* Certificates that it activated, and answers that it did not expect. */
size_t worker_activated(const struct worker *w);
size_t worker_failed(const struct worker *w);
