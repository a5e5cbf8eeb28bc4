#include "report.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

enum { PLOT_WIDTH = 720, PLOT_HEIGHT = 180, PATH_BYTES = 4096 };

static const double percents[] = {50, 90, 99, 99.9, 100};

static json_t *outcomes_json(const struct tally *t)
{
    json_t *o = json_object();
    const struct tally_outcome *rows = NULL;
    size_t n = t ? tally_outcomes(t, &rows) : 0;
    for (size_t i = 0; i < n; i++)
        json_object_set_new(o, rows[i].name, json_integer((json_int_t)rows[i].count));
    return o;
}

static json_t *latencies_json(struct tally *t)
{
    json_t *o = json_object();
    for (int k = 0; k < TALLY_KIND_COUNT; k++) {
        enum tally_kind kind = (enum tally_kind)k;
        if (tally_samples(t, kind) == 0)
            continue;
        json_t *row = json_pack("{s:I}", "count", (json_int_t)tally_samples(t, kind));
        for (size_t i = 0; i < ARRAY_LEN(percents); i++) {
            char name[32];
            snprintf(name, sizeof(name), "p%g_us", percents[i]);
            json_object_set_new(row, name, json_integer(tally_percentile(t, kind, percents[i])));
        }
        json_object_set_new(o, tally_kind_name(kind), row);
    }
    return o;
}

static json_t *audit_json(const struct audit *a)
{
    if (!a)
        return json_null();
    return json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:b}", "devices", (json_int_t)a->devices, "held",
                     (json_int_t)a->held, "assigned", (json_int_t)a->assigned, "lost",
                     (json_int_t)a->lost, "doubled", (json_int_t)a->doubled, "orphaned",
                     (json_int_t)a->orphaned, "tokens", (json_int_t)a->tokens, "clean",
                     audit_clean(a));
}

static double seconds_of(const struct report *r)
{
    return (double)r->took_us / 1e6;
}

/* For every device that was asked for. */
static json_int_t each(const struct report *r, int64_t before, int64_t after)
{
    return (after - before) / (int64_t)(r->devices > 0 ? r->devices : 1);
}

/* CPU microseconds. */
static json_t *cost_json(const struct report *r)
{
    const struct usage_reading *b = &r->before, *a = &r->after;
    return json_pack("{s:I,s:I,s:I,s:I,s:I}", "server_cpu_us_per_device",
                     each(r, b->server_us, a->server_us), "database_cpu_us_per_device",
                     each(r, b->database_us, a->database_us), "broker_cpu_us_per_device",
                     each(r, b->broker_us, a->broker_us), "server_kib_before",
                     (json_int_t)b->server_kib, "server_kib_after", (json_int_t)a->server_kib);
}

static json_t *seconds_json(const struct tally *t)
{
    const struct tally_second *s = NULL;
    size_t n = tally_seconds(t, &s);
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(
            array, json_pack("{s:I,s:I,s:I,s:I,s:f,s:f,s:I}", "done", (json_int_t)s[i].done,
                             "refused", (json_int_t)s[i].refused, "p50_us", (json_int_t)s[i].p50_us,
                             "p99_us", (json_int_t)s[i].p99_us, "server_cpu",
                             (double)s[i].server_cpu, "database_cpu", (double)s[i].database_cpu,
                             "server_kib", (json_int_t)s[i].server_kib));
    return array;
}

static enum err json_write(const struct report *r, const char *path)
{
    char began[CLOCK_TEXT_BYTES];
    clock_text(r->began_wall_s, began);
    json_t *o = json_pack("{s:s,s:s,s:s,s:f,s:I,s:I,s:b,s:o,s:o,s:o,s:o,s:o,s:o}", "scenario",
                          r->scenario->name, "template", r->scenario->template_name, "began", began,
                          "seconds", seconds_of(r), "devices", (json_int_t)r->devices, "failed",
                          (json_int_t)r->failed, "passed", r->passed, "audit", audit_json(r->audit),
                          "outcomes", outcomes_json(r->tally), "hostile", outcomes_json(r->hostile),
                          "latency", latencies_json(r->tally), "cost", cost_json(r), "each_second",
                          seconds_json(r->tally));
    int rc = o ? json_dump_file(o, path, JSON_INDENT(1)) : -1;
    json_decref(o);
    return rc == 0 ? ERR_OK : ERR_SYSTEM;
}

