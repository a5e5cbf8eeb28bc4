/*
 * The binary header of the PROXY protocol, version 2 (HAProxy's proxy-protocol.txt, section 2.2):
 * who is behind a balancer that passes TLS through. Pure: bytes in, struct out; the caller reads
 * exactly as many bytes as the header has, so that TLS begins where it ends. Threads: any.
 */
#pragma once

#include <stdbool.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/err.h"

enum {
    PROXY_V2_FIXED_BYTES = 16,
    PROXY_V2_MAX_BYTES = PROXY_V2_FIXED_BYTES + 2048, /* addresses and TLVs behind it */
};

struct proxy_v2 {
    bool local; /* LOCAL or UNSPEC: the connection's own address counts */
    struct sockaddr_storage source;
};

/* How long the whole header is, from its first PROXY_V2_FIXED_BYTES. ERR_INVALID: it is none that
 * is taken here (signature, version, command, family, length). */
enum err proxy_v2_length(struct bytes fixed, size_t *ret_len) MUST_CHECK;

/* The whole header. TCP over IPv4 and IPv6, LOCAL and UNSPEC; TLVs are skipped unread. */
enum err proxy_v2_decode(struct bytes header, struct proxy_v2 *ret_proxy) MUST_CHECK;
