#include <dlfcn.h>
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/text.h"
#include "broker/batch.h"
#include "broker/cas.h"
#include "broker/plugin.h"
#include "broker/post.h"
#include "broker/topics.h"

/* The user properties of an order; the first of each name counts. */
struct order {
    char *operation;
    char *client;
    char *connection;
    char *topic;
};

static void order_done(struct order *o)
{
    free(o->operation);
    free(o->client);
    free(o->connection);
    free(o->topic);
}

static char **order_field(struct order *o, const char *name)
{
    if (strcmp(name, WIRE_OPERATION) == 0)
        return &o->operation;
    if (strcmp(name, WIRE_CLIENT) == 0)
        return &o->client;
    if (strcmp(name, WIRE_CONNECTION) == 0)
        return &o->connection;
    return strcmp(name, WIRE_TOPIC) == 0 ? &o->topic : NULL;
}

/* Debian's Mosquitto shows this function to its plugins; one built with upstream's Makefile does
 * not, and there the client library of the same version has it. */
enum err control_init(struct plugin *p)
{
    static const char name[] = "mosquitto_property_read_string_pair";
    void *found = dlsym(RTLD_DEFAULT, name);
    void *library = found ? NULL : dlopen("libmosquitto.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library)
        found = dlsym(library, name);
    if (!found)
        return ERR_NOT_FOUND;
    memcpy(&p->read_pair, &found, sizeof(found));
    return ERR_OK;
}

static void order_read(const struct plugin *p, const mosquitto_property *properties,
                       struct order *o)
{
    const mosquitto_property *at = properties;
    bool skip_first = false;
    char *name = NULL, *value = NULL;
    while ((at = p->read_pair(at, MQTT_PROP_USER_PROPERTY, &name, &value, skip_first))) {
        char **field = order_field(o, name);
        if (field && !*field)
            *field = TAKE_PTR(value);
        free(name);
        free(value);
        name = value = NULL;
        skip_first = true;
    }
}

static void answer_take(struct plugin *p, const struct order *o, struct bytes payload)
{
    int64_t generation = 0;
    if (!o->client || !o->connection || !o->topic || !topic_is_answer(o->topic) ||
        text_parse_int(o->connection, 0, INT64_MAX, &generation))
        return;
    struct conn *n = conns_find(p->conns, o->client);
    if (!n || !n->client || n->service || n->generation != (uint64_t)generation)
        return;
    if (post_answer(n->id, o->topic, payload))
        conns_answered(p->conns, n);
}

static enum err certificate_apply(struct plugin *p, const struct batch_entry *e)
{
    const struct table_value value = {e->state, e->thing, e->grants};
    if (e->state != WIRE_ABSENT)
        return table_put(p->table, e->fingerprint, &value);
    table_remove(p->table, e->fingerprint);
    conns_doom(p->conns, e->fingerprint);
    return ERR_OK;
}

static enum err entry_apply(struct plugin *p, const struct batch_entry *e)
{
    switch (e->kind) {
    case BATCH_CERTIFICATE:
        return certificate_apply(p, e);
    case BATCH_POLICY:
        return policies_put(p->policies, e->policy, e->body);
    case BATCH_CA:
        break; /* kept in files, all together */
    }
    return ERR_OK;
}

/* What cannot be kept is said, and everything else goes on. */
static void cas_apply(const struct plugin *p, const struct batch *b)
{
    struct bytes ders[CAS_MAX];
    struct batch_entry entry;
    size_t count = 0;
    if (!p->ca_folder)
        return;
    for (struct bytes rest = b->entries; rest.len > 0 && count < CAS_MAX;) {
        if (batch_entry_decode(&rest, &entry))
            return;
        if (entry.kind == BATCH_CA)
            ders[count++] = entry.body;
    }
    enum err e = cas_keep(p->ca_folder, ders, count);
    if (e)
        mosquitto_log_printf(MOSQ_LOG_ERR, "mosquitto_muster: %s: %s", p->ca_folder,
                             e == ERR_SYSTEM ? strerror(errno)
                                             : "a CA of musterd's is no certificate");
}

static enum err batch_apply(struct plugin *p, const struct batch *b)
{
    struct batch_entry entry;
    enum err e = ERR_OK;
    p->keep.changed |= b->count > 0 || (b->flags & WIRE_BATCH_CLEAR);
    if (b->flags & WIRE_BATCH_CLEAR) {
        table_clear(p->table);
        policies_clear(p->policies);
        p->ready = false;
    }
    for (struct bytes rest = b->entries; e == ERR_OK && rest.len > 0;) {
        e = batch_entry_decode(&rest, &entry);
        if (e == ERR_OK)
            e = entry_apply(p, &entry);
    }
    if (b->flags & WIRE_BATCH_CAS)
        cas_apply(p, b);
    return e;
}

/* Sessions whose certificate went with the table before are now found and ended. */
static void table_complete(struct plugin *p)
{
    p->ready = true;
    p->sweeping = true;
    conns_sweep_begin(p->conns);
}

static void batch_take(struct plugin *p, struct bytes payload)
{
    struct batch b;
    if (batch_decode(payload, &b)) {
        mosquitto_log_printf(MOSQ_LOG_WARNING, "mosquitto_muster: a malformed batch is dropped");
    } else if (b.counter == p->counter) {
        p->counter++;
        if (batch_apply(p, &b)) {
            p->ready = false;
            mosquitto_log_printf(MOSQ_LOG_ERR, "mosquitto_muster: no memory for a batch");
        } else {
            p->position = b.position;
            if ((b.flags & WIRE_BATCH_READY) && !p->ready)
                table_complete(p);
        }
    }
    post_status(p, clock_mono_us());
}

void control_take(struct plugin *p, const struct mosquitto_evt_control *ev)
{
    _cleanup_(order_done) struct order o = {0};
    struct identity who;
    identity_of_client(p, ev->client, &who);
    if (who.who != WHO_SERVICE)
        return;
    order_read(p, ev->properties, &o);
    struct bytes payload = bytes_of(ev->payload, ev->payloadlen);
    if (o.operation && strcmp(o.operation, WIRE_OP_ANSWER) == 0)
        answer_take(p, &o, payload);
    else if (o.operation && strcmp(o.operation, WIRE_OP_GATE) == 0)
        batch_take(p, payload);
    else if (o.operation && strcmp(o.operation, WIRE_OP_EVENT) == 0 && topic_is_event(o.topic))
        post_event(o.topic, payload);
}
