/* The Muster section: what the grammar of AWS leaves out. */
#include <string.h>

#include "base/text.h"
#include "enroll/template_internal.h"

enum {
    MINUTE_S = 60,
    HOUR_S = 3600,
    DAY_S = 86400,
    YEAR_S = 365 * DAY_S,
    MAX_ALERTS = 8,
    MAX_YEARS = 60, /* keeps seconds in 31 bits */
    MAX_URL_BYTES = 512,
    MAX_FAILURES = 100,
    MAX_ISSUER_CHARS = 64,
    MAX_RATE_PER_SECOND = 100000,
    MAX_RATE_BURST = 1000000,
    HOOK_TIMEOUT_S = 5, /* AWS: always */
    MAX_HOOK_TIMEOUT_S = 10,
};

/* A word of a fixed list and what it stands for. */
struct word {
    const char *text;
    int value;
};

static enum err word_parse(struct check *c, json_t *node, const struct path *p,
                           const struct word *words, size_t count, int *ret_value)
{
    const char *text = json_string_value(node);
    for (size_t i = 0; text && i < count; i++) {
        if (strcmp(words[i].text, text) == 0) {
            *ret_value = words[i].value;
            return ERR_OK;
        }
    }
    return check_fail(c, p, "must be one of the words docs/templates.md lists, such as \"%s\"",
                      words[0].text);
}

/* An array of words as bits. */
static enum err words_parse(struct check *c, json_t *node, const struct path *p,
                            const struct word *words, size_t count, unsigned *ret_bits)
{
    size_t i;
    json_t *item;
    unsigned bits = 0;
    if (!json_is_array(node) || json_array_size(node) == 0)
        return check_fail(c, p, "must be an array that is not empty");
    json_array_foreach(node, i, item)
    {
        struct path at = {p, NULL, i};
        int bit = 0;
        enum err e = word_parse(c, item, &at, words, count, &bit);
        if (e)
            return e;
        bits |= (unsigned)bit;
    }
    *ret_bits = bits;
    return ERR_OK;
}

/* The members that are durations, and where they go. */
static const struct duration {
    const char *name;
    int64_t min_s;
    int64_t max_s;
    size_t offset;
} durations[] = {
    {"Validity", HOUR_S, (int64_t)MAX_YEARS *YEAR_S, offsetof(struct template, profile.validity_s)},
    {"Jitter", 0, (int64_t)MAX_YEARS *YEAR_S, offsetof(struct template, profile.jitter_s)},
    {"Backdate", 0, 30 * (int64_t)DAY_S, offsetof(struct template, profile.backdate_s)},
    {"RenewBefore", 0, (int64_t)MAX_YEARS *YEAR_S,
     offsetof(struct template, settings.renew_before_s)},
    {"VerifyWithin", MINUTE_S, 3650 * (int64_t)DAY_S,
     offsetof(struct template, settings.verify_within_s)},
    {"Grace", 0, 365 * (int64_t)DAY_S, offsetof(struct template, settings.grace_s)},
    {"ExpiredEnrolment", 0, 3650 * (int64_t)DAY_S,
     offsetof(struct template, settings.expired_enrolment_s)},
    {"ExpiredRenewal", 0, 3650 * (int64_t)DAY_S,
     offsetof(struct template, settings.expired_renewal_s)},
    {"Replay", 0, 30 * (int64_t)DAY_S, offsetof(struct template, settings.replay_s)},
    {"ApprovalPoll", 1, DAY_S, offsetof(struct template, settings.approval_poll_s)},
};

static enum err duration_parse(struct check *c, json_t *node, const struct path *p,
                               const struct duration *d)
{
    int64_t seconds = 0;
    const char *text = json_string_value(node);
    if (!text || text_parse_duration(text, d->max_s, &seconds) || seconds < d->min_s)
        return check_fail(c, p, "must be a duration such as \"90d\", from %lld s to %lld days",
                          (long long)d->min_s, (long long)(d->max_s / DAY_S));
    memcpy((char *)c->t + d->offset, &seconds, sizeof(seconds));
    return ERR_OK;
}

static enum err check_durations(struct check *c, json_t *node, const struct path *p)
{
    for (size_t i = 0; i < ARRAY_LEN(durations); i++) {
        struct path at = {p, durations[i].name, 0};
        json_t *value = json_object_get(node, durations[i].name);
        if (value && duration_parse(c, value, &at, &durations[i]))
            return ERR_INVALID;
    }
    return ERR_OK;
}

