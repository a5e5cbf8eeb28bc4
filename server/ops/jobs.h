/*
 * Background jobs, each done by one of the replicas, by advisory lock: hourly the partitions, every
 * minute the claims, who is stuck, the CRLs, and what ends soon.
 * Threads: made, stopped and freed by main; runs one thread of its own.
 */
#pragma once

#include "base/err.h"
#include "store/db.h"
#include "store/maintain.h"

struct jobs;
struct service;

enum err jobs_new(struct service *service, const struct maintain_settings *settings,
                  struct jobs **ret_jobs) MUST_CHECK;

/* Other settings from the next run on, which comes at once. */
void jobs_change(struct jobs *j, const struct maintain_settings *settings);

/* Stops the thread, waiting for a job under way, and frees. */
void jobs_free(struct jobs *j);
