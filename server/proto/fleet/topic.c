/* The request topics of AWS IoT. */
#include <string.h>

#include "base/cleanup.h"
#include "enroll/template.h"
#include "proto/fleet/fleet.h"

#define TEMPLATES "$aws/provisioning-templates/"
#define PROVISION "/provision/"

static const struct {
    const char *prefix;
    enum enrollment_flow flow;
    bool make_key;
} creations[] = {
    {"$aws/certificates/create/", FLOW_CREATE, true},
    {"$aws/certificates/create-from-csr/", FLOW_CREATE, false},
};

static enum err format_parse(const char *text, struct fleet_operation *op)
{
    if (strcmp(text, "json") != 0 && strcmp(text, "cbor") != 0)
        return ERR_INVALID;
    op->format = text[0] == 'j' ? FLEET_JSON : FLEET_CBOR;
    return ERR_OK;
}

static enum err template_parse(const char *text, struct fleet_operation *op)
{
    size_t len = strcspn(text, "/");
    if (len >= sizeof(op->template_name) || strncmp(text + len, PROVISION, strlen(PROVISION)) != 0)
        return ERR_INVALID;
    memcpy(op->template_name, text, len);
    op->template_name[len] = '\0';
    op->flow = FLOW_REGISTER;
    if (!template_name_valid(op->template_name))
        return ERR_INVALID;
    return format_parse(text + len + strlen(PROVISION), op);
}

enum err fleet_topic_parse(const char *topic, struct fleet_operation *ret_operation)
{
    struct fleet_operation op = {0};
    enum err e = ERR_INVALID;
    for (size_t i = 0; i < ARRAY_LEN(creations); i++) {
        size_t len = strlen(creations[i].prefix);
        if (strncmp(topic, creations[i].prefix, len) != 0)
            continue;
        op.flow = creations[i].flow;
        op.make_key = creations[i].make_key;
        e = format_parse(topic + len, &op);
    }
    if (strncmp(topic, TEMPLATES, strlen(TEMPLATES)) == 0)
        e = template_parse(topic + strlen(TEMPLATES), &op);
    if (!e)
        *ret_operation = op;
    return e;
}
