/* Receivers of events. */
#include <ctype.h>
#include <string.h>

#include "proto/admin/hooks.h"

/* http or https with a host, and nothing in it that a log or a header must not have. */
static bool url_good(const char *url)
{
    size_t skip = strncmp(url, "https://", 8) == 0 ? 8 : strncmp(url, "http://", 7) == 0 ? 7 : 0;
    for (const char *p = url; *p; p++) {
        if (*p <= ' ' || *p > '~')
            return false;
    }
    return skip > 0 && isalnum((unsigned char)url[skip] == '[' ? 'a' : (unsigned char)url[skip]);
}

enum err webhook_create_before(struct service *service, struct exchange *x, json_t *args)
{
    (void)service;
    if (!url_good(json_string_value(json_object_get(args, "url"))))
        return fault_set(&x->fault, FAULT_REQUEST_MALFORMED,
                         "url must be http:// or https:// with a host, in printable ASCII");
    return ERR_OK;
}
