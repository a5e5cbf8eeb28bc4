/*
 * The broker's folder of trusted CAs (Mosquitto's capath), kept as the registry has them: a file
 * for each under its hash, as openssl rehash names them, so that OpenSSL finds a new one at the
 * next handshake. Files that somebody else put there stay. Threads: the broker's only.
 */
#pragma once

#include <stddef.h>

#include "base/bytes.h"
#include "base/err.h"

enum { CAS_MAX = 1024 };

/* Makes the folder have exactly these, besides others' files. ERR_INVALID: one is no certificate,
 * and was left out; ERR_SYSTEM: the folder cannot be written, errno says why. */
enum err cas_keep(const char *folder, const struct bytes *ders, size_t count) MUST_CHECK;