/* One line of a plot: a value of each second. */
struct curve {
    const char *name;
    const char *colour;
    double (*value)(const struct tally_second *s);
};

static double done_of(const struct tally_second *s)
{
    return s->done;
}

static double refused_of(const struct tally_second *s)
{
    return s->refused;
}

static double p50_of(const struct tally_second *s)
{
    return s->p50_us / 1e3;
}

static double p99_of(const struct tally_second *s)
{
    return s->p99_us / 1e3;
}

static double server_of(const struct tally_second *s)
{
    return (double)s->server_cpu;
}

static double database_of(const struct tally_second *s)
{
    return (double)s->database_cpu;
}

static double memory_of(const struct tally_second *s)
{
    return s->server_kib / 1024.0;
}

static const struct plot {
    const char *title;
    struct curve curves[2];
} plots[] = {
    {"Requests a second",
     {{"answered", "#1a7f4b", done_of}, {"refused or failed", "#b3261e", refused_of}}},
    {"Latency, ms", {{"median", "#1f5fa8", p50_of}, {"99th percentile", "#a15c00", p99_of}}},
    {"CPU, cores", {{"musterd", "#1f5fa8", server_of}, {"PostgreSQL", "#6b3fa0", database_of}}},
    {"Resident memory of musterd, MiB", {{"musterd", "#1f5fa8", memory_of}, {NULL, NULL, NULL}}},
};

static double plot_top(const struct plot *p, const struct tally_second *s, size_t n)
{
    double top = 0;
    for (size_t c = 0; c < ARRAY_LEN(p->curves) && p->curves[c].name; c++) {
        for (size_t i = 0; i < n; i++) {
            double v = p->curves[c].value(&s[i]);
            top = v > top ? v : top;
        }
    }
    return top > 0 ? top : 1;
}

static void plot_write(FILE *f, const struct plot *p, const struct tally_second *s, size_t n)
{
    double top = plot_top(p, s, n);
    fprintf(f, "<h2>%s</h2><p>", p->title);
    for (size_t c = 0; c < ARRAY_LEN(p->curves) && p->curves[c].name; c++)
        fprintf(f, "<span style=\"color:%s\">&#9632;</span> %s ", p->curves[c].colour,
                p->curves[c].name);
    fprintf(f,
            "</p><svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s over time\">"
            "<text x=\"4\" y=\"14\">%.4g</text><text x=\"4\" y=\"%d\">0</text>"
            "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%zu s</text>",
            PLOT_WIDTH, PLOT_HEIGHT + 20, p->title, top, PLOT_HEIGHT, PLOT_WIDTH, PLOT_HEIGHT + 16,
            n);
    for (size_t c = 0; c < ARRAY_LEN(p->curves) && p->curves[c].name; c++) {
        fprintf(f, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\" points=\"",
                p->curves[c].colour);
        for (size_t i = 0; i < n; i++)
            fprintf(f, "%.1f,%.1f ", n > 1 ? (double)i * PLOT_WIDTH / (double)(n - 1) : 0.0,
                    PLOT_HEIGHT * (1 - p->curves[c].value(&s[i]) / top));
        fputs("\"/>", f);
    }
    fputs("</svg>\n", f);
}

/* Text of a file or of an answer. */
static void text_write(FILE *f, const char *text)
{
    for (; *text; text++) {
        if (strchr("<>&\"", *text))
            fprintf(f, "&#%d;", *text);
        else
            fputc(*text, f);
    }
}

static void outcomes_write(FILE *f, const char *title, const struct tally *t)
{
    const struct tally_outcome *rows = NULL;
    size_t n = t ? tally_outcomes(t, &rows) : 0;
    if (n == 0)
        return;
    fprintf(f, "<h2>%s</h2><table>", title);
    for (size_t i = 0; i < n; i++) {
        fputs("<tr><td>", f);
        text_write(f, rows[i].name);
        fprintf(f, "</td><td class=\"n\">%llu</td></tr>", (unsigned long long)rows[i].count);
    }
    fputs("</table>\n", f);
}

