#include "fleet.h"

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/clock.h"
#include "credential.h"

enum {
    MAX_BODY_BYTES = 8192,
    MAX_PATH_BYTES = 160,
    MAX_AUTHORIZATION_BYTES = 256,
    MAX_BACKOFF_MS = 60000,
    RESTART_MIN_MS = 100, /* of a device whose power failed */
    RESTART_MAX_MS = 600,
    POWER_WINDOW_US = 60000, /* the power fails within this time of the request */
    HONOUR_SPREAD_MS = 250,
    ADMISSION_US = 10000000, /* within which a broker must know a new certificate */
    ADMISSION_PAUSE_MS = 300,
};

enum step { STEP_ENROL, STEP_VERIFY, STEP_RENEW };

struct device {
    struct fleet *fleet;
    size_t number;
    char serial[FLEET_SERIAL_BYTES];
    enum step step;
    enum fleet_end end;
    int tries;
    int64_t renewals_left;
    bool power_fails; /* once, during its first enrolment */
    bool forgets;     /* and the new key was not saved */
    bool knows_time;
    bool answer_lost;
    bool holds;
    uint8_t fingerprint[SHA256_BYTES];
    EVP_PKEY *key;
    X509 *cert;
    EVP_PKEY *next_key; /* of a renewal under way */
    EVP_PKEY *born_key; /* what the factory put in, to register with DPS */
    X509 *born_cert;
    struct call call;
    bool calling;
    struct claim claim;
    struct claim twin;      /* the same certificate on another connection */
    int64_t admitted_by_us; /* by the broker */
    struct timer timer;     /* arrival, pauses */
    struct timer power;
    struct buf body;
    char path[MAX_PATH_BYTES];
    char authorization[MAX_AUTHORIZATION_BYTES];
};

struct fleet {
    struct fleet_settings s;
    struct device *devices;
    size_t count;
    size_t next; /* the next to come, with fixtures */
    size_t ended;
    size_t failed;
    size_t under_way;
    int64_t stop_us; /* 0: when every device is done */
    STACK_OF(X509) * between;
    void (*done)(void *owner);
    void *owner;
};

static int64_t random_below(int64_t n)
{
    return n > 0 ? random() % n : 0;
}

static bool chance(int64_t percent)
{
    return random_below(100) < percent;
}

static struct loop *loop_of(const struct device *d)
{
    return d->fleet->s.target->loop;
}

static void device_wait(struct device *d, int64_t ms)
{
    if (loop_timer(loop_of(d), &d->timer, clock_mono_us() + ms * 1000))
        abort(); /* the loop cannot go on without memory */
}

static void next_come(struct fleet *f);

static void device_end(struct device *d, enum fleet_end end)
{
    struct fleet *f = d->fleet;
    d->end = end;
    f->ended++;
    f->failed += end != FLEET_DONE;
    f->under_way--;
    loop_untimer(loop_of(d), &d->power);
    if (f->s.scenario->fixtures > 0)
        next_come(f);
    if (f->ended == f->count)
        f->done(f->owner);
}

/* Full jitter on a doubling pause, as the field's SDKs have it. */
static int64_t backoff_ms(const struct device *d)
{
    int64_t ms = d->fleet->s.scenario->backoff_ms << (d->tries < 10 ? d->tries : 10);
    return random_below(ms < MAX_BACKOFF_MS ? ms : MAX_BACKOFF_MS) + 1;
}

/* Whether the present step goes through the door of the claim. */
static bool by_claim(const struct device *d)
{
    const struct claim_door *door = d->fleet->s.claim;
    bool first_use =
        door && (door->kind == DOOR_CLAIM_MQTT || (scenario_door_is_dps(door->kind) && !door->csr));
    return door && (d->step == STEP_ENROL || (d->step == STEP_VERIFY && first_use));
}

static void device_retry(struct device *d, int retry_after_s)
{
    d->tries++;
    if (d->tries >= d->fleet->s.scenario->tries) {
        tally_outcome(d->fleet->s.tally, "gave up");
        device_end(d, FLEET_GAVE_UP);
        return;
    }
    device_wait(d, retry_after_s > 0 ? retry_after_s * 1000 + random_below(HONOUR_SPREAD_MS)
                                     : backoff_ms(d));
}

