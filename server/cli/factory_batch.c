/* muster factory batch: a file of serials or requests in, a folder of certificates out. A few
 * threads each take a piece of the file, make its keys, ask for its certificates and put them down;
 * what is in the manifest is done, so the command may be run again. */
#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/json_out.h"
#include "base/secret.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/factory_out.h"
#include "cli/progress.h"
#include "pki/handout.h"
#include "pki/key.h"

enum {
    PIECE = 500, /* devices of a request */
    MAX_THREADS = 16,
    DEFAULT_THREADS = 4,
    MAX_BODY_BYTES = 4 << 20,
    MAX_FILE_BYTES = 64 * 1024,
    MAX_PATH_BYTES = 6000,
    MAX_PASSPHRASE_BYTES = 1024,
    PIECE_ARENA_BYTES = 16 << 20,
    SERIAL_BYTES = 65
};

enum handout { HANDOUT_NONE, HANDOUT_PKCS12, HANDOUT_PEM };

struct batch {
    struct cli *cli;
    FILE *file;
    struct factory_out *out;
    enum handout handout; /* NONE: the devices have their keys */
    struct buf passphrase;
    struct buf path;
    pthread_mutex_t lock; /* guards what follows, the file and the folder */
    long line;            /* of the file, read last */
    int rc;               /* what went wrong first; ends all */
    int64_t issued, replayed, rejected;
    void *seen; /* serials of the file so far: a tree of struct seen */
    struct progress progress;
};

struct device {
    char serial[SERIAL_BYTES];
    struct bytes csr; /* DER or what the line says, in the arena */
    bool is_text;     /* the latter */
    EVP_PKEY *key;    /* NULL: the device has it */
    long line;
};

struct piece {
    struct arena arena;
    struct device devices[PIECE];
    size_t count;
};

/* As a file's name it must name nothing else. */
static bool serial_fits(const char *s)
{
    size_t len = strlen(s);
    if (len == 0 || len >= SERIAL_BYTES || s[0] == '.' || strcmp(s, "chain") == 0)
        return false;
    return strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-") == len;
}

static int line_wrong(struct batch *b, const char *what)
{
    fprintf(stderr, "muster: line %ld: %s\n", b->line, what);
    return EXIT_USAGE;
}

static int request_take(struct batch *b, struct piece *p, struct device *d, const char *line)
{
    _cleanup_(json_decrefp) json_t *o = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
    const char *serial = json_string_value(json_object_get(o, "serial"));
    const char *csr = json_string_value(json_object_get(o, "csr"));
    if (!serial || !csr || !serial_fits(serial))
        return line_wrong(b, "it is no JSON object with serial and csr");
    snprintf(d->serial, sizeof(d->serial), "%s", serial);
    d->csr = bytes_of(arena_strdup(&p->arena, csr), strlen(csr));
    d->is_text = true;
    return d->csr.data ? EXIT_OK : line_wrong(b, "out of memory");
}

/* Where lines that were refused are told: beside what a program reads. */
static FILE *told(const struct batch *b)
{
    return b->cli->options.given & OPT(json) ? stderr : stdout;
}

/* A serial of the file, and where it stood first. */
struct seen {
    char serial[SERIAL_BYTES];
    long line;
};

static int seen_compare(const void *a, const void *b)
{
    const struct seen *x = a, *y = b;
    return strcmp(x->serial, y->serial);
}

/* Whether it is there for the first time; a list that has a serial twice would give one of two
 * devices a certificate that ends with the other's. */
static int seen_take(struct batch *b, const struct device *d, bool *ret_first)
{
    struct seen *s = malloc(sizeof(*s));
    if (!s)
        return line_wrong(b, "out of memory");
    memcpy(s->serial, d->serial, sizeof(s->serial));
    s->line = d->line;
    struct seen *const *found = tsearch(s, &b->seen, seen_compare);
    *ret_first = found && *found == s;
    if (*ret_first)
        return EXIT_OK;
    free(s);
    if (!found)
        return line_wrong(b, "out of memory");
    fprintf(told(b), "line %ld: %s: it is in line %ld already\n", d->line, d->serial,
            (*found)->line);
    b->rejected++;
    return EXIT_OK;
}

