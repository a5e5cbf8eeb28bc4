#include "broker/state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "broker/batch.h"

/*
 * "MGS1", saved_s (8), position (8), then batches as on the wire (model/broker_wire.h), each behind
 * its length (4), a length of 0, and the SHA-256 of all that. Integers big endian. The second half
 * of each fingerprint, which the table does not keep, is zeros.
 */
static const char magic[4] = {'M', 'G', 'S', '1'};

enum { HEAD_BYTES = sizeof(magic) + 8 + 8, LENGTH_BYTES = 4, MAX_PATH_BYTES = 4096, MODE = 0600 };

DEFINE_CLEANUP(EVP_MD_CTX *, EVP_MD_CTX_free);

static void integer_add(struct buf *b, uint64_t v, int bytes)
{
    for (int i = bytes - 1; i >= 0; i--)
        buf_add_char(b, (char)(v >> (8 * i)));
}

static uint64_t integer_of(const uint8_t *p, int bytes)
{
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++)
        v = v << 8 | p[i];
    return v;
}

/* Writing. */

struct out {
    FILE *f;
    EVP_MD_CTX *digest;
    int64_t position;
    struct buf records; /* of the batch that is being made */
    size_t certificates;
    enum err e; /* the first */
};

static void out_put(struct out *o, struct bytes b)
{
    if (b.len > 0 && !o->e &&
        (EVP_DigestUpdate(o->digest, b.data, b.len) != 1 ||
         fwrite(b.data, 1, b.len, o->f) != b.len))
        o->e = ERR_SYSTEM;
}

static void batch_put(struct out *o)
{
    _cleanup_(buf_donep) struct buf head = {0};
    buf_init(&head, LENGTH_BYTES + WIRE_BATCH_HEADER_BYTES);
    integer_add(&head, WIRE_BATCH_HEADER_BYTES + o->records.len, LENGTH_BYTES);
    buf_add_text(&head, WIRE_BATCH_MAGIC);
    integer_add(&head, 0, 8);
    integer_add(&head, (uint64_t)o->position, 8);
    integer_add(&head, 0, 1);
    if (!o->e && (head.overflow || o->records.overflow))
        o->e = ERR_NO_MEMORY;
    out_put(o, buf_bytes(&head));
    out_put(o, buf_bytes(&o->records));
    buf_reset(&o->records);
    o->certificates = 0;
}

/* Room for another record of so many bytes. */
static void room_make(struct out *o, size_t len)
{
    if (o->certificates == WIRE_MAX_BATCH_ENTRIES ||
        o->records.len + len > WIRE_MAX_BATCH_BYTES - WIRE_BATCH_HEADER_BYTES)
        batch_put(o);
}

static void policy_put(void *arg, uint32_t number, struct bytes form)
{
    struct out *o = arg;
    room_make(o, WIRE_POLICY_BYTES + form.len);
    integer_add(&o->records, WIRE_POLICY, 1);
    integer_add(&o->records, number, 4);
    integer_add(&o->records, form.len, 2);
    buf_add(&o->records, form.data, form.len);
}

static void certificate_put(void *arg, const uint8_t key[TABLE_KEY_BYTES],
                            const struct table_entry *entry)
{
    static const uint8_t unknown[SHA256_BYTES - TABLE_KEY_BYTES];
    struct out *o = arg;
    size_t thing = strlen(entry->thing);
    room_make(o, WIRE_ENTRY_BYTES + thing + entry->grants.len);
    integer_add(&o->records, entry->state, 1);
    buf_add(&o->records, key, TABLE_KEY_BYTES);
    buf_add(&o->records, unknown, sizeof(unknown));
    integer_add(&o->records, thing, 1);
    integer_add(&o->records, entry->grants.len, 2);
    buf_add(&o->records, entry->thing, thing);
    buf_add(&o->records, entry->grants.data, entry->grants.len);
    o->certificates++;
}

static void head_put(struct out *o, const struct state_head *head)
{
    _cleanup_(buf_donep) struct buf b = {0};
    buf_init(&b, HEAD_BYTES);
    buf_add(&b, magic, sizeof(magic));
    integer_add(&b, (uint64_t)head->saved_s, 8);
    integer_add(&b, (uint64_t)head->position, 8);
    out_put(o, buf_bytes(&b));
}

static void end_put(struct out *o)
{
    static const uint8_t no_batch[LENGTH_BYTES];
    uint8_t digest[SHA256_BYTES];
    out_put(o, bytes_of(no_batch, sizeof(no_batch)));
    if (!o->e && (EVP_DigestFinal_ex(o->digest, digest, NULL) != 1 ||
                  fwrite(digest, 1, sizeof(digest), o->f) != sizeof(digest)))
        o->e = ERR_SYSTEM;
}

static enum err all_put(FILE *f, const struct table *table, const struct policies *policies,
                        const struct state_head *head)
{
    _cleanup_(EVP_MD_CTX_freep) EVP_MD_CTX *digest = EVP_MD_CTX_new();
    struct out o = {.f = f, .digest = digest, .position = head->position};
    if (!digest || EVP_DigestInit_ex(digest, EVP_sha256(), NULL) != 1)
        return ERR_NO_MEMORY;
    buf_init(&o.records, WIRE_MAX_BATCH_BYTES);
    head_put(&o, head);
    policies_each(policies, policy_put, &o);
    table_each(table, certificate_put, &o);
    batch_put(&o);
    end_put(&o);
    buf_done(&o.records);
    return o.e;
}