static enum err body_make(struct device *d)
{
    bool renewal = d->step == STEP_RENEW;
    buf_done(&d->body);
    buf_init(&d->body, MAX_BODY_BYTES);
    if (renewal && !d->next_key && !(d->next_key = EVP_EC_gen("P-256")))
        return ERR_NO_MEMORY;
    return credential_request(renewal ? d->next_key : d->key, d->serial,
                              renewal ? X509_get_subject_name(d->cert) : NULL, &d->body);
}

/* Basic SERIAL:TOKEN (RFC 7617). */
static void authorization_make(struct device *d)
{
    const struct fleet_settings *s = &d->fleet->s;
    char plain[FLEET_SERIAL_BYTES + FLEET_TOKEN_BYTES + 2];
    struct buf b;
    snprintf(plain, sizeof(plain), "%s:%s", d->serial, s->token(d->number, s->token_owner));
    buf_init(&b, MAX_AUTHORIZATION_BYTES);
    buf_add_text(&b, "Basic ");
    base64_encode(&b, bytes_text(plain));
    snprintf(d->authorization, sizeof(d->authorization), "%s", buf_text(&b));
    buf_done(&b);
}

static void call_done(struct call *c);

static void call_fill(struct device *d)
{
    static const char *const operations[] = {"simpleenroll", NULL, "simplereenroll"};
    bool first = d->step == STEP_ENROL, config = d->step == STEP_VERIFY;
    snprintf(d->path, sizeof(d->path), config ? "/v1/device/config" : "/.well-known/est/%s/%s",
             d->fleet->s.scenario->template_name, operations[d->step]);
    d->call = (struct call){
        .target = d->knows_time ? d->fleet->s.target : d->fleet->s.lost_target,
        .method = config ? "GET" : "POST",
        .path = d->path,
        .type = config ? NULL : "application/pkcs10",
        .authorization = first ? d->authorization : NULL,
        .body = config ? bytes_of(NULL, 0) : buf_bytes(&d->body),
        .certificate = first ? NULL : d->cert,
        .key = first ? NULL : d->key,
        .done = call_done,
        .owner = d,
    };
}

static enum err call_ask(struct device *d)
{
    enum err e = d->step == STEP_VERIFY ? ERR_OK : body_make(d);
    if (!e && d->step == STEP_ENROL)
        authorization_make(d);
    if (!e) {
        call_fill(d);
        e = call_start(&d->call);
    }
    d->calling = !e;
    return e;
}

static void claim_done(struct claim *c);

/* What comes of it is the registry's affair: the audit looks whether there are two of anything. */
static void twin_done(struct claim *c)
{
    struct device *d = c->owner;
    tally_outcome(d->fleet->s.tally, c->end == CLAIM_DONE ? "twin ok" : "twin refused");
}

static void twin_come(struct device *d)
{
    struct claim *c = &d->twin;
    c->door = d->claim.door;
    c->target = d->claim.target;
    c->serial = d->serial;
    c->key = d->key;
    c->cert = X509_up_ref(d->claim.cert) ? d->claim.cert : NULL;
    snprintf(c->thing, sizeof(c->thing), "%s-twin", d->serial);
    c->done = twin_done;
    c->owner = d;
    if (!c->cert || claim_start(c))
        tally_outcome(d->fleet->s.tally, "no socket");
}

static enum err claim_ask(struct device *d)
{
    const struct fleet_settings *s = &d->fleet->s;
    struct claim *c = &d->claim;
    c->door = s->claim;
    c->target = d->knows_time ? s->claim_target : s->lost_claim_target;
    c->serial = d->serial;
    c->key = d->key;
    c->born_cert = d->born_cert;
    c->born_key = d->born_key;
    if (s->claim->kind == DOOR_SCEP)
        c->challenge = s->token(d->number, s->token_owner);
    c->done = claim_done;
    c->owner = d;
    enum err e = d->step == STEP_ENROL ? claim_start(c) : claim_connect(c);
    if (!e && s->scenario->twins && d->tries == 0 && d->step == STEP_ENROL && d->twin.owner == NULL)
        twin_come(d);
    return e;
}

