#include "mqtt/client.h"

#include <MQTTAsync.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/secret.h"
#include "model/broker_wire.h"

enum {
    CONNECT_TIMEOUT_S = 10,
    ANSWER_MS = 15000, /* of the broker, to what the keeper asks */
    LOOK_MS = 1000,    /* whether Paho still thinks it is connected */
    PAUSE_MIN_MS = 500,
    PAUSE_MAX_MS = 30000,
    QUIESCE_MS = 1000,
    GOODBYE_MS = 2000,
    ID_RANDOM_BYTES = 8,
    REASON_BYTES = 200,
    URI_BYTES = 280,
    SURE_MS = 2000,
    SHARED_COUNT = 4, /* of the subscriptions, those that replicas share */
    FAILED_FROM = 0x80,
};

/* ECDHE and an AEAD; TLS 1.3 has its own. */
static const char ciphers[] = "ECDHE+AESGCM:ECDHE+CHACHA20";

static char subscription_request[] = WIRE_REQUEST_SUBSCRIPTION;
static char subscription_denied[] = WIRE_DENIED_SUBSCRIPTION;
static char subscription_seen[] = WIRE_SEEN_SUBSCRIPTION;
static char subscription_unknown[] = WIRE_UNKNOWN_SUBSCRIPTION;
static char subscription_gate[] = WIRE_GATE_TOPIC;
static char *const subscriptions[] = {subscription_request, subscription_denied, subscription_seen,
                                      subscription_unknown, subscription_gate};
static const int qualities[ARRAY_LEN(subscriptions)] = {1, 1, 1, 0, 0};

/* What the keeper waits for. */
enum answer { ANSWER_AWAITED, ANSWER_YES, ANSWER_NO };

struct mqtt_client {
    struct mqtt_client_config config;
    struct mqtt_handlers handlers;
    MQTTAsync handle;
    pthread_t keeper;
    bool started;
    atomic_bool up;           /* connected and subscribed */
    pthread_rwlock_t sending; /* held for reading while the handle is used to send */
    bool away_told;           /* keeper only */
    pthread_mutex_t lock;     /* guards what follows; never held while Paho is called */
    pthread_cond_t changed;
    enum answer answer;
    bool lost;
    bool stop;
    char reason[REASON_BYTES]; /* of the last failure */
};

