/* POST /serverkeygen: a key made here, with its certificate (RFC 7030 4.4). */
#include "base/cleanup.h"
#include "base/secret.h"
#include "pki/cert.h"
#include "proto/est/internal.h"
#include "proto/multipart.h"

static enum err reply(struct exchange *x, const struct enrollment_result *r, struct bytes cms)
{
    _cleanup_(buf_donep) struct buf b = {0};
    buf_init(&b, EST_MAX_ANSWER_BYTES);
    multipart_add(&b,
                  r->key_enveloped ? "application/pkcs7-mime; smime-type=server-generated-key"
                                   : "application/pkcs8",
                  r->private_key);
    multipart_add(&b, "application/pkcs7-mime; smime-type=certs-only", cms);
    multipart_end(&b);
    enum err e = exchange_reply_buf(x, 200, MULTIPART_TYPE, &b);
    if (b.len > 0)
        secret_cleanse(b.data, b.len);
    return e;
}

enum err est_serverkeygen_handle(struct service *service, struct exchange *x)
{
    struct enrollment_result result;
    struct bytes cms;
    enum err e = est_enrol(service, x, EST_SERVERKEYGEN, &result);
    if (!e)
        e = cms_certs_only(x->arena, &result.certificate, 1, &cms);
    return e ? e : reply(x, &result, cms);
}
