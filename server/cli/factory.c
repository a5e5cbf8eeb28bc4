/* Stations of the factory, and whether what it says and what the registry has agree. */
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "cli/command.h"

enum { MAX_PEM_BYTES = 32768, MAX_PATH_BYTES = 6000 };

int run_factory_station(struct cli *cli)
{
    _cleanup_(buf_donep) struct buf pem = {0};
    int rc = command_file_read(cli->options.value[OPT_certificate], MAX_PEM_BYTES, &pem);
    if (rc != EXIT_OK)
        return rc;
    _cleanup_(json_decrefp) json_t *body = command_body(cli);
    if (!body)
        return EXIT_USAGE;
    json_object_set_new(body, "certificate", json_string(buf_text(&pem)));
    return command_call(cli, body);
}

static const struct {
    const char *member;
    const char *text;
} counts[] = {
    {"certified", "certified"},
    {"journal_lines", "lines of journals"},
    {"not_registered", "certified but not registered"},
    {"duplicate_key", "with a key that another serial has"},
    {"other_serial", "with the certificate of another serial"},
    {"ended_unused", "with a certificate that ended before its first use"},
    {"missing_lines", "lines of journals that never came"},
    {"never_connected", "registered but never connected"},
};

static json_int_t count_of(const json_t *answer, const char *member)
{
    return json_integer_value(json_object_get(answer, member));
}

static const char *text_of(const json_t *object, const char *member)
{
    const char *text = json_string_value(json_object_get(object, member));
    return text ? text : "?";
}

static void reconciliation_print(const json_t *answer)
{
    const json_t *x;
    size_t i;
    for (i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
        printf("%8lld %s\n", (long long)count_of(answer, counts[i].member), counts[i].text);
    json_array_foreach(json_object_get(answer, "findings"), i, x)
        printf("station %s line %lld: %s: %s\n", text_of(x, "station"), (long long)count_of(x, "n"),
               text_of(x, "serial"), text_of(x, "problem"));
    json_array_foreach(json_object_get(answer, "gaps"), i, x)
        printf("station %s: lines %lld to %lld are missing\n", text_of(x, "station"),
               (long long)count_of(x, "after_n") + 1, (long long)count_of(x, "next_n") - 1);
}

/* Devices that have not connected yet are no finding until somebody says how long that may take. */
int run_factory_reconcile(struct cli *cli)
{
    _cleanup_(buf_donep) struct buf path = {0};
    struct client_answer answer = {.json = NULL};
    bool silent = cli->options.given & OPT(silent);
    buf_init(&path, MAX_PATH_BYTES);
    command_path(cli, &path);
    struct client_request rq = {.method = "GET", .path = buf_text(&path)};
    int rc = client_call(cli->client, &rq, &answer);
    if (rc != EXIT_OK)
        return rc;
    json_int_t found =
        count_of(answer.json, "not_registered") + count_of(answer.json, "duplicate_key") +
        count_of(answer.json, "other_serial") + count_of(answer.json, "ended_unused") +
        count_of(answer.json, "missing_lines") +
        (silent ? count_of(answer.json, "never_connected") : 0);
    if (cli->options.given & OPT(json))
        command_show(cli, answer.json);
    else
        reconciliation_print(answer.json);
    json_decref(answer.json);
    return found > 0 ? EXIT_REFUSED : EXIT_OK;
}
