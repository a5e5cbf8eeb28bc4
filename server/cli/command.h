/*
 * The commands of muster as data: what they are called, which options they take, which call of
 * the admin API they are, how the answer is shown. Threads: main only.
 */
#pragma once

#include "cli/client.h"
#include "cli/options.h"

enum command_show {
    SHOW_OBJECT,
    SHOW_LIST,
    SHOW_DEVICE,
    SHOW_EXPLAIN,
    SHOW_TOKENS,
    SHOW_DOCTOR,
    SHOW_STOCK
};

struct cli;

struct command {
    const char *object;
    const char *verb;  /* NULL: the object alone */
    const char *words; /* what follows, for people: "SERIAL"; "[NAME]" may be left out */
    int word_count;    /* of those that may not */
    const char *help;
    const char *example;
    const char *method; /* NULL: no call is made, and no server needed */
    const char *path;   /* {} stands for a word, {product} for the option */
    option_set query;   /* options that go into the query */
    option_set body;    /* options that go into the body */
    option_set own;     /* options of the CLI's own */
    option_set must;    /* options that must be given */
    enum command_show show;
    const char *columns;     /* SHOW_LIST: members, separated by spaces */
    const char *word_member; /* the first word goes into the body as this member */
    /* Instead of the call described above. */
    int (*run)(struct cli *cli);
};

struct cli {
    const struct command *command;
    struct options options;
    const char *words[OPTIONS_MAX_WORDS]; /* behind object and verb */
    size_t word_count;
    struct client *client;
};

/* The command of the words; NULL: none. ret_used: how many words name it. */
const struct command *command_find(const char *const *words, size_t count, size_t *ret_used);

/* The commands in their order. */
extern const struct command command_table[];
extern const size_t command_count;

/* One of them; NULL behind the last. */
const struct command *command_row(size_t i);

/* All options that a command takes. */
option_set command_options(const struct command *c);

/* Help for all, for one object (verb NULL) or one command. False: there is no such object. */
bool command_help(const char *object, const char *verb);

/* Runs what the command's row describes. An exit code. */
int command_run(struct cli *cli);

/* Makes the call of the row and shows the answer; body NULL: what the options say. Lists are
 * fetched page by page. */
int command_call(struct cli *cli, json_t *body);

/* Shows an answer as the row says, or as JSON where that was asked for. */
void command_show(const struct cli *cli, json_t *answer);

/* The path with its words, options and query, encoded, into b. */
void command_path(const struct cli *cli, struct buf *b);

/* The body that the row's options describe; NULL after it has said what is wrong. */
json_t *command_body(const struct cli *cli);

/* The names of a list separated by commas. */
json_t *command_names(const char *list);

/* Reads a file, "-" being standard input, into b, which it initialises. An exit code. */
int command_file_read(const char *path, size_t max, struct buf *b);

/* Special commands. */
int run_template_put(struct cli *cli);
int run_template_show(struct cli *cli);
int run_template_validate(struct cli *cli);
int run_allowlist_import(struct cli *cli);
int run_manifest_import(struct cli *cli);
int run_manifest_trust(struct cli *cli);
int run_token_create(struct cli *cli);
int run_token_qr(struct cli *cli);
int run_claim_create(struct cli *cli);
int run_claim_rotate(struct cli *cli);
int run_ca_register(struct cli *cli);
int run_ca_unknown(struct cli *cli);
int run_ca_export(struct cli *cli);
int run_ca_crl(struct cli *cli);
int run_ca_import(struct cli *cli);
int run_cert_show(struct cli *cli);
int run_cert_register(struct cli *cli);
int run_cert_import(struct cli *cli);
int run_factory_batch(struct cli *cli);
int run_factory_station(struct cli *cli);
int run_factory_record(struct cli *cli);
int run_factory_seal(struct cli *cli);
int run_factory_upload(struct cli *cli);
int run_factory_reconcile(struct cli *cli);
int run_enrollment(struct cli *cli);
int run_enrollment_rotate(struct cli *cli);
int run_enrollment_import(struct cli *cli);
int run_webhook_create(struct cli *cli);
int run_retire(struct cli *cli);
int run_completion(struct cli *cli);
int run_doctor(struct cli *cli);
int run_audit_export(struct cli *cli);
int run_audit_verify(struct cli *cli);
