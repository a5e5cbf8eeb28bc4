#include "call.h"

#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"

enum {
    MAX_REQUEST_BYTES = 64 * 1024,
    READ_BYTES = 16 * 1024,
    MAX_HEADER_BYTES = 16 * 1024,
    SPARE_FILES = 256
};

static void release(struct call *c)
{
    loop_untimer(c->target->loop, &c->timer);
    loop_unwatch(c->target->loop, &c->watch);
    SSL_free(c->ssl);
    c->ssl = NULL;
    if (c->watch.fd >= 0)
        close(c->watch.fd);
    c->watch.fd = -1;
    buf_done(&c->request);
}

/* Keeps the connection for what done will do with it. */
static void rest(struct call *c)
{
    loop_untimer(c->target->loop, &c->timer);
    loop_unwatch(c->target->loop, &c->watch);
    buf_done(&c->request);
}

static void end(struct call *c)
{
    struct buf received = c->received;
    c->ended_us = clock_mono_us();
    if (c->keep && c->stage == CALL_DONE)
        rest(c);
    else
        release(c);
    if (c->stage == CALL_DONE)
        c->answer = bytes_of(received.data + c->header_len, received.len - c->header_len);
    c->received = (struct buf){0};
    c->done(c);
    buf_done(&received);
}

void call_abandon(struct call *c)
{
    release(c);
    buf_done(&c->received);
}

static void timed_out(struct timer *t)
{
    end((struct call *)((char *)t - offsetof(struct call, timer)));
}

static void request_write(struct call *c)
{
    struct buf *b = &c->request;
    buf_init(b, MAX_REQUEST_BYTES);
    buf_printf(b, "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: %s\r\n", c->method, c->path,
               c->target->host, c->keep ? "keep-alive" : "close");
    if (c->authorization)
        buf_printf(b, "Authorization: %s\r\n", c->authorization);
    if (c->type)
        buf_printf(b, "Content-Type: %s\r\nContent-Length: %zu\r\n", c->type, c->body.len);
    buf_add_text(b, "\r\n");
    buf_add(b, c->body.data, c->body.len);
}

/* A number behind the name of a header; -1: it is not there. */
static int64_t header_number(const char *head, const char *name)
{
    size_t len = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, len) == 0 && line[len] == ':')
            return strtoll(line + len + 1, NULL, 10);
    }
    return -1;
}

/* Once the headers are there: status, length, Retry-After. False: that is no HTTP. */
static bool head_parse(struct call *c)
{
    char head[MAX_HEADER_BYTES + 1];
    const uint8_t *stop = memmem(c->received.data, c->received.len, "\r\n\r\n", 4);
    if (!stop)
        return c->received.len < MAX_HEADER_BYTES;
    size_t len = (size_t)(stop - c->received.data) + 4;
    if (len > MAX_HEADER_BYTES)
        return false;
    memcpy(head, c->received.data, len);
    head[len] = '\0';
    int64_t length = header_number(head, "Content-Length");
    int64_t retry = header_number(head, "Retry-After");
    if (sscanf(head, "HTTP/1.1 %3d", &c->status) != 1)
        return false;
    c->header_len = len;
    c->content_len = length > 0 ? (size_t)length : 0;
    c->retry_after_s = retry > 0 ? (int)retry : 0;
    return true;
}

static void answer_read(struct call *c)
{
    uint8_t data[READ_BYTES];
    int n;
    while ((n = dial_read(c->target, &c->watch, c->ssl, data, sizeof(data))) > 0) {
        buf_add(&c->received, data, (size_t)n);
        if (c->received.overflow || (c->header_len == 0 && !head_parse(c))) {
            end(c);
            return;
        }
        if (c->header_len > 0 && c->received.len >= c->header_len + c->content_len) {
            c->stage = CALL_DONE;
            end(c);
            return;
        }
    }
    if (n < 0)
        end(c);
}

static void request_send(struct call *c)
{
    while (c->sent < c->request.len) {
        int n = dial_write(c->target, &c->watch, c->ssl, c->request.data + c->sent,
                           c->request.len - c->sent);
        if (n < 0)
            end(c);
        if (n <= 0)
            return;
        c->sent += (size_t)n;
    }
    c->stage = CALL_READ;
    answer_read(c);
}

/* Leaves the connection open, and nobody listens. */
static void leave(struct call *c)
{
    loop_untimer(c->target->loop, &c->timer);
    loop_unwatch(c->target->loop, &c->watch);
    c->done(c);
}

static void handshake(struct call *c)
{
    int n = SSL_do_handshake(c->ssl);
    if (n == 1) {
        c->handshaken_us = clock_mono_us();
        c->stage = CALL_SEND;
        if (c->hold)
            leave(c);
        else
            request_send(c);
        return;
    }
    if (!dial_wait(c->target, &c->watch, c->ssl, n))
        end(c);
}

static void connected(struct call *c)
{
    if (!dial_connected(c->watch.fd)) {
        end(c);
        return;
    }
    c->stage = c->ssl ? CALL_HANDSHAKE : CALL_SEND;
    if (c->ssl)
        handshake(c);
    else
        request_send(c);
}

static void ready(struct watch *w, uint32_t events)
{
    struct call *c = (struct call *)((char *)w - offsetof(struct call, watch));
    (void)events;
    switch (c->stage) {
    case CALL_CONNECT:
        connected(c);
        break;
    case CALL_HANDSHAKE:
        handshake(c);
        break;
    case CALL_SEND:
        request_send(c);
        break;
    case CALL_READ:
        answer_read(c);
        break;
    case CALL_DONE:
        break;
    }
}

/* Forgets the answer before, and writes the request. */
static enum err begin(struct call *c)
{
    c->status = c->retry_after_s = 0;
    c->sent = c->header_len = c->content_len = 0;
    c->began_us = clock_mono_us();
    c->ended_us = 0;
    c->answer = bytes_of(NULL, 0);
    buf_init(&c->received, CALL_MAX_ANSWER_BYTES);
    request_write(c);
    return c->request.overflow ? ERR_INVALID : ERR_OK;
}

static enum err await(struct call *c)
{
    enum err e = loop_watch(c->target->loop, &c->watch);
    return e ? e : loop_timer(c->target->loop, &c->timer, c->began_us + CALL_TIMEOUT_US);
}

enum err call_start(struct call *c)
{
    c->stage = CALL_CONNECT;
    c->handshaken_us = 0;
    c->ssl = NULL;
    c->timer = (struct timer){.due = timed_out};
    c->watch = (struct watch){.fd = -1, .events = EPOLLOUT, .ready = ready};
    enum err e = begin(c);
    if (!e)
        e = dial_open(c->target, c->certificate, c->key, &c->watch.fd, &c->ssl);
    if (!e)
        e = await(c);
    if (e)
        call_abandon(c);
    return e;
}

enum err call_again(struct call *c)
{
    c->stage = CALL_SEND;
    c->watch.events = EPOLLOUT;
    enum err e = begin(c);
    if (!e)
        e = await(c);
    if (e)
        call_abandon(c);
    return e;
}

void call_allow(size_t sockets)
{
    struct rlimit limit;
    rlim_t want = (rlim_t)sockets + SPARE_FILES;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= want)
        return;
    limit.rlim_cur = want < limit.rlim_max ? want : limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < want)
        fprintf(stderr, "swarm: only %llu files may be open; some calls may find no socket\n",
                (unsigned long long)limit.rlim_cur);
}
