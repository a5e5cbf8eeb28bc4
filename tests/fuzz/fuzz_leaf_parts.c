/* A certificate around a serial number, a validity, a subject and extensions as they come, with
 * the signature of a known CA in order: no mutation of whole certificates would get past that.
 * Input: a byte with the length of the serial number's content, that, the same of the validity, two
 * bytes with the length of the subject, the subject, the content of the extensions. */
#include <openssl/evp.h>

#include "leaf_same.h"
#include "pki/ca.h"
#include "pki/der.h"
#include "pki/key.h"

enum {
    MAX_INPUT_BYTES = 4096,
    MAX_SIGNATURE_BYTES = 128,
    YEAR_S = 365 * 86400,
    NOW_S = 1900000000
};

static const uint8_t ecdsa_with_sha256[] = {0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86,
                                            0x48, 0xce, 0x3d, 0x04, 0x03, 0x02};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Made once: the CA, a leaf's key, and the set that knows the CA. */
static struct world {
    EVP_PKEY *ca_key;
    EVP_PKEY *leaf_key;
    struct trust *trust;
    struct arena arena;
    struct cert_info ca;
} world;

static void world_make(void)
{
    struct ca_request rq = {.common_name = "Factory",
                            .validity_s = 20 * (int64_t)YEAR_S,
                            .path_len = -1,
                            .now_s = NOW_S - YEAR_S};
    struct trust_ca ca = {.role = TRUST_ANCHOR, .id = 7};
    X509 *x = NULL;
    arena_init(&world.arena, 1 << 20);
    leaf_must(key_generate(KEY_P256, &world.ca_key) == ERR_OK);
    leaf_must(key_generate(KEY_P256, &world.leaf_key) == ERR_OK);
    leaf_must(ca_make_root(world.ca_key, &rq, &world.arena, &ca.der) == ERR_OK);
    leaf_must(cert_decode(ca.der, &x) == ERR_OK);
    leaf_must(cert_describe(&world.arena, x, &world.ca) == ERR_OK);
    leaf_must(trust_new(&ca, 1, &world.trust) == ERR_OK);
    cert_free(x);
}

static struct bytes part_take(struct bytes *from, size_t len)
{
    struct bytes part = bytes_of(from->data, len < from->len ? len : from->len);
    *from = bytes_of(from->data + part.len, from->len - part.len);
    return part;
}

static size_t byte_take(struct bytes *from)
{
    struct bytes b = part_take(from, 1);
    return b.len > 0 ? b.data[0] : 0;
}

static void tbs_add(struct buf *b, struct bytes in)
{
    static const uint8_t version_3[] = {0x02, 0x01, 0x02};
    struct buf content, list;
    buf_init(&content, CERT_MAX_BYTES);
    buf_init(&list, CERT_MAX_BYTES);
    der_add(&content, DER_CONTEXT_0, bytes_of(version_3, sizeof(version_3)));
    der_add(&content, DER_INTEGER, part_take(&in, byte_take(&in)));
    buf_add(&content, ecdsa_with_sha256, sizeof(ecdsa_with_sha256));
    buf_add(&content, world.ca.subject_der.data, world.ca.subject_der.len);
    der_add(&content, DER_SEQUENCE, part_take(&in, byte_take(&in)));
    size_t high = byte_take(&in), low = byte_take(&in);
    struct bytes subject = part_take(&in, high << 8 | low);
    buf_add(&content, subject.data, subject.len);
    leaf_must(key_encode_canonical(world.leaf_key, &content) == ERR_OK);
    der_add(&list, DER_SEQUENCE, in);
    der_wrap(&content, DER_CONTEXT_3, &list);
    der_wrap(b, DER_SEQUENCE, &content);
    buf_done(&list);
    buf_done(&content);
}

static void signed_wrap(struct buf *b, const struct buf *tbs)
{
    uint8_t bits[1 + MAX_SIGNATURE_BYTES] = {0};
    size_t len = MAX_SIGNATURE_BYTES;
    struct buf content;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    leaf_must(EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, world.ca_key) == 1 &&
              EVP_DigestSign(ctx, bits + 1, &len, tbs->data, tbs->len) == 1);
    EVP_MD_CTX_free(ctx);
    buf_init(&content, CERT_MAX_BYTES);
    buf_add(&content, tbs->data, tbs->len);
    buf_add(&content, ecdsa_with_sha256, sizeof(ecdsa_with_sha256));
    der_add(&content, DER_BIT_STRING, bytes_of(bits, 1 + len));
    der_wrap(b, DER_SEQUENCE, &content);
    buf_done(&content);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct arena a;
    struct buf tbs, certificate;
    if (len > MAX_INPUT_BYTES)
        return 0;
    if (!world.trust)
        world_make();
    arena_init(&a, 4 << 20);
    buf_init(&tbs, CERT_MAX_BYTES);
    buf_init(&certificate, CERT_MAX_BYTES);
    tbs_add(&tbs, bytes_of(data, len));
    signed_wrap(&certificate, &tbs);
    struct bytes leaf = buf_bytes(&certificate);
    (void)leaf_same(world.trust, &a, &leaf, 1, NOW_S);
    buf_done(&tbs);
    buf_done(&certificate);
    arena_done(&a);
    return 0;
}