static enum err check_credentials(struct check *c, json_t *node, const struct path *p)
{
    static const struct word words[] = {{"token", CREDENTIAL_SET_TOKEN},
                                        {"factory", CREDENTIAL_SET_FACTORY},
                                        {"claim", CREDENTIAL_SET_CLAIM}};
    return words_parse(c, node, p, words, ARRAY_LEN(words), &c->t->settings.credentials);
}

static enum err check_keys(struct check *c, json_t *node, const struct path *p)
{
    static const struct word words[] = {{"P-256", KEY_P256},       {"P-384", KEY_P384},
                                        {"RSA-2048", KEY_RSA2048}, {"RSA-3072", KEY_RSA3072},
                                        {"RSA-4096", KEY_RSA4096}, {"Ed25519", KEY_ED25519}};
    return words_parse(c, node, p, words, ARRAY_LEN(words), &c->t->settings.keys);
}

static enum err check_eku(struct check *c, json_t *node, const struct path *p)
{
    static const struct word words[] = {
        {"clientAuth", EKU_CLIENT_AUTH}, {"serverAuth", EKU_SERVER_AUTH}, {"cmcRA", EKU_CMC_RA}};
    return words_parse(c, node, p, words, ARRAY_LEN(words), &c->t->profile.eku);
}

static enum err check_serial(struct check *c, json_t *node, const struct path *p)
{
    static const struct word words[] = {{"Subject.CN", SERIAL_FROM_CN},
                                        {"Subject.serialNumber", SERIAL_FROM_SERIAL_NUMBER},
                                        {"SAN.URI", SERIAL_FROM_URN}};
    int value = 0;
    enum err e = word_parse(c, node, p, words, ARRAY_LEN(words), &value);
    if (!e)
        c->t->settings.serial = (enum serial_source)value;
    return e;
}

static enum err check_allowlist(struct check *c, json_t *node, const struct path *p)
{
    static const struct word words[] = {{"required", 1}, {"optional", 0}};
    int value = 0;
    enum err e = word_parse(c, node, p, words, ARRAY_LEN(words), &value);
    if (!e)
        c->t->settings.allowlist_required = value;
    c->t->settings.allowlist_said = !e;
    return e;
}

static enum err check_reprovision(struct check *c, json_t *node, const struct path *p)
{
    static const struct word words[] = {{"refuse", REPROVISION_REFUSE},
                                        {"replace", REPROVISION_REPLACE}};
    int value = 0;
    enum err e = word_parse(c, node, p, words, ARRAY_LEN(words), &value);
    if (!e)
        c->t->settings.reprovision = (enum reprovision)value;
    return e;
}

static enum err check_pop(struct check *c, json_t *node, const struct path *p)
{
    static const struct word words[] = {{"optional", 0}, {"linked", 1}};
    int value = 0;
    enum err e = word_parse(c, node, p, words, ARRAY_LEN(words), &value);
    if (!e)
        c->t->settings.pop_required = value;
    return e;
}

static enum err check_approval(struct check *c, json_t *node, const struct path *p)
{
    static const struct word words[] = {{"manual", 1}, {"none", 0}};
    int value = 0;
    enum err e = word_parse(c, node, p, words, ARRAY_LEN(words), &value);
    if (!e)
        c->t->settings.approval_required = value;
    return e;
}

static enum err check_keygen(struct check *c, json_t *node, const struct path *p)
{
    static const struct word words[] = {{"allow", 1}, {"refuse", 0}};
    int value = 0;
    enum err e = word_parse(c, node, p, words, ARRAY_LEN(words), &value);
    if (!e)
        c->t->settings.server_keygen = value;
    return e;
}

static enum err check_verify(struct check *c, json_t *node, const struct path *p)
{
    static const struct word words[] = {{"call", VERIFY_CALL},
                                        {"broker", VERIFY_BROKER},
                                        {"external", VERIFY_EXTERNAL},
                                        {"none", VERIFY_NONE}};
    int value = 0;
    enum err e = word_parse(c, node, p, words, ARRAY_LEN(words), &value);
    if (!e)
        c->t->settings.verify = (enum verify_mode)value;
    return e;
}

static enum err check_issuer(struct check *c, json_t *node, const struct path *p)
{
    if (!json_is_string(node) || json_string_length(node) == 0 ||
        json_string_length(node) > MAX_ISSUER_CHARS)
        return check_fail(c, p, "must be the name of an issuing CA");
    c->t->settings.issuer = json_string_value(node);
    return ERR_OK;
}

