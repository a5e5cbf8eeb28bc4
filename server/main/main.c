/* musterd: the daemon and the commands that prepare it. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "main/check.h"
#include "main/healthcheck.h"
#include "main/init.h"
#include "main/ra.h"
#include "main/rebuild.h"
#include "main/serve.h"
#include "main/server.h"
#include "ops/config.h"
#include "store/migrate.h"

enum { EXIT_REFUSED = 1, EXIT_USAGE = 2 };

static const char *const usage =
    "musterd " MUSTER_VERSION ": device provisioning server\n"
    "\n"
    "  musterd serve        --config FILE   run until SIGTERM, which drains; SIGHUP reloads\n"
    "                                       certificate, templates and limits\n"
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
    "                                       or imported as above; without --import-key it has\n"
    "                                       the key of issuer-request\n"
    "      --key-uri URI          the issuing key is behind PKCS#11 (also of init)\n"
    "  musterd issuer-request --config FILE --name NAME [--organization NAME] [--key-uri URI]\n"
    "                                       make the key of one more issuing CA and print a\n"
    "                                       request (PKCS#10) for the holder of the root\n"
    "  musterd add-root     --config FILE --name NAME [--organization NAME] [--root NAME]\n"
    "                                       one more root CA, cross-signed with root.key (or that "
    "of\n"
    "                                       --root): the beginning of a rollover\n"
    "  musterd add-ra       --config FILE [--name ISSUER] [--organization NAME]\n"
    "                                       make key and certificate of the registration "
    "authority\n"
    "                                       for SCEP, where [scep] says; again: another "
    "certificate\n"
    "  musterd admin-token  --config FILE --admin NAME   one more admin token, printed once\n"
    "  musterd check-config --config FILE [--database]\n"
    "                                       say what is wrong with the file and the files it\n"
    "                                       names; with --database also connect\n"
    "  musterd registry rebuild --config FILE --journal DIR\n"
    "                                       make a lost registry again, in an empty database that\n"
    "                                       migrate has made; prints what it has and every gap\n"
    "      --journal DIR          folder of a replica's journal; may be repeated\n"
    "      --journal-key FILE     public key (PEM) of its seals; may be repeated; without it that "
    "of\n"
    "                             [journal] key_file\n"
    "      --crl FILE             a CRL of ours (PEM or DER); may be repeated\n"
    "      --certificates FILE    certificates of ours (PEM) that no journal has\n"
    "      --product NAME         whose devices these are\n"
    "      --template NAME        theirs; without it the only one of the product\n"
    "      --onto-existing        add what it lacks to a registry that has other devices, such as "
    "one\n"
    "                             from a backup\n"
    "      --dry-run              say what it would do\n"
    "      --json                 print JSON\n"
    "  musterd healthcheck  --config FILE   ask /readyz of the daemon on this machine\n"
    "  musterd --help | --version\n"
    "\n"
    "Exit codes: 0 done, 1 failed (the reason on standard error), 2 wrong usage; of registry\n"
    "rebuild: 0 done, 1 done with gaps, 2 wrong usage, 3 failed.\n"
    "\n"
    "Secrets, the first source that has one:\n"
    "  database password   MUSTER_DATABASE_PASSWORD, then the systemd credential\n"
    "                      database-password, then [database] password_file\n"
    "  metrics token       MUSTER_METRICS_TOKEN, then the systemd credential\n"
    "                      metrics-token, then [admin] metrics_token_file\n"
    "  hook secret         MUSTER_HOOK_SECRET, then the systemd credential\n"
    "                      hook-secret, then [hook] secret_file\n"
    "  passphrase of keys  MUSTER_CA_PASSPHRASE, then the systemd credential\n"
    "                      ca-passphrase, then [ca] passphrase_file\n"
    "  PIN of the token    MUSTER_PKCS11_PIN, then the systemd credential\n"
    "                      pkcs11-pin, then [ca] pkcs11_pin_file\n"
    "tls.certificate and tls.key may be credential:NAME, a systemd credential.\n"
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
    {"key-uri", required_argument, NULL, 'u'},
    {"admin", required_argument, NULL, 'a'},
    {"database", no_argument, NULL, 'd'},
    {"journal", required_argument, NULL, 'J'},
    {"journal-key", required_argument, NULL, 'K'},
    {"crl", required_argument, NULL, 'C'},
    {"certificates", required_argument, NULL, 'B'},
    {"product", required_argument, NULL, 'P'},
    {"template", required_argument, NULL, 'T'},
    {"onto-existing", no_argument, NULL, 'E'},
    {"dry-run", no_argument, NULL, 'D'},
    {"json", no_argument, NULL, 'j'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'v'},
    {NULL, 0, NULL, 0},
};

struct command_line {
    const char *config_path;
    struct init_request init;
    struct rebuild_request rebuild;
    bool database;
    bool help;
    bool version;
};

static bool list_take(const char **list, size_t *count)
{
    if (*count == RECOVERY_MAX_FILES)
        return false;
    list[(*count)++] = optarg;
    return true;
}

static bool rebuild_option_take(struct rebuild_request *r, int c)
{
    switch (c) {
    case 'J':
        return list_take(r->order.journals, &r->order.journal_count);
    case 'K':
        return list_take(r->key_files, &r->key_file_count);
    case 'C':
        return list_take(r->order.crls, &r->order.crl_count);
    case 'B':
        r->order.bundle = optarg;
        return true;
    case 'P':
        r->order.product = optarg;
        return true;
    case 'T':
        r->order.template = optarg;
        return true;
    case 'E':
        r->order.onto_existing = true;
        return true;
    case 'D':
        r->order.dry_run = true;
        return true;
    case 'j':
        r->json = true;
        return true;
    default:
        return false;
    }
}

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
    case 'u':
        l->init.key_uri = optarg;
        return true;
    case 'a':
        l->init.admin_name = optarg;
        return true;
    case 'd':
        l->database = true;
        return true;
    case 'h':
        l->help = true;
        return true;
    case 'v':
        l->version = true;
        return true;
    default:
        return rebuild_option_take(&l->rebuild, c);
    }
}

static int failure(const char *message)
{
    fprintf(stderr, "musterd: %s\n", message);
    return EXIT_REFUSED;
}

static int serve_command(const struct config *config, const struct command_line *unused)
{
    (void)unused;
    char message[CONFIG_MESSAGE_BYTES] = "";
    return serve_run(config, message) ? failure(message) : 0;
}

static int migrate_command(const struct config *config, const struct command_line *unused)
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

/* The issuing CA has a name where nobody gave one. */
static struct init_request named(const struct init_request *given)
{
    struct init_request rq = *given;
    if (!rq.issuer_name)
        rq.issuer_name = "issuing-1";
    return rq;
}

