/*
 * The inside of the hooks, for hook*.c only: the question and the answer as JSON, and one call over
 * HTTP. A caller (struct hook_caller) belongs to one worker and keeps its connections.
 * Threads: owner only, but for hook_http_begin and hook_http_end: init only.
 */
#pragma once

#include "enroll/hooks.h"

enum {
    HOOK_MAX_QUESTION_BYTES = 256 * 1024,
    HOOK_MAX_ANSWER_BYTES = 64 * 1024,
    HOOK_MAX_ANSWER_DEPTH = 16,
    HOOK_MAX_NAME_BYTES = 128, /* as a member of a template */
    HOOK_MAX_REASON_CHARS = 120,
    HOOK_SIGNATURE_BYTES = 96,
};

#define HOOK_LATE "the hook did not answer in time"

/* The body of the request; the caller frees. ERR_INVALID: not UTF-8, too long, or a parameter
 * twice. */
enum err hook_question_encode(const struct hook_question *q, char **ret_body) MUST_CHECK;

/* ERR_DENIED with hook.denied, hook.failed or server.internal. */
enum err hook_answer_decode(struct bytes body, struct arena *arena, struct hook_answer *ret_answer,
                            struct fault *fault) MUST_CHECK;

/* "t=SECONDS,v1=HEX": HMAC-SHA256 over the seconds, a dot and the body. */
enum err hook_sign(struct bytes secret, int64_t now_s, struct bytes body,
                   char ret_signature[HOOK_SIGNATURE_BYTES]) MUST_CHECK;

/* libcurl's global state; counted, so that each begin has its end. */
enum err hook_http_begin(void) MUST_CHECK;
void hook_http_end(void);

struct hook_caller;

/* ca is borrowed for the caller's life; NULL: the system's. */
enum err hook_caller_new(const char *ca, struct hook_caller **ret_caller) MUST_CHECK;
void hook_caller_free(struct hook_caller *c);

struct hook_call {
    const char *url;
    const char *request_id;
    const char *signature;
    struct bytes body;
    unsigned timeout_ms; /* not 0 */
};

struct hook_reply {
    const char *why; /* no answer came, a constant; NULL: one did */
    long status;
    struct buf body;
};

/* Begins and ends a reply that a call fills. */
void hook_reply_init(struct hook_reply *r);
void hook_reply_done(struct hook_reply *r);

/* POSTs once; no redirect is followed. */
void hook_call(struct hook_caller *c, const struct hook_call *call, struct hook_reply *reply);
