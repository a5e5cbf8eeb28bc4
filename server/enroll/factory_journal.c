#include "enroll/factory_journal.h"

#include <string.h>

#include "base/id.h"
#include "base/json_out.h"
#include "base/text.h"
#include "enroll/catalog.h"
#include "enroll/factory_entry.h"
#include "enroll/pipeline.h"
#include "enroll/template.h"
#include "pki/ledger.h"

enum { REASON_BYTES = 256 };

struct entry {
    struct ledger_line line;
    struct bytes text;
    struct factory_entry said;
    struct fault fault; /* why its certificate is not registered */
};

struct upload {
    struct service *service;
    const struct factory_job *job;
    struct arena *arena;
    struct fault *fault;
    struct snapshot *snapshot;
    const struct catalog_template *template;
    bool accept_gap;
    struct entry *entries; /* lines of the upload, seals among them */
    size_t known;          /* of them: were here before */
    size_t count;          /* with those that follow */
    size_t sealed;         /* up to the last seal and with it */
    struct ledger head;
    int64_t gap_after; /* the last line before a gap; 0: none */
    int64_t gap_next;
    struct factory_journal *out;
};

static enum err no_memory(const struct upload *u)
{
    return fault_set(u->fault, FAULT_INTERNAL, "out of memory");
}

/* Whether it is the last line that is here in another spelling: a signature has more than one. Then
 * what follows names its hash. */
static bool head_respelled(struct upload *u, const struct ledger_line *line, X509 *station)
{
    if (line->n != u->head.n || !ledger_seal_verify_by(line, station))
        return false;
    ledger_step(&u->head, line);
    return true;
}

/* Lines that are here must be the same. */
static enum err known_check(struct upload *u, X509 *station)
{
    const struct entry *first = u->entries;
    struct factory_known *known = NULL;
    size_t have = 0;
    if (u->known == 0)
        return ERR_OK;
    enum err e = factory_known_get(u->service->db, u->job->scope, first[0].line.n,
                                   first[u->known - 1].line.n, u->arena, &known, &have);
    if (e)
        return fault_set(u->fault, e == ERR_UNAVAILABLE ? FAULT_DB_UNAVAILABLE : FAULT_INTERNAL,
                         "%s", err_name(e));
    for (size_t i = 0; i < u->known; i++) {
        const struct ledger_line *line = &first[i].line;
        bool same = have == u->known && known[i].n == line->n &&
                    (strcmp(known[i].hash, line->hash) == 0 || head_respelled(u, line, station));
        if (!same)
            return fault_set(u->fault, FAULT_JOURNAL_FORKED,
                             "line %lld is another one than the line of that number that is here",
                             (long long)line->n);
    }
    return ERR_OK;
}

static enum err line_follow(struct upload *u, struct entry *entry)
{
    const struct ledger_line *line = &entry->line;
    bool first = u->count == u->known;
    if (first && line->n > u->head.n + 1) {
        u->out->missing = line->n - u->head.n - 1;
        if (!u->accept_gap)
            return fault_set(u->fault, FAULT_JOURNAL_GAP,
                             "line %lld is the last one here, %lld comes", (long long)u->head.n,
                             (long long)line->n);
        u->gap_after = u->head.n;
        u->gap_next = line->n;
    } else if (!ledger_follows(&u->head, line)) {
        return fault_set(u->fault, FAULT_JOURNAL_CHAIN, "line %lld does not follow line %lld",
                         (long long)line->n, (long long)u->head.n);
    }
    ledger_step(&u->head, line);
    return ERR_OK;
}

static enum err line_take(struct upload *u, struct entry *entry, X509 *station)
{
    enum err e = line_follow(u, entry);
    if (e)
        return e;
    u->count++;
    if (!entry->line.is_seal)
        return ERR_OK;
    if (!ledger_seal_verify_by(&entry->line, station))
        return fault_set(u->fault, FAULT_JOURNAL_SEAL, "line %lld is no seal of station %s",
                         (long long)entry->line.n, u->job->scope->station);
    u->sealed = u->count;
    return ERR_OK;
}

static size_t lines_count(struct bytes body)
{
    size_t count = 0;
    for (size_t i = 0; i < body.len; i++)
        count += body.data[i] == '\n' || i + 1 == body.len;
    return count < FACTORY_MAX_JOURNAL_LINES ? count : FACTORY_MAX_JOURNAL_LINES;
}

static enum err lines_read(struct upload *u, struct bytes body, size_t *ret_count)
{
    size_t count = 0;
    for (size_t number = 1; body.len > 0; number++) {
        const uint8_t *end = memchr(body.data, '\n', body.len);
        size_t len = end ? (size_t)(end - body.data) : body.len;
        if (count == FACTORY_MAX_JOURNAL_LINES)
            return fault_set(u->fault, FAULT_REQUEST_TOO_LARGE, "at most %d lines at once",
                             FACTORY_MAX_JOURNAL_LINES);
        struct entry *entry = &u->entries[count];
        entry->text = bytes_of(body.data, len);
        if (ledger_read(entry->text, u->arena, &entry->line))
            return fault_set(u->fault, FAULT_JOURNAL_MALFORMED,
                             "line %zu of the upload is no line of a journal", number);
        count++;
        body = bytes_of(body.data + len + (end != NULL), body.len - len - (end != NULL));
    }
    *ret_count = count;
    return ERR_OK;
}

