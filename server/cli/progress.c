#include "cli/progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

enum { BAR = 30, SECOND_US = 1000 * 1000 };

void progress_begin(struct progress *p, const char *what, int64_t first, int64_t total)
{
    *p = (struct progress){.what = what, .total = total, .first = first};
    p->began_us = clock_mono_us();
    p->on = isatty(STDERR_FILENO);
}

static void bar_print(const struct progress *p, int64_t done)
{
    int full = (int)(done * BAR / p->total);
    fprintf(stderr, "[%.*s%*s] %3d %%  ", full, "##############################", BAR - full, "",
            (int)(done * 100 / p->total));
}

/* The cursor goes back to the beginning of the line, where a complaint would start. */
void progress_show(const struct progress *p, int64_t done, int64_t count)
{
    int64_t us = clock_mono_us() - p->began_us, step = done - p->first;
    if (!p->on)
        return;
    if (p->total > 0)
        bar_print(p, done);
    fprintf(stderr, "%lld %s", (long long)count, p->what);
    if (p->total > 0 && step > 0)
        fprintf(stderr, ", %lld s left", (long long)((p->total - done) * (us / step) / SECOND_US));
    fprintf(stderr, "\033[K\r");
}

void progress_end(const struct progress *p)
{
    if (p->on)
        fputc('\n', stderr);
}
