/*
 * The devices of a run: they come as the scenario says, enrol, check what they got, use it, renew,
 * and behave like hardware on the way. Made by main, freed by it after the loop has ended.
 * Threads: the loop's own only.
 */
#pragma once

#include <stdbool.h>

#include "call.h"
#include "claim.h"
#include "keys.h"
#include "scenario.h"
#include "tally.h"

enum { FLEET_SERIAL_BYTES = 48, FLEET_TOKEN_BYTES = 64, FLEET_MAX_CAS = 16 };

/* The world the devices live in. Everything is borrowed. */
struct fleet_settings {
    const struct scenario *scenario;
    const struct dial_target *target;       /* of devices that know the time */
    const struct dial_target *lost_target;  /* of those that do not */
    const struct claim_door *claim;         /* NULL: devices enrol over EST */
    const struct dial_target *claim_target; /* where they come with it: server or broker */
    const struct dial_target *lost_claim_target;
    const struct keys *keys; /* two a device: the second for who forgot the first; and one for the
                                factory where it puts in what registers with DPS */
    struct tally *tally;
    X509_STORE *trust;
    X509 *between[FLEET_MAX_CAS];
    size_t between_count;
    const char *prefix;                      /* of the serials: serials of two runs never meet */
    const char *(*token)(size_t n, void *x); /* the token of device n */
    void *token_owner;
};

enum fleet_end { FLEET_UNDER_WAY, FLEET_DONE, FLEET_GAVE_UP, FLEET_REFUSED };

/* What the audit asks of a device. */
struct fleet_device_view {
    const char *serial;
    enum fleet_end end;
    const uint8_t *fingerprint; /* of the certificate it holds; NULL: none */
    const char *hub;            /* the broker that DPS assigned; NULL: none */
    const char *device_id;      /* and as whom */
    bool answer_lost;           /* power failed, or an answer never came: there may be one more */
};

struct fleet;

enum err fleet_new(const struct fleet_settings *settings, struct fleet **ret_fleet) MUST_CHECK;
void fleet_free(struct fleet *f);

/* Lets the devices come; done is called once, when the last has ended. */
enum err fleet_start(struct fleet *f, void (*done)(void *owner), void *owner) MUST_CHECK;

/* Devices that have ended, and those that failed. */
size_t fleet_ended(const struct fleet *f);
size_t fleet_failed(const struct fleet *f);
size_t fleet_under_way(const struct fleet *f);

size_t fleet_count(const struct fleet *f);
void fleet_view(const struct fleet *f, size_t n, struct fleet_device_view *ret_view);
