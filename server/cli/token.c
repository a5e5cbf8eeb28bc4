/* Minting tokens: as many as are wanted, in requests of bearable size. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/print.h"
#include "cli/progress.h"

enum { PIECE = 5000, MAX_TOKENS = 1000000, MAX_SERIALS_BYTES = 128 << 20 };

/* One serial a line; blank lines and comments are left out. */
static void serials_split(char *text, json_t *serials)
{
    for (char *rest = text; rest;) {
        char *line = strsep(&rest, "\n");
        line += strspn(line, " \t");
        line[strcspn(line, " \t\r,")] = '\0';
        if (line[0] && line[0] != '#')
            json_array_append_new(serials, json_string(line));
    }
}

/* How many tokens are wanted; the serials they are bound to, where a file names them. */
static int wanted_take(const struct cli *cli, json_t *serials, size_t *ret_count)
{
    _cleanup_(buf_donep) struct buf file = {0};
    int64_t count = 1;
    const char *text = cli->options.value[OPT_count];
    if (text && text_parse_int(text, 1, MAX_TOKENS, &count)) {
        fprintf(stderr, "muster: --count must be a number from 1 to %d\n", MAX_TOKENS);
        return EXIT_USAGE;
    }
    *ret_count = (size_t)count;
    if (!(cli->options.given & OPT(serials)))
        return EXIT_OK;
    int rc = command_file_read(cli->options.value[OPT_serials], MAX_SERIALS_BYTES, &file);
    if (rc == EXIT_OK && file.len > 0)
        serials_split((char *)file.data, serials);
    *ret_count = json_array_size(serials);
    return rc;
}

/* The body of one piece: the options, and its share of the serials or of the count. */
static void piece_fill(json_t *body, const json_t *serials, size_t at, size_t len, bool counted)
{
    if (counted)
        json_object_set_new(body, "count", json_integer((json_int_t)len));
    if (json_array_size(serials) == 0)
        return;
    json_t *share = json_array();
    for (size_t i = at; i < at + len; i++)
        json_array_append(share, json_array_get(serials, i));
    json_object_set_new(body, "serials", share);
}

/* A token is told once: it is out of this process before the next piece is minted. */
static int piece_write(FILE *out, const json_t *tokens, bool csv)
{
    print_tokens(out, tokens, csv);
    bool written = fflush(out) == 0 && !ferror(out);
    if (written && (out == stdout || fsync(fileno(out)) == 0))
        return EXIT_OK;
    fprintf(stderr, "muster: the tokens cannot be written: %s\n", strerror(errno));
    if (out != stdout) {
        fprintf(stderr, "muster: the last %zu follow on standard output instead\n",
                json_array_size(tokens));
        print_tokens(stdout, tokens, csv);
    }
    return EXIT_USAGE;
}

static int piece_mint(struct cli *cli, const json_t *body, FILE *out, json_t *minted)
{
    char *text = json_dumps(body, JSON_COMPACT);
    struct client_request rq = {.method = "POST",
                                .path = cli->command->path,
                                .body = text,
                                .body_len = text ? strlen(text) : 0};
    struct client_answer answer = {.json = NULL};
    int rc = client_call(cli->client, &rq, &answer);
    if (rc == EXIT_OK && cli->options.given & OPT(json))
        json_array_extend(minted, answer.json);
    else if (rc == EXIT_OK)
        rc = piece_write(out, answer.json, cli->options.given & OPT(csv));
    json_decref(answer.json);
    free(text);
    return rc;
}

/* Where the tokens go. Never over a file that is there: it may hold tokens told before. */
static int out_open(const struct cli *cli, FILE **ret_file)
{
    const char *path = cli->options.value[OPT_out];
    if (!path)
        return EXIT_OK;
    if (cli->options.given & OPT(json)) {
        fprintf(stderr, "muster: --out and --json exclude each other\n");
        return EXIT_USAGE;
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    *ret_file = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (*ret_file)
        return EXIT_OK;
    fprintf(stderr, "muster: %s: %s; nothing was minted\n", path, strerror(errno));
    return EXIT_USAGE;
}

int run_token_create(struct cli *cli)
{
    json_t *body = command_body(cli), *serials = json_array(), *minted = json_array();
    _cleanup_(fclosep) FILE *file = NULL;
    size_t count = 0;
    int rc = body ? wanted_take(cli, serials, &count) : EXIT_USAGE;
    if (rc == EXIT_OK)
        rc = out_open(cli, &file);
    FILE *out = file ? file : stdout;
    struct progress progress;
    progress_begin(&progress, "tokens", 0, (int64_t)count);
    progress.on = progress.on && count > PIECE && !isatty(fileno(out));
    if (rc == EXIT_OK && cli->options.given & OPT(csv))
        fprintf(out, "id,token,serial\n");
    for (size_t at = 0; rc == EXIT_OK && at < count; at += PIECE) {
        size_t len = count - at < PIECE ? count - at : PIECE;
        piece_fill(body, serials, at, len, cli->options.given & OPT(count));
        rc = piece_mint(cli, body, out, minted);
        if (rc == EXIT_OK)
            progress_show(&progress, (int64_t)(at + len), (int64_t)(at + len));
        if (rc != EXIT_OK && at > 0)
            fprintf(stderr, "muster: the %zu tokens before it were minted\n", at);
    }
    progress_end(&progress);
    /* told once and never again: what was minted is shown even where the rest failed */
    if (cli->options.given & OPT(json) && (rc == EXIT_OK || json_array_size(minted) > 0))
        print_json(minted);
    json_decref(minted);
    json_decref(serials);
    json_decref(body);
    return rc;
}
