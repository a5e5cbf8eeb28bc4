#include "enroll/hooks.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/gate.h"
#include "base/histogram.h"
#include "base/secret.h"
#include "enroll/hook_internal.h"
#include "enroll/metrics.h"

enum { STACK_BYTES = 512 * 1024 };

enum job_state { JOB_WAITING, JOB_RUNNING, JOB_ANSWERED, JOB_CANCELLED };

/* One question on its way. Who asked owns it together with the queue or the worker that has it; the
 * last of them frees it, so that a caller whose time is over may go. */
struct job {
    struct job *next;
    unsigned owners;
    enum job_state state;
    pthread_cond_t done;
    int64_t deadline_us;
    char *url;
    char *request_id;
    char *body;
    struct hook_reply reply; /* the worker's until the job is answered */
};

struct worker {
    struct hooks *hooks;
    struct hook_caller *caller;
    pthread_t thread;
    bool started;
};

enum result { ALLOWED, DENIED, FAILED, BUSY, RESULT_COUNT };

static const char *const result_names[RESULT_COUNT] = {"allowed", "denied", "failed", "busy"};

struct hooks {
    struct buf secret;
    char *ca;
    unsigned worker_count;
    unsigned max_waiting;
    atomic_uint_fast64_t results[RESULT_COUNT];
    struct histogram seconds;
    pthread_mutex_t lock; /* guards what follows, and all of a job but what its worker is at */
    pthread_cond_t work;
    pthread_cond_t left;
    struct job *first;
    struct job **last;
    unsigned waiting;
    unsigned running;
    unsigned callers;
    bool stop;
    bool http; /* hook_http_end is owed */
    struct worker workers[HOOKS_MAX_WORKERS];
};

static void job_free(struct job *job)
{
    hook_reply_done(&job->reply);
    pthread_cond_destroy(&job->done);
    free(job->url);
    free(job->request_id);
    free(job->body);
    free(job);
}

/* With the lock held. */
static void job_release(struct job *job)
{
    if (--job->owners == 0)
        job_free(job);
}

static enum err job_new(const struct hook_question *q, struct job **ret_job, struct fault *fault)
{
    _cleanup_(freep) char *body = NULL;
    int64_t deadline_us = clock_mono_us() + (int64_t)q->timeout_ms * 1000;
    if (hook_question_encode(q, &body))
        return fault_set(fault, FAULT_HOOK_FAILED,
                         "the parameters are too long, not UTF-8, or one is there twice");
    struct job *job = calloc(1, sizeof(*job));
    if (!job)
        return fault_set(fault, FAULT_INTERNAL, "out of memory");
    clock_cond_init(&job->done);
    hook_reply_init(&job->reply);
    job->owners = 1;
    job->deadline_us = deadline_us;
    job->body = TAKE_PTR(body);
    job->url = strdup(q->url);
    job->request_id = strdup(q->request_id);
    if (!job->url || !job->request_id) {
        job_free(job);
        return fault_set(fault, FAULT_INTERNAL, "out of memory");
    }
    *ret_job = job;
    return ERR_OK;
}

/* With the lock held: lets the caller in. */
static enum err queue_add(struct hooks *h, struct job *job, struct fault *fault)
{
    if (h->stop)
        return fault_set(fault, FAULT_HOOK_FAILED, "this replica is shutting down");
    if (h->waiting + h->running >= h->worker_count + h->max_waiting)
        return fault_set(fault, FAULT_HOOK_BUSY, "%u hooks are being asked, %u requests wait",
                         h->running, h->waiting);
    h->callers++;
    job->owners++;
    *h->last = job;
    h->last = &job->next;
    h->waiting++;
    pthread_cond_signal(&h->work);
    return ERR_OK;
}

/* With the lock held: takes it out of the queue, whose ownership it keeps. */
static void queue_remove(struct hooks *h, struct job *job)
{
    struct job **at = &h->first;
    while (*at != job)
        at = &(*at)->next;
    *at = job->next;
    if (!job->next)
        h->last = at;
    job->next = NULL;
    h->waiting--;
}

/* With the lock held, which is let go meanwhile. */
static void job_wait(struct hooks *h, struct job *job)
{
    const struct timespec at = {.tv_sec = job->deadline_us / 1000000,
                                .tv_nsec = job->deadline_us % 1000000 * 1000};
    int rc = 0;
    while ((job->state == JOB_WAITING || job->state == JOB_RUNNING) && rc == 0)
        rc = pthread_cond_timedwait(&job->done, &h->lock, &at);
}

