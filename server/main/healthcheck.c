#include "main/healthcheck.h"

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/text.h"
#include "http/probe.h"

enum { MAX_PORTS_BYTES = 256, ANSWER_TIMEOUT_MS = 4000, STATUS_READY = 200 };

static int unwell(const char *why, int status)
{
    fprintf(stderr, "musterd: not ready: %s", why);
    if (status > 0)
        fprintf(stderr, " (%d)", status);
    fputc('\n', stderr);
    return 1;
}

/* A port that the system chose is in the file that serve wrote. */
static enum err port_published(const char *path, uint16_t *ret_port)
{
    _cleanup_(buf_donep) struct buf file = {0};
    int64_t port = 0;
    buf_init(&file, MAX_PORTS_BYTES);
    if (path[0] == '\0' || file_load(path, &file))
        return ERR_SYSTEM;
    char *found = strstr(buf_text(&file), "device=");
    if (!found)
        return ERR_INVALID;
    found += strlen("device=");
    found[strcspn(found, "\n")] = '\0';
    if (text_parse_int(found, 1, UINT16_MAX, &port))
        return ERR_INVALID;
    *ret_port = (uint16_t)port;
    return ERR_OK;
}

int healthcheck_run(const struct config *config)
{
    uint16_t port = (uint16_t)config->listen_device_port;
    int status = 0;
    if (port == 0 && port_published(config->listen_ports_file, &port))
        return unwell("[listen] ports_file does not tell the port", 0);
    const struct probe probe = {
        .address = config->listen_device_address,
        .port = port,
        .balancers = config->listen_proxy_protocol_from,
        .path = "/readyz",
        .timeout_ms = ANSWER_TIMEOUT_MS,
    };
    if (probe_get(&probe, &status))
        return unwell("the device listener does not answer", 0);
    return status == STATUS_READY ? 0 : unwell("/readyz says so", status);
}
