#include "enroll/journal.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "enroll/metrics.h"
#include "pki/key.h"
#include "store/journal.h"

enum { CONFIGURATION_BYTES = 256 << 20, MAX_DRAINS = 1000, SEEN_AGAIN_US = 10 * 1000000 };

struct journal {
    struct journal_file *file;
    struct db *db;
    int64_t seen_us;      /* the keeper's: when the registry was told of this journal */
    pthread_mutex_t lock; /* guards what follows; held while the configuration is written */
    int64_t epoch;        /* of the configuration that was written */
    const char **entries; /* in known */
    size_t count;
    struct arena *known;
};

static enum err refused(char *message, enum err e, const char *what, const char *where)
{
    snprintf(message, JOURNAL_MESSAGE_BYTES, "[journal] %s %.300s: %s", what, where, err_name(e));
    return e;
}

static enum err key_open(const char *path, EVP_PKEY **ret_key, char *message)
{
    _cleanup_(key_freep) EVP_PKEY *key = NULL;
    enum err e = key_load_private(path, NULL, &key);
    if (!e && key_kind_of(key) != KEY_P256)
        e = ERR_INVALID;
    if (e)
        return refused(message, e, "key_file, a P-256 key that only its owner reads,", path);
    *ret_key = TAKE_PTR(key);
    return ERR_OK;
}

enum err journal_new(const struct journal_config *config, struct db *db,
                     struct journal **ret_journal, char message[JOURNAL_MESSAGE_BYTES])
{
    struct journal *j = calloc(1, sizeof(*j));
    EVP_PKEY *key = NULL;
    if (!j)
        return refused(message, ERR_NO_MEMORY, "directory", config->directory);
    j->db = db;
    pthread_mutex_init(&j->lock, NULL);
    enum err e = key_open(config->key_file, &key, message);
    const struct journal_file_config file = {.directory = config->directory,
                                             .key = key,
                                             .max_bytes = config->max_bytes,
                                             .max_age_s = config->max_age_s};
    if (!e)
        e = journal_file_open(&file, &j->file, message);
    if (!e && (e = journal_writer_seen(db, journal_file_replica(j->file))) != ERR_OK)
        e = refused(message, e, "the registry was not told of", config->directory);
    j->seen_us = clock_mono_us();
    if (e)
        journal_free(j);
    else
        *ret_journal = j;
    return e;
}

static void known_free(struct arena *known)
{
    if (known)
        arena_done(known);
    free(known);
}

void journal_free(struct journal *j)
{
    if (!j)
        return;
    journal_file_close(j->file);
    known_free(j->known);
    pthread_mutex_destroy(&j->lock);
    free(j);
}

static enum err unavailable(struct journal *j, enum err e, struct fault *fault)
{
    struct journal_file_state state;
    journal_file_look(j->file, &state);
    if (e == ERR_UNAVAILABLE)
        return fault_set(fault, FAULT_DB_UNAVAILABLE,
                         "what the journal has to have cannot be read");
    return fault_set(fault, FAULT_JOURNAL_UNAVAILABLE, "%s",
                     state.failing ? state.why : err_name(e));
}

static int text_compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Of the new entries those that were not written yet, in their order. */
static size_t fresh_find(const struct journal *j, const char *const *entries, size_t count,
                         const char **ret_fresh)
{
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        if (j->count == 0 ||
            !bsearch(&entries[i], j->entries, j->count, sizeof(*entries), text_compare))
            ret_fresh[n++] = entries[i];
    }
    return n;
}

/* With the lock held. The head is replaced before the lines are written: a file begun in between
 * says some of them twice, none never. */
