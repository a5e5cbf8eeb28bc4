#include "cli/import_report.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/text.h"
#include "cli/client.h"

static const char *const results[] = {"imported", "duplicate", "rejected"};

struct import_report {
    const char *path;
    FILE *file;
    uint8_t hash[SHA256_BYTES];
    bool hashed;
    struct import_point *points;
    size_t count;
    long had[ARRAY_LEN(results)];
};

void import_report_close(struct import_report *r)
{
    if (!r)
        return;
    if (r->file)
        fclose(r->file);
    free(r->points);
    free(r);
}

static int complain(const struct import_report *r, const char *what)
{
    fprintf(stderr, "muster: %s: %s\n", r->path, what);
    return EXIT_USAGE;
}

static bool point_parse(const char *line, struct import_point *ret_point)
{
    char *end;
    if (strncmp(line, "#done ", 6) != 0)
        return false;
    ret_point->lines = strtol(line + 6, &end, 10);
    return ret_point->lines > 0 && *end == ' ' &&
           text_parse_hex(end + 1, ret_point->hash, SHA256_BYTES) == ERR_OK;
}

static bool point_add(struct import_report *r, const struct import_point *point)
{
    struct import_point *more = realloc(r->points, (r->count + 1) * sizeof(*more));
    if (!more)
        return false;
    r->points = more;
    r->points[r->count++] = *point;
    return true;
}

/* What a line says of its result, -1: nothing. */
static int result_of(const char *line)
{
    const char *comma = strchr(line, ',');
    for (size_t i = 0; comma && i < ARRAY_LEN(results); i++) {
        size_t len = strlen(results[i]);
        if (strncmp(comma + 1, results[i], len) == 0 && comma[1 + len] == ',')
            return (int)i;
    }
    return -1;
}

/* Reads what is there up to its last point; ret_end is where that ends. */
static int file_read(struct import_report *r, long *ret_end)
{
    _cleanup_(freep) char *line = NULL;
    size_t room = 0;
    long counted[ARRAY_LEN(results)] = {0};
    for (ssize_t len; (len = getline(&line, &room, r->file)) > 0 && line[len - 1] == '\n';) {
        struct import_point point;
        line[len - 1] = '\0';
        int result = result_of(line);
        if (result >= 0)
            counted[result]++;
        if (!point_parse(line, &point))
            continue;
        if (!point_add(r, &point))
            return complain(r, "out of memory");
        memcpy(r->had, counted, sizeof(counted));
        *ret_end = ftell(r->file);
    }
    return ferror(r->file) ? complain(r, strerror(errno)) : EXIT_OK;
}

/* What stands behind the last point was under way and is done again. */
static int resume_at(struct import_report *r)
{
    char head[16] = "";
    long end = 0;
    if (fread(head, 1, sizeof(head) - 1, r->file) > 0 && strncmp(head, "line,result,", 12) != 0)
        return complain(r, "is no report of an import");
    rewind(r->file);
    int rc = file_read(r, &end);
    if (rc != EXIT_OK)
        return rc;
    if (ftruncate(fileno(r->file), end) || fseek(r->file, end, SEEK_SET))
        return complain(r, strerror(errno));
    return EXIT_OK;
}

int import_report_open(const char *path, bool resume, struct import_report **ret_report)
{
    struct import_report *r = calloc(1, sizeof(*r));
    if (!r)
        return EXIT_USAGE;
    r->path = path;
    int fd = open(path, O_RDWR | O_CLOEXEC | (resume ? 0 : O_CREAT | O_EXCL), 0644);
    r->file = fd >= 0 ? fdopen(fd, "r+") : NULL;
    int rc = r->file ? EXIT_OK : complain(r, strerror(errno));
    if (rc == EXIT_OK && resume)
        rc = resume_at(r);
    if (rc == EXIT_OK && r->count == 0)
        fputs("line,result,serial,reason\n", r->file);
    if (rc == EXIT_OK)
        *ret_report = r;
    else
        import_report_close(r);
    return rc;
}

const struct import_point *import_report_points(const struct import_report *r, size_t *ret_count)
{
    *ret_count = r->count;
    return r->points;
}

long import_report_had(const struct import_report *r, const char *result)
{
    for (size_t i = 0; i < ARRAY_LEN(results); i++) {
        if (strcmp(results[i], result) == 0)
            return r->had[i];
    }
    return 0;
}

void import_report_hash(struct import_report *r, struct bytes piece)
{
    _cleanup_(buf_donep) struct buf both = {0};
    buf_init(&both, sizeof(r->hash) + piece.len + 1);
    if (r->hashed)
        buf_add(&both, r->hash, sizeof(r->hash));
    buf_add(&both, piece.data, piece.len);
    if (both.overflow || digest_sha256(buf_bytes(&both), r->hash))
        memset(r->hash, 0, sizeof(r->hash)); /* fits no point */
    r->hashed = true;
}

bool import_report_is_at(const struct import_report *r, const struct import_point *point)
{
    return r->hashed && memcmp(r->hash, point->hash, sizeof(r->hash)) == 0;
}

/* A cell of CSV (RFC 4180). What a device said may hold anything; a report has a line a line. */
static void cell_write(FILE *file, const char *text)
{
    bool quoted = text[strcspn(text, ",\"#")] != '\0';
    if (quoted)
        fputc('"', file);
    for (; *text; text++) {
        if (*text == '"')
            fputc('"', file);
        fputc((unsigned char)*text < ' ' || *text == 0x7f ? '?' : *text, file);
    }
    if (quoted)
        fputc('"', file);
}

static const char *member(const json_t *line, const char *name)
{
    const char *text = json_string_value(json_object_get(line, name));
    return text ? text : "";
}

int import_report_add(struct import_report *r, const json_t *lines, long lines_done)
{
    _cleanup_(buf_donep) struct buf hash = {0};
    size_t i;
    const json_t *line;
    json_array_foreach(lines, i, line)
    {
        fprintf(r->file, "%lld,%s,", (long long)json_integer_value(json_object_get(line, "line")),
                member(line, "result"));
        cell_write(r->file, member(line, "serial"));
        fputc(',', r->file);
        cell_write(r->file, member(line, "reason"));
        fputc('\n', r->file);
    }
    buf_init(&hash, 2 * SHA256_BYTES + 1);
    text_add_hex(&hash, bytes_of(r->hash, sizeof(r->hash)));
    fprintf(r->file, "#done %ld %s\n", lines_done, buf_text(&hash));
    if (fflush(r->file) == 0 && !ferror(r->file) && fsync(fileno(r->file)) == 0)
        return EXIT_OK;
    return complain(r, strerror(errno));
}