static int init_command(const struct config *config, const struct command_line *line)
{
    char message[CONFIG_MESSAGE_BYTES];
    const struct init_request rq = named(&line->init);
    return init_run(config, &rq, message) ? failure(message) : 0;
}

static int issuer_command(const struct config *config, const struct command_line *line)
{
    char message[CONFIG_MESSAGE_BYTES];
    const struct init_request rq = named(&line->init);
    return init_issuer(config, &rq, message) ? failure(message) : 0;
}

static int request_command(const struct config *config, const struct command_line *line)
{
    char message[CONFIG_MESSAGE_BYTES];
    const struct init_request rq = named(&line->init);
    return init_issuer_request(config, &rq, message) ? failure(message) : 0;
}

static int root_command(const struct config *config, const struct command_line *line)
{
    char message[CONFIG_MESSAGE_BYTES];
    const struct init_request rq = named(&line->init);
    return init_root(config, &rq, message) ? failure(message) : 0;
}

static int ra_command(const struct config *config, const struct command_line *line)
{
    char message[CONFIG_MESSAGE_BYTES];
    const struct init_request *rq = &line->init;
    return ra_make(config, rq->issuer_name, rq->organization, message) ? failure(message) : 0;
}

static int token_command(const struct config *config, const struct command_line *line)
{
    char message[CONFIG_MESSAGE_BYTES];
    return init_admin_token(config, &line->init, message) ? failure(message) : 0;
}

static int check_command(const struct config *config, const struct command_line *line)
{
    unsigned problems = check_config(config, line->database, stderr);
    if (problems > 0)
        return EXIT_REFUSED;
    printf("the configuration is right\n");
    return 0;
}

static int healthcheck_command(const struct config *config, const struct command_line *unused)
{
    (void)unused;
    return healthcheck_run(config);
}

static int rebuild_command(const struct config *config, const struct command_line *line)
{
    return rebuild_command_run(config, &line->rebuild);
}

static const struct command {
    const char *name;
    const char *verb; /* NULL: its name is one word */
    int (*run)(const struct config *config, const struct command_line *line);
} commands[] = {
    {"serve", NULL, serve_command},
    {"migrate", NULL, migrate_command},
    {"init", NULL, init_command},
    {"add-issuer", NULL, issuer_command},
    {"add-root", NULL, root_command},
    {"add-ra", NULL, ra_command},
    {"admin-token", NULL, token_command},
    {"issuer-request", NULL, request_command},
    {"check-config", NULL, check_command},
    {"healthcheck", NULL, healthcheck_command},
    {"registry", "rebuild", rebuild_command},
};

static int command_run(const struct command *command, const struct command_line *line)
{
    _cleanup_(config_freep) struct config *config = NULL;
    char message[CONFIG_MESSAGE_BYTES];
    enum log_level level = LOG_INFO;
    if (!line->config_path) {
        fprintf(stderr, "musterd: --config FILE is missing\n");
        return EXIT_USAGE;
    }
    if (config_load(line->config_path, &config, message))
        return failure(message);
    if (log_level_parse(config->log_level, &level) && command->run != check_command)
        return failure("[log] level must be debug, info, warn or error");
    log_set_level(level);
    return command->run(config, line);
}

int main(int argc, char **argv)
{
    struct command_line line = {.init = {.admin_name = "admin", .root_name = "root"}};
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
    for (size_t i = 0; i < ARRAY_LEN(commands) && argc > optind; i++) {
        const struct command *k = &commands[i];
        bool named = argc == optind + (k->verb ? 2 : 1) && strcmp(k->name, argv[optind]) == 0;
        if (named && (!k->verb || strcmp(k->verb, argv[optind + 1]) == 0))
            return command_run(k, &line);
    }
    fprintf(stderr, "musterd: no such command; see musterd --help\n");
    return EXIT_USAGE;
}
