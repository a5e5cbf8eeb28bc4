#include "pki/crl.h"

#include "base/buf.h"
#include "base/cleanup.h"
#include "pki/der.h"
#include "pki/extension.h"
#include "pki/tbs.h"

enum {
    MAX_ENTRY_BYTES = 64,
    MAX_FRAME_BYTES = 16384, /* all but the entries */
    CE_REASON = 21,          /* id-ce, 2.5.29 */
    CE_NUMBER = 20,
    CE_DELTA = 27,
    CE_SCOPE = 28,
    CE_FRESHEST = 46
};

/* A positive INTEGER: a magnitude whose first bit is set gets a zero before it, and no other zero
 * stays there. */
static void serial_add(struct buf *b, struct bytes magnitude)
{
    while (magnitude.len > 1 && magnitude.data[0] == 0)
        magnitude = bytes_of(magnitude.data + 1, magnitude.len - 1);
    size_t pad = magnitude.data[0] & 0x80 ? 1 : 0;
    der_header(b, DER_INTEGER, magnitude.len + pad);
    if (pad)
        buf_add_char(b, 0);
    buf_add(b, magnitude.data, magnitude.len);
}

/* "unspecified" is said by saying nothing (5.3.1). */
static void reason_add(struct buf *b, int reason)
{
    const uint8_t value[] = {DER_ENUMERATED, 1, (uint8_t)reason};
    _cleanup_(buf_donep) struct buf extension = {0};
    if (reason == 0)
        return;
    buf_init(&extension, MAX_ENTRY_BYTES);
    extension_add(&extension, CE_REASON, false, bytes_of(value, sizeof(value)));
    der_wrap(b, DER_SEQUENCE, &extension);
}

static enum err entry_add(struct buf *b, struct buf *scratch, const struct revoked *row)
{
    if (row->serial_number.len == 0 || row->serial_number.len > CERT_SERIAL_MAX_BYTES)
        return ERR_INVALID;
    buf_reset(scratch);
    serial_add(scratch, row->serial_number);
    enum err e = der_time(scratch, row->revoked_s);
    reason_add(scratch, row->reason);
    der_wrap(b, DER_SEQUENCE, scratch);
    return e;
}

/* revokedCertificates is absent where there are none (5.1.2.6). */
static enum err entries_add(struct buf *b, const struct crl_order *o)
{
    _cleanup_(buf_donep) struct buf all = {0};
    _cleanup_(buf_donep) struct buf scratch = {0};
    enum err e = ERR_OK;
    buf_init(&all, o->count * MAX_ENTRY_BYTES);
    buf_init(&scratch, MAX_ENTRY_BYTES);
    for (size_t i = 0; i < o->count && !e; i++)
        e = entry_add(&all, &scratch, &o->rows[i]);
    if (!e && (all.overflow || scratch.overflow))
        return ERR_NO_MEMORY;
    if (o->count > 0)
        der_wrap(b, DER_SEQUENCE, &all);
    return e;
}

static void number_add(struct buf *b, uint8_t extension, bool critical, uint32_t number)
{
    _cleanup_(buf_donep) struct buf value = {0};
    buf_init(&value, MAX_ENTRY_BYTES);
    der_integer(&value, number);
    extension_add(b, extension, critical, buf_bytes(&value));
}

/* IssuingDistributionPoint with nothing but a name: certificates of all kinds, whose own
 * distribution point has that name. */
static void scope_add(struct buf *b, const char *url)
{
    _cleanup_(buf_donep) struct buf name = {0};
    _cleanup_(buf_donep) struct buf value = {0};
    buf_init(&name, MAX_FRAME_BYTES);
    buf_init(&value, MAX_FRAME_BYTES);
    extension_point_name(&name, url);
    der_wrap(&value, DER_SEQUENCE, &name);
    extension_add(b, CE_SCOPE, true, buf_bytes(&value));
}

static void freshest_add(struct buf *b, const char *url)
{
    _cleanup_(buf_donep) struct buf value = {0};
    buf_init(&value, MAX_FRAME_BYTES);
    extension_points(&value, &url, 1);
    extension_add(b, CE_FRESHEST, false, buf_bytes(&value));
}

static void extensions_add(struct buf *b, const struct tbs_issuer *issuer,
                           const struct crl_order *o)
{
    _cleanup_(buf_donep) struct buf list = {0};
    buf_init(&list, MAX_FRAME_BYTES);
    buf_add(&list, issuer->authority_key_id.data, issuer->authority_key_id.len);
    number_add(&list, CE_NUMBER, false, o->number);
    if (o->base_number > 0)
        number_add(&list, CE_DELTA, true, o->base_number);
    if (o->scope_url)
        scope_add(&list, o->scope_url);
    if (o->freshest_url && o->base_number == 0)
        freshest_add(&list, o->freshest_url);
    der_header(b, DER_CONTEXT_0, der_size(list.len));
    der_wrap(b, DER_SEQUENCE, &list);
}

static enum err content_add(struct buf *b, const struct tbs_issuer *issuer,
                            const struct crl_order *o)
{
    static const uint8_t version_2[] = {DER_INTEGER, 1, 1};
    buf_add(b, version_2, sizeof(version_2));
    buf_add(b, issuer->algorithm.der.data, issuer->algorithm.der.len);
    buf_add(b, issuer->name.data, issuer->name.len);
    enum err e = der_time(b, o->this_update_s);
    if (!e)
        e = der_time(b, o->next_update_s);
    if (!e)
        e = entries_add(b, o);
    extensions_add(b, issuer, o);
    return e;
}

enum err crl_sign(const struct issuer *issuer, const struct crl_order *o, struct arena *arena,
                  struct bytes *ret_der)
{
    size_t max = o->count * MAX_ENTRY_BYTES + MAX_FRAME_BYTES;
    _cleanup_(tbs_issuer_done) struct tbs_issuer names = {0};
    _cleanup_(buf_donep) struct buf content = {0};
    _cleanup_(buf_donep) struct buf tbs = {0};
    buf_init(&content, max);
    buf_init(&tbs, max);
    enum err e = tbs_issuer_init(&names, issuer_certificate(issuer), issuer_key(issuer));
    if (!e)
        e = content_add(&content, &names, o);
    if (e)
        return e == ERR_NOT_FOUND ? ERR_INVALID : e;
    der_wrap(&tbs, DER_SEQUENCE, &content);
    if (content.overflow || tbs.overflow)
        return ERR_NO_MEMORY;
    return signed_make(&names.algorithm, issuer_key(issuer), buf_bytes(&tbs), arena, ret_der);
}
