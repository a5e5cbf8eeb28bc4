/*
 * Where GnuTLS has its random numbers from: this program's gnutls_rnd stands before the library's
 * own (ELF gABI, symbol interposition). Threads: any.
 */
#pragma once

#include <stdbool.h>

/* Whether the libraries of this process call ours. */
bool random_is_ours(void);
