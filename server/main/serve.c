#include "main/serve.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <systemd/sd-daemon.h>

#include "base/clock.h"
#include "base/log.h"
#include "main/server.h"
#include "proto/admin/admin.h"
#include "proto/device/device.h"
#include "proto/dps/dps.h"
#include "proto/est/est.h"
#include "proto/fleet/fleet.h"
#include "proto/health/health.h"
#include "proto/scep/scep.h"
#include "proto/station/station.h"

enum { US_PER_S = 1000000, PROBE_MAX_MS = 5000, FOREVER_S = 86400 };

/* Signals are waited for, never handled: blocked here, before any thread is made. */
static void signals_block(sigset_t *ret_set)
{
    sigemptyset(ret_set);
    sigaddset(ret_set, SIGTERM);
    sigaddset(ret_set, SIGINT);
    sigaddset(ret_set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, ret_set, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a journal at its limit is as one on a full disk */
}

static void reload(struct server *server)
{
    sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%lld", (long long)clock_mono_us());
    enum err e = server_reload(server);
    sd_notifyf(0, "READY=1\nSTATUS=%s",
               e ? "Serving; the last reload was refused, see the log" : "Serving");
}

/* systemd is told that the process lives only after it has answered a request. */
static void watchdog_feed(struct server *server, uint64_t period_us)
{
    uint64_t wait_ms = period_us / 4000;
    enum err e =
        server_answers(server, (unsigned)(wait_ms < PROBE_MAX_MS ? wait_ms : PROBE_MAX_MS));
    if (e)
        log_text(LOG_ERROR, "watchdog.no_answer", "error", err_name(e));
    else
        sd_notify(0, "WATCHDOG=1");
}

static void wait_for_end(const sigset_t *set, struct server *server)
{
    uint64_t period_us = 0;
    bool watched = sd_watchdog_enabled(0, &period_us) > 0;
    uint64_t pause_us = watched ? period_us / 2 : (uint64_t)FOREVER_S * US_PER_S;
    const struct timespec pause = {.tv_sec = (time_t)(pause_us / US_PER_S),
                                   .tv_nsec = (long)(pause_us % US_PER_S) * 1000};
    for (;;) {
        int number = sigtimedwait(set, NULL, &pause);
        if (number == SIGTERM || number == SIGINT)
            return;
        if (number == SIGHUP)
            reload(server);
        if (watched)
            watchdog_feed(server, period_us);
    }
}

int serve_run(const struct config *config, char message[CONFIG_MESSAGE_BYTES])
{
    static const struct route_table *const device[] = {
        &est_routes,           &dps_routes,   &scep_routes,    &device_enroll_routes,
        &device_config_routes, &fleet_routes, &station_routes, &health_routes};
    static const struct route_table *const admin[] = {&admin_routes, &health_routes};
    sigset_t signals;
    struct server *server = NULL;
    signals_block(&signals);
    if (server_new(config, device, ARRAY_LEN(device), admin, ARRAY_LEN(admin), &server, message))
        return 1;
    sd_notify(0, "READY=1\nSTATUS=Serving");
    wait_for_end(&signals, server);
    sd_notify(0, "STOPPING=1\nSTATUS=Draining");
    log_text(LOG_INFO, "server.draining", "reason", "signal");
    server_drain(server);
    server_free(server);
    log_text(LOG_INFO, "server.stopped", "reason", "drained");
    return 0;
}
