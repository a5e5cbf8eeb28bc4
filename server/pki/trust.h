/*
 * The insides of a trust set, for the files that verify chains. Immutable once made. Threads: any.
 */
#pragma once

#include <openssl/types.h>

#include "base/secret.h"
#include "pki/cert.h"
#include "pki/chain.h"

struct known_ca {
    X509 *cert;
    uint8_t spki_sha256[SHA256_BYTES];
    enum trust_role role;
    int64_t id;
    /* An anchor at which a leaf can be judged without building a chain: it may sign P-256 or P-384
     * without constraints of names, nothing known stands above it, and no other CA known shares
     * its name or key. */
    bool plain;
    bool crl_required;
    bool has_crl;
    struct bytes der;      /* of a plain one, in the arena of the set */
    struct cert_info info; /* likewise */
};

struct trust {
    X509_STORE *store; /* the anchors */
    struct known_ca *cas;
    size_t count;
    bool judges_crls;
    struct arena arena;
};
