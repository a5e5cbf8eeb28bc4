/* What who still asks at the end of a drain is told, in each protocol's own words. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/gate.h"
#include "enroll/metrics.h"
#include "enroll/service.h"
#include "http/listener.h"
#include "http/socket.h"
#include "proto/dps/dps.h"
#include "proto/est/est.h"
#include "proto/scep/scep.h"
#include "suite.h"

enum { ANSWER_BYTES = 8192 };

#define DPS "/0ne00000001/registrations/pump-1"
#define JSON                                                                                       \
    "Content-Type: application/json\r\nContent-Length: 27\r\n\r\n{\"registrationId\":\"pump-1\"}"

struct place {
    char folder[64], address[128];
    struct service service;
    struct gate gate;
    struct listener *listener;
};

static void place_make(struct place *p)
{
    *p = (struct place){.service.dps_scope = "0ne00000001", .folder = "/tmp/muster-drain-XXXXXX"};
    ck_assert_ptr_nonnull(mkdtemp(p->folder));
    snprintf(p->address, sizeof(p->address), "unix:%s/socket", p->folder);
    ck_assert_int_eq(metrics_new(&p->service.metrics), ERR_OK);
    ck_assert_int_eq(gate_init(&p->gate, 1, 1), ERR_OK);
    const struct listener_config config = {
        .name = "device",
        .address = p->address,
        .max_connections = 8,
        .idle_timeout_s = 10,
        .request_timeout_s = 10,
        .request_arena_bytes = 1 << 20,
        .memory_bytes = LISTENER_MEMORY_BYTES,
        .tables = {&est_routes, &dps_routes, &scep_routes},
        .table_count = 3,
    };
    ck_assert_int_eq(listener_new(&config, &p->service, &p->gate, &p->listener), ERR_OK);
}

static void place_done(struct place *p)
{
    listener_free(p->listener);
    gate_done(&p->gate);
    metrics_free(p->service.metrics);
    unlink(socket_local_path(p->address));
    rmdir(p->folder);
}

/* One request, and all that is said until the connection ends. */
static void ask(const struct place *p, const char *request, char answer[ANSWER_BYTES])
{
    _cleanup_(closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    snprintf(to.sun_path, sizeof(to.sun_path), "%s", socket_local_path(p->address));
    ck_assert_int_eq(connect(fd, (const struct sockaddr *)&to, sizeof(to)), 0);
    ck_assert_int_eq(write(fd, request, strlen(request)), (ssize_t)strlen(request));
    size_t len = 0;
    ssize_t n = 0;
    while ((n = read(fd, answer + len, ANSWER_BYTES - 1 - len)) > 0)
        len += (size_t)n;
    answer[len] = '\0';
}

START_TEST(each_protocol_has_words_of_its_own)
{
    static const struct {
        const char *request;
        const char *said[4];
    } cases[] = {
        {"PUT " DPS
         "/register?api-version=2021-06-01 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" JSON,
         {"HTTP/1.1 202 ", "Retry-After: ", "Location: " DPS, "\"status\":\"assigning\""}},
        {"GET " DPS
         "/operations/4.x?api-version=2021-06-01 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
         {"HTTP/1.1 202 ", "Retry-After: ", "\"operationId\":\"4.x\"", "\"status\":\"assigning\""}},
        {"POST " DPS "?api-version=2021-06-01 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" JSON,
         {"HTTP/1.1 503 ", "Retry-After: ", "\"errorCode\":503", "\"code\":\"load.draining\""}},
        {"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
         {"HTTP/1.1 503 ", "Retry-After: ", "application/problem+json",
          "\"code\":\"load.draining\""}},
        {"GET /scep?operation=GetCACaps HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
         {"HTTP/1.1 503 ", "Retry-After: ", "application/problem+json",
          "\"code\":\"load.draining\""}},
        {"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
         {"HTTP/1.1 503 ", "Retry-After: ", "application/problem+json",
          "\"code\":\"load.draining\""}},
    };
    struct place p;
    place_make(&p);
    listener_refuse(p.listener);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char answer[ANSWER_BYTES];
        ask(&p, cases[i].request, answer);
        for (size_t j = 0; j < ARRAY_LEN(cases[i].said); j++)
            ck_assert_msg(strstr(answer, cases[i].said[j]) != NULL,
                          "%s\nis not in the answer to\n%s\n\n%s", cases[i].said[j],
                          cases[i].request, answer);
    }
    place_done(&p);
}
END_TEST

SUITE("drain", each_protocol_has_words_of_its_own)
