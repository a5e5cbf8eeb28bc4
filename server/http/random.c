/* Random numbers for GnuTLS, from the kernel, in place of its own generator. */
#include "http/random.h"

#include <dlfcn.h>
#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <sys/random.h>

/* The one of GnuTLS keeps some 220 bytes for every thread that ever asked it, until the process
 * ends (_gnutls_rnd_init in its lib/random.c). With a thread a connection that is a leak. All
 * levels are the kernel's best, and there is no state that a fork or a snapshot could double. */
int gnutls_rnd(gnutls_rnd_level_t level, void *data, size_t len)
{
    (void)level;
    for (size_t done = 0; done < len;) {
        ssize_t n = getrandom((char *)data + done, len - done, 0);
        if (n < 0 && errno != EINTR)
            return GNUTLS_E_RANDOM_FAILED;
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

bool random_is_ours(void)
{
    int (*used)(gnutls_rnd_level_t, void *, size_t) = NULL;
    *(void **)&used = dlsym(RTLD_DEFAULT, "gnutls_rnd");
    return used == gnutls_rnd;
}
