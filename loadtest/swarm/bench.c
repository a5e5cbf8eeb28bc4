#include "bench.h"

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "credential.h"

enum {
    MAX_BODY_BYTES = 8192,
    MAX_AUTHORIZATION_BYTES = 256,
    RAW_TIMES = 2000,
    RAW_BYTES = 32,
    MAX_SIGNATURE_BYTES = 128,
    US_PER_S = 1000000
};

DEFINE_CLEANUP(EVP_PKEY *, EVP_PKEY_free);
DEFINE_CLEANUP(EVP_PKEY_CTX *, EVP_PKEY_CTX_free);

/* One request, made ahead. */
struct piece {
    struct batch *batch;
    struct call call;
    struct claim claim; /* instead, of a claim or of DPS */
    struct timer timer; /* when it is its turn, at a pace */
    EVP_PKEY *key;      /* the factory's, in TLS, or the device's own */
    X509 *cert;         /* likewise */
    struct buf body;
    int64_t took_us;
    char serial[BENCH_PREFIX_BYTES + 64];
    char authorization[MAX_AUTHORIZATION_BYTES];
};

/* All requests of one measurement. */
struct batch {
    struct bench *bench;
    const struct bench_order *order;
    struct piece *pieces;
    size_t started;
    size_t done;
    size_t good;
};

const char *bench_name(enum bench_kind kind)
{
    static const char *const names[] = {"GET /healthz",
                                        "token enrolment",
                                        "GET, client certificate",
                                        "certificate enrolment",
                                        "claim over HTTPS",
                                        "claim over MQTT",
                                        "DPS by key",
                                        "DPS by key, with CSR",
                                        "DPS by certificate"};
    return names[kind];
}

static EVP_PKEY *key_next(struct bench *b)
{
    return keys_get(b->keys, b->next_key++);
}

static void piece_end(struct batch *t, bool good)
{
    t->good += good;
    if (++t->done == t->order->requests)
        loop_stop(t->bench->world.loop);
}

static bool by_claim(enum bench_kind kind)
{
    return kind >= BENCH_CLAIM_HTTPS;
}

static void piece_start(struct piece *p)
{
    p->batch->started++;
    if (by_claim(p->batch->order->kind) ? claim_start(&p->claim) : call_start(&p->call))
        piece_end(p->batch, false);
}

static void piece_due(struct timer *t)
{
    piece_start((struct piece *)((char *)t - offsetof(struct piece, timer)));
}

/* The next one's turn. */
static void piece_pass(struct batch *t, bool good)
{
    if (t->order->per_s <= 0 && t->started < t->order->requests)
        piece_start(&t->pieces[t->started]);
    piece_end(t, good);
}

static void piece_done(struct call *c)
{
    struct piece *p = c->owner;
    struct batch *t = p->batch;
    bool good = c->stage == CALL_DONE && c->status == 200;
    p->took_us = c->ended_us - c->began_us;
    if (!good && t->done == t->good)
        fprintf(stderr, "swarm: HTTP %d %.*s\n", c->status, (int)c->answer.len,
                c->answer.data ? (const char *)c->answer.data : "");
    piece_pass(t, good);
}

static void piece_claimed(struct claim *c)
{
    struct piece *p = c->owner;
    struct batch *t = p->batch;
    bool good = c->end == CLAIM_DONE;
    p->took_us = c->ended_us - c->began_us;
    if (!good && t->done == t->good)
        fprintf(stderr, "swarm: %s\n", c->outcome);
    piece_pass(t, good);
}

static void pieces_free(struct batch *t)
{
    for (size_t n = 0; t->pieces && n < t->order->requests; n++) {
        struct piece *p = &t->pieces[n];
        claim_forget(&p->claim);
        EVP_PKEY_free(p->key);
        X509_free(p->cert);
        buf_done(&p->body);
    }
    free(t->pieces);
}

