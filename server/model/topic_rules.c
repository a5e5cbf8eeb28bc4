#include "model/topic_rules.h"

#include <stddef.h>
#include <string.h>

#include "model/broker_wire.h"

/* What follows the prefix in s, NULL when s does not begin with it. */
static const char *after(const char *s, const char *prefix)
{
    size_t len = strlen(prefix);
    return s && strncmp(s, prefix, len) == 0 ? s + len : NULL;
}

bool topic_is_of_thing(const char *topic, const char *thing)
{
    const char *plain = after(topic, "things/");
    const char *rest = plain ? plain : after(topic, "$aws/things/");
    if (*thing == '\0')
        return false;
    rest = after(after(rest, thing), "/");
    return rest && *rest != '\0';
}

bool topic_is_reserved(const char *topic, bool write)
{
    static const struct {
        const char *prefix;
        bool read; /* nor read */
    } rows[] = {{WIRE_TOPIC_PREFIX, true},
                {"$CONTROL/", true},
                {"$aws/certificates/", true},
                {"$aws/provisioning-templates/", true},
                {"$aws/events/", false},
                {"$muster/", false},
                {"$SYS/", false}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if ((write || rows[i].read) && after(topic, rows[i].prefix))
            return true;
    }
    return false;
}

bool topic_shared_filter(const char **filter)
{
    const char *rest = after(*filter, "$share/");
    if (!rest)
        return true;
    size_t group = strcspn(rest, "/");
    bool plain = group > 0 && rest[group] == '/' && rest[group + 1] != '\0' &&
                 strcspn(rest, "+#") >= group && strncmp(rest, "muster/", 7) != 0;
    *filter = rest + group + 1;
    return plain;
}
