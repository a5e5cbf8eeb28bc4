#include <stdio.h>
#include <string.h>
#include <time.h>

#include <openssl/evp.h>
#include <openssl/x509.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "broker/batch.h"
#include "broker/conns.h"
#include "broker/table.h"
#include "broker/topics.h"
#include "model/topic_rules.h"
#include "suite.h"

enum { MILLION = 1000000, SECOND_US = 1000000 };

/* Without grants. */
static enum err put_value(struct table *t, const uint8_t *cert, enum wire_state state,
                          const char *thing, size_t len)
{
    const struct table_value value = {.state = state, .thing = bytes_of(thing, len)};
    return table_put(t, cert, &value);
}

/* Spread as digests are, and the same in every run. */
static void cert_number(uint64_t n, uint8_t ret_cert[SHA256_BYTES])
{
    for (int i = 0; i < 4; i++) {
        uint64_t x = n * 4 + (uint64_t)i + UINT64_C(0x9e3779b97f4a7c15);
        x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
        x ^= x >> 31;
        memcpy(ret_cert + 8 * i, &x, 8);
    }
}

static size_t thing_number(uint64_t n, char ret_thing[32])
{
    return (size_t)snprintf(ret_thing, 32, "pump-%08llu", (unsigned long long)n);
}

static void put(struct table *t, uint64_t n)
{
    uint8_t cert[SHA256_BYTES];
    char thing[32];
    cert_number(n, cert);
    size_t len = thing_number(n, thing);
    if (n % 10 == 0)
        ck_assert_int_eq(put_value(t, cert, WIRE_CLAIM, "", 0), ERR_OK);
    else
        ck_assert_int_eq(put_value(t, cert, WIRE_OPERATIONAL, thing, len), ERR_OK);
}

static bool is_there(const struct table *t, uint64_t n)
{
    uint8_t cert[SHA256_BYTES];
    char thing[32] = "";
    struct table_entry e;
    cert_number(n, cert);
    if (n % 10 != 0)
        thing_number(n, thing);
    return table_find(t, cert, &e) && strcmp(e.thing, thing) == 0 &&
           e.state == (n % 10 == 0 ? WIRE_CLAIM : WIRE_OPERATIONAL);
}

START_TEST(an_entry_comes_changes_and_goes)
{
    _cleanup_(table_freep) struct table *t = NULL;
    uint8_t cert[SHA256_BYTES];
    struct table_entry e;
    ck_assert_int_eq(table_new(&t), ERR_OK);
    cert_number(1, cert);
    ck_assert(!table_find(t, cert, &e) && !table_remove(t, cert));
    ck_assert_int_eq(put_value(t, cert, WIRE_CLAIM, "", 0), ERR_OK);
    ck_assert(table_find(t, cert, &e) && e.state == WIRE_CLAIM);
    ck_assert_str_eq(e.thing, "");
    ck_assert_int_eq(put_value(t, cert, WIRE_UNUSED, "pump", 4), ERR_OK);
    ck_assert_int_eq(put_value(t, cert, WIRE_OPERATIONAL, "pump", 4), ERR_OK);
    ck_assert(table_find(t, cert, &e) && e.state == WIRE_OPERATIONAL);
    ck_assert_str_eq(e.thing, "pump");
    ck_assert_uint_eq(table_count(t), 1);
    ck_assert(table_remove(t, cert) && !table_find(t, cert, &e));
    ck_assert_uint_eq(table_count(t), 0);
    ck_assert_int_eq(put_value(t, cert, WIRE_ABSENT, "", 0), ERR_INVALID);
    char longer[WIRE_MAX_THING_CHARS + 1];
    memset(longer, 'a', sizeof(longer));
    ck_assert_int_eq(put_value(t, cert, WIRE_OPERATIONAL, longer, sizeof(longer)), ERR_INVALID);
    ck_assert_int_eq(put_value(t, cert, WIRE_OPERATIONAL, longer, sizeof(longer) - 1), ERR_OK);
}
END_TEST

