#include "hostile.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/clock.h"
#include "credential.h"

enum {
    GARBAGE_BYTES = 512,
    OVERSIZED_BYTES = 48 * 1024,
    PATIENCE_US = 30 * 1000000, /* then one of them goes by itself */
    DRIP_US = 500000,
    RECORD_HEAD = 60, /* of a ClientHello: enough to begin a handshake, never to end it */
};

enum kind { GARBAGE, HALF_OPEN, SLOW, OVERSIZED, WRONG_CA, REPLAY };

static const char *const names[] = {"garbage",   "half-open", "slow",
                                    "oversized", "wrong CA",  "replay"};

struct hostile {
    struct hostile_settings s;
    EVP_PKEY *key;
    X509 *stranger;
    struct raw *raws;     /* under way */
    struct request *asks; /* under way */
    size_t at_once;
    struct buf big;
    struct buf small; /* a request that would be right */
    char authorization[256];
};

/* A connection that never speaks HTTP. */
struct raw {
    struct hostile *hostile;
    struct raw *next;
    enum kind kind;
    struct watch watch;
    struct timer timer;
    int64_t ends_us;
    size_t dripped;
};

struct request {
    struct hostile *hostile;
    struct request *next;
    enum kind kind;
    struct call call;
};

/* The beginning of a TLS 1.2 record with a ClientHello that never ends. */
static const uint8_t hello_head[RECORD_HEAD] = {0x16, 0x03, 0x01, 0x01, 0x00, 0x01,
                                                0x00, 0x00, 0xfc, 0x03, 0x03};

static void note(struct hostile *h, enum kind kind, const char *what)
{
    char name[TALLY_NAME_BYTES];
    snprintf(name, sizeof(name), "%s: %.40s", names[kind], what);
    tally_outcome(h->s.tally, name);
}

static void raw_end(struct raw *r, const char *what)
{
    struct hostile *h = r->hostile;
    struct raw **at = &h->raws;
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    note(h, r->kind, what);
    loop_untimer(h->s.target->loop, &r->timer);
    loop_unwatch(h->s.target->loop, &r->watch);
    close(r->watch.fd);
    h->at_once--;
    free(r);
}

static void raw_timer(struct timer *t)
{
    struct raw *r = (struct raw *)((char *)t - offsetof(struct raw, timer));
    int64_t now_us = clock_mono_us();
    if (now_us >= r->ends_us) {
        raw_end(r, "still open after 30 s");
        return;
    }
    /* one byte of the handshake at a time */
    if (r->dripped < RECORD_HEAD && write(r->watch.fd, &hello_head[r->dripped], 1) == 1)
        r->dripped++;
    if (loop_timer(r->hostile->s.target->loop, t, now_us + DRIP_US))
        abort();
}

static void raw_greet(struct raw *r)
{
    uint8_t data[GARBAGE_BYTES];
    ssize_t rc = 0;
    if (r->kind == GARBAGE && RAND_bytes(data, sizeof(data)) == 1)
        rc = write(r->watch.fd, data, sizeof(data));
    else if (r->kind == HALF_OPEN)
        rc = write(r->watch.fd, hello_head, sizeof(hello_head));
    if (rc < 0 && errno != EAGAIN) {
        raw_end(r, "reset");
        return;
    }
    loop_rewatch(r->hostile->s.target->loop, &r->watch, EPOLLIN | EPOLLRDHUP);
}

static void raw_ready(struct watch *w, uint32_t events)
{
    struct raw *r = (struct raw *)((char *)w - offsetof(struct raw, watch));
    uint8_t data[1024];
    if (events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP)) {
        raw_end(r, "closed by the server");
        return;
    }
    if (events & EPOLLOUT) {
        raw_greet(r);
        return;
    }
    if (read(w->fd, data, sizeof(data)) <= 0)
        raw_end(r, "closed by the server");
}

static void raw_send(struct hostile *h, enum kind kind)
{
    struct raw *r = h->at_once < HOSTILE_AT_ONCE ? calloc(1, sizeof(*r)) : NULL;
    if (!r)
        return;
    int64_t now_us = clock_mono_us();
    *r = (struct raw){.hostile = h, .next = h->raws, .kind = kind, .ends_us = now_us + PATIENCE_US};
    r->timer.due = raw_timer;
    r->watch = (struct watch){.events = EPOLLOUT, .ready = raw_ready};
    r->watch.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int rc = r->watch.fd < 0 ? -1
                             : connect(r->watch.fd, (const struct sockaddr *)&h->s.target->address,
                                       sizeof(h->s.target->address));
    if (r->watch.fd < 0 || (rc != 0 && errno != EINPROGRESS) ||
        loop_watch(h->s.target->loop, &r->watch)) {
        if (r->watch.fd >= 0)
            close(r->watch.fd);
        free(r);
        return;
    }
    h->raws = r;
    h->at_once++;
    if (loop_timer(h->s.target->loop, &r->timer,
                   kind == SLOW ? now_us + DRIP_US : now_us + PATIENCE_US))
        abort();
}

