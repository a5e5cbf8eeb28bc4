/* The certificate of the registration authority, for SCEP. Threads: main only. */
#pragma once

#include "base/err.h"
#include "enroll/service.h"
#include "ops/config.h"

/* Makes key and certificate where [scep] says, or only another certificate where the key is there:
 * signed by the issuing CA of that name, or by the one that signs for devices (NULL). */
enum err ra_make(const struct config *config, const char *issuer, const char *organization,
                 char message[CONFIG_MESSAGE_BYTES]) MUST_CHECK;

/* Opens them for a service; nothing where none are configured. */
enum err ra_load(struct service *service, const struct config *config,
                 char message[CONFIG_MESSAGE_BYTES]) MUST_CHECK;
