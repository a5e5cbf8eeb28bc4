#include "ratio.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/clock.h"
#include "credential.h"
#include "keys.h"
#include "world.h"

enum {
    MAX_ROUNDS = 99,
    MAX_BODY_BYTES = 8192,
    MAX_AUTHORIZATION_BYTES = 256,
    PREFIX_BYTES = 32,
    EXIT_UNABLE = 2,
};

enum kind { BARE, TOKEN, BARE_CERT, CERT, KIND_COUNT };

static const char *const names[] = {"GET /healthz", "token enrolment", "GET, client certificate",
                                    "certificate enrolment"};

/* One request, made ahead. */
struct piece {
    struct ratio *ratio;
    struct call call;
    EVP_PKEY *key; /* the factory's, in TLS */
    X509 *cert;    /* likewise */
    struct buf body;
    char authorization[MAX_AUTHORIZATION_BYTES];
};

struct ratio {
    const struct ratio_settings *s;
    struct world world;
    struct keys *keys;
    size_t next_key;
    char prefix[PREFIX_BYTES];
    EVP_PKEY *ca_key;
    X509 *ca;
    struct piece *pieces;
    size_t started;
    size_t done;
    size_t good;
    double us[KIND_COUNT][MAX_ROUNDS];
    double server_us[KIND_COUNT][MAX_ROUNDS];
};

static EVP_PKEY *key_next(struct ratio *r)
{
    return keys_get(r->keys, r->next_key++);
}

static void piece_start(struct ratio *r)
{
    struct piece *p = &r->pieces[r->started++];
    if (call_start(&p->call)) {
        r->done++;
        if (r->done == r->s->requests)
            loop_stop(r->world.loop);
    }
}

static void piece_done(struct call *c)
{
    struct piece *p = c->owner;
    struct ratio *r = p->ratio;
    r->done++;
    r->good += c->stage == CALL_DONE && c->status == 200;
    if (c->status != 200 && r->done == r->good + 1)
        fprintf(stderr, "swarm: HTTP %d %.*s\n", c->status, (int)c->answer.len,
                c->answer.data ? (const char *)c->answer.data : "");
    if (r->started < r->s->requests)
        piece_start(r);
    if (r->done == r->s->requests)
        loop_stop(r->world.loop);
}

static void pieces_free(struct ratio *r)
{
    for (size_t n = 0; r->pieces && n < r->s->requests; n++) {
        struct piece *p = &r->pieces[n];
        EVP_PKEY_free(p->key);
        X509_free(p->cert);
        buf_done(&p->body);
    }
    free(r->pieces);
    r->pieces = NULL;
}

static enum err request_make(struct ratio *r, struct piece *p, const char *serial,
                             const char *token)
{
    char plain[160];
    struct buf b;
    EVP_PKEY *key = key_next(r);
    buf_init(&p->body, MAX_BODY_BYTES);
    enum err e = key ? credential_request(key, serial, NULL, &p->body) : ERR_NO_MEMORY;
    EVP_PKEY_free(key);
    if (e || !token)
        return e;
    snprintf(plain, sizeof(plain), "%s:%s", serial, token);
    buf_init(&b, MAX_AUTHORIZATION_BYTES);
    buf_add_text(&b, "Basic ");
    base64_encode(&b, bytes_text(plain));
    snprintf(p->authorization, sizeof(p->authorization), "%s", buf_text(&b));
    buf_done(&b);
    return ERR_OK;
}

static enum err piece_make(struct ratio *r, size_t n, enum kind kind, const char *prefix,
                           char *const *tokens)
{
    struct piece *p = &r->pieces[n];
    bool enrolment = kind == TOKEN || kind == CERT, certificate = kind >= BARE_CERT;
    char serial[PREFIX_BYTES + 64];
    snprintf(serial, sizeof(serial), "%s-%06zu", prefix, n);
    enum err e = enrolment ? request_make(r, p, serial, kind == TOKEN ? tokens[n] : NULL) : ERR_OK;
    if (!e && certificate) {
        p->key = key_next(r);
        p->cert = p->key ? credential_factory(p->key, serial, r->ca, r->ca_key) : NULL;
        e = p->cert ? ERR_OK : ERR_NO_MEMORY;
    }
    p->ratio = r;
    p->call = (struct call){
        .target = &r->world.target,
        .method = enrolment ? "POST" : "GET",
        .path = enrolment ? "/.well-known/est/" WORLD_TEMPLATE "/simpleenroll" : "/healthz",
        .type = enrolment ? "application/pkcs10" : NULL,
        .authorization = kind == TOKEN ? p->authorization : NULL,
        .body = enrolment ? buf_bytes(&p->body) : bytes_of(NULL, 0),
        .certificate = p->cert,
        .key = p->key,
        .done = piece_done,
        .owner = p,
    };
    return e;
}