static enum err check_serial_parameter(struct check *c, json_t *node, const struct path *p)
{
    const char *name = json_string_value(node);
    if (!name || name[0] == '\0' || strlen(name) > TEMPLATE_MAX_KEY_BYTES || strchr(name, ':'))
        return check_fail(c, p, "must be the name of a parameter that devices give");
    c->t->settings.serial_parameter = name;
    return ERR_OK;
}

static enum err check_quarantine(struct check *c, json_t *node, const struct path *p)
{
    static const char *const members[] = {"Failures", NULL};
    struct path at = {p, "Failures", 0};
    enum err e = check_members(c, node, p, members);
    json_t *failures = json_object_get(node, "Failures");
    if (e)
        return e;
    if (!json_is_integer(failures) || json_integer_value(failures) < 1 ||
        json_integer_value(failures) > MAX_FAILURES)
        return check_fail(c, &at, "must be a number from 1 to %d", MAX_FAILURES);
    c->t->settings.quarantine_failures = (unsigned)json_integer_value(failures);
    return ERR_OK;
}

static enum err count_parse(struct check *c, json_t *node, const struct path *p, unsigned max,
                            unsigned *ret_count)
{
    if (!json_is_integer(node) || json_integer_value(node) < 1 || json_integer_value(node) > max)
        return check_fail(c, p, "must be a number from 1 to %u", max);
    *ret_count = (unsigned)json_integer_value(node);
    return ERR_OK;
}

static enum err check_rate(struct check *c, json_t *node, const struct path *p)
{
    static const char *const members[] = {"PerSecond", "Burst", NULL};
    struct path rate = {p, "PerSecond", 0}, burst = {p, "Burst", 0};
    struct template_settings *s = &c->t->settings;
    json_t *most = json_object_get(node, "Burst");
    enum err e = check_members(c, node, p, members);
    if (!e)
        e = count_parse(c, json_object_get(node, "PerSecond"), &rate, MAX_RATE_PER_SECOND,
                        &s->rate_per_second);
    if (!e && most)
        e = count_parse(c, most, &burst, MAX_RATE_BURST, &s->rate_burst);
    return e;
}

/* An address in a certificate: the characters of RFC 3986 but for the comma, at which OpenSSL's
 * extension text would be cut. */
static bool url_valid(json_t *node)
{
    const char *url = json_string_value(node);
    if (!url || json_string_length(node) > MAX_URL_BYTES)
        return false;
    if (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0)
        return false;
    const char *host = strstr(url, "//") + 2;
    if (*host == '\0' || *host == '/' || *host == ':')
        return false;
    return url[strspn(url, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~:/"
                           "?#[]@!$&'()*+=%")] == '\0';
}

static enum err url_parse(struct check *c, json_t *node, const struct path *p, const char **ret_url)
{
    if (!url_valid(node))
        return check_fail(
            c, p,
            "must be an http or https URL of at most %d characters, without comma or semicolon",
            MAX_URL_BYTES);
    *ret_url = json_string_value(node);
    return ERR_OK;
}

static enum err check_crl_urls(struct check *c, json_t *node, const struct path *p)
{
    size_t i;
    json_t *item;
    struct cert_profile *profile = &c->t->profile;
    if (!json_is_array(node) || json_array_size(node) > PROFILE_MAX_URLS)
        return check_fail(c, p, "must be an array of at most %d URLs", PROFILE_MAX_URLS);
    json_array_foreach(node, i, item)
    {
        struct path at = {p, NULL, i};
        enum err e = url_parse(c, item, &at, &profile->crl_urls[profile->crl_url_count]);
        if (e)
            return e;
        profile->crl_url_count++;
    }
    return ERR_OK;
}

/* Read by the registry, where certificates end (schema/0021). */
static enum err check_crl_superseded(struct check *c, json_t *node, const struct path *p)
{
    return json_is_boolean(node) ? ERR_OK : check_fail(c, p, "must be true or false");
}

