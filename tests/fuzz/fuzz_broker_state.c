/*
 * The file of the broker's table, behind whose content its digest is put here, so that the content
 * is looked at. What is accepted is written again, and read again with as many entries.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/secret.h"
#include "broker/state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { PATH_BYTES = 64 };

static void must(bool holds)
{
    if (!holds)
        abort();
}

/* A file of this process alone. */
static int file_make(const uint8_t *data, size_t len, char path[PATH_BYTES])
{
    uint8_t digest[SHA256_BYTES];
    int fd = memfd_create("state", MFD_CLOEXEC);
    must(fd >= 0 && fchmod(fd, 0600) == 0 && digest_sha256(bytes_of(data, len), digest) == ERR_OK);
    must(write(fd, data, len) == (ssize_t)len &&
         write(fd, digest, sizeof(digest)) == (ssize_t)sizeof(digest));
    snprintf(path, PATH_BYTES, "/proc/self/fd/%d", fd);
    return fd;
}

static void again_check(struct table *table, struct policies *policies, struct state_head head)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof(path), "fuzz_broker_state.%d", (int)getpid());
    size_t certificates = table_count(table), forms = policies_count(policies);
    must(state_write(path, table, policies, &head) == ERR_OK);
    table_clear(table);
    policies_clear(policies);
    must(state_read(path, head.saved_s, table, policies, &head) == ERR_OK);
    must(table_count(table) == certificates && policies_count(policies) == forms);
    unlink(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct table *table = NULL;
    struct policies *policies = NULL;
    struct state_head head;
    char path[PATH_BYTES];
    int fd = file_make(data, len, path);
    must(table_new(&table) == ERR_OK && policies_new(&policies) == ERR_OK);
    if (state_read(path, 0, table, policies, &head) == ERR_OK)
        again_check(table, policies, head);
    else
        must(table_count(table) == 0 && policies_count(policies) == 0);
    table_free(table);
    policies_free(policies);
    close(fd);
    return 0;
}
