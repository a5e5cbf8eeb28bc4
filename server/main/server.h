/*
 * The objects of a running musterd, made in order and ended in reverse. Threads: main only.
 */
#pragma once

#include "base/err.h"
#include "http/listener.h"
#include "ops/config.h"
#include "store/db.h"

struct server;

/* A pool after the configuration; the caller frees with db_free. message tells what is wrong. */
enum err server_database(const struct config *config, struct db **ret_db,
                         char message[CONFIG_MESSAGE_BYTES]) MUST_CHECK;

/* Makes everything and listens. The tables are borrowed. */
enum err server_new(const struct config *config, const struct route_table *const *device_tables,
                    size_t device_count, const struct route_table *const *admin_tables,
                    size_t admin_count, struct server **ret_server,
                    char message[CONFIG_MESSAGE_BYTES]) MUST_CHECK;

/* Whether the database's schema is one this binary works with. */
enum err server_schema_check(struct db *db, char message[CONFIG_MESSAGE_BYTES]) MUST_CHECK;

/* Loads the configuration file and the TLS certificate again, and the catalog with its issuing
 * keys; all or, when a file is broken, nothing. Requests and connections go on. Logs the outcome
 * and the keys that need a restart. */
enum err server_reload(struct server *s) MUST_CHECK;

/* Whether the admin listener answers a request on a new connection. */
enum err server_answers(const struct server *s, unsigned timeout_ms) MUST_CHECK;

/* Stops accepting, waits for the requests under way, at most the configured time. */
void server_drain(struct server *s);
void server_free(struct server *s);
