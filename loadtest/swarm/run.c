#include "run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audit.h"
#include "base/clock.h"
#include "fleet.h"
#include "hostile.h"
#include "report.h"
#include "worker.h"
#include "world.h"

enum { TICK_US = 1000000, PREFIX_BYTES = 24, EXIT_FAILED = 1, EXIT_UNABLE = 2 };

struct run {
    const struct scenario *scenario;
    struct world world;
    struct keys *keys;
    struct tally *tally;
    struct tally *hostile_tally;
    struct hostile *hostile;
    struct fleet *fleet;
    struct worker *worker; /* JITR: who activates what waits; NULL: nothing waits */
    char **tokens;
    size_t token_count;
    char prefix[PREFIX_BYTES];
    struct timer tick;
    struct usage_reading last;
    int64_t last_us;
    bool terminal;
    struct report report;
};

static const char *token_of(size_t n, void *owner)
{
    const struct run *r = owner;
    return r->tokens[n < r->token_count ? n : 0];
}

static void progress(const struct run *r)
{
    const struct tally_second *s = NULL;
    size_t n = tally_seconds(r->tally, &s);
    if (!r->terminal || n == 0)
        return;
    s += n - 1;
    fprintf(stderr,
            "\r\033[K%4zu s  %zu of %zu done, %zu failed  %u/s answered, %u/s refused  p50 %.1f "
            "ms  p99 %.1f ms  musterd %.2f + PostgreSQL %.2f cores, %.0f MiB",
            n, fleet_ended(r->fleet), fleet_count(r->fleet), fleet_failed(r->fleet), s->done,
            s->refused, s->p50_us / 1e3, s->p99_us / 1e3, (double)s->server_cpu,
            (double)s->database_cpu, s->server_kib / 1024.0);
}

static void second_end(struct run *r)
{
    struct usage_reading now;
    int64_t now_us = clock_mono_us(), took_us = now_us - r->last_us;
    usage_read(&r->world.usage, &now);
    if (took_us > 0)
        tally_tick(r->tally, (float)(now.server_us - r->last.server_us) / (float)took_us,
                   (float)(now.database_us - r->last.database_us) / (float)took_us, now.server_kib);
    r->last = now;
    r->last_us = now_us;
}

static void tick_due(struct timer *t)
{
    struct run *r = (struct run *)((char *)t - offsetof(struct run, tick));
    second_end(r);
    progress(r);
    if (r->hostile)
        hostile_tick(r->hostile);
    if (loop_timer(r->world.loop, t, clock_mono_us() + TICK_US))
        abort();
}

static void all_done(void *owner)
{
    struct run *r = owner;
    loop_stop(r->world.loop);
}

static bool any_hostile(const struct scenario *s)
{
    return s->hostile_garbage + s->hostile_half_open + s->hostile_slow + s->hostile_oversized +
               s->hostile_wrong_ca + s->hostile_replay >
           0;
}

static enum err hostile_make(struct run *r)
{
    const struct hostile_settings settings = {
        .scenario = r->scenario,
        .target = &r->world.target,
        .keys = r->keys,
        .spent_token = r->tokens ? r->tokens[0] : NULL,
    };
    if (!any_hostile(r->scenario))
        return ERR_OK;
    enum err e = tally_new(&r->hostile_tally);
    struct hostile_settings s = settings;
    s.tally = r->hostile_tally;
    return e ? e : hostile_new(&s, &r->hostile);
}

static enum err fleet_make(struct run *r)
{
    struct world *w = &r->world;
    bool mqtt = scenario_door_is_mqtt(r->scenario->door), scep = r->scenario->door == DOOR_SCEP;
    struct fleet_settings s = {
        .scenario = r->scenario,
        .target = &w->target,
        .lost_target = &w->lost_target,
        .claim = r->scenario->door == DOOR_EST ? NULL : &w->claim,
        .claim_target = mqtt   ? &w->broker
                        : scep ? &w->scep
                               : &w->target,
        .lost_claim_target = mqtt   ? &w->lost_broker
                             : scep ? &w->lost_scep
                                    : &w->lost_target,
        .keys = r->keys,
        .tally = r->tally,
        .trust = w->trust,
        .between_count = w->ca_count,
        .prefix = r->prefix,
        .token = token_of,
        .token_owner = r,
    };
    memcpy(s.between, w->cas, sizeof(s.between));
    return fleet_new(&s, &r->fleet);
}

static enum err dps_open(struct run *r, const char *folder)
{
    const struct scenario *s = r->scenario;
    if (!s->csr && (s->renewals > 0 || s->seconds > 0)) {
        fprintf(stderr, "swarm: devices renew certificates, which these get with csr=1\n");
        return ERR_INVALID;
    }
    return world_dps(&r->world, s, r->prefix, folder);
}