START_TEST(names_may_change_without_end)
{
    _cleanup_(table_freep) struct table *t = NULL;
    uint8_t cert[SHA256_BYTES];
    char thing[WIRE_MAX_THING_CHARS];
    struct table_entry e;
    ck_assert_int_eq(table_new(&t), ERR_OK);
    put(t, 7);
    cert_number(1, cert);
    memset(thing, 'x', sizeof(thing));
    for (size_t i = 0; i < 10000; i++) {
        size_t len = i % sizeof(thing) + 1;
        ck_assert_int_eq(put_value(t, cert, WIRE_OPERATIONAL, thing, len), ERR_OK);
        ck_assert(table_find(t, cert, &e) && strlen(e.thing) == len);
    }
    ck_assert(is_there(t, 7));
    ck_assert_uint_lt(table_bytes(t), 20000);
}
END_TEST

/* Against an array that knows better, over many segments. */
START_TEST(any_order_of_changes_leaves_what_it_should)
{
    enum { KEYS = 20000, STEPS = 200000 };
    static bool expected[KEYS];
    _cleanup_(table_freep) struct table *t = NULL;
    uint8_t cert[SHA256_BYTES];
    uint64_t random = 1;
    size_t count = 0;
    ck_assert_int_eq(table_new(&t), ERR_OK);
    for (int i = 0; i < STEPS; i++) {
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
        uint64_t n = (random >> 33) % KEYS;
        cert_number(n, cert);
        if (random >> 63)
            put(t, n);
        else
            ck_assert_int_eq(table_remove(t, cert), expected[n]);
        expected[n] = random >> 63;
    }
    for (uint64_t n = 0; n < KEYS; n++) {
        ck_assert_int_eq(is_there(t, n), expected[n]);
        count += expected[n];
    }
    ck_assert_uint_eq(table_count(t), count);
}
END_TEST

START_TEST(clearing_is_quick_and_gives_back)
{
    _cleanup_(table_freep) struct table *t = NULL;
    ck_assert_int_eq(table_new(&t), ERR_OK);
    for (int round = 0; round < 3; round++) {
        for (uint64_t n = 0; n < 20000; n++)
            put(t, n);
        table_clear(t);
        ck_assert_uint_eq(table_count(t), 0);
        ck_assert(!is_there(t, 1));
    }
    put(t, 5);
    for (int i = 0; i < 1000; i++)
        table_tidy(t);
    ck_assert(is_there(t, 5));
    ck_assert_uint_lt(table_bytes(t), 20000);
}
END_TEST

/* What BASIC_AUTH does beside Mosquitto's own work: the digest of a certificate and one look. */
static X509 *certificate_make(void)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    X509_set_version(x, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 7);
    X509_gmtime_adj(X509_getm_notBefore(x), 0);
    X509_gmtime_adj(X509_getm_notAfter(x), 86400);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                               (const unsigned char *)"pump", -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(x));
    X509_set_pubkey(x, key);
    ck_assert_int_gt(X509_sign(x, key, EVP_sha256()), 0);
    EVP_PKEY_free(key);
    return x;
}

static void auth_time(const struct table *t)
{
    enum { TIMES = 20000 };
    X509 *x = certificate_make();
    uint8_t cert[SHA256_BYTES];
    unsigned len = 0;
    struct table_entry e;
    int64_t begin = clock_mono_us();
    for (int i = 0; i < TIMES; i++) {
        ck_assert_int_eq(X509_digest(x, EVP_sha256(), cert, &len), 1);
        ck_assert(!table_find(t, cert, &e));
    }
    printf("digest and look-up at a connect: %.2f us\n", (double)(clock_mono_us() - begin) / TIMES);
    X509_free(x);
}

