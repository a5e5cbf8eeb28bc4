/* Making claims: what goes into the files, and how the key stays out of everything else. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "cli/command.h"
#include "cli/print.h"

enum { MAX_PEM_BYTES = 32768, MAX_PATH_BYTES = 6000, MAX_FILE_NAME_BYTES = 4096 };

/* The two files; removed again unless they were kept. */
struct files {
    char names[2][MAX_FILE_NAME_BYTES];
    FILE *pem;
    FILE *key; /* NULL: the key is not made here */
    bool keep;
};

static void files_done(struct files *f)
{
    FILE *const open[] = {f->pem, f->key};
    for (size_t i = 0; i < ARRAY_LEN(open); i++) {
        if (open[i])
            fclose(open[i]);
        if (open[i] && !f->keep)
            unlink(f->names[i]);
    }
}

/* Never over a file that is there: it may be the only copy of a key told before. */
static FILE *file_make(const char *prefix, const char *suffix, mode_t mode, char *ret_name)
{
    int len = snprintf(ret_name, MAX_FILE_NAME_BYTES, "%s%s", prefix, suffix);
    int fd = len < MAX_FILE_NAME_BYTES
                 ? open(ret_name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode)
                 : -1;
    FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (!f)
        fprintf(stderr, "muster: %s: %s; nothing was made\n", ret_name, strerror(errno));
    return f;
}

static int files_make(const struct cli *cli, struct files *f)
{
    const char *prefix = cli->options.value[OPT_out];
    bool key = !(cli->options.given & (OPT(csr) | OPT(certificate)));
    if (!prefix)
        return EXIT_OK;
    if (cli->options.given & OPT(json)) {
        fprintf(stderr, "muster: --out and --json exclude each other\n");
        return EXIT_USAGE;
    }
    f->pem = file_make(prefix, ".pem", 0644, f->names[0]);
    if (f->pem && key)
        f->key = file_make(prefix, ".key", 0600, f->names[1]);
    return f->pem && (f->key || !key) ? EXIT_OK : EXIT_USAGE;
}

static const char *text_of(const json_t *answer, const char *member)
{
    const char *text = json_string_value(json_object_get(answer, member));
    return text ? text : "";
}

static bool file_write(FILE *f, const char *first, const char *second)
{
    fputs(first, f);
    fputs(second, f);
    return fflush(f) == 0 && !ferror(f) && fsync(fileno(f)) == 0;
}

/* A key is told once: what no file takes is printed. */
static int files_write(struct files *f, const json_t *answer)
{
    f->keep = true;
    bool good =
        file_write(f->pem, text_of(answer, "certificate_pem"), text_of(answer, "chain_pem"));
    if (f->key)
        good = file_write(f->key, text_of(answer, "private_key_pem"), "") && good;
    if (good)
        return EXIT_OK;
    fprintf(stderr,
            "muster: what belongs into %s%s cannot be written: %s; it follows on standard "
            "output\n",
            f->names[0], f->key ? " and the key's file" : "", strerror(errno));
    return EXIT_USAGE;
}

static const char *const pems[] = {"certificate_pem", "chain_pem", "private_key_pem"};

static void pems_print(const json_t *answer)
{
    for (size_t i = 0; i < ARRAY_LEN(pems); i++)
        fputs(text_of(answer, pems[i]), stdout);
}

static int answer_show(struct cli *cli, struct files *f, json_t *answer)
{
    if (!f->pem && !(cli->options.given & OPT(json)))
        pems_print(answer);
    else if (!f->pem)
        command_show(cli, answer);
    if (!f->pem)
        return EXIT_OK;
    int rc = files_write(f, answer);
    if (rc != EXIT_OK) {
        pems_print(answer);
        return rc;
    }
    for (size_t i = 0; i < ARRAY_LEN(pems); i++)
        json_object_del(answer, pems[i]);
    command_show(cli, answer);
    return EXIT_OK;
}

static int file_add(const struct cli *cli, enum option_id id, const char *member, json_t *body)
{
    _cleanup_(buf_donep) struct buf text = {0};
    if (!(cli->options.given & OPTION_BIT << id))
        return EXIT_OK;
    int rc = command_file_read(cli->options.value[id], MAX_PEM_BYTES, &text);
    if (rc == EXIT_OK)
        json_object_set_new(body, member, json_string(buf_text(&text)));
    return rc;
}

/* Tokens expire, a claim's enrolment ends: the API has a name for each. */
static int body_complete(const struct cli *cli, json_t *body)
{
    json_t *expires = json_object_get(body, "expires_in_s");
    if (expires) {
        json_object_set(body, "enrol_for_s", expires);
        json_object_del(body, "expires_in_s");
    }
    if (cli->options.given & OPT(templates))
        json_object_set_new(body, "templates", command_names(cli->options.value[OPT_templates]));
    int rc = file_add(cli, OPT_csr, "csr", body);
    return rc == EXIT_OK ? file_add(cli, OPT_certificate, "certificate", body) : rc;
}

static int claim_make(struct cli *cli, json_t *body)
{
    _cleanup_(files_done) struct files files = {.keep = false};
    _cleanup_(buf_donep) struct buf path = {0};
    int rc = body_complete(cli, body);
    if (rc == EXIT_OK)
        rc = files_make(cli, &files);
    if (rc != EXIT_OK)
        return rc;
    buf_init(&path, MAX_PATH_BYTES);
    command_path(cli, &path);
    char *text = json_dumps(body, JSON_COMPACT);
    struct client_request rq = {.method = cli->command->method,
                                .path = buf_text(&path),
                                .body = text,
                                .body_len = text ? strlen(text) : 0};
    struct client_answer answer = {.json = NULL};
    rc = client_call(cli->client, &rq, &answer);
    if (rc == EXIT_OK)
        rc = answer_show(cli, &files, answer.json);
    json_decref(answer.json);
    free(text);
    return rc;
}

int run_claim_create(struct cli *cli)
{
    json_t *body = command_body(cli);
    int rc = body ? claim_make(cli, body) : EXIT_USAGE;
    json_decref(body);
    return rc;
}

int run_claim_rotate(struct cli *cli)
{
    json_t *body = command_body(cli);
    if (body)
        json_object_set_new(body, "name", json_string(cli->words[1]));
    int rc = body ? claim_make(cli, body) : EXIT_USAGE;
    json_decref(body);
    return rc;
}
