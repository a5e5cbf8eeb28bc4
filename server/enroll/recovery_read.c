/* Reading the journals of all folders, replica by replica: what breaks a chain is told, and reading
 * goes on behind it. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "enroll/journal_scan.h"
#include "enroll/recovery_internal.h"

enum { NAMES_BYTES = 128 << 20, LINE_BYTES = 4 << 20 };

/* One replica's files, in their order. */
struct reading {
    struct recovery *r;
    const struct journal_name *name; /* of the present file */
    const char *file;                /* its path, in the report's arena */
    struct ledger last;
    int64_t sealed; /* up to which line a seal holds */
};

static bool sealed_by_any(const struct recovery_order *order, const struct ledger_line *line)
{
    for (size_t i = 0; i < order->key_count; i++) {
        if (ledger_seal_verify(line, order->keys[i]))
            return true;
    }
    return false;
}

static void seal_take(struct reading *g, const struct journal_line *line)
{
    if (!sealed_by_any(g->r->order, &line->ledger)) {
        recovery_gap_note(g->r, "seal.bad", g->file, line->at,
                          "the seal is by none of the keys that were given");
        return;
    }
    g->r->report->seals++;
    g->sealed = line->ledger.n;
}

/* Where a chain is broken, and how. */
static void break_note(struct reading *g, const struct journal_line *line)
{
    int64_t n = line->ledger.n, last = g->last.n;
    if (n == last + 1)
        recovery_gap_note(g->r, "line.changed", g->file, line->at,
                          "line number %" PRId64 " does not follow the one before: number %" PRId64
                          " was changed, or this one",
                          n, last);
    else if (n > last + 1)
        recovery_gap_note(g->r, "lines.missing", g->file, line->at,
                          "%" PRId64 " lines are missing, numbers %" PRId64 " to %" PRId64,
                          n - last - 1, last + 1, n - 1);
    else
        recovery_gap_note(g->r, "lines.repeated", g->file, line->at,
                          "number %" PRId64 " comes after number %" PRId64, n, last);
}

static enum err entry_take(struct reading *g, const struct journal_line *line)
{
    _cleanup_(arena_donep) struct arena arena;
    struct recovery_entry entry = {0};
    const char *why = "";
    arena_init(&arena, LINE_BYTES);
    enum err e = recovery_entry_read(line->text, &g->r->cas, &arena, &entry, &why);
    if (e == ERR_INVALID) {
        recovery_gap_note(g->r, "line.unusable", g->file, line->at, "number %" PRId64 ": %s",
                          line->ledger.n, why);
        return ERR_OK;
    }
    if (e)
        return recovery_failed(g->r, e, "reading", g->file);
    if (entry.kind == RECOVERY_BEGIN &&
        (entry.file != g->name->number || strcmp(entry.replica, g->name->replica) != 0))
        recovery_gap_note(g->r, "file.renamed", g->file, line->at, "it was %s, file %" PRId64,
                          entry.replica, entry.file);
    return entry.kind == RECOVERY_ENTRY ? recovery_put(g->r, entry.json) : ERR_OK;
}

static enum err line_take(const struct journal_line *line, void *ctx)
{
    struct reading *g = ctx;
    if (line->ledger.n == 0) {
        recovery_gap_note(g->r, "line.unusable", g->file, line->at,
                          "it does not begin as a line of a journal does");
        return ERR_OK;
    }
    g->r->report->lines++;
    if (!ledger_follows(&g->last, &line->ledger))
        break_note(g, line);
    ledger_step(&g->last, &line->ledger);
    if (!line->ledger.is_seal)
        return entry_take(g, line);
    seal_take(g, line);
    return ERR_OK;
}

static enum err file_read(struct reading *g, const char *folder)
{
    char name[JOURNAL_NAME_BYTES];
    struct journal_scan scan;
    journal_name_write(g->name->replica, g->name->number, name);
    g->file = arena_printf(&g->r->report->arena, "%s/%s", folder, name);
    if (!g->file)
        return ERR_NO_MEMORY;
    g->r->report->files++;
    enum err e = journal_scan(g->file, line_take, g, &scan);
    if (e == ERR_SYSTEM && scan.lines == 0)
        return recovery_failed(g->r, e, strerror(errno), g->file);
    if (!e && scan.torn)
        recovery_gap_note(g->r, "line.torn", g->file, scan.lines + 1,
                          "the last line was not written to its end; nobody was promised it");
    return e;
}

static void replica_begin(struct reading *g, const struct journal_name *name)
{
    ledger_start(&g->last);
    g->sealed = 0;
    if (name->number > 1)
        recovery_gap_note(g->r, "file.missing", NULL, 0, "%s: files 1 to %" PRId64, name->replica,
                          name->number - 1);
}

static void replica_end(struct reading *g)
{
    if (g->last.n > g->sealed)
        recovery_gap_note(g->r, "unsealed", g->file, 0,
                          "numbers %" PRId64 " to %" PRId64
                          " stand behind the last seal: nothing shows that they are all",
                          g->sealed + 1, g->last.n);
}

/* A file and where it is. */
struct found {
    struct journal_name name;
    size_t folder; /* of the order's */
};

static int found_compare(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    int order = strcmp(x->name.replica, y->name.replica);
    if (order != 0)
        return order;
    if (x->name.number != y->name.number)
        return x->name.number > y->name.number ? 1 : -1;
    return (x->folder > y->folder) - (x->folder < y->folder);
}

static enum err folder_find(struct recovery *r, size_t folder, struct arena *arena,
                            struct found **all, size_t *count)
{
    struct journal_name *names = NULL;
    size_t more = 0;
    enum err e = journal_names(r->order->journals[folder], arena, &names, &more);
    if (e || more == 0)
        return recovery_failed(r, e ? e : ERR_NOT_FOUND, "no files of a journal in",
                               r->order->journals[folder]);
    struct found *bigger = arena_alloc(arena, (*count + more) * sizeof(*bigger));
    if (!bigger)
        return ERR_NO_MEMORY;
    if (*count > 0)
        memcpy(bigger, *all, *count * sizeof(*bigger));
    for (size_t i = 0; i < more; i++)
        bigger[*count + i] = (struct found){names[i], folder};
    *all = bigger;
    *count += more;
    return ERR_OK;
}

/* Of a file that is in two folders, the first is read. */
static enum err next_read(struct reading *g, const struct found *f)
{
    bool same = g->name && strcmp(g->name->replica, f->name.replica) == 0;
    if (same && f->name.number == g->name->number)
        return ERR_OK;
    if (!same && g->name)
        replica_end(g);
    if (!same)
        replica_begin(g, &f->name);
    else if (f->name.number != g->name->number + 1)
        recovery_gap_note(g->r, "file.missing", NULL, 0, "%s: files %" PRId64 " to %" PRId64,
                          f->name.replica, g->name->number + 1, f->name.number - 1);
    g->name = &f->name;
    return file_read(g, g->r->order->journals[f->folder]);
}

enum err recovery_journals_read(struct recovery *r)
{
    _cleanup_(arena_donep) struct arena arena;
    struct found *all = NULL;
    struct reading g = {.r = r};
    size_t count = 0;
    enum err e = ERR_OK;
    arena_init(&arena, NAMES_BYTES);
    for (size_t i = 0; i < r->order->journal_count && !e; i++)
        e = folder_find(r, i, &arena, &all, &count);
    if (count > 1)
        qsort(all, count, sizeof(*all), found_compare);
    for (size_t i = 0; i < count && !e; i++)
        e = next_read(&g, &all[i]);
    if (!e && g.name)
        replica_end(&g);
    return e;
}
