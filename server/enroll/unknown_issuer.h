/* Issuers of client certificates that nobody registered: what `muster ca unknown` lists. Threads:
 * any. */
#pragma once

#include "enroll/steps.h"

/* Remembers whom the peer's chain asked for, within the source's limit; with the CA's certificate
 * where it was sent and has signed what came below it. */
void unknown_issuer_note(const struct enrolment *e);
