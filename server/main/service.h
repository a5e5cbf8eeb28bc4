/*
 * The service that protocol adapters work with (enroll/service.h), made after the configuration.
 * Threads: main only.
 */
#pragma once

#include "base/err.h"
#include "enroll/service.h"
#include "ops/config.h"

/* Fills all but the gates, which are there already. message tells what is wrong; service_done takes
 * what is half made, too. */
enum err service_init(struct service *v, struct db *db, const struct config *config,
                      char message[CONFIG_MESSAGE_BYTES]) MUST_CHECK;

/* Where the issuing keys are: loads their passphrase and the PKCS#11 module. ret borrows the
 * passphrase, which the caller frees with credential_done. */
enum err service_keys(const struct config *config, struct buf *passphrase,
                      struct signer_source *ret_keys,
                      char message[CONFIG_MESSAGE_BYTES]) MUST_CHECK;

/* Who tells events; template says whom at the broker. The secret is that of the hooks. */
struct events;
struct events_config;
enum err service_events(struct service *v, const struct config *config,
                        const struct events_config *template, struct events **ret_events,
                        char message[CONFIG_MESSAGE_BYTES]) MUST_CHECK;

/* Everything of CONFIG_LIVE that threads of requests read: each by an atomic or under its lock. */
void service_live(struct service *v, const struct config *config);
void service_done(struct service *v);
