/*
 * One request for a certificate and its result, whatever protocol it came by. Plain data in the
 * request's arena; filled by a protocol adapter, worked on by enroll/pipeline.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

struct gate;

enum { ENROLLMENT_MAX_CHAIN = 8 };

/* Which way it goes: all at once, or in the two steps of AWS. */
enum enrollment_flow {
    FLOW_ENROL,    /* a certificate for a device that is named */
    FLOW_CREATE,   /* a certificate for a claim, nobody knows yet for which device */
    FLOW_REGISTER, /* the device such a certificate is for */
    FLOW_ADMIT,    /* the certificate that a device came with becomes its own */
    FLOW_CERTIFY,  /* a certificate for a device of a factory's batch, that may come in years */
    FLOW_ASSIGN,   /* a device that registers and asks for no certificate */
    FLOW_LOOKUP,   /* a device that asks what it was assigned, and proves itself */
};

/* An operator registers a certificate, whatever its CA does by itself. */
enum enrollment_vouch {
    VOUCH_NONE,
    VOUCH_NOW,     /* the device has come and waits */
    VOUCH_AHEAD,   /* the device may come in years */
    VOUCH_HEARSAY, /* a station's journal tells of it, likewise: it makes new devices and nothing
                      else, and what is wrong with it is not the device's doing */
};

struct enrollment_parameter {
    const char *name;
    const char *value;
};

enum { ENROLLMENT_MAX_PARAMETERS = 20 };

struct enrollment_request {
    enum enrollment_flow flow;
    const char *request_id;
    int64_t since_us;      /* monotonic: since when the client may have been about to send it */
    const char *protocol;  /* "est" */
    const char *operation; /* "simpleenroll", "simplereenroll" */
    const char *source;    /* remote address */

    const char *template_name;  /* NULL: the CA's, the device's or the default template */
    bool renew;                 /* the client renews its own certificate */
    bool messaged;              /* it came in a message that its own key signed (SCEP): what the CSR
                                   has for a challenge is a token and no channel binding */
    bool server_key;            /* the key is to be made here (RFC 7030 4.4) */
    const char *claimed_serial; /* as the credential names it; NULL: not said */
    const char *token;          /* bootstrap token text; NULL: none */
    struct bytes chain[ENROLLMENT_MAX_CHAIN]; /* TLS client certificates, leaf first */
    size_t chain_count;
    const char *psk_identity;     /* that the TLS connection was made with; NULL: none */
    struct bytes channel_binding; /* of the TLS connection; len 0: none */
    struct bytes csr;             /* as received: base64, PEM or DER */

    const char *registration_id;  /* it registers by an enrollment; NULL: it does not */
    struct bytes signed_text;     /* what it signed with its symmetric key */
    struct bytes signature;       /* HMAC-SHA256 of that; len 0: none */
    struct bytes endorsement_key; /* TPM2B_PUBLIC of its TPM; len 0: not said */
    struct bytes storage_root_key;
    struct bytes endorsement_chain[ENROLLMENT_MAX_CHAIN]; /* of the endorsement key, DER */
    size_t endorsement_chain_count;
    struct bytes
        attestation_key; /* TPM2B_PUBLIC: the TPM is to certify the CSR's key; len 0: it is not */
    struct bytes activated; /* what the TPM took out of the credential; len 0: it asks for one */
    struct bytes certified_key;           /* TPM2B_PUBLIC of the CSR's key */
    struct bytes certification;           /* TPMS_ATTEST */
    struct bytes certification_signature; /* TPMT_SIGNATURE */

    struct bytes claim;    /* fingerprint of a claim certificate that the broker saw; len 0: none */
    const char *client_id; /* MQTT client id; NULL: none */
    const char *ownership_token; /* FLOW_REGISTER: what FLOW_CREATE gave */
    struct enrollment_parameter
        parameters[ENROLLMENT_MAX_PARAMETERS]; /* FLOW_REGISTER; FLOW_ADMIT: the operator's */
    size_t parameter_count;
    enum enrollment_vouch vouch; /* FLOW_ADMIT */
    struct gate *gate; /* the caller is inside and leaves it while it waits; NULL: in none */
};

/* What a TPM is given to prove itself with, and its key. */
struct tpm_question {
    struct bytes credential; /* TPM2B_ID_OBJECT */
    struct bytes secret;     /* TPM2B_ENCRYPTED_SECRET */
    struct bytes nonce;      /* qualifyingData of TPM2_Certify */
};

struct enrollment_result {
    struct bytes certificate; /* DER */
    bool replayed;            /* the certificate given before */
    const char *serial;
    const char *state;           /* of the device, afterwards */
    const char *thing_name;      /* NULL: none, or a renewal, which does not change it */
    const char *configuration;   /* JSON object; NULL: a renewal */
    struct bytes private_key;    /* PKCS#8 DER where the key was made here; secret; else len 0 */
    bool key_enveloped;          /* it is CMS EnvelopedData instead, for the client's key alone */
    const char *certificate_id;  /* FLOW_CREATE: SHA-256 of the DER in hexadecimal */
    const char *ownership_token; /* FLOW_CREATE: secret */
    struct bytes tpm_key;        /* for the device's TPM alone, to be kept there; len 0: none */
};