static void answer_set(struct mqtt_client *c, enum answer answer, const char *reason)
{
    pthread_mutex_lock(&c->lock);
    c->answer = answer;
    if (reason && c->reason[0] == '\0')
        snprintf(c->reason, sizeof(c->reason), "%s", reason);
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

/* Before something is asked. */
static void answer_await(struct mqtt_client *c)
{
    pthread_mutex_lock(&c->lock);
    c->answer = ANSWER_AWAITED;
    c->lost = false;
    c->reason[0] = '\0';
    pthread_mutex_unlock(&c->lock);
}

/* Whether it was yes. */
static bool answer_wait(struct mqtt_client *c, int ms)
{
    struct timespec at = clock_deadline((int64_t)ms * 1000);
    int rc = 0;
    pthread_mutex_lock(&c->lock);
    while (c->answer == ANSWER_AWAITED && !c->lost && rc == 0)
        rc = pthread_cond_timedwait(&c->changed, &c->lock, &at);
    bool yes = c->answer == ANSWER_YES && !c->lost;
    pthread_mutex_unlock(&c->lock);
    return yes;
}

/* Paho's callbacks. */

static void lost_set(struct mqtt_client *c, const char *reason)
{
    atomic_store(&c->up, false);
    pthread_mutex_lock(&c->lock);
    c->lost = true;
    if (c->reason[0] == '\0')
        snprintf(c->reason, sizeof(c->reason), "%s", reason);
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

static void on_lost(void *ctx, char *cause)
{
    lost_set(ctx, cause ? cause : "the connection was lost");
}

static void on_disconnected(void *ctx, MQTTProperties *properties, enum MQTTReasonCodes code)
{
    (void)properties;
    lost_set(ctx, MQTTReasonCode_toString(code));
}

static void on_done(void *ctx, MQTTAsync_successData5 *data)
{
    (void)data;
    answer_set(ctx, ANSWER_YES, NULL);
}

static void on_subscribed(void *ctx, MQTTAsync_successData5 *data)
{
    int count = data->alt.sub.reasonCodeCount;
    bool granted = count == (int)ARRAY_LEN(subscriptions);
    for (int i = 0; i < count && granted; i++)
        granted = (int)data->alt.sub.reasonCodes[i] < FAILED_FROM;
    answer_set(ctx, granted ? ANSWER_YES : ANSWER_NO,
               granted ? NULL : "the broker refused a subscription");
}

/* A refused CONNECT has its reason in code. */
static const char *failure_reason(const MQTTAsync_failureData5 *data)
{
    if (!data)
        return "no connection";
    int code = (int)data->reasonCode >= FAILED_FROM ? (int)data->reasonCode : data->code;
    if (code >= FAILED_FROM)
        return MQTTReasonCode_toString((enum MQTTReasonCodes)code);
    return data->message ? data->message : "no connection";
}

static void on_failed(void *ctx, MQTTAsync_failureData5 *data)
{
    answer_set(ctx, ANSWER_NO, failure_reason(data));
}

/* What OpenSSL says, line by line; the first is the cause. */
static int on_tls_error(const char *text, size_t len, void *ctx)
{
    struct mqtt_client *c = ctx;
    pthread_mutex_lock(&c->lock);
    if (c->reason[0] == '\0')
        snprintf(c->reason, sizeof(c->reason), "%.*s", (int)strcspn(text, "\n"), text);
    pthread_mutex_unlock(&c->lock);
    return len > 0;
}

static int on_message(void *ctx, char *topic, int topic_len, MQTTAsync_message *message)
{
    const struct mqtt_client *c = ctx;
    bool whole = topic_len == 0 || strlen(topic) == (size_t)topic_len; /* no NUL in it */
    if (whole && message->payloadlen >= 0) {
        const struct mqtt_message m = {
            .topic = topic,
            .payload = bytes_of(message->payload, (size_t)message->payloadlen),
            .properties = &message->properties,
        };
        c->handlers.message(c->handlers.ctx, &m);
    }
    MQTTAsync_freeMessage(&message);
    MQTTAsync_free(topic);
    return 1;
}

struct bytes mqtt_message_property(const struct mqtt_message *m, const char *name)
{
    const MQTTProperties *p = m->properties;
    size_t len = strlen(name);
    for (int i = 0; i < p->count; i++) {
        const MQTTProperty *q = &p->array[i];
        if (q->identifier == MQTTPROPERTY_CODE_USER_PROPERTY &&
            bytes_equal(bytes_of(q->value.data.data, (size_t)q->value.data.len),
                        bytes_of(name, len)))
            return bytes_of(q->value.value.data, (size_t)q->value.value.len);
    }
    return bytes_of(NULL, 0);
}

/* The keeper. */

static bool connect_try(struct mqtt_client *c)
{
    MQTTAsync_connectOptions options = MQTTAsync_connectOptions_initializer5;
    MQTTAsync_SSLOptions tls = MQTTAsync_SSLOptions_initializer;
    tls.trustStore = c->config.ca;
    tls.keyStore = c->config.certificate;
    tls.privateKey = c->config.key;
    tls.enabledCipherSuites = ciphers;
    tls.enableServerCertAuth = 1;
    tls.verify = 1; /* the name, too */
    tls.disableDefaultTrustStore = 1;
    tls.ssl_error_cb = on_tls_error;
    tls.ssl_error_context = c;
    options.keepAliveInterval = (int)c->config.keep_alive_s;
    options.connectTimeout = CONNECT_TIMEOUT_S;
    options.ssl = &tls;
    options.context = c;
    options.onSuccess5 = on_done;
    options.onFailure5 = on_failed;
    answer_await(c);
    int rc = MQTTAsync_connect(c->handle, &options);
    if (rc != MQTTASYNC_SUCCESS)
        answer_set(c, ANSWER_NO, MQTTAsync_strerror(rc));
    return answer_wait(c, ANSWER_MS);
}

static bool subscribe_try(struct mqtt_client *c)
{
    MQTTAsync_callOptions call = MQTTAsync_callOptions_initializer;
    MQTTSubscribe_options each[ARRAY_LEN(subscriptions)];
    for (size_t i = 0; i < ARRAY_LEN(subscriptions); i++)
        each[i] = (MQTTSubscribe_options)MQTTSubscribe_options_initializer;
    call.context = c;
    call.onSuccess5 = on_subscribed;
    call.onFailure5 = on_failed;
    call.subscribeOptionsCount = ARRAY_LEN(subscriptions);
    call.subscribeOptionsList = each;
    answer_await(c);
    int rc = MQTTAsync_subscribeMany(c->handle, ARRAY_LEN(subscriptions), subscriptions, qualities,
                                     &call);
    if (rc != MQTTASYNC_SUCCESS)
        answer_set(c, ANSWER_NO, MQTTAsync_strerror(rc));
    return answer_wait(c, ANSWER_MS);
}

/* Waits, until it is time, stop or lost; whether to stop. */
static bool keeper_wait(struct mqtt_client *c, int ms, bool until_lost)
{
    struct timespec at = clock_deadline((int64_t)ms * 1000);
    int rc = 0;
    pthread_mutex_lock(&c->lock);
    while (!c->stop && !(until_lost && c->lost) && rc == 0)
        rc = pthread_cond_timedwait(&c->changed, &c->lock, &at);
    bool stop = c->stop;
    pthread_mutex_unlock(&c->lock);
    return stop;
}

static bool is_lost(struct mqtt_client *c)
{
    pthread_mutex_lock(&c->lock);
    bool lost = c->lost;
    pthread_mutex_unlock(&c->lock);
    return lost || !MQTTAsync_isConnected(c->handle);
}

/* While the connection stands; whether to stop. */
static bool stay(struct mqtt_client *c)
{
    bool stop = false;
    while (!stop && !is_lost(c))
        stop = keeper_wait(c, LOOK_MS, true);
    return stop;
}

static void away_tell(struct mqtt_client *c)
{
    char reason[REASON_BYTES];
    if (c->away_told)
        return;
    pthread_mutex_lock(&c->lock);
    memcpy(reason, c->reason, sizeof(reason));
    pthread_mutex_unlock(&c->lock);
    log_text(LOG_WARN, "mqtt.away", "reason", reason[0] != '\0' ? reason : "no answer");
    c->away_told = true;
}

static void hang_up(struct mqtt_client *c, int wait_ms)
{
    MQTTAsync_disconnectOptions options = MQTTAsync_disconnectOptions_initializer5;
    options.timeout = wait_ms;
    options.context = c;
    options.onSuccess5 = on_done;
    options.onFailure5 = on_failed;
    if (!MQTTAsync_isConnected(c->handle))
        return;
    answer_await(c);
    if (MQTTAsync_disconnect(c->handle, &options) == MQTTASYNC_SUCCESS)
        (void)answer_wait(c, GOODBYE_MS);
}

/* Half of it at least, so that replicas do not come all at once. */
static int jittered(int ms)
{
    uint16_t r = 0;
    (void)!secret_random(&r, sizeof(r));
    return ms / 2 + (int)((int64_t)(ms / 2) * r / UINT16_MAX);
}

/* One connection from beginning to end; whether it came to be used. */
static bool connection_run(struct mqtt_client *c, bool *ret_stop)
{
    bool used = connect_try(c) && subscribe_try(c);
    if (used) {
        atomic_store(&c->up, true);
        c->away_told = false;
        log_text(LOG_INFO, "mqtt.connected", "broker", c->config.host);
        c->handlers.connected(c->handlers.ctx, true);
        *ret_stop = stay(c);
        if (*ret_stop)
            return true;
        atomic_store(&c->up, false);
        c->handlers.connected(c->handlers.ctx, false);
    }
    away_tell(c);
    hang_up(c, 0);
    return used;
}

static void *keeper_run(void *arg)
{
    struct mqtt_client *c = arg;
    int pause_ms = PAUSE_MIN_MS;
    bool stop = false;
    while (!stop) {
        if (connection_run(c, &stop))
            pause_ms = PAUSE_MIN_MS;
        if (!stop)
            stop = keeper_wait(c, jittered(pause_ms), false);
        pause_ms = pause_ms * 2 < PAUSE_MAX_MS ? pause_ms * 2 : PAUSE_MAX_MS;
    }
    return NULL;
}

/* Unique to this process, and begins as the plugin wants it. */
static enum err client_id_make(char out[sizeof(WIRE_SERVICE_CLIENT_PREFIX) + 2 * ID_RANDOM_BYTES])
{
    uint8_t random[ID_RANDOM_BYTES];
    enum err e = secret_random(random, sizeof(random));
    if (e)
        return e;
    size_t at = sizeof(WIRE_SERVICE_CLIENT_PREFIX) - 1;
    memcpy(out, WIRE_SERVICE_CLIENT_PREFIX, at);
    for (size_t i = 0; i < sizeof(random); i++)
        snprintf(out + at + 2 * i, 3, "%02x", random[i]);
    return ERR_OK;
}

static enum err handle_make(struct mqtt_client *c)
{
    MQTTAsync_init_options init = MQTTAsync_init_options_initializer;
    MQTTAsync_createOptions options = MQTTAsync_createOptions_initializer5;
    char id[sizeof(WIRE_SERVICE_CLIENT_PREFIX) + 2 * ID_RANDOM_BYTES];
    char uri[URI_BYTES];
    bool bare_v6 = strchr(c->config.host, ':') && c->config.host[0] != '[';
    snprintf(uri, sizeof(uri), "ssl://%s%s%s:%u", bare_v6 ? "[" : "", c->config.host,
             bare_v6 ? "]" : "", c->config.port);
    enum err e = client_id_make(id);
    if (e)
        return e;
    MQTTAsync_global_init(&init);
    options.maxBufferedMessages = (int)c->config.max_unsent;
    if (MQTTAsync_createWithOptions(&c->handle, uri, id, MQTTCLIENT_PERSISTENCE_NONE, NULL,
                                    &options) != MQTTASYNC_SUCCESS)
        return ERR_INVALID;
    MQTTAsync_setCallbacks(c->handle, c, on_lost, on_message, NULL);
    MQTTAsync_setDisconnected(c->handle, c, on_disconnected);
    return ERR_OK;
}

static enum err lock_make(struct mqtt_client *c)
{
    pthread_rwlock_init(&c->sending, NULL); /* does not fail on Linux */
    if (clock_cond_init(&c->changed) != 0)
        return ERR_SYSTEM;
    if (pthread_mutex_init(&c->lock, NULL) != 0) {
        pthread_cond_destroy(&c->changed);
        return ERR_SYSTEM;
    }
    return ERR_OK;
}

static void client_done(struct mqtt_client *c)
{
    if (c->handle)
        MQTTAsync_destroy(&c->handle);
    pthread_rwlock_destroy(&c->sending);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->changed);
    free(c);
}

enum err mqtt_client_new(const struct mqtt_client_config *config,
                         const struct mqtt_handlers *handlers, struct mqtt_client **ret_client)
{
    struct mqtt_client *c = calloc(1, sizeof(*c));
    if (!c)
        return ERR_NO_MEMORY;
    c->config = *config;
    c->handlers = *handlers;
    enum err e = lock_make(c);
    if (e) {
        free(c);
        return e;
    }
    e = handle_make(c);
    if (e)
        client_done(c);
    else
        *ret_client = c;
    return e;
}

enum err mqtt_client_start(struct mqtt_client *c)
{
    if (pthread_create(&c->keeper, NULL, keeper_run, c) != 0)
        return ERR_SYSTEM;
    c->started = true;
    return ERR_OK;
}

/* With sending held. */
static enum err message_send(struct mqtt_client *c, const char *topic,
                             const struct mqtt_property *properties, size_t count,
                             struct bytes payload, int quality, MQTTAsync_token *ret_token)
{
    MQTTAsync_message message = MQTTAsync_message_initializer;
    MQTTAsync_responseOptions response = MQTTAsync_responseOptions_initializer;
    message.payload = (void *)(uintptr_t)payload.data;
    message.payloadlen = (int)payload.len;
    message.qos = quality;
    int rc = 0;
    for (size_t i = 0; i < count && rc == 0; i++) {
        MQTTProperty p = {.identifier = MQTTPROPERTY_CODE_USER_PROPERTY};
        p.value.data.data = (char *)(uintptr_t)properties[i].name;
        p.value.data.len = (int)strlen(properties[i].name);
        p.value.value.data = (char *)(uintptr_t)properties[i].value;
        p.value.value.len = (int)strlen(properties[i].value);
        rc = MQTTProperties_add(&message.properties, &p);
    }
    if (rc == 0)
        rc = MQTTAsync_sendMessage(c->handle, topic, &message, &response);
    MQTTProperties_free(&message.properties);
    *ret_token = response.token;
    return rc == MQTTASYNC_SUCCESS ? ERR_OK : ERR_UNAVAILABLE;
}

enum err mqtt_client_send(struct mqtt_client *c, const char *topic,
                          const struct mqtt_property *properties, size_t count,
                          struct bytes payload)
{
    MQTTAsync_token token;
    pthread_rwlock_rdlock(&c->sending);
    enum err e = atomic_load(&c->up) ? message_send(c, topic, properties, count, payload, 0, &token)
                                     : ERR_UNAVAILABLE;
    pthread_rwlock_unlock(&c->sending);
    return e;
}

enum err mqtt_client_send_sure(struct mqtt_client *c, const char *topic,
                               const struct mqtt_property *properties, size_t count,
                               struct bytes payload)
{
    MQTTAsync_token token = 0;
    pthread_rwlock_rdlock(&c->sending);
    enum err e = atomic_load(&c->up) ? message_send(c, topic, properties, count, payload, 1, &token)
                                     : ERR_UNAVAILABLE;
    if (!e && MQTTAsync_waitForCompletion(c->handle, token, SURE_MS) != MQTTASYNC_SUCCESS)
        e = ERR_UNAVAILABLE;
    pthread_rwlock_unlock(&c->sending);
    return e;
}

void mqtt_client_quiesce(struct mqtt_client *c)
{
    MQTTAsync_callOptions call = MQTTAsync_callOptions_initializer;
    call.context = c;
    call.onSuccess5 = on_done;
    call.onFailure5 = on_failed;
    if (!atomic_load(&c->up))
        return;
    answer_await(c);
    if (MQTTAsync_unsubscribeMany(c->handle, SHARED_COUNT, subscriptions, &call) ==
        MQTTASYNC_SUCCESS)
        (void)answer_wait(c, QUIESCE_MS);
}

void mqtt_client_stop(struct mqtt_client *c)
{
    pthread_mutex_lock(&c->lock);
    c->stop = true;
    c->lost = true; /* nobody waits for the broker any more */
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    if (c->started)
        pthread_join(c->keeper, NULL);
    c->started = false;
    pthread_rwlock_wrlock(&c->sending);
    atomic_store(&c->up, false);
    pthread_rwlock_unlock(&c->sending);
    hang_up(c, QUIESCE_MS);
    MQTTAsync_destroy(&c->handle);
}

void mqtt_client_free(struct mqtt_client *c)
{
    if (c)
        client_done(c);
}
