/*
 * QR codes (ISO/IEC 18004) as pictures: libqrencode makes the code, libpng the file.
 * Threads: main only.
 */
#pragma once

#include "base/err.h"

enum { QR_MAX_BYTES = 512 };

/* In half blocks of a terminal, light on dark or dark on light alike, on standard output.
 * ERR_INVALID: the text is longer than QR_MAX_BYTES. */
enum err qr_print(const char *text) MUST_CHECK;

/* Into a new file that is its owner's alone; errno says why not. */
enum err qr_write_png(const char *text, const char *path) MUST_CHECK;
