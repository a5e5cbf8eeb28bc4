/* The signer whose key is a file: loaded once, kept in memory. */
#include <stdlib.h>

#include "pki/key.h"
#include "pki/signer.h"

struct signer_file {
    struct signer base; /* first */
    EVP_PKEY *key;
};

static EVP_PKEY *key_get(const struct signer *s)
{
    return ((const struct signer_file *)s)->key;
}

static void file_free(struct signer *s)
{
    struct signer_file *f = (struct signer_file *)s;
    key_free(f->key);
    free(f);
}

static const struct signer_ops ops = {.key_get = key_get, .free = file_free};

enum err signer_file_new(const char *path, const char *passphrase, struct signer **ret_signer)
{
    struct signer_file *f = calloc(1, sizeof(*f));
    if (!f)
        return ERR_NO_MEMORY;
    f->base.ops = &ops;
    enum err e = key_load_private(path, passphrase, &f->key);
    if (e)
        free(f);
    else
        *ret_signer = &f->base;
    return e;
}
