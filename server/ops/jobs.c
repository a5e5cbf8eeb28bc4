#include "ops/jobs.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "base/log.h"

enum { PERIOD_S = 3600, RETRY_S = 60 };

struct jobs {
    struct db *db;
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
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += seconds;
    int rc = 0;
    while (!j->stop && !j->changed && rc == 0)
        rc = pthread_cond_timedwait(&j->wake, &j->lock, &at);
}

static void *jobs_run(void *arg)
{
    struct jobs *j = arg;
    pthread_mutex_lock(&j->lock);
    while (!j->stop) {
        struct maintain_settings settings = j->settings;
        j->changed = false;
        pthread_mutex_unlock(&j->lock);
        int dropped = 0;
        enum err e = maintain_run(j->db, &settings, &dropped);
        if (e)
            log_text(LOG_WARN, "jobs.maintain_failed", "error", err_name(e));
        pthread_mutex_lock(&j->lock);
        pause_s(j, e ? RETRY_S : PERIOD_S);
    }
    pthread_mutex_unlock(&j->lock);
    return NULL;
}

enum err jobs_new(struct db *db, const struct maintain_settings *settings, struct jobs **ret_jobs)
{
    struct jobs *j = calloc(1, sizeof(*j));
    if (!j)
        return ERR_NO_MEMORY;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&j->wake, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&j->lock, NULL);
    j->db = db;
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
