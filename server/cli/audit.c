/* The audit as a chain of hashes: written out, and checked here or at the server. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/secret.h"
#include "base/text.h"
#include "cli/command.h"

enum { PAGE_ROWS = 1000, MAX_LINE_BYTES = 1 << 20 };

static bool rows_write(const json_t *rows)
{
    size_t i;
    const json_t *row;
    json_array_foreach(rows, i, row)
    {
        json_dumpf(row, stdout, JSON_COMPACT);
        putchar('\n');
    }
    return !ferror(stdout);
}

/* A page at a time, so that any audit can be written out. */
int run_audit_export(struct cli *cli)
{
    char next[sizeof(((struct client_answer *)0)->next)];
    snprintf(next, sizeof(next), "%s?limit=%d", cli->command->path, PAGE_ROWS);
    while (next[0]) {
        struct client_request rq = {.method = cli->command->method, .path = next};
        struct client_answer answer = {.json = NULL};
        int rc = client_call(cli->client, &rq, &answer);
        if (rc != EXIT_OK)
            return rc;
        bool written = rows_write(answer.json);
        json_decref(answer.json);
        if (!written)
            break;
        snprintf(next, sizeof(next), "%s", answer.next);
    }
    if (fflush(stdout) == 0 && !ferror(stdout))
        return EXIT_OK;
    fprintf(stderr, "muster: the export cannot be written: %s\n", strerror(errno));
    return EXIT_USAGE;
}

/* How far an export was found right. */
struct chain {
    json_int_t rows;
    json_int_t last;
    uint8_t hash[SHA256_BYTES];
};

/* NULL: the record follows the chain. */
static const char *record_follows(const struct chain *c, const char *record, json_int_t id)
{
    json_t *parts = json_loads(record, 0, NULL);
    const char *text = json_string_value(json_array_get(parts, 0)), *why = NULL;
    uint8_t prev[SHA256_BYTES];
    if (!text || text_parse_hex(text, prev, sizeof(prev)) ||
        json_integer_value(json_array_get(parts, 1)) != id)
        why = "the record is of another row";
    else if (c->rows > 0 && id != c->last + 1)
        why = "rows before it are missing";
    else if (c->rows > 0 && memcmp(prev, c->hash, sizeof(prev)) != 0)
        why = "it does not follow the row before it";
    json_decref(parts);
    return why;
}

static const char *row_follows(struct chain *c, const json_t *row)
{
    uint8_t digest[SHA256_BYTES], told[SHA256_BYTES];
    const char *hash = json_string_value(json_object_get(row, "hash"));
    const char *record = json_string_value(json_object_get(row, "record"));
    json_int_t id = json_integer_value(json_object_get(row, "id"));
    if (!hash || text_parse_hex(hash, told, sizeof(told)) || !record || id < 1)
        return "it is no row of an export";
    if (digest_sha256(bytes_text(record), digest))
        return "it cannot be hashed";
    if (memcmp(digest, told, sizeof(told)) != 0)
        return "the row was changed";
    const char *why = record_follows(c, record, id);
    if (!why) {
        c->rows++;
        c->last = id;
        memcpy(c->hash, digest, sizeof(digest));
    }
    return why;
}

static int chain_tell(const struct chain *c)
{
    _cleanup_(buf_donep) struct buf hash = {0};
    buf_init(&hash, 2 * SHA256_BYTES + 1);
    text_add_hex(&hash, bytes_of(c->hash, sizeof(c->hash)));
    printf("intact: %lld rows, the last is %lld with hash %s\n", (long long)c->rows,
           (long long)c->last, buf_text(&hash));
    return EXIT_OK;
}

static int export_check(FILE *file, const char *path)
{
    struct chain c = {0};
    _cleanup_(freep) char *line = NULL;
    size_t room = 0;
    const char *why = NULL;
    for (ssize_t n; !why && (n = getline(&line, &room, file)) >= 0;) {
        json_t *row = n <= MAX_LINE_BYTES ? json_loadb(line, (size_t)n, 0, NULL) : NULL;
        why = row_follows(&c, row);
        json_decref(row);
    }
    if (ferror(file)) {
        fprintf(stderr, "muster: %s: %s\n", path, strerror(errno));
        return EXIT_USAGE;
    }
    if (!why && c.rows == 0)
        why = "there are no rows";
    if (why) {
        fprintf(stderr, "muster: %s: broken at line %lld: %s\n", path, (long long)c.rows + 1, why);
        return EXIT_REFUSED;
    }
    return chain_tell(&c);
}

/* An export needs no server: whoever keeps one can check it. */
static int export_verify(const char *path)
{
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
    if (!file) {
        fprintf(stderr, "muster: %s: %s\n", path, strerror(errno));
        return EXIT_USAGE;
    }
    int rc = export_check(file, path);
    if (file != stdin)
        fclose(file);
    return rc;
}

int run_audit_verify(struct cli *cli)
{
    if (cli->options.given & OPT(export))
        return export_verify(cli->options.value[OPT_export]);
    struct client_request rq = {.method = cli->command->method, .path = cli->command->path};
    struct client_answer answer = {.json = NULL};
    int rc = client_call(cli->client, &rq, &answer);
    if (rc == EXIT_OK) {
        command_show(cli, answer.json);
        rc = json_is_true(json_object_get(answer.json, "intact")) ? EXIT_OK : EXIT_REFUSED;
    }
    json_decref(answer.json);
    return rc;
}
