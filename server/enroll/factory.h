/*
 * Certificates for devices of a batch, many at once: each unit goes the way of an enrolment up to
 * its signature, then all are recorded in one transaction. Threads: any.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "enroll/service.h"
#include "model/fault.h"
#include "store/factory.h"

enum { FACTORY_MAX_UNITS = 500, FACTORY_MAX_CHAIN = 8 };

/* Who asks; borrowed. */
struct factory_job {
    const struct factory_scope *scope;
    const char *op;        /* as the desk's functions take it; NULL: the scope's station */
    const char *protocol;  /* "admin", "station" */
    const char *source;    /* remote address */
    int64_t since_us;      /* monotonic: since when the client may have been about to send it */
    const char *operation; /* for the trail */
    bool again;            /* units may be made again */
};

enum factory_result { FACTORY_ISSUED, FACTORY_REPLAYED, FACTORY_REJECTED };

struct factory_unit {
    const char *serial; /* as asked */
    struct bytes csr;   /* base64, PEM or DER */
    enum factory_result result;
    const char *reason;       /* of a refusal: code and detail; in the arena */
    struct bytes certificate; /* DER, in the arena */
};

/* The CAs above the certificates, the issuing one first; empty when none was issued. In the arena.
 */
struct factory_chain {
    struct bytes der[FACTORY_MAX_CHAIN];
    size_t count;
};

/*
 * Fills in what became of each unit. ERR_DENIED: none was certified, and the fault tells why: the
 * batch is closed, a budget does not suffice for all, the server cannot sign or record. The same
 * units may be sent again: what has a certificate for the key gets the same one.
 */
enum err factory_units_certify(struct service *service, const struct factory_job *job,
                               struct factory_unit *units, size_t count, struct arena *arena,
                               struct factory_chain *ret_chain, struct fault *fault) MUST_CHECK;

/* What the registry refused, of the scope or as a whole, as the request's fault. */
enum err factory_refused(enum err e, const char *message, struct fault *fault);
