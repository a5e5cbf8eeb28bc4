/*
 * The packets of MQTT 3.1.1 (OASIS, 2014) that a device needs: written, and what a broker sends
 * read strictly. Bytes only, no connection. Threads: any.
 */
#pragma once

#include <stdbool.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "base/err.h"

enum { MQTT_MAX_PACKET_BYTES = 64 * 1024, MQTT_FAILURE = 0x80 /* in a SUBACK */ };

enum mqtt_type {
    MQTT_CONNECT = 1,
    MQTT_CONNACK = 2,
    MQTT_PUBLISH = 3,
    MQTT_PUBACK = 4,
    MQTT_SUBSCRIBE = 8,
    MQTT_SUBACK = 9,
    MQTT_DISCONNECT = 14,
};

/* What a broker sent; the bytes are those that were read. */
struct mqtt_packet {
    enum mqtt_type type;
    uint8_t code; /* of CONNACK: 0 is success; of SUBACK: MQTT_FAILURE where any was refused */
    uint8_t qos;  /* of PUBLISH */
    bool retained;
    uint16_t id; /* of PUBLISH (0 with QoS 0), PUBACK and SUBACK */
    struct bytes topic;
    struct bytes payload;
};

/* Append a packet. A session is clean; what is asked for is QoS 1. */
void mqtt_connect(struct buf *b, const char *client_id, uint16_t keep_alive_s);
void mqtt_subscribe(struct buf *b, uint16_t id, const char *const *topics, size_t count);
void mqtt_publish(struct buf *b, uint16_t id, const char *topic, struct bytes payload);
void mqtt_puback(struct buf *b, uint16_t id);
void mqtt_disconnect(struct buf *b);

/* Reads the first packet; ret_len is how many bytes it takes, 0 while it is not complete, and then
 * ret_packet is untouched. ERR_INVALID for what no broker may send to such a device. */
enum err mqtt_read(struct bytes in, struct mqtt_packet *ret_packet, size_t *ret_len) MUST_CHECK;
