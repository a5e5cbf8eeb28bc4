#include "pki/signer.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

static const char scheme[] = "pkcs11:";

void signer_free(struct signer *s)
{
    if (s)
        s->ops->free(s);
}

bool signer_is_pkcs11(const char *reference)
{
    return strncmp(reference, scheme, strlen(scheme)) == 0;
}

enum err signer_open(const struct signer_source *source, const char *reference,
                     struct signer **ret_signer)
{
    char path[PATH_MAX];
    if (signer_is_pkcs11(reference))
        return signer_pkcs11_new(reference, ret_signer);
    int n = snprintf(path, sizeof(path), "%s/%s", source->folder, reference);
    return n > 0 && (size_t)n < sizeof(path) ? signer_file_new(path, source->passphrase, ret_signer)
                                             : ERR_INVALID;
}
