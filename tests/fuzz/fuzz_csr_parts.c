/* A request around a subject and attributes as they come, with a key and its signature in order:
 * no mutation of whole requests would get past the proof of possession. Input: two bytes with the
 * length of the subject, the subject, the content of the attributes. */
#include <openssl/evp.h>

#include "csr_same.h"
#include "pki/der.h"
#include "pki/key.h"

enum { MAX_INPUT_BYTES = 4096, MAX_SIGNATURE_BYTES = 128 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static EVP_PKEY *the_key(void)
{
    static EVP_PKEY *key;
    if (!key)
        csr_must(key_generate(KEY_P256, &key) == ERR_OK);
    return key;
}

static void info_add(struct buf *b, struct bytes subject, struct bytes attributes)
{
    struct buf content;
    buf_init(&content, CSR_MAX_BYTES);
    der_integer(&content, 0);
    buf_add(&content, subject.data, subject.len);
    csr_must(key_encode_canonical(the_key(), &content) == ERR_OK);
    der_add(&content, DER_CONTEXT_0, attributes);
    der_wrap(b, DER_SEQUENCE, &content);
    buf_done(&content);
}

/* The request with the signature over its info. */
static void signed_wrap(struct buf *b, const struct buf *info)
{
    static const uint8_t algorithm[] = {0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86,
                                        0x48, 0xce, 0x3d, 0x04, 0x03, 0x02};
    uint8_t bits[1 + MAX_SIGNATURE_BYTES] = {0};
    size_t len = MAX_SIGNATURE_BYTES;
    struct buf content;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    csr_must(EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, the_key()) == 1 &&
             EVP_DigestSign(ctx, bits + 1, &len, info->data, info->len) == 1);
    EVP_MD_CTX_free(ctx);
    buf_init(&content, CSR_MAX_BYTES);
    buf_add(&content, info->data, info->len);
    buf_add(&content, algorithm, sizeof(algorithm));
    der_add(&content, DER_BIT_STRING, bytes_of(bits, 1 + len));
    der_wrap(b, DER_SEQUENCE, &content);
    buf_done(&content);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct arena a;
    struct buf info, request;
    if (len < 2 || len > MAX_INPUT_BYTES)
        return 0;
    size_t subject = (size_t)data[0] << 8 | data[1];
    if (subject > len - 2)
        return 0;
    arena_init(&a, 4 << 20);
    buf_init(&info, CSR_MAX_BYTES);
    buf_init(&request, CSR_MAX_BYTES);
    info_add(&info, bytes_of(data + 2, subject), bytes_of(data + 2 + subject, len - 2 - subject));
    signed_wrap(&request, &info);
    csr_same(&a, buf_bytes(&request));
    buf_done(&info);
    buf_done(&request);
    arena_done(&a);
    return 0;
}
