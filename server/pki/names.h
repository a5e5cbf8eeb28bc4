/*
 * Text and DER out of OpenSSL's names and extensions, into the arena. For the files of pki/
 * only. Threads: any.
 */
#pragma once

#include <openssl/x509v3.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/err.h"

/* The parts of a subject that the registry and templates want; NULL: not there. */
struct name_parts {
    const char *cn;
    const char *serial_number;
    const char *country;
    const char *organization;
    const char *organizational_unit;
    const char *state_name;
    const char *dn_qualifier;
};

/* First value of each attribute as UTF-8. ERR_INVALID when one of them has a NUL, a control
 * character or no valid encoding, or is longer than 256 bytes. */
enum err names_parts(struct arena *arena, const X509_NAME *name,
                     struct name_parts *ret_parts) MUST_CHECK;

/* RFC 2253 text, UTF-8, bounded to 1024 bytes; NULL when out of memory. */
const char *names_text(struct arena *arena, const X509_NAME *name);

enum err names_der(struct arena *arena, const X509_NAME *name, struct bytes *ret_der) MUST_CHECK;

/* The first URI that starts with urn:, NULL when there is none. ERR_INVALID for one with
 * control characters or a NUL. */
enum err names_urn(struct arena *arena, const GENERAL_NAMES *names,
                   const char **ret_urn) MUST_CHECK;

/* GeneralNames as DER. */
enum err names_san_der(struct arena *arena, const GENERAL_NAMES *names,
                       struct bytes *ret_der) MUST_CHECK;
