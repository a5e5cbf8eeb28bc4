#include "cli/print.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/text.h"

enum { MAX_COLUMNS = 12, MAX_CELL_BYTES = 4096, MAX_NAME_BYTES = 40 };

void print_json(const json_t *json)
{
    json_dumpf(json, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
    putchar('\n');
}

/* Control characters and broken UTF-8 would be the terminal's to interpret. */
static void add_safe(struct buf *b, const char *s)
{
    while (*s) {
        size_t len = text_utf8_length(s);
        if (len == 0 || (len == 1 && ((unsigned char)*s < ' ' || *s == 0x7f))) {
            buf_printf(b, "\\x%02x", (unsigned char)*s++);
            continue;
        }
        buf_add(b, s, len);
        s += len;
    }
}

static void add_value(struct buf *b, const json_t *value)
{
    if (!value || json_is_null(value)) {
        buf_add_char(b, '-');
    } else if (json_is_string(value)) {
        add_safe(b, json_string_value(value));
    } else {
        char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
        add_safe(b, text ? text : "");
        free(text);
    }
}

static size_t width_of(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static size_t columns_split(const char *columns, char names[MAX_COLUMNS][MAX_NAME_BYTES])
{
    size_t n = 0;
    while (*columns && n < MAX_COLUMNS) {
        size_t len = strcspn(columns, " ");
        snprintf(names[n++], MAX_NAME_BYTES, "%.*s", (int)len, columns);
        columns += len + strspn(columns + len, " ");
    }
    return n;
}

static void print_cell(const char *text, size_t width, bool last)
{
    fputs(text, stdout);
    for (size_t w = width_of(text); !last && w < width + 2; w++)
        putchar(' ');
}

void print_table(const json_t *rows, const char *columns)
{
    char names[MAX_COLUMNS][MAX_NAME_BYTES];
    size_t widths[MAX_COLUMNS];
    size_t n = columns_split(columns, names);
    _cleanup_(buf_donep) struct buf cell = {0};
    buf_init(&cell, MAX_CELL_BYTES);
    for (size_t c = 0; c < n; c++) {
        widths[c] = strlen(names[c]);
        for (size_t i = 0; i < json_array_size(rows); i++) {
            buf_reset(&cell);
            add_value(&cell, json_object_get(json_array_get(rows, i), names[c]));
            size_t w = width_of(buf_text(&cell));
            widths[c] = w > widths[c] ? w : widths[c];
        }
        print_cell(names[c], widths[c], c + 1 == n);
    }
    putchar('\n');
    for (size_t i = 0; i < json_array_size(rows); i++) {
        for (size_t c = 0; c < n; c++) {
            buf_reset(&cell);
            add_value(&cell, json_object_get(json_array_get(rows, i), names[c]));
            print_cell(buf_text(&cell), widths[c], c + 1 == n);
        }
        putchar('\n');
    }
}

static void print_member(const char *key, const json_t *value)
{
    _cleanup_(buf_donep) struct buf b = {0};
    buf_init(&b, MAX_CELL_BYTES * 16);
    add_value(&b, value);
    printf("%-18s %s\n", key, buf_text(&b));
}

void print_object(json_t *object)
{
    void *it = json_object_iter(object);
    for (; it; it = json_object_iter_next(object, it))
        print_member(json_object_iter_key(it), json_object_iter_value(it));
}

static const char *text_of(const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));
    return text ? text : "";
}

void print_doctor(const json_t *findings)
{
    static const char *const severities[] = {"ok", "warning", "error"};
    for (size_t s = 0; s < ARRAY_LEN(severities); s++) {
        for (size_t i = 0; i < json_array_size(findings); i++) {
            const json_t *f = json_array_get(findings, i);
            if (strcmp(text_of(f, "severity"), severities[s]) != 0)
                continue;
            printf("%-8s %-18s %s\n", severities[s], text_of(f, "check"), text_of(f, "detail"));
            if (text_of(f, "remedy")[0])
                printf("%-27s remedy: %s\n", "", text_of(f, "remedy"));
        }
    }
}

void print_tokens(FILE *out, const json_t *tokens, bool csv)
{
    for (size_t i = 0; i < json_array_size(tokens); i++) {
        const json_t *t = json_array_get(tokens, i);
        fprintf(out, csv ? "%lld,%s,%s\n" : "%lld %s %s\n",
                (long long)json_integer_value(json_object_get(t, "id")), text_of(t, "token"),
                text_of(t, "serial"));
    }
}

