/* The signer whose key is behind PKCS#11, by OpenSSL's engine of libp11, which pools sessions.
 * OpenSSL 3 calls engines outdated and Debian's has no provider yet that could take their place. */
#define OPENSSL_SUPPRESS_DEPRECATED

#include <openssl/engine.h>
#include <openssl/err.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "pki/key.h"
#include "pki/signer.h"

struct signer_pkcs11 {
    struct signer base; /* first */
    EVP_PKEY *key;
};

/* One for the process: a module is initialised once, and again only when nobody has a key of it. */
static struct {
    pthread_mutex_t lock; /* guards the rest: keys are looked for one at a time */
    ENGINE *engine;       /* NULL: none is configured */
    char *module;
    char *pin; /* secret; NULL: none */
    unsigned keys;
    bool broken; /* a key did not sign: the module is begun again before the next is opened */
} token = {.lock = PTHREAD_MUTEX_INITIALIZER};

static EVP_PKEY *key_get(const struct signer *s)
{
    return ((const struct signer_pkcs11 *)s)->key;
}

static void pkcs11_free(struct signer *s)
{
    struct signer_pkcs11 *p = (struct signer_pkcs11 *)s;
    pthread_mutex_lock(&token.lock);
    key_free(p->key);
    token.keys--;
    pthread_mutex_unlock(&token.lock);
    free(p);
}

/* libp11 goes on handing out what it knows of a token that is not there any more. */
static void pkcs11_failed(const struct signer *s)
{
    (void)s;
    pthread_mutex_lock(&token.lock);
    token.broken = true;
    pthread_mutex_unlock(&token.lock);
}

static const struct signer_ops ops = {
    .key_get = key_get, .free = pkcs11_free, .failed = pkcs11_failed};

static bool engine_begin(void)
{
    ENGINE *e = ENGINE_by_id("pkcs11");
    if (!e || !ENGINE_ctrl_cmd_string(e, "MODULE_PATH", token.module, 0) ||
        (token.pin && !ENGINE_ctrl_cmd_string(e, "PIN", token.pin, 0)) || !ENGINE_init(e)) {
        ENGINE_free(e);
        ERR_clear_error();
        return false;
    }
    token.engine = e;
    return true;
}

enum err signer_pkcs11_begin(const char *module, const char *pin)
{
    if (token.engine)
        return ERR_CONFLICT;
    token.module = strdup(module);
    token.pin = pin ? strdup(pin) : NULL;
    if (!token.module || (pin && !token.pin))
        return ERR_NO_MEMORY;
    return engine_begin() ? ERR_OK : ERR_NOT_FOUND;
}

/* A module that saw no token when it began may never see one. */
static bool engine_again(void)
{
    if (token.keys > 0)
        return ENGINE_ctrl_cmd_string(token.engine, "FORCE_LOGIN", NULL, 0) == 1;
    ENGINE_finish(token.engine);
    ENGINE_free(token.engine);
    token.engine = NULL;
    token.broken = false;
    return engine_begin();
}

static EVP_PKEY *key_find(const char *uri)
{
    if (token.broken && token.keys > 0)
        return NULL; /* until whoever has one has given it back */
    bool usable = token.engine && !token.broken;
    EVP_PKEY *key = usable ? ENGINE_load_private_key(token.engine, uri, NULL, NULL) : NULL;
    if (!key && (token.engine ? engine_again() : engine_begin()))
        key = ENGINE_load_private_key(token.engine, uri, NULL, NULL);
    ERR_clear_error();
    token.keys += key != NULL;
    return key;
}

enum err signer_pkcs11_new(const char *uri, struct signer **ret_signer)
{
    if (!token.module)
        return ERR_NOT_FOUND;
    struct signer_pkcs11 *p = calloc(1, sizeof(*p));
    if (!p)
        return ERR_NO_MEMORY;
    p->base.ops = &ops;
    pthread_mutex_lock(&token.lock);
    p->key = key_find(uri);
    pthread_mutex_unlock(&token.lock);
    if (!p->key) {
        free(p);
        return ERR_UNAVAILABLE;
    }
    *ret_signer = &p->base;
    return ERR_OK;
}
