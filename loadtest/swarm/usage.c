#include "usage.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

enum { MAX_STAT_BYTES = 1024, US_PER_S = 1000000 };

/* Parent and CPU ticks of a process and its children that ended; false: it is gone. */
static bool stat_read(int pid, int *ret_parent, int64_t *ret_us)
{
    char path[64], text[MAX_STAT_BYTES];
    unsigned long own[4] = {0};
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    _cleanup_(fclosep) FILE *file = fopen(path, "re");
    if (!file || !fgets(text, sizeof(text), file))
        return false;
    const char *rest = strrchr(text, ')');
    if (!rest || sscanf(rest, ") %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %lu %lu",
                        ret_parent, &own[0], &own[1], &own[2], &own[3]) != 5)
        return false;
    unsigned long ticks = own[0] + own[1] + own[2] + own[3];
    *ret_us = (int64_t)ticks * (US_PER_S / sysconf(_SC_CLK_TCK));
    return true;
}

/* A process and those it is the parent of. */
static int64_t family_us(int leader)
{
    int64_t total_us = 0, us;
    int parent;
    DIR *proc = leader > 0 ? opendir("/proc") : NULL;
    struct dirent *entry;
    while (proc && (entry = readdir(proc))) {
        int pid = atoi(entry->d_name);
        if (pid > 0 && stat_read(pid, &parent, &us) && (pid == leader || parent == leader))
            total_us += us;
    }
    if (proc)
        closedir(proc);
    return total_us;
}

static uint32_t memory_kib(int pid, const char *name)
{
    char path[64], line[256];
    unsigned value = 0;
    snprintf(path, sizeof(path), "/proc/%d/status", pid);
    _cleanup_(fclosep) FILE *file = pid > 0 ? fopen(path, "re") : NULL;
    while (file && fgets(line, sizeof(line), file)) {
        if (strncmp(line, name, strlen(name)) == 0)
            sscanf(line + strlen(name), ": %u", &value);
    }
    return value;
}

void usage_read(const struct usage *u, struct usage_reading *ret_reading)
{
    *ret_reading = (struct usage_reading){
        .database_us = family_us(u->database),
        .server_kib = memory_kib(u->server, "VmRSS"),
        .server_peak_kib = memory_kib(u->server, "VmHWM"),
    };
    int parent;
    if (u->server > 0)
        (void)stat_read(u->server, &parent, &ret_reading->server_us);
    if (u->broker > 0)
        (void)stat_read(u->broker, &parent, &ret_reading->broker_us);
}
