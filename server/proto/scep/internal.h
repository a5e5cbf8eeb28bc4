/* What the files of this folder share. */
#pragma once

#include "enroll/service.h"
#include "pki/scep.h"
#include "proto/exchange.h"

/* One PKIOperation and its answer, which is HTTP 200 with a CertRep, or what HTTP has for refusals.
 */
enum err scep_operation(struct service *service, struct exchange *x,
                        struct bytes message) MUST_CHECK;

/* What the CA says of itself. */
enum err scep_caps(struct service *service, struct exchange *x) MUST_CHECK;
enum err scep_ca_cert(struct service *service, struct exchange *x) MUST_CHECK;
enum err scep_next_ca_cert(struct service *service, struct exchange *x) MUST_CHECK;
