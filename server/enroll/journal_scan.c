#include "enroll/journal_scan.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/id.h"
#include "base/text.h"

enum { NUMBER_DIGITS = 6, MAX_SEAL_BYTES = 4096 };

static const char suffix[] = ".jsonl";

static void dirp_close(DIR **d)
{
    if (*d)
        closedir(*d);
}

bool journal_name_parse(const char *name, struct journal_name *ret_name)
{
    struct journal_name n = {0};
    char digits[16];
    size_t len = strlen(name), id = JOURNAL_REPLICA_BYTES - 1, tail = sizeof(suffix) - 1;
    if (len < id + 1 + NUMBER_DIGITS + tail || len - id - 1 - tail >= sizeof(digits) ||
        name[id] != '-' || strcmp(name + len - tail, suffix) != 0)
        return false;
    memcpy(n.replica, name, id);
    memcpy(digits, name + id + 1, len - id - 1 - tail);
    digits[len - id - 1 - tail] = '\0';
    if (!id_valid(n.replica) || text_parse_int(digits, 1, INT64_MAX, &n.number))
        return false;
    *ret_name = n;
    return true;
}

void journal_name_write(const char *replica, int64_t number, char ret_name[JOURNAL_NAME_BYTES])
{
    snprintf(ret_name, JOURNAL_NAME_BYTES, "%s-%0*" PRId64 "%s", replica, NUMBER_DIGITS, number,
             suffix);
}

static int name_compare(const void *a, const void *b)
{
    const struct journal_name *x = a, *y = b;
    int order = strcmp(x->replica, y->replica);
    return order != 0 ? order : (x->number > y->number) - (x->number < y->number);
}

enum err journal_names(const char *directory, struct arena *arena, struct journal_name **ret_names,
                       size_t *ret_count)
{
    _cleanup_(dirp_close) DIR *dir = opendir(directory);
    struct journal_name *names = NULL;
    size_t count = 0, room = 0;
    if (!dir)
        return ERR_SYSTEM;
    for (const struct dirent *d = readdir(dir); d; d = readdir(dir)) {
        struct journal_name n;
        if (!journal_name_parse(d->d_name, &n))
            continue;
        if (count == room) {
            room = room ? room * 2 : 64;
            struct journal_name *more =
                room <= JOURNAL_MAX_FILES ? arena_alloc(arena, room * sizeof(n)) : NULL;
            if (!more)
                return ERR_NO_MEMORY;
            if (count > 0)
                memcpy(more, names, count * sizeof(n));
            names = more;
        }
        names[count++] = n;
    }
    if (count > 1)
        qsort(names, count, sizeof(*names), name_compare);
    *ret_names = names;
    *ret_count = count;
    return ERR_OK;
}

static enum err line_give(struct bytes text, int64_t at, journal_line_fn fn, void *ctx)
{
    _cleanup_(arena_donep) struct arena arena;
    struct journal_line line = {.at = at, .text = text};
    arena_init(&arena, MAX_SEAL_BYTES);
    enum err e = ledger_read(text, &arena, &line.ledger);
    return e && e != ERR_INVALID ? e : fn(&line, ctx);
}

enum err journal_scan(const char *path, journal_line_fn fn, void *ctx,
                      struct journal_scan *ret_scan)
{
    _cleanup_(fclosep) FILE *f = fopen(path, "re");
    _cleanup_(freep) char *line = NULL;
    size_t room = 0;
    *ret_scan = (struct journal_scan){0};
    if (!f)
        return ERR_SYSTEM;
    for (ssize_t n = getline(&line, &room, f); n > 0; n = getline(&line, &room, f)) {
        ret_scan->torn = line[n - 1] != '\n';
        if (ret_scan->torn)
            break;
        enum err e =
            line_give(bytes_of((uint8_t *)line, (size_t)n - 1), ret_scan->lines + 1, fn, ctx);
        if (e)
            return e;
        ret_scan->lines++;
        ret_scan->good_bytes += n;
    }
    return ferror(f) ? ERR_SYSTEM : ERR_OK;
}
