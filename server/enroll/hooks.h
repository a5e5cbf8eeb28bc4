/*
 * Pre-provisioning hooks: a webhook that may say no to a device, or change its parameters, before
 * it is registered (docs/hooks.md). The pool's own threads make the calls, and who asks waits
 * outside the admission gate, so that a slow hook takes from nobody else. Hold no connection of
 * the database while asking.
 * Whoever made the pool frees it. Threads: any may ask and write; new and free belong to init and
 * the end, as libcurl's global state does.
 */
#pragma once

#include <stddef.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "model/enrollment.h"
#include "model/fault.h"

enum { HOOKS_MAX_WORKERS = 64 };

struct hooks;

struct hooks_config {
    struct bytes secret; /* signs the calls; copied, cleansed at the end; len 0: no hook is asked */
    const char *ca;      /* PEM file: CAs of https hooks, in place of the system's; NULL: these */
    unsigned workers;    /* 1..HOOKS_MAX_WORKERS threads, a call each; none without a secret */
    unsigned max_waiting; /* questions that wait for a worker */
};

/* ERR_SYSTEM: a thread, libcurl or the file of CAs failed. */
enum err hooks_new(const struct hooks_config *config, struct hooks **ret_hooks) MUST_CHECK;

/* Tells those who wait in the queue that it is over, and waits for the calls under way and for
 * everybody inside hooks_ask to leave. Nobody may begin to ask any more. */
void hooks_free(struct hooks *h);
DEFINE_CLEANUP(struct hooks *, hooks_free);

/* What the hook is told; all borrowed. */
struct hook_question {
    const char *url;
    unsigned timeout_ms;    /* from the asking on, the time in the queue included */
    const char *request_id; /* ours: printable ASCII, it becomes a header */
    const char *product;
    const char *template_name;
    int template_version;
    const char *claim_name;
    const char *claim_certificate_id;
    const char *certificate_id;  /* NULL: not known yet, the member is left out */
    const char *certificate_pem; /* likewise */
    const char *client_id;       /* NULL: none, "" */
    const struct enrollment_parameter *parameters;
    size_t parameter_count;
    struct gate *gate; /* the caller is inside and leaves it while it waits; NULL: in none */
};

/* What it said besides yes. The strings live in the arena of who asked. */
struct hook_answer {
    struct enrollment_parameter overrides[ENROLLMENT_MAX_PARAMETERS];
    size_t override_count;
};

/* Returns when the hook has answered or the time is over, never later for a slow hook.
 * ERR_OK: it allowed the device. ERR_DENIED with hook.denied (it did not), hook.failed (no answer
 * in time, or none that is one), hook.busy (the queue is full; told at once). */
enum err hooks_ask(struct hooks *h, const struct hook_question *q, struct arena *arena,
                   struct hook_answer *ret_answer, struct fault *fault) MUST_CHECK;

/* Appends counters in Prometheus' text format. */
void hooks_write(struct hooks *h, struct buf *b);