static void find_time(const struct table *t, uint64_t first, const char *what)
{
    int64_t begin = clock_mono_us();
    size_t found = 0;
    for (uint64_t n = 0; n < MILLION; n++)
        found += is_there(t, first + n);
    ck_assert_uint_eq(found, first == 0 ? MILLION : 0);
    printf("a look-up of one that is %s: %.3f us\n", what,
           (double)(clock_mono_us() - begin) / MILLION);
}

/* Of this thread's processor: what the machine does meanwhile is not the table's. */
static int64_t cpu_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * SECOND_US + now.tv_nsec / 1000;
}

START_TEST(a_million_entries)
{
    _cleanup_(table_freep) struct table *t = NULL;
    int64_t worst = 0, begin = cpu_us();
    unsigned slow = 0;
    ck_assert_int_eq(table_new(&t), ERR_OK);
    for (uint64_t n = 0; n < MILLION; n++) {
        int64_t before = cpu_us();
        put(t, n);
        int64_t took = cpu_us() - before;
        worst = took > worst ? took : worst;
        slow += took > 1000;
    }
    printf("a million entries: %.3f us each, the slowest %lld us, %u above 1 ms, %.1f bytes each\n",
           (double)(cpu_us() - begin) / MILLION, (long long)worst, slow,
           (double)table_bytes(t) / MILLION);
    ck_assert_uint_eq(table_count(t), MILLION);
    ck_assert_uint_lt(table_bytes(t), 72 * (size_t)MILLION);
    find_time(t, 0, "there");
    find_time(t, MILLION, "not there");
    auth_time(t);
    begin = clock_mono_us();
    table_clear(t);
    printf("clearing: %lld us\n", (long long)(clock_mono_us() - begin));
    ck_assert(!is_there(t, 1));
}
END_TEST

START_TEST(topics_of_a_claim)
{
    static const char *const requests[] = {
        "$aws/certificates/create/json",
        "$aws/certificates/create/cbor",
        "$aws/certificates/create-from-csr/json",
        "$aws/certificates/create-from-csr/cbor",
        "$aws/provisioning-templates/line-7_b/provision/json",
        "$aws/provisioning-templates/x/provision/cbor",
    };
    static const char *const others[] = {
        "",
        "$aws/certificates/create/",
        "$aws/certificates/create/xml",
        "$aws/certificates/create/json/",
        "$aws/certificates/create/jsonx",
        "$aws/certificates/+/json",
        "$aws/certificates/create/#",
        "$aws/provisioning-templates//provision/json",
        "$aws/provisioning-templates/+/provision/json",
        "$aws/provisioning-templates/a/b/provision/json",
        "$aws/provisioning-templates/0123456789012345678901234567890123456/provision/json",
        "x$aws/certificates/create/json",
        "$share/x/$aws/certificates/create/json",
    };
    char topic[200];
    for (size_t i = 0; i < ARRAY_LEN(requests); i++) {
        ck_assert(topic_is_request(requests[i]) && !topic_is_answer(requests[i]));
        snprintf(topic, sizeof(topic), "%s/accepted", requests[i]);
        ck_assert(topic_is_answer(topic) && !topic_is_request(topic));
        snprintf(topic, sizeof(topic), "%s/rejected", requests[i]);
        ck_assert(topic_is_answer(topic) && !topic_is_request(topic));
        snprintf(topic, sizeof(topic), "%s/rejected/x", requests[i]);
        ck_assert(!topic_is_answer(topic) && !topic_is_request(topic));
        snprintf(topic, sizeof(topic), "%s/+", requests[i]);
        ck_assert(!topic_is_answer(topic) && !topic_is_request(topic));
    }
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        ck_assert(!topic_is_request(others[i]));
        snprintf(topic, sizeof(topic), "%s/accepted", others[i]);
        ck_assert(!topic_is_answer(topic));
    }
}
END_TEST

