/* The pool of pre-provisioning hooks against a server of our own. */
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/gate.h"
#include "base/secret.h"
#include "base/text.h"
#include "enroll/hook_internal.h"
#include "hook_server.h"
#include "suite.h"

enum {
    LONG_MS = 9000,
    SHORT_MS = 300,
    LATE_MS = 2000, /* what a loaded machine may add before it counts as waiting on */
    DEADLINE_MS = 30000,
    LOOK_MS = 2,
};

static const char secret[] = "0123456789abcdef";

#define ALLOW "{\"allowProvisioning\":true}"

static const struct hook_route routes[] = {
    {.path = "/allow", .status = "200 OK", .body = ALLOW},
    {.path = "/created", .status = "201 Created", .body = ALLOW},
    {.path = "/override",
     .status = "200 OK",
     .body = "{\"allowProvisioning\":true,\"parameterOverrides\":{\"Site\":\"basel\",\"X\":\"\"}}"},
    {.path = "/deny",
     .status = "200 OK",
     .body = "{\"allowProvisioning\":false,\"reason\":\"not\\nsold yet\"}"},
    {.path = "/held", .status = "200 OK", .body = ALLOW, .held = true},
    {.path = "/slow", .status = "200 OK", .body = ALLOW, .delay_ms = 400},
    {.path = "/broken", .status = "500 Internal Server Error", .body = ALLOW},
    {.path = "/moved", .status = "307 Moved", .body = ALLOW, .header = "Location: /allow\r\n"},
    {.path = "/empty", .status = "204 No Content", .body = ""},
    {.path = "/garbage", .status = "200 OK", .body = "<html>"},
    {.path = "/large", .status = "200 OK", .body = ALLOW, .padding_bytes = HOOK_MAX_ANSWER_BYTES},
    {.path = "/full",
     .status = "200 OK",
     .body = ALLOW,
     .padding_bytes = HOOK_MAX_ANSWER_BYTES - sizeof(ALLOW) + 1},
    {.path = "/gone"},
};

/* A pool and its server. */
struct rig {
    struct hook_server *server;
    struct hooks *hooks;
};

static struct hooks *pool(unsigned workers, unsigned max_waiting, const char *ca)
{
    struct hooks_config config = {bytes_text(secret), ca, workers, max_waiting};
    struct hooks *h = NULL;
    ck_assert_int_eq(hooks_new(&config, &h), ERR_OK);
    return h;
}

static struct rig rig_make(unsigned workers, unsigned max_waiting)
{
    return (struct rig){hook_server_start(routes, ARRAY_LEN(routes), false, NULL),
                        pool(workers, max_waiting, NULL)};
}

static void rig_end(struct rig *r)
{
    hook_server_release(r->server);
    hooks_free(r->hooks);
    hook_server_stop(r->server);
}

static unsigned requests_of(struct hook_server *s)
{
    struct hook_server_seen seen;
    hook_server_look(s, &seen);
    return seen.requests;
}

/* One question, asked here or on a thread of its own. */
struct ask {
    struct hooks *hooks;
    char url[128];
    unsigned timeout_ms;
    struct gate *gate;
    pthread_t thread;
    struct arena arena;
    enum err result;
    struct hook_answer answer;
    struct fault fault;
    int64_t took_ms;
};

static struct ask ask_of(const struct rig *r, const char *path, unsigned timeout_ms)
{
    struct ask a = {.hooks = r->hooks, .timeout_ms = timeout_ms};
    snprintf(a.url, sizeof(a.url), "http://127.0.0.1:%u%s", hook_server_port(r->server), path);
    return a;
}

static struct hook_question question(void)
{
    static const struct enrollment_parameter parameters[] = {{"SerialNumber", "SN-1"},
                                                             {"Site", "\"z\303\274rich\""}};
    return (struct hook_question){.request_id = "rq-1",
                                  .product = "pump",
                                  .template_name = "line",
                                  .template_version = 3,
                                  .claim_name = "line-7",
                                  .claim_certificate_id = "c1a1",
                                  .parameters = parameters,
                                  .parameter_count = ARRAY_LEN(parameters)};
}

