/* Commands that do more than one call, or read a file. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/print.h"

enum {
    MAX_FILE_BYTES = 256 * 1024,
    MAX_CRL_BYTES = 4 << 20,
    MAX_BUNDLE_BYTES = 1 << 20,
    MAX_PATH_BYTES = 6000
};

int command_file_read(const char *path, size_t max, struct buf *b)
{
    buf_init(b, max);
    enum err e = file_load(strcmp(path, "-") == 0 ? "/dev/stdin" : path, b);
    if (!e)
        return EXIT_OK;
    fprintf(stderr, "muster: %s: %s\n", path, e == ERR_INVALID ? "too long" : strerror(errno));
    return EXIT_USAGE;
}

static int document_send(struct cli *cli, const char *file)
{
    _cleanup_(buf_donep) struct buf document = {0};
    _cleanup_(buf_donep) struct buf path = {0};
    int rc = command_file_read(file, MAX_FILE_BYTES, &document);
    if (rc != EXIT_OK)
        return rc;
    buf_init(&path, MAX_PATH_BYTES);
    command_path(cli, &path);
    struct client_request rq = {.method = cli->command->method,
                                .path = buf_text(&path),
                                .body = buf_text(&document),
                                .body_len = document.len};
    struct client_answer answer = {.json = NULL};
    rc = client_call(cli->client, &rq, &answer);
    if (rc == EXIT_OK)
        command_show(cli, answer.json);
    json_decref(answer.json);
    return rc;
}

int run_template_put(struct cli *cli)
{
    return document_send(cli, cli->words[1]);
}

int run_template_validate(struct cli *cli)
{
    return document_send(cli, cli->words[0]);
}

/* Shows one text member alone where an option asks for it. */
static int member_show(struct cli *cli, enum option_id id, const char *member)
{
    _cleanup_(buf_donep) struct buf path = {0};
    buf_init(&path, MAX_PATH_BYTES);
    command_path(cli, &path);
    struct client_request rq = {.method = "GET", .path = buf_text(&path)};
    struct client_answer answer = {.json = NULL};
    int rc = client_call(cli->client, &rq, &answer);
    const char *text = json_string_value(json_object_get(answer.json, member));
    if (rc == EXIT_OK && cli->options.given & OPTION_BIT << id && text)
        fputs(text, stdout);
    else if (rc == EXIT_OK)
        command_show(cli, answer.json);
    json_decref(answer.json);
    return rc;
}

int run_template_show(struct cli *cli)
{
    return member_show(cli, OPT_body, "body");
}

int run_cert_show(struct cli *cli)
{
    return member_show(cli, OPT_pem, "pem");
}

/* The call with a PEM file in its body. */
static int pem_send(struct cli *cli, const char *file)
{
    _cleanup_(buf_donep) struct buf pem = {0};
    int rc = command_file_read(file, MAX_FILE_BYTES, &pem);
    json_t *body = rc == EXIT_OK ? command_body(cli) : NULL;
    if (!body)
        return EXIT_USAGE;
    json_object_set_new(body, "pem", json_string(buf_text(&pem)));
    rc = command_call(cli, body);
    json_decref(body);
    return rc;
}

/* A file's text as a member of the body. */
static int file_add(const char *path, const char *member, json_t *body)
{
    _cleanup_(buf_donep) struct buf text = {0};
    int rc = command_file_read(path, MAX_FILE_BYTES, &text);
    if (rc == EXIT_OK && json_object_set_new(body, member, json_string(buf_text(&text))))
        rc = EXIT_USAGE;
    return rc;
}

/* The last word is the file, unless the certificate is one that a device sent; a name may go
 * before. */
static int ca_body(const struct cli *cli, json_t *body)
{
    const struct options *o = &cli->options;
    bool unknown = o->given & OPT(unknown);
    size_t names = cli->word_count - !unknown;
    int rc = EXIT_OK;
    if (names > 1) { /* or there is no word at all */
        fprintf(stderr, "muster: expected: muster ca register [NAME] FILE\n");
        return EXIT_USAGE;
    }
    if (names == 1)
        json_object_set_new(body, "name", json_string(cli->words[0]));
    if (unknown)
        json_object_set_new(body, "unknown", json_string(o->value[OPT_unknown]));
    else
        rc = file_add(cli->words[names], "pem", body);
    if (rc == EXIT_OK && o->given & OPT(proof))
        rc = file_add(o->value[OPT_proof], "proof", body);
    return rc;
}

int run_ca_register(struct cli *cli)
{
    json_t *body = command_body(cli);
    int rc = body ? ca_body(cli, body) : EXIT_USAGE;
    if (rc == EXIT_OK)
        rc = command_call(cli, body);
    json_decref(body);
    return rc;
}

