#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "enroll/journal_file.h"
#include "enroll/journal_scan.h"
#include "pki/der.h"
#include "pki/identity.h"
#include "pki/key.h"
#include "suite.h"

enum { THREADS = 8, LINES = 50, ARENA_BYTES = 1 << 20 };

/* A journal in a folder of its own; small files. */
struct place {
    char folder[64];
    EVP_PKEY *key; /* the journal's, too: each opening has a copy */
    struct journal_file *file;
};

static void place_open(struct place *p, int64_t max_bytes)
{
    char message[JOURNAL_MESSAGE_BYTES] = "", path[128];
    EVP_PKEY *copy = NULL;
    snprintf(path, sizeof(path), "%s/key", p->folder);
    ck_assert_int_eq(key_load_private(path, NULL, &copy), ERR_OK);
    const struct journal_file_config config = {
        .directory = p->folder, .key = copy, .max_bytes = max_bytes, .max_age_s = 3600};
    enum err e = journal_file_open(&config, &p->file, message);
    ck_assert_msg(e == ERR_OK, "%s", message);
}

static void place_make(struct place *p)
{
    struct buf pem;
    char path[128];
    snprintf(p->folder, sizeof(p->folder), "/tmp/test_journal_XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(p->folder));
    buf_init(&pem, 4096);
    ck_assert_int_eq(key_generate(KEY_P256, &p->key), ERR_OK);
    ck_assert_int_eq(key_encode_private(p->key, NULL, &pem), ERR_OK);
    snprintf(path, sizeof(path), "%s/key", p->folder);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    ck_assert(fd >= 0 && write(fd, pem.data, pem.len) == (ssize_t)pem.len);
    close(fd);
    buf_done(&pem);
}

static void place_end(struct place *p)
{
    char command[128];
    journal_file_close(p->file);
    key_free(p->key);
    snprintf(command, sizeof(command), "rm -r %s", p->folder);
    ck_assert_int_eq(system(command), 0);
}

/* What a whole journal says. */
struct sum {
    struct ledger last;
    EVP_PKEY *key;
    int64_t lines;
    int64_t entries; /* with the word mine */
    int64_t sealed;
};

static enum err line_sum(const struct journal_line *line, void *ctx)
{
    struct sum *s = ctx;
    if (!ledger_follows(&s->last, &line->ledger))
        return ERR_CONFLICT;
    ledger_step(&s->last, &line->ledger);
    s->lines++;
    s->entries += memmem(line->text.data, line->text.len, "mine", 4) ? 1 : 0;
    if (line->ledger.is_seal && ledger_seal_verify(&line->ledger, s->key))
        s->sealed = line->ledger.n;
    return ERR_OK;
}

static size_t read_all(const struct place *p, struct sum *ret_sum)
{
    struct arena arena;
    struct journal_name *names = NULL;
    struct journal_scan scan;
    size_t count = 0;
    char name[JOURNAL_NAME_BYTES], path[256];
    *ret_sum = (struct sum){.key = p->key};
    ledger_start(&ret_sum->last);
    arena_init(&arena, ARENA_BYTES);
    ck_assert_int_eq(journal_names(p->folder, &arena, &names, &count), ERR_OK);
    for (size_t i = 0; i < count; i++) {
        ck_assert_int_eq(names[i].number, (int64_t)i + 1);
        journal_name_write(names[i].replica, names[i].number, name);
        snprintf(path, sizeof(path), "%s/%s", p->folder, name);
        ck_assert_int_eq(journal_scan(path, line_sum, ret_sum, &scan), ERR_OK);
    }
    arena_done(&arena);
    return count;
}

static void *append_many(void *arg)
{
    static const char *const entry[] = {"{\"mine\":1}"};
    for (int i = 0; i < LINES; i++)
        ck_assert_int_eq(journal_file_append(arg, entry, 1), ERR_OK);
    return NULL;
}

START_TEST(threads_append_and_files_follow_one_another)
{
    struct place p = {0};
    struct sum sum;
    pthread_t threads[THREADS];
    static const char *const head[] = {"{\"head\":1}"};
    place_make(&p);
    place_open(&p, 8192);
    ck_assert_int_eq(journal_file_head(p.file, head, 1), ERR_OK);
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, append_many, p.file);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    struct journal_file_state state;
    journal_file_look(p.file, &state);
    ck_assert(state.lines == THREADS * LINES && state.flushes <= state.lines && !state.failing);
    journal_file_close(p.file);
    ck_assert(read_all(&p, &sum) > 3);
    ck_assert(sum.entries == THREADS * LINES && sum.sealed == sum.last.n);
    place_open(&p, 8192);
    append_many(p.file);
    read_all(&p, &sum);
    ck_assert(sum.entries == (THREADS + 1) * LINES);
    place_end(&p);
}
END_TEST

