#include "cli/client.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"

enum { MAX_ANSWER_BYTES = 256 << 20, MAX_URL_BYTES = 8192, MAX_HEADER_BYTES = 512 };

struct client {
    CURL *curl;
    struct client_settings settings;
    char authorization[MAX_HEADER_BYTES];
};

/* What one transfer collects. */
struct transfer {
    struct buf body;
    char *next;
    size_t next_len;
};

DEFINE_CLEANUP(struct curl_slist *, curl_slist_free_all);

int client_new(const struct client_settings *settings, struct client **ret_client)
{
    if (!settings->url || strncmp(settings->url, "https://", 8) != 0) {
        fprintf(
            stderr,
            "muster: set MUSTER_ADMIN_URL or --url to https://HOST:PORT of the admin listener\n");
        return EXIT_USAGE;
    }
    if (!settings->token || strlen(settings->token) > MAX_HEADER_BYTES / 2) {
        fprintf(stderr, "muster: put the admin token into MUSTER_ADMIN_TOKEN, or name its file "
                        "with --token-file\n");
        return EXIT_USAGE;
    }
    struct client *c = calloc(1, sizeof(*c));
    if (!c || curl_global_init(CURL_GLOBAL_DEFAULT) != 0 || !(c->curl = curl_easy_init())) {
        free(c);
        fprintf(stderr, "muster: out of memory\n");
        return EXIT_UNREACHABLE;
    }
    c->settings = *settings;
    snprintf(c->authorization, sizeof(c->authorization), "Authorization: Bearer %s",
             settings->token);
    *ret_client = c;
    return EXIT_OK;
}

int client_again(const struct client *c, struct client **ret_client)
{
    return client_new(&c->settings, ret_client);
}

void client_free(struct client *c)
{
    if (!c)
        return;
    curl_easy_cleanup(c->curl);
    curl_global_cleanup();
    free(c);
}

static size_t body_take(char *data, size_t size, size_t count, void *arg)
{
    struct transfer *t = arg;
    buf_add(&t->body, data, size * count);
    return t->body.overflow ? 0 : size * count;
}

/* Link: <PATH>; rel="next" */
static size_t header_take(char *data, size_t size, size_t count, void *arg)
{
    struct transfer *t = arg;
    size_t len = size * count;
    if (len < 8 || strncasecmp(data, "Link: <", 7) != 0)
        return len;
    const char *end = memchr(data, '>', len);
    if (!end || !memmem(end, len - (size_t)(end - data), "rel=\"next\"", 10))
        return len;
    size_t path = (size_t)(end - data) - 7;
    if (path < t->next_len)
        snprintf(t->next, t->next_len, "%.*s", (int)path, data + 7);
    return len;
}

static const char *member(const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));
    return text ? text : "";
}

static int problem_tell(long status, const json_t *problem)
{
    if (!json_is_object(problem) || !json_object_get(problem, "code")) {
        fprintf(stderr, "muster: the server answered %ld with something that is no problem+json\n",
                status);
        return EXIT_REFUSED;
    }
    const char *detail = member(problem, "detail");
    fprintf(stderr, "muster: %s: %s%s%s (request %s)\n", member(problem, "code"),
            member(problem, "title"), detail[0] ? ": " : "", detail, member(problem, "request_id"));
    return status == 503 || status == 502 || status == 504 ? EXIT_UNREACHABLE : EXIT_REFUSED;
}

static CURLcode transfer_run(struct client *c, const struct client_request *rq, struct transfer *t)
{
    char url[MAX_URL_BYTES], type[MAX_HEADER_BYTES], match[MAX_HEADER_BYTES];
    CURL *h = c->curl;
    curl_easy_reset(h);
    snprintf(url, sizeof(url), "%s%s", c->settings.url, rq->path);
    snprintf(type, sizeof(type), "Content-Type: %s", rq->type ? rq->type : "application/json");
    _cleanup_(curl_slist_free_allp) struct curl_slist *headers =
        curl_slist_append(NULL, c->authorization);
    headers = curl_slist_append(headers, type);
    headers = curl_slist_append(headers, "Expect:");
    if (rq->etag) {
        snprintf(match, sizeof(match), "If-Match: \"%s\"", rq->etag);
        headers = curl_slist_append(headers, match);
    }
    curl_easy_setopt(h, CURLOPT_URL, url);
    curl_easy_setopt(h, CURLOPT_CUSTOMREQUEST, rq->method);
    curl_easy_setopt(h, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "https");
    curl_easy_setopt(h, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(h, CURLOPT_TIMEOUT, c->settings.timeout_s);
    curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, body_take);
    curl_easy_setopt(h, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(h, CURLOPT_HEADERFUNCTION, header_take);
    curl_easy_setopt(h, CURLOPT_HEADERDATA, t);
    if (c->settings.cafile) {
        /* the only anchors: Debian's curl would go on to trust the system's folder too */
        curl_easy_setopt(h, CURLOPT_CAINFO, c->settings.cafile);
        curl_easy_setopt(h, CURLOPT_CAPATH, NULL);
    }
    if (strcmp(rq->method, "GET") != 0 && strcmp(rq->method, "DELETE") != 0) {
        curl_easy_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)rq->body_len);
        curl_easy_setopt(h, CURLOPT_POSTFIELDS, rq->body ? rq->body : "");
    }
    return curl_easy_perform(h);
}

int client_call(struct client *c, const struct client_request *rq, struct client_answer *ret_answer)
{
    struct client_answer answer = {.json = NULL};
    struct transfer t = {.next = answer.next, .next_len = sizeof(answer.next)};
    long status = 0;
    buf_init(&t.body, MAX_ANSWER_BYTES);
    CURLcode rc = transfer_run(c, rq, &t);
    if (rc == CURLE_OK)
        curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
    if (t.body.len > 0)
        answer.json = json_loadb((const char *)t.body.data, t.body.len, 0, NULL);
    bool broken = t.body.len > 0 && !answer.json;
    buf_done(&t.body);
    if (rc != CURLE_OK) {
        fprintf(stderr, "muster: %s: %s\n", c->settings.url, curl_easy_strerror(rc));
        json_decref(answer.json);
        return EXIT_UNREACHABLE;
    }
    if (status >= 300 || broken) {
        int code = problem_tell(status, answer.json);
        json_decref(answer.json);
        return code;
    }
    *ret_answer = answer;
    return EXIT_OK;
}
