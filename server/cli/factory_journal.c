/* The journal of a station that works without a connection: written and sealed there, with no
 * server in reach, and uploaded later. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/json_out.h"
#include "cli/command.h"
#include "pki/cert.h"
#include "pki/key.h"
#include "pki/ledger.h"

enum {
    LINE_ARENA_BYTES = 64 * 1024,
    MAX_PEM_BYTES = 32768,
    MAX_PATH_BYTES = 6000,
    PIECE_BYTES = 4 << 20, /* of an upload, cut at a seal */
    PIECE_LINES = 5000,
    PIECE_SOON_LINES = 1000, /* the next seal behind them ends a piece */
    PIECE_SOON_BYTES = 1 << 20,
};

static int complain(const char *path, const char *why)
{
    fprintf(stderr, "muster: %s: %s\n", path, why);
    return EXIT_USAGE;
}

/* A journal open for writing, by one process at a time. */
struct journal {
    const char *path;
    FILE *file;
    struct ledger last;
    bool sealed; /* the last line is a seal, or there is none */
};

static int line_follow(struct journal *j, struct bytes text)
{
    _cleanup_(arena_donep) struct arena arena;
    struct ledger_line line;
    arena_init(&arena, LINE_ARENA_BYTES);
    if (ledger_read(text, &arena, &line))
        return complain(j->path, "it is no journal");
    if (!ledger_follows(&j->last, &line))
        return complain(j->path, "a line does not follow the one before it");
    ledger_step(&j->last, &line);
    j->sealed = line.is_seal;
    return EXIT_OK;
}

/* Up to its end. A last line without an end was never acknowledged to anybody: it is cut off. */
static int journal_read(struct journal *j)
{
    _cleanup_(freep) char *line = NULL;
    size_t cap = 0;
    off_t good = 0;
    int rc = EXIT_OK;
    for (ssize_t len; rc == EXIT_OK && (len = getline(&line, &cap, j->file)) > 0; good += len) {
        if (line[len - 1] != '\n')
            break;
        rc = line_follow(j, bytes_of(line, (size_t)len - 1));
    }
    if (rc == EXIT_OK && (ftruncate(fileno(j->file), good) || fseeko(j->file, good, SEEK_SET)))
        rc = complain(j->path, strerror(errno));
    return rc;
}

static int journal_open(struct journal *j, const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    *j = (struct journal){.path = path, .sealed = true};
    j->file = fd >= 0 ? fdopen(fd, "r+") : NULL;
    ledger_start(&j->last);
    if (!j->file || flock(fd, LOCK_EX | LOCK_NB))
        return complain(path,
                        errno == EWOULDBLOCK ? "another process writes to it" : strerror(errno));
    return journal_read(j);
}

static int journal_add(struct journal *j, const struct buf *lines)
{
    bool good = fwrite(lines->data, 1, lines->len, j->file) == lines->len && fflush(j->file) == 0 &&
                fsync(fileno(j->file)) == 0;
    return good ? EXIT_OK : complain(j->path, strerror(errno));
}

static void journal_close(struct journal *j)
{
    if (j->file)
        fclose(j->file);
}

static int certificate_load(const char *path, struct arena *arena, struct bytes *ret_der)
{
    _cleanup_(buf_donep) struct buf pem = {0};
    X509 *certs[CERT_MAX_CHAIN] = {0};
    size_t count = 0;
    int rc = command_file_read(path, MAX_PEM_BYTES, &pem);
    if (rc != EXIT_OK)
        return rc;
    enum err e = cert_parse_pem(buf_bytes(&pem), certs, CERT_MAX_CHAIN, &count);
    if (!e)
        e = cert_encode(arena, certs[0], ret_der);
    for (size_t i = 0; i < count; i++)
        cert_free(certs[i]);
    return e ? complain(path, "it is no certificate in PEM") : EXIT_OK;
}

static enum err entry_write(struct ledger *l, const char *serial, struct bytes der, struct buf *b)
{
    size_t begin = b->len;
    ledger_begin(l, b);
    json_int(b, "at", clock_wall_s());
    json_text(b, "serial", serial);
    json_key(b, "certificate");
    buf_add_char(b, '"');
    base64_encode(b, der);
    buf_add_char(b, '"');
    return ledger_end(l, b, begin);
}

static int seal_write(struct ledger *l, const char *key_file, struct buf *b)
{
    _cleanup_(key_freep) EVP_PKEY *key = NULL;
    enum err e = key_load_private(key_file, NULL, &key);
    if (!e)
        e = ledger_seal(l, key, b);
    return e ? complain(key_file, e == ERR_DENIED ? "others may read it: chmod 600"
                                                  : "no private key that can be used")
             : EXIT_OK;
}

int run_factory_record(struct cli *cli)
{
    _cleanup_(arena_donep) struct arena arena;
    _cleanup_(buf_donep) struct buf lines = {0};
    const struct options *o = &cli->options;
    struct journal j;
    struct bytes der;
    arena_init(&arena, LINE_ARENA_BYTES);
    buf_init(&lines, 2 * LEDGER_MAX_LINE_BYTES);
    int rc = journal_open(&j, cli->words[0]);
    if (rc == EXIT_OK)
        rc = certificate_load(o->value[OPT_certificate], &arena, &der);
    if (rc == EXIT_OK && entry_write(&j.last, o->value[OPT_serial], der, &lines))
        rc = complain(j.path, "the line would be too long");
    if (rc == EXIT_OK && o->value[OPT_private_key])
        rc = seal_write(&j.last, o->value[OPT_private_key], &lines);
    if (rc == EXIT_OK)
        rc = journal_add(&j, &lines);
    if (rc == EXIT_OK)
        printf("%lld lines\n", (long long)j.last.n);
    journal_close(&j);
    return rc;
}

