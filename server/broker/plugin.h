/*
 * What the callbacks of the plugin share. Mosquitto calls all of them on its only thread, which
 * serves every client: nothing here waits for anything. The plugin's init makes the struct, its
 * cleanup frees it. Threads: the broker's only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <mosquitto.h>
#include <mosquitto_broker.h>
#include <mosquitto_plugin.h>
#include <mqtt_protocol.h>

#include "broker/conns.h"
#include "broker/keep.h"
#include "broker/pins.h"
#include "broker/policies.h"
#include "broker/recent.h"
#include "broker/table.h"

enum { HEX_BYTES = 2 * SHA256_BYTES + 1 };

/* So many a second of what strangers make us say. */
struct sample {
    int64_t second;
    unsigned count;
};

struct plugin {
    mosquitto_plugin_id_t *id;
    /* mosquitto_property_read_string_pair */
    const mosquitto_property *(*read_pair)(const mosquitto_property *properties, int identifier,
                                           char **name, char **value, bool skip_first);
    struct table *table;
    struct policies *policies;
    struct conns *conns;
    struct pins pins;
    char *pins_path;
    char *ca_folder; /* NULL: somebody else keeps the broker's */
    struct keep keep;
    uint64_t counter; /* of batches, from a random one */
    int64_t position;
    bool ready;
    bool sweeping;         /* sessions whose certificate went with a cleared table are looked for */
    bool reloading;        /* until the next tick Mosquitto asks again about those connected */
    int64_t status_us;     /* when musterd was last told */
    struct recent unknown; /* certificates that musterd was told of */
    struct sample denied;
    struct sample refused;
};

enum who {
    WHO_NOBODY,
    WHO_CLAIM,
    WHO_DEVICE,
    WHO_SERVICE,
};

struct identity {
    enum who who;
    uint8_t cert[SHA256_BYTES];
    bool unused;         /* a device that never connected before */
    const char *thing;   /* of a device; valid until the table changes */
    struct bytes grants; /* likewise; len 0: no policies are attached */
};

/* Who has that certificate, as the table is now. */
void identity_of_cert(const struct plugin *p, const uint8_t cert[SHA256_BYTES],
                      struct identity *ret_identity);

/* Who an admitted client is: its user name is its certificate. */
void identity_of_client(const struct plugin *p, const struct mosquitto *client,
                        struct identity *ret_identity);

void hex_of(const uint8_t cert[SHA256_BYTES], char ret_text[HEX_BYTES]);

/* Whether one more may be said in this second. */
bool sample_take(struct sample *s, int64_t now_us);

/* The callbacks of Mosquitto, by event. */
int auth_check(struct plugin *p, struct mosquitto_evt_basic_auth *ev);
int acl_check(struct plugin *p, struct mosquitto_evt_acl_check *ev);

/* Finds what orders are read with; once, at the beginning. */
enum err control_init(struct plugin *p) MUST_CHECK;
void control_take(struct plugin *p, const struct mosquitto_evt_control *ev);

/* Once in a turn of the broker's loop. */
void tick_run(struct plugin *p);