static int line_take(struct batch *b, struct piece *p, char *line)
{
    struct device *d = &p->devices[p->count];
    int rc = EXIT_OK;
    *d = (struct device){.line = b->line};
    line[strcspn(line, "\r\n")] = '\0';
    bool is_request = line[0] == '{';
    if (line[0] == '\0' || line[0] == '#')
        return EXIT_OK;
    if (is_request && b->handout != HANDOUT_NONE)
        return line_wrong(b, "a device with a request has its key: leave --keys out");
    if (!is_request && b->handout == HANDOUT_NONE)
        return line_wrong(b, "a bare serial has no key: say --keys p12 or --keys pem");
    if (is_request)
        rc = request_take(b, p, d, line);
    else if (!serial_fits(line))
        rc = line_wrong(b, "it is no serial");
    else
        snprintf(d->serial, sizeof(d->serial), "%s", line);
    bool first = false;
    if (rc == EXIT_OK)
        rc = seen_take(b, d, &first);
    if (first && !factory_out_has(b->out, d->serial))
        p->count++;
    return rc;
}

/* With the lock held: the next devices of the file that are not done. */
static void piece_read(struct batch *b, struct piece *p)
{
    _cleanup_(freep) char *line = NULL;
    size_t cap = 0;
    p->count = 0;
    while (b->rc == EXIT_OK && p->count < PIECE && getline(&line, &cap, b->file) >= 0) {
        b->line++;
        b->rc = line_take(b, p, line);
    }
}

static bool keys_make(struct piece *p)
{
    for (size_t i = 0; i < p->count; i++) {
        struct device *d = &p->devices[i];
        if (key_generate(KEY_P256, &d->key) ||
            handout_request(d->key, d->serial, &p->arena, &d->csr))
            return false;
    }
    return true;
}

static void body_write(const struct piece *p, struct buf *body)
{
    for (size_t i = 0; i < p->count; i++) {
        const struct device *d = &p->devices[i];
        json_begin_object(body);
        json_text(body, "serial", d->serial);
        if (d->is_text) {
            json_text(body, "csr", (const char *)d->csr.data);
        } else {
            json_key(body, "csr");
            buf_add_char(body, '"');
            base64_encode(body, d->csr);
            buf_add_char(body, '"');
        }
        json_end_object(body);
        buf_add_char(body, '\n');
    }
}

/* What the file of a device whose key was made here is to hold; made without the lock, as deriving
 * keys from a passphrase takes its time. */
static enum err content_make(const struct batch *b, const struct device *d, const json_t *line,
                             const char *chain, struct arena *arena, struct buf *content)
{
    const char *passphrase = buf_text(&b->passphrase);
    const char *text = json_string_value(json_object_get(line, "certificate"));
    struct bytes cert;
    enum err e = text ? base64_decode(arena, bytes_text(text), &cert) : ERR_INVALID;
    if (e)
        return e;
    return b->handout == HANDOUT_PKCS12
               ? handout_pkcs12(d->key, cert, chain, d->serial, passphrase, content)
               : handout_pem(d->key, cert, chain, passphrase, content);
}

static void manifest_add(struct buf *manifest, const struct device *d, const json_t *line,
                         const char *suffix)
{
    json_begin_object(manifest);
    json_text(manifest, "serial", d->serial);
    if (d->key) {
        char file[SERIAL_BYTES + 8];
        snprintf(file, sizeof(file), "%s.%s", d->serial, suffix);
        json_text(manifest, "file", file);
    }
    json_text(manifest, "certificate", json_string_value(json_object_get(line, "certificate")));
    json_end_object(manifest);
    buf_add_char(manifest, '\n');
}

static void rejected_tell(struct batch *b, const struct device *d, const json_t *line)
{
    const char *reason = json_string_value(json_object_get(line, "reason"));
    b->rejected++;
    fprintf(told(b), "line %ld: %s: %s\n", d->line, d->serial, reason ? reason : "");
}

