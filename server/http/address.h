/*
 * Network addresses: one as text, and lists of ranges such as "10.0.0.0/8, fd00::/8, 192.0.2.1".
 * IPv4 inside IPv6 (::ffff:a.b.c.d) counts as IPv4 everywhere. Pure. Threads: any.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/err.h"

enum { ADDRESS_TEXT_BYTES = 48, ADDRESS_MAX_RANGES = 32 };

struct address_range {
    uint8_t bytes[16]; /* the first 4 of them for IPv4 */
    int family;
    unsigned bits; /* that are compared */
};

struct address_list {
    struct address_range ranges[ADDRESS_MAX_RANGES];
    size_t count;
};

/* Addresses or CIDR ranges, separated by commas and blanks; bits behind the mask must be zero.
 * An empty text is the empty list. */
enum err address_list_parse(const char *text, struct address_list *ret_list) MUST_CHECK;

bool address_list_has(const struct address_list *list, const struct sockaddr_storage *address);

/* One numeric address, nothing around it. */
enum err address_parse(const char *text, struct sockaddr_storage *ret_address) MUST_CHECK;

/* Turns IPv4 inside IPv6 into IPv4. */
void address_plain(struct sockaddr_storage *address);

/* The numeric address without its port; "unix" for a local peer. */
void address_text(const struct sockaddr_storage *address, char ret_text[ADDRESS_TEXT_BYTES]);

/* Bytes of the structure its family has. */
socklen_t address_length(const struct sockaddr_storage *address);
