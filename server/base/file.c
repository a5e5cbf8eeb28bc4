#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

static enum err read_all(int fd, struct buf *ret)
{
    char chunk[8192];
    for (;;) {
        ssize_t n = read(fd, chunk, sizeof(chunk));
        if (n == 0)
            return ret->overflow ? ERR_INVALID : ERR_OK;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return ERR_SYSTEM;
        buf_add(ret, chunk, (size_t)n);
        if (ret->overflow)
            return ERR_INVALID;
    }
}

enum err file_load(const char *path, struct buf *ret)
{
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return ERR_SYSTEM;
    return read_all(fd, ret);
}

static bool is_credential(const char *path)
{
    const char *folder = getenv("CREDENTIALS_DIRECTORY");
    size_t len = folder ? strlen(folder) : 0;
    return len > 1 && strncmp(path, folder, len) == 0 && path[len] == '/';
}

enum err file_load_private(const char *path, struct buf *ret)
{
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0)
        return ERR_SYSTEM;
    mode_t closed = (S_IRWXG | S_IRWXO) & ~(is_credential(path) ? (mode_t)S_IRGRP : 0);
    bool foreign = st.st_uid != geteuid() && st.st_uid != 0;
    if (foreign || !S_ISREG(st.st_mode) || (st.st_mode & closed) != 0)
        return ERR_DENIED;
    return read_all(fd, ret);
}

static enum err write_all(int fd, struct bytes content)
{
    size_t done = 0;
    while (done < content.len) {
        ssize_t n = write(fd, content.data + done, content.len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return ERR_SYSTEM;
        done += (size_t)n;
    }
    return fsync(fd) == 0 ? ERR_OK : ERR_SYSTEM;
}

/* Makes the rename itself durable. */
static void sync_folder(const char *path)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t len = slash ? (size_t)(slash - path) : 0;
    snprintf(folder, sizeof(folder), "%.*s", slash ? (int)(len ? len : 1) : 1, slash ? path : ".");
    _cleanup_(closep) int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0)
        (void)fsync(fd);
}

enum err file_store(const char *path, struct bytes content, unsigned mode)
{
    char beside[PATH_MAX];
    int n = snprintf(beside, sizeof(beside), "%s.new", path);
    if (n < 0 || (size_t)n >= sizeof(beside))
        return ERR_INVALID;
    (void)unlink(beside);
    _cleanup_(closep) int fd = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0)
        return ERR_SYSTEM;
    enum err e = write_all(fd, content);
    if (!e && rename(beside, path) != 0)
        e = ERR_SYSTEM;
    if (e)
        (void)unlink(beside);
    else
        sync_folder(path);
    return e;
}