static void device_ask(struct device *d)
{
    if (by_claim(d) ? claim_ask(d) : call_ask(d)) {
        tally_outcome(d->fleet->s.tally, "no socket");
        device_retry(d, 0);
    } else if (d->step == STEP_ENROL && d->power_fails &&
               loop_timer(loop_of(d), &d->power, clock_mono_us() + random_below(POWER_WINDOW_US)))
        abort();
}

/* What a request that failed is called: the fault's code, or how far it came. */
static void outcome_name(const struct call *c, char out[TALLY_NAME_BYTES])
{
    static const char *const stages[] = {"connection refused", "handshake failed", "not sent",
                                         "no answer", "answered"};
    const char *code =
        c->answer.len > 0 ? memmem(c->answer.data, c->answer.len, "\"code\":\"", 8) : NULL;
    if (c->stage != CALL_DONE)
        snprintf(out, TALLY_NAME_BYTES, "%s", stages[c->stage]);
    else if (code)
        snprintf(out, TALLY_NAME_BYTES, "%.*s", (int)strcspn(code + 8, "\""), code + 8);
    else
        snprintf(out, TALLY_NAME_BYTES, "HTTP %d", c->status);
}

static void device_go_on(struct device *d)
{
    const struct scenario *s = d->fleet->s.scenario;
    bool endless = d->fleet->stop_us > 0 && clock_mono_us() < d->fleet->stop_us;
    d->tries = 0;
    if (d->step == STEP_ENROL && s->verify) {
        d->step = STEP_VERIFY;
        d->admitted_by_us = clock_mono_us() + ADMISSION_US;
        device_ask(d);
    } else if (d->renewals_left > 0 || endless) {
        d->renewals_left -= d->renewals_left > 0;
        d->step = STEP_RENEW;
        device_wait(d, s->renewal_pause_ms);
    } else {
        tally_outcome(d->fleet->s.tally, "device done");
        device_end(d, FLEET_DONE);
    }
}

/* The certificates that were got: one, where all is well. */
static size_t certificates_got(struct device *d, X509 *ret_certs[2])
{
    if (!by_claim(d))
        return credential_certs(d->call.answer, ret_certs, 2);
    ret_certs[0] = X509_up_ref(d->claim.cert) ? d->claim.cert : NULL;
    return ret_certs[0] ? 1 : 0;
}

/* Takes the certificate where it is what was asked for, and the factory's as it is. One that was
 * made for a claim was made before it was known for whom. */
static const char *certificate_take(struct device *d)
{
    const struct fleet *f = d->fleet;
    EVP_PKEY *key = d->step == STEP_RENEW ? d->next_key : d->key;
    const struct claim_door *door = f->s.claim;
    const char *serial = door && !scenario_door_names_serial(door->kind) ? NULL : d->serial;
    X509 *certs[2] = {0};
    size_t n = certificates_got(d, certs);
    bool given = d->step == STEP_ENROL && door && scenario_door_is_jit(door->kind);
    const char *why =
        given    ? NULL
        : n == 1 ? credential_check(certs[0], key, serial, f->s.trust, f->between, d->knows_time)
                 : "not one certificate";
    if (!why && credential_fingerprint(certs[0], d->fingerprint))
        why = "no fingerprint";
    X509_free(certs[1]);
    if (why) {
        X509_free(certs[0]);
        return why;
    }
    X509_free(d->cert);
    d->cert = certs[0];
    d->holds = true;
    if (d->step == STEP_RENEW) {
        EVP_PKEY_free(d->key);
        d->key = d->next_key;
        d->next_key = NULL;
    }
    return NULL;
}

static void power_lost(struct timer *t);

/* Whether a certificate must have come. */
static bool expects_certificate(const struct device *d)
{
    const struct claim_door *door = d->fleet->s.claim;
    bool assigned_only = door && scenario_door_is_dps(door->kind) && !door->csr;
    return d->step != STEP_VERIFY && !assigned_only;
}

