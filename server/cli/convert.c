#include "cli/convert.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "cli/client.h"
#include "cli/command.h"

enum { MAX_FILE_BYTES = 512 << 20, MAX_FIELDS = 256, WANTED = 3 };

/* The text as a file of its own; NULL: out of memory. */
static FILE *file_of(const char *text, size_t len)
{
    FILE *f = tmpfile();
    if (f && (fwrite(text, 1, len, f) != len || fseek(f, 0, SEEK_SET) != 0)) {
        fclose(f);
        f = NULL;
    }
    if (!f)
        fprintf(stderr, "muster: no temporary file can be written\n");
    return f;
}

static bool lines_add(const json_t *array, struct buf *out)
{
    size_t i;
    json_t *entry;
    json_array_foreach(array, i, entry)
    {
        char *line = json_dumps(entry, JSON_COMPACT | JSON_ENCODE_ANY);
        if (!line)
            return false;
        buf_printf(out, "%s\n", line);
        free(line);
    }
    return !out->overflow;
}

FILE *convert_manifest(const char *path)
{
    _cleanup_(buf_donep) struct buf text = {0}, out = {0};
    json_error_t error;
    if (command_file_read(path, MAX_FILE_BYTES, &text) != EXIT_OK)
        return NULL;
    json_t *array = json_loadb(buf_text(&text), text.len, JSON_REJECT_DUPLICATES, &error);
    buf_init(&out, MAX_FILE_BYTES);
    if (!json_is_array(array))
        fprintf(stderr, "muster: %s is no manifest, which is a JSON array (line %d: %s)\n", path,
                array ? 1 : error.line, array ? "another value" : error.text);
    bool good = json_is_array(array) && lines_add(array, &out);
    json_decref(array);
    return good ? file_of(buf_text(&out), out.len) : NULL;
}

/* CSV (RFC 4180), but for line ends inside of quotes. */

/* Cuts a line into its fields, in place. How many; 0: a quote is not closed, or too many. */
static size_t fields_cut(char *line, char *fields[MAX_FIELDS])
{
    size_t count = 0;
    for (char *at = line; count < MAX_FIELDS; at++) {
        char *to = at;
        fields[count++] = to;
        bool quoted = *at == '"';
        for (at += quoted; *at && (quoted || *at != ','); at++) {
            if (quoted && *at == '"' && *++at != '"') {
                quoted = false;
                at--;
                continue;
            }
            *to++ = *at;
        }
        if (quoted)
            return 0;
        bool more = *at == ',';
        *to = '\0';
        if (!more)
            return count;
    }
    return 0;
}

/* Where the wanted columns are; SIZE_MAX: they are not. */
struct columns {
    size_t at[WANTED];
};

static const char *const wanted[WANTED] = {"serial", "pin", "batch"};

static int wanted_find(const char *name, size_t len)
{
    for (int i = 0; i < WANTED; i++) {
        if (strlen(wanted[i]) == len && strncmp(wanted[i], name, len) == 0)
            return i;
    }
    return -1;
}

/* One "serial=SN" of the option. */
static bool column_take(const char *text, size_t len, char *const *heading, size_t count,
                        struct columns *c)
{
    const char *equals = memchr(text, '=', len);
    int which = equals ? wanted_find(text, (size_t)(equals - text)) : -1;
    if (which < 0) {
        fprintf(stderr, "muster: --columns is serial=NAME,pin=NAME,batch=NAME; the last two may be "
                        "left out\n");
        return false;
    }
    size_t name = (size_t)(text + len - equals - 1);
    for (size_t i = 0; i < count; i++) {
        if (strlen(heading[i]) == name && strncmp(heading[i], equals + 1, name) == 0) {
            c->at[which] = i;
            return true;
        }
    }
    fprintf(stderr, "muster: the heading has no column %.*s\n", (int)name, equals + 1);
    return false;
}

static bool columns_take(const char *text, char *heading, struct columns *c)
{
    char *fields[MAX_FIELDS];
    size_t count = fields_cut(heading, fields);
    *c = (struct columns){{SIZE_MAX, SIZE_MAX, SIZE_MAX}};
    while (*text) {
        size_t len = strcspn(text, ",");
        if (!column_take(text, len, fields, count, c))
            return false;
        text += len + (text[len] == ',');
    }
    if (c->at[0] == SIZE_MAX)
        fprintf(stderr, "muster: --columns must name the serial's\n");
    return c->at[0] != SIZE_MAX;
}

/* A line that is no CSV stays a line, so that the report's numbers are right: the server refuses
 * it. */
static void row_add(struct buf *out, char *line, const struct columns *c)
{
    char *fields[MAX_FIELDS];
    size_t count = fields_cut(line, fields);
    for (int i = 0; i < WANTED; i++) {
        const char *value = c->at[i] < count ? fields[c->at[i]] : "";
        buf_printf(out, "%s\"%s\"", i > 0 ? "," : "", strchr(value, '"') ? "?" : value);
    }
    buf_add_char(out, '\n');
}

/* The next line without its end, in place; NULL: none. */
static char *line_next(char **at)
{
    char *line = *at;
    if (!*line)
        return NULL;
    size_t len = strcspn(line, "\n");
    *at = line + len + (line[len] == '\n');
    line[len] = '\0';
    if (len > 0 && line[len - 1] == '\r')
        line[len - 1] = '\0';
    return line;
}

FILE *convert_columns(const char *path, const char *columns)
{
    _cleanup_(buf_donep) struct buf text = {0}, out = {0};
    struct columns c;
    if (command_file_read(path, MAX_FILE_BYTES, &text) != EXIT_OK)
        return NULL;
    _cleanup_(freep) char *copy = strdup(buf_text(&text));
    buf_init(&out, MAX_FILE_BYTES);
    char *at = copy, *line = copy ? line_next(&at) : NULL;
    if (!line)
        fprintf(stderr, "muster: %s is empty\n", path);
    if (!line || !columns_take(columns, line, &c))
        return NULL;
    buf_add_text(&out, "serial,pin,batch\n");
    while ((line = line_next(&at))) {
        if (*line)
            row_add(&out, line, &c);
        else
            buf_add_char(&out, '\n');
    }
    return out.overflow ? NULL : file_of(buf_text(&out), out.len);
}
