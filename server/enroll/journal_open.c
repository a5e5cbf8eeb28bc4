/* Opening a journal: whose folder it is, and where its chain goes on. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/id.h"
#include "base/log.h"
#include "enroll/journal_file_internal.h"
#include "enroll/journal_scan.h"
#include "pki/key.h"

enum { NAMES_BYTES = 128 << 20, MAX_TEXT_BYTES = 128 << 20 };

static enum err refused(char *message, enum err e, const char *what, const char *name)
{
    snprintf(message, JOURNAL_MESSAGE_BYTES, "[journal] %.300s: %s", name, what);
    return e;
}

/* The replica's name, made at the first start. */
static enum err replica_read(struct journal_file *f)
{
    char text[JOURNAL_REPLICA_BYTES] = "";
    ssize_t n = pread(f->lock_fd, text, sizeof(text) - 1, 0);
    if (n == (ssize_t)sizeof(text) - 1 && id_valid(text)) {
        memcpy(f->replica, text, sizeof(text));
        return ERR_OK;
    }
    enum err e = n == 0 ? id_new(f->replica) : ERR_INVALID;
    if (e)
        return e;
    size_t len = strlen(f->replica);
    if (pwrite(f->lock_fd, f->replica, len, 0) != (ssize_t)len ||
        pwrite(f->lock_fd, "\n", 1, (off_t)len) != 1 || fsync(f->lock_fd) != 0)
        return ERR_SYSTEM;
    return ERR_OK;
}

static enum err folder_take(struct journal_file *f, char *message)
{
    char path[PATH_MAX];
    const char *folder = f->config.directory;
    snprintf(path, sizeof(path), "%s/replica", folder);
    f->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (f->lock_fd < 0)
        return refused(message, ERR_SYSTEM, strerror(errno), folder);
    if (flock(f->lock_fd, LOCK_EX | LOCK_NB) != 0)
        return refused(message, ERR_CONFLICT,
                       "another musterd writes its journal here; each replica needs a folder of "
                       "its own",
                       folder);
    enum err e = replica_read(f);
    return e ? refused(message, e, "the file replica is not as it was made", folder) : ERR_OK;
}

/* The first line of a file is taken as it stands; the others must follow. */
static enum err follow(const struct journal_line *line, void *ctx)
{
    struct ledger *l = ctx;
    if (line->ledger.n == 0 || (line->at > 1 && !ledger_follows(l, &line->ledger)))
        return ERR_INVALID;
    ledger_step(l, &line->ledger);
    return ERR_OK;
}

static enum err tail_cut(const char *path, int64_t bytes)
{
    _cleanup_(closep) int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || ftruncate(fd, bytes) != 0 || fsync(fd) != 0)
        return ERR_SYSTEM;
    return ERR_OK;
}

/* Reads a file to its end; lines 0: it was begun and nothing came of it. */
static enum err file_follow(struct journal_file *f, const struct journal_name *name,
                            int64_t *ret_lines, char *message)
{
    char file[JOURNAL_NAME_BYTES], path[PATH_MAX], why[128];
    struct journal_scan scan;
    struct ledger last;
    ledger_start(&last);
    journal_name_write(name->replica, name->number, file);
    snprintf(path, sizeof(path), "%s/%s", f->config.directory, file);
    enum err e = journal_scan(path, follow, &last, &scan);
    if (e == ERR_INVALID) {
        snprintf(why, sizeof(why), "line %lld does not follow the line before: it was changed",
                 (long long)scan.lines + 1);
        return refused(message, e, why, path);
    }
    if (!e && scan.torn)
        e = tail_cut(path, scan.good_bytes);
    if (e)
        return refused(message, e, strerror(errno), path);
    if (scan.torn)
        log_text(LOG_WARN, "journal.torn_line_cut", "file", path);
    if (scan.lines > 0)
        f->ledger = last;
    *ret_lines = scan.lines;
    return ERR_OK;
}

/* Where the chain of this replica goes on: behind the last line of its last file with any. */
static enum err chain_find(struct journal_file *f, char *message)
{
    _cleanup_(arena_donep) struct arena arena;
    struct journal_name *names = NULL;
    size_t count = 0;
    int64_t lines = 0;
    arena_init(&arena, NAMES_BYTES);
    ledger_start(&f->ledger);
    enum err e = journal_names(f->config.directory, &arena, &names, &count);
    if (e)
        return refused(message, e, "it cannot be read", f->config.directory);
    for (size_t i = count; i > 0 && lines == 0 && !e; i--) {
        const struct journal_name *n = &names[i - 1];
        if (strcmp(n->replica, f->replica) != 0)
            continue;
        f->number = n->number > f->number ? n->number : f->number;
        e = file_follow(f, n, &lines, message);
    }
    return e;
}

enum err journal_file_open(const struct journal_file_config *config, struct journal_file **ret_file,
                           char message[JOURNAL_MESSAGE_BYTES])
{
    struct journal_file *f = calloc(1, sizeof(*f));
    if (!f) {
        key_free(config->key);
        return refused(message, ERR_NO_MEMORY, "out of memory", config->directory);
    }
    f->config = *config;
    f->fd = f->lock_fd = -1;
    f->last = &f->first;
    buf_init(&f->text, MAX_TEXT_BYTES);
    pthread_mutex_init(&f->lock, NULL);
    enum err e = folder_take(f, message);
    if (!e)
        e = chain_find(f, message);
    if (!e && (e = journal_file_begin(f)) != ERR_OK)
        e = refused(message, e, strerror(errno), config->directory);
    if (e)
        journal_file_close(f);
    else
        *ret_file = f;
    return e;
}
