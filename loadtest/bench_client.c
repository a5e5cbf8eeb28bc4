/*
 * The client of loadtest/bench.
 *
 *   bench-client CAFILE PORT get      COUNT AT_ONCE PATH
 *   bench-client CAFILE PORT enrol    COUNT AT_ONCE PATH   lines "serial token" on standard input
 *   bench-client CAFILE PORT idle     COUNT
 *   bench-client CAFILE PORT half-open COUNT
 *
 * Keys and requests are made ahead. It says "ready", waits for a line, does the work, and prints
 * "good failed p50_us p99_us wall_us"; connections to hold are open before it says "ready" and
 * are closed after the line.
 */
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"

enum { MAX_LINE = 256, MAX_COUNT = 1000000 };

static void die(const char *what)
{
    fprintf(stderr, "bench-client: %s\n", what);
    exit(2);
}

/* Base64 of a request for a new key with the serial as its common name. */
static void csr_make(const char *serial, EVP_PKEY *key, unsigned char *ret_text)
{
    unsigned char *der = NULL;
    X509_REQ *rq = X509_REQ_new();
    X509_NAME *name = X509_NAME_new();
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)serial, -1, -1, 0);
    X509_REQ_set_subject_name(rq, name);
    X509_REQ_set_pubkey(rq, key);
    if (!X509_REQ_sign(rq, key, EVP_sha256()))
        die("cannot sign a request");
    int len = i2d_X509_REQ(rq, &der);
    if (len <= 0 || len > 1024)
        die("a request is too long");
    EVP_EncodeBlock(ret_text, der, len);
    OPENSSL_free(der);
    X509_NAME_free(name);
    X509_REQ_free(rq);
}

static void job_set(struct job *j, const char *text, int len)
{
    j->request = len > 0 && len < CLIENT_MAX_REQUEST_BYTES ? strdup(text) : NULL;
    if (!j->request)
        die("a request is too long");
    j->request_len = (size_t)len;
}

static void enrolment_make(struct job *j, const char *path)
{
    char line[MAX_LINE], text[CLIENT_MAX_REQUEST_BYTES], pair[2 * MAX_LINE];
    unsigned char body[2048], credential[4 * MAX_LINE];
    char serial[MAX_LINE], token[MAX_LINE];
    if (!fgets(line, sizeof(line), stdin) || sscanf(line, "%255s %255s", serial, token) != 2)
        die("a line \"serial token\" is missing");
    j->key = EVP_EC_gen("P-256");
    csr_make(serial, j->key, body);
    int len = snprintf(pair, sizeof(pair), "%s:%s", serial, token);
    EVP_EncodeBlock(credential, (const unsigned char *)pair, len);
    len = snprintf(text, sizeof(text),
                   "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Basic %s\r\n"
                   "Content-Type: application/pkcs10\r\nContent-Length: %zu\r\n\r\n%s",
                   path, credential, strlen((char *)body), body);
    job_set(j, text, len);
}

static void get_make(struct job *j, const char *path)
{
    char text[CLIENT_MAX_REQUEST_BYTES];
    job_set(j, text,
            snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", path));
}

static void wait_for_line(void)
{
    char line[MAX_LINE];
    printf("ready\n");
    fflush(stdout);
    if (!fgets(line, sizeof(line), stdin))
        exit(0);
}

static int by_time(const void *a, const void *b)
{
    int64_t x = ((const struct job *)a)->took_us, y = ((const struct job *)b)->took_us;
    return (x > y) - (x < y);
}

static int work(struct client *c, const char *kind, size_t count, char **args)
{
    struct job *jobs = calloc(count, sizeof(*jobs));
    size_t at_once = strtoul(args[0], NULL, 10);
    if (!jobs || at_once == 0)
        die("AT_ONCE must be a number above zero");
    for (size_t i = 0; i < count; i++)
        (strcmp(kind, "get") == 0 ? get_make : enrolment_make)(&jobs[i], args[1]);
    wait_for_line();
    int64_t started = client_now_us();
    size_t good = client_run(c, jobs, count, at_once);
    int64_t wall = client_now_us() - started;
    for (size_t i = 0; i < count && good < count; i++) {
        if (jobs[i].why[0] != '\0') {
            fprintf(stderr, "bench-client: %s\n", jobs[i].why);
            break;
        }
    }
    qsort(jobs, count, sizeof(*jobs), by_time);
    printf("%zu %zu %lld %lld %lld\n", good, count - good, (long long)jobs[count / 2].took_us,
           (long long)jobs[count * 99 / 100].took_us, (long long)wall);
    for (size_t i = 0; i < count; i++) {
        EVP_PKEY_free(jobs[i].key);
        free(jobs[i].request);
    }
    free(jobs);
    return good == count ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc < 5)
        die("CAFILE PORT get|enrol|idle|half-open COUNT [AT_ONCE PATH]");
    size_t count = strtoul(argv[4], NULL, 10);
    struct client *c = client_new(argv[1], atoi(argv[2]));
    if (!c || count == 0 || count > MAX_COUNT)
        die("cannot begin: check CAFILE and COUNT");
    int status = 0;
    bool half_open = strcmp(argv[3], "half-open") == 0;
    if (half_open || strcmp(argv[3], "idle") == 0) {
        if (client_hold(c, count, half_open) != count)
            die("not all connections came about");
        wait_for_line();
    } else {
        if (argc < 7)
            die("AT_ONCE and PATH are missing");
        status = work(c, argv[3], count, argv + 5);
    }
    client_free(c);
    return status;
}
