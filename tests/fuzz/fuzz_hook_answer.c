/* A pre-provisioning hook's answer: what is allowed is within its bounds. */
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "enroll/hook_internal.h"
#include "enroll/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void override_check(const struct enrollment_parameter *p)
{
    if (p->name[0] == '\0' || strlen(p->name) > HOOK_MAX_NAME_BYTES ||
        strlen(p->value) > TEMPLATE_MAX_VALUE_BYTES)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct arena a;
    struct fault fault = {0};
    struct hook_answer answer = {.override_count = 0};
    arena_init(&a, 1 << 20);
    enum err e = hook_answer_decode(bytes_of(data, len), &a, &answer, &fault);
    if (!e && (len > HOOK_MAX_ANSWER_BYTES || answer.override_count > ENROLLMENT_MAX_PARAMETERS))
        abort();
    for (size_t i = 0; !e && i < answer.override_count; i++)
        override_check(&answer.overrides[i]);
    if (e && (fault.code == FAULT_NONE || !text_is_printable_utf8(fault.detail)))
        abort();
    arena_done(&a);
    return 0;
}
