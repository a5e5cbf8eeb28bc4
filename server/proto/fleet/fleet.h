/*
 * Fleet provisioning by claim (AWS IoT: CreateKeysAndCertificate, CreateCertificateFromCsr,
 * RegisterThing): bytes to an enrolment and back, in JSON or CBOR, whatever they came by. The HTTPS
 * routes are here too; MQTT calls fleet_run from mqtt/. Threads: any, a call belongs to one.
 */
#pragma once

#include "base/arena.h"
#include "model/enrollment.h"
#include "proto/route.h"

struct gate;
struct service;

enum { FLEET_MAX_PAYLOAD_BYTES = 16 * 1024, FLEET_MAX_NAME_BYTES = 64 };

enum fleet_format { FLEET_JSON, FLEET_CBOR };

/* What a request topic asks for. */
struct fleet_operation {
    enum enrollment_flow flow;
    bool make_key; /* CreateKeysAndCertificate */
    enum fleet_format format;
    char template_name[FLEET_MAX_NAME_BYTES]; /* RegisterThing */
};

/* Reads "$aws/certificates/create/json" and its kin; ERR_INVALID for any other topic, also for
 * the topics of answers. */
enum err fleet_topic_parse(const char *topic, struct fleet_operation *ret_operation) MUST_CHECK;

struct fleet_call {
    struct arena *arena; /* everything returned lives in it */
    const char *request_id;
    int64_t since_us;      /* monotonic: since when the client may have been about to send it */
    const char *transport; /* "mqtt", "https" */
    const char *source;    /* address of the client */
    const char *client_id; /* NULL: none was given */
    struct gate *gate;     /* the caller is inside; NULL: in none */
    struct bytes claim;    /* fingerprint of the certificate the broker saw; len 0: see chain */
    struct bytes chain[ENROLLMENT_MAX_CHAIN];
    size_t chain_count;
    struct bytes payload;
    bool problem; /* a rejection has the members of RFC 9457 as well */
};

struct fleet_reply {
    bool accepted; /* else rejected */
    struct bytes payload;
    int status; /* as in the payload of a rejection; 200 */
    int retry_after_s;
    struct fault fault;
    const char *serial; /* for the log; NULL: not known */
    const char *credential;
    const char *template;
};

/* Does it, and always has a reply: also where memory ran out, then with an empty payload. */
void fleet_run(struct service *service, const struct fleet_operation *op,
               const struct fleet_call *call, struct fleet_reply *ret_reply);

/* The answer to a call that is not made, for the fault that is set. */
void fleet_refuse(const struct fleet_operation *op, const char *request_id, struct arena *arena,
                  struct fault *fault, struct fleet_reply *ret_reply);

extern const struct route_table fleet_routes;
