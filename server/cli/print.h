/* Answers for people: tables, objects, stories. Text of peers is escaped. Threads: main only. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

/* What the API returned, as it is. */
void print_json(const json_t *json);

/* An array as an aligned table of the members named in columns. */
void print_table(const json_t *rows, const char *columns);

/* One member a line. */
void print_object(json_t *object);

/* A device and its trail; an attempt and its steps. */
void print_device(const json_t *device);
void print_explain(const json_t *attempts);

/* The findings, the worst last. */
void print_doctor(const json_t *findings);

/* A sentence a claim: when it ends, what is left of its serials and its budget. */
void print_stock(const json_t *claims);

/* "id token serial" of new tokens, one a line and no heading, for cut and awk; or with commas. */
void print_tokens(FILE *out, const json_t *tokens, bool csv);