static void latencies_write(FILE *f, struct tally *t)
{
    fputs("<h2>Latency of everything, ms</h2><table><tr><th></th><th>count</th>", f);
    for (size_t i = 0; i < ARRAY_LEN(percents); i++)
        fprintf(f, "<th>%g %%</th>", percents[i]);
    fputs("</tr>", f);
    for (int k = 0; k < TALLY_KIND_COUNT; k++) {
        enum tally_kind kind = (enum tally_kind)k;
        if (tally_samples(t, kind) == 0)
            continue;
        fprintf(f, "<tr><td>%s</td><td class=\"n\">%zu</td>", tally_kind_name(kind),
                tally_samples(t, kind));
        for (size_t i = 0; i < ARRAY_LEN(percents); i++)
            fprintf(f, "<td class=\"n\">%.1f</td>",
                    (double)tally_percentile(t, kind, percents[i]) / 1e3);
        fputs("</tr>", f);
    }
    fputs("</table>\n", f);
}

static void audit_write(FILE *f, const struct audit *a)
{
    fputs("<h2>Audit of the registry against the devices</h2>", f);
    if (!a) {
        fputs("<p>Not made: MUSTER_DATABASE is not set.</p>\n", f);
        return;
    }
    fprintf(f,
            "<p>%zu devices in the registry, %zu certificates held, %zu assigned by DPS; lost %zu, "
            "doubled %zu, "
            "orphaned %zu, tokens out of step %zu.</p>\n",
            a->devices, a->held, a->assigned, a->lost, a->doubled, a->orphaned, a->tokens);
}

static void cost_write(FILE *f, const struct report *r)
{
    const struct usage_reading *b = &r->before, *a = &r->after;
    fprintf(f, "CPU per device: musterd %lld &micro;s, PostgreSQL %lld &micro;s",
            (long long)each(r, b->server_us, a->server_us),
            (long long)each(r, b->database_us, a->database_us));
    if (r->scenario->door == DOOR_CLAIM_MQTT)
        fprintf(f, ", Mosquitto %lld &micro;s", (long long)each(r, b->broker_us, a->broker_us));
    fprintf(f, ". Memory of musterd %.1f to %.1f MiB.</p>\n", b->server_kib / 1024.0,
            a->server_kib / 1024.0);
}

static const char head[] =
    "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" "
    "content=\"width=device-width\"><title>Swarm report</title><style>body{font:16px/1.5 "
    "system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;color:#1c1c1c}"
    "svg{width:100%;border-bottom:1px solid #999;border-left:1px solid #999}"
    "svg text{font:11px sans-serif;fill:#555}table{border-collapse:collapse}"
    "td,th{padding:.15rem .9rem .15rem 0;text-align:left}.n{text-align:right;"
    "font-variant-numeric:tabular-nums}.ok{color:#1a7f4b}.bad{color:#b3261e}</style>\n";

/* The texts of a scenario are the user's own files' and printable; names of outcomes are codes. */
static enum err html_write(const struct report *r, const char *path)
{
    char began[CLOCK_TEXT_BYTES];
    const struct tally_second *s = NULL;
    size_t n = tally_seconds(r->tally, &s);
    _cleanup_(fclosep) FILE *f = fopen(path, "we");
    if (!f)
        return ERR_SYSTEM;
    clock_text(r->began_wall_s, began);
    fprintf(f, "%s<h1>", head);
    text_write(f, r->scenario->name);
    fprintf(f, ": <span class=\"%s\">%s</span></h1><p>", r->passed ? "ok" : "bad",
            r->passed ? "passed" : "failed");
    text_write(f, r->scenario->about);
    fprintf(f, "</p><p>%s, template %s: %zu devices in %.1f s, %zu failed. ", began,
            r->scenario->template_name, r->devices, seconds_of(r), r->failed);
    cost_write(f, r);
    audit_write(f, r->audit);
    for (size_t i = 0; i < ARRAY_LEN(plots); i++)
        plot_write(f, &plots[i], s, n);
    latencies_write(f, r->tally);
    outcomes_write(f, "Outcomes of requests", r->tally);
    outcomes_write(f, "What became of the hostile", r->hostile);
    fputs("</html>\n", f);
    return ferror(f) ? ERR_SYSTEM : ERR_OK;
}

enum err report_write(const struct report *r, const char *folder)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof(path), "%s/result.json", folder);
    enum err e = json_write(r, path);
    if (!e) {
        snprintf(path, sizeof(path), "%s/report.html", folder);
        e = html_write(r, path);
    }
    if (e)
        fprintf(stderr, "swarm: cannot write %s\n", path);
    return e;
}