static enum err configuration_put(struct journal *j, struct arena *arena, int64_t epoch,
                                  const char **entries, size_t count)
{
    const char **fresh = arena_alloc(arena, (count + 1) * sizeof(*fresh));
    const char **sorted = arena_alloc(arena, (count + 1) * sizeof(*sorted));
    if (!fresh || !sorted)
        return ERR_NO_MEMORY;
    size_t n = fresh_find(j, entries, count, fresh);
    enum err e = journal_file_head(j->file, entries, count);
    if (!e && n > 0)
        e = journal_file_append(j->file, fresh, n);
    if (e)
        return e;
    memcpy(sorted, entries, count * sizeof(*sorted));
    qsort(sorted, count, sizeof(*sorted), text_compare);
    known_free(j->known);
    j->known = arena;
    j->entries = sorted;
    j->count = count;
    j->epoch = epoch;
    return ERR_OK;
}

/* With the lock held. */
static enum err configuration_write(struct journal *j)
{
    struct arena *arena = calloc(1, sizeof(*arena));
    const char **entries = NULL;
    size_t count = 0;
    int64_t epoch = 0;
    if (!arena)
        return ERR_NO_MEMORY;
    arena_init(arena, CONFIGURATION_BYTES);
    enum err e = journal_configuration(j->db, arena, &epoch, &entries, &count);
    if (!e)
        e = configuration_put(j, arena, epoch, entries, count);
    if (e)
        known_free(arena);
    return e;
}

static enum err configuration_current(struct journal *j, int64_t epoch)
{
    pthread_mutex_lock(&j->lock);
    enum err e = j->epoch < epoch ? configuration_write(j) : ERR_OK;
    pthread_mutex_unlock(&j->lock);
    return e;
}

enum err journal_write(struct journal *j, int64_t epoch, const char *const *entries, size_t count,
                       struct fault *fault)
{
    enum err e = configuration_current(j, epoch);
    if (!e)
        e = journal_file_append(j->file, entries, count);
    return e ? unavailable(j, e, fault) : ERR_OK;
}

static enum err due_append(void *ctx, const char *const *entries, size_t count)
{
    struct journal *j = ctx;
    return journal_file_append(j->file, entries, count);
}

enum err journal_drain(struct journal *j, struct fault *fault)
{
    size_t count = 1;
    enum err e = ERR_OK;
    if (!j)
        return ERR_OK;
    for (int i = 0; i < MAX_DRAINS && count > 0 && !e; i++)
        e = journal_due_write(j->db, due_append, j, &count);
    return e ? unavailable(j, e, fault) : ERR_OK;
}

/* The registry may be another by now, made anew under a running server. */
static void writer_tell(struct journal *j)
{
    int64_t now_us = clock_mono_us();
    if (now_us - j->seen_us < SEEN_AGAIN_US)
        return;
    if (!journal_writer_seen(j->db, journal_file_replica(j->file)))
        j->seen_us = now_us;
}

void journal_tick(struct journal *j)
{
    struct fault fault = {0};
    journal_file_tick(j->file);
    writer_tell(j);
    enum err e = journal_drain(j, &fault);
    (void)e; /* the file tells of itself, and the next tick tries again */
}

enum err journal_check(struct journal *j, struct fault *fault)
{
    struct journal_file_state state = {0};
    if (j)
        journal_file_look(j->file, &state);
    return state.failing ? fault_set(fault, FAULT_JOURNAL_UNAVAILABLE, "%s", state.why) : ERR_OK;
}

static void counter_write(struct buf *b, const char *name, const char *type, const char *help,
                          const struct journal *j, uint64_t value)
{
    metrics_head(b, name, type, help);
    if (j)
        metrics_value(b, name, NULL, NULL, (double)value);
}

void journal_metrics(struct journal *j, struct buf *b)
{
    struct journal_file_state s = {0};
    if (j)
        journal_file_look(j->file, &s);
    counter_write(b, "muster_journal_lines_total", "counter",
                  "Lines written to the journal, and flushed", j, s.lines);
    counter_write(b, "muster_journal_flushes_total", "counter", "How often they were flushed", j,
                  s.flushes);
    counter_write(b, "muster_journal_failures_total", "counter",
                  "Attempts to write the journal that failed", j, s.failures);
    counter_write(b, "muster_journal_up", "gauge",
                  "Whether the last attempt to write the journal succeeded; while 0 nothing is "
                  "issued",
                  j, s.failing ? 0 : 1);
}
