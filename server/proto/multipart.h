/*
 * Writing multipart/mixed bodies (RFC 2046 section 5.1) of base64 parts. Threads: owner only.
 */
#pragma once

#include "base/buf.h"
#include "base/bytes.h"

/* Base64 has no '-', so that no part can contain a delimiter. */
#define MULTIPART_BOUNDARY "muster-part"
#define MULTIPART_TYPE "multipart/mixed; boundary=" MULTIPART_BOUNDARY

/* One part: its headers and the content in base64 on one line. */
void multipart_add(struct buf *b, const char *type, struct bytes content);
void multipart_end(struct buf *b);