/* What devices come with, or by. */
static enum err door_open(struct run *r, const char *folder)
{
    const struct scenario *s = r->scenario;
    if (s->door == DOOR_EST)
        return ERR_OK;
    if (scenario_door_is_dps(s->door))
        return dps_open(r, folder);
    if (s->door == DOOR_SCEP)
        return world_scep(&r->world, s->template_name);
    if (!scenario_door_is_jit(s->door))
        return world_claim(&r->world, s->door, r->prefix, s->template_name, folder);
    if (s->powerloss_percent > 0) {
        fprintf(stderr,
                "swarm: powerloss_percent is for devices that get their certificate here\n");
        return ERR_INVALID;
    }
    enum err e = world_factory(&r->world, s->door, r->prefix, folder);
    return e || s->door != DOOR_JITR ? e : worker_new(&r->world.target, r->prefix, &r->worker);
}

/* Two a device, and a third that the factory put in; RSA keys are long in the making: one, where no
 * device will forget it. */
static enum err keys_load(struct run *r, const char *path)
{
    const struct scenario *s = r->scenario;
    bool forgets = s->powerloss_percent > 0 && s->forget_percent > 0;
    if (s->door == DOOR_SCEP)
        return keys_take(path, KEYS_RSA, (size_t)s->devices << forgets, &r->keys);
    size_t each = s->door == DOOR_DPS_X509 ? 3 : 2;
    return keys_take(path, KEYS_EC, each * (size_t)s->devices, &r->keys);
}

static enum err prepare(struct run *r, const char *folder, const char *keys_path)
{
    snprintf(r->prefix, sizeof(r->prefix), "swarm-%llx%04x", (unsigned long long)clock_wall_s(),
             (unsigned)getpid() & 0xffffu);
    call_allow((size_t)r->scenario->devices + HOSTILE_AT_ONCE);
    enum err e = world_open(&r->world);
    if (!e)
        e = keys_load(r, keys_path);
    if (!e)
        e = tally_new(&r->tally);
    if (!e)
        e = world_prepare(r->scenario, r->prefix, folder, &r->tokens, &r->token_count);
    if (!e)
        e = door_open(r, folder);
    if (!e)
        e = fleet_make(r);
    return e ? e : hostile_make(r);
}

static void run_loop(struct run *r)
{
    struct report *report = &r->report;
    r->tick.due = tick_due;
    usage_read(&r->world.usage, &report->before);
    report->began_wall_s = clock_wall_s();
    r->last = report->before;
    r->last_us = clock_mono_us();
    int64_t began_us = r->last_us;
    if (r->hostile)
        hostile_tick(r->hostile);
    if (r->worker)
        worker_start(r->worker);
    if (fleet_start(r->fleet, all_done, r) ||
        loop_timer(r->world.loop, &r->tick, began_us + TICK_US))
        abort();
    loop_run(r->world.loop);
    loop_untimer(r->world.loop, &r->tick);
    second_end(r);
    report->took_us = clock_mono_us() - began_us;
    report->after = r->last;
    if (r->terminal)
        fputc('\n', stderr);
}

/* The audit is the judge; without a database the devices' own word has to do. */
static int judge(struct run *r, const char *folder)
{
    static struct audit audit;
    struct report *report = &r->report;
    enum err e = ERR_OK;
    hostile_free(r->hostile); /* notes those that are still open */
    r->hostile = NULL;
    report->scenario = r->scenario;
    report->tally = r->tally;
    report->hostile = r->hostile_tally;
    report->devices = fleet_count(r->fleet);
    report->failed = fleet_failed(r->fleet);
    if (r->world.database) {
        e = audit_run(r->world.database, r->prefix, r->fleet, stderr, &audit);
        report->audit = e ? NULL : &audit;
    }
    report->passed = !e && report->failed == 0 && (!report->audit || audit_clean(&audit));
    if (report_write(report, folder))
        return EXIT_UNABLE;
    if (r->worker)
        printf("%s: the worker activated %zu, and was refused %zu times\n", r->scenario->name,
               worker_activated(r->worker), worker_failed(r->worker));
    printf("%s: %zu devices, %zu failed, %.1f s, %.0f a second; audit %s\n", r->scenario->name,
           report->devices, report->failed, (double)report->took_us / 1e6,
           (double)(report->devices - report->failed) * 1e6 / (double)report->took_us,
           !report->audit        ? "not made"
           : audit_clean(&audit) ? "clean"
                                 : "FAILED");
    return report->passed ? 0 : EXIT_FAILED;
}

static void release(struct run *r)
{
    hostile_free(r->hostile);
    fleet_free(r->fleet);
    worker_free(r->worker);
    tally_free(r->tally);
    tally_free(r->hostile_tally);
    keys_free(r->keys);
    for (size_t i = 0; r->tokens && i < r->token_count; i++)
        free(r->tokens[i]);
    free(r->tokens);
    world_close(&r->world);
}

int run_scenario(const struct scenario *s, const char *folder, const char *keys_path,
                 const struct usage *processes)
{
    struct run r = {.scenario = s, .terminal = isatty(STDERR_FILENO)};
    r.world.usage = *processes;
    int rc = EXIT_UNABLE;
    if (mkdir(folder, 0755) != 0 && errno != EEXIST) {
        fprintf(stderr, "swarm: %s: %s\n", folder, strerror(errno));
        return EXIT_UNABLE;
    }
    if (!prepare(&r, folder, keys_path)) {
        run_loop(&r);
        rc = judge(&r, folder);
    }
    release(&r);
    return rc;
}
