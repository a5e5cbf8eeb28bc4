#include "proto/admin/manifest_line.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "pki/cert.h"
#include "pki/jws.h"

enum { VERSION_FULL_OLD = 1, VERSION_LITE = 2, VERSION_FULL = 3 };

/* An entry under way. */
struct entry {
    const struct manifest_rule *rule;
    struct arena *arena;
    struct allowlist_line *line;
    char *reason;
    json_t *outer;   /* SignedSecureElement */
    json_t *payload; /* SecureElement */
};

static void entry_done(struct entry *e)
{
    json_decref(e->outer);
    json_decref(e->payload);
}

static enum err reject(struct entry *e, const char *why)
{
    snprintf(e->reason, ALLOWLIST_REASON_BYTES, "%s", why);
    return ERR_INVALID;
}

static const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

/* A member that is base64url. */
static enum err member_decode(struct entry *e, const json_t *object, const char *key,
                              struct bytes *ret)
{
    const char *text = text_of(object, key);
    return text ? base64url_decode(e->arena, bytes_text(text), ret) : ERR_INVALID;
}

static json_t *json_of(struct bytes b)
{
    return json_loadb((const char *)b.data, b.len, JSON_REJECT_DUPLICATES, NULL);
}

static const struct manifest_signer *signer_of(struct entry *e, const json_t *header)
{
    struct bytes thumbprint = {0};
    if (member_decode(e, header, "x5t#S256", &thumbprint) || thumbprint.len != SHA256_BYTES)
        return NULL;
    for (size_t i = 0; i < e->rule->signer_count; i++) {
        if (memcmp(e->rule->signers[i].fingerprint, thumbprint.data, SHA256_BYTES) == 0)
            return &e->rule->signers[i];
    }
    return NULL;
}

static enum err signature_check(struct entry *e)
{
    struct bytes protected = {0}, signature = {0};
    const char *head = text_of(e->outer, "protected"), *body = text_of(e->outer, "payload");
    if (!head || !body || member_decode(e, e->outer, "protected", &protected) ||
        member_decode(e, e->outer, "signature", &signature))
        return reject(e, "payload, protected or signature is missing or no base64url");
    _cleanup_(json_decrefp) json_t *header = json_of(protected);
    const char *algorithm = text_of(header, "alg");
    if (!algorithm || strcmp(algorithm, "ES256") != 0)
        return reject(e, "it is not signed with ES256");
    const struct manifest_signer *signer = signer_of(e, header);
    if (!signer)
        return reject(e, "it is signed by nobody whose certificate is trusted here (x5t#S256)");
    const char *input = arena_printf(e->arena, "%s.%s", head, body);
    if (!input || !jws_es256_verify(signer->cert, bytes_text(input), signature))
        return reject(e, "the signature is wrong");
    return ERR_OK;
}

static enum err payload_take(struct entry *e)
{
    struct bytes payload = {0};
    if (member_decode(e, e->outer, "payload", &payload) || !(e->payload = json_of(payload)))
        return reject(e, "the payload is no JSON");
    const char *own = text_of(e->payload, "uniqueId");
    const char *outside = text_of(json_object_get(e->outer, "header"), "uniqueId");
    if (!own || !outside || strcmp(own, outside) != 0)
        return reject(e, "uniqueId is missing, or another inside than outside");
    if (serial_parse(e->rule->serial, own, &e->line->serial))
        return reject(e, "uniqueId is no serial");
    snprintf(e->line->shown, sizeof(e->line->shown), "%s", own);
    return ERR_OK;
}

static json_t *key_find(const struct entry *e)
{
    json_t *keys = json_object_get(json_object_get(e->payload, "publicKeySet"), "keys");
    size_t i;
    json_t *key;
    json_array_foreach(keys, i, key)
    {
        const char *kid = text_of(key, "kid");
        if (kid && strcmp(kid, e->rule->key) == 0)
            return key;
    }
    return NULL;
}

/* Where the element came with a certificate it is for the same key. x5c is base64, not base64url
 * (RFC 7517 4.7). */
static enum err certificate_compare(struct entry *e, const json_t *key)
{
    uint8_t digest[SHA256_BYTES];
    struct bytes der = {0};
    _cleanup_(cert_freep) X509 *x = NULL;
    const json_t *first = json_array_get(json_object_get(key, "x5c"), 0);
    if (!first)
        return ERR_OK;
    const char *text = json_string_value(first);
    if (!text || base64_decode(e->arena, bytes_text(text), &der) || cert_decode(der, &x) ||
        cert_key_fingerprint(x, digest) || memcmp(digest, e->line->pin, sizeof(digest)) != 0)
        return reject(e, "the certificate in x5c cannot be read, or has another key");
    return ERR_OK;
}

static enum err key_take(struct entry *e)
{
    json_int_t version = json_integer_value(json_object_get(e->payload, "version"));
    struct bytes x = {0}, y = {0};
    if (version == VERSION_LITE)
        return ERR_OK;
    if (version != VERSION_FULL_OLD && version != VERSION_FULL)
        return reject(e, "its version is neither 1, 2 nor 3");
    const json_t *key = key_find(e);
    if (!key)
        return reject(e, "it has no key of that name (--key-slot)");
    const char *type = text_of(key, "kty"), *curve = text_of(key, "crv");
    if (!type || strcmp(type, "EC") != 0 || !curve || strcmp(curve, "P-256") != 0)
        return reject(e, "the key is not P-256");
    if (member_decode(e, key, "x", &x) || member_decode(e, key, "y", &y) ||
        x.len != JWS_P256_BYTES || y.len != JWS_P256_BYTES ||
        jwk_p256_fingerprint(x.data, y.data, e->line->pin))
        return reject(e, "the key is no point of its curve");
    e->line->pinned = true;
    return certificate_compare(e, key);
}

static bool is_blank(const char *text, size_t len)
{
    size_t i = 0;
    while (i < len && strchr(" \t\r", text[i]))
        i++;
    return i == len;
}

static enum err entry_judge(struct entry *e)
{
    enum err err = signature_check(e);
    if (!err)
        err = payload_take(e);
    return err ? err : key_take(e);
}

enum err manifest_line_parse(const struct manifest_rule *rule, const char *text, size_t len,
                             struct arena *arena, struct allowlist_line *ret_line,
                             char ret_reason[ALLOWLIST_REASON_BYTES])
{
    _cleanup_(entry_done) struct entry e = {
        .rule = rule, .arena = arena, .line = ret_line, .reason = ret_reason};
    *ret_line = (struct allowlist_line){.skip = is_blank(text, len)};
    ret_reason[0] = '\0';
    if (ret_line->skip)
        return ERR_OK;
    e.outer = len <= MANIFEST_MAX_LINE_BYTES ? json_of(bytes_of(text, len)) : NULL;
    if (!json_is_object(e.outer))
        return reject(&e, "it is no JSON object of at most 64 KiB");
    return entry_judge(&e);
}
