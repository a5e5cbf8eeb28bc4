/*
 * The inside of the template engine, for template*.c only. A compiled template keeps its parsed
 * document; everything in it was checked once, so that evaluation only reads. Threads: any for a
 * compiled template, a check or evaluation belongs to one.
 */
#pragma once

#include <jansson.h>

#include "enroll/template.h"

enum {
    TEMPLATE_MAX_DECLARED = 20, /* leaves room in struct template_params for what Muster adds */
    TEMPLATE_MAX_ITEMS = 64,    /* of one list */
    TEMPLATE_MAX_KEY_BYTES = 128,
    TEMPLATE_MAX_ATTRIBUTES = 50,
};

/* Where in the document: a list towards the root, on the stack of whoever walks. */
struct path {
    const struct path *up;
    const char *key; /* NULL: index */
    size_t index;
};

/* Writes "$.Resources.thing.Properties.ThingGroups[0]"; cut at the end where it is too long. */
void path_write(const struct path *p, char *out, size_t len);

struct template
{
    json_t *document;
    json_t *parameters; /* these are borrowed from document, NULL where absent */
    json_t *mappings;
    const char *thing_key; /* logical names, for paths */
    const char *certificate_key;
    json_t *thing;
    json_t *certificate;
    struct {
        const char *key;
        json_t *resource;
    } policies[TEMPLATE_MAX_POLICIES];
    size_t policy_count;
    json_t *configuration;
    json_t *subject; /* of the Muster section */
    json_t *names;
    struct template_settings settings;
    struct cert_profile profile; /* all but subject and names */
};

/* A document being checked. */
struct check {
    struct template *t;
    struct template_error *error;
    bool before_signing; /* in a part that makes the certificate: it has no id yet */
};

/* Notes the refusal; always ERR_INVALID. */
enum err check_fail(struct check *c, const struct path *p, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Every member of an object must be one of the names (NULL-terminated). */
enum err check_members(struct check *c, json_t *object, const struct path *p,
                       const char *const *names) MUST_CHECK;

/* An expression that gives a string: literal, Ref or Fn::*. */
enum err check_text(struct check *c, json_t *node, const struct path *p) MUST_CHECK;
bool expr_is_function(json_t *node);

enum err check_resources(struct check *c, json_t *resources, const struct path *p) MUST_CHECK;
enum err check_muster(struct check *c, json_t *node, const struct path *p) MUST_CHECK;

/* Shared by the checks and the evaluation of Resources. An override that is not given is
 * DO_NOTHING; a status is ACTIVE or INACTIVE in any letters. */
enum err template_override_parse(json_t *settings, const char *name,
                                 enum override_mode *ret_mode) MUST_CHECK;
bool template_status_parse(const char *text, bool *ret_inactive) MUST_CHECK;

/* A policy's text as compact JSON, NULL when it is no object; the caller frees. */
char *template_policy_compact(const char *text);

/* One evaluation. */
struct eval {
    const struct template *t;
    const struct template_params *params;
    struct arena *arena;
    struct fault *fault;
    bool in_policy; /* no given value may be a wildcard or a variable there */
    bool in_text;   /* inside JSON written as text: no given value may end a string of it */
};

/* template.evaluation_failed with the path. */
enum err eval_fail(const struct eval *ev, const struct path *p, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
enum err eval_text(const struct eval *ev, json_t *node, const struct path *p,
                   const char **ret_text) MUST_CHECK;
/* The value of a parameter: given, else its Default, else template.parameter_missing. */
enum err eval_parameter(const struct eval *ev, const char *name, const struct path *p,
                        const char **ret_text) MUST_CHECK;
