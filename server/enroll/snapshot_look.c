/* Looking things up in a snapshot. */
#include <string.h>

#include "enroll/psk.h"
#include "enroll/snapshot.h"

const struct catalog_template *snapshot_template(const struct snapshot *s, const char *name)
{
    for (size_t i = 0; i < s->template_count; i++) {
        if (strcmp(s->templates[i].name, name) == 0)
            return &s->templates[i];
    }
    return NULL;
}

const struct catalog_template *snapshot_template_by_id(const struct snapshot *s, int64_t id)
{
    for (size_t i = 0; i < s->template_count; i++) {
        if (s->templates[i].id == id)
            return &s->templates[i];
    }
    return NULL;
}

const struct catalog_template *snapshot_only_template(const struct snapshot *s, const char *product)
{
    const struct catalog_template *found = NULL;
    for (size_t i = 0; i < s->template_count; i++) {
        if (!product || strcmp(s->templates[i].product->name, product) != 0)
            continue;
        if (found)
            return NULL;
        found = &s->templates[i];
    }
    return found;
}

bool catalog_ca_trusts(const struct catalog_ca *ca, int64_t now_s)
{
    return ca->kind == CATALOG_ISSUING && ca->trust_until_s > now_s;
}

const struct catalog_product *snapshot_product(const struct snapshot *s, const char *name)
{
    for (size_t i = 0; i < s->product_count; i++) {
        if (strcmp(s->products[i].name, name) == 0)
            return &s->products[i];
    }
    return NULL;
}

const struct catalog_psk *snapshot_psk(const struct snapshot *s, const char *product)
{
    for (size_t i = 0; i < s->psk_count; i++) {
        if (strcmp(s->psks[i].product->name, product) == 0)
            return &s->psks[i];
    }
    return NULL;
}

bool snapshot_has_psk(const struct snapshot *s)
{
    return s->psk_count > 0;
}

const struct catalog_ca *snapshot_ca(const struct snapshot *s, int64_t id)
{
    for (size_t i = 0; i < s->ca_count; i++) {
        if (s->cas[i].id == id)
            return &s->cas[i];
    }
    return NULL;
}

const struct catalog_ca *snapshot_own_ca(const struct snapshot *s, struct bytes aki)
{
    for (size_t i = 0; i < s->ca_count; i++) {
        if (s->cas[i].ski.len > 0 && bytes_equal(s->cas[i].ski, aki))
            return &s->cas[i];
    }
    return NULL;
}

const struct issuer *snapshot_issuer(const struct snapshot *s, const char *name)
{
    const struct issuer *best = NULL;
    for (size_t i = 0; i < s->issuer_count; i++) {
        const struct issuer *issuer = s->issuers[i];
        if (name && strcmp(issuer_name(issuer), name) != 0)
            continue;
        if (!best || issuer_not_after_s(issuer) > issuer_not_after_s(best))
            best = issuer;
    }
    return best;
}

size_t snapshot_issuers(const struct snapshot *s, const char **ret_names, size_t max)
{
    size_t n = 0;
    for (; n < s->issuer_count && n < max; n++)
        ret_names[n] = issuer_name(s->issuers[n]);
    return n;
}

const struct trust *snapshot_trust(const struct snapshot *s)
{
    return s->trust;
}

size_t snapshot_own_cas(const struct snapshot *s, struct bytes *ret_ders, size_t max)
{
    size_t n = 0;
    static const enum catalog_ca_kind order[] = {CATALOG_ISSUING, CATALOG_ROOT, CATALOG_ROLLOVER};
    for (size_t k = 0; k < ARRAY_LEN(order); k++) {
        for (size_t i = 0; i < s->ca_count && n < max; i++) {
            if (s->cas[i].kind == order[k])
                ret_ders[n++] = s->cas[i].der;
        }
    }
    return n;
}

static const struct catalog_ca *own_ca_named(const struct snapshot *s, struct bytes name)
{
    for (size_t i = 0; i < s->ca_count; i++) {
        if (s->cas[i].subject_der.len > 0 && bytes_equal(s->cas[i].subject_der, name))
            return &s->cas[i];
    }
    return NULL;
}

size_t snapshot_chain(const struct snapshot *s, struct bytes issuer_name, struct bytes *ret_ders,
                      size_t max)
{
    size_t n = 0;
    const struct catalog_ca *ca = own_ca_named(s, issuer_name);
    while (ca && n < max) {
        ret_ders[n++] = ca->der;
        bool root = bytes_equal(ca->subject_der, ca->issuer_der);
        ca = root ? NULL : own_ca_named(s, ca->issuer_der);
    }
    return n;
}
