/*
 * A call of the admin API as data: where its arguments come from, which statement it runs, what
 * is done before and after. For proto/admin only. Threads: the request's own.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "proto/route.h"
#include "store/desk.h"

struct service;

/* Each may what those before it may; a broker only what is said to be a broker's, which an admin
 * may too. */
enum admin_role { ADMIN_VIEWER = 1, ADMIN_OPERATOR, ADMIN_ADMIN, ADMIN_BROKER };

enum { ADMIN_MAX_ARGS = 20, ADMIN_MAX_TEXT_BYTES = 1024, ADMIN_MAX_BODY_BYTES = 1 << 20 };

enum arg_from { ARG_NONE, ARG_PATH, ARG_QUERY, ARG_BODY, ARG_TRUE, ARG_FALSE };
enum arg_kind { ARG_TEXT, ARG_INT, ARG_BOOL, ARG_TEXTS, ARG_OBJECT, ARG_OBJECTS, ARG_SHA256 };

struct admin_arg {
    const char *name;
    enum arg_from from;
    enum arg_kind kind;
    bool required;
    int64_t min;       /* ARG_INT */
    int64_t max;       /* ARG_INT: value; ARG_TEXTS, ARG_OBJECTS: elements; ARG_TEXT: bytes, 0:
                          ADMIN_MAX_TEXT_BYTES */
    const char *words; /* ARG_TEXT: the only values, separated by spaces; NULL: any */
};

struct admin_call {
    enum desk_call desk;
    bool list;             /* takes limit and after, answers with a Link */
    bool body_is_document; /* the body is for `before` or the handler, no arguments */
    bool changes_catalog;  /* templates, CAs, products: cached by replicas */
    int status;            /* of success; 0: 200 */
    struct admin_arg args[ADMIN_MAX_ARGS];
    /* Checks and completes the arguments. NULL: nothing to do. */
    enum err (*before)(struct service *service, struct exchange *x, json_t *args);
    /* Completes the answer. NULL: it is right as it is. */
    enum err (*after)(struct service *service, struct exchange *x, const json_t *args,
                      json_t *answer);
};

/* Who is asking; x->adapter after admin_authenticate. */
struct admin_session {
    struct desk_operator op;
    enum admin_role role;
    const char *json; /* op of the desk's functions; NULL for the scrape token */
    bool scrape;      /* let in by the scrape token, which is in no registry */
};

/* The route table's hook: bearer token, role. */
enum err admin_authenticate(struct service *service, const struct route *row, struct exchange *x);

/* The handler of every row whose `more` is a struct admin_call. */
enum err admin_handle(struct service *service, struct exchange *x) MUST_CHECK;

/* Arguments of the call as a new JSON object. Faults: request.malformed. */
enum err admin_args(const struct admin_call *call, struct exchange *x,
                    json_t **ret_args) MUST_CHECK;

/* Whether an object has only members that the call's body may have, each as it must be. */
enum err admin_members_check(const struct admin_call *call, struct exchange *x,
                             json_t *body) MUST_CHECK;

/* An argument in hex, with the arena's help; -1: out of memory. */
int admin_hex_add(struct arena *arena, json_t *args, const char *name,
                  struct bytes value) MUST_CHECK;

/* Fault and error of a desk call that failed. */
enum err admin_refused(struct exchange *x, enum err e, const char *message);

/* One call of the desk. Faults as the desk refuses. */
enum err admin_ask(struct service *service, struct exchange *x, enum desk_call call,
                   const json_t *args, struct desk_answer *ret_answer) MUST_CHECK;

/* A JSON text of the arena as the answer, with a final line end. */
enum err admin_reply(struct exchange *x, int status, const char *json) MUST_CHECK;
