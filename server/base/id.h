/* Names for requests. Threads: any. */
#pragma once

#include "base/err.h"

enum { ID_TEXT_BYTES = 33 };

/* A UUID version 7 (RFC 9562 section 5.7) as 32 hexadecimal digits: unique, and in time order. */
enum err id_new(char ret_text[ID_TEXT_BYTES]) MUST_CHECK;

/* Whether text has the form of id_new's. */
int id_valid(const char *text);
