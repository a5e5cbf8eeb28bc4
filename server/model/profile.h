/*
 * What a certificate shall look like: filled by a template, read by pki/issue.
 * Plain data in the memory of whoever made it. Threads: any once made.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Kinds of keys; a profile allows a set of them, as bits. */
enum key_kind {
    KEY_P256 = 1 << 0,
    KEY_P384 = 1 << 1,
    KEY_RSA2048 = 1 << 2, /* 2048 to 4096 bits, multiples of 8, by size class */
    KEY_RSA3072 = 1 << 3,
    KEY_RSA4096 = 1 << 4,
    KEY_ED25519 = 1 << 5,
};

enum { KEY_KIND_ALL = KEY_P256 | KEY_P384 | KEY_RSA2048 | KEY_RSA3072 | KEY_RSA4096 | KEY_ED25519 };

/* The name as in a template's Keys, e.g. "P-256"; NULL for no or several kinds. */
const char *key_kind_name(enum key_kind k);
/* The kind of a name; 0 when unknown. */
enum key_kind key_kind_parse(const char *name);

enum eku {
    EKU_CLIENT_AUTH = 1 << 0,
    EKU_SERVER_AUTH = 1 << 1,
    EKU_CMC_RA = 1 << 2, /* id-kp-cmcRA, RFC 6402 section 2.10 */
};

enum san_kind { SAN_DNS, SAN_URI, SAN_EMAIL, SAN_IP };

struct san {
    enum san_kind kind;
    const char *value;
};

/* One attribute of a subject: type is the short name OpenSSL knows (CN, O, OU, C, ST, L,
 * serialNumber, dnQualifier). */
struct rdn {
    const char *type;
    const char *value;
};

enum { PROFILE_MAX_SAN = 8, PROFILE_MAX_RDN = 8, PROFILE_MAX_URLS = 4 };

struct cert_profile {
    struct rdn subject[PROFILE_MAX_RDN];
    size_t subject_count;
    struct san san[PROFILE_MAX_SAN];
    size_t san_count;
    int64_t validity_s;
    int64_t jitter_s;   /* up to this much is taken off the validity, at random */
    int64_t backdate_s; /* notBefore lies this far in the past, for slow device clocks */
    unsigned eku;       /* enum eku bits */
    const char *crl_urls[PROFILE_MAX_URLS];
    size_t crl_url_count;
    const char *ocsp_url;       /* NULL: none */
    const char *ca_issuers_url; /* NULL: none */
};