int run_factory_seal(struct cli *cli)
{
    _cleanup_(buf_donep) struct buf line = {0};
    struct journal j;
    buf_init(&line, LEDGER_MAX_LINE_BYTES);
    int rc = journal_open(&j, cli->words[0]);
    if (rc == EXIT_OK && !j.sealed)
        rc = seal_write(&j.last, cli->options.value[OPT_private_key], &line);
    if (rc == EXIT_OK && !j.sealed)
        rc = journal_add(&j, &line);
    if (rc == EXIT_OK)
        printf("%lld lines, sealed\n", (long long)j.last.n);
    journal_close(&j);
    return rc;
}

/* An upload under way. */
struct upload {
    struct cli *cli;
    FILE *file;
    struct buf path;
    struct buf piece;
    long lines; /* of the piece */
    json_t *total;
};

static const char *const sums[] = {"recorded", "known", "registered", "missing", "unsealed"};

static void answer_take(struct upload *u, json_t *answer)
{
    json_t *lines = json_object_get(answer, "lines");
    bool json = u->cli->options.given & OPT(json);
    for (size_t i = 0; i < ARRAY_LEN(sums); i++) {
        json_int_t sum = json_integer_value(json_object_get(u->total, sums[i])) +
                         json_integer_value(json_object_get(answer, sums[i]));
        json_object_set_new(u->total, sums[i], json_integer(sum));
    }
    json_object_set(u->total, "head", json_object_get(answer, "head"));
    json_array_extend(json_object_get(u->total, "lines"), lines);
    for (size_t i = 0; !json && i < json_array_size(lines); i++) {
        const json_t *line = json_array_get(lines, i);
        const char *serial = json_string_value(json_object_get(line, "serial"));
        printf("line %lld: %s: %s\n", (long long)json_integer_value(json_object_get(line, "n")),
               serial ? serial : "?", json_string_value(json_object_get(line, "reason")));
    }
}

static int piece_send(struct upload *u)
{
    struct client_request rq = {.method = "POST",
                                .path = buf_text(&u->path),
                                .type = "application/x-ndjson",
                                .body = buf_text(&u->piece),
                                .body_len = u->piece.len};
    struct client_answer answer = {.json = NULL};
    if (u->lines == 0)
        return EXIT_OK;
    int rc = client_call(u->cli->client, &rq, &answer);
    if (rc == EXIT_OK)
        answer_take(u, answer.json);
    json_decref(answer.json);
    buf_reset(&u->piece);
    u->lines = 0;
    return rc;
}

/* What no seal covers is not sent: it would be taken for nothing. */
static int lines_send(struct upload *u)
{
    _cleanup_(freep) char *line = NULL;
    size_t cap = 0;
    long unsealed = 0;
    int rc = EXIT_OK;
    for (ssize_t len; rc == EXIT_OK && (len = getline(&line, &cap, u->file)) > 0;) {
        buf_add(&u->piece, line, (size_t)len);
        u->lines++;
        unsealed = strstr(line, ",\"seal\":\"") ? 0 : unsealed + 1;
        if (u->piece.overflow || u->lines > PIECE_LINES)
            return complain(u->cli->words[1], "too much of it has no seal; seal it more often");
        if (unsealed == 0 && (u->lines >= PIECE_SOON_LINES || u->piece.len >= PIECE_SOON_BYTES))
            rc = piece_send(u);
    }
    if (rc == EXIT_OK && u->lines > unsealed)
        return piece_send(u);
    json_object_set_new(u->total, "unsealed", json_integer(u->lines > 0 ? unsealed : 0));
    return rc;
}

static int totals_show(struct upload *u)
{
    bool bad = json_array_size(json_object_get(u->total, "lines")) > 0 ||
               json_integer_value(json_object_get(u->total, "unsealed")) > 0;
    if (u->cli->options.given & OPT(json)) {
        command_show(u->cli, u->total);
        return bad ? EXIT_REFUSED : EXIT_OK;
    }
    for (size_t i = 0; i < ARRAY_LEN(sums); i++)
        printf("%s%lld %s", i > 0 ? ", " : "",
               (long long)json_integer_value(json_object_get(u->total, sums[i])), sums[i]);
    printf(", %zu not registered\n", json_array_size(json_object_get(u->total, "lines")));
    return bad ? EXIT_REFUSED : EXIT_OK;
}

int run_factory_upload(struct cli *cli)
{
    struct upload u = {.cli = cli};
    u.file = fopen(cli->words[1], "re");
    if (!u.file)
        return complain(cli->words[1], strerror(errno));
    buf_init(&u.path, MAX_PATH_BYTES);
    buf_init(&u.piece, PIECE_BYTES);
    command_path(cli, &u.path);
    if (cli->options.given & OPT(accept_gap))
        buf_add_text(&u.path, "?gap=accept");
    u.total = json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:[]}", "recorded", 0, "known", 0,
                        "registered", 0, "missing", 0, "unsealed", 0, "head", 0, "lines");
    int rc = lines_send(&u);
    if (rc == EXIT_OK)
        rc = totals_show(&u);
    fclose(u.file);
    json_decref(u.total);
    buf_done(&u.path);
    buf_done(&u.piece);
    return rc;
}
