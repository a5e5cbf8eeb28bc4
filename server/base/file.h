/* Whole files, with a limit and with care for who may read them. Threads: any. */
#pragma once

#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"

/* Reads the whole file into ret (initialised by the caller with its maximum).
 * ERR_INVALID when the file is larger, ERR_SYSTEM with errno otherwise. */
enum err file_load(const char *path, struct buf *ret) MUST_CHECK;

/* Like file_load, and ERR_DENIED when group or others may read or write the file, or when it
 * belongs to neither this user nor root: for private keys. Where systemd hands a credential to the
 * service's user by an ACL, its mask shows as group-readable: below $CREDENTIALS_DIRECTORY that is
 * let pass. */
enum err file_load_private(const char *path, struct buf *ret) MUST_CHECK;

/* Creates or replaces path atomically and durably: written beside it with `mode`, synced, renamed.
 */
enum err file_store(const char *path, struct bytes content, unsigned mode) MUST_CHECK;
