#include "enroll/recovery_entry.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "base/text.h"
#include "model/revocation.h"
#include "model/serial.h"
#include "pki/identity.h"

enum {
    MAX_CAS = 4096,
    MAX_TEXT = 1024,
    MAX_BODY = 16384,
    MAX_SCRATCH_BYTES = 1 << 20,
    MAX_NAMES_BYTES = 64 << 20,
    MAX_CERTIFICATE_TEXT = 4 * CERT_MAX_BYTES,
};

static inline void jsonp_free(json_t **j)
{
    json_decref(*j);
}

/* What a member must be. */
enum type {
    TEXT,
    BODY,
    SERIAL,
    LABEL, /* NAME@VERSION */
    HEX,
    INT,
    BOOL,
    OBJECT,
    NAMES,    /* array of texts */
    POLICIES, /* array of objects with a name */
    REASON,
};

struct member {
    const char *name;
    enum type type;
    bool optional; /* may be null or missing */
};

#define DEVICE_MEMBERS                                                                             \
    {"product", TEXT, false}, {"serial", SERIAL, false},                                           \
    {                                                                                              \
        "canonical", SERIAL, false                                                                 \
    }
#define CERTIFICATE_MEMBERS                                                                        \
    DEVICE_MEMBERS, {"fingerprint", HEX, false}, {"number", HEX, false}, {"issuer", TEXT, false},  \
    {                                                                                              \
        "when", INT, false                                                                         \
    }
#define STATE_MEMBERS                                                                              \
    DEVICE_MEMBERS, {"template", LABEL, false}, {"when", INT, false},                              \
    {                                                                                              \
        "reason", TEXT, true                                                                       \
    }

/* clang-format off */
static const struct shape {
    const char *kind;
    const char *of; /* NULL: the kind has no parts */
    struct member members[16];
} shapes[] = {
    {"begin", NULL, {{"replica", HEX, false}, {"file", INT, false}}},
    {"resumed", NULL, {{NULL, TEXT, true}}},
    {"configuration", "product", {{"name", TEXT, false}, {"serial_case", TEXT, false}, {"strip_separators", BOOL, false}}},
    {"configuration", "template", {{"name", TEXT, false}, {"product", TEXT, false}, {"default_version", INT, false}, {"enabled", BOOL, false}}},
    {"configuration", "version", {{"template", TEXT, false}, {"version", INT, false}, {"body", BODY, false}, {"created_by", TEXT, false}}},
    {"configuration", "ca", {{"name", TEXT, false}, {"ca_kind", TEXT, false}, {"certificate", BODY, false}, {"key_reference", TEXT, true},
        {"active", BOOL, false}, {"template", TEXT, true}, {"auto_registration", BOOL, false}, {"jit", TEXT, false}, {"has_devices", BOOL, false},
        {"proof", TEXT, true}, {"crl_mode", TEXT, false}, {"closed", BOOL, false}}},
    {"issued", NULL, {DEVICE_MEMBERS, {"template", LABEL, false}, {"certificate", BODY, false}, {"origin", TEXT, true}, {"verify", TEXT, true},
        {"supersedes", HEX, true}, {"request", TEXT, true}, {"inactive", BOOL, true}, {"thing_name", TEXT, true}, {"attributes", OBJECT, true},
        {"configuration", OBJECT, true}, {"groups", NAMES, true}, {"policies", POLICIES, true}}},
    {"created", NULL, {{"certificate", BODY, false}, {"claim", TEXT, true}}},
    {"revoked", NULL, {CERTIFICATE_MEMBERS, {"reason", REASON, false}}},
    {"superseded", NULL, {CERTIFICATE_MEMBERS}},
    {"activated", NULL, {CERTIFICATE_MEMBERS}},
    {"deactivated", NULL, {CERTIFICATE_MEMBERS}},
    {"quarantined", NULL, {STATE_MEMBERS}},
    {"released", NULL, {STATE_MEMBERS}},
    {"retired", NULL, {STATE_MEMBERS}},
};
/* clang-format on */

