#include "enroll/factory_entry.h"

#include <jansson.h>

#include "base/base64.h"
#include "base/cleanup.h"

static const int64_t last_second = 253402300799; /* of the year 9999 */

static enum err invalid(struct fault *fault, const char *what)
{
    return fault_set(fault, FAULT_JOURNAL_ENTRY, "%s", what);
}

static enum err certificate_read(const char *text, struct arena *arena, struct factory_entry *entry,
                                 struct fault *fault)
{
    _cleanup_(cert_freep) X509 *cert = NULL;
    struct bytes der;
    if (base64_decode(arena, bytes_text(text), &der) || der.len > CERT_MAX_BYTES ||
        cert_decode(der, &cert) || cert_describe(arena, cert, &entry->cert))
        return invalid(fault, "certificate is no DER in base64 that can be read");
    entry->der = der;
    return ERR_OK;
}

enum err factory_entry_parse(struct bytes text, const struct serial_rule *rule, struct arena *arena,
                             struct factory_entry *ret_entry, struct fault *fault)
{
    _cleanup_(json_decrefp) json_t *o =
        json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, NULL);
    const char *serial = json_string_value(json_object_get(o, "serial"));
    const char *certificate = json_string_value(json_object_get(o, "certificate"));
    json_int_t at_s = json_integer_value(json_object_get(o, "at"));
    *ret_entry = (struct factory_entry){.at_s = 0};
    if (at_s > 0 && at_s <= last_second)
        ret_entry->at_s = at_s;
    if (!serial || !certificate)
        return invalid(fault, "the line has no serial, or no certificate");
    if (serial_parse(rule, serial, &ret_entry->serial))
        return invalid(fault, "serial is not one the product allows");
    ret_entry->serial_known = true;
    return certificate_read(certificate, arena, ret_entry, fault);
}
