#include "broker/keep.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "broker/plugin.h"
#include "broker/state.h"

enum {
    PAUSES = 100, /* the disk is busy with saving for one part of so many */
    FIRST_FD = 3,
    FAILED = 1,
    MAX_CHILD_S = 600,
    US_PER_S = 1000000,
};

/* Where nothing changes, for the file's age and position. */
static const int64_t quiet_us = INT64_C(3600) * US_PER_S;

static const char *reason_of(enum err e)
{
    if (e == ERR_CONFLICT)
        return "too old";
    if (e == ERR_INVALID)
        return "damaged, or no state of this version";
    if (e == ERR_DENIED)
        return "others may write it";
    return e == ERR_NO_MEMORY ? "no memory" : strerror(errno);
}

void keep_load(struct plugin *p)
{
    struct state_head head = {0};
    int64_t now_s = clock_wall_s(), max_age_s = p->keep.max_age_s;
    if (!p->keep.path)
        return;
    enum err e = state_read(p->keep.path, max_age_s > 0 ? now_s - max_age_s : 0, p->table,
                            p->policies, &head);
    p->keep.begun_us = clock_mono_us();
    if (e == ERR_NOT_FOUND)
        return;
    if (e) {
        mosquitto_log_printf(MOSQ_LOG_WARNING, "mosquitto_muster: %s is not used: %s", p->keep.path,
                             reason_of(e));
        return;
    }
    p->position = head.position;
    p->ready = true;
    mosquitto_log_printf(MOSQ_LOG_NOTICE, "mosquitto_muster: %zu certificates as of %lld s ago",
                         table_count(p->table), (long long)(now_s - head.saved_s));
}

static enum err save(const struct plugin *p)
{
    const struct state_head head = {clock_wall_s(), p->position};
    return state_write(p->keep.path, p->table, p->policies, &head);
}

/* Said once until it works again. */
static void outcome_take(struct keep *k, const char *reason)
{
    if (reason && !k->failed)
        mosquitto_log_printf(MOSQ_LOG_ERR, "mosquitto_muster: %s cannot be saved: %s", k->path,
                             reason);
    k->failed = reason != NULL;
    k->changed |= k->failed;
}

/* The child has the connections' sockets too: one that ends must not seem to go on. Its exit code
 * is errno. */
static void child_run(const struct plugin *p)
{
    (void)close_range(FIRST_FD, UINT_MAX, 0);
    (void)alarm(MAX_CHILD_S); /* a disk that answers nothing: another child may have more luck */
    enum err e = save(p);
    int code = e == ERR_SYSTEM && errno > 0 && errno <= UCHAR_MAX ? errno : FAILED;
    _exit(e ? code : 0);
}

static void save_begin(struct plugin *p, int64_t now_us)
{
    struct keep *k = &p->keep;
    pid_t child = fork();
    if (child == 0)
        child_run(p);
    k->begun_us = now_us;
    k->changed = false;
    if (child > 0)
        k->child = child;
    else
        outcome_take(k, strerror(errno));
}

/* Whether there is none any more. */
static bool child_end(struct keep *k, int options)
{
    int status = 0;
    if (k->child == 0)
        return true;
    pid_t ended = waitpid(k->child, &status, options);
    if (ended == 0 || (ended < 0 && errno == EINTR))
        return false;
    bool good = ended > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    int code = ended > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    outcome_take(k, good ? NULL : code ? strerror(code) : "its process was ended");
    k->lasted_us = clock_mono_us() - k->begun_us;
    k->child = 0;
    return true;
}

static bool is_due(const struct keep *k, int64_t now_us)
{
    int64_t every_us = k->every_s * US_PER_S, cost_us = PAUSES * k->lasted_us;
    int64_t pause_us = cost_us > every_us ? cost_us : every_us;
    int64_t since_us = now_us - k->begun_us;
    return since_us >= (k->changed ? pause_us : quiet_us);
}

void keep_tick(struct plugin *p, int64_t now_us)
{
    if (p->keep.path && child_end(&p->keep, WNOHANG) && p->ready && is_due(&p->keep, now_us))
        save_begin(p, now_us);
}

void keep_last(struct plugin *p)
{
    struct keep *k = &p->keep;
    if (!k->path)
        return;
    while (!child_end(k, 0))
        ;
    if (p->ready && k->changed) {
        enum err e = save(p);
        outcome_take(k, e ? reason_of(e) : NULL);
    }
}
