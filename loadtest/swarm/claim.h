/*
 * A device without an identity asks for one with the certificate that its line shares: first a
 * certificate for its own key, then a thing for it (AWS CreateCertificateFromCsr, RegisterThing),
 * over HTTPS or over MQTT. Or it has a certificate from the factory, and comes with that (JITP,
 * JITR), or registers by the device API of DPS, or asks by SCEP with a token. The owner embeds a
 * claim, fills what is asked, and is told once of each try. What was got lives on between tries.
 * Threads: the loop's own.
 */
#pragma once

#include "call.h"
#include "credential.h"
#include "dps.h"
#include "scenario.h"
#include "scep_message.h"
#include "session.h"
#include "tally.h"

enum {
    CLAIM_MAX_BODY_BYTES = 8192,
    CLAIM_MAX_PATH_BYTES = 384, /* of a URL or a topic */
    CLAIM_TOKEN_BYTES = 513,    /* AWS: at most 512 characters */
    CLAIM_THING_BYTES = 129,
};

/* What is asked for, one after the other; the last is the first use of the certificate, or with DPS
 * the look-up of what was assigned. */
enum claim_step { CLAIM_CREATE, CLAIM_REGISTER, CLAIM_HELD, CLAIM_CONNECT };

enum claim_end { CLAIM_DONE, CLAIM_FAILED /* the same again may work */, CLAIM_REFUSED };

/* What the devices of a line share: the claim's certificate and key, those of the factory's CA, or
 * the registration authority's certificate; everything is borrowed. */
struct claim_door {
    enum scenario_door kind;
    const char *template_name;
    X509 *certificate;
    EVP_PKEY *key;
    const char *scope; /* of DPS */
    struct bytes group_key;
    bool csr;         /* a certificate along with the registration */
    const char *path; /* of SCEP */
};

struct claim {
    /* asked */
    const struct claim_door *door;
    const struct dial_target *target;
    const char *serial;
    EVP_PKEY *key;   /* the device's own, borrowed */
    X509 *born_cert; /* what the factory put in, to register with DPS; borrowed */
    EVP_PKEY *born_key;
    const char *challenge; /* its token, to ask by SCEP; borrowed */
    void (*done)(struct claim *c);
    void *owner;

    /* answered */
    enum claim_end end;
    char outcome[TALLY_NAME_BYTES]; /* "ok", or why not */
    int retry_after_s;
    bool answer_lost; /* it was asked, and no answer came */
    int64_t began_us;
    int64_t handshaken_us; /* 0: it did not come so far */
    int64_t ended_us;

    /* got, and kept until it is forgotten */
    enum claim_step step; /* the next */
    X509 *cert;
    char token[CLAIM_TOKEN_BYTES];
    char thing[CLAIM_THING_BYTES]; /* with DPS the device id */
    char hub[DPS_HUB_BYTES];       /* empty: not assigned */
    char operation[DPS_OPERATION_BYTES];

    /* its own */
    struct call call;
    struct session session;
    struct scep_request scep;
    bool under_way;
    bool asked;         /* a request is out */
    uint16_t packet_id; /* of what an acknowledgement is due for */
    struct buf body;
    char path[CLAIM_MAX_PATH_BYTES];
    char authorization[DPS_MAX_SAS_BYTES];
};

/* A try: begins with the step that was not done yet. done is called later, never from here. */
enum err claim_start(struct claim *c) MUST_CHECK;

/* Uses the certificate at the broker, with the thing's name as client id. */
enum err claim_connect(struct claim *c) MUST_CHECK;

/* Ends a try without a word; does nothing where none is under way. */
void claim_abandon(struct claim *c);

/* Forgets what was got, as a power cut does; frees everything. */
void claim_forget(struct claim *c);

/* The rest is between this and its doors. */

enum err claim_https_start(struct claim *c) MUST_CHECK;
enum err claim_mqtt_start(struct claim *c) MUST_CHECK;
enum err claim_jit_start(struct claim *c) MUST_CHECK;
enum err claim_dps_start(struct claim *c) MUST_CHECK;
enum err claim_scep_start(struct claim *c) MUST_CHECK;

/* Whether the present try is a call, and not a session. */
bool claim_calls(const struct claim *c);

/* Takes the times of a call of the present try, and ends the try where no answer came. */
bool claim_answered(struct claim *c, const struct call *call);
/* The same, and the status is 200; else the try has ended. */
bool claim_succeeded(struct claim *c, const struct call *call);

/* Fills the body of the request of the present step. */
enum err claim_body_make(struct claim *c) MUST_CHECK;

/* Takes what the present step was answered with, and goes on to the next; says why it cannot. */
const char *claim_take(struct claim *c, struct bytes payload);

/* A rejection; status 0: the one in the payload. */
void claim_reject(struct claim *c, int status, struct bytes payload);

void claim_finish(struct claim *c, enum claim_end end, const char *outcome);
