/* Enrollments: what goes into their calls from files, and their keys, which are told once. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "cli/command.h"

enum { MAX_TEXT_BYTES = 128 * 1024, MAX_IMPORT_BYTES = 128 << 20, PIECE = 500 };

/* What a file holds, as a text member; without the line end that editors leave. */
static int file_add(const struct cli *cli, enum option_id id, const char *member, json_t *body)
{
    _cleanup_(buf_donep) struct buf text = {0};
    if (!(cli->options.given & OPTION_BIT << id))
        return EXIT_OK;
    int rc = command_file_read(cli->options.value[id], MAX_TEXT_BYTES, &text);
    if (rc != EXIT_OK)
        return rc;
    size_t len = text.len;
    while (len > 0 && strchr("\r\n", ((const char *)text.data)[len - 1]))
        len--;
    json_object_set_new(body, member, json_stringn(buf_text(&text), len));
    return EXIT_OK;
}

static int payload_add(const struct cli *cli, json_t *body)
{
    _cleanup_(buf_donep) struct buf text = {0};
    json_error_t why;
    if (!(cli->options.given & OPT(payload)))
        return EXIT_OK;
    int rc = command_file_read(cli->options.value[OPT_payload], MAX_TEXT_BYTES, &text);
    if (rc != EXIT_OK)
        return rc;
    json_t *payload = json_loadb(buf_text(&text), text.len, JSON_REJECT_DUPLICATES, &why);
    if (!payload) {
        fprintf(stderr, "muster: the payload is no JSON: %s\n", why.text);
        return EXIT_USAGE;
    }
    json_object_set_new(body, "payload", payload);
    return EXIT_OK;
}

static int body_complete(const struct cli *cli, json_t *body)
{
    static const struct {
        enum option_id id;
        const char *member;
    } files[] = {{OPT_primary_key, "primary_key"},
                 {OPT_secondary_key, "secondary_key"},
                 {OPT_certificate, "certificate"},
                 {OPT_secondary_certificate, "secondary_certificate"},
                 {OPT_endorsement_key, "endorsement_key"},
                 {OPT_storage_root_key, "storage_root_key"},
                 {OPT_roots, "roots"}};
    int rc = payload_add(cli, body);
    for (size_t i = 0; i < ARRAY_LEN(files) && rc == EXIT_OK; i++)
        rc = file_add(cli, files[i].id, files[i].member, body);
    if (cli->options.given & OPT(endpoints))
        json_object_set_new(body, "endpoints", command_names(cli->options.value[OPT_endpoints]));
    return rc;
}

int run_enrollment(struct cli *cli)
{
    json_t *body = command_body(cli);
    int rc = body ? body_complete(cli, body) : EXIT_USAGE;
    if (rc == EXIT_OK)
        rc = command_call(cli, body);
    json_decref(body);
    return rc;
}

int run_enrollment_rotate(struct cli *cli)
{
    json_t *body = json_pack("{s:s}", "key", cli->words[1]);
    int rc = body ? command_call(cli, body) : EXIT_USAGE;
    json_decref(body);
    return rc;
}

/* One line of the file; blank ones are passed over. */
static int line_take(char *line, size_t number, json_t *items)
{
    json_error_t why;
    line += strspn(line, " \t\r");
    if (line[0] == '\0')
        return EXIT_OK;
    json_t *item = json_loads(line, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(item)) {
        fprintf(stderr, "muster: line %zu is no JSON object; nothing was imported\n", number);
        json_decref(item);
        return EXIT_USAGE;
    }
    json_array_append_new(items, item);
    return EXIT_OK;
}

static int lines_take(char *text, json_t *items)
{
    size_t number = 0;
    int rc = EXIT_OK;
    for (char *rest = text; rest && rc == EXIT_OK;)
        rc = line_take(strsep(&rest, "\n"), ++number, items);
    return rc;
}

/* Keys are told once: a result is out of this process before the next piece is asked for. */
static int results_write(FILE *out, const json_t *results, size_t *refused)
{
    for (size_t i = 0; i < json_array_size(results); i++) {
        const json_t *row = json_array_get(results, i);
        const char *result = json_string_value(json_object_get(row, "result"));
        *refused += !result || strcmp(result, "created") != 0;
        json_dumpf(row, out, JSON_COMPACT);
        fputc('\n', out);
    }
    if (fflush(out) == 0 && !ferror(out) && (out == stdout || fsync(fileno(out)) == 0))
        return EXIT_OK;
    fprintf(stderr, "muster: the results cannot be written: %s\n", strerror(errno));
    return EXIT_USAGE;
}

static int piece_import(struct cli *cli, const json_t *items, size_t from, FILE *out,
                        size_t *refused)
{
    json_t *piece = json_array();
    for (size_t i = from; i < json_array_size(items) && i < from + PIECE; i++)
        json_array_append(piece, json_array_get(items, i));
    json_t *body = json_pack("{s:o}", "enrollments", piece);
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    struct client_request rq = {.method = "POST",
                                .path = cli->command->path,
                                .body = text,
                                .body_len = text ? strlen(text) : 0};
    struct client_answer answer = {.json = NULL};
    int rc = client_call(cli->client, &rq, &answer);
    if (rc == EXIT_OK)
        rc = results_write(out, answer.json, refused);
    json_decref(answer.json);
    json_decref(body);
    free(text);
    return rc;
}

/* Never over a file that is there: it may be the only copy of keys told before. */
static FILE *out_open(const struct cli *cli)
{
    const char *path = cli->options.value[OPT_out];
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600) : -1;
    FILE *out = path ? fd >= 0 ? fdopen(fd, "w") : NULL : stdout;
    if (!out)
        fprintf(stderr, "muster: %s: %s; nothing was imported\n", path, strerror(errno));
    return out;
}

int run_enrollment_import(struct cli *cli)
{
    _cleanup_(buf_donep) struct buf file = {0};
    size_t refused = 0;
    json_t *items = json_array();
    int rc = command_file_read(cli->words[0], MAX_IMPORT_BYTES, &file);
    if (rc == EXIT_OK && file.len > 0)
        rc = lines_take((char *)file.data, items);
    FILE *out = rc == EXIT_OK ? out_open(cli) : NULL;
    if (rc == EXIT_OK && !out)
        rc = EXIT_USAGE;
    for (size_t i = 0; i < json_array_size(items) && rc == EXIT_OK; i += PIECE)
        rc = piece_import(cli, items, i, out, &refused);
    if (out && out != stdout)
        fclose(out);
    if (rc == EXIT_OK)
        fprintf(stderr, "%zu enrollments, %zu refused\n", json_array_size(items), refused);
    json_decref(items);
    return rc == EXIT_OK && refused > 0 ? EXIT_REFUSED : rc;
}
