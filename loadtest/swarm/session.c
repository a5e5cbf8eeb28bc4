#include "session.h"

#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"

enum { READ_BYTES = 16 * 1024, KEEP_ALIVE_S = 60 };

void session_abandon(struct session *s)
{
    if (!s->ssl)
        return;
    loop_untimer(s->target->loop, &s->timer);
    loop_unwatch(s->target->loop, &s->watch);
    SSL_free(s->ssl);
    s->ssl = NULL;
    close(s->watch.fd);
    s->watch.fd = -1;
    buf_done(&s->out);
    buf_done(&s->in);
    if (s->closed)
        *s->closed = true;
    s->closed = NULL;
}

static void end(struct session *s, enum session_end how)
{
    session_abandon(s);
    s->ended(s, how);
}

static void timed_out(struct timer *t)
{
    end((struct session *)((char *)t - offsetof(struct session, timer)), SESSION_SILENT);
}

static void time_give(struct session *s)
{
    if (loop_timer(s->target->loop, &s->timer, clock_mono_us() + SESSION_TIMEOUT_US))
        abort(); /* the loop cannot go on without memory */
}

/* False: it has ended. */
static bool flush(struct session *s)
{
    while (s->sent < s->out.len) {
        int n = SSL_write(s->ssl, s->out.data + s->sent, (int)(s->out.len - s->sent));
        if (n > 0) {
            s->sent += (size_t)n;
        } else if (dial_wait(s->target, &s->watch, s->ssl, n)) {
            return true;
        } else {
            end(s, SESSION_CLOSED);
            return false;
        }
    }
    buf_reset(&s->out);
    s->sent = 0;
    return true;
}

void session_send(struct session *s)
{
    if (s->out.overflow)
        abort(); /* no packet of ours is so long */
    time_give(s);
}

/* Every packet that is there; false: it has ended. */
static bool packets_take(struct session *s)
{
    bool closed = false;
    size_t at = 0, len = 1;
    s->closed = &closed;
    while (len > 0) {
        struct mqtt_packet p;
        if (mqtt_read(bytes_of(s->in.data + at, s->in.len - at), &p, &len)) {
            end(s, SESSION_BROKEN);
            return false;
        }
        if (len > 0)
            s->came(s, &p);
        if (closed)
            return false;
        at += len;
    }
    s->closed = NULL;
    if (at > 0) {
        memmove(s->in.data, s->in.data + at, s->in.len - at);
        s->in.len -= at;
    }
    return true;
}

static void bytes_read(struct session *s)
{
    uint8_t data[READ_BYTES];
    int n;
    while ((n = SSL_read(s->ssl, data, sizeof(data))) > 0) {
        buf_add(&s->in, data, (size_t)n);
        if (s->in.overflow) {
            end(s, SESSION_BROKEN);
            return;
        }
        if (!packets_take(s))
            return;
    }
    if (!dial_wait(s->target, &s->watch, s->ssl, n))
        end(s, SESSION_CLOSED);
    else if (s->out.len > 0)
        (void)flush(s);
}

static void handshake(struct session *s)
{
    int n = SSL_do_handshake(s->ssl);
    if (n == 1) {
        s->handshaken_us = clock_mono_us();
        s->stage = SESSION_OPEN;
        if (flush(s))
            bytes_read(s);
    } else if (!dial_wait(s->target, &s->watch, s->ssl, n)) {
        end(s, SESSION_CLOSED);
    }
}

static void ready(struct watch *w, uint32_t events)
{
    struct session *s = (struct session *)((char *)w - offsetof(struct session, watch));
    (void)events;
    switch (s->stage) {
    case SESSION_CONNECT:
        if (!dial_connected(w->fd)) {
            end(s, SESSION_CLOSED);
            return;
        }
        s->stage = SESSION_HANDSHAKE;
        handshake(s);
        break;
    case SESSION_HANDSHAKE:
        handshake(s);
        break;
    case SESSION_OPEN:
        if (flush(s))
            bytes_read(s);
        break;
    }
}

enum err session_open(struct session *s)
{
    s->stage = SESSION_CONNECT;
    s->began_us = clock_mono_us();
    s->handshaken_us = 0;
    s->sent = 0;
    s->closed = NULL;
    s->timer = (struct timer){.due = timed_out};
    s->watch = (struct watch){.fd = -1, .events = EPOLLOUT, .ready = ready};
    enum err e = dial_open(s->target, s->certificate, s->key, &s->watch.fd, &s->ssl);
    if (e)
        return e;
    buf_init(&s->out, MQTT_MAX_PACKET_BYTES);
    buf_init(&s->in, 2 * MQTT_MAX_PACKET_BYTES);
    mqtt_connect(&s->out, s->client_id, KEEP_ALIVE_S);
    e = loop_watch(s->target->loop, &s->watch);
    if (!e)
        e = loop_timer(s->target->loop, &s->timer, s->began_us + SESSION_TIMEOUT_US);
    if (e)
        session_abandon(s);
    return e;
}

void session_close(struct session *s)
{
    if (s->ssl && s->stage == SESSION_OPEN) {
        mqtt_disconnect(&s->out);
        (void)SSL_write(s->ssl, s->out.data + s->sent, (int)(s->out.len - s->sent));
        /* whether it arrives is the broker's affair: the session is over */
    }
    session_abandon(s);
}