/* With the lock held. ERR_OK: the reply is there, and nobody else's any more. */
static enum err job_outcome(struct hooks *h, struct job *job, struct fault *fault)
{
    switch (job->state) {
    case JOB_ANSWERED:
        return ERR_OK;
    case JOB_CANCELLED:
        return fault_set(fault, FAULT_HOOK_FAILED, "this replica is shutting down");
    case JOB_WAITING:
        queue_remove(h, job);
        job_release(job);
        return fault_set(fault, FAULT_HOOK_FAILED,
                         "the hook could not be asked in time: those asked before are slow");
    case JOB_RUNNING:
        return fault_set(fault, FAULT_HOOK_FAILED, HOOK_LATE);
    }
    return fault_set(fault, FAULT_INTERNAL, "hook");
}

static enum err reply_judge(const struct hook_reply *r, struct arena *arena,
                            struct hook_answer *ret_answer, struct fault *fault)
{
    if (r->why)
        return fault_set(fault, FAULT_HOOK_FAILED, "%s", r->why);
    if (r->status < 200 || r->status > 299)
        return fault_set(fault, FAULT_HOOK_FAILED, "the hook answered with status %ld", r->status);
    return hook_answer_decode(buf_bytes(&r->body), arena, ret_answer, fault);
}

static enum err question_queue(struct hooks *h, const struct hook_question *q, struct job **ret_job,
                               struct fault *fault)
{
    struct job *job = NULL;
    if (h->worker_count == 0)
        return fault_set(fault, FAULT_HOOK_FAILED, "no secret is configured to ask hooks with");
    enum err e = job_new(q, &job, fault);
    if (e)
        return e;
    pthread_mutex_lock(&h->lock);
    e = queue_add(h, job, fault);
    if (e)
        job_release(job);
    else
        *ret_job = job;
    pthread_mutex_unlock(&h->lock);
    return e;
}

static enum err reply_await(struct hooks *h, struct job *job, struct fault *fault)
{
    pthread_mutex_lock(&h->lock);
    job_wait(h, job);
    enum err e = job_outcome(h, job, fault);
    pthread_mutex_unlock(&h->lock);
    return e;
}

static void result_count(struct hooks *h, enum err e, const struct fault *fault)
{
    enum result r = !e                                 ? ALLOWED
                    : fault->code == FAULT_HOOK_DENIED ? DENIED
                    : fault->code == FAULT_HOOK_BUSY   ? BUSY
                                                       : FAILED;
    atomic_fetch_add_explicit(&h->results[r], 1, memory_order_relaxed);
}

/* The last of a caller that was let in: the pool may be gone right after. */
static void question_leave(struct hooks *h, struct job *job)
{
    pthread_mutex_lock(&h->lock);
    job_release(job);
    if (--h->callers == 0)
        pthread_cond_signal(&h->left);
    pthread_mutex_unlock(&h->lock);
}

enum err hooks_ask(struct hooks *h, const struct hook_question *q, struct arena *arena,
                   struct hook_answer *ret_answer, struct fault *fault)
{
    struct job *job = NULL;
    enum err e = question_queue(h, q, &job, fault);
    if (e) {
        result_count(h, e, fault);
        return e;
    }
    if (q->gate)
        gate_leave(q->gate);
    e = reply_await(h, job, fault);
    if (!e)
        e = reply_judge(&job->reply, arena, ret_answer, fault);
    result_count(h, e, fault);
    question_leave(h, job);
    if (q->gate)
        gate_return(q->gate);
    return e;
}

/* With the lock held, which is let go meanwhile. NULL: it is over. */
static struct job *queue_take(struct hooks *h)
{
    while (!h->first && !h->stop)
        pthread_cond_wait(&h->work, &h->lock);
    struct job *job = h->first;
    if (h->stop || !job)
        return NULL;
    queue_remove(h, job);
    job->state = JOB_RUNNING;
    h->running++;
    return job;
}

static void job_call(struct hooks *h, struct hook_caller *caller, struct job *job)
{
    char signature[HOOK_SIGNATURE_BYTES];
    struct bytes body = bytes_text(job->body);
    int64_t begun_us = clock_mono_us(), left_ms = (job->deadline_us - begun_us) / 1000;
    if (left_ms < 1) {
        job->reply.why = HOOK_LATE;
        return;
    }
    if (hook_sign(buf_bytes(&h->secret), clock_wall_s(), body, signature)) {
        job->reply.why = "the question could not be signed";
        return;
    }
    const struct hook_call call = {job->url, job->request_id, signature, body, (unsigned)left_ms};
    hook_call(caller, &call, &job->reply);
    histogram_observe(&h->seconds, clock_mono_us() - begun_us);
}

/* Signals are for the main thread; the SIGPIPE of a broken TLS connection is for nobody. */
static void signals_block(void)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
}

