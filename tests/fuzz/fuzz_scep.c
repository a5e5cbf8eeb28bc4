/* SCEP's messages: read, opened with the key of a test's registration authority, and answered. What
 * is read lies in the arena and is within its bounds; what is answered can be written. */
#include <openssl/pem.h>
#include <stdlib.h>
#include <string.h>

#include "pki/key.h"
#include "pki/scep.h"
#include "scep_ra.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { ARENA_BYTES = 4 << 20 };

static EVP_PKEY *ra_key;

static EVP_PKEY *key_get(const struct signer *s)
{
    (void)s;
    return ra_key;
}

static void signer_keep(struct signer *s)
{
    (void)s;
}

static const struct signer_ops ops = {.key_get = key_get, .free = signer_keep};
static struct signer signer = {.ops = &ops};

static const struct scep_ra *authority(void)
{
    static struct scep_ra *ra;
    X509 *cert = NULL;
    size_t count = 0;
    if (ra)
        return ra;
    BIO *in = BIO_new_mem_buf(scep_ra_key_pem, -1);
    ra_key = PEM_read_bio_PrivateKey(in, NULL, NULL, NULL);
    BIO_free_all(in);
    if (!ra_key || cert_parse_pem(bytes_text(scep_ra_cert_pem), &cert, 1, &count) ||
        scep_ra_new(cert, &signer, &ra))
        abort();
    cert_free(cert);
    return ra;
}

static void answer(struct arena *arena, const struct scep_message *m)
{
    const enum scep_status statuses[] = {SCEP_SUCCESS, SCEP_FAILURE, SCEP_PENDING};
    for (size_t i = 0; i < ARRAY_LEN(statuses); i++) {
        struct bytes der = {0};
        const struct scep_reply r = {.message = m,
                                     .status = statuses[i],
                                     .fail = SCEP_BAD_REQUEST,
                                     .fail_text = "why",
                                     .content = bytes_text("content")};
        if (scep_write(authority(), arena, &r, &der) || der.len == 0)
            abort();
    }
}

static void message_try(struct arena *arena, struct bytes in, const struct scep_options *options)
{
    struct scep_message m;
    struct fault fault = {0};
    struct bytes content = {0}, name, serial;
    if (scep_read(arena, in, options, &m, &fault))
        return;
    if (m.cert_count == 0 || m.cert_count > CERT_MAX_CHAIN || m.nonce.len > SCEP_MAX_NONCE_BYTES ||
        strlen(m.transaction) > SCEP_MAX_TRANSACTION_CHARS)
        abort();
    if (!scep_open(authority(), arena, options, &m, &content, &fault)) {
        (void)!scep_issuer_and_serial(arena, content, &name, &serial);
        (void)scep_is_issuer_and_subject(content);
    }
    answer(arena, &m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const struct scep_options strict = {false, false}, lax = {true, true};
    struct arena arena;
    (void)authority();
    arena_init(&arena, ARENA_BYTES);
    message_try(&arena, bytes_of(data, len), &strict);
    message_try(&arena, bytes_of(data, len), &lax);
    arena_done(&arena);
    return 0;
}
