/* One call of a hook, by libcurl. */
#include <curl/curl.h>

#include "enroll/hook_internal.h"

struct hook_caller {
    CURL *curl;
};

DEFINE_CLEANUP(struct curl_slist *, curl_slist_free_all);

enum err hook_http_begin(void)
{
    return curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? ERR_OK : ERR_SYSTEM;
}

void hook_http_end(void)
{
    curl_global_cleanup();
}

void hook_reply_init(struct hook_reply *r)
{
    *r = (struct hook_reply){0};
    buf_init(&r->body, HOOK_MAX_ANSWER_BYTES);
}

void hook_reply_done(struct hook_reply *r)
{
    buf_done(&r->body);
}

static size_t body_take(char *data, size_t size, size_t count, void *arg)
{
    struct buf *body = arg;
    buf_add(body, data, size * count);
    return body->overflow ? CURL_WRITEFUNC_ERROR : size * count;
}

/* CAs of our own are the only ones: without the second line Debian's folder would still count. */
static bool anchors_set(CURL *h, const char *ca)
{
    return !ca || (curl_easy_setopt(h, CURLOPT_CAINFO, ca) == CURLE_OK &&
                   curl_easy_setopt(h, CURLOPT_CAPATH, NULL) == CURLE_OK);
}

/* What is the same for all calls. No proxy of the environment, no redirect: the request goes where
 * the template says or nowhere. */
static bool defaults_set(CURL *h)
{
    return curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
           curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
           curl_easy_setopt(h, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK &&
           curl_easy_setopt(h, CURLOPT_PROXY, "") == CURLE_OK &&
           curl_easy_setopt(h, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) == CURLE_OK &&
           curl_easy_setopt(h, CURLOPT_SSL_VERIFYPEER, 1L) == CURLE_OK &&
           curl_easy_setopt(h, CURLOPT_SSL_VERIFYHOST, 2L) == CURLE_OK &&
           curl_easy_setopt(h, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2) == CURLE_OK &&
           curl_easy_setopt(h, CURLOPT_USERAGENT, "muster/" MUSTER_VERSION) == CURLE_OK &&
           curl_easy_setopt(h, CURLOPT_POST, 1L) == CURLE_OK &&
           curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, body_take) == CURLE_OK;
}

enum err hook_caller_new(const char *ca, struct hook_caller **ret_caller)
{
    struct hook_caller *c = calloc(1, sizeof(*c));
    if (!c)
        return ERR_NO_MEMORY;
    c->curl = curl_easy_init();
    if (!c->curl || !defaults_set(c->curl) || !anchors_set(c->curl, ca)) {
        hook_caller_free(c);
        return ERR_SYSTEM;
    }
    *ret_caller = c;
    return ERR_OK;
}

void hook_caller_free(struct hook_caller *c)
{
    if (!c)
        return;
    curl_easy_cleanup(c->curl);
    free(c);
}

static bool header_add(struct curl_slist **list, const char *name, const char *value)
{
    char line[512];
    int n = snprintf(line, sizeof(line), "%s: %s", name, value);
    if (n < 0 || (size_t)n >= sizeof(line))
        return false;
    struct curl_slist *longer = curl_slist_append(*list, line);
    if (longer)
        *list = longer;
    return longer != NULL;
}

static bool headers_make(const struct hook_call *call, struct curl_slist **list)
{
    return header_add(list, "Content-Type", "application/json") &&
           header_add(list, "Accept", "application/json") && header_add(list, "Expect", "") &&
           header_add(list, "Muster-Request-Id", call->request_id) &&
           header_add(list, "Muster-Signature", call->signature);
}

static bool call_set(CURL *h, const struct hook_call *call, struct curl_slist *headers,
                     struct hook_reply *reply)
{
    return curl_easy_setopt(h, CURLOPT_URL, call->url) == CURLE_OK &&
           curl_easy_setopt(h, CURLOPT_HTTPHEADER, headers) == CURLE_OK &&
           curl_easy_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body.len) ==
               CURLE_OK &&
           curl_easy_setopt(h, CURLOPT_POSTFIELDS, call->body.data) == CURLE_OK &&
           curl_easy_setopt(h, CURLOPT_TIMEOUT_MS, (long)call->timeout_ms) == CURLE_OK &&
           curl_easy_setopt(h, CURLOPT_WRITEDATA, &reply->body) == CURLE_OK;
}

/* libcurl's general words and not those of this call: a device reads them, and they would name
 * hosts and ports of a network that is none of its business. */
static const char *why(CURLcode rc, const struct hook_reply *reply)
{
    if (rc == CURLE_OPERATION_TIMEDOUT)
        return HOOK_LATE;
    if (rc == CURLE_WRITE_ERROR && reply->body.overflow)
        return "the answer is too large";
    return curl_easy_strerror(rc);
}

void hook_call(struct hook_caller *c, const struct hook_call *call, struct hook_reply *reply)
{
    _cleanup_(curl_slist_free_allp) struct curl_slist *headers = NULL;
    CURLcode rc = CURLE_OUT_OF_MEMORY;
    if (headers_make(call, &headers) && call_set(c->curl, call, headers, reply))
        rc = curl_easy_perform(c->curl);
    if (rc == CURLE_OK)
        rc = curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &reply->status);
    if (rc != CURLE_OK)
        reply->why = why(rc, reply);
}
