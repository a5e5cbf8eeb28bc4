#include "ops/jobs.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include "base/arena.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/json_out.h"
#include "base/log.h"
#include "enroll/crls.h"
#include "enroll/foreign_crls.h"
#include "enroll/service.h"
#include "pki/scep.h"
#include "store/expiry.h"

enum { PARTITIONS_S = 3600, TICK_S = 60, MAX_ALERTS_BYTES = 16 << 20, US_PER_S = 1000000 };

struct jobs {
    struct service *service;
    struct maintain_settings settings; /* guarded by lock */
    pthread_t thread;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t wake;
    bool stop;
    bool changed;
};

/* With the lock held: sleeps until the time is over, the settings are others or the end came. */
static void pause_s(struct jobs *j, int seconds)
{
    struct timespec at = clock_deadline((int64_t)seconds * 1000000);
    int rc = 0;
    while (!j->stop && !j->changed && rc == 0)
        rc = pthread_cond_timedwait(&j->wake, &j->lock, &at);
}

/* Each record is of one claim and threshold: the registry tells it once. */
static void alert_log(const struct claim_alert *a)
{
    struct buf b;
    log_begin(&b, LOG_WARN, "claim.alert");
    json_text(&b, "claim", a->claim);
    json_text(&b, "product", a->product);
    json_text(&b, "kind", a->kind);
    json_int(&b, "threshold", a->threshold);
    json_int(&b, "days_left", a->days_left);
    if (a->percent >= 0)
        json_int(&b, "percent", a->percent);
    json_int(&b, "serials", a->serials);
    json_int(&b, "never_seen", a->never_seen);
    log_end(&b, LOG_WARN);
}

static void claims_run(struct db *db)
{
    _cleanup_(arena_donep) struct arena arena;
    struct claim_alert *alerts = NULL;
    size_t count = 0;
    int revoked = 0;
    arena_init(&arena, MAX_ALERTS_BYTES);
    enum err e = maintain_claim_certificates(db, &revoked);
    if (e)
        log_text(LOG_WARN, "jobs.claim_sweep_failed", "error", err_name(e));
    if (e == ERR_UNAVAILABLE)
        return;
    e = maintain_claim_alerts(db, &arena, &alerts, &count);
    if (e)
        log_text(LOG_WARN, "jobs.claim_alerts_failed", "error", err_name(e));
    for (size_t i = 0; i < count; i++)
        alert_log(&alerts[i]);
    if (revoked == 0)
        return;
    struct buf b;
    log_begin(&b, LOG_INFO, "claim.certificates_revoked");
    json_int(&b, "count", revoked);
    log_end(&b, LOG_INFO);
}

/* New ones only: who is stuck is told once. */
static void stuck_run(struct db *db)
{
    struct stuck_count counts[STUCK_MAX_STATES];
    size_t count = 0;
    if (maintain_stuck(db, counts, &count))
        return;
    for (size_t i = 0; i < count; i++) {
        struct buf b;
        log_begin(&b, LOG_WARN, "device.stuck");
        json_text(&b, "state", counts[i].state);
        json_int(&b, "devices", counts[i].devices);
        log_end(&b, LOG_WARN);
    }
}

/* The registry tells each once. */
static void expiry_run(struct service *service)
{
    _cleanup_(arena_donep) struct arena arena;
    const char *const *events = NULL;
    size_t count = 0;
    arena_init(&arena, MAX_ALERTS_BYTES);
    int64_t ra_ends_s = service->scep ? scep_ra_not_after_s(service->scep) : 0;
    enum err e =
        expiry_tell(service->db, service->server_cert_ends_s, ra_ends_s, &arena, &events, &count);
    if (e)
        log_text(LOG_WARN, "jobs.expiry_failed", "error", err_name(e));
    for (size_t i = 0; i < count; i++) {
        struct buf b;
        log_begin(&b, LOG_WARN, "expiry.told");
        json_raw(&b, "told", events[i]);
        log_end(&b, LOG_WARN);
    }
}

/* When the partitions are to be looked at again, monotonic. */
static int64_t partitions_run(struct db *db, const struct maintain_settings *settings)
{
    int dropped = 0;
    enum err e = maintain_run(db, settings, &dropped);
    if (e)
        log_text(LOG_WARN, "jobs.maintain_failed", "error", err_name(e));
    return clock_mono_us() + (int64_t)(e ? TICK_S : PARTITIONS_S) * US_PER_S;
}

static void *jobs_run(void *arg)
{
    struct jobs *j = arg;
    int64_t partitions_us = 0;
    pthread_mutex_lock(&j->lock);
    while (!j->stop) {
        struct maintain_settings settings = j->settings;
        bool due = j->changed || clock_mono_us() >= partitions_us;
        j->changed = false;
        pthread_mutex_unlock(&j->lock);
        if (due)
            partitions_us = partitions_run(j->service->db, &settings);
        claims_run(j->service->db);
        stuck_run(j->service->db);
        crls_run(j->service);
        foreign_crls_run(j->service);
        expiry_run(j->service);
        pthread_mutex_lock(&j->lock);
        pause_s(j, TICK_S);
    }
    pthread_mutex_unlock(&j->lock);
    return NULL;
}

enum err jobs_new(struct service *service, const struct maintain_settings *settings,
                  struct jobs **ret_jobs)
{
    struct jobs *j = calloc(1, sizeof(*j));
    if (!j)
        return ERR_NO_MEMORY;
    clock_cond_init(&j->wake);
    pthread_mutex_init(&j->lock, NULL);
    j->service = service;
    j->settings = *settings;
    if (pthread_create(&j->thread, NULL, jobs_run, j) != 0) {
        free(j);
        return ERR_SYSTEM;
    }
    *ret_jobs = j;
    return ERR_OK;
}

void jobs_change(struct jobs *j, const struct maintain_settings *settings)
{
    pthread_mutex_lock(&j->lock);
    j->settings = *settings;
    j->changed = true;
    pthread_cond_signal(&j->wake);
    pthread_mutex_unlock(&j->lock);
}

void jobs_free(struct jobs *j)
{
    if (!j)
        return;
    pthread_mutex_lock(&j->lock);
    j->stop = true;
    pthread_cond_signal(&j->wake);
    pthread_mutex_unlock(&j->lock);
    pthread_join(j->thread, NULL);
    pthread_mutex_destroy(&j->lock);
    pthread_cond_destroy(&j->wake);
    free(j);
}
