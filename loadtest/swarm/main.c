/* swarm: simulated devices against a Muster server. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "bench.h"
#include "keys.h"
#include "ratio.h"
#include "run.h"

enum {
    EXIT_USAGE = 2,
    PATH_BYTES = 4096,
    MAX_SETTINGS = 32,
    MAX_KEYS = 1000000,

    MAX_IDLE = 15000
};

static const char usage[] =
    "swarm " MUSTER_VERSION ": simulated devices against a Muster server\n"
    "\n"
    "  swarm run SCENARIO --out DIR [--set KEY=VALUE]... [--keys FILE]\n"
    "            [--server-pid PID] [--database-pid PID] [--broker-pid PID]\n"
    "      SCENARIO is a file, or the name of one of loadtest/scenarios. Writes DIR/result.json "
    "and\n"
    "      DIR/report.html, and audits the registry against what the devices hold.\n"
    "  swarm ratio [--clients N[,N]...] [--requests N] [--rounds N] [--pace PERCENT] [--idle N]\n"
    "            [--claims] [--dps] [--keys FILE] [--server-pid PID] [--database-pid PID]\n"
    "            [--broker-pid PID]\n"
    "      CPU time of whole enrolments against bare GETs of the same listener, by turns, at each\n"
    "      number of clients at once; then latencies at PERCENT of what enrolments reach; beside "
    "N\n"
    "      idle TLS connections. --claims: also of devices with a claim, over HTTPS and, where\n"
    "      MUSTER_MQTT_PORT is set, over MQTT. --dps: also of registrations with the device API "
    "of\n"
    "      DPS. The last lines are \"ratio token N.NN\" and "
    "\"ratio\n"
    "      cert N.NN\", of the last number of clients (32 clients, 800 requests, 5 rounds).\n"
    "  swarm keys COUNT [--rsa] [--keys FILE]\n"
    "      Makes keys ahead until FILE has so many; --rsa: FILE.rsa, of which SCEP takes.\n"
    "  swarm --help | --version\n"
    "\n"
    "The environment is that of .dev/env: MUSTER_URL, MUSTER_CACERT, MUSTER_ADMIN_URL,\n"
    "MUSTER_ADMIN_TOKEN, MUSTER_TEMPLATE, MUSTER_DATABASE for the audit, MUSTER_MQTT_HOST and\n"
    "MUSTER_MQTT_PORT for claims over MQTT, MUSTER_DPS_ID_SCOPE for DPS, and MUSTER_SCEP_URL for\n"
    "SCEP. Keys are made once and kept in FILE (default:\n"
    "swarm.keys in the folder of temporary files, for this user).\n"
    "CPU and memory are measured of the processes named (musterd, PostgreSQL's first, Mosquitto),\n"
    "or of the only ones of their name on this machine.\n"
    "Exit codes: 0 all devices succeeded and the audit is clean, 1 not so, 2 it could not be run.\n"
    "\n"
    "A scenario is a file of KEY = VALUE:\n\n";

static const struct option options[] = {
    {"out", required_argument, NULL, 'o'},
    {"set", required_argument, NULL, 's'},
    {"keys", required_argument, NULL, 'k'},
    {"server-pid", required_argument, NULL, 'p'},
    {"database-pid", required_argument, NULL, 'd'},
    {"broker-pid", required_argument, NULL, 'b'},
    {"clients", required_argument, NULL, 'c'},
    {"requests", required_argument, NULL, 'n'},
    {"rounds", required_argument, NULL, 'r'},
    {"pace", required_argument, NULL, 'a'},
    {"idle", required_argument, NULL, 'i'},
    {"claims", no_argument, NULL, 'm'},
    {"dps", no_argument, NULL, 'D'},
    {"rsa", no_argument, NULL, 'R'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'v'},
    {NULL, 0, NULL, 0},
};

struct command_line {
    const char *out;
    const char *keys;
    struct usage processes;
    size_t clients[RATIO_MAX_LOADS];
    size_t loads;
    int64_t requests, rounds, pace_percent, idle;
    char *settings[MAX_SETTINGS];
    size_t setting_count;
    bool claims;
    bool dps;
    bool rsa;
    bool help;
    bool version;
};

/* Numbers separated by commas. */
static bool clients_take(struct command_line *l, char *text)
{
    int64_t n = 0;
    char *rest = NULL;
    l->loads = 0;
    for (char *word = strtok_r(text, ",", &rest); word; word = strtok_r(NULL, ",", &rest)) {
        if (l->loads == RATIO_MAX_LOADS || text_parse_int(word, 1, RATIO_MAX_CLIENTS, &n))
            return false;
        l->clients[l->loads++] = (size_t)n;
    }
    return l->loads > 0;
}