/* Likewise (schema/0022). */
static enum err check_expiry_alerts(struct check *c, json_t *node, const struct path *p)
{
    size_t i;
    json_t *item;
    int64_t before = INT64_MAX, seconds = 0;
    if (!json_is_array(node) || json_array_size(node) > MAX_ALERTS)
        return check_fail(c, p, "must be an array of at most %d durations", MAX_ALERTS);
    json_array_foreach(node, i, item)
    {
        struct path at = {p, NULL, i};
        const char *text = json_string_value(item);
        if (!text || text_parse_duration(text, MAX_YEARS * (int64_t)YEAR_S, &seconds) ||
            seconds < HOUR_S || seconds >= before)
            return check_fail(c, &at,
                              "must be a duration such as \"30d\", from 1 h to %d years, and "
                              "shorter than the one before",
                              MAX_YEARS);
        before = seconds;
    }
    return ERR_OK;
}

static enum err check_ocsp(struct check *c, json_t *node, const struct path *p)
{
    return url_parse(c, node, p, &c->t->profile.ocsp_url);
}

static enum err check_ca_issuers(struct check *c, json_t *node, const struct path *p)
{
    return url_parse(c, node, p, &c->t->profile.ca_issuers_url);
}

static enum err hook_timeout_parse(struct check *c, json_t *node, const struct path *p)
{
    int64_t seconds = HOOK_TIMEOUT_S;
    const char *text = json_string_value(node);
    if (node && (!text || text_parse_duration(text, MAX_HOOK_TIMEOUT_S, &seconds) || seconds < 1))
        return check_fail(c, p, "must be a duration from 1 s to %d s", MAX_HOOK_TIMEOUT_S);
    c->t->settings.hook_timeout_ms = (unsigned)seconds * 1000;
    return ERR_OK;
}

/* A name and password in the URL would be read by everybody who may read a template. */
static bool url_has_user(const char *url)
{
    const char *host = strstr(url, "//") + 2;
    return memchr(host, '@', strcspn(host, "/?#")) != NULL;
}

static enum err check_hook(struct check *c, json_t *node, const struct path *p)
{
    static const char *const members[] = {"Url", "Timeout", NULL};
    struct path url = {p, "Url", 0}, timeout = {p, "Timeout", 0};
    const char *text = NULL;
    enum err e = check_members(c, node, p, members);
    if (!e)
        e = url_parse(c, json_object_get(node, "Url"), &url, &text);
    if (!e && url_has_user(text))
        e = check_fail(c, &url, "must have no user name or password");
    if (!e)
        e = hook_timeout_parse(c, json_object_get(node, "Timeout"), &timeout);
    if (!e)
        c->t->settings.hook_url = text;
    return e;
}

static const char *const rdn_types[] = {"CN",           "O",           "OU", "C", "ST", "L",
                                        "serialNumber", "dnQualifier", NULL};

static enum err check_rdns(struct check *c, json_t *node, const struct path *p)
{
    const char *key;
    json_t *value;
    enum err e = check_members(c, node, p, rdn_types);
    if (e)
        return e;
    json_object_foreach(node, key, value)
    {
        struct path at = {p, key, 0};
        e = check_text(c, value, &at);
        if (e)
            return e;
    }
    return ERR_OK;
}

/* Whether an earlier element of the array has the attribute type of element i. */
static bool rdn_repeated(json_t *array, size_t i)
{
    const char *type = json_object_iter_key(json_object_iter(json_array_get(array, i)));
    for (size_t k = 0; k < i; k++) {
        if (json_object_get(json_array_get(array, k), type))
            return true;
    }
    return false;
}

/* An array of objects with one member each, for who wants to be sure of the order. */
static enum err check_rdn_array(struct check *c, json_t *node, const struct path *p)
{
    size_t i;
    json_t *item;
    json_array_foreach(node, i, item)
    {
        struct path at = {p, NULL, i};
        enum err e = check_rdns(c, item, &at);
        if (!e && json_object_size(item) != 1)
            e = check_fail(c, &at, "must have one member");
        if (!e && rdn_repeated(node, i))
            e = check_fail(c, &at, "this attribute stands here already");
        if (e)
            return e;
    }
    return ERR_OK;
}

static enum err check_subject(struct check *c, json_t *node, const struct path *p)
{
    size_t count = json_is_array(node) ? json_array_size(node) : json_object_size(node);
    enum err e = json_is_array(node) ? check_rdn_array(c, node, p) : check_rdns(c, node, p);
    if (!e && count > PROFILE_MAX_RDN)
        e = check_fail(c, p, "must have at most %d attributes", PROFILE_MAX_RDN);
    if (!e)
        c->t->subject = node;
    return e;
}

