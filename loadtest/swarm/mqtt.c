#include "mqtt.h"

#include <string.h>

enum {
    PROTOCOL_LEVEL = 4,
    CLEAN_SESSION = 0x02,
    FLAGS_SUBSCRIBE = 0x02,
    FLAG_RETAIN = 0x01,
    FLAG_DUP = 0x08,
    QOS_1 = 1,
    MAX_LENGTH_BYTES = 4,
    MAX_CONNACK_CODE = 5,
    ID_BYTES = 2,
    TEXT_BYTES = 2 /* the length before a text */
};

static void add_u16(struct buf *b, size_t n)
{
    const uint8_t bytes[] = {(uint8_t)(n >> 8), (uint8_t)n};
    buf_add(b, bytes, sizeof(bytes));
}

static void add_text(struct buf *b, const char *text)
{
    add_u16(b, strlen(text));
    buf_add_text(b, text);
}

/* Type, flags and the length of what follows (2.2). */
static void add_header(struct buf *b, enum mqtt_type type, unsigned flags, size_t len)
{
    buf_add_char(b, (char)((unsigned)type << 4 | flags));
    do {
        buf_add_char(b, (char)(len % 128 | (len >= 128 ? 128 : 0)));
        len /= 128;
    } while (len > 0);
}

void mqtt_connect(struct buf *b, const char *client_id, uint16_t keep_alive_s)
{
    add_header(b, MQTT_CONNECT, 0, TEXT_BYTES + 4 + 1 + 1 + 2 + TEXT_BYTES + strlen(client_id));
    add_text(b, "MQTT");
    buf_add_char(b, PROTOCOL_LEVEL);
    buf_add_char(b, CLEAN_SESSION);
    add_u16(b, keep_alive_s);
    add_text(b, client_id);
}

void mqtt_subscribe(struct buf *b, uint16_t id, const char *const *topics, size_t count)
{
    size_t len = ID_BYTES;
    for (size_t i = 0; i < count; i++)
        len += TEXT_BYTES + strlen(topics[i]) + 1;
    add_header(b, MQTT_SUBSCRIBE, FLAGS_SUBSCRIBE, len);
    add_u16(b, id);
    for (size_t i = 0; i < count; i++) {
        add_text(b, topics[i]);
        buf_add_char(b, QOS_1);
    }
}

void mqtt_publish(struct buf *b, uint16_t id, const char *topic, struct bytes payload)
{
    add_header(b, MQTT_PUBLISH, QOS_1 << 1, TEXT_BYTES + strlen(topic) + ID_BYTES + payload.len);
    add_text(b, topic);
    add_u16(b, id);
    buf_add(b, payload.data, payload.len);
}

void mqtt_puback(struct buf *b, uint16_t id)
{
    add_header(b, MQTT_PUBACK, 0, ID_BYTES);
    add_u16(b, id);
}

void mqtt_disconnect(struct buf *b)
{
    add_header(b, MQTT_DISCONNECT, 0, 0);
}

/* The length of the rest; ret_len is 0 while it is not complete. */
static enum err length_read(struct bytes in, size_t *ret_rest, size_t *ret_len)
{
    size_t rest = 0;
    for (size_t i = 0; i < MAX_LENGTH_BYTES && i + 1 < in.len; i++) {
        uint8_t byte = in.data[i + 1];
        rest |= (size_t)(byte & 127) << (7 * i);
        if (byte & 128)
            continue;
        if (rest > MQTT_MAX_PACKET_BYTES - 1 - MAX_LENGTH_BYTES || (byte == 0 && i > 0))
            return ERR_INVALID;
        *ret_rest = rest;
        *ret_len = i + 2;
        return ERR_OK;
    }
    *ret_len = 0;
    return in.len > MAX_LENGTH_BYTES ? ERR_INVALID : ERR_OK;
}

static uint16_t u16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static enum err connack_read(struct bytes rest, struct mqtt_packet *p)
{
    /* no session is present where every session is clean */
    if (rest.len != 2 || rest.data[0] != 0 || rest.data[1] > MAX_CONNACK_CODE)
        return ERR_INVALID;
    p->code = rest.data[1];
    return ERR_OK;
}

static enum err suback_read(struct bytes rest, struct mqtt_packet *p)
{
    if (rest.len <= ID_BYTES)
        return ERR_INVALID;
    p->id = u16(rest.data);
    for (size_t i = ID_BYTES; i < rest.len; i++) {
        if (rest.data[i] > QOS_1 && rest.data[i] != MQTT_FAILURE)
            return ERR_INVALID;
        p->code |= rest.data[i] & MQTT_FAILURE;
    }
    return p->id != 0 ? ERR_OK : ERR_INVALID;
}

static enum err puback_read(struct bytes rest, struct mqtt_packet *p)
{
    if (rest.len != ID_BYTES || u16(rest.data) == 0)
        return ERR_INVALID;
    p->id = u16(rest.data);
    return ERR_OK;
}

static enum err publish_read(uint8_t flags, struct bytes rest, struct mqtt_packet *p)
{
    p->qos = flags >> 1 & 3;
    p->retained = flags & FLAG_RETAIN;
    size_t id_len = p->qos > 0 ? ID_BYTES : 0;
    if (p->qos > QOS_1 || (p->qos == 0 && flags & FLAG_DUP) || rest.len < TEXT_BYTES)
        return ERR_INVALID;
    size_t topic_len = u16(rest.data);
    if (topic_len == 0 || rest.len < TEXT_BYTES + topic_len + id_len)
        return ERR_INVALID;
    p->topic = bytes_of(rest.data + TEXT_BYTES, topic_len);
    if (memchr(p->topic.data, '\0', topic_len) || memchr(p->topic.data, '+', topic_len) ||
        memchr(p->topic.data, '#', topic_len))
        return ERR_INVALID;
    size_t at = TEXT_BYTES + topic_len;
    p->id = id_len > 0 ? u16(rest.data + at) : 0;
    p->payload = bytes_of(rest.data + at + id_len, rest.len - at - id_len);
    return id_len > 0 && p->id == 0 ? ERR_INVALID : ERR_OK;
}

static enum err rest_read(uint8_t first, struct bytes rest, struct mqtt_packet *p)
{
    uint8_t flags = first & 15;
    p->type = (enum mqtt_type)(first >> 4);
    if (p->type == MQTT_PUBLISH)
        return publish_read(flags, rest, p);
    if (flags != 0)
        return ERR_INVALID;
    if (p->type == MQTT_CONNACK)
        return connack_read(rest, p);
    if (p->type == MQTT_SUBACK)
        return suback_read(rest, p);
    return p->type == MQTT_PUBACK ? puback_read(rest, p) : ERR_INVALID;
}

enum err mqtt_read(struct bytes in, struct mqtt_packet *ret_packet, size_t *ret_len)
{
    struct mqtt_packet p = {.code = 0};
    size_t rest = 0, len = 0;
    enum err e = length_read(in, &rest, &len);
    if (e || len == 0 || in.len < len + rest) {
        if (!e)
            *ret_len = 0;
        return e;
    }
    e = rest_read(in.data[0], bytes_of(in.data + len, rest), &p);
    if (!e) {
        *ret_packet = p;
        *ret_len = len + rest;
    }
    return e;
}
