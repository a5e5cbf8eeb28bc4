/*
 * Making a lost registry again from journals, CRLs and certificates (docs/recovery.md). For one
 * thread of a process that serves nobody.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/arena.h"
#include "base/err.h"
#include "pki/key.h"
#include "store/db.h"

enum { RECOVERY_MAX_FILES = 64, RECOVERY_MAX_GAPS = 10000 };

/* Borrowed. */
struct recovery_order {
    const char *journals[RECOVERY_MAX_FILES]; /* folders */
    size_t journal_count;
    const char *crls[RECOVERY_MAX_FILES];
    size_t crl_count;
    const char *bundle; /* PEM certificates; NULL: none */
    const char *product;
    const char *template;               /* of them; NULL: the only one of the product */
    EVP_PKEY *keys[RECOVERY_MAX_FILES]; /* of the seals, any of which may be by any of them */
    size_t key_count;
    bool dry_run;
    bool onto_existing;
};

/* What a registry made of this lacks, or may lack. */
struct recovery_gap {
    const char *kind;
    const char *file; /* NULL: none in particular */
    int64_t line;     /* 0: likewise */
    const char *detail;
};

/* All of it in the arena. */
struct recovery_report {
    struct arena arena;
    bool dry_run;
    int64_t files;
    int64_t lines;
    int64_t seals; /* good ones */
    struct recovery_gap *gaps;
    size_t gap_count;
    const char *applied; /* JSON: before and after */
};
void recovery_report_done(struct recovery_report *report);

/* message (DB_MAX_MESSAGE_BYTES) says why nothing was done. A dry run does everything and takes it
 * back. The caller frees the report whatever comes. */
enum err recovery_run(struct db *db, const struct recovery_order *order,
                      struct recovery_report *ret_report, char *message) MUST_CHECK;

/* For people, or as JSON; ret_gaps: how many there are in all. */
enum err recovery_print(const struct recovery_report *report, bool json, FILE *out,
                        size_t *ret_gaps) MUST_CHECK;
