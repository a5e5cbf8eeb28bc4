/* Enrolments as the schema's functions take them, and what those say of each. */
#include <stdlib.h>
#include <string.h>

#include "base/json_out.h"
#include "base/text.h"
#include "store/enrol_record.h"

struct writer {
    struct buf *b;
    const struct enrol_record *base; /* NULL: there is none */
    bool apart;                      /* the certificate goes another way */
};

/* What is not there, or is the base's, is left out: PostgreSQL reads every member, and a record has
 * many. */
static void text_add(const struct writer *w, const char *key, const char *value, const char *base)
{
    bool same = value && base ? strcmp(value, base) == 0 : value == base;
    if (!same)
        json_text(w->b, key, value);
}

static void raw_add(const struct writer *w, const char *key, const char *value, const char *base)
{
    if (!w->base || !value || !base || strcmp(value, base) != 0)
        json_raw(w->b, key, value);
}

static void int_add(const struct writer *w, const char *key, int64_t value, int64_t base)
{
    if (!w->base || value != base)
        json_int(w->b, key, value);
}

static void bool_add(const struct writer *w, const char *key, bool value, bool base)
{
    if (!w->base || value != base)
        json_bool(w->b, key, value);
}

/* bytea as PostgreSQL reads it from JSON text; absent values are left out. */
static void bytes_add(const struct writer *w, const char *key, struct bytes value)
{
    if (!value.data)
        return;
    json_key(w->b, key);
    buf_add_text(w->b, "\"\\\\x");
    text_add_hex(w->b, value);
    buf_add_char(w->b, '"');
}

#define OF_BASE(name, none) (w->base ? w->base->name : (none))
#define TEXT(name) text_add(w, #name, r->name, OF_BASE(name, NULL))
#define RAW(name) raw_add(w, #name, r->name, OF_BASE(name, NULL))
#define INT(name) int_add(w, #name, r->name, OF_BASE(name, 0))
#define BOOL(name) bool_add(w, #name, r->name, OF_BASE(name, false))
#define BYTES(name) bytes_add(w, #name, r->name)

static void write_origin(const struct writer *w, const struct enrol_record *r)
{
    TEXT(request_id);
    INT(asked_us);
    TEXT(protocol);
    TEXT(operation);
    TEXT(credential);
    TEXT(source);
    INT(product_id);
    INT(template_id);
    INT(template_version);
    TEXT(template_label);
    TEXT(serial);
    TEXT(serial_canonical);
}

static void write_claim(const struct writer *w, const struct enrol_record *r)
{
    if (r->claim_id == 0)
        return;
    INT(claim_id);
    TEXT(claim_name);
    BOOL(claim_late);
    TEXT(client_id);
    BYTES(ownership_hash);
    BYTES(parameters_hash);
}

static void write_certificates(const struct writer *w, const struct enrol_record *r)
{
    BYTES(token_hash);
    if (r->enrollment_id != 0) {
        INT(enrollment_id);
        TEXT(registration_id);
    }
    write_claim(w, r);
    BYTES(peer_fingerprint);
    BYTES(peer_der);
    BYTES(peer_serial_number);
    BYTES(peer_spki);
    INT(peer_ca);
    INT(peer_not_before);
    INT(peer_not_after);
    BYTES(spki);
    BYTES(fingerprint);
    if (!w->apart)
        BYTES(certificate);
    BYTES(serial_number);
    if (!r->certificate.data)
        return;
    INT(issuer_id);
    INT(not_before);
    INT(not_after);
}

static void write_registration(const struct writer *w, const struct enrol_record *r)
{
    TEXT(thing_name);
    TEXT(thing_type);
    TEXT(billing_group);
    RAW(attributes);
    TEXT(attributes_override);
    TEXT(type_override);
    TEXT(groups_override);
    RAW(groups);
    RAW(policies);
    RAW(configuration);
    BOOL(inactive);
    BOOL(allowlist_required);
    BOOL(replace);
    TEXT(verify);
    INT(verify_within_s);
    INT(renew_before_s);
    INT(grace_s);
    INT(replay_s);
    BOOL(approval);
    BOOL(server_key);
    if (r->own)
        json_bool(w->b, "own", true);
    if (r->hearsay)
        json_bool(w->b, "hearsay", true);
    RAW(steps);
}

static void write_record(const struct writer *w, const struct enrol_record *r)
{
    write_origin(w, r);
    write_certificates(w, r);
    write_registration(w, r);
}

void enrol_record_add(struct buf *b, const struct enrol_record *r, size_t ord)
{
    const struct writer w = {.b = b};
    json_begin_object(b);
    json_int(b, "ord", (int64_t)ord);
    write_record(&w, r);
    json_end_object(b);
}

void enrol_record_add_base(struct buf *b, const struct enrol_record *r)
{
    const struct writer w = {.b = b, .apart = true};
    json_begin_object(b);
    write_record(&w, r);
    json_end_object(b);
}

void enrol_record_add_apart(struct buf *b, const struct enrol_record *r,
                            const struct enrol_record *base, size_t ord, size_t der_at)
{
    const struct writer w = {.b = b, .base = base, .apart = true};
    json_begin_object(b);
    json_int(b, "ord", (int64_t)ord);
    json_int(b, "der_at", (int64_t)der_at);
    json_int(b, "der_len", (int64_t)r->certificate.len);
    write_record(&w, r);
    json_end_object(b);
}

enum err enrol_outcome_read(const PGresult *r, int row, struct arena *arena,
                            struct enrol_outcome *ret_outcome)
{
    const char *certificate = db_value(r, row, 4);
    const char *state = db_value(r, row, 5);
    const char *detail = db_value(r, row, 2);
    const char *answer = db_value(r, row, 6);
    struct enrol_outcome o = {
        .code = arena_strdup(arena, PQgetvalue(r, row, 1)),
        .detail = arena_strdup(arena, detail ? detail : ""),
        .proven = PQgetvalue(r, row, 3)[0] == 't',
        .state = state ? arena_strdup(arena, state) : NULL,
        .answer = answer ? arena_strdup(arena, answer) : NULL,
    };
    if (!o.code || !o.detail || (state && !o.state) || (answer && !o.answer))
        return ERR_NO_MEMORY;
    enum err e = certificate ? db_parse_bytea(arena, certificate, &o.certificate) : ERR_OK;
    if (!e)
        *ret_outcome = o;
    return e;
}