/* The answer is here, and saved with the key, unless the power fails just now. */
static void answer_take(struct device *d)
{
    const char *why = expects_certificate(d) ? certificate_take(d) : NULL;
    bool too_late = d->step == STEP_ENROL && d->power_fails && chance(50);
    loop_untimer(loop_of(d), &d->power);
    if (!why && too_late) {
        power_lost(&d->power);
        return;
    }
    if (!why) {
        d->power_fails = false;
        device_go_on(d);
        return;
    }
    tally_outcome(d->fleet->s.tally, why);
    device_end(d, FLEET_REFUSED);
}

static bool worth_another(const struct call *c)
{
    return c->stage != CALL_DONE || c->status == 202 || c->status == 429 || c->status >= 500;
}

static void refused(struct device *d)
{
    tally_outcome(d->fleet->s.tally, "refused for good");
    device_end(d, FLEET_REFUSED);
}

/* One try, whatever it came by. */
static void try_count(struct device *d, const char *outcome, bool good, int64_t handshake_us,
                      int64_t took_us)
{
    static const enum tally_kind kinds[] = {TALLY_ENROL, TALLY_VERIFY, TALLY_RENEW};
    struct tally *t = d->fleet->s.tally;
    if (handshake_us > 0)
        tally_latency(t, TALLY_HANDSHAKE, handshake_us);
    if (good)
        tally_latency(t, kinds[d->step], took_us);
    tally_outcome(t, outcome);
    tally_request(t, good, took_us);
}

static void call_done(struct call *c)
{
    struct device *d = c->owner;
    char name[TALLY_NAME_BYTES] = "ok";
    bool good = c->stage == CALL_DONE && c->status == 200;
    d->calling = false;
    if (!good)
        outcome_name(c, name);
    try_count(d, name, good, c->handshaken_us - c->began_us, c->ended_us - c->began_us);
    d->answer_lost = d->answer_lost || c->stage == CALL_READ;
    if (good)
        answer_take(d);
    else if (worth_another(c))
        device_retry(d, c->retry_after_s);
    else
        refused(d);
}

static void claim_done(struct claim *c)
{
    struct device *d = c->owner;
    bool good = c->end == CLAIM_DONE;
    bool early = d->step == STEP_VERIFY && scenario_door_is_mqtt(c->door->kind) &&
                 c->ended_us < d->admitted_by_us;
    try_count(d, c->outcome, good, c->handshaken_us - c->began_us, c->ended_us - c->began_us);
    d->answer_lost = d->answer_lost || c->answer_lost;
    if (good)
        answer_take(d);
    else if (c->end == CLAIM_FAILED && early)
        device_wait(d, 1 + random_below(ADMISSION_PAUSE_MS));
    else if (c->end == CLAIM_FAILED)
        device_retry(d, c->retry_after_s);
    else
        refused(d);
}

/* The power fails: what is under way is lost, and perhaps the key and what came for it. */
static void power_lost(struct timer *t)
{
    struct device *d = (struct device *)((char *)t - offsetof(struct device, power));
    if (d->end != FLEET_UNDER_WAY)
        return;
    if (d->calling)
        call_abandon(&d->call);
    claim_forget(&d->claim);
    loop_untimer(loop_of(d), &d->timer);
    tally_outcome(d->fleet->s.tally, "power lost");
    d->calling = d->power_fails = false;
    d->answer_lost = true;
    d->tries = 0;
    if (d->forgets) {
        EVP_PKEY *other = keys_get(d->fleet->s.keys, d->fleet->count + d->number);
        if (!other)
            abort();
        EVP_PKEY_free(d->key);
        d->key = other;
        X509_free(d->cert);
        d->cert = NULL;
        d->holds = false;
    }
    d->step = STEP_ENROL;
    device_wait(d, RESTART_MIN_MS + random_below(RESTART_MAX_MS - RESTART_MIN_MS));
}

/* In the factory, once; false: out of memory. */
static bool device_bear(struct device *d)
{
    const struct claim_door *door = d->fleet->s.claim;
    if (!door || door->kind != DOOR_DPS_X509)
        return true;
    d->born_key = keys_get(d->fleet->s.keys, 2 * d->fleet->count + d->number);
    if (d->born_key)
        d->born_cert = credential_factory(d->born_key, d->serial, door->certificate, door->key);
    return d->born_cert != NULL;
}

