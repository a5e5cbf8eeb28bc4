#include "cli/factory_out.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/client.h"

enum { MAX_NAME_BYTES = 128 };

static const char manifest_name[] = "manifest.jsonl";

struct factory_out {
    int folder;
    int manifest;
    bool has_secrets; /* that are nowhere else */
    bool has_chain;
    char **serials; /* sorted */
    size_t count;
    size_t cap;
};

static int complain(const char *what)
{
    fprintf(stderr, "muster: %s: %s\n", what, strerror(errno));
    return EXIT_USAGE;
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int serial_add(struct factory_out *o, const char *serial)
{
    if (o->count == o->cap) {
        size_t cap = o->cap ? 2 * o->cap : 1024;
        char **grown = realloc(o->serials, cap * sizeof(char *));
        if (!grown)
            return complain(manifest_name);
        o->serials = grown;
        o->cap = cap;
    }
    o->serials[o->count] = strdup(serial);
    return o->serials[o->count++] ? EXIT_OK : complain(manifest_name);
}

static int line_read(struct factory_out *o, const char *line, size_t len)
{
    json_t *entry = json_loadb(line, len, 0, NULL);
    const char *serial = json_string_value(json_object_get(entry, "serial"));
    int rc = serial ? serial_add(o, serial) : EXIT_USAGE;
    if (!serial)
        fprintf(stderr, "muster: %s: a line of it cannot be read: %.60s\n", manifest_name, line);
    json_decref(entry);
    return rc;
}

/* The last line may have been under way when the run broke, and is cut off. Any other that cannot
 * be read somebody has changed: what it said may be true, so nothing is done. */
static int manifest_read(struct factory_out *o)
{
    _cleanup_(freep) char *line = NULL;
    size_t cap = 0;
    off_t good = 0;
    int rc = EXIT_OK, fd = dup(o->manifest);
    FILE *f = fd >= 0 ? fdopen(fd, "r") : NULL;
    if (!f)
        return complain(manifest_name);
    for (ssize_t len; rc == EXIT_OK && (len = getline(&line, &cap, f)) > 0;) {
        if (line[len - 1] != '\n')
            break;
        rc = line_read(o, line, (size_t)len);
        good += len;
    }
    fclose(f);
    if (o->count > 0)
        qsort(o->serials, o->count, sizeof(char *), compare);
    if (rc == EXIT_OK && ftruncate(o->manifest, good))
        rc = complain(manifest_name);
    return rc;
}

static int open_all(struct factory_out *o, const char *folder, bool resume)
{
    if (mkdir(folder, 0700) && !(resume && errno == EEXIST))
        return complain(folder);
    o->folder = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (o->folder < 0)
        return complain(folder);
    o->manifest = openat(o->folder, manifest_name, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (o->manifest < 0)
        return complain(manifest_name);
    return resume ? manifest_read(o) : EXIT_OK;
}

int factory_out_open(const char *folder, bool resume, struct factory_out **ret_out)
{
    struct factory_out *o = calloc(1, sizeof(*o));
    if (!o)
        return complain(folder);
    o->folder = o->manifest = -1;
    int rc = open_all(o, folder, resume);
    if (rc == EXIT_OK)
        *ret_out = o;
    else
        factory_out_close(o);
    return rc;
}

void factory_out_close(struct factory_out *o)
{
    if (!o)
        return;
    for (size_t i = 0; i < o->count; i++)
        free(o->serials[i]);
    free(o->serials);
    if (o->manifest >= 0)
        close(o->manifest);
    if (o->folder >= 0)
        close(o->folder);
    free(o);
}

bool factory_out_has(const struct factory_out *o, const char *serial)
{
    return o->count > 0 && bsearch(&serial, o->serials, o->count, sizeof(char *), compare);
}

int64_t factory_out_had(const struct factory_out *o)
{
    return (int64_t)o->count;
}

static int write_all(int fd, struct bytes content, const char *name)
{
    for (size_t at = 0; at < content.len;) {
        ssize_t n = write(fd, content.data + at, content.len - at);
        if (n < 0 && errno != EINTR)
            return complain(name);
        at += n > 0 ? (size_t)n : 0;
    }
    return EXIT_OK;
}

int factory_out_file(struct factory_out *o, const char *name, const char *suffix, bool secret,
                     struct bytes content)
{
    char file[MAX_NAME_BYTES];
    if (snprintf(file, sizeof(file), "%s.%s", name, suffix) >= MAX_NAME_BYTES)
        return EXIT_USAGE;
    int fd = openat(o->folder, file, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
                    secret ? 0600 : 0644);
    if (fd < 0)
        return complain(file);
    int rc = write_all(fd, content, file);
    if (close(fd) && rc == EXIT_OK)
        rc = complain(file);
    o->has_secrets = o->has_secrets || secret;
    return rc;
}

int factory_out_chain(struct factory_out *o, const char *pem)
{
    static const char name[] = "chain.pem", under_way[] = "chain.pem.new";
    if (o->has_chain)
        return EXIT_OK;
    int fd =
        openat(o->folder, under_way, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0)
        return complain(under_way);
    int rc = write_all(fd, bytes_text(pem), under_way);
    if (rc == EXIT_OK && fsync(fd))
        rc = complain(under_way);
    if (close(fd) && rc == EXIT_OK)
        rc = complain(under_way);
    if (rc == EXIT_OK && (renameat(o->folder, under_way, o->folder, name) || fsync(o->folder)))
        rc = complain(name);
    o->has_chain = rc == EXIT_OK;
    return rc;
}

int factory_out_sync(struct factory_out *o, struct bytes lines)
{
    if (o->has_secrets && syncfs(o->folder))
        return complain(manifest_name);
    int rc = write_all(o->manifest, lines, manifest_name);
    if (rc == EXIT_OK && fdatasync(o->manifest))
        rc = complain(manifest_name);
    return rc;
}
