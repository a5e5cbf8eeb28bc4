#include "main/rebuild.h"

#include <stdio.h>

#include "base/file.h"
#include "main/server.h"

enum { EXIT_GAPS = 1, EXIT_USAGE = 2, EXIT_NOTHING = 3, MAX_KEY_BYTES = 64 * 1024 };

static int nothing(const char *message)
{
    fprintf(stderr, "musterd: %s\n", message);
    return EXIT_NOTHING;
}

static bool usage_right(const struct rebuild_request *rq)
{
    const struct recovery_order *o = &rq->order;
    return (o->journal_count > 0 || o->crl_count > 0 || o->bundle) &&
           (o->bundle != NULL) == (o->product != NULL) && (o->bundle || !o->template);
}

static enum err key_load(const char *path, EVP_PKEY **ret_key)
{
    _cleanup_(buf_donep) struct buf pem = {0};
    buf_init(&pem, MAX_KEY_BYTES);
    enum err e = file_load(path, &pem);
    return e ? e : key_parse_public(buf_bytes(&pem), ret_key);
}

/* The seals' keys; without any that are named, the one that this machine seals with. */
static enum err keys_load(const struct config *c, const struct rebuild_request *rq,
                          struct recovery_order *order, char *message)
{
    enum err e = ERR_OK;
    const char *path = c->journal_key_file;
    for (size_t i = 0; i < rq->key_file_count && !e; i++) {
        path = rq->key_files[i];
        e = key_load(path, &order->keys[order->key_count]);
        order->key_count += e ? 0 : 1;
    }
    if (rq->key_file_count == 0 && order->journal_count > 0) {
        e = key_load_private(path, NULL, &order->keys[0]);
        order->key_count = e ? 0 : 1;
    }
    if (e)
        snprintf(message, CONFIG_MESSAGE_BYTES,
                 "the key of the seals: --journal-key or [journal] key_file: %.200s: %s", path,
                 err_name(e));
    return e;
}

static enum err database_open(const struct config *config, struct db **ret_db, char *message)
{
    struct config patient = *config;
    struct db *db = NULL;
    patient.database_statement_timeout_ms = 0; /* it takes the time it takes */
    enum err e = server_database(&patient, &db, message);
    if (!e)
        e = server_schema_check(db, message);
    if (e)
        db_free(db);
    else
        *ret_db = db;
    return e;
}

static int report_tell(const struct recovery_report *report, bool json)
{
    size_t gaps = 0;
    if (recovery_print(report, json, stdout, &gaps))
        return nothing("the report cannot be written");
    return gaps > 0 ? EXIT_GAPS : 0;
}

int rebuild_command_run(const struct config *config, const struct rebuild_request *rq)
{
    char message[CONFIG_MESSAGE_BYTES] = "";
    struct recovery_order order = rq->order;
    struct recovery_report report = {0};
    struct db *db = NULL;
    if (!usage_right(rq)) {
        fprintf(stderr, "musterd: give --journal, --crl or --certificates with --product; see "
                        "musterd --help\n");
        return EXIT_USAGE;
    }
    enum err e = keys_load(config, rq, &order, message);
    if (!e)
        e = database_open(config, &db, message);
    if (!e)
        e = recovery_run(db, &order, &report, message);
    int code = e ? nothing(message) : report_tell(&report, rq->json);
    recovery_report_done(&report);
    db_free(db);
    for (size_t i = 0; i < order.key_count; i++)
        key_free(order.keys[i]);
    return code;
}
