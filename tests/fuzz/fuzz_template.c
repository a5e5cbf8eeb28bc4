/* A template document: compiled, and evaluated where it compiles. */
#include "enroll/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const struct template_param values[] = {
        {"SerialNumber", "SN-1"},
        {"Muster::Serial", "SN-1"},
        {"Muster::Product", "pump"},
        {"AWS::IoT::Certificate::Id", "00"},
        {"A", "a,b,c"},
    };
    struct template *t = NULL;
    struct template_error error;
    struct template_params params = {.count = 0};
    struct cert_profile profile;
    struct registration r;
    struct fault fault = {0};
    struct arena a;
    if (template_compile((const char *)data, len, &t, &error))
        return 0;
    arena_init(&a, 4 << 20);
    for (size_t i = 0; i < ARRAY_LEN(values); i++)
        (void)!template_params_add(&params, values[i].name, values[i].value);
    if (template_profile(t, &params, &a, &profile, &fault) == ERR_OK &&
        template_registration(t, &params, &a, &r, &fault) == ERR_OK)
        (void)template_render(&profile, &r, &a);
    arena_done(&a);
    template_free(t);
    return 0;
}