static void *ask_run(void *arg)
{
    struct ask *a = arg;
    struct hook_question q = question();
    int64_t begun_us = clock_mono_us();
    q.url = a->url;
    q.timeout_ms = a->timeout_ms;
    q.gate = a->gate;
    arena_init(&a->arena, 1 << 20);
    a->result = hooks_ask(a->hooks, &q, &a->arena, &a->answer, &a->fault);
    a->took_ms = (clock_mono_us() - begun_us) / 1000;
    return NULL;
}

static void ask_start(struct ask *a)
{
    ck_assert_int_eq(pthread_create(&a->thread, NULL, ask_run, a), 0);
}

static void ask_refused(struct ask *a, enum fault_code code, const char *says)
{
    ck_assert_int_eq(a->result, ERR_DENIED);
    ck_assert_str_eq(fault_row(a->fault.code)->code, fault_row(code)->code);
    ck_assert_msg(strstr(a->fault.detail, says) != NULL, "%s: %s", a->url, a->fault.detail);
    ck_assert_uint_eq(a->answer.override_count, 0);
    arena_done(&a->arena);
}

static void ask_allowed(struct ask *a)
{
    ck_assert_msg(a->result == ERR_OK, "%s: %s", a->url, a->fault.detail);
    arena_done(&a->arena);
}

static void look_again(int64_t since_us)
{
    const struct timespec t = {0, LOOK_MS * 1000000L};
    ck_assert_int_lt((clock_mono_us() - since_us) / 1000, DEADLINE_MS);
    nanosleep(&t, NULL);
}

static void requests_await(struct hook_server *s, unsigned count)
{
    for (int64_t since_us = clock_mono_us(); requests_of(s) < count;)
        look_again(since_us);
}

static double metric(struct hooks *h, const char *name)
{
    _cleanup_(buf_donep) struct buf b;
    char line[128];
    buf_init(&b, 16384);
    hooks_write(h, &b);
    ck_assert(!b.overflow);
    snprintf(line, sizeof(line), "\n%s ", name);
    const char *at = strstr(buf_text(&b), line);
    ck_assert_msg(at != NULL, "%s", name);
    return strtod(at + strlen(line), NULL);
}

static void metric_await(struct hooks *h, const char *name, double value)
{
    for (int64_t since_us = clock_mono_us(); metric(h, name) != value;)
        look_again(since_us);
}

START_TEST(overrides_reach_the_caller)
{
    struct rig r = rig_make(2, 2);
    struct ask a = ask_of(&r, "/override", LONG_MS);
    ask_run(&a);
    ck_assert_uint_eq(a.answer.override_count, 2);
    ck_assert_str_eq(a.answer.overrides[0].name, "Site");
    ck_assert_str_eq(a.answer.overrides[0].value, "basel");
    ck_assert_str_eq(a.answer.overrides[1].value, "");
    ask_allowed(&a);
    rig_end(&r);
}
END_TEST

/* As docs/hooks.md tells its readers to do it. */
static void signature_check(const char *request)
{
    const char *at = strstr(request, "\r\nMuster-Signature: t="), *body = NULL;
    char signed_text[4096];
    int64_t t = 0;
    char hex[2 * SHA256_BYTES + 1];
    uint8_t given[SHA256_BYTES], own[SHA256_BYTES];
    ck_assert_ptr_nonnull(at);
    ck_assert_int_eq(sscanf(at, "\r\nMuster-Signature: t=%" SCNd64 ",v1=%64[0-9a-f]\r\n", &t, hex),
                     2);
    ck_assert_int_le(llabs((long long)(clock_wall_s() - t)), 60);
    body = strstr(request, "\r\n\r\n") + 4;
    snprintf(signed_text, sizeof(signed_text), "%" PRId64 ".%s", t, body);
    ck_assert_int_eq(text_parse_hex(hex, given, sizeof(given)), ERR_OK);
    ck_assert_int_eq(digest_hmac_sha256(bytes_text(secret), bytes_text(signed_text), own), ERR_OK);
    ck_assert_mem_eq(given, own, sizeof(own));
}

