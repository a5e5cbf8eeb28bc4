#include "pki/ledger.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <string.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "base/json_out.h"
#include "base/text.h"
#include "pki/signed.h"

enum { MAX_DIGITS = 18, MAX_SIGNATURE_BYTES = 512 };

DEFINE_CLEANUP(EVP_MD_CTX *, EVP_MD_CTX_free);

static const char number_text[] = "{\"n\":", prev_text[] = ",\"prev\":\"",
                  seal_text[] = ",\"seal\":\"";

static enum err line_hash(struct bytes text, char ret_hash[LEDGER_HASH_CHARS + 1])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t digest[SHA256_BYTES];
    enum err e = digest_sha256(text, digest);
    for (size_t i = 0; i < SHA256_BYTES && !e; i++) {
        ret_hash[2 * i] = digits[digest[i] >> 4];
        ret_hash[2 * i + 1] = digits[digest[i] & 15];
    }
    ret_hash[LEDGER_HASH_CHARS] = '\0';
    return e;
}

void ledger_start(struct ledger *l)
{
    l->n = 0;
    memset(l->hash, '0', LEDGER_HASH_CHARS);
    l->hash[LEDGER_HASH_CHARS] = '\0';
}

void ledger_begin(const struct ledger *l, struct buf *b)
{
    json_begin_object(b);
    json_int(b, "n", l->n + 1);
    json_text(b, "prev", l->hash);
}

enum err ledger_end(struct ledger *l, struct buf *b, size_t begin)
{
    char hash[LEDGER_HASH_CHARS + 1];
    json_end_object(b);
    if (b->overflow || b->len - begin > LEDGER_MAX_LINE_BYTES)
        return ERR_INVALID;
    enum err e = line_hash(bytes_of(b->data + begin, b->len - begin), hash);
    if (e)
        return e;
    buf_add_char(b, '\n');
    if (b->overflow)
        return ERR_INVALID;
    memcpy(l->hash, hash, sizeof(hash));
    l->n++;
    return ERR_OK;
}

enum err ledger_seal(struct ledger *l, EVP_PKEY *key, struct buf *b)
{
    uint8_t signature[MAX_SIGNATURE_BYTES];
    size_t begin = b->len, len = sizeof(signature);
    const struct signed_algorithm algorithm = signed_algorithm_of(key);
    _cleanup_(EVP_MD_CTX_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    ledger_begin(l, b);
    if (!ctx || b->overflow)
        return ERR_NO_MEMORY;
    if (EVP_DigestSignInit(ctx, NULL, algorithm.digest, NULL, key) != 1 ||
        EVP_DigestSign(ctx, signature, &len, b->data + begin, b->len - begin) != 1)
        return ERR_SYSTEM;
    json_key(b, "seal");
    buf_add_char(b, '"');
    base64_encode(b, bytes_of(signature, len));
    buf_add_char(b, '"');
    return ledger_end(l, b, begin);
}

/* Whether text stands at *at, which then is behind it. */
static bool skip(struct bytes in, size_t *at, const char *text)
{
    size_t len = strlen(text);
    if (in.len - *at < len || memcmp(in.data + *at, text, len) != 0)
        return false;
    *at += len;
    return true;
}

static bool number_read(struct bytes in, size_t *at, int64_t *ret_n)
{
    char digits[MAX_DIGITS + 1];
    size_t len = 0;
    while (len < MAX_DIGITS && *at < in.len && in.data[*at] >= '0' && in.data[*at] <= '9')
        digits[len++] = (char)in.data[(*at)++];
    digits[len] = '\0';
    return len > 0 && digits[0] != '0' && !text_parse_int(digits, 1, INT64_MAX, ret_n);
}

static bool hash_read(struct bytes in, size_t *at, char ret_hash[LEDGER_HASH_CHARS + 1])
{
    if (in.len - *at < LEDGER_HASH_CHARS)
        return false;
    memcpy(ret_hash, in.data + *at, LEDGER_HASH_CHARS);
    ret_hash[LEDGER_HASH_CHARS] = '\0';
    *at += LEDGER_HASH_CHARS;
    return strspn(ret_hash, "0123456789abcdef") == LEDGER_HASH_CHARS;
}

/* What stands behind ,"seal":" must be a signature and the end. */
static enum err seal_read(struct bytes in, size_t at, struct arena *arena, struct bytes *ret)
{
    if (in.len - at < 2 || memcmp(in.data + in.len - 2, "\"}", 2) != 0)
        return ERR_INVALID;
    _cleanup_(buf_donep) struct buf again = {0};
    const struct bytes text = bytes_of(in.data + at, in.len - at - 2);
    struct bytes signature;
    if (base64_decode(arena, text, &signature))
        return ERR_INVALID;
    buf_init(&again, text.len + 1);
    base64_encode(&again, signature);
    if (!bytes_equal(buf_bytes(&again), text))
        return ERR_INVALID; /* a line has one spelling */
    *ret = signature;
    return ERR_OK;
}

enum err ledger_read(struct bytes text, struct arena *arena, struct ledger_line *ret)
{
    struct ledger_line line = {0};
    size_t at = 0;
    if (text.len > LEDGER_MAX_LINE_BYTES || !skip(text, &at, number_text) ||
        !number_read(text, &at, &line.n) || !skip(text, &at, prev_text) ||
        !hash_read(text, &at, line.prev) || !skip(text, &at, "\"") ||
        text.data[text.len - 1] != '}')
        return ERR_INVALID;
    line.sealed = bytes_of(text.data, at);
    line.is_seal = skip(text, &at, seal_text);
    enum err e = line.is_seal ? seal_read(text, at, arena, &line.signature) : ERR_OK;
    if (!e)
        e = line_hash(text, line.hash);
    if (!e)
        *ret = line;
    return e;
}

bool ledger_follows(const struct ledger *l, const struct ledger_line *line)
{
    return line->n == l->n + 1 && strcmp(line->prev, l->hash) == 0;
}

void ledger_step(struct ledger *l, const struct ledger_line *line)
{
    l->n = line->n;
    memcpy(l->hash, line->hash, sizeof(l->hash));
}

bool ledger_seal_verify(const struct ledger_line *line, EVP_PKEY *key)
{
    const struct signed_algorithm algorithm = signed_algorithm_of(key);
    _cleanup_(EVP_MD_CTX_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool good = ctx && line->is_seal && algorithm.der.len > 0 &&
                EVP_DigestVerifyInit(ctx, NULL, algorithm.digest, NULL, key) == 1 &&
                EVP_DigestVerify(ctx, line->signature.data, line->signature.len, line->sealed.data,
                                 line->sealed.len) == 1;
    ERR_clear_error();
    return good;
}

bool ledger_seal_verify_by(const struct ledger_line *line, X509 *cert)
{
    EVP_PKEY *key = X509_get0_pubkey(cert);
    return key && ledger_seal_verify(line, key);
}
