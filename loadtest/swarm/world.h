/*
 * Where the swarm lives: the server's address and CAs, the operator's command, what devices need
 * before they come. From the environment of .dev/env. Threads: main only.
 */
#pragma once

#include <openssl/types.h>

#include "claim.h"
#include "scenario.h"
#include "usage.h"

enum { WORLD_MAX_CAS = 16 };

/* The swarm's own template, for measurements: token or factory certificate, allowlist, a thing. */
#define WORLD_TEMPLATE "swarm-ratio"

/* And one that is run at the first contact of a factory certificate. */
#define WORLD_JIT_TEMPLATE "swarm-jit"

struct world {
    struct loop *loop;
    struct dial_target target;
    struct dial_target lost_target; /* whose clock is wrong: judges no validity */
    struct dial_target broker;      /* once there is a claim that needs it */
    struct dial_target lost_broker;
    struct dial_target scep; /* of world_scep */
    struct dial_target lost_scep;
    struct claim_door
        claim; /* of world_claim, world_factory or world_scep; certificate and key are owned */
    X509_STORE *trust;
    X509 *cas[WORLD_MAX_CAS];
    size_t ca_count;
    const char *database; /* NULL: no audit */
    struct usage usage;
    char scope[SCENARIO_NAME_BYTES];      /* of DPS */
    uint8_t group_key[DPS_MAX_KEY_BYTES]; /* of the group by keys */
    char host[256];
    char broker_host[256];
    char scep_host[256];
    char scep_path[128];
};

/* MUSTER_URL, MUSTER_CACERT, MUSTER_DATABASE; fetches /cacerts. Says on standard error what is
 * wrong. */
enum err world_open(struct world *w) MUST_CHECK;
void world_close(struct world *w);

/* Puts the template of MUSTER_TEMPLATE's product, and registers a factory CA for it. */
enum err world_register(X509 *ca, const char *name, const char *folder) MUST_CHECK;

/* Makes a claim of that name, with no rate and room for every device, and finds the broker of
 * MUSTER_MQTT_HOST and MUSTER_MQTT_PORT where the door leads to it. */
enum err world_claim(struct world *w, enum scenario_door door, const char *name,
                     const char *template_name, const char *folder) MUST_CHECK;

/* Makes a factory with a CA of that name, registers it with the swarm's template for just-in-time
 * provisioning (JITP) or registration (JITR), and finds the broker where the door leads to it. */
enum err world_factory(struct world *w, enum scenario_door door, const char *name,
                       const char *folder) MUST_CHECK;

/* Makes an enrollment group of that name for the scenario's template, whose devices come with
 * certificates of the registered CA, or, ca NULL, with keys derived from what ret_door is given:
 * that in the scenario's file, whose group is there already, or a new one. Finds the scope too. */
enum err world_group(struct world *w, const struct scenario *s, const char *name, const char *ca,
                     struct claim_door *ret_door) MUST_CHECK;

/* What devices of DPS need: a group, and a factory with its CA where they have its certificates. */
enum err world_dps(struct world *w, const struct scenario *s, const char *name,
                   const char *folder) MUST_CHECK;

/* Finds where SCEP is spoken (MUSTER_SCEP_URL), and its registration authority. */
enum err world_scep(struct world *w, const char *template_name) MUST_CHECK;

/* Puts the serials on the allowlist where the scenario says so, and mints a token for each serial,
 * or one for all, where its devices enrol with tokens, by the `muster` command. The caller frees
 * ret_tokens and each of them; count is the devices', or 1, or 0. */
enum err world_prepare(const struct scenario *s, const char *prefix, const char *folder,
                       char ***ret_tokens, size_t *ret_count) MUST_CHECK;