void recovery_cas_init(struct recovery_cas *cas)
{
    *cas = (struct recovery_cas){0};
    arena_init(&cas->names, MAX_NAMES_BYTES);
}

void recovery_cas_done(struct recovery_cas *cas)
{
    for (size_t i = 0; i < cas->count; i++)
        cert_free(cas->rows[i].cert);
    free(cas->rows);
    arena_done(&cas->names);
}

static const struct recovery_ca *ca_find(const struct recovery_cas *cas, const uint8_t *fingerprint)
{
    for (size_t i = 0; i < cas->count; i++) {
        if (memcmp(cas->rows[i].fingerprint, fingerprint, SHA256_BYTES) == 0)
            return &cas->rows[i];
    }
    return NULL;
}

static enum err ca_put(struct recovery_cas *cas, X509 **cert, const struct cert_info *info)
{
    if (ca_find(cas, info->fingerprint))
        return ERR_OK;
    if (cas->count == MAX_CAS)
        return ERR_INVALID;
    struct recovery_ca *rows = realloc(cas->rows, (cas->count + 1) * sizeof(*rows));
    const void *name = arena_copy(&cas->names, info->subject_der.data, info->subject_der.len);
    if (rows)
        cas->rows = rows;
    if (!rows || !name)
        return ERR_NO_MEMORY;
    struct recovery_ca *ca = &rows[cas->count++];
    *ca = (struct recovery_ca){.cert = TAKE_PTR(*cert),
                               .subject = bytes_of(name, info->subject_der.len)};
    memcpy(ca->fingerprint, info->fingerprint, SHA256_BYTES);
    return ERR_OK;
}

enum err recovery_cas_add(struct recovery_cas *cas, struct bytes der)
{
    _cleanup_(arena_donep) struct arena scratch;
    _cleanup_(cert_freep) X509 *cert = NULL;
    struct cert_info info;
    arena_init(&scratch, MAX_SCRATCH_BYTES);
    enum err e = cert_decode(der, &cert);
    if (!e)
        e = cert_describe(&scratch, cert, &info);
    return e ? e : ca_put(cas, &cert, &info);
}

static bool text_is(const json_t *v, size_t max)
{
    return json_is_string(v) && json_string_length(v) > 0 && json_string_length(v) <= max &&
           strlen(json_string_value(v)) == json_string_length(v);
}

static bool hex_is(const char *text)
{
    size_t len = strlen(text);
    return len % 2 == 0 && len <= 2 * SHA256_BYTES && strspn(text, "0123456789abcdef") == len;
}

static bool label_is(const char *text)
{
    const char *at = strrchr(text, '@');
    int64_t version = 0;
    return at && at > text && !text_parse_int(at + 1, 1, INT32_MAX, &version);
}

static bool serial_is(const char *text)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-";
    size_t len = strlen(text);
    return len <= SERIAL_MAX_CHARS && strspn(text, letters) == len;
}

static bool array_is(const json_t *v, bool policies)
{
    size_t i = 0;
    const json_t *item = NULL;
    json_array_foreach(v, i, item)
    {
        if (!text_is(policies ? json_object_get(item, "name") : item, MAX_TEXT))
            return false;
    }
    return json_is_array(v);
}

static bool member_is(const json_t *v, enum type type)
{
    const char *text = json_string_value(v);
    switch (type) {
    case TEXT:
        return text_is(v, MAX_TEXT);
    case BODY:
        return text_is(v, MAX_BODY > MAX_CERTIFICATE_TEXT ? MAX_BODY : MAX_CERTIFICATE_TEXT);
    case SERIAL:
        return text_is(v, MAX_TEXT) && serial_is(text);
    case LABEL:
        return text_is(v, MAX_TEXT) && label_is(text);
    case HEX:
        return text_is(v, MAX_TEXT) && hex_is(text);
    case INT:
        return json_is_integer(v) && json_integer_value(v) >= 0;
    case BOOL:
        return json_is_boolean(v);
    case OBJECT:
        return json_is_object(v);
    case NAMES:
    case POLICIES:
        return array_is(v, type == POLICIES);
    case REASON:
        return text_is(v, MAX_TEXT) &&
               strcmp(revocation_reason_name(revocation_reason_of(text)), text) == 0;
    }
    return false;
}

