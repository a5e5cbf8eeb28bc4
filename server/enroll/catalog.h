/*
 * The catalog: products, templates, CAs, issuers, as one immutable snapshot that is replaced
 * when the registry's epoch changes. A request takes a reference, works, and drops it.
 * Threads: any.
 */
#pragma once

#include <stdint.h>

#include "base/err.h"
#include "enroll/template.h"
#include "model/fault.h"
#include "model/serial.h"
#include "pki/chain.h"
#include "pki/issuer.h"

struct db;
struct sealer;

struct catalog_product {
    int64_t id;
    const char *name;
    struct serial_rule rule;
};

struct catalog_template {
    int64_t id;
    const char *name;
    int version;
    const char *label; /* name@version */
    const struct catalog_product *product;
    struct template *compiled;
};

enum catalog_ca_kind {
    CATALOG_ROOT,
    CATALOG_ISSUING,
    CATALOG_REGISTERED,
    CATALOG_HELPER,
    CATALOG_ROLLOVER /* one of our roots, signed by another of them */
};

/* What the first contact of an unknown certificate below a registered CA does. */
enum catalog_jit {
    JIT_OFF,
    JIT_PROVISION, /* runs the CA's template at once */
    JIT_REGISTER,  /* is recorded and told; somebody activates it */
};

struct catalog_ca {
    int64_t id;
    enum catalog_ca_kind kind;
    bool active;
    const char *name;
    struct bytes der;
    struct bytes subject_der; /* Names; for our own CAs only */
    struct bytes issuer_der;
    struct bytes ski; /* subject key identifier, len 0: none */
    bool has_claims;  /* below this registered CA */
    enum catalog_jit jit;
    bool has_devices; /* whose own certificates are of this registered CA */
    bool crl_required;
    struct bytes crl;      /* DER; len 0: none */
    int64_t trust_until_s; /* of an issuing CA: until then it is trusted for what nobody knows */
    int64_t trust_template_id;               /* 0: the only one of the product */
    int64_t template_id;                     /* 0: none */
    int64_t product_id;                      /* of that template */
    const struct catalog_template *template; /* NULL: none, or it is not in use */
};

/* Whether a certificate of this CA of ours that the registry lacks is to be registered now. */
bool catalog_ca_trusts(const struct catalog_ca *ca, int64_t now_s);

struct catalog;
struct snapshot;

/* keys: where the issuing keys are; borrowed. Nothing is loaded yet. */
enum err catalog_new(struct db *db, const struct signer_source *keys,
                     struct catalog **ret_catalog) MUST_CHECK;
void catalog_free(struct catalog *c);

/* With what symmetric keys are opened; borrowed. Init only, before the first catalog_get. */
void catalog_unseal(struct catalog *c, const struct sealer *sealer);

/* The current snapshot, reloaded when it is older than a second and the epoch has moved: never
 * without what was made two seconds ago, or here. While the database is away the last one serves.
 * ERR_UNAVAILABLE when there never was one. */
enum err catalog_get(struct catalog *c, struct snapshot **ret_snapshot) MUST_CHECK;

/* The present snapshot as it is, without asking the registry anything; never waits for who does. */
enum err catalog_peek(struct catalog *c, struct snapshot **ret_snapshot) MUST_CHECK;
void snapshot_drop(struct snapshot *s);
DEFINE_CLEANUP(struct snapshot *, snapshot_drop);

/* Makes the next catalog_get look at the epoch at once: after a change of our own. */
void catalog_expire(struct catalog *c);

/* Makes the next catalog_get load everything again, issuing keys as well, whatever the epoch. */
void catalog_reload(struct catalog *c);

/* An issuing key did not sign: makes the next catalog_get open them again, every ten seconds at
 * most. */
void catalog_key_failed(struct catalog *c);

/* The epoch of the present snapshot (0: none), and for how long nobody knows whether it still is
 * the registry's. */
void catalog_look(struct catalog *c, int64_t *ret_epoch, int64_t *ret_age_us);

/* The registry's time of day, microseconds since 1970, at a moment of the monotonic clock: never
 * later than it was, and earlier by no more than the quickest look of late took to answer. After
 * the first catalog_get. */
int64_t catalog_registry_us(struct catalog *c, int64_t mono_us);

/* How far this machine's wall clock is ahead of the registry's as the last look found it, seconds.
 * Known at once when the clock is stepped; 0 before the first look. */
double catalog_clock_ahead_s(struct catalog *c);

/* FAULT_CLOCK_WRONG when that is more than most_s either way: certificates would be judged by, and
 * made with, a wrong time. most_s 0: never. */
enum err catalog_clock_check(struct catalog *c, unsigned most_s, struct fault *fault) MUST_CHECK;

/* Borrowed from the snapshot; NULL when there is none. */
const struct catalog_template *snapshot_template(const struct snapshot *s, const char *name);
const struct catalog_template *snapshot_template_by_id(const struct snapshot *s, int64_t id);
/* The only enabled template of a product; NULL also for a NULL name. */
const struct catalog_template *snapshot_only_template(const struct snapshot *s,
                                                      const char *product);
const struct catalog_product *snapshot_product(const struct snapshot *s, const char *name);
const struct catalog_ca *snapshot_ca(const struct snapshot *s, int64_t id);

/* The CA of ours that certificates name by this authority key identifier; NULL. */
const struct catalog_ca *snapshot_own_ca(const struct snapshot *s, struct bytes aki);

/* The issuer to sign with: the named one, or the active one with the latest notAfter; NULL. */
const struct issuer *snapshot_issuer(const struct snapshot *s, const char *name);

/* Names of the issuers that can sign here; borrowed. */
size_t snapshot_issuers(const struct snapshot *s, const char **ret_names, size_t max);

/* Trust for client certificates: our issuing CAs and roots, the active registered CAs; helpers. */
const struct trust *snapshot_trust(const struct snapshot *s);

/* The CA certificates above one of ours, nearest first, root last: DER, borrowed. */
size_t snapshot_chain(const struct snapshot *s, struct bytes issuer_name, struct bytes *ret_ders,
                      size_t max);

/* DER of every CA certificate of ours: issuing ones, roots, then what leads from one root to
 * another (RFC 7030 4.1.3): what /cacerts answers. An inactive one is still needed to chain what
 * it signed. */
size_t snapshot_own_cas(const struct snapshot *s, struct bytes *ret_ders, size_t max);
