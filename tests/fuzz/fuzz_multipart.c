/* What is written as multipart comes apart again in the same pieces. */
#include <assert.h>
#include <string.h>

#include "base/arena.h"
#include "base/base64.h"
#include "proto/multipart.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { MAX_BYTES = 1 << 20 };

#define DELIMITER "--" MULTIPART_BOUNDARY

/* The content of the part that begins at *at, which moves behind it. */
static struct bytes part_take(struct arena *a, const char **at)
{
    struct bytes content = {0};
    assert(strncmp(*at, DELIMITER "\r\n", strlen(DELIMITER) + 2) == 0);
    const char *body = strstr(*at, "\r\n\r\n");
    assert(body);
    const char *end = strstr(body + 4, "\r\n" DELIMITER);
    assert(end);
    assert(base64_decode(a, bytes_of(body + 4, (size_t)(end - body - 4)), &content) == ERR_OK);
    *at = end + 2;
    return content;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct buf b;
    struct arena a;
    size_t half = len / 2;
    buf_init(&b, MAX_BYTES);
    arena_init(&a, 4 * MAX_BYTES);
    multipart_add(&b, "application/pkcs8", bytes_of(data, half));
    multipart_add(&b, "application/pkcs7-mime", bytes_of(data + half, len - half));
    multipart_end(&b);
    if (!b.overflow) {
        const char *at = buf_text(&b);
        assert(bytes_equal(part_take(&a, &at), bytes_of(data, half)));
        assert(bytes_equal(part_take(&a, &at), bytes_of(data + half, len - half)));
        assert(strcmp(at, DELIMITER "--\r\n") == 0);
    }
    arena_done(&a);
    buf_done(&b);
    return 0;
}
