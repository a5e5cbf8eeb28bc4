#include "model/profile.h"

#include <string.h>

#include "base/cleanup.h"

static const struct {
    enum key_kind kind;
    const char *name;
} kinds[] = {
    {KEY_P256, "P-256"},       {KEY_P384, "P-384"},       {KEY_RSA2048, "RSA-2048"},
    {KEY_RSA3072, "RSA-3072"}, {KEY_RSA4096, "RSA-4096"}, {KEY_ED25519, "Ed25519"},
};

const char *key_kind_name(enum key_kind k)
{
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (kinds[i].kind == k)
            return kinds[i].name;
    }
    return NULL;
}

enum key_kind key_kind_parse(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (strcmp(kinds[i].name, name) == 0)
            return kinds[i].kind;
    }
    return 0;
}
