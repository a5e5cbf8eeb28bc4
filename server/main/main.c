/* musterd: the daemon and the commands that prepare it. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#include "base/log.h"
#include "main/healthcheck.h"
#include "main/init.h"
#include "main/server.h"
#include "ops/config.h"
#include "proto/admin/admin.h"
#include "proto/device/device.h"
#include "proto/est/est.h"
#include "proto/health/health.h"
#include "store/migrate.h"

enum { EXIT_REFUSED = 1, EXIT_USAGE = 2 };

static const char *const usage =
    "musterd " MUSTER_VERSION ": device provisioning server\n"
    "\n"
    "  musterd serve        --config FILE   run until SIGTERM, which drains; SIGHUP reloads TLS\n"
    "  musterd migrate      --config FILE   bring the database's schema up to date\n"
    "  musterd init         --config FILE   make the CAs, the server's certificate and the first\n"
    "                                       admin token, which is printed once\n"
    "      --organization NAME    O of the CAs' subjects\n"
    "      --server-name NAME     DNS name or address in the server's certificate; may be "
    "repeated\n"
    "      --import-issuing CERT --import-key KEY --import-root CERT\n"
    "                             use these (PEM) instead of making a root and an issuing CA\n"
    "      --admin NAME           name of the admin token (default: admin)\n"
    "  musterd add-issuer   --config FILE --name NAME [--organization NAME] [--root NAME]\n"
    "                                       one more issuing CA below root.key (or that of "
    "--root),\n"
    "                                       or imported as above\n"
    "  musterd add-root     --config FILE --name NAME [--organization NAME] [--root NAME]\n"
    "                                       one more root CA, cross-signed with root.key (or that "
    "of\n"
    "                                       --root): the beginning of a rollover\n"
    "  musterd admin-token  --config FILE --admin NAME   one more admin token, printed once\n"
    "  musterd check-config --config FILE   say whether the file is right\n"
    "  musterd healthcheck  --config FILE   ask /readyz of the daemon on this machine\n"
    "  musterd --help | --version\n"
    "\n"
    "Exit codes: 0 done, 1 failed (the reason on standard error), 2 wrong usage.\n"
    "\n"
    "The configuration file, with the defaults:\n\n";

static const struct option options[] = {
    {"config", required_argument, NULL, 'c'},
    {"organization", required_argument, NULL, 'o'},
    {"server-name", required_argument, NULL, 's'},
    {"import-root", required_argument, NULL, 'r'},
    {"import-issuing", required_argument, NULL, 'i'},
    {"import-key", required_argument, NULL, 'k'},
    {"name", required_argument, NULL, 'n'},
    {"root", required_argument, NULL, 'R'},
    {"admin", required_argument, NULL, 'a'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'v'},
    {NULL, 0, NULL, 0},
};

struct command_line {
    const char *config_path;
    struct init_request init;
    bool help;
    bool version;
};

static bool option_take(struct command_line *l, int c)
{
    switch (c) {
    case 'c':
        l->config_path = optarg;
        return true;
    case 'o':
        l->init.organization = optarg;
        return true;
    case 's':
        if (l->init.server_name_count == INIT_MAX_SERVER_NAMES)
            return false;
        l->init.server_names[l->init.server_name_count++] = optarg;
        return true;
    case 'r':
        l->init.import_root = optarg;
        return true;
    case 'i':
        l->init.import_issuing = optarg;
        return true;
    case 'k':
        l->init.import_key = optarg;
        return true;
    case 'n':
        l->init.issuer_name = optarg;
        return true;
    case 'R':
        l->init.root_name = optarg;
        return true;
    case 'a':
        l->init.admin_name = optarg;
        return true;
    case 'h':
        l->help = true;
        return true;
    case 'v':
        l->version = true;
        return true;
    default:
        return false;
    }
}

static int failure(const char *message)
{
    fprintf(stderr, "musterd: %s\n", message);
    return EXIT_REFUSED;
}

static enum log_level level_parse(const char *name, bool *ret_known)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    *ret_known = true;
    for (int i = 0; i < 4; i++) {
        if (strcmp(names[i], name) == 0)
            return (enum log_level)i;
    }
    *ret_known = false;
    return LOG_INFO;
}

/* Signals are waited for, never handled: blocked here, before any thread is made. */
static void signals_block(sigset_t *ret_set)
{
    sigemptyset(ret_set);
    sigaddset(ret_set, SIGTERM);
    sigaddset(ret_set, SIGINT);
    sigaddset(ret_set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, ret_set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static void wait_for_end(const sigset_t *set, struct server *server)
{
    int number = 0;
    while (sigwait(set, &number) == 0) {
        if (number != SIGHUP)
            return;
        server_reload(server);
    }
}

static int serve_run(const struct config *config, const struct init_request *unused)
{
    (void)unused;
    static const struct route_table *const device[] = {&est_routes, &device_routes, &health_routes};
    static const struct route_table *const admin[] = {&admin_routes, &health_routes};
    char message[CONFIG_MESSAGE_BYTES];
    sigset_t signals;
    struct server *server = NULL;
    signals_block(&signals);
    if (server_new(config, device, ARRAY_LEN(device), admin, ARRAY_LEN(admin), &server, message))
        return failure(message);
    sd_notify(0, "READY=1");
    wait_for_end(&signals, server);
    sd_notify(0, "STOPPING=1");
    log_text(LOG_INFO, "server.draining", "reason", "signal");
    server_drain(server);
    server_free(server);
    log_text(LOG_INFO, "server.stopped", "reason", "drained");
    return 0;
}

static int migrate_command(const struct config *config, const struct init_request *unused)
{
    (void)unused;
    char message[CONFIG_MESSAGE_BYTES];
    struct config patient = *config;
    struct db *db = NULL;
    int applied = 0;
    patient.database_statement_timeout_ms = 0; /* a migration takes the time it takes */
    if (server_database(&patient, &db, message))
        return failure(message);
    enum err e = migrate_run(db, &applied, message);
    db_free(db);
    if (e)
        return failure(message);
    printf("%d migrations applied\n", applied);
    return 0;
}

static int init_command(const struct config *config, const struct init_request *rq)
{
    char message[CONFIG_MESSAGE_BYTES];
    return init_run(config, rq, message) ? failure(message) : 0;
}

static int issuer_command(const struct config *config, const struct init_request *rq)
{
    char message[CONFIG_MESSAGE_BYTES];
    return init_issuer(config, rq, message) ? failure(message) : 0;
}

static int root_command(const struct config *config, const struct init_request *rq)
{
    char message[CONFIG_MESSAGE_BYTES];
    return init_root(config, rq, message) ? failure(message) : 0;
}

static int token_command(const struct config *config, const struct init_request *rq)
{
    char message[CONFIG_MESSAGE_BYTES];
    return init_admin_token(config, rq, message) ? failure(message) : 0;
}

static int check_command(const struct config *config, const struct init_request *unused)
{
    (void)config;
    (void)unused;
    printf("the configuration is right\n");
    return 0;
}

static const struct command {
    const char *name;
    int (*run)(const struct config *config, const struct init_request *rq);
} commands[] = {
    {"serve", serve_run},
    {"migrate", migrate_command},
    {"init", init_command},
    {"add-issuer", issuer_command},
    {"add-root", root_command},
    {"admin-token", token_command},
    {"check-config", check_command},
    {"healthcheck", healthcheck_command},
};

static int command_run(const struct command *command, const struct command_line *line)
{
    _cleanup_(config_freep) struct config *config = NULL;
    char message[CONFIG_MESSAGE_BYTES];
    bool known = false;
    if (!line->config_path) {
        fprintf(stderr, "musterd: --config FILE is missing\n");
        return EXIT_USAGE;
    }
    if (config_load(line->config_path, &config, message))
        return failure(message);
    log_set_level(level_parse(config->log_level, &known));
    if (!known)
        return failure("[log] level must be debug, info, warn or error");
    return command->run(config, &line->init);
}

int main(int argc, char **argv)
{
    struct command_line line = {
        .init = {.admin_name = "admin", .issuer_name = "issuing-1", .root_name = "root"}};
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (!option_take(&line, c))
            return EXIT_USAGE;
    }
    if (line.version) {
        printf("musterd %s\n", MUSTER_VERSION);
        return 0;
    }
    if (line.help) {
        fputs(usage, stdout);
        config_describe(stdout);
        return 0;
    }
    for (size_t i = 0; i < ARRAY_LEN(commands) && argc == optind + 1; i++) {
        if (strcmp(commands[i].name, argv[optind]) == 0)
            return command_run(&commands[i], &line);
    }
    fprintf(stderr, "musterd: no such command; see musterd --help\n");
    return EXIT_USAGE;
}
