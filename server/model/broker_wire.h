/*
 * What the Mosquitto plugin and musterd say to each other, both over the broker: topics, the names
 * of MQTT v5 user properties, and the batches that keep the plugin's table. docs/broker.md tells
 * the story. Constants only. Threads: any.
 */
#pragma once

/* A device's request as the plugin stamped it: plugin to musterd, payload untouched. */
#define WIRE_REQUEST_TOPIC "muster/request"
/* How replicas share the requests. */
#define WIRE_REQUEST_SUBSCRIPTION "$share/muster/" WIRE_REQUEST_TOPIC
/* What a claim tried and may not, sampled: plugin to musterd, no payload. */
#define WIRE_DENIED_TOPIC "muster/denied"
#define WIRE_DENIED_SUBSCRIPTION "$share/muster/" WIRE_DENIED_TOPIC
/* An operational certificate connected that was never used before: plugin to musterd, no payload.
 */
#define WIRE_SEEN_TOPIC "muster/seen"
#define WIRE_SEEN_SUBSCRIPTION "$share/muster/" WIRE_SEEN_TOPIC
/* A certificate that is not in the table tried to connect: plugin to musterd, the payload is its
 * DER.
 */
#define WIRE_UNKNOWN_TOPIC "muster/unknown"
#define WIRE_UNKNOWN_SUBSCRIPTION "$share/muster/" WIRE_UNKNOWN_TOPIC
/* How far the plugin's table has come: plugin to every musterd, text (WIRE_GATE_FORMAT). */
#define WIRE_GATE_TOPIC "muster/gate"
/* musterd to plugin. */
#define WIRE_CONTROL_TOPIC "$CONTROL/muster/v1"
/* What the plugin's own topics begin with. Not with '$': Mosquitto files a shared subscription to
 * such a topic where no message is ever looked for. */
#define WIRE_TOPIC_PREFIX "muster/"
/* Client ids of musterd begin with this, and no others do. */
#define WIRE_SERVICE_CLIENT_PREFIX "musterd-"

/* User properties. */
#define WIRE_CERTIFICATE "cert" /* SHA-256 of the certificate's DER, 64 hexadecimal digits */
#define WIRE_CLIENT "client"    /* client id */
#define WIRE_CONNECTION "conn"  /* generation of the connection, decimal */
#define WIRE_TOPIC "topic"      /* that was asked on, or is answered on */
#define WIRE_SOURCE "from"      /* address of the client */
#define WIRE_ACTION "what"      /* of WIRE_DENIED_TOPIC: "publish", "subscribe" */
#define WIRE_OPERATION "op"     /* of WIRE_CONTROL_TOPIC: one of the next three */
#define WIRE_OP_ANSWER "answer" /* deliver the payload on "topic" to "client" on "conn" */
#define WIRE_OP_GATE "gate"     /* the payload is a batch for the table */
#define WIRE_OP_EVENT "event"   /* publish the payload on "topic", to whoever may read it */

/*
 * Status of the table: "counter=%llu position=%lld entries=%lld ready=%d". counter is raised by
 * every batch that was taken and begins anew, at random, with the broker.
 */
#define WIRE_GATE_FORMAT "counter=%llu position=%lld entries=%lld ready=%d"

/*
 * A batch, integers big endian: magic (4 bytes), counter (8): must be the table's present one, else
 * the batch is dropped; position (8): of the change log, what the table has come to with this
 * batch; flags (1); then records up to the end.
 *
 * A certificate: state (1), fingerprint (32), length of the thing name (1) and of the grants (2),
 * thing name, grants. Grants, where policies are attached: number of policies (1), the number of
 * each (4), then pairs up to the end, name and value each behind its length (1): attributes of the
 * thing that these policies name; the pair without a name is its type. A policy: WIRE_POLICY (1),
 * number (4), length (2), compiled form (model/policy.h). It never changes. A CA: WIRE_CA (1),
 * length (2), DER.
 */
#define WIRE_BATCH_MAGIC "MGB2"
enum {
    WIRE_BATCH_HEADER_BYTES = 4 + 8 + 8 + 1,
    WIRE_BATCH_CLEAR = 1, /* the table is emptied before, and not ready */
    WIRE_BATCH_READY = 2, /* with this batch the table is complete */
    WIRE_BATCH_CAS = 4,   /* its CAs are all there are */
    WIRE_ENTRY_BYTES = 1 + 32 + 1 + 2,
    WIRE_POLICY = 0x10,
    WIRE_POLICY_BYTES = 1 + 4 + 2,
    WIRE_CA = 0x20,
    WIRE_CA_BYTES = 1 + 2,
    WIRE_MAX_GRANTS_BYTES = 512,
    WIRE_MAX_CA_BYTES = 8192,
    WIRE_MAX_BATCH_BYTES = 512 * 1024,
    WIRE_MAX_BATCH_ENTRIES = 500, /* takes the broker's thread less than a millisecond */
    WIRE_MAX_THING_CHARS = 128,
    WIRE_MAX_CLIENT_CHARS = 128, /* of a client id the plugin admits */
    WIRE_MAX_REQUEST_BYTES = 16 * 1024,
    WIRE_MAX_UNKNOWN_BYTES = 8192, /* of a certificate that is told */
    WIRE_ANSWER_TIMEOUT_S = 15,    /* a request without answer so long is given up */
};

/* What a certificate may do at the broker. */
enum wire_state {
    WIRE_ABSENT,      /* refused; takes it out of the table and ends its sessions */
    WIRE_CLAIM,       /* may ask for an identity */
    WIRE_OPERATIONAL, /* a device, with its thing name */
    WIRE_UNUSED,      /* likewise, and its first connection is to be told to musterd */
};
