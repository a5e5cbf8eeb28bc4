/* What a rebuild found and did, for people and for programs. */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "enroll/recovery.h"

static inline void jsonp_free(json_t **j)
{
    json_decref(*j);
}

static json_t *gap_json(const struct recovery_gap *g)
{
    json_t *o = json_object();
    int rc = json_object_set_new(o, "kind", json_string(g->kind));
    if (g->file)
        rc |= json_object_set_new(o, "file", json_string(g->file));
    if (g->line > 0)
        rc |= json_object_set_new(o, "line", json_integer(g->line));
    rc |= json_object_set_new(o, "detail", json_string(g->detail));
    return rc == 0 ? o : NULL;
}

/* The gaps of the files, then those that the registry found. */
static json_t *report_json(const struct recovery_report *p)
{
    json_t *o = json_loads(p->applied, 0, NULL);
    json_t *found = json_array();
    int rc = o && found ? 0 : -1;
    for (size_t i = 0; i < p->gap_count && rc == 0; i++)
        rc = json_array_append_new(found, gap_json(&p->gaps[i]));
    if (rc == 0)
        rc = json_array_extend(found, json_object_get(o, "gaps")) |
             json_object_set(o, "gaps", found) |
             json_object_set_new(o, "dry_run", json_boolean(p->dry_run)) |
             json_object_set_new(o, "files", json_integer(p->files)) |
             json_object_set_new(o, "lines", json_integer(p->lines)) |
             json_object_set_new(o, "seals", json_integer(p->seals));
    json_decref(found);
    if (rc == 0)
        return o;
    json_decref(o);
    return NULL;
}

static void counts_print(const json_t *o, FILE *out)
{
    static const char *const names[] = {
        "products",     "templates", "template_versions", "cas",         "devices",
        "certificates", "revoked",   "revocations",       "quarantined", "retired"};
    const json_t *before = json_object_get(o, "before"), *after = json_object_get(o, "after");
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        int64_t was = json_integer_value(json_object_get(before, names[i]));
        int64_t is = json_integer_value(json_object_get(after, names[i]));
        fprintf(out, "%-18s %" PRId64 " (%" PRId64 " before)\n", names[i], is, was);
    }
}

static void gap_print(const json_t *g, FILE *out)
{
    const char *file = json_string_value(json_object_get(g, "file"));
    int64_t line = json_integer_value(json_object_get(g, "line"));
    fprintf(out, "gap: %s: ", json_string_value(json_object_get(g, "kind")));
    if (file)
        fprintf(out, "%s", file);
    if (file && line > 0)
        fprintf(out, ", line %" PRId64, line);
    fprintf(out, "%s%s\n", file ? ": " : "", json_string_value(json_object_get(g, "detail")));
}

static void text_print(const json_t *o, const struct recovery_report *p, FILE *out)
{
    size_t i = 0;
    const json_t *gap = NULL;
    fprintf(out, "%" PRId64 " files, %" PRId64 " lines, %" PRId64 " good seals%s\n", p->files,
            p->lines, p->seals, p->dry_run ? "; a dry run: nothing was changed" : "");
    counts_print(o, out);
    json_array_foreach(json_object_get(o, "gaps"), i, gap) gap_print(gap, out);
    if (i == 0)
        fprintf(out, "no gaps\n");
}

enum err recovery_print(const struct recovery_report *p, bool json, FILE *out, size_t *ret_gaps)
{
    _cleanup_(jsonp_free) json_t *o = report_json(p);
    if (!o)
        return ERR_NO_MEMORY;
    *ret_gaps = json_array_size(json_object_get(o, "gaps"));
    if (!json) {
        text_print(o, p, out);
        return ERR_OK;
    }
    char *text = json_dumps(o, JSON_INDENT(2));
    if (text)
        fprintf(out, "%s\n", text);
    free(text);
    return text ? ERR_OK : ERR_NO_MEMORY;
}