static void timer_due(struct timer *t)
{
    struct device *d = (struct device *)((char *)t - offsetof(struct device, timer));
    if (!d->key && (!(d->key = keys_get(d->fleet->s.keys, d->number)) || !device_bear(d)))
        abort();
    device_ask(d);
}

static void device_come(struct device *d, int64_t ms)
{
    d->fleet->under_way++;
    device_wait(d, ms);
}

static void next_come(struct fleet *f)
{
    if (f->next < f->count)
        device_come(&f->devices[f->next++], 0);
}

static void device_init(struct fleet *f, size_t n)
{
    const struct scenario *s = f->s.scenario;
    struct device *d = &f->devices[n];
    d->fleet = f;
    d->number = n;
    snprintf(d->serial, sizeof(d->serial), "%s-%06zu", f->s.prefix, n);
    d->renewals_left = s->renewals;
    d->knows_time = !chance(s->clock_off_percent);
    d->power_fails = chance(s->powerloss_percent);
    d->forgets = d->power_fails && chance(s->forget_percent);
    d->timer.due = timer_due;
    d->power.due = power_lost;
}

enum err fleet_new(const struct fleet_settings *settings, struct fleet **ret_fleet)
{
    struct fleet *f = calloc(1, sizeof(*f));
    if (!f)
        return ERR_NO_MEMORY;
    f->s = *settings;
    f->count = (size_t)settings->scenario->devices;
    f->devices = calloc(f->count, sizeof(*f->devices));
    f->between = sk_X509_new_null();
    if (!f->devices || !f->between) {
        fleet_free(f);
        return ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < settings->between_count; i++)
        (void)sk_X509_push(f->between, settings->between[i]);
    for (size_t n = 0; n < f->count; n++)
        device_init(f, n);
    *ret_fleet = f;
    return ERR_OK;
}

void fleet_free(struct fleet *f)
{
    if (!f)
        return;
    for (size_t n = 0; f->devices && n < f->count; n++) {
        struct device *d = &f->devices[n];
        if (d->calling)
            call_abandon(&d->call);
        claim_forget(&d->claim);
        claim_forget(&d->twin);
        EVP_PKEY_free(d->key);
        EVP_PKEY_free(d->next_key);
        EVP_PKEY_free(d->born_key);
        X509_free(d->born_cert);
        X509_free(d->cert);
        buf_done(&d->body);
    }
    sk_X509_free(f->between);
    free(f->devices);
    free(f);
}

enum err fleet_start(struct fleet *f, void (*done)(void *owner), void *owner)
{
    const struct scenario *s = f->s.scenario;
    size_t first =
        s->fixtures > 0 && (size_t)s->fixtures < f->count ? (size_t)s->fixtures : f->count;
    f->done = done;
    f->owner = owner;
    f->stop_us = s->seconds > 0 ? clock_mono_us() + s->seconds * 1000000 : 0;
    f->next = first;
    for (size_t n = 0; n < first; n++)
        device_come(&f->devices[n],
                    s->rate > 0 && s->fixtures == 0 ? (int64_t)n * 1000 / s->rate : 0);
    return ERR_OK;
}

size_t fleet_ended(const struct fleet *f)
{
    return f->ended;
}

size_t fleet_failed(const struct fleet *f)
{
    return f->failed;
}

size_t fleet_under_way(const struct fleet *f)
{
    return f->under_way;
}

size_t fleet_count(const struct fleet *f)
{
    return f->count;
}

void fleet_view(const struct fleet *f, size_t n, struct fleet_device_view *ret_view)
{
    const struct device *d = &f->devices[n];
    *ret_view = (struct fleet_device_view){
        .serial = d->serial,
        .end = d->end,
        .fingerprint = d->holds ? d->fingerprint : NULL,
        .hub = d->claim.hub[0] ? d->claim.hub : NULL,
        .device_id = d->claim.thing,
        .answer_lost = d->answer_lost,
    };
}