static enum err request_make(struct bench *b, struct piece *p, const char *serial,
                             const char *token)
{
    char plain[160];
    struct buf text;
    EVP_PKEY *key = key_next(b);
    buf_init(&p->body, MAX_BODY_BYTES);
    enum err e = key ? credential_request(key, serial, NULL, &p->body) : ERR_NO_MEMORY;
    EVP_PKEY_free(key);
    if (e || !token)
        return e;
    snprintf(plain, sizeof(plain), "%s:%s", serial, token);
    buf_init(&text, MAX_AUTHORIZATION_BYTES);
    buf_add_text(&text, "Basic ");
    base64_encode(&text, bytes_text(plain));
    snprintf(p->authorization, sizeof(p->authorization), "%s", buf_text(&text));
    buf_done(&text);
    return ERR_OK;
}

static enum err factory_make(struct bench *b, struct piece *p)
{
    p->key = key_next(b);
    p->cert = p->key ? credential_factory(p->key, p->serial, b->ca, b->ca_key) : NULL;
    return p->cert ? ERR_OK : ERR_NO_MEMORY;
}

static enum err claim_make(struct bench *b, struct piece *p, enum bench_kind kind)
{
    enum err e = ERR_OK;
    if (kind == BENCH_DPS_X509)
        e = factory_make(b, p);
    else if (kind != BENCH_DPS_SAS && !(p->key = key_next(b)))
        e = ERR_NO_MEMORY;
    p->claim = (struct claim){
        .door = &b->doors[kind],
        .target = kind == BENCH_CLAIM_MQTT ? &b->world.broker : &b->world.target,
        .serial = p->serial,
        .key = p->key,
        .born_cert = p->cert,
        .born_key = p->key,
        .done = piece_claimed,
        .owner = p,
    };
    return e;
}

static enum err call_make(struct piece *p, const char *token)
{
    struct bench *b = p->batch->bench;
    enum bench_kind kind = p->batch->order->kind;
    bool enrolment = kind == BENCH_TOKEN || kind == BENCH_CERT;
    bool certificate = kind == BENCH_GET_CERT || kind == BENCH_CERT;
    enum err e = enrolment ? request_make(b, p, p->serial, token) : ERR_OK;
    if (!e && certificate)
        e = factory_make(b, p);
    p->call = (struct call){
        .target = &b->world.target,
        .method = enrolment ? "POST" : "GET",
        .path = enrolment ? "/.well-known/est/" WORLD_TEMPLATE "/simpleenroll" : "/healthz",
        .type = enrolment ? "application/pkcs10" : NULL,
        .authorization = kind == BENCH_TOKEN ? p->authorization : NULL,
        .body = enrolment ? buf_bytes(&p->body) : bytes_of(NULL, 0),
        .certificate = p->cert,
        .key = p->key,
        .done = piece_done,
        .owner = p,
    };
    return e;
}

static enum err piece_make(struct batch *t, size_t n, const char *prefix, char *const *tokens)
{
    struct piece *p = &t->pieces[n];
    enum bench_kind kind = t->order->kind;
    p->batch = t;
    p->timer.due = piece_due;
    snprintf(p->serial, sizeof(p->serial), "%s-%06zu", prefix, n);
    return by_claim(kind) ? claim_make(t->bench, p, kind)
                          : call_make(p, kind == BENCH_TOKEN ? tokens[n] : NULL);
}

