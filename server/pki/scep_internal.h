/* What the files of SCEP share. */
#pragma once

#include "pki/scep.h"

#define SCEP_OID "2.16.840.1.113733.1.9."

X509 *scep_ra_x509(const struct scep_ra *ra);
EVP_PKEY *scep_ra_key(const struct scep_ra *ra);
