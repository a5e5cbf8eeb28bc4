#include "proto/multipart.h"

#include "base/base64.h"

void multipart_add(struct buf *b, const char *type, struct bytes content)
{
    buf_printf(b,
               "--" MULTIPART_BOUNDARY "\r\nContent-Type: %s\r\n"
               "Content-Transfer-Encoding: base64\r\n\r\n",
               type);
    base64_encode(b, content);
    buf_add_text(b, "\r\n");
}

void multipart_end(struct buf *b)
{
    buf_add_text(b, "--" MULTIPART_BOUNDARY "--\r\n");
}
