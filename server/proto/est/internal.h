/*
 * What the operations of EST share. For proto/est only. Threads: the request's own.
 */
#pragma once

#include "enroll/catalog.h"
#include "model/enrollment.h"
#include "proto/exchange.h"

struct service;

enum { EST_MAX_ANSWER_BYTES = 512 * 1024 };

/* RFC 8951 3.1: base64 of the DER; strongSwan wants one line, libest a final LF. */
enum err est_answer(struct exchange *x, const char *type, struct bytes der) MUST_CHECK;

enum est_operation { EST_ENROLL, EST_REENROLL, EST_SERVERKEYGEN };

/* Runs the pipeline; on a refusal the reply is made and ERR_DENIED returned. */
enum err est_enrol(struct service *service, struct exchange *x, enum est_operation operation,
                   struct enrollment_result *ret_result) MUST_CHECK;

/* The template of a request: its label's, or the default one. */
enum err est_template(struct service *service, struct exchange *x, struct snapshot *snapshot,
                      const struct catalog_template **ret_template) MUST_CHECK;

/* serverkeygen.c (RFC 7030 4.4) */
enum err est_serverkeygen_handle(struct service *service, struct exchange *x) MUST_CHECK;

/* renewal.c */
enum err est_renewal_info_handle(struct service *service, struct exchange *x) MUST_CHECK;