/* 3,412: for people, whatever the locale. */
static void add_number(struct buf *b, int64_t number)
{
    char digits[24];
    int len = snprintf(digits, sizeof(digits), "%lld", (long long)number);
    for (int i = 0; i < len; i++) {
        if (i > 0 && (len - i) % 3 == 0)
            buf_add_char(b, ',');
        buf_add_char(b, digits[i]);
    }
}

static int64_t number_of(const json_t *o, const char *key)
{
    return json_integer_value(json_object_get(o, key));
}

static void add_days(struct buf *b, int64_t days)
{
    add_number(b, days);
    buf_add_text(b, days == 1 ? " day" : " days");
}

static void add_end(struct buf *b, const json_t *c)
{
    const char *state = text_of(c, "state");
    int64_t days = number_of(c, "days_left");
    if (strcmp(state, "revoked") == 0 || strcmp(state, "exhausted") == 0) {
        buf_printf(b, " is %s", state);
    } else if (strcmp(state, "active") == 0) {
        buf_add_text(b, " expires in ");
        add_days(b, days);
    } else if (days == 0) {
        buf_add_text(b, " expired within the last day");
    } else {
        buf_add_text(b, " expired ");
        add_days(b, -days);
        buf_add_text(b, " ago");
    }
    if (strcmp(state, "grace") == 0)
        buf_add_text(b, " and is in its grace");
}

static void add_stock(struct buf *b, const json_t *c)
{
    add_safe(b, text_of(c, "name"));
    add_end(b, c);
    if (number_of(c, "serials") == 0) {
        buf_add_text(b, ", no serials on its allowlist");
    } else {
        buf_add_text(b, ", ");
        add_number(b, number_of(c, "never_seen"));
        buf_add_text(b, " of ");
        add_number(b, number_of(c, "serials"));
        buf_add_text(b, " serials never seen");
    }
    if (!json_is_integer(json_object_get(c, "budget")))
        return;
    buf_add_text(b, ", ");
    add_number(b, number_of(c, "devices"));
    buf_add_text(b, " of ");
    add_number(b, number_of(c, "budget"));
    buf_add_text(b, " devices of its budget used");
}

void print_stock(const json_t *claims)
{
    for (size_t i = 0; i < json_array_size(claims); i++) {
        _cleanup_(buf_donep) struct buf b = {0};
        buf_init(&b, MAX_CELL_BYTES);
        add_stock(&b, json_array_get(claims, i));
        puts(buf_text(&b));
    }
}

static void print_line(const char *text)
{
    _cleanup_(buf_donep) struct buf b = {0};
    buf_init(&b, MAX_CELL_BYTES);
    add_safe(&b, text);
    fputs(buf_text(&b), stdout);
}

static void print_approval(const json_t *d, const json_t *a)
{
    const char *word = text_of(a, "state"), *key = text_of(a, "key");
    if (strcmp(word, "pending") == 0)
        printf("Its enrolment waits for approval since %s (asked %lld times, last at %s), key %s.\n"
               "muster device approve %s lets it go on, muster device reject %s refuses it.\n",
               text_of(a, "requested_at"),
               (long long)json_integer_value(json_object_get(a, "asked")), text_of(a, "last_asked"),
               key[0] ? key : "to be made by the server", text_of(d, "serial"),
               text_of(d, "serial"));
    else if (strcmp(word, "approved") == 0)
        printf("Its enrolment was approved by %s at %s; it has not come back for it yet.\n",
               text_of(a, "decided_by"), text_of(a, "decided_at"));
    else
        printf("Its enrolment was rejected by %s at %s; approve or reset lets it try again.\n",
               text_of(a, "decided_by"), text_of(a, "decided_at"));
}

/* What a person would ask next. */
static void print_waiting(const json_t *d)
{
    const char *state = text_of(d, "state");
    if (json_is_string(json_object_get(d, "retired_at")))
        printf("It was retired at %s and never enrols again.\n", text_of(d, "retired_at"));
    else if (strcmp(state, "QUARANTINE") == 0)
        printf("It is in quarantine; muster device release %s lets it go on.\n",
               text_of(d, "serial"));
    else if (json_is_object(json_object_get(d, "approval")))
        print_approval(d, json_object_get(d, "approval"));
    else if (strcmp(state, "VERIFY") == 0)
        printf("It waits for the first use of its certificate, until %s.\n",
               text_of(d, "verify_by"));
    else if (json_is_string(json_object_get(d, "reset_at")))
        printf("It was reset at %s: one enrolment with a new key is allowed.\n",
               text_of(d, "reset_at"));
    else if (strcmp(state, "UNPROVISIONED") == 0)
        printf("It is known and was never enrolled.\n");
}