static enum err pieces_make(struct batch *t)
{
    struct bench *b = t->bench;
    enum bench_kind kind = t->order->kind;
    char prefix[BENCH_PREFIX_BYTES + 24];
    char **tokens = NULL;
    size_t count = 0;
    struct scenario s = {.devices = (int64_t)t->order->requests,
                         .bound_tokens = kind == BENCH_TOKEN,
                         .allowlist = 1,
                         .door = by_claim(kind) ? DOOR_CLAIM_HTTPS : DOOR_EST,
                         .template_name = WORLD_TEMPLATE};
    snprintf(prefix, sizeof(prefix), "%s%zu", b->prefix, b->batches++); /* never the same twice */
    enum err e = kind == BENCH_TOKEN || kind == BENCH_CERT || by_claim(kind)
                     ? world_prepare(&s, prefix, b->folder, &tokens, &count)
                     : ERR_OK;
    t->pieces = calloc(t->order->requests, sizeof(*t->pieces));
    if (!e && !t->pieces)
        e = ERR_NO_MEMORY;
    for (size_t n = 0; n < t->order->requests && !e; n++)
        e = piece_make(t, n, prefix, tokens);
    for (size_t i = 0; i < count; i++)
        free(tokens[i]);
    free(tokens);
    return e;
}

/* Lets the first ones go, or sets the hour of each. */
static enum err pieces_start(struct batch *t)
{
    const struct bench_order *o = t->order;
    enum err e = ERR_OK;
    int64_t now_us = clock_mono_us();
    for (size_t n = 0; n < o->requests && o->per_s > 0 && !e; n++)
        e = loop_timer(t->bench->world.loop, &t->pieces[n].timer,
                       now_us + (int64_t)((double)n * US_PER_S / o->per_s));
    while (o->per_s <= 0 && t->started < o->clients && t->started < o->requests)
        piece_start(&t->pieces[t->started]);
    return e;
}

static int by_time(const void *a, const void *b)
{
    int64_t x = ((const struct piece *)a)->took_us, y = ((const struct piece *)b)->took_us;
    return (x > y) - (x < y);
}

static void result_fill(struct batch *t, const struct usage_reading *before,
                        const struct usage_reading *after, int64_t wall_us,
                        struct bench_result *ret_result)
{
    size_t n = t->order->requests;
    qsort(t->pieces, n, sizeof(*t->pieces), by_time);
    *ret_result = (struct bench_result){
        .server_us = (double)(after->server_us - before->server_us) / (double)n,
        .database_us = (double)(after->database_us - before->database_us) / (double)n,
        .broker_us = (double)(after->broker_us - before->broker_us) / (double)n,
        .per_s = (double)n * US_PER_S / (double)(wall_us > 0 ? wall_us : 1),
        .p50_us = (double)t->pieces[n / 2].took_us,
        .p99_us = (double)t->pieces[n * 99 / 100].took_us,
    };
}

enum err bench_measure(struct bench *b, const struct bench_order *o,
                       struct bench_result *ret_result)
{
    struct usage_reading before, after;
    struct batch t = {.bench = b, .order = o};
    enum err e = pieces_make(&t);
    usage_read(&b->world.usage, &before);
    int64_t began_us = clock_mono_us();
    if (!e)
        e = pieces_start(&t);
    if (!e && t.done < o->requests)
        loop_run(b->world.loop);
    int64_t wall_us = clock_mono_us() - began_us;
    usage_read(&b->world.usage, &after);
    if (!e && t.good < o->requests) {
        fprintf(stderr, "swarm: only %zu of %zu requests of kind \"%s\" succeeded\n", t.good,
                o->requests, bench_name(o->kind));
        e = ERR_INVALID;
    }
    if (!e)
        result_fill(&t, &before, &after, wall_us, ret_result);
    pieces_free(&t);
    return e;
}

static int64_t thread_us(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (int64_t)ts.tv_sec * US_PER_S + ts.tv_nsec / 1000;
}

