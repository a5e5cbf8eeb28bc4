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
    buf_init(&b, GATE_BATCH_MAX_BYTES);
    buf_init(&hex, 1024);
    gate_batch_encode(&head, entries, ARRAY_LEN(entries), &b);
    text_add_hex(&hex, buf_bytes(&b));
    ck_assert_uint_eq(b.len, WIRE_BATCH_HEADER_BYTES + 3 * WIRE_ENTRY_BYTES + 6);
    ck_assert_str_eq(buf_text(&hex),
                     "4d474231"
                     "0102030405060708"
                     "0000000000001112"
                     "03"
                     "00000000000000000000000000000000000000000000000000000000000000000000"
                     "01000000000000000000000000000000000000000000000000000000000000000000"
                     "03abababababababababababababababababababababababababababababababab"
                     "0670756d702d31");
}
END_TEST

START_TEST(the_largest_batch_fits)
{
    struct gate_entry *entries = calloc(WIRE_MAX_BATCH_ENTRIES, sizeof(*entries));
    const struct gate_batch head = {1, 2, 0};
    _cleanup_(buf_donep) struct buf b = {0};
    ck_assert_ptr_nonnull(entries);
    for (size_t i = 0; i < WIRE_MAX_BATCH_ENTRIES; i++) {
        entries[i].state = WIRE_OPERATIONAL;
        memset(entries[i].thing, 'x', WIRE_MAX_THING_CHARS);
    }
    buf_init(&b, GATE_BATCH_MAX_BYTES);
    gate_batch_encode(&head, entries, WIRE_MAX_BATCH_ENTRIES, &b);
    ck_assert(!b.overflow);
    ck_assert_uint_eq(b.len, GATE_BATCH_MAX_BYTES);
    free(entries);
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

SUITE("gate_batch", a_batch_byte_by_byte, the_largest_batch_fits, a_status_is_read,
      what_is_no_status_is_refused)
