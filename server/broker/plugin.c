#include "broker/plugin.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"
#include "broker/post.h"
#include "broker/topics.h"

enum {
    PLUGIN_VERSION = 5,
    MAX_SAMPLES_PER_S = 5,
    US_PER_S = 1000000,
    STATE_AGE_S = 7 * 86400, /* unless the option says otherwise */
    MAX_STATE_AGE_S = 3650 * 86400,
    STATE_EVERY_S = 30,
    MAX_STATE_EVERY_S = 3600,
};

#define ENTRY_POINT __attribute__((visibility("default")))

ENTRY_POINT int mosquitto_plugin_version(int count, const int *versions);
ENTRY_POINT int mosquitto_plugin_init(mosquitto_plugin_id_t *id, void **ret_data,
                                      struct mosquitto_opt *options, int count);
ENTRY_POINT int mosquitto_plugin_cleanup(void *data, struct mosquitto_opt *options, int count);

void hex_of(const uint8_t cert[SHA256_BYTES], char ret_text[HEX_BYTES])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < SHA256_BYTES; i++) {
        ret_text[2 * i] = digits[cert[i] >> 4];
        ret_text[2 * i + 1] = digits[cert[i] & 15];
    }
    ret_text[HEX_BYTES - 1] = '\0';
}

bool sample_take(struct sample *s, int64_t now_us)
{
    if (s->second != now_us / US_PER_S)
        *s = (struct sample){.second = now_us / US_PER_S};
    return s->count++ < MAX_SAMPLES_PER_S;
}

void identity_of_cert(const struct plugin *p, const uint8_t cert[SHA256_BYTES],
                      struct identity *ret_identity)
{
    struct table_entry entry = {0};
    *ret_identity = (struct identity){.who = WHO_NOBODY, .thing = ""};
    memcpy(ret_identity->cert, cert, SHA256_BYTES);
    if (pins_have(&p->pins, cert)) {
        ret_identity->who = WHO_SERVICE;
    } else if (table_find(p->table, cert, &entry)) {
        ret_identity->who = entry.state == WIRE_CLAIM ? WHO_CLAIM : WHO_DEVICE;
        ret_identity->unused = entry.state == WIRE_UNUSED;
        ret_identity->thing = entry.thing;
        ret_identity->grants = entry.grants;
    }
}

void identity_of_client(const struct plugin *p, const struct mosquitto *client,
                        struct identity *ret_identity)
{
    const char *name = mosquitto_client_username(client);
    uint8_t cert[SHA256_BYTES];
    *ret_identity = (struct identity){.who = WHO_NOBODY, .thing = ""};
    if (name && text_parse_hex(name, cert, sizeof(cert)) == ERR_OK)
        identity_of_cert(p, cert, ret_identity);
}

static int on_basic_auth(int event, void *data, void *user)
{
    (void)event;
    return auth_check(user, data);
}

static int on_acl_check(int event, void *data, void *user)
{
    (void)event;
    return acl_check(user, data);
}

/* A claim's request goes on as a stamped copy. The message itself stays as it is: who owns its
 * topic and properties differs between versions of Mosquitto. */
static int on_message(int event, void *data, void *user)
{
    struct plugin *p = user;
    const struct mosquitto_evt_message *ev = data;
    struct identity who;
    (void)event;
    if (!topic_is_request(ev->topic))
        return MOSQ_ERR_SUCCESS;
    identity_of_client(p, ev->client, &who);
    if (who.who != WHO_CLAIM)
        return MOSQ_ERR_SUCCESS;
    struct conn *n =
        conns_live(p->conns, mosquitto_client_id(ev->client), ev->client, who.cert, false);
    if (n && post_request(ev, &who, n))
        conn_asked(n, clock_mono_us());
    return MOSQ_ERR_SUCCESS;
}

/* Always a success: anything else would end musterd's connection. */
static int on_control(int event, void *data, void *user)
{
    (void)event;
    control_take(user, data);
    return MOSQ_ERR_SUCCESS;
}

static int on_disconnect(int event, void *data, void *user)
{
    struct plugin *p = user;
    const struct mosquitto_evt_disconnect *ev = data;
    const char *id = mosquitto_client_id(ev->client);
    (void)event;
    if (id)
        conns_end(p->conns, id, ev->client);
    return MOSQ_ERR_SUCCESS;
}

static int on_tick(int event, void *data, void *user)
{
    (void)event;
    (void)data;
    tick_run(user);
    return MOSQ_ERR_SUCCESS;
}

static enum err pins_read(struct plugin *p)
{
    enum err e = pins_load(p->pins_path, &p->pins);
    if (e)
        mosquitto_log_printf(MOSQ_LOG_ERR, "mosquitto_muster: %s: %s", p->pins_path,
                             e == ERR_SYSTEM ? "cannot be read" : "no or bad certificates");
    return e;
}

/* What cannot be read leaves the pins as they were. Mosquitto then asks about every client. */
static int on_reload(int event, void *data, void *user)
{
    struct plugin *p = user;
    (void)event;
    (void)data;
    p->reloading = conns_ticks(p->conns) > 0;
    if (pins_read(p) == ERR_OK)
        mosquitto_log_printf(MOSQ_LOG_INFO, "mosquitto_muster: %zu service certificates",
                             p->pins.count);
    return MOSQ_ERR_PLUGIN_DEFER;
}

