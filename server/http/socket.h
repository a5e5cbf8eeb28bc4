/*
 * Listening sockets: TCP over IPv4 and IPv6, and local ones ("unix:/path"). Threads: the maker's.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/* Whether the address is a local socket's, and its path then. */
const char *socket_local_path(const char *address);

/* A non-blocking listening socket, port 0 takes a free one. A local socket has mode 0660; a stale
 * one in its place is replaced, ERR_CONFLICT when somebody listens on it. */
enum err socket_listen(const char *address, uint16_t port, int *ret_fd) MUST_CHECK;

/* The port of a listening socket; 0: a local one. */
uint16_t socket_port(int fd);
