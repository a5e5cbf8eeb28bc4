#include "model/serial.h"

#include <string.h>

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
static const char digits[] = "0123456789";
static const char separators[] = "._:-";

enum err serial_case_parse(const char *name, enum serial_case *ret_case)
{
    static const char *const names[] = {"keep", "upper", "lower"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(name, names[i]) == 0) {
            *ret_case = (enum serial_case)i;
            return ERR_OK;
        }
    }
    return ERR_INVALID;
}

static char fold(enum serial_case letter_case, char c)
{
    if (letter_case == SERIAL_CASE_UPPER && c >= 'a' && c <= 'z')
        return (char)(c - 'a' + 'A');
    if (letter_case == SERIAL_CASE_LOWER && c >= 'A' && c <= 'Z')
        return (char)(c - 'A' + 'a');
    return c;
}

enum err serial_parse(const struct serial_rule *rule, const char *text, struct serial *ret_serial)
{
    size_t len = strnlen(text, SERIAL_MAX_CHARS + 1);
    if (len == 0 || len > SERIAL_MAX_CHARS)
        return ERR_INVALID;
    struct serial s = {0};
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        bool is_separator = strchr(separators, text[i]) != NULL;
        if (!is_separator && !strchr(letters, text[i]) && !strchr(digits, text[i]))
            return ERR_INVALID;
        s.given[i] = text[i];
        if (!is_separator || !rule->strip_separators)
            s.canonical[n++] = fold(rule->letter_case, text[i]);
    }
    if (n == 0)
        return ERR_INVALID;
    *ret_serial = s;
    return ERR_OK;
}
