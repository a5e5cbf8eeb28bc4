/*
 * One HTTP request, over TLS or plain as its target is, on a connection of its own, without
 * blocking: connect, handshake, send, read the answer, close, or ask again. The owner embeds or
 * allocates a call, fills what is asked, starts it, and is told once. A call may be abandoned at
 * any time, as by a power cut. Threads: the loop's own.
 */
#pragma once

#include "base/buf.h"
#include "dial.h"

enum { CALL_MAX_ANSWER_BYTES = 256 * 1024, CALL_TIMEOUT_US = 60 * 1000000 };

/* How far a call came; the last is success, whatever the status. */
enum call_stage { CALL_CONNECT, CALL_HANDSHAKE, CALL_SEND, CALL_READ, CALL_DONE };

struct call {
    /* asked */
    const struct dial_target *target;
    const char *method;
    const char *path;
    const char *type;          /* Content-Type, NULL: no body */
    const char *authorization; /* NULL: none */
    struct bytes body;         /* borrowed until it is done */
    X509 *certificate;         /* client certificate, NULL: none; borrowed */
    EVP_PKEY *key;
    bool hold; /* done is called after the handshake, and the connection stays until abandoned */
    bool keep; /* after an answer the connection stays: done calls call_again or call_abandon */
    void (*done)(struct call *c);
    void *owner;

    /* answered */
    enum call_stage stage;
    int status; /* of HTTP; 0: none came */
    int retry_after_s;
    struct bytes answer; /* body; valid inside done only */
    int64_t began_us;
    int64_t handshaken_us; /* 0: it did not come so far */
    int64_t ended_us;

    /* its own */
    struct watch watch;
    struct timer timer;
    SSL *ssl;
    struct buf request;
    size_t sent;
    struct buf received;
    size_t header_len; /* 0: not complete */
    size_t content_len;
};

/* Begins; done is called later, never from here. ERR_SYSTEM when no socket can be had. */
enum err call_start(struct call *c) MUST_CHECK;

/* From done only, of a call that was kept: asks what was filled in anew on the same connection. */
enum err call_again(struct call *c) MUST_CHECK;

/* Ends it without a word: what the server does with it is its own affair. */
void call_abandon(struct call *c);

/* Raises the limit of open files so that so many sockets may be open at once; says on standard
 * error when that many are not allowed. */
void call_allow(size_t sockets);
