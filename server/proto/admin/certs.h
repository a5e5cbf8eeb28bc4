/*
 * A certificate of a registered CA that an operator makes a device of: out of a request, checked,
 * through the pipeline. For proto/admin only. Threads: the request's own.
 */
#pragma once

#include <jansson.h>

#include "model/enrollment.h"
#include "pki/cert.h"
#include "proto/exchange.h"

struct service;

/* What is handed in; texts borrowed from the JSON, the rest in the arena. */
struct cert_wish {
    struct bytes chain[ENROLLMENT_MAX_CHAIN]; /* leaf first */
    size_t chain_count;
    struct cert_info leaf;
    int64_t ca_id;        /* of the registered CA its chain ends at */
    const char *ca;       /* its name */
    const char *template; /* NULL: none is named */
    struct enrollment_parameter parameters[ENROLLMENT_MAX_PARAMETERS];
    size_t parameter_count;
    enum enrollment_vouch vouch;
    const char *operation; /* for the trail: "activate", "register" */
};

/* Strings by name, no more than ENROLLMENT_MAX_PARAMETERS; NULL object: none. */
enum err cert_wish_parameters(struct cert_wish *w, json_t *object, struct fault *fault) MUST_CHECK;

/* PEM text, the leaf first, and the CA that vouches for it. Faults as of a device's chain, and
 * request.malformed. */
enum err cert_wish_pem(struct service *service, struct arena *arena, const char *pem,
                       struct cert_wish *w, struct fault *fault) MUST_CHECK;

/* Makes a device of it, under the template that is named or the CA's. */
enum err cert_wish_provision(struct service *service, struct exchange *x, const struct cert_wish *w,
                             struct enrollment_result *ret_result, struct fault *fault) MUST_CHECK;

/* Scope and audit of a registration with a template; then it may be provisioned. */
enum err cert_wish_begin(struct service *service, struct exchange *x, const struct cert_wish *w,
                         struct fault *fault) MUST_CHECK;

/* Records it for its first contact; status "active" or "inactive". The row as JSON. */
enum err cert_wish_record(struct service *service, struct exchange *x, const struct cert_wish *w,
                          const char *status, const char **ret_json,
                          struct fault *fault) MUST_CHECK;
