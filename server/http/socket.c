#include "http/socket.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"

enum { BACKLOG = 1024, LOCAL_MODE = 0660 };

static const char local_prefix[] = "unix:";

const char *socket_local_path(const char *address)
{
    size_t len = sizeof(local_prefix) - 1;
    return strncmp(address, local_prefix, len) == 0 ? address + len : NULL;
}

/* Removes a socket that nobody listens on, and nothing else. */
static enum err stale_remove(const struct sockaddr_un *at)
{
    struct stat st;
    if (lstat(at->sun_path, &st) != 0)
        return errno == ENOENT ? ERR_OK : ERR_SYSTEM;
    if (!S_ISSOCK(st.st_mode))
        return ERR_CONFLICT;
    _cleanup_(closep) int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (probe < 0)
        return ERR_SYSTEM;
    if (connect(probe, (const struct sockaddr *)at, sizeof(*at)) == 0 || errno != ECONNREFUSED)
        return ERR_CONFLICT;
    return unlink(at->sun_path) == 0 ? ERR_OK : ERR_SYSTEM;
}

/* The mode is narrow before the path exists: fchmod on a socket that is not bound yet. */
static enum err local_listen(const char *path, int *ret_fd)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    if (path[0] != '/' || strlen(path) >= sizeof(at.sun_path))
        return ERR_INVALID;
    memcpy(at.sun_path, path, strlen(path));
    enum err e = stale_remove(&at);
    if (e)
        return e;
    _cleanup_(closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || fchmod(fd, LOCAL_MODE) != 0 ||
        bind(fd, (const struct sockaddr *)&at, sizeof(at)) != 0 || chmod(path, LOCAL_MODE) != 0 ||
        listen(fd, BACKLOG) != 0)
        return ERR_SYSTEM;
    *ret_fd = fd;
    fd = -1;
    return ERR_OK;
}

static enum err tcp_listen(const struct addrinfo *at, int *ret_fd)
{
    const int on = 1, off = 0;
    _cleanup_(closep) int fd = socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0)
        return ERR_SYSTEM;
    /* "::" takes IPv4 as well, whatever the system's default is */
    if (at->ai_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    if (bind(fd, at->ai_addr, at->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0)
        return ERR_SYSTEM;
    *ret_fd = fd;
    fd = -1;
    return ERR_OK;
}

enum err socket_listen(const char *address, uint16_t port, int *ret_fd)
{
    const char *path = socket_local_path(address);
    if (path)
        return local_listen(path, ret_fd);
    char service[8];
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
                             .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    snprintf(service, sizeof(service), "%u", port);
    if (getaddrinfo(address, service, &hints, &found) != 0)
        return ERR_INVALID;
    enum err e = tcp_listen(found, ret_fd);
    freeaddrinfo(found);
    return e;
}

uint16_t socket_port(int fd)
{
    struct sockaddr_storage a = {0};
    socklen_t len = sizeof(a);
    if (getsockname(fd, (struct sockaddr *)&a, &len) != 0)
        return 0;
    if (a.ss_family == AF_INET6)
        return ntohs(((const struct sockaddr_in6 *)&a)->sin6_port);
    return a.ss_family == AF_INET ? ntohs(((const struct sockaddr_in *)&a)->sin_port) : 0;
}
