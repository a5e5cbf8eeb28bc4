/* The question and the answer of a hook, in the shapes of AWS (payloadVersion 2020-04-01). */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_depth.h"
#include "base/secret.h"
#include "base/text.h"
#include "enroll/hook_internal.h"
#include "enroll/template.h"

enum {
    MAX_ARN_BYTES = 128,
    MAX_TIME_BYTES = 24,
    MAX_REASON_BYTES = 300, /* with the words before it in a fault's detail */
};

static void json_freep(json_t **j)
{
    json_decref(*j);
}

/* NULL also for the same name twice: the hook must judge what is used. */
static json_t *parameters_json(const struct hook_question *q)
{
    json_t *o = json_object();
    for (size_t i = 0; o && i < q->parameter_count; i++) {
        const struct enrollment_parameter *p = &q->parameters[i];
        if (json_object_get(o, p->name) || json_object_set_new(o, p->name, json_string(p->value))) {
            json_decref(o);
            return NULL;
        }
    }
    return o;
}

/* An ARN of AWS, whose hooks take the template's name from its end; region and account are empty.
 */
static json_t *question_json(const struct hook_question *q)
{
    char arn[MAX_ARN_BYTES];
    _cleanup_(json_freep) json_t *parameters = parameters_json(q);
    int n = snprintf(arn, sizeof(arn), "arn:aws:iot:::provisioningtemplate/%s", q->template_name);
    if (!parameters || n < 0 || (size_t)n >= sizeof(arn))
        return NULL;
    return json_pack("{s:s, s:s, s:s*, s:s*, s:s, s:s, s:O, s:s, s:s, s:s, s:i}", "payloadVersion",
                     "2020-04-01", "claimCertificateId", q->claim_certificate_id, "certificateId",
                     q->certificate_id, "certificatePem", q->certificate_pem, "templateArn", arn,
                     "clientId", q->client_id ? q->client_id : "", "parameters", parameters,
                     "requestId", q->request_id, "claimName", q->claim_name, "product", q->product,
                     "templateVersion", q->template_version);
}

enum err hook_question_encode(const struct hook_question *q, char **ret_body)
{
    _cleanup_(json_freep) json_t *question = question_json(q);
    _cleanup_(freep) char *text = question ? json_dumps(question, JSON_COMPACT) : NULL;
    if (!text || strlen(text) > HOOK_MAX_QUESTION_BYTES)
        return ERR_INVALID;
    *ret_body = TAKE_PTR(text);
    return ERR_OK;
}

enum err hook_sign(struct bytes secret, int64_t now_s, struct bytes body,
                   char ret_signature[HOOK_SIGNATURE_BYTES])
{
    uint8_t mac[SHA256_BYTES];
    _cleanup_(buf_donep) struct buf text = {0}, out = {0};
    buf_init(&text, HOOK_MAX_QUESTION_BYTES + MAX_TIME_BYTES);
    buf_init(&out, HOOK_SIGNATURE_BYTES - 1);
    buf_printf(&text, "%" PRId64 ".", now_s);
    buf_add(&text, body.data, body.len);
    if (text.overflow)
        return ERR_NO_MEMORY;
    enum err e = digest_hmac_sha256(secret, buf_bytes(&text), mac);
    if (e)
        return e;
    buf_printf(&out, "t=%" PRId64 ",v1=", now_s);
    text_add_hex(&out, bytes_of(mac, sizeof(mac)));
    if (out.overflow)
        return ERR_NO_MEMORY;
    memcpy(ret_signature, out.data, out.len + 1);
    return ERR_OK;
}

static enum err answer_fail(struct fault *fault, const char *what)
{
    return fault_set(fault, FAULT_HOOK_FAILED, "the hook's answer %s", what);
}

/* The hook's reason, without what would not print. */
static void reason_copy(const char *s, char out[MAX_REASON_BYTES])
{
    size_t len = 0;
    for (int chars = 0; *s && chars < HOOK_MAX_REASON_CHARS; chars++) {
        size_t n = text_utf8_length(s);
        bool control = n == 0 || (n == 1 && ((unsigned char)*s < 0x20 || *s == 0x7f));
        if (n == 0)
            n = 1;
        if (len + n >= MAX_REASON_BYTES)
            break;
        memcpy(out + len, control ? " " : s, n);
        len += n;
        s += n;
    }
    out[len] = '\0';
}

static enum err deny(const json_t *answer, bool said, struct fault *fault)
{
    char reason[MAX_REASON_BYTES] = "";
    const char *text = json_string_value(json_object_get(answer, "reason"));
    if (text)
        reason_copy(text, reason);
    return fault_set(fault, FAULT_HOOK_DENIED, "%s%s%s",
                     said ? "allowProvisioning is false" : "the answer has no allowProvisioning",
                     reason[0] ? ": " : "", reason);
}

static enum err override_take(const char *name, const json_t *value, struct arena *arena,
                              struct enrollment_parameter *ret_override, struct fault *fault)
{
    const char *text = json_string_value(value);
    if (!text)
        return answer_fail(fault, "has a parameter that is no string");
    if (name[0] == '\0' || strlen(name) > HOOK_MAX_NAME_BYTES)
        return answer_fail(fault, "has a parameter whose name is empty or too long");
    if (json_string_length(value) > TEMPLATE_MAX_VALUE_BYTES)
        return answer_fail(fault, "has a parameter whose value is too long");
    struct enrollment_parameter copy = {arena_strdup(arena, name), arena_strdup(arena, text)};
    if (!copy.name || !copy.value)
        return fault_set(fault, FAULT_INTERNAL, "out of memory");
    *ret_override = copy;
    return ERR_OK;
}

static enum err overrides_take(json_t *overrides, struct arena *arena, struct hook_answer *answer,
                               struct fault *fault)
{
    const char *name;
    json_t *value;
    if (!overrides || json_is_null(overrides))
        return ERR_OK;
    if (!json_is_object(overrides))
        return answer_fail(fault, "has parameterOverrides that are no object");
    if (json_object_size(overrides) > ENROLLMENT_MAX_PARAMETERS)
        return answer_fail(fault, "has too many parameterOverrides");
    json_object_foreach(overrides, name, value)
    {
        enum err e =
            override_take(name, value, arena, &answer->overrides[answer->override_count], fault);
        if (e)
            return e;
        answer->override_count++;
    }
    return ERR_OK;
}

enum err hook_answer_decode(struct bytes body, struct arena *arena, struct hook_answer *ret_answer,
                            struct fault *fault)
{
    struct hook_answer answer = {.override_count = 0};
    _cleanup_(json_freep) json_t *root =
        body.len > 0 && body.len <= HOOK_MAX_ANSWER_BYTES &&
                json_is_shallow(body, HOOK_MAX_ANSWER_DEPTH)
            ? json_loadb((const char *)body.data, body.len, JSON_REJECT_DUPLICATES, NULL)
            : NULL;
    if (!json_is_object(root))
        return answer_fail(fault, "is no JSON object");
    const json_t *allow = json_object_get(root, "allowProvisioning");
    if (allow && !json_is_boolean(allow))
        return answer_fail(fault, "has an allowProvisioning that is neither true nor false");
    if (!json_is_true(allow))
        return deny(root, allow != NULL, fault);
    enum err e = overrides_take(json_object_get(root, "parameterOverrides"), arena, &answer, fault);
    if (!e)
        *ret_answer = answer;
    return e;
}
