#include "proto/client_cert.h"

#include <string.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "base/text.h"
#include "proto/exchange.h"

const char client_cert_header[] = "Client-Cert";
const char client_cert_chain_header[] = "Client-Cert-Chain";
const char client_cert_address_header[] = "X-Forwarded-For";

enum { MAX_BASE64_BYTES = (CLIENT_CERT_MAX_BYTES + 2) / 3 * 4 };

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=";

static enum err malformed(struct fault *fault, const char *field, const char *why)
{
    return fault_set(fault, FAULT_PROXY_HEADER_MALFORMED, "%s: %s", field, why);
}

/* One byte sequence at *at, which moves behind it. */
static enum err sequence_take(struct arena *arena, const char *field, const char **at,
                              struct bytes *ret, struct fault *fault)
{
    const char *start = *at;
    if (*start++ != ':')
        return malformed(fault, field, "a byte sequence begins with a colon");
    size_t len = strspn(start, alphabet);
    if (start[len] != ':')
        return malformed(fault, field, "the byte sequence is not base64 between colons");
    if (len == 0)
        return malformed(fault, field,
                         "the byte sequence is empty; without a certificate send no field");
    if (len > MAX_BASE64_BYTES)
        return malformed(fault, field, "the certificate is too long");
    enum err e = base64_decode(arena, bytes_of(start, len), ret);
    if (e == ERR_INVALID)
        return malformed(fault, field, "the byte sequence is not base64");
    if (e)
        return fault_set(fault, FAULT_INTERNAL, "out of memory");
    if (ret->len > CLIENT_CERT_MAX_BYTES)
        return malformed(fault, field, "the certificate is too long");
    *at = start + len + 1;
    return ERR_OK;
}

static enum err leaf_take(struct arena *arena, const char *text, struct bytes *ret,
                          struct fault *fault)
{
    text += strspn(text, " ");
    enum err e = sequence_take(arena, client_cert_header, &text, ret, fault);
    if (!e && text[strspn(text, " ")] != '\0')
        return malformed(fault, client_cert_header, "something follows the byte sequence");
    return e;
}

/* The elements of the list behind the leaf. */
static enum err list_take(struct arena *arena, const char *text, struct bytes *chain, size_t max,
                          size_t *count, struct fault *fault)
{
    text += strspn(text, " ");
    while (*text) {
        if (*count == max)
            return malformed(fault, client_cert_chain_header, "too many certificates");
        enum err e = sequence_take(arena, client_cert_chain_header, &text, &chain[*count], fault);
        if (e)
            return e;
        (*count)++;
        text += strspn(text, " \t");
        if (*text == '\0')
            return ERR_OK;
        if (*text++ != ',')
            return malformed(fault, client_cert_chain_header, "elements are separated by commas");
        text += strspn(text, " \t");
        if (*text == '\0')
            return malformed(fault, client_cert_chain_header, "an element is missing at its end");
    }
    return ERR_OK;
}

enum err client_cert_parse(struct arena *arena, const char *cert, const char *chain,
                           struct bytes *ret_chain, size_t max, size_t *ret_count,
                           struct fault *fault)
{
    struct bytes all[CLIENT_CERT_MAX] = {{0}};
    size_t count = 0;
    if (max > CLIENT_CERT_MAX)
        max = CLIENT_CERT_MAX;
    if (!cert && chain)
        return malformed(fault, client_cert_chain_header, "it comes without Client-Cert");
    if (cert) {
        enum err e = leaf_take(arena, cert, &all[count], fault);
        count++;
        if (!e && chain)
            e = list_take(arena, chain, all, max, &count, fault);
        if (e)
            return e;
    }
    memcpy(ret_chain, all, count * sizeof(*all));
    *ret_count = count;
    return ERR_OK;
}

const char *client_cert_address(struct arena *arena, const char *forwarded_for)
{
    const char *comma = strrchr(forwarded_for, ',');
    const char *last = comma ? comma + 1 : forwarded_for;
    last += strspn(last, " \t");
    return arena_copy(arena, last, strcspn(last, " \t"));
}

enum err client_cert_once(struct exchange *x)
{
    const char *const names[] = {client_cert_header, client_cert_chain_header,
                                 client_cert_address_header};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        int seen = 0;
        for (size_t k = 0; k < x->header_count; k++)
            seen += text_equal_nocase(x->headers[k].name, names[i]);
        if (seen > 1)
            return malformed(&x->fault, names[i], "it comes more than once");
    }
    return ERR_OK;
}