/* The chain, up to the last seal. */
static enum err chain_check(struct upload *u, struct bytes body)
{
    _cleanup_(cert_freep) X509 *station = NULL;
    size_t count = 0;
    u->entries = arena_alloc(u->arena, (lines_count(body) + 1) * sizeof(*u->entries));
    if (!u->entries)
        return no_memory(u);
    if (cert_decode(u->job->scope->certificate, &station))
        return fault_set(u->fault, FAULT_INTERNAL, "the station's certificate");
    enum err e = lines_read(u, body, &count);
    while (!e && u->known < count && u->entries[u->known].line.n <= u->head.n)
        u->known++;
    for (size_t i = 1; i < u->known && !e; i++) {
        if (u->entries[i].line.n != u->entries[0].line.n + (int64_t)i)
            e = fault_set(u->fault, FAULT_JOURNAL_CHAIN, "line %lld does not follow line %lld",
                          (long long)u->entries[i].line.n, (long long)u->entries[i - 1].line.n);
    }
    if (!e)
        e = known_check(u, station);
    u->count = u->sealed = u->known;
    for (size_t i = u->known; i < count && !e; i++)
        e = line_take(u, &u->entries[i], station);
    if (!e && u->count > u->known && u->sealed == u->known)
        e = fault_set(u->fault, FAULT_JOURNAL_UNSEALED, "no seal follows line %lld",
                      (long long)u->entries[u->known].line.n);
    u->out->unsealed = u->count - u->sealed;
    return e;
}

/* The registry lacks it: its CA may vouch for it, if that is registered. */
static enum err entry_register(struct upload *u, struct entry *entry)
{
    char id[ID_TEXT_BYTES];
    struct enrollment_result result;
    struct enrollment_report report;
    struct enrollment_request rq = {
        .flow = FLOW_ADMIT,
        .request_id = id,
        .since_us = u->job->since_us,
        .protocol = u->job->protocol,
        .operation = "journal",
        .source = u->job->source,
        .template_name = u->template->name,
        .claimed_serial = entry->said.serial.given,
        .chain = {entry->said.der},
        .chain_count = 1,
        .vouch = VOUCH_HEARSAY,
    };
    if (id_new(id))
        return fault_set(&entry->fault, FAULT_INTERNAL, "random numbers");
    enum err e = pipeline_run(u->service, &rq, u->arena, &result, &report, &entry->fault);
    u->out->registered += !e;
    return e;
}

/* Whether an earlier line of the upload tells of the same certificate, which is looked at once. */
static bool twice(struct entry *const *those, size_t i)
{
    for (size_t k = 0; k < i; k++) {
        const struct factory_entry *a = &those[k]->said, *b = &those[i]->said;
        if (memcmp(a->cert.fingerprint, b->cert.fingerprint, SHA256_BYTES) != 0)
            continue;
        if (strcmp(a->serial.canonical, b->serial.canonical) != 0)
            (void)fault_set(&those[i]->fault, FAULT_SERIAL_MISMATCH,
                            "line %lld gives the certificate to another device",
                            (long long)those[k]->line.n);
        return true;
    }
    return false;
}

static enum err entries_register(struct upload *u)
{
    size_t n = 0;
    struct entry **those = arena_alloc(u->arena, (u->sealed + 1) * sizeof(struct entry *));
    struct bytes *fingerprints = arena_alloc(u->arena, (u->sealed + 1) * sizeof(*fingerprints));
    bool *there = arena_alloc(u->arena, u->sealed + 1);
    if (!those || !fingerprints || !there)
        return no_memory(u);
    for (size_t i = 0; i < u->sealed; i++) {
        struct entry *entry = &u->entries[i];
        if (entry->line.is_seal || factory_entry_parse(entry->text, &u->template->product->rule,
                                                       u->arena, &entry->said, &entry->fault))
            continue;
        fingerprints[n] = bytes_of(entry->said.cert.fingerprint, SHA256_BYTES);
        those[n++] = entry;
    }
    enum err e = factory_registered(u->service->db, fingerprints, n, u->arena, there);
    if (e)
        return fault_set(u->fault, FAULT_DB_UNAVAILABLE, "%s", err_name(e));
    for (size_t i = 0; i < n; i++) {
        if (there[i] || twice(those, i) || !entry_register(u, those[i]))
            continue;
        if (fault_row(those[i]->fault.code)->http_status >= 500) {
            *u->fault = those[i]->fault;
            return ERR_DENIED;
        }
    }
    return ERR_OK;
}

