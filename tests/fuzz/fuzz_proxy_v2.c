/* The header that a balancer sends in front of TLS, in pieces as a socket gives them. */
#include <stdlib.h>

#include "http/proxy_v2.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct proxy_v2 p = {0};
    size_t whole = 0;
    enum err first = proxy_v2_length(bytes_of(data, len), &whole);
    if (first == ERR_OK && (whole < PROXY_V2_FIXED_BYTES || whole > PROXY_V2_MAX_BYTES))
        abort();
    enum err second = proxy_v2_decode(bytes_of(data, len), &p);
    if ((second == ERR_OK) != (first == ERR_OK && whole == len))
        abort();
    if (second == ERR_OK && !p.local && p.source.ss_family != AF_INET &&
        p.source.ss_family != AF_INET6)
        abort();
    return 0;
}