static bool option_take(struct command_line *l, int c)
{
    switch (c) {
    case 'o':
        l->out = optarg;
        return true;
    case 'k':
        l->keys = optarg;
        return true;
    case 'p':
        l->processes.server = atoi(optarg);
        return l->processes.server > 0;
    case 'd':
        l->processes.database = atoi(optarg);
        return l->processes.database > 0;
    case 'b':
        l->processes.broker = atoi(optarg);
        return l->processes.broker > 0;
    case 'c':
        return clients_take(l, optarg);
    case 'n':
        return text_parse_int(optarg, 1, BENCH_MAX_REQUESTS, &l->requests) == ERR_OK;
    case 'r':
        return text_parse_int(optarg, 1, RATIO_MAX_ROUNDS, &l->rounds) == ERR_OK;
    case 'a':
        return text_parse_int(optarg, 1, 100, &l->pace_percent) == ERR_OK;
    case 'i':
        return text_parse_int(optarg, 1, MAX_IDLE, &l->idle) == ERR_OK;
    case 's':
        if (l->setting_count == MAX_SETTINGS || !strchr(optarg, '='))
            return false;
        l->settings[l->setting_count++] = optarg;
        return true;
    case 'm':
        l->claims = true;
        return true;
    case 'D':
        l->dps = true;
        return true;
    case 'R':
        l->rsa = true;
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

/* A path as it stands, or the name of a scenario that came with the source. */
static void scenario_path(const char *name, char out[PATH_BYTES])
{
    if (strchr(name, '/') || strchr(name, '.'))
        snprintf(out, PATH_BYTES, "%s", name);
    else
        snprintf(out, PATH_BYTES, SWARM_SCENARIOS "/%s.ini", name);
}

static int failure(const char *message)
{
    fprintf(stderr, "swarm: %s\n", message);
    return EXIT_USAGE;
}

static int settings_apply(const struct command_line *l, struct scenario *s)
{
    char message[SCENARIO_MESSAGE_BYTES];
    for (size_t i = 0; i < l->setting_count; i++) {
        char *equals = strchr(l->settings[i], '=');
        *equals = '\0';
        if (scenario_set(s, l->settings[i], equals + 1, message))
            return failure(message);
    }
    return 0;
}

static void keys_path(const struct command_line *l, char out[PATH_BYTES])
{
    const char *tmp = getenv("TMPDIR");
    if (l->keys)
        snprintf(out, PATH_BYTES, "%s", l->keys);
    else
        snprintf(out, PATH_BYTES, "%s/swarm-%u.keys", tmp ? tmp : "/tmp", (unsigned)getuid());
}

static int keys_command(const struct command_line *l, const char *count_text)
{
    char path[PATH_BYTES];
    int64_t count = 0;
    keys_path(l, path);
    if (text_parse_int(count_text, 1, MAX_KEYS, &count))
        return failure("COUNT must be a number from 1 to 1000000");
    if (keys_make(path, l->rsa ? KEYS_RSA : KEYS_EC, (size_t)count))
        return failure("the keys cannot be written");
    printf("%lld keys in %s%s\n", (long long)count, path, l->rsa ? ".rsa" : "");
    return 0;
}

static int ratio_command(const struct command_line *l)
{
    char keys[PATH_BYTES], folder[] = "/tmp/swarm-XXXXXX";
    keys_path(l, keys);
    if (!mkdtemp(folder))
        return failure("no folder for temporary files");
    struct ratio_settings settings = {.loads = l->loads,
                                      .requests = (size_t)l->requests,
                                      .rounds = (size_t)l->rounds,
                                      .idle = (size_t)l->idle,
                                      .claims = l->claims,
                                      .dps = l->dps,
                                      .pace_percent = (size_t)l->pace_percent,
                                      .processes = l->processes,
                                      .keys_path = keys,
                                      .folder = folder};
    memcpy(settings.clients, l->clients, sizeof(settings.clients));
    signal(SIGPIPE, SIG_IGN);
    srandom((unsigned)getpid());
    int rc = ratio_run(&settings);
    (void)rmdir(folder);
    return rc;
}

static int run_command(const struct command_line *l, const char *name)
{
    char path[PATH_BYTES], keys[PATH_BYTES], message[SCENARIO_MESSAGE_BYTES];
    struct scenario s;
    const char *template_name = getenv("MUSTER_TEMPLATE");
    if (!l->out)
        return failure("--out DIR is missing");
    scenario_path(name, path);
    if (scenario_load(path, &s, message))
        return failure(message);
    int rc = settings_apply(l, &s);
    if (rc != 0)
        return rc;
    if (s.template_name[0] == '\0' && template_name)
        snprintf(s.template_name, sizeof(s.template_name), "%s", template_name);
    if (s.template_name[0] == '\0')
        return failure("no template: MUSTER_TEMPLATE is not set");
    keys_path(l, keys);
    signal(SIGPIPE, SIG_IGN);
    srandom((unsigned)getpid());
    return run_scenario(&s, l->out, keys, &l->processes);
}

int main(int argc, char **argv)
{
    struct command_line line = {.clients = {32}, .loads = 1, .requests = 800, .rounds = 5};
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (!option_take(&line, c))
            return EXIT_USAGE;
    }
    if (line.version) {
        printf("swarm %s\n", MUSTER_VERSION);
        return 0;
    }
    if (line.help) {
        fputs(usage, stdout);
        scenario_describe();
        return 0;
    }
    if (argc - optind == 2 && strcmp(argv[optind], "run") == 0)
        return run_command(&line, argv[optind + 1]);
    if (argc - optind == 1 && strcmp(argv[optind], "ratio") == 0)
        return ratio_command(&line);
    if (argc - optind == 2 && strcmp(argv[optind], "keys") == 0)
        return keys_command(&line, argv[optind + 1]);
    return failure("expected: swarm run SCENARIO --out DIR; see swarm --help");
}