/* One device of an answer. */
static int device_put(struct batch *b, struct piece *p, size_t i, const json_t *line,
                      const char *chain, struct buf *manifest)
{
    static const char *const suffixes[] = {"", "p12", "pem"};
    _cleanup_(buf_donep) struct buf content = {0};
    struct device *d = &p->devices[i];
    const char *result = json_string_value(json_object_get(line, "result"));
    bool good = result && strcmp(result, "rejected") != 0;
    buf_init(&content, MAX_FILE_BYTES);
    enum err e = good && d->key ? content_make(b, d, line, chain, &p->arena, &content) : ERR_OK;
    pthread_mutex_lock(&b->lock);
    int rc = EXIT_OK;
    if (e)
        rc = line_wrong(b, "its file cannot be made");
    else if (!good)
        rejected_tell(b, d, line);
    else if (d->key)
        rc = factory_out_file(b->out, d->serial, suffixes[b->handout], true, buf_bytes(&content));
    if (rc == EXIT_OK && good) {
        manifest_add(manifest, d, line, suffixes[b->handout]);
        *(strcmp(result, "issued") == 0 ? &b->issued : &b->replayed) += 1;
    }
    pthread_mutex_unlock(&b->lock);
    return rc;
}

static int answer_put(struct batch *b, struct piece *p, const json_t *answer)
{
    _cleanup_(buf_donep) struct buf manifest = {0};
    const json_t *lines = json_object_get(answer, "lines");
    const char *chain = json_string_value(json_object_get(answer, "chain_pem"));
    int rc = json_array_size(lines) == p->count && chain ? EXIT_OK : EXIT_REFUSED;
    buf_init(&manifest, 2 * MAX_BODY_BYTES);
    for (size_t i = 0; rc == EXIT_OK && i < p->count; i++)
        rc = device_put(b, p, i, json_array_get(lines, i), chain, &manifest);
    pthread_mutex_lock(&b->lock);
    if (rc == EXIT_OK && manifest.len > 0)
        rc = factory_out_chain(b->out, chain);
    if (rc == EXIT_OK && manifest.len > 0)
        rc = factory_out_sync(b->out, buf_bytes(&manifest));
    progress_show(&b->progress, ftell(b->file), b->issued + b->replayed);
    pthread_mutex_unlock(&b->lock);
    return rc;
}

static int piece_send(struct batch *b, struct client *client, struct piece *p)
{
    _cleanup_(buf_donep) struct buf body = {0};
    struct client_answer answer = {.json = NULL};
    buf_init(&body, MAX_BODY_BYTES);
    if (b->handout != HANDOUT_NONE && !keys_make(p)) {
        fprintf(stderr, "muster: a key cannot be made\n");
        return EXIT_USAGE;
    }
    body_write(p, &body);
    if (body.overflow) {
        fprintf(stderr, "muster: requests are longer than any should be\n");
        return EXIT_USAGE;
    }
    struct client_request rq = {.method = "POST",
                                .path = buf_text(&b->path),
                                .type = "application/x-ndjson",
                                .body = buf_text(&body),
                                .body_len = body.len};
    int rc = client_call(client, &rq, &answer);
    if (rc == EXIT_OK)
        rc = answer_put(b, p, answer.json);
    json_decref(answer.json);
    return rc;
}

static void piece_done(struct piece *p)
{
    for (size_t i = 0; i < p->count; i++)
        key_free(p->devices[i].key);
    arena_done(&p->arena);
}

static void *work(void *arg)
{
    struct batch *b = arg;
    struct client *client = NULL;
    struct piece *p = malloc(sizeof(*p));
    int rc = p ? client_again(b->cli->client, &client) : EXIT_USAGE;
    for (bool more = rc == EXIT_OK; more;) {
        arena_init(&p->arena, PIECE_ARENA_BYTES);
        pthread_mutex_lock(&b->lock);
        piece_read(b, p);
        more = b->rc == EXIT_OK && p->count > 0;
        pthread_mutex_unlock(&b->lock);
        if (more)
            rc = piece_send(b, client, p);
        more = more && rc == EXIT_OK;
        piece_done(p);
    }
    pthread_mutex_lock(&b->lock);
    if (b->rc == EXIT_OK)
        b->rc = rc;
    pthread_mutex_unlock(&b->lock);
    client_free(client);
    free(p);
    return NULL;
}