static const struct shape *shape_of(const json_t *line)
{
    const char *kind = json_string_value(json_object_get(line, "kind"));
    const char *of = json_string_value(json_object_get(line, "of"));
    for (size_t i = 0; kind && i < ARRAY_LEN(shapes); i++) {
        const struct shape *s = &shapes[i];
        if (strcmp(s->kind, kind) == 0 && (!s->of || (of && strcmp(s->of, of) == 0)))
            return s;
    }
    return NULL;
}

static bool shape_fits(const struct shape *s, const json_t *line)
{
    for (size_t i = 0; i < ARRAY_LEN(s->members) && s->members[i].name; i++) {
        const struct member *m = &s->members[i];
        const json_t *v = json_object_get(line, m->name);
        bool absent = !v || json_is_null(v);
        if (absent ? !m->optional : !member_is(v, m->type))
            return false;
    }
    return true;
}

static int hex_set(json_t *o, const char *name, struct bytes value, struct arena *arena)
{
    const char *hex = text_hex(arena, value);
    return hex ? json_object_set_new(o, name, json_string(hex)) : -1;
}

/* What every certificate says of itself; issuer NULL: it is a CA's. */
static json_t *info_make(const struct cert_info *c, const struct recovery_ca *issuer,
                         struct arena *arena)
{
    json_t *o = json_object();
    int rc = hex_set(o, "fingerprint", bytes_of(c->fingerprint, SHA256_BYTES), arena) |
             hex_set(o, "spki", bytes_of(c->spki_sha256, SHA256_BYTES), arena) |
             hex_set(o, "number", c->serial_number, arena) |
             json_object_set_new(o, "subject", json_string(c->subject_text)) |
             json_object_set_new(o, "not_before", json_integer(c->not_before_s)) |
             json_object_set_new(o, "not_after", json_integer(c->not_after_s));
    if (issuer)
        rc |= hex_set(o, "issuer", bytes_of(issuer->fingerprint, SHA256_BYTES), arena);
    if (rc == 0)
        return o;
    json_decref(o);
    return NULL;
}

static const struct recovery_ca *issuer_find(const struct recovery_cas *cas, X509 *cert,
                                             const struct cert_info *info)
{
    for (size_t i = 0; i < cas->count; i++) {
        const struct recovery_ca *ca = &cas->rows[i];
        if (ca->subject.len == info->issuer_der.len &&
            memcmp(ca->subject.data, info->issuer_der.data, ca->subject.len) == 0 &&
            cert_signed_by(cert, ca->cert))
            return ca;
    }
    return NULL;
}

/* What the certificate of the line says, put beside it; a CA is remembered. */
static enum err certificate_describe(json_t *line, bool is_ca, struct recovery_cas *cas,
                                     struct arena *arena, const char **ret_why)
{
    _cleanup_(cert_freep) X509 *cert = NULL;
    const json_t *text = json_object_get(line, "certificate");
    struct cert_info info;
    struct bytes der;
    enum err e = base64_decode(arena, bytes_text(json_string_value(text)), &der);
    if (!e)
        e = cert_decode(der, &cert);
    if (!e)
        e = cert_describe(arena, cert, &info);
    *ret_why = "its certificate cannot be read";
    if (e)
        return e == ERR_NO_MEMORY ? e : ERR_INVALID;
    const struct recovery_ca *issuer = is_ca ? NULL : issuer_find(cas, cert, &info);
    *ret_why = "no CA that is known signed its certificate";
    if (!is_ca && !issuer)
        return ERR_INVALID;
    if (json_object_set_new(line, "info", info_make(&info, issuer, arena)) != 0)
        return ERR_NO_MEMORY;
    return is_ca ? ca_put(cas, &cert, &info) : ERR_OK;
}

