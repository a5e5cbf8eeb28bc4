/*
 * What holds for the topics of devices at any broker, whatever a policy says (docs/policies.md).
 * Threads: any.
 */
#pragma once

#include <stdbool.h>

/* Below things/T/ or $aws/things/T/; a filter may have wildcards behind that. */
bool topic_is_of_thing(const char *topic, const char *thing);

/* No device may write there, nor, of some, read. */
bool topic_is_reserved(const char *topic, bool write);

/* Of a shared subscription the filter behind its group; false when the group is not a device's to
 * use. */
bool topic_shared_filter(const char **filter);