/* The bundle as it is: a file for muster ca import. */
int run_ca_export(struct cli *cli)
{
    struct client_request rq = {.method = "GET", .path = cli->command->path};
    struct client_answer answer = {.json = NULL};
    int rc = client_call(cli->client, &rq, &answer);
    if (rc == EXIT_OK) {
        json_dumpf(answer.json, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    json_decref(answer.json);
    return rc;
}

/* An entry that was refused is exit code 1. */
static int bundle_send(struct cli *cli, const json_t *bundle)
{
    char *text = json_dumps(bundle, JSON_COMPACT);
    struct client_request rq = {.method = "POST",
                                .path = cli->command->path,
                                .type = "application/json",
                                .body = text,
                                .body_len = text ? strlen(text) : 0};
    struct client_answer answer = {.json = NULL};
    int rc = client_call(cli->client, &rq, &answer);
    if (rc == EXIT_OK)
        command_show(cli, answer.json);
    for (size_t i = 0; i < json_array_size(answer.json) && rc == EXIT_OK; i++) {
        const char *result =
            json_string_value(json_object_get(json_array_get(answer.json, i), "result"));
        if (result && strcmp(result, "refused") == 0)
            rc = EXIT_REFUSED;
    }
    json_decref(answer.json);
    free(text);
    return rc;
}

int run_ca_import(struct cli *cli)
{
    _cleanup_(buf_donep) struct buf text = {0};
    int rc = command_file_read(cli->words[0], MAX_BUNDLE_BYTES, &text);
    if (rc != EXIT_OK)
        return rc;
    json_t *bundle = json_loadb(buf_text(&text), text.len, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(bundle)) {
        fprintf(stderr, "muster: %s: no bundle of muster ca export\n", cli->words[0]);
        json_decref(bundle);
        return EXIT_USAGE;
    }
    if (cli->options.given & OPT(check))
        json_object_set_new(bundle, "check", json_true());
    rc = bundle_send(cli, bundle);
    json_decref(bundle);
    return rc;
}

int run_manifest_trust(struct cli *cli)
{
    _cleanup_(buf_donep) struct buf pem = {0};
    int rc = command_file_read(cli->words[1], MAX_FILE_BYTES, &pem);
    if (rc != EXIT_OK)
        return rc;
    json_t *body = json_pack("{s:s, s:s}", "name", cli->words[0], "pem", buf_text(&pem));
    if (!body) {
        fprintf(stderr, "muster: %s is no PEM\n", cli->words[1]);
        return EXIT_USAGE;
    }
    rc = command_call(cli, body);
    json_decref(body);
    return rc;
}

int run_ca_crl(struct cli *cli)
{
    _cleanup_(buf_donep) struct buf crl = {0}, path = {0};
    struct client_answer answer = {.json = NULL};
    int rc = command_file_read(cli->words[1], MAX_CRL_BYTES, &crl);
    if (rc != EXIT_OK)
        return rc;
    buf_init(&path, MAX_PATH_BYTES);
    command_path(cli, &path);
    struct client_request rq = {.method = "POST",
                                .path = buf_text(&path),
                                .type = "application/pkix-crl",
                                .body = buf_text(&crl),
                                .body_len = crl.len};
    rc = client_call(cli->client, &rq, &answer);
    if (rc == EXIT_OK && answer.json)
        command_show(cli, answer.json);
    json_decref(answer.json);
    return rc;
}

int run_cert_register(struct cli *cli)
{
    return pem_send(cli, cli->words[0]);
}

int run_ca_unknown(struct cli *cli)
{
    _cleanup_(buf_donep) struct buf path = {0};
    if (!(cli->options.given & OPT(dismiss)))
        return command_call(cli, NULL);
    buf_init(&path, MAX_PATH_BYTES);
    buf_printf(&path, "%s/", cli->command->path);
    text_add_url(&path, cli->options.value[OPT_dismiss]);
    struct client_request rq = {.method = "DELETE", .path = buf_text(&path)};
    struct client_answer answer = {.json = NULL};
    int rc = client_call(cli->client, &rq, &answer);
    json_decref(answer.json);
    return rc;
}

int run_webhook_create(struct cli *cli)
{
    json_t *body = command_body(cli);
    if (!body)
        return EXIT_USAGE;
    json_object_set_new(body, "url", json_string(cli->words[1]));
    if (cli->options.given & OPT(event))
        json_object_set_new(body, "events", command_names(cli->options.value[OPT_event]));
    int rc = command_call(cli, body);
    json_decref(body);
    return rc;
}

int run_retire(struct cli *cli)
{
    if (cli->options.given & OPT(yes))
        return command_call(cli, NULL);
    fprintf(stderr, "muster: a retired serial never enrols again; say --yes if that is meant\n");
    return EXIT_USAGE;
}

/* The first check of all is whether anybody answers: the finding where nobody does, or cannot. */
static json_t *unanswered(int rc)
{
    bool away = rc == EXIT_UNREACHABLE;
    return json_pack("[{s:s, s:s, s:s, s:s}]", "check", away ? "server" : "token", "severity",
                     "error", "detail",
                     away ? "it does not answer, or cannot; the reason is on standard error"
                          : "the server refuses it; the reason is on standard error",
                     "remedy",
                     away ? "--url and --cacert; db.unavailable: PostgreSQL and [database]"
                          : "muster whoami; musterd admin-token makes another");
}

/* An error found is exit code 1, so that a monitor can ask. */
int run_doctor(struct cli *cli)
{
    struct client_request rq = {.method = "GET", .path = cli->command->path};
    struct client_answer answer = {.json = NULL};
    int rc = client_call(cli->client, &rq, &answer);
    if (rc != EXIT_OK)
        answer.json = unanswered(rc);
    command_show(cli, answer.json);
    for (size_t i = 0; i < json_array_size(answer.json); i++) {
        const char *severity =
            json_string_value(json_object_get(json_array_get(answer.json, i), "severity"));
        if (rc == EXIT_OK && severity && strcmp(severity, "error") == 0)
            rc = EXIT_REFUSED;
    }
    json_decref(answer.json);
    return rc;
}
