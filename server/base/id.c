#include "base/id.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/secret.h"

enum err id_new(char ret_text[ID_TEXT_BYTES])
{
    uint8_t raw[16];
    struct timespec ts;
    enum err e = secret_random(raw, sizeof(raw));
    if (e)
        return e;
    clock_gettime(CLOCK_REALTIME, &ts);
    uint64_t ms = (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
    for (int i = 0; i < 6; i++)
        raw[i] = (uint8_t)(ms >> (8 * (5 - i)));
    raw[6] = (uint8_t)(0x70 | (raw[6] & 0x0f));
    raw[8] = (uint8_t)(0x80 | (raw[8] & 0x3f));
    for (int i = 0; i < 16; i++)
        snprintf(ret_text + 2 * i, 3, "%02x", raw[i]);
    return ERR_OK;
}

int id_valid(const char *text)
{
    return strlen(text) == 32 && strspn(text, "0123456789abcdef") == 32;
}
