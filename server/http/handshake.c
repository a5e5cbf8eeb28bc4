#include "http/handshake.h"

#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/json_out.h"

enum {
    RECORD_ALERT = 21,
    RECORD_HANDSHAKE = 22,
    ALERT_BYTES = 2, /* in clear: level and description */
    TLS_1_2 = 0x0303,
    OLDEST = 0x0300,
    NEWEST = 0x0304,
    RANDOM_BYTES = 32,
    EXTENSION_VERSIONS = 43, /* supported_versions */
};

/* What this thread works on; a connection has a thread of its own. */
static _Thread_local struct handshake *handshaking;

/* A vector with `width` bytes of length in front; ERR_INVALID when it is not whole. */
static enum err vector_take(struct bytes *in, size_t width, struct bytes *ret)
{
    size_t len = 0;
    if (in->len < width)
        return ERR_INVALID;
    for (size_t i = 0; i < width; i++)
        len = len << 8 | in->data[i];
    if (in->len - width < len)
        return ERR_INVALID;
    *ret = bytes_of(in->data + width, len);
    *in = bytes_of(in->data + width + len, in->len - width - len);
    return ERR_OK;
}

/* The highest of a list of versions that is one of TLS; reserved ones (RFC 8701) are none. */
static uint16_t versions_highest(struct bytes list)
{
    uint16_t best = 0;
    for (size_t i = 0; i + 2 <= list.len; i += 2) {
        uint16_t v = (uint16_t)(list.data[i] << 8 | list.data[i + 1]);
        if (v >= OLDEST && v <= NEWEST && v > best)
            best = v;
    }
    return best;
}

static uint16_t extension_versions(struct bytes extensions)
{
    struct bytes content, list;
    while (extensions.len >= 2) {
        unsigned type = (unsigned)extensions.data[0] << 8 | extensions.data[1];
        extensions = bytes_of(extensions.data + 2, extensions.len - 2);
        if (vector_take(&extensions, 2, &content))
            return 0;
        if (type == EXTENSION_VERSIONS)
            return vector_take(&content, 1, &list) ? 0 : versions_highest(list);
    }
    return 0;
}

uint16_t handshake_offered(struct bytes client_hello)
{
    struct bytes in = client_hello, skipped, extensions;
    if (in.len < 2 + RANDOM_BYTES)
        return 0;
    uint16_t legacy = (uint16_t)(in.data[0] << 8 | in.data[1]);
    in = bytes_of(in.data + 2 + RANDOM_BYTES, in.len - 2 - RANDOM_BYTES);
    if (vector_take(&in, 1, &skipped) || vector_take(&in, 2, &skipped) ||
        vector_take(&in, 1, &skipped))
        return 0;
    if (in.len == 0 || vector_take(&in, 2, &extensions))
        return legacy;
    uint16_t listed = extension_versions(extensions);
    return listed ? listed : legacy;
}

struct handshake *handshake_of(gnutls_session_t session)
{
    gnutls_transport_ptr_t receive = NULL, send = NULL;
    gnutls_transport_get_ptr2(session, &receive, &send);
    return receive;
}

void handshake_by_psk(struct handshake *h, struct bytes identity, const char *why)
{
    size_t len = identity.len < sizeof(h->identity) ? identity.len : sizeof(h->identity) - 1;
    if (len > 0)
        memcpy(h->identity, identity.data, len);
    h->identity[len] = '\0';
    h->psk_fault = why;
}

static int message_seen(gnutls_session_t session, unsigned type, unsigned when, unsigned incoming,
                        const gnutls_datum_t *message)
{
    (void)when;
    struct handshake *h = handshake_of(session);
    h->last = (int)type;
    if (incoming && type == GNUTLS_HANDSHAKE_CLIENT_HELLO && message)
        h->offered = handshake_offered(bytes_of(message->data, message->size));
    if (incoming && type == GNUTLS_HANDSHAKE_FINISHED)
        h->finished = true;
    return 0;
}

static size_t record_length(const struct handshake *h)
{
    return (size_t)h->record[3] << 8 | h->record[4];
}