START_TEST(requests_are_signed_and_connections_kept)
{
    static struct hook_server_seen seen;
    struct rig r = rig_make(1, 2);
    ck_assert_int_eq(setenv("http_proxy", "http://127.0.0.1:1", 1), 0);
    for (int i = 0; i < 3; i++) {
        struct ask a = ask_of(&r, i == 1 ? "/created" : "/allow", LONG_MS);
        ask_run(&a);
        ask_allowed(&a);
    }
    hook_server_look(r.server, &seen);
    ck_assert_uint_eq(seen.requests, 3);
    ck_assert_uint_eq(seen.connections, 1);
    ck_assert_ptr_nonnull(strstr(seen.last, "\r\nMuster-Request-Id: rq-1\r\n"));
    ck_assert_ptr_nonnull(strstr(seen.last, "\r\nUser-Agent: muster/" MUSTER_VERSION "\r\n"));
    ck_assert_ptr_nonnull(strstr(seen.last, "\r\nContent-Type: application/json\r\n"));
    signature_check(seen.last);
    rig_end(&r);
}
END_TEST

START_TEST(whatever_is_no_yes_is_a_no)
{
    static const struct {
        const char *path;
        enum fault_code code;
        const char *says;
    } cases[] = {
        {"/deny", FAULT_HOOK_DENIED, "allowProvisioning is false: not sold yet"},
        {"/broken", FAULT_HOOK_FAILED, "status 500"},
        {"/moved", FAULT_HOOK_FAILED, "status 307"},
        {"/empty", FAULT_HOOK_FAILED, "no JSON object"},
        {"/garbage", FAULT_HOOK_FAILED, "no JSON object"},
        {"/large", FAULT_HOOK_FAILED, "too large"},
        {"/gone", FAULT_HOOK_FAILED, "no data"},
    };
    struct rig r = rig_make(2, 2);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct ask a = ask_of(&r, cases[i].path, LONG_MS);
        ask_run(&a);
        ask_refused(&a, cases[i].code, cases[i].says);
    }
    struct ask nobody = {.hooks = r.hooks, .url = "http://127.0.0.1:1/", .timeout_ms = LONG_MS};
    ask_run(&nobody);
    ask_refused(&nobody, FAULT_HOOK_FAILED, "connect");
    struct ask full = ask_of(&r, "/full", LONG_MS);
    ask_run(&full);
    ask_allowed(&full);
    ck_assert(metric(r.hooks, "muster_hook_calls_total{result=\"denied\"}") == 1);
    ck_assert(metric(r.hooks, "muster_hook_calls_total{result=\"failed\"}") == 7);
    ck_assert(metric(r.hooks, "muster_hook_calls_total{result=\"allowed\"}") == 1);
    ck_assert(metric(r.hooks, "muster_hook_seconds_count") == 9);
    rig_end(&r);
}
END_TEST

static void in_time(const struct ask *a)
{
    ck_assert_int_ge(a->took_ms, a->timeout_ms);
    ck_assert_int_lt(a->took_ms, a->timeout_ms + LATE_MS);
}

START_TEST(a_slow_hook_costs_its_timeout_and_others_nothing)
{
    struct rig r = rig_make(2, 2);
    struct ask slow = ask_of(&r, "/held", SHORT_MS * 4), fast = ask_of(&r, "/allow", SHORT_MS * 4);
    ask_start(&slow);
    requests_await(r.server, 1);
    ask_run(&fast);
    ask_allowed(&fast);
    ck_assert_int_eq(pthread_join(slow.thread, NULL), 0);
    in_time(&slow);
    ask_refused(&slow, FAULT_HOOK_FAILED, HOOK_LATE);
    rig_end(&r);
}
END_TEST

