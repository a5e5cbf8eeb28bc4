/* What http/ and RFC 9440 read from strangers and balancers, as bytes. */
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <malloc.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "http/address.h"
#include "http/handshake.h"
#include "http/proxy_v2.h"
#include "http/random.h"
#include "proto/client_cert.h"
#include "suite.h"

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define TCP4 "\xc0\x00\x02\x07\x7f\x00\x00\x01\x30\x39\x01\xbb"
#define TCP6                                                                                       \
    "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\x30\x39" \
    "\x01\xbb"
#define MAPPED                                                                                     \
    "\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\x00\x02\x08\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\x01\x30\x39" \
    "\x01\xbb"
#define BYTES(s)                                                                                   \
    {                                                                                              \
        (const uint8_t *)(s), sizeof(s) - 1                                                        \
    }

START_TEST(proxy_headers_that_are_taken)
{
    static const struct {
        struct bytes header;
        const char *source; /* NULL: the connection's own */
    } cases[] = {
        {BYTES(SIGNATURE "\x21\x11\x00\x0c" TCP4), "192.0.2.7"},
        {BYTES(SIGNATURE "\x21\x11\x00\x10" TCP4 "\x04\x00\x01\x00"), "192.0.2.7"},
        {BYTES(SIGNATURE "\x21\x21\x00\x24" TCP6), "2001:db8::1"},
        {BYTES(SIGNATURE "\x21\x21\x00\x24" MAPPED), "192.0.2.8"},
        {BYTES(SIGNATURE "\x20\x00\x00\x00"), NULL},
        {BYTES(SIGNATURE "\x20\x11\x00\x0c" TCP4), NULL},
        {BYTES(SIGNATURE "\x21\x00\x00\x03xyz"), NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct proxy_v2 p = {0};
        size_t len = 0;
        char text[ADDRESS_TEXT_BYTES];
        ck_assert_int_eq(proxy_v2_length(cases[i].header, &len), ERR_OK);
        ck_assert_uint_eq(len, cases[i].header.len);
        ck_assert_int_eq(proxy_v2_decode(cases[i].header, &p), ERR_OK);
        ck_assert_int_eq(p.local, cases[i].source == NULL);
        address_text(&p.source, text);
        if (cases[i].source)
            ck_assert_str_eq(text, cases[i].source);
    }
}
END_TEST

START_TEST(proxy_headers_that_are_refused)
{
    static const struct bytes cases[] = {
        BYTES(""),
        BYTES("PROXY TCP4 192.0.2.7 127.0.0.1 12345 443\r\n"),
        BYTES("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00\x00"),
        BYTES(SIGNATURE "\x21\x11\x00"),                    /* the fixed part is not whole */
        BYTES("\r\n\r\n\0\r\nQUIT\r\x21\x11\x00\x0c" TCP4), /* the signature's last byte */
        BYTES(SIGNATURE "\x11\x11\x00\x0c" TCP4),           /* version 1 */
        BYTES(SIGNATURE "\x31\x11\x00\x0c" TCP4),           /* version 3 */
        BYTES(SIGNATURE "\x22\x11\x00\x0c" TCP4),           /* a command that is none */
        BYTES(SIGNATURE "\x21\x12\x00\x0c" TCP4),           /* UDP */
        BYTES(SIGNATURE "\x21\x31\x00\xd8"),                /* a local socket */
        BYTES(SIGNATURE "\x21\x10\x00\x0c" TCP4),           /* IPv4, no transport */
        BYTES(SIGNATURE "\x21\x41\x00\x0c" TCP4),           /* a family that is none */
        BYTES(SIGNATURE "\x21\x11\x00\x0b" TCP4),           /* shorter than its addresses */
        BYTES(SIGNATURE "\x21\x21\x00\x23" TCP6),           /* likewise */
        BYTES(SIGNATURE "\x21\x11\x00\x0d" TCP4),           /* longer than what came */
        BYTES(SIGNATURE "\x21\x11\x00\x0c" TCP4 "x"),       /* something behind it */
        BYTES(SIGNATURE "\x21\x11\xff\xff" TCP4),           /* past the limit */
        BYTES(SIGNATURE "\x20\x00\x08\x01"),                /* likewise, LOCAL */
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct proxy_v2 p = {.local = true};
        ck_assert_msg(proxy_v2_decode(cases[i], &p) == ERR_INVALID, "case %zu", i);
    }
}
END_TEST

START_TEST(the_length_is_known_from_the_fixed_part)
{
    size_t len = 0;
    static const struct bytes longest = BYTES(SIGNATURE "\x21\x11\x08\x00");
    ck_assert_int_eq(proxy_v2_length(longest, &len), ERR_OK);
    ck_assert_uint_eq(len, PROXY_V2_MAX_BYTES);
    static const struct bytes longer = BYTES(SIGNATURE "\x21\x11\x08\x01");
    ck_assert_int_eq(proxy_v2_length(longer, &len), ERR_INVALID);
}
END_TEST

static bool listed(const char *list, const char *address)
{
    struct address_list l = {0};
    struct sockaddr_storage a = {0};
    ck_assert_msg(address_list_parse(list, &l) == ERR_OK, "%s", list);
    ck_assert_msg(address_parse(address, &a) == ERR_OK, "%s", address);
    return address_list_has(&l, &a);
}

START_TEST(ranges_of_addresses)
{
    ck_assert(listed("127.0.0.1", "127.0.0.1"));
    ck_assert(!listed("127.0.0.1", "127.0.0.2"));
    ck_assert(!listed("", "127.0.0.1"));
    ck_assert(listed("10.0.0.0/8, 192.0.2.0/25", "192.0.2.127"));
    ck_assert(!listed("10.0.0.0/8, 192.0.2.0/25", "192.0.2.128"));
    ck_assert(listed("10.0.0.0/8", "::ffff:10.1.2.3"));
    ck_assert(listed("0.0.0.0/0", "203.0.113.9"));
    ck_assert(!listed("0.0.0.0/0", "2001:db8::1"));
    ck_assert(listed("2001:db8::/33", "2001:db8:7fff::1"));
    ck_assert(!listed("2001:db8::/33", "2001:db8:8000::1"));
    ck_assert(listed("::1,fd00::/8", "fd12::1"));
    ck_assert(!listed("::1/128", "::2"));
    ck_assert(listed("::/0", "::2"));
}
END_TEST

START_TEST(ranges_that_are_refused)
{
    static const char *const cases[] = {
        "localhost",   "10.0.0.1/8",     "10.0.0.0/33",    "::/129",
        "10.0.0.0/-1", "10.0.0.0/",      "10.0.0",         "fe80::1%lo",
        "1.2.3.4/8x",  "2001:db8::1/32", "10.0.0.0/8;::1", "127.0.0.1:80",
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct address_list l = {0};
        ck_assert_msg(address_list_parse(cases[i], &l) == ERR_INVALID, "%s", cases[i]);
    }
    char many[34 * 8] = "";
    struct address_list l = {0};
    for (int i = 0; i < ADDRESS_MAX_RANGES + 1; i++)
        strcat(many, "1.1.1.1,");
    ck_assert_int_eq(address_list_parse(many, &l), ERR_INVALID);
}
END_TEST

START_TEST(client_certs_that_are_taken)
{
    static const struct {
        const char *cert, *chain;
        size_t count;
    } cases[] = {
        {NULL, NULL, 0},
        {":AAEC:", NULL, 1},
        {" :AAEC: ", "", 1},
        {":AAEC:", ":AQ==:", 2},
        {":AAEC:", ":AQ==:, :AgM=:\t,\t:AAEC:", 4},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct arena a;
        struct bytes chain[CLIENT_CERT_MAX];
        struct fault fault = {0};
        size_t count = 99;
        arena_init(&a, 8192);
        ck_assert_msg(client_cert_parse(&a, cases[i].cert, cases[i].chain, chain, CLIENT_CERT_MAX,
                                        &count, &fault) == ERR_OK,
                      "%zu: %s", i, fault.detail);
        ck_assert_uint_eq(count, cases[i].count);
        if (count > 0)
            ck_assert(bytes_equal(chain[0], bytes_of("\0\1\2", 3)));
        if (count > 1)
            ck_assert(bytes_equal(chain[1], bytes_of("\1", 1)));
        arena_done(&a);
    }
}
END_TEST

START_TEST(client_certs_that_are_refused)
{
    static const struct {
        const char *cert, *chain;
    } cases[] = {
        {"", NULL},
        {"AAEC", NULL},
        {"::", NULL},
        {":AAEC", NULL},
        {":AAE:", NULL},
        {":AA EC:", NULL},
        {":AAEC:;a=1", NULL},
        {":AAEC:, :AAEC:", NULL},
        {":AA-_:", NULL},
        {":AR==:", NULL},
        {":A=AA:", NULL},
        {"\"AAEC\"", NULL},
        {NULL, ":AAEC:"},
        {":AAEC:", ":AAEC:,"},
        {":AAEC:", ",:AAEC:"},
        {":AAEC:", ":AAEC: :AAEC:"},
        {":AAEC:", ":AAEC:;q=1"},
        {":AAEC:", "(:AAEC:)"},
        {":AAEC:", ":AQ==:,:AQ==:,:AQ==:,:AQ==:,:AQ==:,:AQ==:,:AQ==:,:AQ==:"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct arena a;
        struct bytes chain[CLIENT_CERT_MAX];
        struct fault fault = {0};
        size_t count = 99;
        arena_init(&a, 8192);
        ck_assert_msg(client_cert_parse(&a, cases[i].cert, cases[i].chain, chain, CLIENT_CERT_MAX,
                                        &count, &fault) == ERR_DENIED,
                      "case %zu", i);
        ck_assert_int_eq(fault.code, FAULT_PROXY_HEADER_MALFORMED);
        ck_assert_uint_eq(count, 99);
        arena_done(&a);
    }
}
END_TEST

START_TEST(a_client_cert_has_a_longest_length)
{
    struct arena a;
    struct bytes chain[CLIENT_CERT_MAX];
    struct fault fault = {0};
    size_t count = 0;
    arena_init(&a, 1 << 20);
    for (size_t len = CLIENT_CERT_MAX_BYTES / 3 * 3; len <= CLIENT_CERT_MAX_BYTES + 3; len += 3) {
        size_t chars = len / 3 * 4;
        char *text = arena_alloc(&a, chars + 3);
        ck_assert_ptr_nonnull(text);
        memset(text, 'A', chars + 2);
        text[0] = text[chars + 1] = ':';
        ck_assert_int_eq(client_cert_parse(&a, text, NULL, chain, CLIENT_CERT_MAX, &count, &fault),
                         len <= CLIENT_CERT_MAX_BYTES ? ERR_OK : ERR_DENIED);
    }
    arena_done(&a);
}
END_TEST

START_TEST(the_last_forwarded_address_counts)
{
    static const char *const cases[][2] = {
        {"192.0.2.1", "192.0.2.1"},
        {"10.9.9.9, 192.0.2.1", "192.0.2.1"},
        {"a,b ,\t2001:db8::1 ", "2001:db8::1"},
        {"192.0.2.1,", ""},
        {"", ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct arena a;
        arena_init(&a, 1024);
        ck_assert_str_eq(client_cert_address(&a, cases[i][0]), cases[i][1]);
        arena_done(&a);
    }
}
END_TEST

#define RANDOM "0123456789abcdef0123456789abcdef"

START_TEST(versions_a_client_hello_offers)
{
    static const struct {
        struct bytes hello;
        unsigned version;
    } cases[] = {
        {BYTES("\x03\x02" RANDOM "\x00\x00\x02\x00\x2f\x01\x00"), 0x0302},
        {BYTES("\x03\x03" RANDOM "\x00\x00\x02\x00\x2f\x01\x00\x00\x00"), 0x0303},
        {BYTES("\x03\x03" RANDOM "\x00\x00\x02\x00\x2f\x01\x00\x00\x09\x00\x2b\x00\x05\x04\x03\x04"
               "\x03\x03"),
         0x0304},
        {BYTES("\x03\x03" RANDOM "\x00\x00\x02\x00\x2f\x01\x00\x00\x09\x00\x2b\x00\x05\x04\x7a\x7a"
               "\x03\x02"),
         0x0302},
        {BYTES("\x03\x03" RANDOM "\x00\x00\x02\x00\x2f\x01\x00\x00\x09\x00\x2b\x00\x06\x04\x03\x04"
               "\x03\x03"),
         0x0303},
        {BYTES("\x03\x03" RANDOM "\x20\x00\x02"), 0},
        {BYTES("\x03\x03"), 0},
        {BYTES(""), 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        ck_assert_msg(handshake_offered(cases[i].hello) == cases[i].version, "case %zu", i);
}
END_TEST

#ifdef __SANITIZE_ADDRESS__
size_t __sanitizer_get_current_allocated_bytes(void); /* gcc 12 of Debian has no header for it */
#endif

static size_t bytes_in_use(void)
{
#ifdef __SANITIZE_ADDRESS__
    return __sanitizer_get_current_allocated_bytes();
#else
    return mallinfo2().uordblks;
#endif
}

/* As a handshake does, inside the library. */
static void *key_make(void *ret_error)
{
    gnutls_datum_t key = {NULL, 0};
    *(int *)ret_error = gnutls_key_generate(&key, 32);
    gnutls_free(key.data);
    return NULL;
}

START_TEST(gnutls_keeps_nothing_of_threads_that_ended)
{
    enum { THREADS = 2000, MOST_BYTES = 32 * 1024 };
    size_t before = 0;
    ck_assert(random_is_ours());
    for (int i = -10; i < THREADS; i++) {
        pthread_t thread;
        int error = -1;
        if (i == 0)
            before = bytes_in_use();
        ck_assert_int_eq(pthread_create(&thread, NULL, key_make, &error), 0);
        ck_assert_int_eq(pthread_join(thread, NULL), 0);
        ck_assert_int_eq(error, 0);
    }
    size_t after = bytes_in_use();
    ck_assert_msg(after < before + MOST_BYTES, "%zu bytes are kept", after - before);
}
END_TEST

START_TEST(random_numbers_differ_and_fill_all_that_is_asked_for)
{
    static uint8_t one[5000], two[5000];
    static const uint8_t none[16];
    ck_assert_int_eq(gnutls_rnd(GNUTLS_RND_KEY, one, sizeof(one)), 0);
    ck_assert_int_eq(gnutls_rnd(GNUTLS_RND_NONCE, two, sizeof(two)), 0);
    ck_assert(memcmp(one, two, sizeof(one)) != 0);
    ck_assert(memcmp(one + sizeof(one) - sizeof(none), none, sizeof(none)) != 0);
    ck_assert_int_eq(gnutls_rnd(GNUTLS_RND_RANDOM, NULL, 0), 0);
}
END_TEST

SUITE("http", proxy_headers_that_are_taken, proxy_headers_that_are_refused,
      the_length_is_known_from_the_fixed_part, ranges_of_addresses, ranges_that_are_refused,
      client_certs_that_are_taken, client_certs_that_are_refused,
      a_client_cert_has_a_longest_length, the_last_forwarded_address_counts,
      versions_a_client_hello_offers, gnutls_keeps_nothing_of_threads_that_ended,
      random_numbers_differ_and_fill_all_that_is_asked_for)
