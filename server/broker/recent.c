#include "broker/recent.h"

#include <string.h>

enum { US_PER_S = 1000000 };

bool recent_take(struct recent *r, const uint8_t cert[SHA256_BYTES], int64_t now_us)
{
    uint64_t key;
    memcpy(&key, cert, sizeof(key));
    size_t i = key % RECENT_SLOTS;
    if (r->slots[i].key == key && now_us - r->slots[i].at_us < US_PER_S)
        return false;
    if (r->second != now_us / US_PER_S) {
        r->second = now_us / US_PER_S;
        r->count = 0;
    }
    if (r->count == RECENT_MAX_PER_S)
        return false;
    r->count++;
    r->slots[i].key = key;
    r->slots[i].at_us = now_us;
    return true;
}
