#include <string.h>

#include "base/cleanup.h"
#include "model/device.h"
#include "model/fault.h"
#include "model/profile.h"
#include "model/psk_identity.h"
#include "model/revocation.h"
#include "model/serial.h"
#include "suite.h"

START_TEST(every_fault_has_a_row_and_codes_are_unique)
{
    for (int i = 1; i < FAULT_COUNT; i++) {
        const struct fault_row *r = fault_row((enum fault_code)i);
        ck_assert_ptr_nonnull(strchr(r->code, '.'));
        ck_assert(r->http_status >= 400 || i == FAULT_APPROVAL_PENDING);
        ck_assert_int_gt(strlen(r->title), 0);
        ck_assert_int_gt(strlen(r->remedy), 0);
        ck_assert_int_eq(fault_parse(r->code), i);
    }
    ck_assert_int_eq(fault_parse("no.such"), FAULT_INTERNAL);
}
END_TEST

START_TEST(hidden_faults_are_told_as_one)
{
    ck_assert_int_eq(fault_public(FAULT_TOKEN_EXPIRED, true), FAULT_ENROL_REFUSED);
    ck_assert_int_eq(fault_public(FAULT_ALLOWLIST_UNKNOWN, false), FAULT_ENROL_REFUSED);
    ck_assert_int_eq(fault_public(FAULT_CERT_EXPIRED, false), FAULT_CERT_EXPIRED);
    ck_assert_int_eq(fault_public(FAULT_DEVICE_QUARANTINED, false), FAULT_ENROL_REFUSED);
    ck_assert_int_eq(fault_public(FAULT_DEVICE_QUARANTINED, true), FAULT_DEVICE_QUARANTINED);
}
END_TEST

START_TEST(fault_set_keeps_a_bounded_detail)
{
    struct fault f = {0};
    char text[2000];
    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    ck_assert_int_eq(fault_set(&f, FAULT_CSR_KEY, "%s", text), ERR_DENIED);
    ck_assert_int_lt(strlen(f.detail), FAULT_DETAIL_BYTES);
}
END_TEST

START_TEST(a_device_walks_forward_and_only_the_stated_ways_back)
{
    ck_assert(device_step_legal(DEVICE_UNPROVISIONED, DEVICE_BOOTSTRAP));
    ck_assert(!device_step_legal(DEVICE_UNPROVISIONED, DEVICE_VERIFY));
    ck_assert(device_move_legal(DEVICE_UNPROVISIONED, DEVICE_VERIFY));
    ck_assert(!device_move_legal(DEVICE_PROVISIONED, DEVICE_ENROLL));
    for (int s = 0; s < DEVICE_QUARANTINE; s++)
        ck_assert(device_move_legal((enum device_state)s, DEVICE_QUARANTINE));
    for (int s = 0; s < DEVICE_STATE_COUNT; s++) {
        enum device_state back;
        ck_assert_int_eq(device_state_parse(device_state_name((enum device_state)s), &back),
                         ERR_OK);
        ck_assert_int_eq(back, s);
    }
}
END_TEST

