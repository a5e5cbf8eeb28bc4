/* Importing an allowlist, or certificates: the file is cut at line ends into requests of bearable
 * size. With a report an import that broke can go on. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/convert.h"
#include "cli/import_report.h"
#include "cli/progress.h"

enum {
    PIECE_BYTES = 4 << 20,
    PIECE_LINES = 50000,
    CERT_PIECE_LINES = 500, /* each is a transaction */
    MANIFEST_PIECE_LINES = 1000,
    MAX_PATH_BYTES = 6000
};

/* An import under way. */
struct import {
    struct cli *cli;
    FILE *file;
    const char *type; /* NULL: not known yet */
    struct buf path;
    struct buf piece;
    long first_line;  /* of the piece, in the file */
    long lines;       /* of the piece */
    long piece_lines; /* of a piece at most */
    json_t *total;
    struct import_report *report; /* NULL: none is wanted */
    struct progress progress;
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
        if (!json && !i->report && reason)
            printf("line %lld: %s: %s\n", (long long)number,
                   json_string_value(json_object_get(line, "serial")), reason);
    }
    if (json)
        json_array_extend(json_object_get(i->total, "lines"), lines);
}

/* What is told of a piece that was taken. */
static int piece_told(struct import *i, json_t *answer)
{
    report_take(i, answer);
    if (!i->report)
        return EXIT_OK;
    import_report_hash(i->report, buf_bytes(&i->piece));
    return import_report_add(i->report, json_object_get(answer, "lines"),
                             i->first_line + i->lines - 1);
}

static void piece_forget(struct import *i)
{
    i->first_line += i->lines;
    i->lines = 0;
    buf_reset(&i->piece);
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
    if (rc != EXIT_OK)
        fprintf(stderr, "muster: nothing from line %ld on was imported; the lines before it were\n",
                i->first_line);
    else
        rc = piece_told(i, answer.json);
    json_decref(answer.json);
    piece_forget(i);
    progress_show(&i->progress, ftell(i->file), i->first_line - 1);
    return rc;
}

static void type_guess(struct import *i, const char *line)
{
    const char *format = i->cli->options.value[OPT_format];
    line += strspn(line, " \t\r\n");
    bool json = format ? strcmp(format, "ndjson") == 0 : line[0] == '{';
    i->type = json ? "application/x-ndjson" : "text/csv";
}

/* Reads the lines up to a point, which must be those that were done. */
static int point_pass(struct import *i, const struct import_point *point)
{
    _cleanup_(freep) char *line = NULL;
    size_t cap = 0;
    for (ssize_t len; i->first_line + i->lines <= point->lines; i->lines++) {
        if ((len = getline(&line, &cap, i->file)) < 0)
            break;
        if (!i->type)
            type_guess(i, line);
        buf_add(&i->piece, line, (size_t)len);
    }
    import_report_hash(i->report, buf_bytes(&i->piece));
    piece_forget(i);
    if (i->first_line == point->lines + 1 && import_report_is_at(i->report, point))
        return EXIT_OK;
    fprintf(stderr, "muster: the file is not the one of the report: they differ by line %ld\n",
            point->lines);
    return EXIT_USAGE;
}

/* Passes over what an earlier run has done. */
static int points_pass(struct import *i)
{
    static const char *const results[] = {"imported", "duplicate", "rejected"};
    size_t count = 0;
    int rc = EXIT_OK;
    const struct import_point *points = i->report ? import_report_points(i->report, &count) : NULL;
    for (size_t n = 0; rc == EXIT_OK && n < count; n++)
        rc = point_pass(i, &points[n]);
    for (size_t n = 0; i->report && n < ARRAY_LEN(results); n++)
        json_object_set_new(i->total, results[n],
                            json_integer(import_report_had(i->report, results[n])));
    return rc;
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
        if (i->piece.len + (size_t)len > PIECE_BYTES || i->lines == i->piece_lines)
            rc = piece_send(i);
        if ((size_t)len > PIECE_BYTES) {
            fprintf(stderr, "muster: line %ld is longer than any line may be\n",
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

/* A heading may say the type, so a file is read from its beginning in any case. */
static int import_run(struct import *i)
{
    struct stat st = {0};
    bool sized = fstat(fileno(i->file), &st) == 0 && S_ISREG(st.st_mode);
    int rc = points_pass(i);
    progress_begin(&i->progress, "lines", i->first_line > 1 ? ftell(i->file) : 0,
                   sized ? st.st_size : 0);
    if (rc == EXIT_OK)
        rc = lines_send(i);
    progress_end(&i->progress);
    return rc == EXIT_OK ? totals_show(i) : rc;
}

/* As it is, or as lines of another maker's file; NULL after it has said what is wrong. */
static FILE *file_open(const struct import *i)
{
    const char *path = i->cli->words[0], *columns = i->cli->options.value[OPT_columns];
    if (columns)
        return convert_columns(path, columns);
    if (strcmp(i->cli->command->object, "manifest") == 0)
        return convert_manifest(path);
    if (strcmp(path, "-") == 0)
        return stdin;
    FILE *f = fopen(path, "re");
    if (!f)
        fprintf(stderr, "muster: %s: %s\n", path, strerror(errno));
    return f;
}

static int import_open(struct import *i)
{
    const struct options *o = &i->cli->options;
    const char *format = o->value[OPT_format], *report = o->value[OPT_report];
    if (format && strcmp(format, "csv") != 0 && strcmp(format, "ndjson") != 0) {
        fprintf(stderr, "muster: --format must be csv or ndjson\n");
        return EXIT_USAGE;
    }
    if (o->given & OPT(resume) && !report) {
        fprintf(stderr, "muster: --resume goes on where the --report ends\n");
        return EXIT_USAGE;
    }
    i->file = file_open(i);
    if (!i->file)
        return EXIT_USAGE;
    return report ? import_report_open(report, o->given & OPT(resume), &i->report) : EXIT_OK;
}

static int import_file(struct cli *cli, const char *type, long piece_lines)
{
    struct import i = {.cli = cli, .type = type, .first_line = 1, .piece_lines = piece_lines};
    buf_init(&i.path, MAX_PATH_BYTES);
    buf_init(&i.piece, PIECE_BYTES);
    command_path(cli, &i.path);
    if (!(cli->options.given & (OPT(json) | OPT(report))))
        buf_printf(&i.path, "%creport=rejected", strchr(buf_text(&i.path), '?') ? '&' : '?');
    i.total =
        json_pack("{s:i, s:i, s:i, s:[]}", "imported", 0, "duplicate", 0, "rejected", 0, "lines");
    int rc = import_open(&i);
    if (rc == EXIT_OK)
        rc = import_run(&i);
    if (i.file && i.file != stdin)
        fclose(i.file);
    import_report_close(i.report);
    json_decref(i.total);
    buf_done(&i.path);
    buf_done(&i.piece);
    return rc;
}

int run_allowlist_import(struct cli *cli)
{
    return import_file(cli, NULL, PIECE_LINES);
}

int run_cert_import(struct cli *cli)
{
    return import_file(cli, "application/x-ndjson", CERT_PIECE_LINES);
}

int run_manifest_import(struct cli *cli)
{
    return import_file(cli, "application/x-ndjson", MANIFEST_PIECE_LINES);
}
