/* muster token qr: what a device needs for its first enrolment, to be read by a camera. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/base64.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/secret.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/qr_draw.h"

enum { MAX_INPUT_BYTES = 4096, MAX_CA_BYTES = 64 * 1024, MAX_SERVER_BYTES = 255 };

static int complain(const char *what)
{
    fprintf(stderr, "muster: %s\n", what);
    return EXIT_USAGE;
}

static bool is_token(const char *word)
{
    return strncmp(word, "mst_", 4) == 0 &&
           word[strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")] ==
               '\0';
}

/* The one token among what token create prints: "id token serial" or CSV, or a token alone. */
static int token_find(char *text, const char **ret_token)
{
    *ret_token = NULL;
    for (char *word = strtok(text, " ,\t\r\n"); word; word = strtok(NULL, " ,\t\r\n")) {
        if (!is_token(word))
            continue;
        if (*ret_token)
            return complain("there is more than one token; a code carries one");
        *ret_token = word;
    }
    return *ret_token ? EXIT_OK : complain("there is no token (mst_...) in it");
}

/* HOST:PORT of the device listener, also of its URL. */
static int server_take(const struct cli *cli, const char **ret_server, size_t *ret_len)
{
    const char *s = cli->options.value[OPT_server];
    if (!s)
        s = getenv("MUSTER_URL");
    if (!s)
        return complain("--server HOST:PORT or MUSTER_URL must name the device listener");
    if (strncmp(s, "https://", 8) == 0)
        s += 8;
    size_t len = strcspn(s, "/"), tail = len;
    while (tail > 0 && s[tail - 1] >= '0' && s[tail - 1] <= '9')
        tail--;
    bool plain =
        strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]") >= len;
    if (!plain || len > MAX_SERVER_BYTES || tail < 2 || tail == len || s[tail - 1] != ':')
        return complain("the server must be HOST:PORT, as in est.example.com:8443");
    *ret_server = s;
    *ret_len = len;
    return EXIT_OK;
}

/* SHA-256 of the DER of the first certificate of a PEM text (RFC 7468). */
static enum err anchor_hash(const char *pem, uint8_t ret_digest[SHA256_BYTES])
{
    static const char begin[] = "-----BEGIN CERTIFICATE-----";
    const char *from = strstr(pem, begin);
    const char *to = from ? strstr(from, "-----END CERTIFICATE-----") : NULL;
    struct arena arena;
    struct bytes der = {0};
    if (!to)
        return ERR_INVALID;
    from += sizeof(begin) - 1;
    arena_init(&arena, MAX_CA_BYTES);
    enum err e = base64_decode(&arena, bytes_of(from, (size_t)(to - from)), &der);
    if (!e)
        e = der.len > 0 ? digest_sha256(der, ret_digest) : ERR_INVALID;
    arena_done(&arena);
    return e;
}

static int anchor_take(const struct cli *cli, uint8_t ret_digest[SHA256_BYTES])
{
    _cleanup_(buf_donep) struct buf pem = {0};
    const char *path = cli->options.value[OPT_cacert];
    if (!path)
        path = getenv("MUSTER_CACERT");
    if (!path)
        return complain("--cacert FILE or MUSTER_CACERT must name the CA that devices pin");
    int rc = command_file_read(path, MAX_CA_BYTES, &pem);
    if (rc == EXIT_OK && anchor_hash(buf_text(&pem), ret_digest))
        rc = complain("the CA file holds no PEM certificate");
    return rc;
}

/* docs/operations.md, "Codes for a camera". */
static int payload_make(const struct cli *cli, const char *token, struct buf *b)
{
    const char *server;
    size_t len;
    uint8_t anchor[SHA256_BYTES];
    int rc = server_take(cli, &server, &len);
    if (rc == EXIT_OK)
        rc = anchor_take(cli, anchor);
    if (rc != EXIT_OK)
        return rc;
    buf_init(b, QR_MAX_BYTES + 1);
    buf_printf(b, "muster://%.*s/?v=1&token=%s&ca=", (int)len, server, token);
    text_add_hex(b, bytes_of(anchor, sizeof(anchor)));
    return b->overflow ? complain("server and token are too long for a code") : EXIT_OK;
}

static int picture_make(const struct cli *cli, const char *payload)
{
    const char *path = cli->options.value[OPT_png];
    enum err e = path ? qr_write_png(payload, path) : qr_print(payload);
    if (!e)
        return EXIT_OK;
    fprintf(stderr, "muster: %s: %s\n", path ? path : "the code",
            e == ERR_SYSTEM ? strerror(errno) : "cannot be made");
    return EXIT_USAGE;
}

int run_token_qr(struct cli *cli)
{
    _cleanup_(buf_donep) struct buf file = {0};
    _cleanup_(buf_donep) struct buf payload = {0};
    const char *token;
    int rc = command_file_read(cli->words[0], MAX_INPUT_BYTES, &file);
    if (rc == EXIT_OK && file.len == 0)
        rc = complain("there is no token (mst_...) in it");
    if (rc == EXIT_OK)
        rc = token_find((char *)file.data, &token);
    if (rc == EXIT_OK)
        rc = payload_make(cli, token, &payload);
    if (rc == EXIT_OK)
        rc = picture_make(cli, buf_text(&payload));
    if (payload.len > 0)
        secret_cleanse(payload.data, payload.len);
    if (file.len > 0)
        secret_cleanse(file.data, file.len);
    return rc;
}
