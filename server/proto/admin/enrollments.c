/* Enrollments: their keys are made or taken here, sealed before the database sees them, and told
 * once. */
#include <ctype.h>
#include <string.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "enroll/secrets.h"
#include "enroll/service.h"
#include "pki/cert.h"
#include "pki/chain.h"
#include "pki/seal.h"
#include "pki/tpm.h"
#include "proto/admin/hooks.h"

enum {
    MAX_NAME_CHARS = 128,
    MADE_KEY_BYTES = 64,
    MAX_KEY_TEXT_BYTES = 128,
    MAX_ETAG_BYTES = 32,
    MAX_PEM_BYTES = 32768,
    MAX_PUBLIC_CHARS = 2048,
    MAX_ENDPOINTS = 50
};

static const char *const key_names[] = {"primary_key", "secondary_key"};
static const char *const certificate_names[] = {"certificate", "secondary_certificate"};
static const char *const public_names[] = {"endorsement_key", "storage_root_key"};

#define TEXT(name, must, max, words)                                                               \
    {                                                                                              \
        name, ARG_BODY, ARG_TEXT, must, 0, max, words                                              \
    }
#define INT(name, max)                                                                             \
    {                                                                                              \
        name, ARG_BODY, ARG_INT, false, 1, max, NULL                                               \
    }
/* What both kinds have. */
#define COMMON                                                                                     \
    TEXT("template", false, 0, NULL), TEXT("primary_key", false, 0, NULL),                         \
        TEXT("secondary_key", false, 0, NULL), POLICIES
#define POLICIES                                                                                   \
    TEXT("allocation", false, 0, "static hashed weighted"),                                        \
        {"endpoints", ARG_BODY, ARG_TEXTS, false, 0, MAX_ENDPOINTS, NULL},                         \
        TEXT("reprovision", false, 0, "update sticky"),                                            \
        {"migrate", ARG_BODY, ARG_BOOL, false, 0, 0, NULL},                                        \
        {"payload", ARG_BODY, ARG_OBJECT, false, 0, 0, NULL}, TEXT("note", false, 256, NULL)
#define LIMITS INT("max_devices", 1000000000), INT("warn_devices", 1000000000)
#define GROUPED(from)                                                                              \
    {                                                                                              \
        "grouped", from, ARG_BOOL, false, 0, 0, NULL                                               \
    }
#define PATH_NAME                                                                                  \
    {                                                                                              \
        "name", ARG_PATH, ARG_TEXT, true, 0, 0, NULL                                               \
    }

const struct admin_call enrollment_create_call = {
    .desk = DESK_ENROLLMENT_CREATE,
    .status = 201,
    .before = enrollment_create_before,
    .after = enrollment_keys_after,
    .args = {GROUPED(ARG_FALSE), TEXT("registration_id", true, 0, NULL),
             TEXT("attestation", true, 0, "symmetric-key x509 tpm"), COMMON,
             TEXT("certificate", false, MAX_PEM_BYTES, NULL),
             TEXT("secondary_certificate", false, MAX_PEM_BYTES, NULL),
             TEXT("endorsement_key", false, MAX_PUBLIC_CHARS, NULL),
             TEXT("storage_root_key", false, MAX_PUBLIC_CHARS, NULL),
             TEXT("serial", false, 0, NULL)}};

const struct admin_call enrollment_group_create_call = {
    .desk = DESK_ENROLLMENT_CREATE,
    .status = 201,
    .before = enrollment_create_before,
    .after = enrollment_keys_after,
    .args = {GROUPED(ARG_TRUE), TEXT("name", true, 0, NULL),
             TEXT("attestation", true, 0, "symmetric-key x509 tpm psk"), COMMON,
             TEXT("ca", false, 0, NULL), TEXT("roots", false, MAX_PEM_BYTES, NULL), LIMITS}};

const struct admin_call enrollment_update_call = {
    .desk = DESK_ENROLLMENT_UPDATE,
    .before = enrollment_etag_before,
    .args = {GROUPED(ARG_FALSE), PATH_NAME, TEXT("template", false, 0, NULL), POLICIES}};

const struct admin_call enrollment_group_update_call = {
    .desk = DESK_ENROLLMENT_UPDATE,
    .before = enrollment_etag_before,
    .args = {GROUPED(ARG_TRUE), PATH_NAME, TEXT("template", false, 0, NULL), POLICIES, LIMITS}};

/* The texts of keys between a call's statement and its answer; the session stays first. */
struct told {
    struct admin_session session;
    const char *(*keys)[2]; /* of each enrollment, NULL: it has none; in the arena, which is
                               overwritten at the end */
    size_t count;
};