/* An OpenSSL client that refuses a TLS 1.3 server says so in clear, where GnuTLS expects
 * encryption and sees no alert: so the records are followed here. */
static void records_follow(struct handshake *h, const uint8_t *data, size_t len)
{
    while (len > 0) {
        size_t n = 1;
        if (h->record_have < sizeof(h->record)) {
            h->record[h->record_have++] = *data;
            h->record_left = record_length(h);
        } else {
            n = len < h->record_left ? len : h->record_left;
            h->record_left -= n;
            if (h->record[0] == RECORD_ALERT && record_length(h) == ALERT_BYTES &&
                h->record_left == 0)
                h->alert = data[n - 1];
        }
        if (h->record_have == sizeof(h->record) && h->record_left == 0)
            h->record_have = 0;
        data += n;
        len -= n;
    }
}

/* GnuTLS reads through this. */
static ssize_t pull(gnutls_transport_ptr_t ptr, void *data, size_t len)
{
    struct handshake *h = ptr;
    ssize_t n = recv(h->fd, data, len, 0);
    if (h->finished || n <= 0)
        return n;
    handshaking = h;
    for (size_t i = 0; i < (size_t)n && h->received + i < sizeof(h->first); i++)
        h->first[h->received + i] = ((const uint8_t *)data)[i];
    h->received += (size_t)n;
    records_follow(h, data, (size_t)n);
    return n;
}

void handshake_watch(struct handshake *h, gnutls_session_t session, int fd)
{
    *h = (struct handshake){.session = session, .fd = fd, .last = -1};
    gnutls_transport_set_ptr2(session, h, (gnutls_transport_ptr_t)(intptr_t)fd);
    gnutls_transport_set_pull_function(session, pull);
    gnutls_handshake_set_hook_function(session, GNUTLS_HANDSHAKE_ANY, GNUTLS_HOOK_PRE,
                                       message_seen);
}

void handshake_trouble(void)
{
    if (handshaking && !handshaking->finished && handshaking->alert == 0)
        handshaking->alert = (int)gnutls_alert_get(handshaking->session);
}

static bool is_plain_http(const struct handshake *h)
{
    static const char *const beginnings[] = {"GET ", "POST", "PUT ", "HEAD", "DELE", "OPTI"};
    for (size_t i = 0; i < ARRAY_LEN(beginnings); i++) {
        if (h->received >= sizeof(h->first) &&
            memcmp(h->first, beginnings[i], sizeof(h->first)) == 0)
            return true;
    }
    return false;
}

const char *handshake_reason(const struct handshake *h)
{
    if (h->received == 0)
        return "nothing was sent";
    if (is_plain_http(h))
        return "plain HTTP was sent, not TLS";
    if (h->first[0] != RECORD_HANDSHAKE)
        return "what was sent is not TLS";
    if (h->offered == 0)
        return "the ClientHello is not whole";
    if (h->offered < TLS_1_2)
        return "the client offers no TLS 1.2 or 1.3";
    if (h->alert != 0)
        return "the client refused the handshake with an alert";
    if (h->psk_fault)
        return h->psk_fault;
    if (h->identity[0] != '\0' && !h->finished)
        return "the handshake by PSK was not completed: the client has another key, or went away";
    return h->finished ? "no request followed the handshake" : "the handshake was not completed";
}

static const char *version_name(uint16_t version)
{
    static const char *const names[] = {"SSL 3.0", "TLS 1.0", "TLS 1.1", "TLS 1.2", "TLS 1.3"};
    return version >= OLDEST && version <= NEWEST ? names[version - OLDEST] : NULL;
}

void handshake_describe(const struct handshake *h, struct buf *record)
{
    json_text(record, "reason", handshake_reason(h));
    json_text(record, "handshake",
              h->last < 0
                  ? NULL
                  : gnutls_handshake_description_get_name((gnutls_handshake_description_t)h->last));
    json_text(record, "client_offers", version_name(h->offered));
    if (h->identity[0] != '\0')
        json_text(record, "psk_identity", h->identity);
    if (h->alert != 0)
        json_text(record, "alert", gnutls_alert_get_name((gnutls_alert_description_t)h->alert));
}
