/*
 * Requests of one kind, made ahead and then measured: so many at once, or at a pace; every one on
 * a connection of its own, and every one must succeed. Threads: the loop's own only.
 */
#pragma once

#include "keys.h"
#include "usage.h"
#include "world.h"

enum bench_kind {
    BENCH_GET,
    BENCH_TOKEN,
    BENCH_GET_CERT,
    BENCH_CERT,
    BENCH_CLAIM_HTTPS, /* both steps */
    BENCH_CLAIM_MQTT,
    BENCH_DPS_SAS,
    BENCH_DPS_SAS_CSR, /* a certificate with it */
    BENCH_DPS_X509,
    BENCH_KIND_COUNT
};

enum { BENCH_PREFIX_BYTES = 32, BENCH_MAX_REQUESTS = 10000 };

/* Where the measurements are made; made by bench_open. */
struct bench {
    struct world world;
    struct keys *keys;
    size_t next_key;
    size_t batches; /* measured, the one under way too */
    const char *folder;
    char prefix[BENCH_PREFIX_BYTES];
    EVP_PKEY *ca_key; /* of the factory */
    X509 *ca;
    bool has[BENCH_KIND_COUNT]; /* what can be measured */
    struct claim_door doors[BENCH_KIND_COUNT];
};

struct bench_order {
    enum bench_kind kind;
    size_t requests;
    size_t clients; /* at once */
    double per_s;   /* above 0: at this pace instead */
};

/* Per request; latencies from the start of the connection to the end of the answer. */
struct bench_result {
    double server_us; /* of CPU */
    double database_us;
    double broker_us;
    double per_s;
    double p50_us;
    double p99_us;
};

const char *bench_name(enum bench_kind kind);

/* keys: how many it takes from keys_path. folder: for what is handed to the operator's command.
 * Registers a template and a factory CA of its own; says on standard error what is wrong. */
enum err bench_open(struct bench *b, const struct usage *processes, const char *keys_path,
                    size_t keys, const char *folder) MUST_CHECK;

/* Makes a claim besides, so that both kinds of claims can be measured; that over MQTT where the
 * environment has a broker. */
enum err bench_claims(struct bench *b) MUST_CHECK;

/* Makes enrollment groups besides, so that registrations with DPS can be measured. */
enum err bench_dps(struct bench *b) MUST_CHECK;
void bench_close(struct bench *b);

enum err bench_measure(struct bench *b, const struct bench_order *o,
                       struct bench_result *ret_result) MUST_CHECK;

/* CPU microseconds of one signature and one verification with P-256 and nothing else, as
 * `openssl speed ecdsap256` has them. */
enum err bench_raw(double *ret_sign_us, double *ret_verify_us) MUST_CHECK;
