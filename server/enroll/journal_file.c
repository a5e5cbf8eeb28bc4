/* Appending: one thread writes and flushes what has gathered, the others wait for it. */
#include "enroll/journal_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json_out.h"
#include "base/log.h"
#include "enroll/journal_file_internal.h"
#include "enroll/journal_scan.h"
#include "pki/key.h"

enum { MAX_WAITERS_AT_ONCE = 256, US_PER_S = 1000000 };

/* On its thread's stack until done. */
struct journal_waiter {
    const char *const *entries;
    size_t count;
    enum err err;
    bool done;
    pthread_cond_t wake;
    struct journal_waiter *next;
};

enum err journal_file_line(struct journal_file *f, const char *entry)
{
    size_t begin = f->text.len;
    ledger_begin(&f->ledger, &f->text);
    json_int(&f->text, "at", clock_wall_us());
    buf_add_char(&f->text, ',');
    size_t len = strlen(entry);
    enum err e = len > 2 && entry[0] == '{' && entry[len - 1] == '}' ? ERR_OK : ERR_INVALID;
    if (!e) {
        buf_add(&f->text, entry + 1, len - 2);
        e = ledger_end(&f->ledger, &f->text, begin);
    }
    if (e) {
        f->text.len = begin;
        f->text.overflow = false;
    }
    return e;
}