static void print_attempt(const json_t *a)
{
    const char *detail = text_of(a, "detail");
    printf("  %s  %-28s ", text_of(a, "at"), text_of(a, "outcome"));
    print_line(text_of(a, "protocol"));
    putchar(' ');
    print_line(text_of(a, "operation"));
    printf(" by %s from ", text_of(a, "credential"));
    print_line(text_of(a, "source"));
    if (text_of(a, "claim")[0])
        printf(" with claim %s", text_of(a, "claim"));
    printf("  %s\n", text_of(a, "request_id"));
    if (detail[0]) {
        printf("      ");
        print_line(detail);
        putchar('\n');
    }
}

static void print_claims(const json_t *certificates)
{
    for (size_t i = 0; i < json_array_size(certificates); i++) {
        const json_t *c = json_array_get(certificates, i);
        if (text_of(c, "claim")[0])
            printf("%.16s... was given with claim %s%s\n", text_of(c, "fingerprint"),
                   text_of(c, "claim"),
                   json_is_true(json_object_get(c, "in_grace")) ? ", in its grace" : "");
    }
}

void print_device(const json_t *d)
{
    static const char *const members[] = {"serial",
                                          "product",
                                          "thing_name",
                                          "state",
                                          "state_since",
                                          "template",
                                          "template_version",
                                          "failures",
                                          "quarantine_reason",
                                          "last_seen",
                                          "recovered_at",
                                          "groups",
                                          "attributes",
                                          "configuration"};
    for (size_t i = 0; i < ARRAY_LEN(members); i++) {
        const json_t *value = json_object_get(d, members[i]);
        if (value && !json_is_null(value))
            print_member(members[i], value);
    }
    print_waiting(d);
    if (json_array_size(json_object_get(d, "certificates")) > 0) {
        printf("\ncertificates\n");
        print_table(json_object_get(d, "certificates"),
                    "fingerprint purpose origin status active not_after verified_at revoke_reason");
    }
    print_claims(json_object_get(d, "certificates"));
    printf("\ntrail, newest first\n");
    const json_t *trail = json_object_get(d, "trail");
    for (size_t i = 0; i < json_array_size(trail); i++)
        print_attempt(json_array_get(trail, i));
}

static void print_story(const json_t *a)
{
    const char *outcome = text_of(a, "outcome");
    bool good = strcmp(outcome, "ok") == 0 || strcmp(outcome, "replayed") == 0;
    printf("At %s ", text_of(a, "at"));
    print_line(text_of(a, "source"));
    printf(" asked by %s for %s with a credential of kind %s", text_of(a, "protocol"),
           text_of(a, "operation"), text_of(a, "credential"));
    if (text_of(a, "claim")[0])
        printf(", with claim %s", text_of(a, "claim"));
    if (text_of(a, "serial")[0]) {
        printf(", for serial ");
        print_line(text_of(a, "serial"));
    }
    if (text_of(a, "template")[0])
        printf(", under template %s", text_of(a, "template"));
    printf(".\nIt came as far as %s and ended with %s.\n", text_of(a, "reached"), outcome);
    if (text_of(a, "detail")[0]) {
        printf("reason: ");
        print_line(text_of(a, "detail"));
        putchar('\n');
    }
    if (!good)
        printf("meaning: %s\nremedy: %s\n", text_of(a, "title"), text_of(a, "remedy"));
    if (text_of(a, "state")[0])
        printf("The device was in %s afterwards.\n", text_of(a, "state"));
}

void print_explain(const json_t *attempts)
{
    for (size_t i = 0; i < json_array_size(attempts); i++) {
        const json_t *a = json_array_get(attempts, i), *steps = json_object_get(a, "steps");
        print_story(a);
        for (size_t k = 0; k < json_array_size(steps); k++) {
            const json_t *s = json_array_get(steps, k);
            printf("  %-14s %8lld us  %s\n", text_of(s, "step"),
                   (long long)json_integer_value(json_object_get(s, "us")), text_of(s, "result"));
        }
    }
}
