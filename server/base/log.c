#include "base/log.h"

#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json_out.h"

enum { MAX_LINE_BYTES = 16384 };

static atomic_int log_level = LOG_INFO;

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&log_level, (int)level, memory_order_relaxed);
}

enum err log_level_parse(const char *name, enum log_level *ret_level)
{
    for (int i = 0; i <= LOG_ERROR; i++) {
        if (strcmp(level_names[i], name) != 0)
            continue;
        *ret_level = (enum log_level)i;
        return ERR_OK;
    }
    return ERR_INVALID;
}

void log_begin(struct buf *b, enum log_level level, const char *event)
{
    char now[CLOCK_TEXT_BYTES];
    clock_now_text(now);
    buf_init(b, MAX_LINE_BYTES);
    json_begin_object(b);
    json_text(b, "time", now);
    json_text(b, "level", level_names[level]);
    json_text(b, "event", event);
}

void log_end(struct buf *b, enum log_level level)
{
    json_end_object(b);
    buf_add_char(b, '\n');
    bool wanted = (int)level >= atomic_load_explicit(&log_level, memory_order_relaxed);
    if (wanted && b->overflow) {
        static const char lost[] = "{\"level\":\"error\",\"event\":\"log.line_too_long\"}\n";
        ssize_t n = write(STDERR_FILENO, lost, sizeof(lost) - 1);
        (void)n;
    } else if (wanted) {
        ssize_t n = write(STDERR_FILENO, b->data, b->len);
        (void)n; /* nowhere left to complain */
    }
    buf_done(b);
}

void log_text(enum log_level level, const char *event, const char *key, const char *value)
{
    struct buf b;
    log_begin(&b, level, event);
    json_text(&b, key, value);
    log_end(&b, level);
}
