/*
 * What stations and operators of the factory send and are told, over whichever listener: a JSON
 * object a line with serial and csr, or lines of a journal. Threads: the request's own.
 */
#pragma once

#include "enroll/factory.h"
#include "proto/exchange.h"

struct service;

enum { UNITS_MAX_BODY_BYTES = 4 << 20 };

/* A line, {"serial","csr"} and nothing else. ERR_INVALID: it is none. */
enum err units_line_parse(struct bytes text, struct arena *arena,
                          struct factory_unit *ret_unit) MUST_CHECK;

/* Certifies the units of the body, at most `most`; a station's may be made again, an operator's
 * with ?again=accept. Replies:
 * {"batch","issued","replayed","rejected","chain_pem","lines":[{"line","serial","result",
 * "reason","certificate"}]}. Faults: request.malformed, request.too_large, and the factory's. */
enum err units_certify(struct service *service, struct exchange *x, const struct factory_job *job,
                       size_t most) MUST_CHECK;

/* Takes the body as lines of a journal; ?gap=accept, for operators: lines may be missing. Replies
 * {"station",
 * "recorded","known","registered","missing","unsealed","head","lines":[{"n","serial","reason"}]},
 * a line for each whose certificate is not registered. */
enum err units_journal(struct service *service, struct exchange *x,
                       const struct factory_job *job) MUST_CHECK;