static void entry_write(struct buf *b, const struct entry *entry)
{
    bool device = entry->said.serial_known && entry->said.der.len > 0;
    json_begin_object(b);
    json_int(b, "n", entry->line.n);
    json_text(b, "hash", entry->line.hash);
    if (entry->said.at_s > 0)
        json_int(b, "at", entry->said.at_s);
    if (entry->said.serial_known) {
        json_text(b, "serial", entry->said.serial.given);
        json_text(b, "serial_canonical", entry->said.serial.canonical);
    }
    if (device) {
        json_hex(b, "fingerprint", bytes_of(entry->said.cert.fingerprint, SHA256_BYTES));
        json_hex(b, "spki", bytes_of(entry->said.cert.spki_sha256, SHA256_BYTES));
    }
    if (entry->fault.code != FAULT_NONE)
        json_text(b, "problem", fault_row(entry->fault.code)->code);
    json_end_object(b);
}

static enum err entries_record(struct upload *u)
{
    _cleanup_(buf_donep) struct buf lines = {0};
    _cleanup_(buf_donep) struct buf gaps = {0};
    char message[DB_MAX_MESSAGE_BYTES] = "";
    const struct ledger_line *last = &u->entries[u->sealed - 1].line;
    buf_init(&lines, 2 * FACTORY_MAX_JOURNAL_BYTES);
    buf_init(&gaps, REASON_BYTES);
    json_begin_array(&lines);
    for (size_t i = u->known; i < u->sealed; i++)
        entry_write(&lines, &u->entries[i]);
    json_end_array(&lines);
    json_begin_array(&gaps);
    if (u->gap_next > 0) {
        json_begin_object(&gaps);
        json_int(&gaps, "after", u->gap_after);
        json_int(&gaps, "next", u->gap_next);
        json_end_object(&gaps);
    }
    json_end_array(&gaps);
    if (lines.overflow)
        return no_memory(u);
    enum err e = factory_entries_put(u->service->db, u->job->op, u->job->scope, buf_text(&lines),
                                     buf_text(&gaps), last->n, last->hash, message);
    u->out->head = last->n;
    return e ? factory_refused(e, message, u->fault) : ERR_OK;
}

static enum err bad_list(struct upload *u)
{
    struct factory_journal *out = u->out;
    out->bad = arena_alloc(u->arena, (u->sealed + 1) * sizeof(*out->bad));
    if (!out->bad)
        return no_memory(u);
    for (size_t i = 0; i < u->sealed; i++) {
        const struct entry *entry = &u->entries[i];
        *(i < u->known ? &out->known : &out->recorded) += !entry->line.is_seal;
        if (entry->fault.code == FAULT_NONE)
            continue;
        out->bad[out->bad_count++] = (struct factory_bad_line){
            .n = entry->line.n,
            .serial =
                entry->said.serial_known ? arena_strdup(u->arena, entry->said.serial.given) : NULL,
            .reason = arena_printf(u->arena, "%s: %.*s", fault_row(entry->fault.code)->code,
                                   REASON_BYTES, entry->fault.detail),
        };
    }
    return ERR_OK;
}

static enum err upload_run(struct upload *u, struct bytes body)
{
    u->head.n = u->job->scope->journal_n;
    u->out->head = u->head.n;
    if (strlen(u->job->scope->journal_hash) != LEDGER_HASH_CHARS)
        return fault_set(u->fault, FAULT_INTERNAL, "the journal's hash");
    memcpy(u->head.hash, u->job->scope->journal_hash, LEDGER_HASH_CHARS + 1);
    enum err e = chain_check(u, body);
    if (!e && u->sealed > 0)
        e = entries_register(u);
    if (!e && u->sealed > u->known)
        e = entries_record(u);
    return e ? e : bad_list(u);
}

enum err factory_journal_take(struct service *service, const struct factory_job *job,
                              struct bytes body, bool accept_gap, struct arena *arena,
                              struct factory_journal *ret_journal, struct fault *fault)
{
    _cleanup_(snapshot_dropp) struct snapshot *snapshot = NULL;
    struct factory_journal out = {0};
    if (catalog_get(service->catalog, &snapshot))
        return fault_set(fault, FAULT_DB_UNAVAILABLE, "the catalog was never loaded");
    struct upload u = {.service = service,
                       .job = job,
                       .arena = arena,
                       .fault = fault,
                       .snapshot = snapshot,
                       .template = snapshot_template_by_id(snapshot, job->scope->template_id),
                       .accept_gap = accept_gap,
                       .out = &out};
    if (!u.template)
        return fault_set(fault, FAULT_TEMPLATE_UNKNOWN, "the template of batch %s is disabled",
                         job->scope->batch);
    enum err e = upload_run(&u, body);
    if (!e)
        *ret_journal = out;
    return e;
}
