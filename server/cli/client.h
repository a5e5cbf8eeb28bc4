/*
 * HTTPS to the admin listener: one connection, bounded answers, problems told in one line.
 * Threads: each client is for one.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

enum { EXIT_OK, EXIT_REFUSED, EXIT_USAGE, EXIT_UNREACHABLE };

struct client;

struct client_settings {
    const char *url; /* https://host:port */
    const char *token;
    const char *cafile; /* NULL: the system's */
    long timeout_s;
};

/* One request. type and body may be NULL. */
struct client_request {
    const char *method;
    const char *path; /* with the query, encoded */
    const char *type;
    const char *body;
    size_t body_len;
    const char *etag; /* only if the object still has it; NULL: whatever it has */
};

struct client_answer {
    json_t *json;    /* NULL: no body; the caller frees */
    char next[2048]; /* path of the next page, "": none */
};

/* An exit code; says on standard error what is wrong. */
int client_new(const struct client_settings *settings, struct client **ret_client);
/* Another connection to the same server, for another thread. */
int client_again(const struct client *c, struct client **ret_client);
void client_free(struct client *c);

/* EXIT_OK with an answer; otherwise the refusal or the reason was printed. */
int client_call(struct client *c, const struct client_request *rq,
                struct client_answer *ret_answer);
