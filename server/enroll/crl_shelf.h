/*
 * The CRLs this replica has served, in memory: the registry is only asked whether there is a later
 * one. Threads: any.
 */
#pragma once

#include "base/arena.h"
#include "base/err.h"
#include "store/revocation.h"

struct crl_shelf;

enum err crl_shelf_new(struct crl_shelf **ret_shelf) MUST_CHECK;
void crl_shelf_free(struct crl_shelf *s);

/* The latest, its DER in the arena. While the database is away the one that is here serves.
 * ERR_NOT_FOUND; ERR_UNAVAILABLE. */
enum err crl_shelf_get(struct crl_shelf *s, struct db *db, const struct crl_name *name,
                       struct arena *arena, struct crl_signed *ret_crl) MUST_CHECK;