START_TEST(topics_of_a_device_and_names_of_clients)
{
    ck_assert(topic_is_of_thing("things/pump/x", "pump"));
    ck_assert(topic_is_of_thing("$aws/things/pump/shadow/#", "pump"));
    ck_assert(!topic_is_of_thing("things/pump", "pump"));
    ck_assert(!topic_is_of_thing("things/pump/", "pump"));
    ck_assert(!topic_is_of_thing("things/pump2/x", "pump"));
    ck_assert(!topic_is_of_thing("things/+/x", "pump"));
    ck_assert(!topic_is_of_thing("things//x", ""));
    char longest[WIRE_MAX_CLIENT_CHARS + 2];
    memset(longest, 'a', sizeof(longest));
    longest[WIRE_MAX_CLIENT_CHARS + 1] = '\0';
    ck_assert(!client_id_valid(longest));
    longest[WIRE_MAX_CLIENT_CHARS] = '\0';
    ck_assert(client_id_valid(longest));
    static const char *const bad[] = {"", "a+", "#", "a/b", "a\nb", "\x7f", "\xc3("};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        ck_assert(!client_id_valid(bad[i]));
    ck_assert(!client_id_valid(NULL) && client_id_valid("p\xc3\xa4l $x"));
    ck_assert(client_id_is_service("musterd-1") && !client_id_is_service("muster"));
    char shown[TOPIC_SHOWN_BYTES];
    topic_show("a\x1b\xc3z", shown);
    ck_assert_str_eq(shown, "a??z");
}
END_TEST

/* Connections: X and Y stand for clients, which are compared only. */
static const int x_client, y_client;
static const void *const X = &x_client, *const Y = &y_client;

struct place {
    struct conns *c;
    uint8_t mine[SHA256_BYTES], other[SHA256_BYTES];
};

static void place_init(struct place *p)
{
    ck_assert_int_eq(conns_new(&p->c), ERR_OK);
    cert_number(1, p->mine);
    cert_number(2, p->other);
}

static enum err begin(struct place *p, const void *client, const uint8_t *cert, int64_t now_us)
{
    return conns_begin(p->c, "dev", client, cert, false, now_us);
}

START_TEST(a_client_id_is_its_certificates)
{
    struct place p;
    place_init(&p);
    ck_assert_int_eq(begin(&p, X, p.mine, 0), ERR_OK);
    uint64_t first = conns_find(p.c, "dev")->generation;
    ck_assert_int_eq(begin(&p, Y, p.other, 0), ERR_CONFLICT);
    ck_assert_uint_eq(conns_find(p.c, "dev")->generation, first);
    ck_assert_int_eq(begin(&p, Y, p.mine, 0), ERR_OK);
    uint64_t second = conns_find(p.c, "dev")->generation;
    ck_assert_uint_ne(first, second);
    conns_end(p.c, "dev", X);
    ck_assert_ptr_eq(conns_find(p.c, "dev")->client, Y);
    conns_end(p.c, "dev", Y);
    ck_assert_ptr_null(conns_find(p.c, "dev"));
    ck_assert_int_eq(begin(&p, X, p.other, 0), ERR_OK);
    conns_free(p.c);
}
END_TEST

START_TEST(who_waits_for_an_answer_is_not_taken_over)
{
    struct place p;
    place_init(&p);
    int64_t late = (int64_t)WIRE_ANSWER_TIMEOUT_S * SECOND_US;
    ck_assert_int_eq(begin(&p, X, p.mine, 0), ERR_OK);
    conn_asked(conns_find(p.c, "dev"), 5);
    conn_asked(conns_find(p.c, "dev"), 5);
    ck_assert_int_eq(begin(&p, Y, p.mine, late + 4), ERR_CONFLICT);
    conns_answered(p.c, conns_find(p.c, "dev"));
    conns_tick(p.c);
    conns_tick(p.c);
    ck_assert_int_eq(begin(&p, Y, p.mine, late + 4), ERR_CONFLICT);
    ck_assert_int_eq(begin(&p, Y, p.mine, late + 5), ERR_OK);
    conns_free(p.c);
}
END_TEST

