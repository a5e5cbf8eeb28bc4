/*
 * A scenario: how many devices come, when, with what, and what befalls them. Small INI files of
 * loadtest/scenarios; every key known, every value in its range. Threads: any, for reading.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { SCENARIO_MESSAGE_BYTES = 256, SCENARIO_NAME_BYTES = 64, SCENARIO_PATH_BYTES = 1024 };

/* NUMBER(key, default, min, max, help); --help is made from it. */
/* clang-format off */
#define SCENARIO_TABLE(NUMBER) \
NUMBER(devices, 100, 1, 20000, "devices that come") \
NUMBER(rate, 0, 0, 100000, "arrivals a second; 0: all in the same instant") \
NUMBER(fixtures, 0, 0, 10000, "at most so many devices at work at once, the next when one is done; 0: no limit") \
NUMBER(bound_tokens, 1, 0, 1, "1: a token bound to each serial; 0: one free token for all") \
NUMBER(allowlist, 1, 0, 1, "1: the serials are put on the allowlist before") \
NUMBER(verify, 1, 0, 1, "1: each device fetches its configuration with its new certificate") \
NUMBER(csr, 0, 0, 1, "1: a device that registers with DPS asks for a certificate along with it") \
NUMBER(renewals, 0, 0, 1000, "how often each device then renews, every time with a new key") \
NUMBER(renewal_pause_ms, 0, 0, 86400000, "between the renewals of a device") \
NUMBER(tries, 5, 1, 100, "of one request before a device gives up") \
NUMBER(backoff_ms, 200, 1, 60000, "first pause after a failure without Retry-After; doubles, with jitter") \
NUMBER(twins, 0, 0, 1, "1: each device with a factory certificate first comes to the broker on two connections at once") \
NUMBER(powerloss_percent, 0, 0, 100, "of the enrolments: the power fails on the way") \
NUMBER(forget_percent, 50, 0, 100, "of these: before the new key was saved, so that the device comes back with another") \
NUMBER(clock_off_percent, 0, 0, 100, "of the devices do not know the time and accept any validity") \
NUMBER(hostile_garbage, 0, 0, 1000, "connections a second that send garbage bytes") \
NUMBER(hostile_half_open, 0, 0, 1000, "connections a second that stop within the handshake") \
NUMBER(hostile_slow, 0, 0, 1000, "connections a second that drip their handshake byte by byte") \
NUMBER(hostile_oversized, 0, 0, 1000, "requests a second with a body over every limit") \
NUMBER(hostile_wrong_ca, 0, 0, 1000, "requests a second with a certificate of an unknown CA") \
NUMBER(hostile_replay, 0, 0, 1000, "requests a second that present a token which was used") \
NUMBER(seconds, 0, 0, 86400, "0: until every device is done; else the devices go on renewing until then")
/* clang-format on */

/* How devices come in: to their first certificate, or, by JITP and JITR, to be known by the one
 * they have from the factory, or to a broker. */
enum scenario_door {
    DOOR_EST,
    DOOR_CLAIM_HTTPS,
    DOOR_CLAIM_MQTT,
    DOOR_JITP,       /* at the broker, which refuses it the first time */
    DOOR_JITP_HTTPS, /* GET /v1/device/config */
    DOOR_JITR,       /* at the broker; the swarm's worker activates it meanwhile */
    DOOR_DPS_SAS,    /* the device API of DPS, by a key derived from a group's */
    DOOR_DPS_X509,   /* by a factory certificate, of a group's CA */
    DOOR_SCEP,       /* a PKCSReq with a token as challengePassword */
};

struct scenario {
    char name[SCENARIO_NAME_BYTES];
    char about[256];
    char template_name[SCENARIO_NAME_BYTES];
    char id_scope[SCENARIO_NAME_BYTES];  /* of DPS; empty: MUSTER_DPS_ID_SCOPE */
    char group_key[SCENARIO_PATH_BYTES]; /* a file; empty: a group is made */
    enum scenario_door door;
#define SCENARIO_FIELD(key, ...) int64_t key;
    SCENARIO_TABLE(SCENARIO_FIELD)
#undef SCENARIO_FIELD
};

/* Whether the device was born with its certificate. */
bool scenario_door_is_jit(enum scenario_door door);

/* Whether it registers by the device API of DPS. */
bool scenario_door_is_dps(enum scenario_door door);

/* Whether the certificate names the serial: it was known for whom it is made. */
bool scenario_door_names_serial(enum scenario_door door);

/* Whether it comes with a token. */
bool scenario_door_has_tokens(enum scenario_door door);

/* Whether it first comes to the broker. */
bool scenario_door_is_mqtt(enum scenario_door door);

/* Reads a file; message tells what is wrong with it. */
enum err scenario_load(const char *path, struct scenario *ret_scenario,
                       char message[SCENARIO_MESSAGE_BYTES]) MUST_CHECK;

/* Sets one value as on the command line, KEY=VALUE. */
enum err scenario_set(struct scenario *s, const char *key, const char *value,
                      char message[SCENARIO_MESSAGE_BYTES]) MUST_CHECK;

/* Prints every key with its default and meaning. */
void scenario_describe(void);
