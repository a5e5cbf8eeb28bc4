/* The same three operations for devices without MQTT: JSON over HTTPS, the claim certificate in
 * TLS. */
#include <string.h>

#include "base/cleanup.h"
#include "enroll/service.h"
#include "enroll/template.h"
#include "proto/fleet/fleet.h"

static void call_fill(struct service *service, struct exchange *x, struct fleet_call *call)
{
    *call = (struct fleet_call){
        .arena = x->arena,
        .request_id = x->request_id,
        .since_us = x->since_us,
        .transport = "https",
        .source = x->source,
        .gate = service->device_gate,
        .chain_count = x->chain_count,
        .payload = x->body,
        .problem = true,
    };
    memcpy(call->chain, x->chain, sizeof(call->chain));
}

static enum err run(struct service *service, struct exchange *x, const struct fleet_operation *op)
{
    struct fleet_call call;
    struct fleet_reply reply;
    call_fill(service, x, &call);
    fleet_run(service, op, &call, &reply);
    x->log_serial = reply.serial;
    x->log_credential = reply.credential;
    x->log_template = reply.template;
    x->fault = reply.fault;
    if (!reply.accepted)
        x->told = fault_public(reply.fault.code, false);
    exchange_add_retry(x, reply.retry_after_s);
    const char *type = reply.status < 400 ? "application/json" : "application/problem+json";
    exchange_reply(x, reply.status, type, reply.payload);
    return ERR_OK;
}

static enum err create_keys_handle(struct service *service, struct exchange *x)
{
    const struct fleet_operation op = {.flow = FLOW_CREATE, .make_key = true};
    return run(service, x, &op);
}

static enum err create_from_csr_handle(struct service *service, struct exchange *x)
{
    const struct fleet_operation op = {.flow = FLOW_CREATE};
    return run(service, x, &op);
}

static enum err register_handle(struct service *service, struct exchange *x)
{
    struct fleet_operation op = {.flow = FLOW_REGISTER};
    if (!template_name_valid(x->args[0]) || strlen(x->args[0]) >= sizeof(op.template_name))
        return fault_set(&x->fault, FAULT_TEMPLATE_UNKNOWN, "no enabled template \"%.80s\"",
                         x->args[0]);
    memcpy(op.template_name, x->args[0], strlen(x->args[0]) + 1);
    return run(service, x, &op);
}

static const struct route routes[] = {
    {HTTP_POST, "/v1/certificates/create", "application/json", FLEET_MAX_PAYLOAD_BYTES, 0,
     create_keys_handle, NULL},
    {HTTP_POST, "/v1/certificates/create-from-csr", "application/json", FLEET_MAX_PAYLOAD_BYTES, 0,
     create_from_csr_handle, NULL},
    {HTTP_POST, "/v1/provisioning-templates/{}/provision", "application/json",
     FLEET_MAX_PAYLOAD_BYTES, 0, register_handle, NULL},
};

const struct route_table fleet_routes = {
    .rows = routes, .count = ARRAY_LEN(routes), .protocol = PROTOCOL_FLEET};