START_TEST(a_full_queue_is_told_at_once)
{
    struct rig r = rig_make(1, 1);
    struct ask first = ask_of(&r, "/held", LONG_MS), second = ask_of(&r, "/allow", LONG_MS),
               third = ask_of(&r, "/allow", LONG_MS);
    ask_start(&first);
    requests_await(r.server, 1);
    ask_start(&second);
    metric_await(r.hooks, "muster_hook_waiting", 1);
    ask_run(&third);
    ck_assert_int_lt(third.took_ms, LATE_MS);
    ask_refused(&third, FAULT_HOOK_BUSY, "1 hooks are being asked, 1 requests wait");
    ck_assert(metric(r.hooks, "muster_hook_calls_total{result=\"busy\"}") == 1);
    hook_server_release(r.server);
    ck_assert_int_eq(pthread_join(first.thread, NULL), 0);
    ck_assert_int_eq(pthread_join(second.thread, NULL), 0);
    ask_allowed(&first);
    ask_allowed(&second);
    rig_end(&r);
}
END_TEST

START_TEST(the_time_in_the_queue_counts)
{
    struct rig r = rig_make(1, 2);
    struct ask first = ask_of(&r, "/held", LONG_MS), second = ask_of(&r, "/allow", SHORT_MS),
               third = ask_of(&r, "/allow", LONG_MS);
    ask_start(&first);
    requests_await(r.server, 1);
    ask_start(&second);
    metric_await(r.hooks, "muster_hook_waiting", 1);
    ask_start(&third);
    ck_assert_int_eq(pthread_join(second.thread, NULL), 0);
    in_time(&second);
    ask_refused(&second, FAULT_HOOK_FAILED, "could not be asked in time");
    metric_await(r.hooks, "muster_hook_waiting", 1);
    hook_server_release(r.server);
    ck_assert_int_eq(pthread_join(first.thread, NULL), 0);
    ck_assert_int_eq(pthread_join(third.thread, NULL), 0);
    ask_allowed(&first);
    ask_allowed(&third);
    ck_assert_uint_eq(requests_of(r.server), 2);
    rig_end(&r);
}
END_TEST

START_TEST(the_pool_ends_while_calls_run)
{
    struct rig r = rig_make(1, 2);
    struct ask running = ask_of(&r, "/slow", LONG_MS), waiting = ask_of(&r, "/allow", LONG_MS);
    ask_start(&running);
    requests_await(r.server, 1);
    ask_start(&waiting);
    metric_await(r.hooks, "muster_hook_waiting", 1);
    hooks_free(TAKE_PTR(r.hooks));
    ck_assert_int_eq(pthread_join(running.thread, NULL), 0);
    ck_assert_int_eq(pthread_join(waiting.thread, NULL), 0);
    ask_allowed(&running);
    ask_refused(&waiting, FAULT_HOOK_FAILED, "shutting down");
    rig_end(&r);
}
END_TEST

START_TEST(who_waits_is_outside_the_gate)
{
    struct rig r = rig_make(1, 1);
    struct gate gate;
    struct ask a = ask_of(&r, "/held", LONG_MS);
    struct gate_state state;
    ck_assert_int_eq(gate_init(&gate, 1, 1), ERR_OK);
    ck_assert_int_eq(gate_enter(&gate, 1), ERR_OK);
    a.gate = &gate;
    ask_start(&a);
    requests_await(r.server, 1);
    ck_assert_int_eq(gate_enter(&gate, LONG_MS), ERR_OK);
    gate_leave(&gate);
    hook_server_release(r.server);
    ck_assert_int_eq(pthread_join(a.thread, NULL), 0);
    ask_allowed(&a);
    gate_look(&gate, &state);
    ck_assert_uint_eq(state.inside, 1);
    gate_done(&gate);
    rig_end(&r);
}
END_TEST