START_TEST(an_answer_under_way_holds_the_client_id)
{
    struct place p;
    place_init(&p);
    ck_assert_int_eq(begin(&p, X, p.mine, 0), ERR_OK);
    conn_asked(conns_find(p.c, "dev"), 0);
    conns_answered(p.c, conns_find(p.c, "dev"));
    ck_assert_int_eq(begin(&p, Y, p.mine, 0), ERR_CONFLICT);
    conns_end(p.c, "dev", X);
    ck_assert_ptr_null(conns_find(p.c, "dev")->client);
    ck_assert_int_eq(begin(&p, Y, p.mine, 0), ERR_CONFLICT);
    conns_tick(p.c);
    ck_assert_int_eq(begin(&p, Y, p.mine, 0), ERR_CONFLICT);
    conns_tick(p.c);
    ck_assert_ptr_null(conns_find(p.c, "dev"));
    ck_assert_int_eq(begin(&p, Y, p.mine, 0), ERR_OK);
    conns_free(p.c);
}
END_TEST

START_TEST(an_entry_follows_the_client_that_lives)
{
    struct place p;
    place_init(&p);
    struct conn *n = conns_live(p.c, "dev", X, p.mine, false);
    uint64_t first = n->generation;
    ck_assert_ptr_eq(conns_live(p.c, "dev", X, p.mine, false), n);
    ck_assert_uint_eq(n->generation, first);
    conns_answered(p.c, n);
    n = conns_live(p.c, "dev", Y, p.other, false);
    ck_assert(n->client == Y && n->generation != first);
    ck_assert_mem_eq(n->cert, p.other, SHA256_BYTES);
    ck_assert_int_eq(begin(&p, Y, p.other, 0), ERR_CONFLICT);
    conns_free(p.c);
}
END_TEST

static bool is_mine(void *arg, const struct conn *n)
{
    const struct place *p = arg;
    return memcmp(n->cert, p->mine, SHA256_BYTES) == 0;
}

START_TEST(sessions_are_ended_by_certificate)
{
    struct place p;
    char id[16];
    place_init(&p);
    for (int i = 0; i < 100; i++) {
        snprintf(id, sizeof(id), "dev-%d", i);
        ck_assert_int_eq(conns_begin(p.c, id, X, i % 4 ? p.mine : p.other, i == 0, 0), ERR_OK);
    }
    ck_assert_uint_eq(conns_services(p.c), 1);
    ck_assert_ptr_null(conns_next_due(p.c));
    size_t ended = 0;
    conns_doom(p.c, p.other);
    conns_doom(p.c, p.other);
    for (struct conn *n; (n = conns_next_due(p.c)); ended++) {
        ck_assert(!is_mine(&p, n));
        snprintf(id, sizeof(id), "%s", n->id);
        conns_end(p.c, id, X);
    }
    ck_assert_uint_eq(ended, 25);
    ck_assert_uint_eq(conns_services(p.c), 0);
    ck_assert_int_eq(conns_begin(p.c, "x", X, p.other, false, 0), ERR_OK);
    for (int round = 0; round < 2; round++) {
        conns_sweep_begin(p.c);
        ck_assert(conns_sweep(p.c, is_mine, &p));
        conns_sweep_begin(p.c);
        while (conns_sweep(p.c, is_mine, &p))
            ;
        ck_assert_str_eq(conns_next_due(p.c)->id, "x");
    }
    conns_end(p.c, "x", X);
    ck_assert_ptr_null(conns_next_due(p.c));
    conns_free(p.c);
}
END_TEST

SUITE("broker_table", an_entry_comes_changes_and_goes, names_may_change_without_end,
      any_order_of_changes_leaves_what_it_should, clearing_is_quick_and_gives_back,
      a_million_entries, topics_of_a_claim, topics_of_a_device_and_names_of_clients,
      a_client_id_is_its_certificates, who_waits_for_an_answer_is_not_taken_over,
      an_answer_under_way_holds_the_client_id, an_entry_follows_the_client_that_lives,
      sessions_are_ended_by_certificate)