static enum err pieces_make(struct ratio *r, enum kind kind)
{
    char prefix[PREFIX_BYTES + 24];
    char **tokens = NULL;
    size_t count = 0;
    struct scenario s = {.devices = (int64_t)r->s->requests,
                         .bound_tokens = kind == TOKEN,
                         .allowlist = 1,
                         .template_name = WORLD_TEMPLATE};
    snprintf(prefix, sizeof(prefix), "%s%zu", r->prefix, r->next_key); /* never the same twice */
    enum err e = kind == TOKEN || kind == CERT
                     ? world_prepare(&s, prefix, r->s->folder, &tokens, &count)
                     : ERR_OK;
    r->pieces = calloc(r->s->requests, sizeof(*r->pieces));
    if (!e && !r->pieces)
        e = ERR_NO_MEMORY;
    for (size_t n = 0; n < r->s->requests && !e; n++)
        e = piece_make(r, n, kind, prefix, tokens);
    for (size_t i = 0; i < count; i++)
        free(tokens[i]);
    free(tokens);
    return e;
}

/* CPU microseconds of one kind of request in one round. */
static enum err kind_measure(struct ratio *r, enum kind kind, size_t round)
{
    struct usage_reading before, after;
    enum err e = pieces_make(r, kind);
    if (e) {
        pieces_free(r);
        return e;
    }
    r->started = r->done = r->good = 0;
    usage_read(&r->world.usage, &before);
    while (r->started < r->s->clients && r->started < r->s->requests)
        piece_start(r);
    loop_run(r->world.loop);
    usage_read(&r->world.usage, &after);
    double n = (double)r->s->requests;
    r->server_us[kind][round] = (double)(after.server_us - before.server_us) / n;
    r->us[kind][round] =
        r->server_us[kind][round] + (double)(after.database_us - before.database_us) / n;
    pieces_free(r);
    if (r->good == r->s->requests)
        return ERR_OK;
    fprintf(stderr, "swarm: only %zu of %zu requests of kind \"%s\" succeeded\n", r->good,
            r->s->requests, names[kind]);
    return ERR_INVALID;
}

static int double_compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t n)
{
    qsort(values, n, sizeof(*values), double_compare);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static void tell(struct ratio *r)
{
    double all[KIND_COUNT];
    printf("%zu clients at once, %zu requests of each kind, median of %zu rounds, CPU us\n",
           r->s->clients, r->s->requests, r->s->rounds);
    for (int k = 0; k < KIND_COUNT; k++) {
        double server = median(r->server_us[k], r->s->rounds);
        all[k] = median(r->us[k], r->s->rounds);
        printf("  %-26s %7.0f  musterd %.0f\n", names[k], all[k], server);
    }
    printf("ratio token %.2f\nratio cert %.2f\n", all[TOKEN] / all[BARE],
           all[CERT] / all[BARE_CERT]);
}

static enum err prepare(struct ratio *r)
{
    snprintf(r->prefix, sizeof(r->prefix), "r%llx%04x", (unsigned long long)clock_wall_s(),
             (unsigned)getpid() & 0xffffu);
    r->world.usage = r->s->processes;
    enum err e = world_open(&r->world);
    if (!e && (r->world.usage.server == 0 || r->world.usage.database == 0)) {
        fprintf(stderr, "swarm: name the processes with --server-pid and --database-pid\n");
        e = ERR_INVALID;
    }
    if (!e)
        e = keys_take(r->s->keys_path, 1 + 4 * r->s->requests * (r->s->rounds + 1), &r->keys);
    r->ca_key = e ? NULL : key_next(r);
    r->ca = r->ca_key ? credential_authority(r->ca_key, r->prefix) : NULL;
    if (!e && !r->ca)
        e = ERR_NO_MEMORY;
    return e ? e : world_register(r->ca, r->prefix, r->s->folder);
}

int ratio_run(const struct ratio_settings *settings)
{
    struct ratio r = {.s = settings};
    enum err e = settings->rounds <= MAX_ROUNDS ? prepare(&r) : ERR_INVALID;
    /* the first round warms everything up and is forgotten */
    for (size_t round = 0; round <= settings->rounds && !e; round++) {
        size_t at = round > 0 ? round - 1 : 0;
        for (int k = 0; k < KIND_COUNT && !e; k++) {
            e = kind_measure(&r, (enum kind)k, at);
        }
    }
    if (!e)
        tell(&r);
    keys_free(r.keys);
    EVP_PKEY_free(r.ca_key);
    X509_free(r.ca);
    world_close(&r.world);
    return e ? EXIT_UNABLE : 0;
}
