#include "pki/names.h"

#include <openssl/x509.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/text.h"

enum { MAX_PART_BYTES = 256, MAX_NAME_TEXT_BYTES = 1024, MAX_DER_BYTES = 16384 };

DEFINE_CLEANUP(BIO *, BIO_free_all);

static void openssl_freep(unsigned char **p)
{
    OPENSSL_free(*p);
}

static enum err text_take(struct arena *arena, const void *data, int len, const char **ret)
{
    if (len < 0 || len > MAX_PART_BYTES || memchr(data, '\0', (size_t)len))
        return ERR_INVALID;
    const char *text = arena_copy(arena, data, (size_t)len);
    if (!text)
        return ERR_NO_MEMORY;
    if (!text_is_printable_utf8(text))
        return ERR_INVALID;
    *ret = text;
    return ERR_OK;
}

static enum err part_take(struct arena *arena, const X509_NAME *name, int nid, const char **ret)
{
    int at = X509_NAME_get_index_by_NID(name, nid, -1);
    if (at < 0)
        return ERR_OK;
    _cleanup_(openssl_freep) unsigned char *utf8 = NULL;
    const ASN1_STRING *value = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at));
    int len = ASN1_STRING_to_UTF8(&utf8, value);
    return len < 0 ? ERR_INVALID : text_take(arena, utf8, len, ret);
}

enum err names_parts(struct arena *arena, const X509_NAME *name, struct name_parts *ret_parts)
{
    struct name_parts p = {0};
    const struct {
        int nid;
        const char **part;
    } wanted[] = {
        {NID_commonName, &p.cn},
        {NID_serialNumber, &p.serial_number},
        {NID_countryName, &p.country},
        {NID_organizationName, &p.organization},
        {NID_organizationalUnitName, &p.organizational_unit},
        {NID_stateOrProvinceName, &p.state_name},
        {NID_dnQualifier, &p.dn_qualifier},
    };
    for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
        enum err e = part_take(arena, name, wanted[i].nid, wanted[i].part);
        if (e)
            return e;
    }
    *ret_parts = p;
    return ERR_OK;
}

const char *names_text(struct arena *arena, const X509_NAME *name)
{
    _cleanup_(BIO_free_allp) BIO *bio = BIO_new(BIO_s_mem());
    char *data = NULL;
    if (!bio || X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB) < 0)
        return NULL;
    long len = BIO_get_mem_data(bio, &data);
    if (len > MAX_NAME_TEXT_BYTES)
        len = MAX_NAME_TEXT_BYTES;
    return arena_copy(arena, len > 0 ? data : "", (size_t)len);
}

static enum err der_take(struct arena *arena, const unsigned char *der, int len, struct bytes *ret)
{
    if (len < 0)
        return ERR_NO_MEMORY;
    if (len > MAX_DER_BYTES)
        return ERR_INVALID;
    void *copy = arena_copy(arena, der, (size_t)len);
    if (!copy)
        return ERR_NO_MEMORY;
    *ret = bytes_of(copy, (size_t)len);
    return ERR_OK;
}

enum err names_der(struct arena *arena, const X509_NAME *name, struct bytes *ret_der)
{
    _cleanup_(openssl_freep) unsigned char *der = NULL;
    int len = i2d_X509_NAME(name, &der);
    return der_take(arena, der, len, ret_der);
}

enum err names_san_der(struct arena *arena, const GENERAL_NAMES *names, struct bytes *ret_der)
{
    _cleanup_(openssl_freep) unsigned char *der = NULL;
    int len = i2d_GENERAL_NAMES(names, &der);
    return der_take(arena, der, len, ret_der);
}

enum err names_urn(struct arena *arena, const GENERAL_NAMES *names, const char **ret_urn)
{
    const char *urn = NULL;
    for (int i = 0; names && i < sk_GENERAL_NAME_num(names) && !urn; i++) {
        const GENERAL_NAME *n = sk_GENERAL_NAME_value(names, i);
        if (n->type != GEN_URI)
            continue;
        const char *data = (const char *)ASN1_STRING_get0_data(n->d.uniformResourceIdentifier);
        int len = ASN1_STRING_length(n->d.uniformResourceIdentifier);
        if (len < 4 || strncasecmp(data, "urn:", 4) != 0)
            continue;
        enum err e = text_take(arena, data, len, &urn);
        if (e)
            return e;
    }
    *ret_urn = urn;
    return ERR_OK;
}