static enum err no_memory(struct exchange *x)
{
    return fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
}

static enum err malformed(struct exchange *x, const char *what)
{
    return fault_set(&x->fault, FAULT_REQUEST_MALFORMED, "%s", what);
}

static const char *text_of(const json_t *args, const char *name)
{
    return json_string_value(json_object_get(args, name));
}

/* A key that the operator has, or a new one. ret_key is secret. */
static enum err key_take(struct exchange *x, const char *given, struct buf *ret_key)
{
    uint8_t made[MADE_KEY_BYTES] = {0};
    struct bytes key = bytes_of(made, sizeof(made));
    if (!given && secret_random(made, sizeof(made)))
        return fault_set(&x->fault, FAULT_INTERNAL, "random numbers");
    if (given && (base64_decode(x->arena, bytes_text(given), &key) ||
                  key.len < SECRETS_MIN_KEY_BYTES || key.len > SECRETS_MAX_KEY_BYTES))
        return malformed(x, "a key is the base64 of 16 to 64 bytes");
    buf_add(ret_key, key.data, key.len);
    secret_cleanse(made, sizeof(made));
    return ret_key->overflow ? no_memory(x) : ERR_OK;
}

static enum err key_seal(struct service *service, struct exchange *x, json_t *args, bool grouped,
                         enum secrets_slot slot, struct bytes key)
{
    _cleanup_(buf_donep) struct buf place = {0}, sealed = {0};
    char lower[MAX_NAME_CHARS + 1] = "";
    const char *name = text_of(args, "name");
    for (size_t i = 0; name[i] && i < MAX_NAME_CHARS; i++)
        lower[i] = (char)tolower((unsigned char)name[i]);
    buf_init(&place, SECRETS_MAX_PLACE_BYTES);
    buf_init(&sealed, SECRETS_MAX_KEY_BYTES + SEAL_OVERHEAD_BYTES);
    secrets_place(&place, grouped, lower, slot);
    if (place.overflow || seal_close(service->sealer, buf_text(&place), key, &sealed))
        return fault_set(&x->fault, FAULT_INTERNAL, "sealing a key");
    return admin_hex_add(x->arena, args, key_names[slot], buf_bytes(&sealed)) ? no_memory(x)
                                                                              : ERR_OK;
}

/* Takes or makes the key of one slot; its text is kept to be told, its sealed form goes into args.
 */
static enum err slot_fill(struct service *service, struct exchange *x, json_t *args, bool grouped,
                          enum secrets_slot slot, const char **keys)
{
    _cleanup_(buf_donep) struct buf key = {0}, text = {0};
    if (!service->sealer)
        return fault_set(&x->fault, FAULT_SECRETS_UNAVAILABLE, "[secrets] key is not set");
    buf_init(&key, SECRETS_MAX_KEY_BYTES);
    buf_init(&text, MAX_KEY_TEXT_BYTES);
    enum err e = key_take(x, text_of(args, key_names[slot]), &key);
    if (e)
        return e;
    base64_encode(&text, buf_bytes(&key));
    keys[slot] = arena_strdup(x->arena, buf_text(&text));
    e = keys[slot] ? key_seal(service, x, args, grouped, slot, buf_bytes(&key)) : no_memory(x);
    secret_cleanse(key.data, key.len);
    secret_cleanse(text.data, text.len);
    return e;
}

/* A certificate becomes its fingerprint. */
static enum err certificate_fill(struct exchange *x, json_t *args, const char *name)
{
    _cleanup_(cert_freep) X509 *cert = NULL;
    const char *pem = text_of(args, name);
    struct cert_info info;
    if (!pem)
        return ERR_OK;
    if (cert_parse_first_pem(bytes_text(pem), &cert) || cert_describe(x->arena, cert, &info))
        return malformed(x, "a certificate is none that can be read, in PEM");
    return admin_hex_add(x->arena, args, name, bytes_of(info.fingerprint, SHA256_BYTES))
               ? no_memory(x)
               : ERR_OK;
}

/* The public area of a TPM's key becomes its digest. */
static enum err public_fill(struct exchange *x, json_t *args, const char *name)
{
    const char *text = text_of(args, name);
    struct tpm_public p;
    struct bytes der;
    uint8_t digest[SHA256_BYTES];
    const char *why = "it is no base64";
    if (!text)
        return ERR_OK;
    if (base64_decode(x->arena, bytes_text(text), &der) || tpm_public_decode(der, &p, &why) ||
        tpm_check_storage(&p, &why))
        return fault_set(&x->fault, FAULT_REQUEST_MALFORMED, "%s: %s", name, why);
    if (digest_sha256(p.raw, digest) ||
        admin_hex_add(x->arena, args, name, bytes_of(digest, sizeof(digest))))
        return no_memory(x);
    return ERR_OK;
}