static enum err write_whole(int fd, struct bytes content, int64_t at)
{
    while (content.len > 0) {
        ssize_t n = pwrite(fd, content.data, content.len, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return ERR_SYSTEM;
        content = bytes_of(content.data + n, content.len - (size_t)n);
        at += n;
    }
    return fdatasync(fd) == 0 ? ERR_OK : ERR_SYSTEM;
}

/* Puts f->text behind what is on disk. What a failure leaves there is taken away, now or before
 * anything else is written: nobody was promised it. */
static enum err text_write(struct journal_file *f)
{
    if (f->tail && (ftruncate(f->fd, f->bytes) != 0 || fdatasync(f->fd) != 0))
        return ERR_SYSTEM;
    f->tail = true;
    enum err e = write_whole(f->fd, buf_bytes(&f->text), f->bytes);
    if (!e) {
        f->bytes += (int64_t)f->text.len;
        f->tail = false;
        return ERR_OK;
    }
    int number = errno;
    if (ftruncate(f->fd, f->bytes) == 0 && fdatasync(f->fd) == 0)
        f->tail = false;
    errno = number;
    return e;
}

/* With a seal at its end, and the chain as it then is. */
static enum err file_end(struct journal_file *f)
{
    struct ledger before = f->ledger;
    buf_reset(&f->text);
    enum err e = ledger_seal(&f->ledger, f->config.key, &f->text);
    if (!e)
        e = text_write(f);
    if (e) {
        f->ledger = before;
        return e;
    }
    close(f->fd);
    f->fd = -1;
    return ERR_OK;
}

static bool file_is_over(const struct journal_file *f)
{
    return f->used && (f->bytes - f->begun_bytes >= f->config.max_bytes ||
                       clock_mono_us() - f->began_us >= f->config.max_age_s * US_PER_S);
}

/* Copies, as another thread may replace the head meanwhile. */
static enum err head_write(struct journal_file *f)
{
    enum err e = ERR_OK;
    pthread_mutex_lock(&f->lock);
    for (size_t i = 0; i < f->head_count && !e; i++)
        e = journal_file_line(f, f->head[i]);
    pthread_mutex_unlock(&f->lock);
    return e;
}

static enum err file_open_new(struct journal_file *f, char ret_name[JOURNAL_NAME_BYTES])
{
    int dir = open(f->config.directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return ERR_SYSTEM;
    journal_name_write(f->replica, f->number + 1, ret_name);
    f->fd = openat(dir, ret_name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (f->fd >= 0 && fsync(dir) != 0) {
        close(f->fd);
        f->fd = -1;
        (void)unlinkat(dir, ret_name, 0);
    }
    int number = errno;
    close(dir);
    errno = number;
    return f->fd >= 0 ? ERR_OK : ERR_SYSTEM;
}

static enum err beginning_write(struct journal_file *f)
{
    char first[128];
    snprintf(first, sizeof(first), "{\"kind\":\"begin\",\"replica\":\"%s\",\"file\":%" PRId64 "}",
             f->replica, f->number + 1);
    buf_reset(&f->text);
    enum err e = journal_file_line(f, first);
    if (!e)
        e = head_write(f);
    return e ? e : text_write(f);
}

/* A file of which not all could be written goes again, so that the next attempt finds its name
 * free. */
enum err journal_file_begin(struct journal_file *f)
{
    char name[JOURNAL_NAME_BYTES], path[4096];
    struct ledger before = f->ledger;
    f->bytes = 0;
    f->tail = false;
    enum err e = file_open_new(f, name);
    if (e)
        return e;
    e = beginning_write(f);
    if (e) {
        int number = errno;
        close(f->fd);
        f->fd = -1;
        f->ledger = before;
        snprintf(path, sizeof(path), "%s/%s", f->config.directory, name);
        (void)unlink(path);
        errno = number;
        return e;
    }
    f->number++;
    f->begun_bytes = f->bytes;
    f->used = false;
    f->began_us = clock_mono_us();
    return ERR_OK;
}

/* The lines of a waiter, all or none. */
static enum err waiter_render(struct journal_file *f, const struct journal_waiter *w)
{
    struct ledger before = f->ledger;
    size_t begin = f->text.len;
    enum err e = ERR_OK;
    for (size_t i = 0; i < w->count && !e; i++)
        e = journal_file_line(f, w->entries[i]);
    if (e) {
        f->ledger = before;
        f->text.len = begin;
    }
    return e;
}

/* ERR_SYSTEM: none of them is in the file. */
static enum err batch_write(struct journal_file *f, struct journal_waiter **batch, size_t count,
                            uint64_t *ret_lines)
{
    enum err e = f->fd < 0 ? journal_file_begin(f) : ERR_OK;
    if (e)
        return e;
    struct ledger before = f->ledger;
    buf_reset(&f->text);
    for (size_t i = 0; i < count; i++)
        batch[i]->err = waiter_render(f, batch[i]);
    *ret_lines = (uint64_t)(f->ledger.n - before.n);
    if (*ret_lines > 0)
        e = text_write(f);
    if (e)
        f->ledger = before;
    else
        f->used |= *ret_lines > 0;
    return e;
}

/* With the lock held: what the last attempt to write was like; told once when it changes. */
static void outcome_note(struct journal_file *f, enum err e, int number)
{
    bool was = f->state.failing;
    f->state.failing = e != ERR_OK;
    if (e) {
        f->state.failures++;
        snprintf(f->state.why, sizeof(f->state.why), "%s",
                 e == ERR_SYSTEM ? strerror(number) : err_name(e));
    }
    if (e && !was)
        log_text(LOG_ERROR, "journal.unavailable", "reason", f->state.why);
    else if (!e && was)
        log_text(LOG_INFO, "journal.available", "directory", f->config.directory);
}

/* With the lock held, which is free while the disk works: writes what waits, and ends a file that
 * is full or old. */
static void lead(struct journal_file *f)
{
    struct journal_waiter *batch[MAX_WAITERS_AT_ONCE];
    size_t count = 0;
    uint64_t lines = 0;
    f->leading = true;
    while (f->first && count < MAX_WAITERS_AT_ONCE) {
        batch[count++] = f->first;
        f->first = f->first->next;
    }
    if (!f->first)
        f->last = &f->first;
    pthread_mutex_unlock(&f->lock);
    enum err e = batch_write(f, batch, count, &lines), after = e;
    if (!e && file_is_over(f))
        after = file_end(f);
    if (!after && f->fd < 0)
        after = journal_file_begin(f);
    int number = errno;
    pthread_mutex_lock(&f->lock);
    outcome_note(f, after, number);
    f->state.lines += e ? 0 : lines;
    f->state.flushes += e || lines == 0 ? 0 : 1;
    for (size_t i = 0; i < count; i++) {
        batch[i]->err = e ? e : batch[i]->err;
        batch[i]->done = true;
        pthread_cond_signal(&batch[i]->wake);
    }
    f->leading = false;
    if (f->first)
        pthread_cond_signal(&f->first->wake);
}

enum err journal_file_append(struct journal_file *f, const char *const *entries, size_t count)
{
    struct journal_waiter w = {.entries = entries, .count = count, .err = ERR_SYSTEM};
    clock_cond_init(&w.wake);
    pthread_mutex_lock(&f->lock);
    *f->last = &w;
    f->last = &w.next;
    while (!w.done) {
        if (f->leading)
            pthread_cond_wait(&w.wake, &f->lock);
        else
            lead(f);
    }
    pthread_mutex_unlock(&f->lock);
    pthread_cond_destroy(&w.wake);
    return w.err;
}

static void head_free(char **head, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(head[i]);
    free(head);
}

enum err journal_file_head(struct journal_file *f, const char *const *entries, size_t count)
{
    char **copy = calloc(count + 1, sizeof(*copy));
    if (!copy)
        return ERR_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        copy[i] = strdup(entries[i]);
        if (!copy[i]) {
            head_free(copy, i);
            return ERR_NO_MEMORY;
        }
    }
    pthread_mutex_lock(&f->lock);
    head_free(f->head, f->head_count);
    f->head = copy;
    f->head_count = count;
    pthread_mutex_unlock(&f->lock);
    return ERR_OK;
}

/* An append of nothing looks after the file; what failed is tried with a line, for only that tells
 * whether there is room again. */
void journal_file_tick(struct journal_file *f)
{
    static const char *const probe[] = {"{\"kind\":\"resumed\"}"};
    pthread_mutex_lock(&f->lock);
    bool failing = f->state.failing;
    pthread_mutex_unlock(&f->lock);
    enum err e = journal_file_append(f, probe, failing ? 1 : 0);
    (void)e; /* what came of it is in the state */
}

const char *journal_file_replica(const struct journal_file *f)
{
    return f->replica;
}

void journal_file_look(struct journal_file *f, struct journal_file_state *ret_state)
{
    pthread_mutex_lock(&f->lock);
    *ret_state = f->state;
    pthread_mutex_unlock(&f->lock);
}

void journal_file_close(struct journal_file *f)
{
    if (!f)
        return;
    if (f->fd >= 0 && file_end(f) && f->fd >= 0) {
        log_text(LOG_ERROR, "journal.not_sealed", "reason", strerror(errno));
        close(f->fd);
    }
    if (f->lock_fd >= 0)
        close(f->lock_fd);
    head_free(f->head, f->head_count);
    buf_done(&f->text);
    key_free(f->config.key);
    pthread_mutex_destroy(&f->lock);
    free(f);
}
