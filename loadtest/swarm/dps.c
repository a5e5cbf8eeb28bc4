#include "dps.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "base/text.h"

enum { MIN_KEY_BYTES = 16, KEY_ARENA_BYTES = 1024, MAX_TEXT_BYTES = 512, ACCEPTED = 202 };

enum err dps_key_read(struct bytes text, uint8_t ret_key[DPS_MAX_KEY_BYTES], size_t *ret_len)
{
    _cleanup_(arena_donep) struct arena arena = {0};
    struct bytes key;
    arena_init(&arena, KEY_ARENA_BYTES);
    enum err e = base64_decode(&arena, text, &key);
    if (!e && (key.len < MIN_KEY_BYTES || key.len > DPS_MAX_KEY_BYTES))
        e = ERR_INVALID;
    if (!e) {
        memcpy(ret_key, key.data, key.len);
        *ret_len = key.len;
    }
    return e;
}

enum err dps_key_derive(struct bytes master, const char *registration_id,
                        uint8_t ret_key[SHA256_BYTES])
{
    return digest_hmac_sha256(master, bytes_text(registration_id), ret_key);
}

enum err dps_sas_write(struct buf *b, struct bytes key, const char *scope,
                       const char *registration_id, int64_t ends_s)
{
    _cleanup_(buf_donep) struct buf resource = {0};
    _cleanup_(buf_donep) struct buf said = {0};
    _cleanup_(buf_donep) struct buf signature = {0};
    uint8_t mac[SHA256_BYTES];
    buf_init(&resource, MAX_TEXT_BYTES);
    buf_init(&said, MAX_TEXT_BYTES);
    buf_init(&signature, MAX_TEXT_BYTES);
    text_add_url(&resource, scope);
    buf_add_text(&resource, "%2Fregistrations%2F");
    text_add_url(&resource, registration_id);
    buf_printf(&said, "%s\n%lld", buf_text(&resource), (long long)ends_s);
    enum err e = digest_hmac_sha256(key, buf_bytes(&said), mac);
    if (e)
        return e;
    base64_encode(&signature, bytes_of(mac, sizeof(mac)));
    buf_printf(b, "SharedAccessSignature sr=%s&sig=", buf_text(&resource));
    text_add_url(b, buf_text(&signature));
    buf_printf(b, "&se=%lld&skn=registration", (long long)ends_s);
    return resource.overflow || said.overflow || b->overflow ? ERR_INVALID : ERR_OK;
}

enum err dps_body_write(struct buf *b, const char *registration_id, const char *csr)
{
    json_t *o = csr ? json_pack("{s:s,s:s}", "registrationId", registration_id, "csr", csr)
                    : json_pack("{s:s}", "registrationId", registration_id);
    _cleanup_(freep) char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    if (!text)
        return ERR_NO_MEMORY;
    buf_add_text(b, text);
    return b->overflow ? ERR_INVALID : ERR_OK;
}

static const char *text_of(const json_t *o, const char *name)
{
    const char *text = json_string_value(json_object_get(o, name));
    return text ? text : "";
}

/* A DeviceRegistrationResult. */
static const char *assigned_read(const json_t *o, const char *registration_id, struct dps_answer *a)
{
    const json_t *chain = json_object_get(o, "issuedCertificateChain");
    a->hub = text_of(o, "assignedHub");
    a->device = text_of(o, "deviceId");
    a->certificate = json_string_value(json_array_get(chain, 0));
    if (strcasecmp(text_of(o, "registrationId"), registration_id) != 0)
        return "another device's registration";
    if (strcmp(text_of(o, "status"), "assigned") != 0 || a->hub[0] == '\0' || a->device[0] == '\0')
        return "not a broker and a device id";
    if (chain && !a->certificate)
        return "a chain of no certificates";
    return NULL;
}

static const char *failed_read(const json_t *o, struct dps_answer *a)
{
    a->state = DPS_FAILED;
    a->code = json_integer_value(json_object_get(o, "errorCode"));
    return a->code > 0 ? NULL : "a failure without its code";
}

static const char *waiting_read(const json_t *o, struct dps_answer *a)
{
    a->state = DPS_ASSIGNING;
    a->operation = text_of(o, "operationId");
    size_t len = strlen(a->operation);
    return len > 0 && len < DPS_OPERATION_BYTES ? NULL : "an operation without its id";
}

const char *dps_answer_read(const json_t *o, int status, const char *registration_id, bool wrapped,
                            struct dps_answer *ret_answer)
{
    struct dps_answer a = {.state = DPS_ASSIGNED};
    const char *said = text_of(o, "status"), *why;
    const json_t *state = wrapped ? json_object_get(o, "registrationState") : o;
    if (wrapped && status == ACCEPTED && strcmp(said, "assigning") == 0)
        why = waiting_read(o, &a);
    else if (wrapped && status != ACCEPTED && strcmp(said, "failed") == 0)
        why = failed_read(state, &a);
    else if (status != ACCEPTED && strcmp(said, "assigned") == 0)
        why = assigned_read(state, registration_id, &a);
    else
        why = "not a registration";
    if (!why)
        *ret_answer = a;
    return why;
}
