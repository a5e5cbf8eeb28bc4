/*
 * The steps of the pipeline; one file a step. A step returns ERR_DENIED after it has set the fault;
 * whatever it finds goes into struct enrolment for the next. For pipeline.c, factory.c and the
 * steps only. Threads: the request's own.
 */
#pragma once

#include "enroll/enrolment.h"

enum err step_authenticate(struct enrolment *e) MUST_CHECK;
enum err step_attest(struct enrolment *e) MUST_CHECK;
enum err step_admit(struct enrolment *e) MUST_CHECK;
enum err step_identify(struct enrolment *e) MUST_CHECK;
enum err step_own(struct enrolment *e) MUST_CHECK;
enum err step_decode(struct enrolment *e) MUST_CHECK;
enum err step_link(struct enrolment *e) MUST_CHECK;
enum err step_authorize(struct enrolment *e) MUST_CHECK;
enum err step_limit(struct enrolment *e) MUST_CHECK;
enum err step_hook(struct enrolment *e) MUST_CHECK;
enum err step_evaluate(struct enrolment *e) MUST_CHECK;
enum err step_issue(struct enrolment *e) MUST_CHECK;
enum err step_record(struct enrolment *e) MUST_CHECK;
enum err step_journal(struct enrolment *e) MUST_CHECK;

/* Runs the steps of the request's way until one refuses; timings are written as they pass. */
enum err enrolment_run(struct enrolment *e) MUST_CHECK;

/* The refusal goes into the trail, in a transaction of its own. */
void enrolment_failed(const struct enrolment *e);

/* It registers with a certificate, by an enrollment. */
bool enrolment_by_certificate(const struct enrolment *e);

/* The certificate that came names the device, and its CA stands for what it says. */
bool enrolment_by_factory(const struct enrolment *e);

/* Whether a certificate of our own CA that nobody knows is admitted, and with which template. */
enum err admit_own(struct enrolment *e) MUST_CHECK;
enum err admit_own_template(struct enrolment *e) MUST_CHECK;

/* Notes why a certificate's contact gave no device. */
void admit_failed(const struct enrolment *e);

/* The serial in the factory certificate, or in the CSR, where the template looks; NULL: none. */
const char *enrolment_named_serial(const struct enrolment *e);

/* The value of a parameter that the device gave or the hook put in its place; NULL: none. */
const char *enrolment_given(const struct enrolment *e, const char *name);

/* The journal's line of what was recorded; NULL: there is none. In the arena. */
enum err enrolment_entry(struct enrolment *e, const char **ret_entry) MUST_CHECK;

/* Whose signature the certificate has, or will have: the CA's number. */
int64_t enrolment_issuer(const struct enrolment *e);

/* Who asks, for what, with which credential: the part of a record that every way has. */
void enrolment_origin(const struct enrolment *e, struct enrol_record *r);

/* The certificate, made now or before. */
void enrolment_certificate(const struct enrolment *e, struct enrol_record *r);

/* All of it. */
enum err enrolment_record(struct enrolment *e, struct enrol_record *r) MUST_CHECK;

/* What the registry said: ok, or its refusal as the request's fault. */
enum err enrolment_judged(struct enrolment *e, enum err err, const struct enrol_outcome *o,
                          const char *doing);

/* The result of a registration that was made before: what the device was told then. */
enum err enrolment_answer_again(struct enrolment *e, const struct enrol_outcome *o);

/* A certificate for a claim, for which nobody has named a device yet: the last step of
 * FLOW_CREATE, and whether one may be made, for the steps before it. */
enum err create_allowed(struct enrolment *e) MUST_CHECK;
enum err create_record(struct enrolment *e) MUST_CHECK;

/* Finds the serial: from the certificate, the credential's user or the CSR, in that order. */
enum err enrolment_serial(struct enrolment *e) MUST_CHECK;

/* Out of memory, in the arena's sense: the request was too large. */
enum err enrolment_no_memory(struct enrolment *e);