START_TEST(many_at_once)
{
    enum { CALLERS = 24 };
    static struct ask asks[CALLERS];
    struct rig r = rig_make(4, CALLERS);
    for (int i = 0; i < CALLERS; i++) {
        asks[i] = ask_of(&r, i % 3 ? "/override" : "/deny", LONG_MS);
        ask_start(&asks[i]);
    }
    for (int i = 0; i < CALLERS; i++) {
        ck_assert_int_eq(pthread_join(asks[i].thread, NULL), 0);
        if (i % 3)
            ask_allowed(&asks[i]);
        else
            ask_refused(&asks[i], FAULT_HOOK_DENIED, "not sold yet");
    }
    rig_end(&r);
}
END_TEST

START_TEST(without_a_secret_no_hook_is_asked)
{
    struct rig r = rig_make(1, 1);
    struct hooks_config config = {.workers = 1, .max_waiting = 1};
    hooks_free(TAKE_PTR(r.hooks));
    ck_assert_int_eq(hooks_new(&config, &r.hooks), ERR_OK);
    struct ask a = ask_of(&r, "/allow", LONG_MS);
    ask_run(&a);
    ask_refused(&a, FAULT_HOOK_FAILED, "no secret");
    ck_assert_uint_eq(requests_of(r.server), 0);
    rig_end(&r);
    config.ca = "/nonexistent.pem";
    ck_assert_int_eq(hooks_new(&config, &r.hooks), ERR_SYSTEM);
}
END_TEST

static struct ask ask_tls(struct hooks *h, const struct hook_server *s, const char *host)
{
    struct ask a = {.hooks = h, .timeout_ms = LONG_MS};
    snprintf(a.url, sizeof(a.url), "https://%s:%u/override", host, hook_server_port(s));
    ask_run(&a);
    return a;
}

START_TEST(a_server_of_another_ca_or_name_is_not_asked)
{
    char ca[] = "/tmp/muster-hooks-XXXXXX", other_ca[] = "/tmp/muster-hooks-XXXXXX";
    ck_assert(mkstemp(ca) >= 0 && mkstemp(other_ca) >= 0);
    signal(SIGPIPE, SIG_IGN); /* the server's, whose clients hang up in the handshake */
    struct hook_server *server = hook_server_start(routes, ARRAY_LEN(routes), true, ca);
    struct hook_server *other = hook_server_start(routes, ARRAY_LEN(routes), true, other_ca);
    struct hooks *ours = pool(1, 1, ca), *systems = pool(1, 1, NULL);
    struct ask good = ask_tls(ours, server, "127.0.0.1");
    ask_allowed(&good);
    struct ask refused[] = {ask_tls(ours, server, "localhost"), ask_tls(ours, other, "127.0.0.1"),
                            ask_tls(systems, server, "127.0.0.1")};
    for (size_t i = 0; i < ARRAY_LEN(refused); i++)
        ask_refused(&refused[i], FAULT_HOOK_FAILED, "SSL");
    ck_assert_uint_eq(requests_of(server), 1);
    ck_assert_uint_eq(requests_of(other), 0);
    hooks_free(ours);
    hooks_free(systems);
    hook_server_stop(server);
    hook_server_stop(other);
    ck_assert(unlink(ca) == 0 && unlink(other_ca) == 0);
}
END_TEST

SUITE("hooks", overrides_reach_the_caller, requests_are_signed_and_connections_kept,
      whatever_is_no_yes_is_a_no, a_slow_hook_costs_its_timeout_and_others_nothing,
      a_full_queue_is_told_at_once, the_time_in_the_queue_counts, the_pool_ends_while_calls_run,
      who_waits_is_outside_the_gate, many_at_once, without_a_secret_no_hook_is_asked,
      a_server_of_another_ca_or_name_is_not_asked)
