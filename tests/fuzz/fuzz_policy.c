/*
 * Policies. The first byte chooses: a document that is compiled, whose form must then be valid; or
 * a form as it comes from outside. What is valid is asked about; nothing is read outside it.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "enroll/policy_compile.h"
#include "model/policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct bytes value(void *arg, const char *name, size_t len)
{
    (void)arg;
    return len % 3 == 0 ? bytes_of(NULL, 0) : bytes_of(name, len % 7);
}

static bool name_look(void *arg, const char *name, size_t len)
{
    *(unsigned *)arg += (unsigned char)name[len - 1];
    return false;
}

static void ask(struct bytes form)
{
    static const char *const resources[] = {"", "a", "things/pump-7/up", "$aws/things/+/#"};
    const struct policy_vars vars = {value, NULL};
    unsigned sum = 0;
    if (policy_each_variable(form, name_look, &sum))
        abort();
    for (size_t i = 0; i < ARRAY_LEN(resources); i++) {
        for (unsigned action = POLICY_CONNECT; action <= POLICY_RETAIN; action <<= 1)
            (void)policy_decide(form, (enum policy_action)action, resources[i], &vars);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    _cleanup_(buf_donep) struct buf b = {0};
    char why[POLICY_WHY_BYTES];
    if (len == 0)
        return 0;
    struct bytes rest = bytes_of(data + 1, len - 1);
    if (data[0] & 1) {
        if (policy_valid(rest))
            ask(rest);
        return 0;
    }
    buf_init(&b, POLICY_MAX_COMPILED_BYTES);
    if (policy_compile((const char *)rest.data, rest.len, &b, why))
        return 0;
    if (!policy_valid(buf_bytes(&b)))
        abort();
    ask(buf_bytes(&b));
    return 0;
}
