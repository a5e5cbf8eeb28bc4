/*
 * What musterd does once: our CAs, the server's certificate, admin tokens. Threads: main only.
 */
#pragma once

#include "base/err.h"
#include "ops/config.h"

enum { INIT_MAX_SERVER_NAMES = 16 };

struct init_request {
    const char *organization; /* NULL: none */
    const char *server_names[INIT_MAX_SERVER_NAMES];
    size_t server_name_count;
    const char *import_root; /* PEM files; all NULL: make new ones */
    const char *import_issuing;
    const char *import_key;
    const char *issuer_name; /* also of a new root */
    const char *key_uri;     /* of the issuing key, behind PKCS#11; NULL: a file */
    const char *root_name;   /* the root that signs */
    const char *admin_name;
};

/* Makes or imports root and issuing CA, makes the server's certificate where [tls] has none yet,
 * writes the registry, prints the first admin token on standard output. Refuses where an issuing
 * CA is registered already, and never overwrites a file. */
enum err init_run(const struct config *config, const struct init_request *rq,
                  char message[CONFIG_MESSAGE_BYTES]) MUST_CHECK;

/* One more root, signed by the old one and signing it, so that devices can follow from either to
 * the other; /cacerts tells them all. */
enum err init_root(const struct config *config, const struct init_request *rq,
                   char message[CONFIG_MESSAGE_BYTES]) MUST_CHECK;

/* One more issuing CA below the root whose key is in the CA folder, or an imported one. */
enum err init_issuer(const struct config *config, const struct init_request *rq,
                     char message[CONFIG_MESSAGE_BYTES]) MUST_CHECK;

/* Makes the key of one more issuing CA, or takes that of key_uri, and prints a request for its
 * certificate (PKCS#10, PEM): for a root that is elsewhere. init_issuer imports the certificate. */
enum err init_issuer_request(const struct config *config, const struct init_request *rq,
                             char message[CONFIG_MESSAGE_BYTES]) MUST_CHECK;

/* One more admin token, printed on standard output. */
enum err init_admin_token(const struct config *config, const struct init_request *rq,
                          char message[CONFIG_MESSAGE_BYTES]) MUST_CHECK;
