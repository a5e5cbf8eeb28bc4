#include "model/registration_id.h"

#include <stddef.h>
#include <string.h>

/* Not the locale's: the registry compares ids without case, and agrees with nobody beyond ASCII. */
static bool is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool registration_id_valid(const char *id)
{
    size_t len = strlen(id);
    for (const char *c = id; *c; c++) {
        if (!is_alnum(*c) && !strchr("._:-", *c))
            return false;
    }
    return len > 0 && len <= REGISTRATION_ID_MAX_CHARS &&
           (is_alnum(id[len - 1]) || id[len - 1] == '-');
}
