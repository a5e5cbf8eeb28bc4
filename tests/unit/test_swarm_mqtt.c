/* The packets of MQTT 3.1.1 that the swarm's devices write, byte for byte, and what they take. */
#include <string.h>

#include "mqtt.h"
#include "suite.h"

#define WROTE(b, expected) wrote(b, expected, sizeof(expected) - 1)

static void wrote(struct buf *b, const char *expected, size_t len)
{
    ck_assert(bytes_equal(buf_bytes(b), bytes_of(expected, len)));
    buf_done(b);
}

static struct buf empty(void)
{
    struct buf b;
    buf_init(&b, MQTT_MAX_PACKET_BYTES);
    return b;
}

START_TEST(written)
{
    static const char *const topics[] = {"a/b", "c"};
    struct buf b = empty();
    mqtt_connect(&b, "pump-1", 60);
    WROTE(&b, "\x10\x12\0\4MQTT\4\2\0\x3c\0\6pump-1");
    b = empty();
    mqtt_subscribe(&b, 0x0102, topics, 2);
    WROTE(&b, "\x82\x0c\1\2\0\3a/b\1\0\1c\1");
    b = empty();
    mqtt_publish(&b, 7, "a/b", bytes_text("{}"));
    WROTE(&b, "\x32\x09\0\3a/b\0\7{}");
    b = empty();
    mqtt_puback(&b, 0xfffe);
    WROTE(&b, "\x40\2\xff\xfe");
    b = empty();
    mqtt_disconnect(&b);
    WROTE(&b, "\xe0\0");
}
END_TEST

/* Lengths of one byte and of two, at the edge. */
START_TEST(written_lengths)
{
    char text[200];
    memset(text, 'x', sizeof(text));
    struct buf b = empty();
    mqtt_publish(&b, 1, "t", bytes_of(text, 122));
    ck_assert_uint_eq(b.len, 2 + 127);
    ck_assert_uint_eq(b.data[1], 127);
    buf_reset(&b);
    mqtt_publish(&b, 1, "t", bytes_of(text, 123));
    ck_assert_uint_eq(b.len, 3 + 128);
    ck_assert_uint_eq(b.data[1], 0x80);
    ck_assert_uint_eq(b.data[2], 1);
    buf_done(&b);
}
END_TEST

static struct mqtt_packet reads(const char *data, size_t len)
{
    struct mqtt_packet p = {.code = 77};
    size_t took = 99;
    for (size_t part = 0; part < len; part++) { /* no part of it is a packet, or an error */
        ck_assert_int_eq(mqtt_read(bytes_of(data, part), &p, &took), ERR_OK);
        ck_assert_uint_eq(took, 0);
        ck_assert_uint_eq(p.code, 77);
    }
    ck_assert_int_eq(mqtt_read(bytes_of(data, len), &p, &took), ERR_OK);
    ck_assert_uint_eq(took, len);
    return p;
}

#define READS(data) reads(data, sizeof(data) - 1)

START_TEST(read)
{
    struct mqtt_packet p = READS("\x20\2\0\5");
    ck_assert(p.type == MQTT_CONNACK && p.code == 5);
    p = READS("\x90\4\0\x09\1\0");
    ck_assert(p.type == MQTT_SUBACK && p.id == 9 && p.code == 0);
    p = READS("\x90\4\0\x09\1\x80");
    ck_assert(p.type == MQTT_SUBACK && p.code == MQTT_FAILURE);
    p = READS("\x40\2\1\0");
    ck_assert(p.type == MQTT_PUBACK && p.id == 256);
    p = READS("\x30\5\0\1tab");
    ck_assert(p.type == MQTT_PUBLISH && p.qos == 0 && p.id == 0 && !p.retained);
    ck_assert(bytes_equal(p.topic, bytes_text("t")) && bytes_equal(p.payload, bytes_text("ab")));
    p = READS("\x3b\5\0\1t\0\3");
    ck_assert(p.type == MQTT_PUBLISH && p.qos == 1 && p.id == 3 && p.retained);
    ck_assert_uint_eq(p.payload.len, 0);
}
END_TEST

/* The second stays where it is. */
START_TEST(read_the_first_of_two)
{
    static const char two[] = "\x40\2\0\1\x40\2\0\2";
    struct mqtt_packet p;
    size_t len;
    ck_assert_int_eq(mqtt_read(bytes_of(two, sizeof(two) - 1), &p, &len), ERR_OK);
    ck_assert_uint_eq(len, 4);
    ck_assert_uint_eq(p.id, 1);
}
END_TEST

#define ROW(text)                                                                                  \
    {                                                                                              \
        text, sizeof(text) - 1                                                                     \
    }

START_TEST(refused)
{
    static const struct {
        const char *data;
        size_t len;
    } rows[] = {
        ROW("\x20\2\0\6"),             /* a code there is none of */
        ROW("\x20\2\1\0"),             /* a session is present */
        ROW("\x20\3\0\0\0"),           /* too long */
        ROW("\x21\2\0\0"),             /* flags */
        ROW("\x90\2\0\1"),             /* a SUBACK of nothing */
        ROW("\x90\3\0\0\1"),           /* id 0 */
        ROW("\x90\3\0\1\2"),           /* QoS 2, which was not asked for */
        ROW("\x40\1\1"),               /* half an id */
        ROW("\x40\3\0\1\0"),           /* and more than one */
        ROW("\x40\2\0\0"),             /* id 0 */
        ROW("\x30\1\0"),               /* no topic */
        ROW("\x30\2\0\0"),             /* an empty one */
        ROW("\x30\4\0\3ab"),           /* that goes over the end */
        ROW("\x32\3\0\1t"),            /* QoS 1 without an id */
        ROW("\x32\4\0\1t\1"),          /* with half of one */
        ROW("\x32\5\0\1t\0\0"),        /* id 0 */
        ROW("\x34\5\0\1t\0\1"),        /* QoS 2 */
        ROW("\x36\5\0\1t\0\1"),        /* QoS 3 */
        ROW("\x38\3\0\1t"),            /* QoS 0 again */
        ROW("\x30\3\0\1#"),            /* wildcards */
        ROW("\x30\4\0\2a+"),           /* likewise */
        ROW("\x30\3\0\1\0"),           /* NUL */
        ROW("\x10\2\0\0"),             /* what only clients send */
        ROW("\x82\5\0\1\0\1t"),        /* likewise */
        ROW("\xe0\0"),                 /* likewise */
        ROW("\xd0\0"),                 /* an answer to what is never asked */
        ROW("\0\0"),                   /* reserved */
        ROW("\xf0\0"),                 /* likewise */
        ROW("\x40\x82\0\0\1"),         /* a length longer than it need be */
        ROW("\x30\xff\xff\xff\x7f"),   /* over every limit */
        ROW("\x30\x80\x80\x80\x80"),   /* a fifth byte of length */
        ROW("\x30\x80\x80\x80\x80\1"), /* likewise */
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct mqtt_packet p = {.id = 4711};
        size_t len = 0;
        ck_assert_msg(mqtt_read(bytes_of(rows[i].data, rows[i].len), &p, &len) == ERR_INVALID,
                      "row %zu", i);
        ck_assert_uint_eq(p.id, 4711);
    }
}
END_TEST

SUITE("swarm_mqtt", written, written_lengths, read, read_the_first_of_two, refused)
