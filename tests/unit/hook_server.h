/*
 * A small web server on loopback, for the tests of hooks: answers by path, keeps the last request,
 * and can hold requests back until it is told. Whoever started it stops it. Threads: any.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum { HOOK_SERVER_MAX_REQUEST = 64 * 1024 };

struct hook_route {
    const char *path;
    const char *status; /* "200 OK"; NULL: closes without a word */
    const char *body;
    const char *header;   /* "Name: value\r\n"; NULL: none */
    int delay_ms;         /* before the answer */
    bool held;            /* until hook_server_release */
    size_t padding_bytes; /* blanks behind the body */
};

struct hook_server;

/* tls: speaks TLS with a certificate made for 127.0.0.1, written to ca_path. */
struct hook_server *hook_server_start(const struct hook_route *routes, size_t count, bool tls,
                                      const char *ca_path);
void hook_server_stop(struct hook_server *s);

unsigned hook_server_port(const struct hook_server *s);

/* Lets go all requests that are held, and those that come. */
void hook_server_release(struct hook_server *s);

struct hook_server_seen {
    unsigned connections;
    unsigned requests; /* read whole */
    char last[HOOK_SERVER_MAX_REQUEST];
};

void hook_server_look(struct hook_server *s, struct hook_server_seen *ret_seen);
