/* The text of tokens: a prefix and 256 random bits. Only the hash is kept. Threads: any. */
#pragma once

#include <stdint.h>

#include "base/err.h"
#include "base/secret.h"

enum { TOKEN_TEXT_BYTES = 64, TOKEN_RANDOM_BYTES = 32 };

/* prefix: "mst_" for devices, "mat_" for operators. ret_hash: SHA-256 of the whole text. */
enum err token_text_new(const char *prefix, char ret_text[TOKEN_TEXT_BYTES],
                        uint8_t ret_hash[SHA256_BYTES]) MUST_CHECK;
