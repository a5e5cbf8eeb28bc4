/* The configuration file: what is accepted is complete, in range and of the allowed length. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "ops/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void must(bool holds)
{
    if (!holds)
        abort();
}

static void accepted_check(const struct config *c)
{
    must(c->tls_key[0] != '\0' && c->tls_certificate[0] != '\0' && c->ca_directory[0] != '\0');
    must(c->listen_device_port >= 0 && c->listen_device_port <= 65535);
    must(c->database_pool_size >= 2 && c->database_pool_size <= 64);
    must(strlen(c->database_host) <= CONFIG_MAX_TEXT_BYTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    char path[64], message[CONFIG_MESSAGE_BYTES] = "";
    struct config *c = NULL;
    int fd = memfd_create("config", MFD_CLOEXEC);
    must(fd >= 0 && write(fd, data, len) == (ssize_t)len);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    enum err e = config_load(path, &c, message);
    must((e == ERR_OK) == (c != NULL) && (e == ERR_OK) == (message[0] == '\0'));
    if (c)
        accepted_check(c);
    config_free(c);
    close(fd);
    return 0;
}
