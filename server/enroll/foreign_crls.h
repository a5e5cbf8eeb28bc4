/*
 * CRLs of registered CAs: whom they revoke of the devices whose own certificates such a CA made.
 * Everything else is judged against them when it comes (pki/chain.h). Threads: any.
 */
#pragma once

#include <stddef.h>

#include "base/arena.h"
#include "base/err.h"
#include "pki/crl_read.h"

struct service;

/* Revokes those that the CRL lists and this CA signed. ret_revoked: how many that were not yet. */
enum err foreign_crls_apply(struct service *service, struct bytes ca_der,
                            const struct crl_info *crl, struct arena *arena,
                            size_t *ret_revoked) MUST_CHECK;

/* What registered itself while a CRL came; CAs whose required CRL is overdue are closed. */
void foreign_crls_run(struct service *service);