START_TEST(serials_in_their_canonical_form)
{
    struct serial s;
    const struct serial_rule keep = {SERIAL_CASE_KEEP, false}, upper = {SERIAL_CASE_UPPER, true},
                             lower = {SERIAL_CASE_LOWER, false};
    ck_assert_int_eq(serial_parse(&keep, "aB-1:c.d_e", &s), ERR_OK);
    ck_assert_str_eq(s.canonical, "aB-1:c.d_e");
    ck_assert_int_eq(serial_parse(&upper, "aB-1:c.d_e", &s), ERR_OK);
    ck_assert_str_eq(s.canonical, "AB1CDE");
    ck_assert_str_eq(s.given, "aB-1:c.d_e");
    ck_assert_int_eq(serial_parse(&lower, "AB", &s), ERR_OK);
    ck_assert_str_eq(s.canonical, "ab");
    static const char *const bad[] = {
        "",     " a", "a b", "a/b",
        "a\tb", "é",  "a%",  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        ck_assert_msg(serial_parse(&keep, bad[i], &s) == ERR_INVALID, "%s", bad[i]);
    ck_assert_int_eq(serial_parse(&upper, "-.:_", &s), ERR_INVALID);
}
END_TEST

START_TEST(kinds_of_keys_have_names)
{
    for (unsigned bit = 1; bit & KEY_KIND_ALL; bit <<= 1)
        ck_assert_int_eq(key_kind_parse(key_kind_name((enum key_kind)bit)), bit);
    ck_assert_int_eq(key_kind_parse("DSA"), 0);
    ck_assert_ptr_null(key_kind_name((enum key_kind)(KEY_P256 | KEY_P384)));
}
END_TEST

START_TEST(reasons_of_revocation_by_name_and_number)
{
    static const int lasting[] = {0, 1, 2, 3, 4, 5, 9};
    for (size_t i = 0; i < ARRAY_LEN(lasting); i++)
        ck_assert_int_eq(revocation_reason_of(revocation_reason_name(lasting[i])), lasting[i]);
    ck_assert_str_eq(revocation_reason_name(1), "keyCompromise");
    ck_assert_str_eq(revocation_reason_name(9), "privilegeWithdrawn");
    static const int others[] = {-1, 6, 7, 8, 10, 11};
    for (size_t i = 0; i < ARRAY_LEN(others); i++)
        ck_assert_str_eq(revocation_reason_name(others[i]), "unspecified");
    ck_assert_int_eq(revocation_reason_of("certificateHold"), 0);
}
END_TEST

#define LONG_64 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

START_TEST(identities_of_psk)
{
    struct psk_identity id;
    ck_assert_int_eq(psk_identity_parse(bytes_text("pump_a.b-c/00:1A.b_c-d"), &id), ERR_OK);
    ck_assert_str_eq(id.product, "pump_a.b-c");
    ck_assert_str_eq(id.serial, "00:1A.b_c-d");
    ck_assert(!id.secondary);
    ck_assert_int_eq(psk_identity_parse(bytes_text("p/s#2"), &id), ERR_OK);
    ck_assert_str_eq(id.product, "p");
    ck_assert_str_eq(id.serial, "s");
    ck_assert(id.secondary);
    ck_assert_int_eq(psk_identity_parse(bytes_text(LONG_64 "/s"), &id), ERR_OK);
    ck_assert_int_eq(psk_identity_parse(bytes_text("p/" LONG_64 "#2"), &id), ERR_OK);
    ck_assert_uint_eq(strlen(id.serial), SERIAL_MAX_CHARS);
}
END_TEST

START_TEST(what_is_no_identity_of_psk)
{
    static const char *const bad[] = {
        "",     "/",    "p",     "p/",      "/s",     "p/s/t",   "p//s",  "p/#2",  "#2",
        "p#2",  "p/s#", "p/s#1", "p/s#2#2", "p/s#22", "p s/t",   "p/s t", "p/s\n", "p/\xc3\xa9",
        "p:/s", "#2/s", "p#2/s", "p/s?",    "p/s%41", "p\x7f/s", "p/s ",  "p/*",   "../s/t"};
    struct psk_identity id = {.product = "kept"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        ck_assert_msg(psk_identity_parse(bytes_text(bad[i]), &id) == ERR_INVALID, "%s", bad[i]);
    ck_assert_int_eq(psk_identity_parse(bytes_of("p/s\0t", 5), &id), ERR_INVALID);
    ck_assert_int_eq(psk_identity_parse(bytes_of("p/s\0", 4), &id), ERR_INVALID);
    ck_assert_int_eq(psk_identity_parse(bytes_of("p\0/s", 4), &id), ERR_INVALID);
    ck_assert_int_eq(psk_identity_parse(bytes_of(NULL, 0), &id), ERR_INVALID);
    ck_assert_int_eq(psk_identity_parse(bytes_text("a" LONG_64 "/s"), &id), ERR_INVALID);
    ck_assert_int_eq(psk_identity_parse(bytes_text("p/a" LONG_64), &id), ERR_INVALID);
    ck_assert_int_eq(psk_identity_parse(bytes_text(LONG_64 "/" LONG_64), &id), ERR_INVALID);
    ck_assert_str_eq(id.product, "kept");
}
END_TEST

SUITE("model", every_fault_has_a_row_and_codes_are_unique, hidden_faults_are_told_as_one,
      fault_set_keeps_a_bounded_detail, a_device_walks_forward_and_only_the_stated_ways_back,
      serials_in_their_canonical_form, kinds_of_keys_have_names,
      reasons_of_revocation_by_name_and_number, identities_of_psk, what_is_no_identity_of_psk)
