/*
 * What a template's Muster section says about enrolment, with its defaults filled in. Plain data,
 * owned by the compiled template. Threads: any.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Which credentials a template takes, as bits (Muster.Credentials). */
enum credential_set {
    CREDENTIAL_SET_TOKEN = 1 << 0,
    CREDENTIAL_SET_FACTORY = 1 << 1,
    CREDENTIAL_SET_CLAIM = 1 << 2,
};

enum reprovision { REPROVISION_REFUSE, REPROVISION_REPLACE };
enum verify_mode { VERIFY_CALL, VERIFY_BROKER, VERIFY_EXTERNAL, VERIFY_NONE };

/* "call", "broker", "external", "none". */
const char *verify_mode_name(enum verify_mode m);

/* Where the serial comes from when the credential does not name it (Muster.Serial). */
enum serial_source {
    SERIAL_FROM_CN,            /* "Subject.CN" of the CSR or factory certificate; the default */
    SERIAL_FROM_SERIAL_NUMBER, /* "Subject.serialNumber" (OID 2.5.4.5) */
    SERIAL_FROM_URN,           /* "SAN.URI": behind the second part of a urn: URI */
};

/* The Muster section with its defaults filled in. */
struct template_settings {
    unsigned credentials; /* enum credential_set bits; default token | factory */
    enum serial_source serial;
    const char *serial_parameter; /* Muster.SerialParameter: names it in RegisterThing;
                                     default "SerialNumber" */
    unsigned keys;                /* enum key_kind bits; default P-256 | P-384 */
    bool allowlist_required;      /* Muster.Allowlist: "required" (default) | "optional" */
    bool allowlist_said;          /* not by default: just-in-time goes by its CA otherwise */
    enum reprovision reprovision; /* Muster.Reprovision: "refuse" (default) | "replace" */
    enum verify_mode verify;      /* Muster.Verify; default "call" */
    int64_t verify_within_s;      /* Muster.VerifyWithin; default 24h */
    int64_t renew_before_s;       /* Muster.RenewBefore; default a third of Validity */
    int64_t grace_s;              /* Muster.Grace: a comeback with a new key; default 1h */
    int64_t replay_s;             /* Muster.Replay: a renewal asked again; default 1h */
    int64_t expired_enrolment_s;  /* Muster.ExpiredEnrolment; default 0 */
    int64_t expired_renewal_s;    /* Muster.ExpiredRenewal; default 0 */
    bool pop_required;            /* Muster.ProofOfPossession: "optional" (default) | "linked" */
    bool approval_required;       /* Muster.Approval: "none" (default) | "manual" */
    int64_t approval_poll_s;      /* Muster.ApprovalPoll: Retry-After while it waits; default 30s */
    bool server_keygen;           /* Muster.ServerKeygen: "allow" (default) | "refuse" */
    unsigned quarantine_failures; /* Muster.Quarantine.Failures; 1..100, default 5 */
    unsigned rate_per_second;     /* Muster.Rate.PerSecond, of all replicas; default 0: no limit */
    unsigned rate_burst;          /* Muster.Rate.Burst; default 0: as many as a second */
    const char *hook_url;         /* Muster.PreProvisioningHook.Url; NULL: no hook */
    unsigned hook_timeout_ms;     /* Muster.PreProvisioningHook.Timeout; 1s..10s, default 5s */
    const char *issuer;           /* Muster.Issuer: name of an issuing CA; NULL: any active */
};