static int threads_run(struct batch *b, size_t count)
{
    pthread_t threads[MAX_THREADS];
    size_t n = 0;
    while (n < count && pthread_create(&threads[n], NULL, work, b) == 0)
        n++;
    for (size_t i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    return n > 0 ? b->rc : EXIT_USAGE;
}

static int passphrase_load(struct batch *b)
{
    const struct options *o = &b->cli->options;
    const char *keys = o->value[OPT_keys], *file = o->value[OPT_passphrase_file];
    if (!keys)
        return EXIT_OK;
    b->handout = strcmp(keys, "p12") == 0   ? HANDOUT_PKCS12
                 : strcmp(keys, "pem") == 0 ? HANDOUT_PEM
                                            : HANDOUT_NONE;
    if (b->handout == HANDOUT_NONE || !file) {
        fprintf(stderr,
                b->handout == HANDOUT_NONE
                    ? "muster: --keys must be p12 or pem\n"
                    : "muster: --keys wants --passphrase-file: keys never lie about bare\n");
        return EXIT_USAGE;
    }
    buf_done(&b->passphrase);
    int rc = command_file_read(file, MAX_PASSPHRASE_BYTES, &b->passphrase);
    if (rc != EXIT_OK)
        return rc;
    size_t len = strcspn(buf_text(&b->passphrase), "\r\n");
    if (len < 8) {
        fprintf(stderr, "muster: %s: a passphrase has at least 8 characters\n", file);
        return EXIT_USAGE;
    }
    b->passphrase.data[len] = '\0';
    return EXIT_OK;
}

static int threads_wanted(const struct batch *b, size_t *ret_count)
{
    const char *text = b->cli->options.value[OPT_parallel];
    int64_t count = DEFAULT_THREADS;
    if (text && text_parse_int(text, 1, MAX_THREADS, &count)) {
        fprintf(stderr, "muster: --parallel must be 1 to %d\n", MAX_THREADS);
        return EXIT_USAGE;
    }
    *ret_count = (size_t)count;
    return EXIT_OK;
}

static int batch_open(struct batch *b)
{
    const struct options *o = &b->cli->options;
    const char *file = b->cli->words[1];
    int rc = passphrase_load(b);
    if (rc != EXIT_OK)
        return rc;
    b->file = strcmp(file, "-") == 0 ? stdin : fopen(file, "re");
    if (!b->file) {
        fprintf(stderr, "muster: %s: %s\n", file, strerror(errno));
        return EXIT_USAGE;
    }
    return factory_out_open(o->value[OPT_out], o->given & OPT(resume), &b->out);
}

static int totals_show(const struct batch *b)
{
    if (b->cli->options.given & OPT(json))
        printf("{\"issued\":%lld,\"replayed\":%lld,\"rejected\":%lld,\"done_before\":%lld}\n",
               (long long)b->issued, (long long)b->replayed, (long long)b->rejected,
               (long long)factory_out_had(b->out));
    else
        printf("%lld issued, %lld replayed, %lld rejected, %lld done before\n",
               (long long)b->issued, (long long)b->replayed, (long long)b->rejected,
               (long long)factory_out_had(b->out));
    return b->rejected > 0 ? EXIT_REFUSED : EXIT_OK;
}

static int64_t size_of(FILE *f)
{
    long end = fseek(f, 0, SEEK_END) == 0 ? ftell(f) : 0;
    return end > 0 && fseek(f, 0, SEEK_SET) == 0 ? end : 0;
}

int run_factory_batch(struct cli *cli)
{
    struct batch b = {.cli = cli};
    size_t threads = 0;
    pthread_mutex_init(&b.lock, NULL);
    buf_init(&b.path, MAX_PATH_BYTES);
    command_path(cli, &b.path);
    if (cli->options.given & (OPT(again) | OPT(resume))) /* what broke may have got one already */
        buf_add_text(&b.path, "?again=accept");
    int rc = threads_wanted(&b, &threads);
    if (rc == EXIT_OK)
        rc = batch_open(&b);
    if (rc == EXIT_OK) {
        progress_begin(&b.progress, "devices", 0, b.file == stdin ? 0 : size_of(b.file));
        rc = threads_run(&b, threads);
        progress_end(&b.progress);
    }
    if (rc == EXIT_OK)
        rc = totals_show(&b);
    else if (b.out)
        fprintf(stderr, "muster: what the manifest has is done; the same command with --resume "
                        "goes on\n");
    if (b.file && b.file != stdin)
        fclose(b.file);
    factory_out_close(b.out);
    tdestroy(b.seen, free);
    buf_done(&b.passphrase);
    buf_done(&b.path);
    pthread_mutex_destroy(&b.lock);
    return rc;
}