static enum err entry_dump(const json_t *line, struct arena *arena, const char **ret_json)
{
    char *text = json_dumps(line, JSON_COMPACT);
    *ret_json = text ? arena_strdup(arena, text) : NULL;
    free(text);
    return *ret_json ? ERR_OK : ERR_NO_MEMORY;
}

static enum err begin_read(const json_t *line, struct arena *arena, struct recovery_entry *ret)
{
    ret->kind = RECOVERY_BEGIN;
    ret->file = json_integer_value(json_object_get(line, "file"));
    ret->replica = arena_strdup(arena, json_string_value(json_object_get(line, "replica")));
    return ret->replica ? ERR_OK : ERR_NO_MEMORY;
}

enum err recovery_entry_read(struct bytes text, struct recovery_cas *cas, struct arena *arena,
                             struct recovery_entry *ret_entry, const char **ret_why)
{
    _cleanup_(jsonp_free) json_t *line =
        json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, NULL);
    const struct shape *shape = json_is_object(line) ? shape_of(line) : NULL;
    struct recovery_entry entry = {.kind = RECOVERY_ENTRY};
    *ret_why = line ? "it is of no kind that is known" : "it is no JSON";
    if (!shape)
        return ERR_INVALID;
    *ret_why = "a member is missing, or is not what it should be";
    if (!shape_fits(shape, line) || !member_is(json_object_get(line, "at"), INT))
        return ERR_INVALID;
    enum err e = ERR_OK;
    if (strcmp(shape->kind, "begin") == 0)
        e = begin_read(line, arena, &entry);
    else if (strcmp(shape->kind, "resumed") == 0)
        entry.kind = RECOVERY_NONE;
    if (!e && json_object_get(line, "certificate"))
        e = certificate_describe(line, shape->of != NULL, cas, arena, ret_why);
    if (!e && entry.kind == RECOVERY_ENTRY)
        e = entry_dump(line, arena, &entry.json);
    if (!e)
        *ret_entry = entry;
    return e;
}

/* What the certificate says of itself, where that is of the product. */
static const char *serial_of(const struct cert_info *info, const char *product, struct arena *arena)
{
    struct identity who;
    if (identity_read(info->san_der, arena, &who))
        return info->cn;
    return strcmp(who.product, product) == 0 ? who.serial : NULL;
}

static enum err certificate_entry(X509 *cert, const struct cert_info *info, const char *product,
                                  const char *template, struct arena *arena, json_t *line)
{
    _cleanup_(buf_donep) struct buf b = {0};
    struct bytes der;
    enum err e = cert_encode(arena, cert, &der);
    if (e)
        return e;
    buf_init(&b, MAX_CERTIFICATE_TEXT);
    base64_encode(&b, der);
    int rc = json_object_set_new(line, "kind", json_string("issued")) |
             json_object_set_new(line, "at", json_integer(info->not_before_s * 1000000)) |
             json_object_set_new(line, "product", json_string(product)) |
             json_object_set_new(line, "serial", json_string(serial_of(info, product, arena))) |
             json_object_set_new(line, "certificate", json_string(buf_text(&b)));
    const char *label = template ? arena_printf(arena, "%s@", template) : NULL;
    if (label)
        rc |= json_object_set_new(line, "template", json_string(label));
    return rc == 0 ? ERR_OK : ERR_NO_MEMORY;
}

enum err recovery_certificate_read(X509 *cert, const char *product, const char *template,
                                   struct recovery_cas *cas, struct arena *arena,
                                   const char **ret_json, const char **ret_why)
{
    _cleanup_(jsonp_free) json_t *line = json_object();
    struct cert_info info;
    enum err e = cert_describe(arena, cert, &info);
    const char *serial = e ? NULL : serial_of(&info, product, arena);
    *ret_why = "it names no serial of the product";
    if (!e && (!serial || !serial_is(serial)))
        e = ERR_INVALID;
    if (!e)
        e = certificate_entry(cert, &info, product, template, arena, line);
    if (!e)
        e = certificate_describe(line, false, cas, arena, ret_why);
    return e ? e : entry_dump(line, arena, ret_json);
}
