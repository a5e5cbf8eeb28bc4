/*
 * How a device names itself and its key in TLS-PSK (docs/protocols/psk.md): "product/serial", or
 * "product/serial#2" for the key under the group's secondary master. Plain data. Threads: any.
 */
#pragma once

#include <stdbool.h>

#include "base/bytes.h"
#include "base/err.h"
#include "model/serial.h"

enum { PSK_IDENTITY_MAX_CHARS = 128 }; /* of GnuTLS, too */

struct psk_identity {
    char product[PRODUCT_NAME_MAX_CHARS + 1];
    char serial[SERIAL_MAX_CHARS + 1]; /* as it was sent; the product's rule comes later */
    bool secondary;
};

/* ERR_INVALID: it is not of that form, or has characters that no product or serial has. */
enum err psk_identity_parse(struct bytes text, struct psk_identity *ret_identity) MUST_CHECK;