static enum err check_san_item(struct check *c, json_t *node, const struct path *p)
{
    static const char *const members[] = {"DNS", "URI", "Email", "IP", NULL};
    enum err e = check_members(c, node, p, members);
    if (!e && json_object_size(node) != 1)
        e = check_fail(c, p, "must have one member: DNS, URI, Email or IP");
    if (e)
        return e;
    void *it = json_object_iter(node);
    struct path at = {p, json_object_iter_key(it), 0};
    return check_text(c, json_object_iter_value(it), &at);
}

static enum err check_names(struct check *c, json_t *node, const struct path *p)
{
    size_t i;
    json_t *item;
    if (!json_is_array(node) || json_array_size(node) > PROFILE_MAX_SAN)
        return check_fail(c, p, "must be an array of at most %d names", PROFILE_MAX_SAN);
    json_array_foreach(node, i, item)
    {
        struct path at = {p, NULL, i};
        enum err e = check_san_item(c, item, &at);
        if (e)
            return e;
    }
    c->t->names = node;
    return ERR_OK;
}

static const struct {
    const char *name;
    enum err (*check)(struct check *c, json_t *node, const struct path *p);
} keys[] = {
    {"Credentials", check_credentials},
    {"Serial", check_serial},
    {"SerialParameter", check_serial_parameter},
    {"Subject", check_subject},
    {"SubjectAltNames", check_names},
    {"Keys", check_keys},
    {"ExtendedKeyUsage", check_eku},
    {"CrlUrls", check_crl_urls},
    {"CrlSuperseded", check_crl_superseded},
    {"ExpiryAlerts", check_expiry_alerts},
    {"OcspUrl", check_ocsp},
    {"CaIssuersUrl", check_ca_issuers},
    {"Issuer", check_issuer},
    {"Allowlist", check_allowlist},
    {"Reprovision", check_reprovision},
    {"Verify", check_verify},
    {"ProofOfPossession", check_pop},
    {"Approval", check_approval},
    {"ServerKeygen", check_keygen},
    {"Quarantine", check_quarantine},
    {"Rate", check_rate},
    {"PreProvisioningHook", check_hook},
};

static void defaults_set(struct template *t)
{
    t->settings = (struct template_settings){
        .credentials = CREDENTIAL_SET_TOKEN | CREDENTIAL_SET_FACTORY,
        .serial = SERIAL_FROM_CN,
        .serial_parameter = "SerialNumber",
        .keys = KEY_P256 | KEY_P384,
        .allowlist_required = true,
        .reprovision = REPROVISION_REFUSE,
        .verify = VERIFY_CALL,
        .verify_within_s = DAY_S,
        .renew_before_s = -1,
        .grace_s = HOUR_S,
        .replay_s = HOUR_S,
        .approval_poll_s = 30,
        .server_keygen = true,
        .quarantine_failures = 5,
    };
    t->profile = (struct cert_profile){
        .validity_s = YEAR_S, .backdate_s = 5 * MINUTE_S, .eku = EKU_CLIENT_AUTH};
}

/* What two keys must not say together. */
static enum err check_together(struct check *c, const struct path *p)
{
    struct template *t = c->t;
    struct path jitter = {p, "Jitter", 0}, renew = {p, "RenewBefore", 0};
    int64_t shortest_s = t->profile.validity_s - t->profile.jitter_s;
    if (t->profile.jitter_s * 2 > t->profile.validity_s)
        return check_fail(c, &jitter, "must be at most half of Validity");
    if (t->settings.renew_before_s < 0)
        t->settings.renew_before_s = shortest_s / 3;
    if (t->settings.renew_before_s >= shortest_s)
        return check_fail(c, &renew, "must be less than Validity without Jitter");
    return ERR_OK;
}

enum err check_muster(struct check *c, json_t *node, const struct path *p)
{
    const char *names[ARRAY_LEN(keys) + ARRAY_LEN(durations) + 1] = {0};
    defaults_set(c->t);
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        names[i] = keys[i].name;
    for (size_t i = 0; i < ARRAY_LEN(durations); i++)
        names[ARRAY_LEN(keys) + i] = durations[i].name;
    enum err e = node ? check_members(c, node, p, names) : ERR_OK;
    for (size_t i = 0; i < ARRAY_LEN(keys) && !e; i++) {
        struct path at = {p, keys[i].name, 0};
        json_t *value = json_object_get(node, keys[i].name);
        if (value)
            e = keys[i].check(c, value, &at);
    }
    if (!e)
        e = check_durations(c, node, p);
    return e ? e : check_together(c, p);
}