enum err state_write(const char *path, const struct table *table, const struct policies *policies,
                     const struct state_head *head)
{
    char fresh[MAX_PATH_BYTES];
    int n = snprintf(fresh, sizeof(fresh), "%s.new", path);
    if (n < 0 || n >= (int)sizeof(fresh)) {
        errno = ENAMETOOLONG;
        return ERR_SYSTEM;
    }
    (void)unlink(fresh); /* of a broker that died over it */
    mode_t before = umask(~(mode_t)MODE & 0777);
    FILE *f = fopen(fresh, "wbxe");
    umask(before);
    if (!f)
        return ERR_SYSTEM;
    enum err e = all_put(f, table, policies, head);
    if (!e && (fflush(f) != 0 || fsync(fileno(f)) != 0))
        e = ERR_SYSTEM;
    if (fclose(f) != 0 && !e)
        e = ERR_SYSTEM;
    if (!e && rename(fresh, path) != 0)
        e = ERR_SYSTEM;
    return e;
}

/* Reading. */

struct in {
    FILE *f;
    EVP_MD_CTX *digest;
};

static enum err in_get(struct in *in, void *to, size_t len)
{
    if (fread(to, 1, len, in->f) != len)
        return ferror(in->f) ? ERR_SYSTEM : ERR_INVALID;
    return EVP_DigestUpdate(in->digest, to, len) == 1 ? ERR_OK : ERR_NO_MEMORY;
}

static enum err entry_take(const struct batch_entry *entry, struct table *table,
                           struct policies *policies)
{
    const struct table_value value = {entry->state, entry->thing, entry->grants};
    if (entry->kind == BATCH_POLICY)
        return policies_put(policies, entry->policy, entry->body);
    if (entry->kind == BATCH_CERTIFICATE && entry->state != WIRE_ABSENT)
        return table_put(table, entry->fingerprint, &value);
    return ERR_INVALID;
}

static enum err batch_take(struct bytes bytes, struct table *table, struct policies *policies)
{
    struct batch_entry entry;
    struct batch b;
    enum err e = batch_decode(bytes, &b);
    for (struct bytes rest = e ? bytes_of(NULL, 0) : b.entries; !e && rest.len > 0;) {
        e = batch_entry_decode(&rest, &entry);
        if (!e)
            e = entry_take(&entry, table, policies);
    }
    return e;
}

static enum err batches_get(struct in *in, uint8_t *room, struct table *table,
                            struct policies *policies)
{
    for (;;) {
        uint8_t length[LENGTH_BYTES];
        enum err e = in_get(in, length, sizeof(length));
        size_t len = (size_t)integer_of(length, LENGTH_BYTES);
        if (e || len == 0)
            return e;
        if (len > WIRE_MAX_BATCH_BYTES)
            return ERR_INVALID;
        e = in_get(in, room, len);
        if (!e)
            e = batch_take(bytes_of(room, len), table, policies);
        if (e)
            return e;
    }
}

static enum err head_get(struct in *in, struct state_head *ret_head)
{
    uint8_t head[HEAD_BYTES];
    enum err e = in_get(in, head, sizeof(head));
    if (e)
        return e;
    *ret_head = (struct state_head){(int64_t)integer_of(head + sizeof(magic), 8),
                                    (int64_t)integer_of(head + sizeof(magic) + 8, 8)};
    bool good = memcmp(head, magic, sizeof(magic)) == 0 && ret_head->saved_s >= 0 &&
                ret_head->position >= 0;
    return good ? ERR_OK : ERR_INVALID;
}

static enum err end_get(struct in *in)
{
    uint8_t own[SHA256_BYTES], said[SHA256_BYTES];
    if (EVP_DigestFinal_ex(in->digest, own, NULL) != 1)
        return ERR_NO_MEMORY;
    if (fread(said, 1, sizeof(said), in->f) != sizeof(said) || fgetc(in->f) != EOF)
        return ferror(in->f) ? ERR_SYSTEM : ERR_INVALID;
    return secret_equal(own, said, sizeof(own)) ? ERR_OK : ERR_INVALID;
}

static enum err all_get(struct in *in, int64_t oldest_s, struct table *table,
                        struct policies *policies, struct state_head *ret_head)
{
    uint8_t *room = malloc(WIRE_MAX_BATCH_BYTES);
    enum err e = room ? head_get(in, ret_head) : ERR_NO_MEMORY;
    if (!e && ret_head->saved_s < oldest_s)
        e = ERR_CONFLICT;
    if (!e)
        e = batches_get(in, room, table, policies);
    if (!e)
        e = end_get(in);
    free(room);
    return e;
}

static enum err owner_check(FILE *f)
{
    struct stat st;
    if (fstat(fileno(f), &st) != 0)
        return ERR_SYSTEM;
    bool ours = st.st_uid == geteuid() || st.st_uid == 0;
    return ours && S_ISREG(st.st_mode) && !(st.st_mode & (S_IWGRP | S_IWOTH)) ? ERR_OK : ERR_DENIED;
}

enum err state_read(const char *path, int64_t oldest_s, struct table *table,
                    struct policies *policies, struct state_head *ret_head)
{
    _cleanup_(EVP_MD_CTX_freep) EVP_MD_CTX *digest = EVP_MD_CTX_new();
    _cleanup_(fclosep) FILE *f = fopen(path, "rbe");
    struct in in = {f, digest};
    if (!f)
        return errno == ENOENT ? ERR_NOT_FOUND : ERR_SYSTEM;
    if (!digest || EVP_DigestInit_ex(digest, EVP_sha256(), NULL) != 1)
        return ERR_NO_MEMORY;
    enum err e = owner_check(f);
    if (!e)
        e = all_get(&in, oldest_s, table, policies, ret_head);
    if (e) {
        table_clear(table);
        policies_clear(policies);
    }
    return e;
}
