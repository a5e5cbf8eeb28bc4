/* Batches for the broker's table, byte by byte, and its status. */
#include <string.h>

#include "base/cleanup.h"
#include "base/text.h"
#include "mqtt/gate_batch.h"
#include "suite.h"

START_TEST(a_batch_byte_by_byte)
{
    struct gate_entry entries[3] = {{.state = WIRE_ABSENT, .thing = "gone"},
                                    {.state = WIRE_CLAIM},
                                    {.state = WIRE_UNUSED, .thing = "pump-1"}};
    const struct gate_batch head = {0x0102030405060708, 0x1112,
                                    WIRE_BATCH_CLEAR | WIRE_BATCH_READY};
    _cleanup_(buf_donep) struct buf b = {0}, hex = {0};
    memset(entries[2].fingerprint, 0xab, SHA256_BYTES);
    buf_init(&b, WIRE_MAX_BATCH_BYTES);
    buf_init(&hex, 1024);
    gate_batch_begin(&head, &b);
    for (size_t i = 0; i < ARRAY_LEN(entries); i++)
        gate_batch_certificate(&entries[i], bytes_text("g"), &b);
    gate_batch_policy(0x01020304, bytes_text("form"), &b);
    gate_batch_ca(bytes_text("der"), &b);
    text_add_hex(&hex, buf_bytes(&b));
    ck_assert_str_eq(buf_text(&hex),
                     "4d474232"
                     "0102030405060708"
                     "0000000000001112"
                     "03"
                     "000000000000000000000000000000000000000000000000000000000000000000000000"
                     "010000000000000000000000000000000000000000000000000000000000000000000000"
                     "03abababababababababababababababababababababababababababababababab"
                     "06000170756d702d3167"
                     "10010203040004666f726d"
                     "200003646572");
}
END_TEST

START_TEST(a_status_is_read)
{
    struct gate_status s;
    ck_assert_int_eq(
        gate_status_parse(bytes_text("counter=18446744073709551615 position=12 entries=3 ready=1"),
                          &s),
        ERR_OK);
    ck_assert_uint_eq(s.counter, UINT64_MAX);
    ck_assert_int_eq(s.position, 12);
    ck_assert_int_eq(s.entries, 3);
    ck_assert(s.ready);
}
END_TEST

START_TEST(what_is_no_status_is_refused)
{
    static const char *const bad[] = {
        "",
        "counter=1",
        "counter=1 position=2 entries=3",
        "counter=1 position=2 entries=3 ready=2",
        "counter=1 position=-2 entries=3 ready=1",
        "counter=1 position=2 entries=-3 ready=1",
        "counter=1 position=2 entries=3 ready=1 ",
        "counter=01 position=2 entries=3 ready=1",
        "counter=1 position=99999999999999999999 entries=3 ready=1",
    };
    char large[GATE_MAX_STATUS_BYTES + 1];
    struct gate_status s;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        ck_assert_msg(gate_status_parse(bytes_text(bad[i]), &s) == ERR_INVALID, "%s", bad[i]);
    memset(large, '1', sizeof(large));
    ck_assert_int_eq(gate_status_parse(bytes_of(large, sizeof(large)), &s), ERR_INVALID);
}
END_TEST

SUITE("gate_batch", a_batch_byte_by_byte, a_status_is_read, what_is_no_status_is_refused)
