#include "base/process.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

enum { MAX_STAT_BYTES = 1024, START_FIELD = 20 /* counted behind the name in parentheses */ };

static int64_t resident_bytes(void)
{
    _cleanup_(fclosep) FILE *file = fopen("/proc/self/statm", "re");
    long long pages = 0;
    if (!file || fscanf(file, "%*d %lld", &pages) != 1)
        return 0;
    return pages * sysconf(_SC_PAGESIZE);
}

static int64_t open_fds(void)
{
    DIR *folder = opendir("/proc/self/fd");
    int64_t n = 0;
    if (!folder)
        return 0;
    for (const struct dirent *d = readdir(folder); d; d = readdir(folder))
        n += d->d_name[0] != '.';
    closedir(folder);
    return n - 1; /* but for the folder itself */
}

/* Ticks from boot to the start of the process (proc(5), stat, field 22). */
static double start_ticks(void)
{
    char text[MAX_STAT_BYTES] = "";
    _cleanup_(fclosep) FILE *file = fopen("/proc/self/stat", "re");
    if (!file || !fgets(text, sizeof(text), file))
        return 0;
    const char *p = strrchr(text, ')');
    for (int i = 0; p && i < START_FIELD; i++) {
        p = strchr(p, ' ');
        if (p)
            p++;
    }
    return p ? (double)strtoull(p, NULL, 10) : 0;
}

double process_started_s(void)
{
    struct timespec wall, boot;
    clock_gettime(CLOCK_REALTIME, &wall);
    clock_gettime(CLOCK_BOOTTIME, &boot);
    double up = (double)boot.tv_sec + (double)boot.tv_nsec / 1e9;
    return (double)wall.tv_sec + (double)wall.tv_nsec / 1e9 - up +
           start_ticks() / (double)sysconf(_SC_CLK_TCK);
}

static double seconds_of(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

struct process_facts process_look(void)
{
    struct rusage used = {0};
    struct rlimit files = {0};
    (void)getrusage(RUSAGE_SELF, &used);
    (void)getrlimit(RLIMIT_NOFILE, &files);
    return (struct process_facts){
        .cpu_s = seconds_of(used.ru_utime) + seconds_of(used.ru_stime),
        .resident_bytes = resident_bytes(),
        .open_fds = open_fds(),
        .max_fds = (int64_t)files.rlim_cur,
    };
}