static const struct {
    int event;
    MOSQ_FUNC_generic_callback call;
    const char *data;
} callbacks[] = {
    {MOSQ_EVT_BASIC_AUTH, on_basic_auth, NULL}, {MOSQ_EVT_ACL_CHECK, on_acl_check, NULL},
    {MOSQ_EVT_MESSAGE, on_message, NULL},       {MOSQ_EVT_CONTROL, on_control, WIRE_CONTROL_TOPIC},
    {MOSQ_EVT_DISCONNECT, on_disconnect, NULL}, {MOSQ_EVT_TICK, on_tick, NULL},
    {MOSQ_EVT_RELOAD, on_reload, NULL},
};

static void plugin_free(struct plugin *p)
{
    table_free(p->table);
    policies_free(p->policies);
    conns_free(p->conns);
    free(p->pins_path);
    free(p->ca_folder);
    free(p->keep.path);
    free(p);
}

static bool text_take(const struct mosquitto_opt *o, char **value)
{
    if (!*value)
        *value = strdup(o->value);
    return *value != NULL;
}

static bool option_take(struct plugin *p, const struct mosquitto_opt *o)
{
    if (strcmp(o->key, "service_certificates") == 0)
        return text_take(o, &p->pins_path);
    if (strcmp(o->key, "ca_directory") == 0)
        return text_take(o, &p->ca_folder);
    if (strcmp(o->key, "state_file") == 0)
        return text_take(o, &p->keep.path);
    if (strcmp(o->key, "state_max_age_s") == 0)
        return text_parse_int(o->value, 0, MAX_STATE_AGE_S, &p->keep.max_age_s) == ERR_OK;
    return strcmp(o->key, "state_every_s") == 0 &&
           text_parse_int(o->value, 1, MAX_STATE_EVERY_S, &p->keep.every_s) == ERR_OK;
}

static enum err plugin_fill(struct plugin *p, const struct mosquitto_opt *options, int count)
{
    p->keep.max_age_s = STATE_AGE_S;
    p->keep.every_s = STATE_EVERY_S;
    for (int i = 0; i < count; i++) {
        if (!option_take(p, &options[i]))
            mosquitto_log_printf(MOSQ_LOG_WARNING,
                                 "mosquitto_muster: option %s is not known, or not so",
                                 options[i].key);
    }
    if (!p->pins_path) {
        mosquitto_log_printf(MOSQ_LOG_ERR,
                             "mosquitto_muster: plugin_opt_service_certificates is missing");
        return ERR_INVALID;
    }
    if (control_init(p)) {
        mosquitto_log_printf(MOSQ_LOG_ERR, "mosquitto_muster: libmosquitto.so.1 is missing");
        return ERR_NOT_FOUND;
    }
    if (table_new(&p->table) || policies_new(&p->policies) || conns_new(&p->conns) ||
        secret_random(&p->counter, sizeof(p->counter)))
        return ERR_NO_MEMORY;
    p->counter >>= 2;
    enum err e = pins_read(p);
    if (!e)
        keep_load(p);
    return e;
}

int mosquitto_plugin_version(int count, const int *versions)
{
    for (int i = 0; i < count; i++) {
        if (versions[i] == PLUGIN_VERSION)
            return PLUGIN_VERSION;
    }
    return -1;
}

int mosquitto_plugin_init(mosquitto_plugin_id_t *id, void **ret_data, struct mosquitto_opt *options,
                          int count)
{
    struct plugin *p = calloc(1, sizeof(*p));
    int rc = p && plugin_fill(p, options, count) == ERR_OK ? MOSQ_ERR_SUCCESS : MOSQ_ERR_INVAL;
    size_t done = 0;
    for (; rc == MOSQ_ERR_SUCCESS && done < sizeof(callbacks) / sizeof(callbacks[0]); done++)
        rc = mosquitto_callback_register(id, callbacks[done].event, callbacks[done].call,
                                         callbacks[done].data, p);
    if (rc != MOSQ_ERR_SUCCESS) {
        if (p && done == 0)
            plugin_free(p);
        return rc;
    }
    p->id = id;
    *ret_data = p;
    mosquitto_log_printf(MOSQ_LOG_INFO, "mosquitto_muster: %zu service certificates",
                         p->pins.count);
    return MOSQ_ERR_SUCCESS;
}

int mosquitto_plugin_cleanup(void *data, struct mosquitto_opt *options, int count)
{
    struct plugin *p = data;
    (void)options;
    (void)count;
    if (!p)
        return MOSQ_ERR_SUCCESS;
    for (size_t i = 0; i < sizeof(callbacks) / sizeof(callbacks[0]); i++)
        mosquitto_callback_unregister(p->id, callbacks[i].event, callbacks[i].call,
                                      callbacks[i].data);
    keep_last(p);
    plugin_free(p);
    return MOSQ_ERR_SUCCESS;
}