static void request_unlink(struct request *r)
{
    struct request **at = &r->hostile->asks;
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    r->hostile->at_once--;
}

static void request_done(struct call *c)
{
    struct request *r = c->owner;
    char what[48];
    const char *code =
        c->answer.len > 0 ? memmem(c->answer.data, c->answer.len, "\"code\":\"", 8) : NULL;
    if (c->stage != CALL_DONE)
        snprintf(what, sizeof(what), "closed by the server");
    else if (code)
        snprintf(what, sizeof(what), "%.*s", (int)strcspn(code + 8, "\""), code + 8);
    else
        snprintf(what, sizeof(what), "HTTP %d", c->status);
    note(r->hostile, r->kind, what);
    request_unlink(r);
    free(r);
}

static void request_send(struct hostile *h, enum kind kind)
{
    struct request *r = h->at_once < HOSTILE_AT_ONCE ? calloc(1, sizeof(*r)) : NULL;
    if (!r)
        return;
    *r = (struct request){.hostile = h, .next = h->asks, .kind = kind};
    r->call = (struct call){
        .target = h->s.target,
        .method = "POST",
        .path = "/.well-known/est/simpleenroll",
        .type = "application/pkcs10",
        .authorization = kind == REPLAY ? h->authorization : NULL,
        .body = buf_bytes(kind == OVERSIZED ? &h->big : &h->small),
        .certificate = kind == WRONG_CA ? h->stranger : NULL,
        .key = kind == WRONG_CA ? h->key : NULL,
        .done = request_done,
        .owner = r,
    };
    if (call_start(&r->call)) {
        free(r);
        return;
    }
    h->asks = r;
    h->at_once++;
}

void hostile_tick(struct hostile *h)
{
    const struct scenario *s = h->s.scenario;
    const int64_t each[] = {s->hostile_garbage,   s->hostile_half_open, s->hostile_slow,
                            s->hostile_oversized, s->hostile_wrong_ca,  s->hostile_replay};
    for (int kind = GARBAGE; kind <= REPLAY; kind++) {
        for (int64_t n = 0; n < each[kind]; n++) {
            if (kind <= SLOW)
                raw_send(h, (enum kind)kind);
            else
                request_send(h, (enum kind)kind);
        }
    }
}

static enum err prepare(struct hostile *h)
{
    char plain[128];
    struct buf b;
    h->key = keys_get(h->s.keys, 0);
    h->stranger = h->key ? credential_stranger(h->key, "stranger") : NULL;
    buf_init(&h->big, OVERSIZED_BYTES);
    buf_init(&h->small, 8192);
    if (!h->stranger)
        return ERR_NO_MEMORY;
    for (int i = 0; i < OVERSIZED_BYTES; i++)
        buf_add_char(&h->big, 'A');
    buf_init(&b, sizeof(h->authorization) - 1);
    snprintf(plain, sizeof(plain), "stranger:%s", h->s.spent_token ? h->s.spent_token : "mst_none");
    buf_add_text(&b, "Basic ");
    base64_encode(&b, bytes_text(plain));
    snprintf(h->authorization, sizeof(h->authorization), "%s", buf_text(&b));
    buf_done(&b);
    return credential_request(h->key, "stranger", NULL, &h->small);
}

enum err hostile_new(const struct hostile_settings *settings, struct hostile **ret_hostile)
{
    struct hostile *h = calloc(1, sizeof(*h));
    if (!h)
        return ERR_NO_MEMORY;
    h->s = *settings;
    enum err e = prepare(h);
    if (e)
        hostile_free(h);
    else
        *ret_hostile = h;
    return e;
}

void hostile_free(struct hostile *h)
{
    if (!h)
        return;
    while (h->raws)
        raw_end(h->raws, "open at the end");
    while (h->asks) {
        struct request *r = h->asks;
        call_abandon(&r->call);
        request_unlink(r);
        free(r);
    }
    EVP_PKEY_free(h->key);
    X509_free(h->stranger);
    buf_done(&h->big);
    buf_done(&h->small);
    free(h);
}
