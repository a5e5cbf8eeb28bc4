#include "enroll/limit_slots.h"

enum {
    SECOND_US = 1000000,
    MAX_LATE_US = 250000, /* from the database's clock to the passing */
    MAX_RETRY_S = 600,
};

/* Rounded up: never more than the rate. */
static int64_t gap_us(double per_second)
{
    int64_t gap = (int64_t)(SECOND_US / per_second);
    return (double)gap * per_second < SECOND_US ? gap + 1 : gap;
}

struct limit_plan limit_plan(struct limit_rate rate, unsigned renewal_share)
{
    double burst = rate.burst > 0 ? rate.burst : rate.per_second;
    /* each lane may begin one slot at either end of an interval */
    double slack = burst >= 4 ? burst - 2 : burst / 2;
    int64_t tolerance_us = (int64_t)(slack * SECOND_US / rate.per_second);
    int64_t late_us = tolerance_us / 2 < MAX_LATE_US ? tolerance_us / 2 : MAX_LATE_US;
    struct limit_plan p = {.tolerance_us = tolerance_us, .back_us = tolerance_us - late_us};
    double renewals = rate.per_second * (renewal_share / 100.0);
    p.common_gap_us = gap_us(rate.per_second - renewals);
    if (renewal_share > 0)
        p.renewal_gap_us = gap_us(renewals);
    return p;
}

struct limit_lease limit_lease(const struct lease_run *run, int64_t tolerance_us, int64_t sent_us,
                               int64_t got_us)
{
    int64_t ahead_us = run->first_us - run->now_us;
    return (struct limit_lease){
        .next = {.opens_us = got_us + ahead_us, .closes_us = sent_us + ahead_us + tolerance_us},
        .gap_us = run->gap_us,
        .left = run->granted,
    };
}

bool limit_lease_next(struct limit_lease *l, int64_t now_us, struct limit_slot *ret_slot)
{
    while (l->left > 0) {
        struct limit_slot slot = l->next;
        l->next.opens_us += l->gap_us;
        l->next.closes_us += l->gap_us;
        l->left--;
        if (slot.closes_us >= now_us && slot.closes_us >= slot.opens_us) {
            *ret_slot = slot;
            return true;
        }
    }
    return false;
}

int limit_retry_s(int64_t *next_us, int64_t now_us, int64_t queue_us, int64_t step_us)
{
    int64_t at_us = *next_us > now_us + queue_us ? *next_us : now_us + queue_us;
    if (at_us > now_us + (int64_t)MAX_RETRY_S * SECOND_US)
        at_us = now_us + queue_us;
    *next_us = at_us + step_us;
    int64_t seconds = (at_us - now_us + SECOND_US - 1) / SECOND_US;
    return seconds > 0 ? (int)seconds : 1;
}