static void *worker_run(void *arg)
{
    struct worker *w = arg;
    struct hooks *h = w->hooks;
    struct job *job = NULL;
    signals_block();
    pthread_mutex_lock(&h->lock);
    while ((job = queue_take(h))) {
        pthread_mutex_unlock(&h->lock);
        job_call(h, w->caller, job);
        pthread_mutex_lock(&h->lock);
        h->running--;
        job->state = JOB_ANSWERED;
        pthread_cond_signal(&job->done);
        job_release(job);
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

static enum err worker_start(struct hooks *h, struct worker *w)
{
    pthread_attr_t attr;
    w->hooks = h;
    enum err e = hook_caller_new(h->ca, &w->caller);
    if (e)
        return e;
    if (pthread_attr_init(&attr) != 0)
        return ERR_SYSTEM;
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    w->started = pthread_create(&w->thread, &attr, worker_run, w) == 0;
    pthread_attr_destroy(&attr);
    return w->started ? ERR_OK : ERR_SYSTEM;
}

static enum err workers_start(struct hooks *h, unsigned count)
{
    enum err e = hook_http_begin();
    h->http = e == ERR_OK;
    for (unsigned i = 0; i < count && !e; i++)
        e = worker_start(h, &h->workers[i]);
    h->worker_count = count;
    return e;
}

static enum err settings_copy(struct hooks *h, const struct hooks_config *config)
{
    buf_init(&h->secret, config->secret.len);
    buf_add(&h->secret, config->secret.data, config->secret.len);
    h->max_waiting = config->max_waiting;
    if (config->ca && access(config->ca, R_OK) != 0)
        return ERR_SYSTEM;
    h->ca = config->ca ? strdup(config->ca) : NULL;
    return h->secret.overflow || (config->ca && !h->ca) ? ERR_NO_MEMORY : ERR_OK;
}

enum err hooks_new(const struct hooks_config *config, struct hooks **ret_hooks)
{
    if (config->workers < 1 || config->workers > HOOKS_MAX_WORKERS)
        return ERR_INVALID;
    struct hooks *h = calloc(1, sizeof(*h));
    if (!h)
        return ERR_NO_MEMORY;
    h->seconds.scale = &histogram_time;
    h->last = &h->first;
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->work, NULL);
    pthread_cond_init(&h->left, NULL);
    enum err e = settings_copy(h, config);
    if (!e && config->secret.len > 0)
        e = workers_start(h, config->workers);
    if (e)
        hooks_free(h);
    else
        *ret_hooks = h;
    return e;
}

static void hooks_stop(struct hooks *h)
{
    struct job *job = NULL;
    pthread_mutex_lock(&h->lock);
    h->stop = true;
    while ((job = h->first)) {
        queue_remove(h, job);
        job->state = JOB_CANCELLED;
        pthread_cond_signal(&job->done);
        job_release(job);
    }
    pthread_cond_broadcast(&h->work);
    while (h->callers > 0)
        pthread_cond_wait(&h->left, &h->lock);
    pthread_mutex_unlock(&h->lock);
}

void hooks_free(struct hooks *h)
{
    if (!h)
        return;
    hooks_stop(h);
    for (size_t i = 0; i < HOOKS_MAX_WORKERS; i++) {
        if (h->workers[i].started)
            pthread_join(h->workers[i].thread, NULL);
        hook_caller_free(h->workers[i].caller);
    }
    if (h->http)
        hook_http_end();
    pthread_cond_destroy(&h->left);
    pthread_cond_destroy(&h->work);
    pthread_mutex_destroy(&h->lock);
    if (h->secret.data)
        secret_cleanse(h->secret.data, h->secret.len);
    buf_done(&h->secret);
    free(h->ca);
    free(h);
}

void hooks_write(struct hooks *h, struct buf *b)
{
    pthread_mutex_lock(&h->lock);
    unsigned waiting = h->waiting, running = h->running;
    pthread_mutex_unlock(&h->lock);
    metrics_head(b, "muster_hook_calls_total", "counter",
                 "Questions to pre-provisioning hooks, by what came of them");
    for (int r = 0; r < RESULT_COUNT; r++)
        metrics_value(b, "muster_hook_calls_total", "result", result_names[r],
                      (double)atomic_load_explicit(&h->results[r], memory_order_relaxed));
    metrics_head(b, "muster_hook_seconds", "histogram", "Time of the calls, without the queue");
    metrics_histogram(b, "muster_hook_seconds", NULL, NULL, &h->seconds);
    metrics_head(b, "muster_hook_running", "gauge", "Calls under way");
    metrics_value(b, "muster_hook_running", NULL, NULL, running);
    metrics_head(b, "muster_hook_waiting", "gauge", "Questions that wait for a worker");
    metrics_value(b, "muster_hook_waiting", NULL, NULL, waiting);
}
