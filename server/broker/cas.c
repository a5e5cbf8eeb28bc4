#include "broker/cas.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/pem.h>
#include <openssl/x509.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/file.h"

/* Which files are ours: their names, a line each. */
static const char list_name[] = "muster.list";

enum {
    NAME_BYTES = 16, /* eight digits, a dot, a number */
    MAX_PATH_BYTES = 4096,
    MAX_LIST_BYTES = CAS_MAX * NAME_BYTES,
    MAX_PEM_BYTES = 16 * 1024,
    MAX_NUMBER = 999,
};

DEFINE_CLEANUP(X509 *, X509_free);
DEFINE_CLEANUP(BIO *, BIO_free_all);

struct folder {
    const char *path;
    struct buf ours; /* names before, each behind a line end */
    struct buf now;  /* names from now on */
};

static enum err path_of(const struct folder *f, const char *name, char ret[MAX_PATH_BYTES])
{
    int n = snprintf(ret, MAX_PATH_BYTES, "%s/%s", f->path, name);
    if (n > 0 && n < MAX_PATH_BYTES)
        return ERR_OK;
    errno = ENAMETOOLONG;
    return ERR_SYSTEM;
}

static bool listed(const struct buf *list, const char *name)
{
    char line[NAME_BYTES + 2];
    snprintf(line, sizeof(line), "\n%s\n", name);
    return strstr(buf_text(list), line) != NULL;
}

/* The file's content, empty where there is none. */
static enum err file_read(const struct folder *f, const char *name, size_t max, struct buf *b)
{
    char path[MAX_PATH_BYTES];
    enum err e = path_of(f, name, path);
    buf_init(b, max);
    if (e)
        return e;
    if (access(path, F_OK) != 0)
        return ERR_NOT_FOUND;
    return file_load(path, b);
}

static enum err file_write(const struct folder *f, const char *name, struct bytes text)
{
    char path[MAX_PATH_BYTES], fresh[MAX_PATH_BYTES];
    enum err e = path_of(f, name, path);
    if (!e)
        e = path_of(f, "muster.new", fresh);
    if (!e)
        e = file_store(fresh, text, 0644);
    if (!e && rename(fresh, path) != 0)
        e = ERR_SYSTEM;
    return e;
}

static enum err pem_make(X509 *x, struct buf *b)
{
    _cleanup_(BIO_free_allp) BIO *out = BIO_new(BIO_s_mem());
    char *data = NULL;
    if (!out || PEM_write_bio_X509(out, x) != 1)
        return ERR_NO_MEMORY;
    long len = BIO_get_mem_data(out, &data);
    buf_add(b, data, (size_t)len);
    return b->overflow ? ERR_INVALID : ERR_OK;
}

/* Puts a certificate under the first number of its hash that is free or ours; OpenSSL looks from 0
 * on up to the first that is missing. */
static enum err certificate_put(struct folder *f, X509 *x, struct bytes pem)
{
    for (int n = 0; n <= MAX_NUMBER; n++) {
        _cleanup_(buf_donep) struct buf there = {0};
        char name[NAME_BYTES];
        snprintf(name, sizeof(name), "%08lx.%d", X509_subject_name_hash(x) & 0xffffffffUL, n);
        enum err e = file_read(f, name, MAX_PEM_BYTES, &there);
        bool same = !e && bytes_equal(buf_bytes(&there), pem);
        if (e != ERR_NOT_FOUND && !listed(&f->ours, name) && !same)
            continue; /* another's */
        if (listed(&f->now, name))
            continue;
        if (!same)
            e = file_write(f, name, pem);
        else
            e = ERR_OK;
        if (!e && (!same || listed(&f->ours, name)))
            buf_printf(&f->now, "%s\n", name);
        return e;
    }
    errno = EMFILE;
    return ERR_SYSTEM;
}

static enum err der_put(struct folder *f, struct bytes der)
{
    const unsigned char *p = der.data;
    _cleanup_(X509_freep) X509 *x = d2i_X509(NULL, &p, (long)der.len);
    _cleanup_(buf_donep) struct buf pem = {0};
    buf_init(&pem, MAX_PEM_BYTES);
    if (!x || pem_make(x, &pem))
        return ERR_INVALID;
    return certificate_put(f, x, buf_bytes(&pem));
}

/* Files of ours that are not any more. */
static void leave(const struct folder *f)
{
    char path[MAX_PATH_BYTES], name[NAME_BYTES];
    const char *at = buf_text(&f->ours);
    while (*at) {
        size_t len = strcspn(at, "\n");
        if (len > 0 && len < sizeof(name)) {
            memcpy(name, at, len);
            name[len] = '\0';
            if (!strchr(name, '/') && !listed(&f->now, name) && path_of(f, name, path) == ERR_OK)
                (void)unlink(path);
        }
        at += len + (at[len] != '\0');
    }
}

static enum err folder_keep(struct folder *f, const struct bytes *ders, size_t count)
{
    _cleanup_(buf_donep) struct buf list = {0};
    enum err worst = ERR_OK, e = file_read(f, list_name, MAX_LIST_BYTES, &list);
    if (e && e != ERR_NOT_FOUND)
        return e;
    buf_add_char(&f->ours, '\n');
    buf_add(&f->ours, list.data, list.len);
    buf_add_char(&f->now, '\n');
    for (size_t i = 0; i < count; i++) {
        e = der_put(f, ders[i]);
        if (e == ERR_SYSTEM)
            return e;
        worst = e ? e : worst;
    }
    struct bytes names = bytes_of(f->now.data + 1, f->now.len - 1);
    if (!bytes_equal(names, buf_bytes(&list)))
        e = file_write(f, list_name, names);
    else
        e = ERR_OK;
    if (!e)
        leave(f);
    return e ? e : worst;
}

enum err cas_keep(const char *folder, const struct bytes *ders, size_t count)
{
    struct folder f = {.path = folder};
    buf_init(&f.ours, MAX_LIST_BYTES + 2);
    buf_init(&f.now, MAX_LIST_BYTES + 2);
    enum err e = folder_keep(&f, ders, count);
    buf_done(&f.ours);
    buf_done(&f.now);
    return e;
}
