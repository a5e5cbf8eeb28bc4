#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "broker/state.h"
#include "suite.h"

enum { MANY = 2500, MILLION = 1000000, MAX_FILE_BYTES = 8 << 20, SAVED_S = 1700000000 };

static const uint8_t allow_all[] = {1, 0, 15, 0, 0, 0}; /* a form: model/policy.h */
static const uint8_t grants[] = {1, 0, 0, 0, 7, 4, 's', 'i', 't', 'e', 5, 'b', 'a', 's', 'e', 'l'};

struct place {
    char folder[64];
    char path[96];
    struct table *table;
    struct policies *policies;
};

static void place_init(struct place *p)
{
    snprintf(p->folder, sizeof(p->folder), "/tmp/muster-state-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(p->folder));
    snprintf(p->path, sizeof(p->path), "%s/state", p->folder);
    ck_assert_int_eq(table_new(&p->table), ERR_OK);
    ck_assert_int_eq(policies_new(&p->policies), ERR_OK);
}

static void place_done(struct place *p)
{
    table_free(p->table);
    policies_free(p->policies);
    unlink(p->path);
    ck_assert_int_eq(rmdir(p->folder), 0); /* and nothing else is in it */
}

static void key_number(unsigned n, uint8_t ret[SHA256_BYTES])
{
    memset(ret, 0, SHA256_BYTES);
    memcpy(ret, &n, sizeof(n));
    ret[8] = (uint8_t)(n * 37);
}

/* Claims, devices with grants and without, with a thing and without. */
static struct table_value value_number(unsigned n, char thing[32])
{
    int len = snprintf(thing, 32, "pump-%u", n);
    if (n % 4 == 0)
        return (struct table_value){.state = WIRE_CLAIM};
    return (struct table_value){
        .state = n % 4 == 1 ? WIRE_UNUSED : WIRE_OPERATIONAL,
        .thing = bytes_of(thing, n % 4 == 3 ? 0 : (size_t)len),
        .grants = n % 3 == 0 ? bytes_of(grants, sizeof(grants)) : bytes_of(NULL, 0),
    };
}

static void fill(struct place *p, unsigned count)
{
    uint8_t key[SHA256_BYTES];
    char thing[32];
    ck_assert_int_eq(policies_put(p->policies, 7, bytes_of(allow_all, sizeof(allow_all))), ERR_OK);
    for (unsigned n = 0; n < count; n++) {
        const struct table_value v = value_number(n, thing);
        key_number(n, key);
        ck_assert_int_eq(table_put(p->table, key, &v), ERR_OK);
    }
}

static void write_to(const struct place *p)
{
    const struct state_head head = {SAVED_S, 4711};
    ck_assert_int_eq(state_write(p->path, p->table, p->policies, &head), ERR_OK);
}

static void same_check(const struct place *p, unsigned count)
{
    uint8_t key[SHA256_BYTES];
    char thing[32];
    ck_assert_uint_eq(table_count(p->table), count);
    ck_assert(bytes_equal(policies_find(p->policies, 7), bytes_of(allow_all, sizeof(allow_all))));
    for (unsigned n = 0; n < count; n++) {
        struct table_entry e;
        const struct table_value v = value_number(n, thing);
        key_number(n, key);
        ck_assert(table_find(p->table, key, &e));
        ck_assert_int_eq(e.state, v.state);
        ck_assert(bytes_equal(bytes_text(e.thing), v.thing));
        ck_assert(bytes_equal(e.grants, v.grants));
    }
}

static enum err read_from(struct place *p, int64_t oldest_s, struct state_head *ret)
{
    table_clear(p->table);
    policies_clear(p->policies);
    return state_read(p->path, oldest_s, p->table, p->policies, ret);
}

static void empty_check(const struct place *p)
{
    ck_assert_uint_eq(table_count(p->table), 0);
    ck_assert_uint_eq(policies_count(p->policies), 0);
}

START_TEST(what_was_saved_is_there_again)
{
    struct place p;
    struct state_head head = {0};
    struct stat st;
    place_init(&p);
    for (unsigned count = 0; count <= MANY; count += MANY / 2) {
        fill(&p, count);
        write_to(&p);
        ck_assert_int_eq(read_from(&p, SAVED_S, &head), ERR_OK);
        same_check(&p, count);
        ck_assert_int_eq(head.saved_s, SAVED_S);
        ck_assert_int_eq(head.position, 4711);
    }
    ck_assert_int_eq(stat(p.path, &st), 0);
    ck_assert_int_eq(st.st_mode & 0777, 0600);
    place_done(&p);
}
END_TEST

START_TEST(an_old_one_or_none_is_told_apart)
{
    struct place p;
    struct state_head head;
    place_init(&p);
    ck_assert_int_eq(read_from(&p, 0, &head), ERR_NOT_FOUND);
    fill(&p, 10);
    write_to(&p);
    ck_assert_int_eq(read_from(&p, SAVED_S + 1, &head), ERR_CONFLICT);
    empty_check(&p);
    ck_assert_int_eq(read_from(&p, SAVED_S, &head), ERR_OK);
    place_done(&p);
}
END_TEST

START_TEST(one_that_others_may_write_is_refused)
{
    struct place p;
    struct state_head head;
    place_init(&p);
    fill(&p, 10);
    write_to(&p);
    for (unsigned mode = 0602; mode <= 0620; mode += 016) {
        ck_assert_int_eq(chmod(p.path, mode), 0);
        ck_assert_int_eq(read_from(&p, 0, &head), ERR_DENIED);
        empty_check(&p);
    }
    if (geteuid() == 0) {
        ck_assert_int_eq(chmod(p.path, 0600), 0);
        ck_assert_int_eq(chown(p.path, 65534, 65534), 0);
        ck_assert_int_eq(read_from(&p, 0, &head), ERR_DENIED);
    }
    place_done(&p);
}
END_TEST

static void damaged_check(struct place *p, const struct buf *file, size_t len)
{
    struct state_head head;
    ck_assert_int_eq(file_store(p->path, bytes_of(file->data, len), 0600), ERR_OK);
    ck_assert_int_eq(read_from(p, 0, &head), ERR_INVALID);
    empty_check(p);
}

START_TEST(a_damaged_one_is_not_read)
{
    struct place p;
    struct buf file;
    place_init(&p);
    buf_init(&file, MAX_FILE_BYTES);
    fill(&p, 20);
    write_to(&p);
    ck_assert_int_eq(file_load(p.path, &file), ERR_OK);
    for (size_t at = 0; at < file.len; at += 7) {
        file.data[at] ^= 0x20;
        damaged_check(&p, &file, file.len);
        file.data[at] ^= 0x20;
        damaged_check(&p, &file, at);
    }
    buf_add_char(&file, 'x');
    damaged_check(&p, &file, file.len);
    buf_done(&file);
    place_done(&p);
}
END_TEST

START_TEST(what_cannot_be_written_leaves_the_old_one)
{
    struct place p;
    struct state_head head = {SAVED_S, 1};
    char fresh[128];
    place_init(&p);
    fill(&p, 10);
    write_to(&p);
    snprintf(fresh, sizeof(fresh), "%s.new", p.path);
    ck_assert_int_eq(mkdir(fresh, 0700), 0); /* in the way */
    fill(&p, MANY);
    ck_assert_int_eq(state_write(p.path, p.table, p.policies, &head), ERR_SYSTEM);
    ck_assert_int_eq(rmdir(fresh), 0);
    ck_assert_int_eq(read_from(&p, 0, &head), ERR_OK);
    same_check(&p, 10);
    place_done(&p);
}
END_TEST

START_TEST(a_million_entries)
{
    struct place p;
    struct state_head head;
    struct stat st;
    place_init(&p);
    fill(&p, MILLION);
    int64_t begin_us = clock_mono_us();
    write_to(&p);
    int64_t written_us = clock_mono_us();
    ck_assert_int_eq(read_from(&p, 0, &head), ERR_OK);
    ck_assert_uint_eq(table_count(p.table), MILLION);
    ck_assert_int_eq(stat(p.path, &st), 0);
    printf("state of 1,000,000: written in %lld ms, read in %lld ms, %lld MB\n",
           (long long)(written_us - begin_us) / 1000,
           (long long)(clock_mono_us() - written_us) / 1000, (long long)st.st_size / 1000000);
    place_done(&p);
}
END_TEST

SUITE("broker_state", what_was_saved_is_there_again, an_old_one_or_none_is_told_apart,
      one_that_others_may_write_is_refused, a_damaged_one_is_not_read,
      what_cannot_be_written_leaves_the_old_one, a_million_entries)
