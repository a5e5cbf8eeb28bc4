#include "proto/dps/sas.h"

#include <string.h>
#include <strings.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "base/secret.h"
#include "base/text.h"

#define SCHEME "SharedAccessSignature "
#define MIDDLE "/registrations/"

enum { SKEW_S = 300, FARTHEST_S = 366 * 86400 };

static enum err malformed(struct fault *fault, const char *why)
{
    return fault_set(fault, FAULT_SAS_MALFORMED, "%s", why);
}

/* The parts as they were sent; every one once. */
struct parts {
    char *sr, *sig, *se, *skn;
};

static bool part_take(struct parts *p, char *text)
{
    const struct {
        const char *name;
        char **part;
    } known[] = {{"sr=", &p->sr}, {"sig=", &p->sig}, {"se=", &p->se}, {"skn=", &p->skn}};
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        size_t len = strlen(known[i].name);
        if (strncmp(text, known[i].name, len) != 0)
            continue;
        if (*known[i].part)
            return false;
        *known[i].part = text + len;
        return true;
    }
    return false;
}

static bool parts_split(char *text, struct parts *p)
{
    for (char *rest = text; rest;) {
        char *part = strsep(&rest, "&");
        if (!part_take(p, part))
            return false;
    }
    return p->sr && p->sig && p->se;
}

static enum err signature_take(struct arena *arena, char *sig, struct sas *sas, struct fault *fault)
{
    if (text_url_decode(sig) || base64_decode(arena, bytes_text(sig), &sas->signature) ||
        sas->signature.len != SHA256_BYTES)
        return malformed(fault, "sig is not the base64 of 32 bytes, percent-encoded");
    return ERR_OK;
}

enum err sas_parse(struct arena *arena, const char *header, struct sas *ret_sas,
                   struct fault *fault)
{
    struct parts p = {0};
    struct sas sas = {0};
    if (strlen(header) > SAS_MAX_HEADER_BYTES)
        return malformed(fault, "it is too long");
    if (strncasecmp(header, SCHEME, strlen(SCHEME)) != 0)
        return malformed(fault, "the scheme is not SharedAccessSignature");
    char *text = arena_strdup(arena, header + strlen(SCHEME));
    if (!text)
        return fault_set(fault, FAULT_INTERNAL, "out of memory");
    if (!parts_split(text, &p))
        return malformed(fault, "it must have sr, sig and se, each once, and perhaps skn");
    if (p.skn && strcmp(p.skn, "registration") != 0)
        return malformed(fault, "skn is not registration");
    if (text_parse_int(p.se, 0, INT64_MAX / 2, &sas.ends_s))
        return malformed(fault, "se is no number of seconds");
    const char *to_sign = arena_printf(arena, "%s\n%s", p.sr, p.se);
    char *resource = arena_strdup(arena, p.sr);
    if (!to_sign || !resource)
        return fault_set(fault, FAULT_INTERNAL, "out of memory");
    if (text_url_decode(resource))
        return malformed(fault, "sr does not decode");
    sas.signed_text = bytes_text(to_sign);
    sas.resource = resource;
    enum err e = signature_take(arena, p.sig, &sas, fault);
    if (!e)
        *ret_sas = sas;
    return e;
}

static bool resource_is(const char *resource, const char *scope, const char *registration_id)
{
    size_t len = strlen(scope);
    return strncasecmp(resource, scope, len) == 0 &&
           strncmp(resource + len, MIDDLE, strlen(MIDDLE)) == 0 &&
           strcasecmp(resource + len + strlen(MIDDLE), registration_id) == 0;
}

enum err sas_check(const struct sas *sas, const char *scope, const char *registration_id,
                   int64_t now_s, struct fault *fault)
{
    if (!resource_is(sas->resource, scope, registration_id))
        return fault_set(fault, FAULT_SAS_RESOURCE, "sr is \"%.160s\"", sas->resource);
    if (sas->ends_s + SKEW_S < now_s)
        return fault_set(fault, FAULT_SAS_EXPIRED,
                         "se is %lld, the server's time is %lld: compare the device's clock",
                         (long long)sas->ends_s, (long long)now_s);
    if (sas->ends_s > now_s + FARTHEST_S)
        return fault_set(fault, FAULT_SAS_EXPIRED,
                         "se is %lld, more than 366 days ahead of the server's time, %lld",
                         (long long)sas->ends_s, (long long)now_s);
    return ERR_OK;
}