static enum err roots_check(struct exchange *x, const json_t *args)
{
    _cleanup_(trust_freep) struct trust *trust = NULL;
    const char *pem = text_of(args, "roots");
    if (pem && trust_parse_pem(bytes_text(pem), &trust))
        return malformed(x, "roots are no certificates in PEM");
    return ERR_OK;
}

/* It has keys, which are made or given when it is made. */
static bool is_keyed(const char *attestation)
{
    return strcmp(attestation, "symmetric-key") == 0 || strcmp(attestation, "psk") == 0;
}

/* A device with a PSK is assigned nothing: what only DPS tells would never be told. */
static enum err psk_members_check(struct exchange *x, const json_t *args)
{
    static const char *const told[] = {"allocation", "endpoints", "reprovision", "migrate",
                                       "payload"};
    for (size_t i = 0; i < ARRAY_LEN(told); i++) {
        if (json_object_get(args, told[i]))
            return fault_set(&x->fault, FAULT_REQUEST_MALFORMED, "%s is not for attestation psk",
                             told[i]);
    }
    return ERR_OK;
}

/* Which members belong to which attestation. */
static enum err members_check(struct exchange *x, const json_t *args, bool grouped)
{
    static const struct {
        const char *name;
        const char *attestation;
    } rules[] = {{"certificate", "x509"},    {"secondary_certificate", "x509"}, {"ca", "x509"},
                 {"endorsement_key", "tpm"}, {"storage_root_key", "tpm"},       {"roots", "tpm"}};
    const char *attestation = text_of(args, "attestation");
    for (size_t i = 0; i < ARRAY_LEN(key_names) && !is_keyed(attestation); i++) {
        if (json_object_get(args, key_names[i]))
            return fault_set(&x->fault, FAULT_REQUEST_MALFORMED,
                             "%s is for attestation symmetric-key, or psk", key_names[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
        if (json_object_get(args, rules[i].name) && strcmp(attestation, rules[i].attestation) != 0)
            return fault_set(&x->fault, FAULT_REQUEST_MALFORMED, "%s is for attestation %s",
                             rules[i].name, rules[i].attestation);
    }
    const char *needed = strcmp(attestation, "x509") == 0  ? grouped ? "ca" : "certificate"
                         : strcmp(attestation, "tpm") == 0 ? grouped ? "roots" : "endorsement_key"
                                                           : NULL;
    if (needed && !json_object_get(args, needed))
        return fault_set(&x->fault, FAULT_REQUEST_MALFORMED, "attestation %s needs %s", attestation,
                         needed);
    return strcmp(attestation, "psk") == 0 ? psk_members_check(x, args) : ERR_OK;
}

/* Its name, and the template where it names none. */
static enum err defaults_fill(struct service *service, struct exchange *x, json_t *args,
                              bool grouped)
{
    const char *template = service->default_template;
    json_t *id = json_object_get(args, "registration_id");
    if (!grouped && id && json_object_set(args, "name", id))
        return no_memory(x);
    if (!text_of(args, "name") || !text_of(args, "attestation"))
        return malformed(x, grouped ? "name and attestation must be given"
                                    : "registration_id and attestation must be given");
    if (strlen(text_of(args, "name")) > MAX_NAME_CHARS)
        return malformed(x, "the name is too long");
    if (text_of(args, "template"))
        return ERR_OK;
    if (!template)
        return fault_set(&x->fault, FAULT_TEMPLATE_NO_DEFAULT,
                         "name a template, or set default_template");
    return json_object_set_new(args, "template", json_string(template)) ? no_memory(x) : ERR_OK;
}

/* One enrollment as the desk records it. */
static enum err enrollment_fill(struct service *service, struct exchange *x, json_t *args,
                                const char **keys)
{
    bool grouped = json_is_true(json_object_get(args, "grouped"));
    enum err e = defaults_fill(service, x, args, grouped);
    if (!e)
        e = members_check(x, args, grouped);
    if (e)
        return e;
    bool keyed = is_keyed(text_of(args, "attestation"));
    for (size_t i = 0; i < ARRAY_LEN(key_names) && keyed && !e; i++)
        e = slot_fill(service, x, args, grouped, (enum secrets_slot)i, keys);
    for (size_t i = 0; i < ARRAY_LEN(certificate_names) && !e; i++)
        e = certificate_fill(x, args, certificate_names[i]);
    for (size_t i = 0; i < ARRAY_LEN(public_names) && !e; i++)
        e = public_fill(x, args, public_names[i]);
    return e ? e : roots_check(x, args);
}

static enum err told_begin(struct exchange *x, size_t count, struct told **ret_told)
{
    struct told *t = arena_alloc(x->arena, sizeof(*t));
    if (!t || !(t->keys = arena_alloc(x->arena, (count > 0 ? count : 1) * sizeof(*t->keys))))
        return no_memory(x);
    for (size_t i = 0; i < count; i++)
        t->keys[i][0] = t->keys[i][1] = NULL;
    t->count = count;
    t->session = *(const struct admin_session *)x->adapter;
    x->adapter = &t->session;
    *ret_told = t;
    return ERR_OK;
}

/* What the operator has seen; he may leave it out. RFC 9110 13.1.1: quoted. */
enum err enrollment_etag_before(struct service *service, struct exchange *x, json_t *args)
{
    const char *header = exchange_header(x, "If-Match");
    (void)service;
    size_t len = header ? strlen(header) : 0;
    if (!header || strcmp(header, "*") == 0)
        return ERR_OK;
    if (len < 3 || len > MAX_ETAG_BYTES || header[0] != '"' || header[len - 1] != '"')
        return malformed(x, "If-Match is not one quoted etag");
    return json_object_set_new(args, "etag", json_stringn(header + 1, len - 2)) ? no_memory(x)
                                                                                : ERR_OK;
}

enum err enrollment_create_before(struct service *service, struct exchange *x, json_t *args)
{
    struct told *t = NULL;
    enum err e = told_begin(x, 1, &t);
    return e ? e : enrollment_fill(service, x, args, t->keys[0]);
}

enum err enrollment_rotate_before(struct service *service, struct exchange *x, json_t *args)
{
    struct told *t = NULL;
    bool grouped = json_is_true(json_object_get(args, "grouped"));
    bool primary = strcmp(text_of(args, "key"), "primary") == 0;
    (void)json_object_del(args, "key");
    enum err e = enrollment_etag_before(service, x, args);
    if (!e)
        e = told_begin(x, 1, &t);
    return e ? e
             : slot_fill(service, x, args, grouped, primary ? SECRETS_PRIMARY : SECRETS_SECONDARY,
                         t->keys[0]);
}

static int keys_tell(const struct told *t, size_t i, json_t *row)
{
    int rc = 0;
    for (size_t k = 0; k < ARRAY_LEN(key_names) && i < t->count; k++) {
        if (t->keys[i][k])
            rc |= json_object_set_new(row, key_names[k], json_string(t->keys[i][k]));
    }
    return rc;
}

enum err enrollment_keys_after(struct service *service, struct exchange *x, const json_t *args,
                               json_t *answer)
{
    (void)service;
    (void)args;
    return keys_tell((const struct told *)x->adapter, 0, answer) ? no_memory(x) : ERR_OK;
}

/* An item that cannot be taken keeps no other out: the desk is told what is wrong with it. */
static enum err item_fill(struct service *service, struct exchange *x, json_t *item, bool grouped,
                          const char **keys)
{
    enum err e = admin_members_check(
        grouped ? &enrollment_group_create_call : &enrollment_create_call, x, item);
    if (json_object_set_new(item, "grouped", json_boolean(grouped)))
        return no_memory(x);
    if (!e)
        e = enrollment_fill(service, x, item, keys);
    if (e != ERR_DENIED || x->fault.code == FAULT_INTERNAL)
        return e;
    json_t *problem =
        json_pack("{s:s, s:s}", "code", fault_row(x->fault.code)->code, "detail", x->fault.detail);
    x->fault = (struct fault){0};
    return problem && json_object_set_new(item, "problem", problem) == 0 ? ERR_OK : no_memory(x);
}

enum err enrollment_import_before(struct service *service, struct exchange *x, json_t *args)
{
    struct told *t = NULL;
    bool grouped = json_is_true(json_object_get(args, "grouped"));
    json_t *items = json_object_get(args, "enrollments");
    enum err e = told_begin(x, json_array_size(items), &t);
    for (size_t i = 0; i < json_array_size(items) && !e; i++)
        e = item_fill(service, x, json_array_get(items, i), grouped, t->keys[i]);
    return e;
}

/* Only those that were made are told. */
enum err enrollment_import_after(struct service *service, struct exchange *x, const json_t *args,
                                 json_t *answer)
{
    int rc = 0;
    (void)service;
    (void)args;
    for (size_t i = 0; i < json_array_size(answer); i++) {
        json_t *row = json_array_get(answer, i);
        const char *result = text_of(row, "result");
        if (result && strcmp(result, "created") == 0)
            rc |= keys_tell((const struct told *)x->adapter, i, row);
    }
    return rc ? no_memory(x) : ERR_OK;
}
