/* One run of a scenario, from tokens to audit and report. Threads: main only. */
#pragma once

#include "scenario.h"
#include "usage.h"

/* 0: every device succeeded, the audit is clean; 1: not so; 2: it could not be run. keys_path is
 * where made keys are kept; processes 0: the only ones of their name. */
int run_scenario(const struct scenario *s, const char *folder, const char *keys_path,
                 const struct usage *processes);
