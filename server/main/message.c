#include "main/message.h"

#include <stdio.h>

enum err message_at(char message[CONFIG_MESSAGE_BYTES], enum err e, const char *what,
                    const char *where)
{
    snprintf(
        message, CONFIG_MESSAGE_BYTES, "%s%s%.300s: %s", what, where[0] != '\0' ? ", " : "", where,
        e == ERR_DENIED ? "the file must be readable by its owner only (mode 0600)" : err_name(e));
    return e;
}

enum err message_of(char message[CONFIG_MESSAGE_BYTES], enum err e, const char *what)
{
    return message_at(message, e, what, "");
}