enum err bench_raw(double *ret_sign_us, double *ret_verify_us)
{
    const unsigned char digest[RAW_BYTES] = {1};
    unsigned char signature[MAX_SIGNATURE_BYTES];
    size_t len = 0;
    int good = 0;
    _cleanup_(EVP_PKEY_freep) EVP_PKEY *key = EVP_EC_gen("P-256");
    _cleanup_(EVP_PKEY_CTX_freep) EVP_PKEY_CTX *sign = EVP_PKEY_CTX_new(key, NULL);
    _cleanup_(EVP_PKEY_CTX_freep) EVP_PKEY_CTX *verify = EVP_PKEY_CTX_new(key, NULL);
    if (!sign || !verify || EVP_PKEY_sign_init(sign) != 1 || EVP_PKEY_verify_init(verify) != 1)
        return ERR_NO_MEMORY;
    int64_t began_us = thread_us();
    for (int n = 0; n < RAW_TIMES; n++) {
        len = sizeof(signature);
        good += EVP_PKEY_sign(sign, signature, &len, digest, sizeof(digest)) == 1;
    }
    int64_t signed_us = thread_us();
    for (int n = 0; n < RAW_TIMES; n++)
        good += EVP_PKEY_verify(verify, signature, len, digest, sizeof(digest)) == 1;
    *ret_sign_us = (double)(signed_us - began_us) / RAW_TIMES;
    *ret_verify_us = (double)(thread_us() - signed_us) / RAW_TIMES;
    return good == 2 * RAW_TIMES ? ERR_OK : ERR_SYSTEM;
}

enum err bench_open(struct bench *b, const struct usage *processes, const char *keys_path,
                    size_t keys, const char *folder)
{
    snprintf(b->prefix, sizeof(b->prefix), "r%llx%04x", (unsigned long long)clock_wall_s(),
             (unsigned)getpid() & 0xffffu);
    b->world.usage = *processes;
    b->folder = folder;
    for (int k = 0; k < BENCH_CLAIM_HTTPS; k++)
        b->has[k] = true;
    enum err e = world_open(&b->world);
    if (!e && (b->world.usage.server == 0 || b->world.usage.database == 0)) {
        fprintf(stderr, "swarm: name the processes with --server-pid and --database-pid\n");
        e = ERR_INVALID;
    }
    if (!e)
        e = keys_take(keys_path, KEYS_EC, 1 + keys, &b->keys);
    b->ca_key = e ? NULL : key_next(b);
    b->ca = b->ca_key ? credential_authority(b->ca_key, b->prefix) : NULL;
    if (!e && !b->ca)
        e = ERR_NO_MEMORY;
    return e ? e : world_register(b->ca, b->prefix, folder);
}

enum err bench_claims(struct bench *b)
{
    bool mqtt = getenv("MUSTER_MQTT_PORT") != NULL;
    enum err e = world_claim(&b->world, mqtt ? DOOR_CLAIM_MQTT : DOOR_CLAIM_HTTPS, b->prefix,
                             WORLD_TEMPLATE, b->folder);
    b->doors[BENCH_CLAIM_HTTPS] = b->doors[BENCH_CLAIM_MQTT] = b->world.claim;
    b->doors[BENCH_CLAIM_HTTPS].kind = DOOR_CLAIM_HTTPS;
    b->has[BENCH_CLAIM_HTTPS] = true;
    b->has[BENCH_CLAIM_MQTT] = mqtt;
    return e;
}

enum err bench_dps(struct bench *b)
{
    const struct scenario s = {.template_name = WORLD_TEMPLATE};
    char by_ca[BENCH_PREFIX_BYTES + sizeof("-x509")];
    snprintf(by_ca, sizeof(by_ca), "%s-x509", b->prefix);
    enum err e = world_group(&b->world, &s, b->prefix, NULL, &b->doors[BENCH_DPS_SAS]);
    if (!e)
        e = world_group(&b->world, &s, by_ca, b->prefix, &b->doors[BENCH_DPS_X509]);
    b->doors[BENCH_DPS_SAS_CSR] = b->doors[BENCH_DPS_SAS];
    b->doors[BENCH_DPS_SAS_CSR].csr = true;
    for (int k = BENCH_DPS_SAS; k <= BENCH_DPS_X509; k++)
        b->has[k] = true;
    return e;
}

void bench_close(struct bench *b)
{
    keys_free(b->keys);
    EVP_PKEY_free(b->ca_key);
    X509_free(b->ca);
    world_close(&b->world);
}
