/* Importing an allowlist: the file is cut at line ends into requests of bearable size. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/text.h"
#include "cli/command.h"

enum { PIECE_BYTES = 4 << 20, PIECE_LINES = 50000, MAX_PATH_BYTES = 6000 };

/* An import under way. */
struct import {
    struct cli *cli;
    FILE *file;
    const char *type; /* NULL: not known yet */
    struct buf path;
    struct buf piece;
    long first_line; /* of the piece, in the file */
    long lines;      /* of the piece */
    json_t *total;
};

static void add_number(json_t *total, const json_t *answer, const char *key)
{
    json_int_t sum = json_integer_value(json_object_get(total, key)) +
                     json_integer_value(json_object_get(answer, key));
    json_object_set_new(total, key, json_integer(sum));
}

/* Numbers its lines after the file and keeps the report. */
static void report_take(struct import *i, json_t *answer)
{
    json_t *lines = json_object_get(answer, "lines");
    bool json = i->cli->options.given & OPT(json);
    add_number(i->total, answer, "imported");
    add_number(i->total, answer, "duplicate");
    add_number(i->total, answer, "rejected");
    for (size_t n = 0; n < json_array_size(lines); n++) {
        json_t *line = json_array_get(lines, n);
        json_int_t number = json_integer_value(json_object_get(line, "line")) + i->first_line - 1;
        json_object_set_new(line, "line", json_integer(number));
        const char *reason = json_string_value(json_object_get(line, "reason"));
        if (!json && reason)
            printf("line %lld: %s: %s\n", (long long)number,
                   json_string_value(json_object_get(line, "serial")), reason);
    }
    json_array_extend(json_object_get(i->total, "lines"), lines);
}

static int piece_send(struct import *i)
{
    struct client_request rq = {.method = "POST",
                                .path = buf_text(&i->path),
                                .type = i->type,
                                .body = buf_text(&i->piece),
                                .body_len = i->piece.len};
    struct client_answer answer = {.json = NULL};
    if (i->lines == 0)
        return EXIT_OK;
    int rc = client_call(i->cli->client, &rq, &answer);
    if (rc == EXIT_OK)
        report_take(i, answer.json);
    else
        fprintf(stderr, "muster: nothing from line %ld on was imported; the lines before it were\n",
                i->first_line);
    json_decref(answer.json);
    i->first_line += i->lines;
    i->lines = 0;
    buf_reset(&i->piece);
    return rc;
}

static void type_guess(struct import *i, const char *line)
{
    const char *format = i->cli->options.value[OPT_format];
    line += strspn(line, " \t\r\n");
    bool json = format ? strcmp(format, "ndjson") == 0 : line[0] == '{';
    i->type = json ? "application/x-ndjson" : "text/csv";
}

static int lines_send(struct import *i)
{
    _cleanup_(freep) char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    int rc = EXIT_OK;
    while (rc == EXIT_OK && (len = getline(&line, &cap, i->file)) >= 0) {
        if (!i->type)
            type_guess(i, line);
        if (i->piece.len + (size_t)len > PIECE_BYTES || i->lines == PIECE_LINES)
            rc = piece_send(i);
        if ((size_t)len > PIECE_BYTES) {
            fprintf(stderr, "muster: line %ld is longer than any line of an allowlist\n",
                    i->first_line + i->lines);
            return EXIT_USAGE;
        }
        buf_add(&i->piece, line, (size_t)len);
        i->lines++;
    }
    return rc == EXIT_OK ? piece_send(i) : rc;
}

static int totals_show(struct import *i)
{
    long long rejected = json_integer_value(json_object_get(i->total, "rejected"));
    if (i->cli->options.given & OPT(json))
        command_show(i->cli, i->total);
    else
        printf("%lld imported, %lld duplicate, %lld rejected\n",
               (long long)json_integer_value(json_object_get(i->total, "imported")),
               (long long)json_integer_value(json_object_get(i->total, "duplicate")), rejected);
    return rejected > 0 ? EXIT_REFUSED : EXIT_OK;
}

int run_allowlist_import(struct cli *cli)
{
    const char *format = cli->options.value[OPT_format];
    struct import i = {.cli = cli, .first_line = 1};
    if (format && strcmp(format, "csv") != 0 && strcmp(format, "ndjson") != 0) {
        fprintf(stderr, "muster: --format must be csv or ndjson\n");
        return EXIT_USAGE;
    }
    i.file = strcmp(cli->words[0], "-") == 0 ? stdin : fopen(cli->words[0], "re");
    if (!i.file) {
        fprintf(stderr, "muster: %s: %s\n", cli->words[0], strerror(errno));
        return EXIT_USAGE;
    }
    buf_init(&i.path, MAX_PATH_BYTES);
    buf_init(&i.piece, PIECE_BYTES);
    command_path(cli, &i.path);
    i.total =
        json_pack("{s:i, s:i, s:i, s:[]}", "imported", 0, "duplicate", 0, "rejected", 0, "lines");
    int rc = lines_send(&i);
    if (rc == EXIT_OK)
        rc = totals_show(&i);
    if (i.file != stdin)
        fclose(i.file);
    json_decref(i.total);
    buf_done(&i.path);
    buf_done(&i.piece);
    return rc;
}