START_TEST(a_line_too_long_fails_alone)
{
    static char text[LEDGER_MAX_LINE_BYTES + 16];
    const char *entries[] = {"{\"mine\":1}", text}, *const bad[] = {"", "{}", "mine", "{\"a\":1"};
    struct place p = {0};
    struct sum sum;
    memset(text, 'x', sizeof(text) - 1);
    memcpy(text, "{\"mine\":\"", 9);
    memcpy(text + sizeof(text) - 3, "\"}", 2);
    place_make(&p);
    place_open(&p, 1 << 20);
    ck_assert_int_eq(journal_file_append(p.file, entries, 2), ERR_INVALID);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        ck_assert_int_eq(journal_file_append(p.file, &bad[i], 1), ERR_INVALID);
    ck_assert_int_eq(journal_file_append(p.file, entries, 1), ERR_OK);
    read_all(&p, &sum);
    ck_assert_int_eq(sum.entries, 1);
    place_end(&p);
}
END_TEST

START_TEST(names_are_told_from_others)
{
    struct journal_name n;
    char name[JOURNAL_NAME_BYTES];
    static const char id[] = "01a2157d3f6379b0b7656e005a58efd4";
    static const char *const others[] = {
        "replica",
        "01a2157d3f6379b0b7656e005a58efd4-000001.json",
        "01a2157d3f6379b0b7656e005a58efd4-000000.jsonl",
        "01a2157d3f6379b0b7656e005a58efd4-00001.jsonl",
        "01A2157d3f6379b0b7656e005a58efd4-000001.jsonl",
        "01a2157d3f6379b0b7656e005a58efd4-00000x.jsonl",
        "01a2157d3f6379b0b7656e005a58efd4-9999999999999999999999.jsonl",
        "-000001.jsonl"};
    journal_name_write(id, 1234567, name);
    ck_assert(journal_name_parse(name, &n) && n.number == 1234567 && strcmp(n.replica, id) == 0);
    for (size_t i = 0; i < ARRAY_LEN(others); i++)
        ck_assert_msg(!journal_name_parse(others[i], &n), "%s", others[i]);
}
END_TEST

/* GeneralNames of URIs. */
static struct bytes names_make(struct buf *b, const char *const *uris, size_t count)
{
    struct buf inner;
    buf_init(&inner, 4096);
    buf_init(b, 4096);
    for (size_t i = 0; i < count; i++)
        der_add(&inner, DER_NAME_URI, bytes_text(uris[i]));
    der_wrap(b, DER_SEQUENCE, &inner);
    buf_done(&inner);
    return buf_bytes(b);
}

START_TEST(a_certificate_says_whose_it_is)
{
    static const char *const several[] = {"urn:dev:mac:001122", "urn:muster:other:x",
                                          "urn:muster:pump:SN:1", "https://example/"},
                             *const none[] = {"urn:muster:pump", "urn:muster::x",
                                              "urn:muster:pump:", "URN:muster:pump:x",
                                              "urn:muster:"};
    struct arena arena;
    struct identity who = {0};
    struct buf b;
    arena_init(&arena, ARENA_BYTES);
    ck_assert_int_eq(identity_read(names_make(&b, several, 4), &arena, &who), ERR_OK);
    ck_assert_str_eq(who.product, "pump");
    ck_assert_str_eq(who.serial, "SN:1");
    ck_assert_int_eq(identity_read(bytes_of(b.data, b.len - 1), &arena, &who), ERR_NOT_FOUND);
    buf_done(&b);
    for (size_t i = 0; i < ARRAY_LEN(none); i++) {
        ck_assert_msg(identity_read(names_make(&b, &none[i], 1), &arena, &who) == ERR_NOT_FOUND,
                      "%s", none[i]);
        buf_done(&b);
    }
    ck_assert_int_eq(identity_read(bytes_of(NULL, 0), &arena, &who), ERR_NOT_FOUND);
    arena_done(&arena);
}
END_TEST

SUITE("journal", threads_append_and_files_follow_one_another, a_line_too_long_fails_alone,
      names_are_told_from_others, a_certificate_says_whose_it_is)
