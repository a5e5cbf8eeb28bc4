/*
 * Entries of manifests: as they come, or (first byte 's') as a payload that is signed here by
 * somebody who is trusted, so that what is behind the signature is looked at. What is accepted has
 * a serial, and its key is pinned but in version 2.
 */
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "pki/ca.h"
#include "pki/cert.h"
#include "proto/admin/manifest_line.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { ARENA_BYTES = 4 << 20, MAX_TEXT_BYTES = 1 << 20, RAW_BYTES = 32 };

static EVP_PKEY *key;
static struct manifest_signer signer;
static char thumbprint[64];

static void must(bool holds)
{
    if (!holds)
        abort();
}

static void url_encode(struct buf *b, struct bytes in)
{
    size_t begin = b->len;
    base64_encode(b, in);
    while (b->len > begin && b->data[b->len - 1] == '=')
        b->data[--b->len] = '\0';
    for (size_t i = begin; i < b->len; i++)
        b->data[i] = b->data[i] == '+' ? '-' : b->data[i] == '/' ? '_' : b->data[i];
}

static void world_make(struct arena *arena)
{
    const struct ca_request rq = {"Signer", NULL, 86400, -1, 1700000000};
    struct bytes der = {0};
    struct buf b;
    if (key)
        return;
    must(key_generate(KEY_P256, &key) == ERR_OK && ca_make_root(key, &rq, arena, &der) == ERR_OK);
    must(cert_decode(der, &signer.cert) == ERR_OK &&
         digest_sha256(der, signer.fingerprint) == ERR_OK);
    buf_init(&b, sizeof(thumbprint));
    url_encode(&b, bytes_of(signer.fingerprint, SHA256_BYTES));
    memcpy(thumbprint, buf_text(&b), b.len + 1);
    buf_done(&b);
}

static void sign(struct bytes input, uint8_t ret_raw[2 * RAW_BYTES])
{
    unsigned char der[128];
    const unsigned char *at = der;
    size_t len = sizeof(der);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    must(ctx && EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key) == 1 &&
         EVP_DigestSign(ctx, der, &len, input.data, input.len) == 1);
    ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &at, (long)len);
    must(sig && BN_bn2binpad(ECDSA_SIG_get0_r(sig), ret_raw, RAW_BYTES) == RAW_BYTES &&
         BN_bn2binpad(ECDSA_SIG_get0_s(sig), ret_raw + RAW_BYTES, RAW_BYTES) == RAW_BYTES);
    ECDSA_SIG_free(sig);
    EVP_MD_CTX_free(ctx);
}

/* The entry of a payload; its uniqueId outside is always the same. */
static void entry_make(struct bytes payload, struct arena *arena, struct buf *out)
{
    struct buf head, input;
    uint8_t raw[2 * RAW_BYTES];
    buf_init(&head, MAX_TEXT_BYTES);
    buf_init(&input, MAX_TEXT_BYTES);
    const char *text = arena_printf(arena, "{\"alg\":\"ES256\",\"x5t#S256\":\"%s\"}", thumbprint);
    url_encode(&head, bytes_text(text));
    buf_printf(&input, "%s.", buf_text(&head));
    size_t dot = input.len;
    url_encode(&input, payload);
    sign(buf_bytes(&input), raw);
    buf_printf(out, "{\"protected\":\"%s\",\"payload\":\"%s\",\"signature\":\"", buf_text(&head),
               buf_text(&input) + dot);
    url_encode(out, bytes_of(raw, sizeof(raw)));
    buf_add_text(out, "\",\"header\":{\"uniqueId\":\"0123\"}}");
    buf_done(&head);
    buf_done(&input);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const struct serial_rule serial = {0};
    const struct manifest_rule rule = {&signer, 1, "0", &serial};
    char reason[ALLOWLIST_REASON_BYTES];
    struct allowlist_line line;
    struct arena arena;
    struct buf text;
    arena_init(&arena, ARENA_BYTES);
    buf_init(&text, MAX_TEXT_BYTES);
    world_make(&arena);
    if (len > 0 && data[0] == 's')
        entry_make(bytes_of(data + 1, len - 1), &arena, &text);
    else
        buf_add(&text, data, len);
    enum err e = manifest_line_parse(&rule, buf_text(&text), text.len, &arena, &line, reason);
    must(e ? reason[0] != '\0' : line.skip || line.serial.given[0] != '\0');
    buf_done(&text);
    arena_done(&arena);
    return 0;
}
