#include "base/cleanup.h"
#include "enroll/template.h"
#include "pki/crl_read.h"
#include "proto/admin/admin.h"
#include "proto/admin/hooks.h"
#include "proto/admin/manifest_line.h"
#include "proto/units.h"

enum {
    MAX_IMPORT_BYTES = 8 << 20,
    YEAR_S = 31536000,
    SMALL_BODY_BYTES = 64 * 1024,
    MAX_TOKENS_AT_ONCE = 10000,
    MAX_PEM_BYTES = 32768,
    MAX_CLAIM_TEMPLATES = 32,
    MAX_CERT_IMPORT_BYTES = 4 << 20,
    MAX_BUNDLE_CAS = 1000,
    MAX_EVENT_NAMES = 32,
    MAX_ENROLLMENTS_AT_ONCE = 1000
};

#define V1 "/admin/v1"
#define DEVICE_STATES                                                                              \
    "UNPROVISIONED BOOTSTRAP ENROLL CREDENTIAL_STORE REGISTER VERIFY PROVISIONED QUARANTINE"
#define REVOKE_REASONS                                                                             \
    "unspecified keyCompromise cACompromise affiliationChanged superseded cessationOfOperation "   \
    "privilegeWithdrawn"
#define PATH(name)                                                                                 \
    {                                                                                              \
        name, ARG_PATH, ARG_TEXT, true, 0, 0, NULL                                                 \
    }
#define PATH_ID(name)                                                                              \
    {                                                                                              \
        name, ARG_PATH, ARG_INT, true, 1, INT64_MAX, NULL                                          \
    }
#define PATH_SHA256(name)                                                                          \
    {                                                                                              \
        name, ARG_PATH, ARG_SHA256, true, 0, 0, NULL                                               \
    }
#define QUERY(name)                                                                                \
    {                                                                                              \
        name, ARG_QUERY, ARG_TEXT, false, 0, 0, NULL                                               \
    }
#define QUERY_WORD(name, words)                                                                    \
    {                                                                                              \
        name, ARG_QUERY, ARG_TEXT, false, 0, 0, words                                              \
    }
#define BODY(name)                                                                                 \
    {                                                                                              \
        name, ARG_BODY, ARG_TEXT, false, 0, 0, NULL                                                \
    }
#define BODY_WORD(name, must, words)                                                               \
    {                                                                                              \
        name, ARG_BODY, ARG_TEXT, must, 0, 0, words                                                \
    }
#define BODY_MUST(name)                                                                            \
    {                                                                                              \
        name, ARG_BODY, ARG_TEXT, true, 0, 0, NULL                                                 \
    }
#define BODY_INT(name, min, max)                                                                   \
    {                                                                                              \
        name, ARG_BODY, ARG_INT, false, min, max, NULL                                             \
    }
/* What a registered CA does with its devices. */
#define CA_BODY                                                                                    \
    BODY("template"), {"auto_registration", ARG_BODY, ARG_BOOL, false, 0, 0, NULL},                \
        BODY_WORD("jit", false, "jitp jitr")
/* What a claim is made with, anew or from its predecessor. */
#define CLAIM_BODY                                                                                 \
    BODY_MUST("name"), {"csr", ARG_BODY, ARG_TEXT, false, 0, MAX_PEM_BYTES, NULL},                 \
        {"certificate", ARG_BODY, ARG_TEXT, false, 0, MAX_PEM_BYTES, NULL},                        \
        BODY_INT("validity_s", 60, 100 * (int64_t)YEAR_S),                                         \
        BODY_INT("enrol_for_s", 1, 100 * (int64_t)YEAR_S),                                         \
        BODY_INT("grace_s", 0, 10 * (int64_t)YEAR_S), BODY_INT("budget", 1, 1000000000),           \
        BODY_INT("rate_per_second", 0, 100000), BODY_INT("rate_burst", 0, 1000000),                \
        BODY_INT("max_pending", 1, 1000000), {"batch", ARG_BODY, ARG_TEXT, false, 0, 128, NULL},   \
    {                                                                                              \
        "note", ARG_BODY, ARG_TEXT, false, 0, 256, NULL                                            \
    }
#define CALL(...) (&(const struct admin_call){__VA_ARGS__})
#define GET(pattern, role, ...)                                                                    \
    {                                                                                              \
        HTTP_GET, V1 pattern, NULL, 0, role, admin_handle, CALL(__VA_ARGS__)                       \
    }
#define POST(pattern, role, max, ...)                                                              \
    {                                                                                              \
        HTTP_POST, V1 pattern, "application/json", max, role, admin_handle, CALL(__VA_ARGS__)      \
    }
/* An action: its body may be left out, and with it the type. */
#define ACT(pattern, role, ...)                                                                    \
    {                                                                                              \
        HTTP_POST, V1 pattern, NULL, SMALL_BODY_BYTES, role, admin_handle, CALL(__VA_ARGS__)       \
    }

static const struct route routes[] = {
    {HTTP_GET, "/metrics", NULL, 0, ADMIN_VIEWER, metrics_handle, NULL},
    {HTTP_GET, V1 "/whoami", NULL, 0, ADMIN_VIEWER, whoami_handle, NULL},
    GET("/doctor", ADMIN_VIEWER, .desk = DESK_DOCTOR, .before = doctor_before),
    GET("/status", ADMIN_VIEWER, .desk = DESK_STATUS, .before = status_before),

    GET("/products", ADMIN_VIEWER, .desk = DESK_PRODUCT_LIST, .list = true),
    POST("/products", ADMIN_ADMIN, SMALL_BODY_BYTES, .desk = DESK_PRODUCT_CREATE,
         .changes_catalog = true, .status = 201,
         .args = {BODY_MUST("name"),
                  BODY_WORD("serial_case", false, "keep upper lower"),
                  {"strip_separators", ARG_BODY, ARG_BOOL, false, 0, 0, NULL}}),

    GET("/templates", ADMIN_VIEWER, .desk = DESK_TEMPLATE_LIST, .list = true,
        .args = {QUERY("product")}),
    {HTTP_PUT, V1 "/templates/{}", "application/json", TEMPLATE_MAX_BYTES, ADMIN_ADMIN,
     admin_handle,
     CALL(.desk = DESK_TEMPLATE_PUT, .changes_catalog = true, .body_is_document = true,
          .before = template_put_before, .args = {PATH("name"), QUERY("product")})},
    GET("/templates/{}", ADMIN_VIEWER, .desk = DESK_TEMPLATE_SHOW,
        .args = {PATH("name"), {"version", ARG_QUERY, ARG_INT, false, 1, 1000000, NULL}}),
    ACT("/templates/{}/enable", ADMIN_ADMIN, .desk = DESK_TEMPLATE_ENABLE, .changes_catalog = true,
        .args = {PATH("name"), {"enabled", ARG_TRUE, ARG_BOOL, false, 0, 0, NULL}}),
    ACT("/templates/{}/disable", ADMIN_ADMIN, .desk = DESK_TEMPLATE_ENABLE, .changes_catalog = true,
        .args = {PATH("name"), {"enabled", ARG_FALSE, ARG_BOOL, false, 0, 0, NULL}}),
    {HTTP_POST, V1 "/templates:validate", "application/json", TEMPLATE_MAX_BYTES, ADMIN_VIEWER,
     template_validate_handle, NULL},
    {HTTP_POST, V1 "/templates/{}/render", "application/json", SMALL_BODY_BYTES, ADMIN_VIEWER,
     template_render_handle,
     CALL(.args = {PATH("name"),
                   BODY_MUST("serial"),
                   {"parameters", ARG_BODY, ARG_OBJECT, false, 0, 0, NULL}})},

    GET("/products/{}/allowlist", ADMIN_VIEWER, .desk = DESK_ALLOWLIST_LIST, .list = true,
        .args = {PATH("product"), QUERY_WORD("state", "unseen claimed blocked")}),
    {HTTP_POST, V1 "/products/{}/allowlist", NULL, MAX_IMPORT_BYTES, ADMIN_OPERATOR,
     allowlist_import_handle,
     CALL(.body_is_document = true, .args = {PATH("product"),
                                             {"batch", ARG_QUERY, ARG_TEXT, false, 0, 128, NULL},
                                             QUERY_WORD("report", "all rejected")})},
    {HTTP_POST, V1 "/products/{}/manifest", "application/x-ndjson", MAX_IMPORT_BYTES,
     ADMIN_OPERATOR, manifest_import_handle,
     CALL(.body_is_document = true,
          .args = {PATH("product"),
                   {"batch", ARG_QUERY, ARG_TEXT, false, 0, 128, NULL},
                   {"key", ARG_QUERY, ARG_TEXT, false, 0, MANIFEST_MAX_KEY_CHARS, NULL},
                   QUERY_WORD("report", "all rejected")})},
    GET("/manifest-signers", ADMIN_VIEWER, .desk = DESK_SIGNER_LIST, .list = true),
    POST("/manifest-signers", ADMIN_ADMIN, SMALL_BODY_BYTES, .desk = DESK_SIGNER_CREATE,
         .before = manifest_signer_before, .status = 201,
         .args = {BODY_MUST("name"), {"pem", ARG_BODY, ARG_TEXT, true, 0, MAX_PEM_BYTES, NULL}}),
    {HTTP_DELETE, V1 "/manifest-signers/{}", NULL, 0, ADMIN_ADMIN, admin_handle,
     CALL(.desk = DESK_SIGNER_DELETE, .status = 204, .args = {PATH("name")})},
    ACT("/products/{}/allowlist/{}/block", ADMIN_OPERATOR, .desk = DESK_ALLOWLIST_BLOCK,
        .args = {PATH("product"),
                 PATH("serial"),
                 {"blocked", ARG_TRUE, ARG_BOOL, false, 0, 0, NULL}}),
    ACT("/products/{}/allowlist/{}/unblock", ADMIN_OPERATOR, .desk = DESK_ALLOWLIST_BLOCK,
        .args = {PATH("product"),
                 PATH("serial"),
                 {"blocked", ARG_FALSE, ARG_BOOL, false, 0, 0, NULL}}),

    GET("/tokens", ADMIN_VIEWER, .desk = DESK_TOKEN_LIST, .list = true,
        .args = {QUERY_WORD("state", "unused active used expired revoked"), QUERY("template"),
                 QUERY("serial")}),
    POST("/tokens", ADMIN_OPERATOR, ADMIN_MAX_BODY_BYTES, .desk = DESK_TOKEN_CREATE, .status = 201,
         .before = token_create_before, .after = token_create_after,
         .args = {BODY_MUST("template"),
                  BODY("serial"),
                  {"serials", ARG_BODY, ARG_TEXTS, false, 1, MAX_TOKENS_AT_ONCE, NULL},
                  {"count", ARG_BODY, ARG_INT, false, 1, MAX_TOKENS_AT_ONCE, NULL},
                  {"uses", ARG_BODY, ARG_INT, false, 1, 10000000, NULL},
                  {"expires_in_s", ARG_BODY, ARG_INT, false, 1, 10 * (int64_t)YEAR_S, NULL},
                  {"grace_s", ARG_BODY, ARG_INT, false, 0, YEAR_S, NULL},
                  {"note", ARG_BODY, ARG_TEXT, false, 0, 256, NULL}}),
    GET("/tokens/{}", ADMIN_VIEWER, .desk = DESK_TOKEN_SHOW, .args = {PATH_ID("id")}),
    ACT("/tokens/{}/revoke", ADMIN_OPERATOR, .desk = DESK_TOKEN_REVOKE, .args = {PATH_ID("id")}),
    ACT("/tokens/{}/regenerate", ADMIN_OPERATOR, .desk = DESK_TOKEN_REGENERATE, .status = 201,
        .before = token_one_before, .after = token_one_after, .args = {PATH_ID("id")}),

    GET("/claims", ADMIN_VIEWER, .desk = DESK_CLAIM_LIST, .list = true,
        .args = {QUERY_WORD("state", "active grace exhausted expired revoked"), QUERY("product"),
                 QUERY("template")}),
    GET("/claims:stock", ADMIN_VIEWER, .desk = DESK_CLAIM_STOCK, .list = true,
        .args = {QUERY("product")}),
    {HTTP_POST, V1 "/claims", "application/json", ADMIN_MAX_BODY_BYTES, ADMIN_OPERATOR,
     claim_create_handle,
     CALL(.desk = DESK_CLAIM_CREATE,
          .args = {BODY_MUST("template"),
                   {"templates", ARG_BODY, ARG_TEXTS, false, 1, MAX_CLAIM_TEMPLATES, NULL},
                   {"temporary", ARG_BODY, ARG_BOOL, false, 0, 0, NULL},
                   CLAIM_BODY})},
    GET("/claims/{}", ADMIN_VIEWER, .desk = DESK_CLAIM_SHOW, .args = {PATH("name")}),
    {HTTP_POST, V1 "/claims/{}/rotate", "application/json", ADMIN_MAX_BODY_BYTES, ADMIN_OPERATOR,
     claim_rotate_handle,
     CALL(.desk = DESK_CLAIM_ROTATE,
          .args = {PATH("old"), BODY_INT("old_enrol_for_s", 0, 100 * (int64_t)YEAR_S),
                   CLAIM_BODY})},
    ACT("/claims/{}/revoke", ADMIN_OPERATOR, .desk = DESK_CLAIM_REVOKE,
        .args = {PATH("name"), BODY_WORD("mode", true, "stop-new hard")}),

    GET("/cas", ADMIN_VIEWER, .desk = DESK_CA_LIST, .list = true),
    GET("/cas/{}", ADMIN_VIEWER, .desk = DESK_CA_SHOW, .args = {PATH("name")}),
    POST("/cas", ADMIN_ADMIN, SMALL_BODY_BYTES, .desk = DESK_CA_REGISTER, .changes_catalog = true,
         .status = 201, .before = ca_register_before,
         .args = {BODY("name"),
                  {"pem", ARG_BODY, ARG_TEXT, false, 0, MAX_PEM_BYTES, NULL},
                  {"unknown", ARG_BODY, ARG_SHA256, false, 0, 0, NULL},
                  {"proof", ARG_BODY, ARG_TEXT, false, 0, MAX_PEM_BYTES, NULL},
                  {"without_proof", ARG_BODY, ARG_BOOL, false, 0, 0, NULL},
                  CA_BODY,
                  BODY_WORD("kind", false, "registered helper")}),
    ACT("/cas/{}/update", ADMIN_ADMIN, .desk = DESK_CA_UPDATE, .changes_catalog = true,
        .args = {PATH("name"), CA_BODY, BODY_WORD("crl_mode", false, "off use require")}),
    ACT("/cas:code", ADMIN_ADMIN, .desk = DESK_CA_CODE, .before = ca_code_before,
        .args = {{"renew", ARG_BODY, ARG_BOOL, false, 0, 0, NULL}}),
    GET("/cas:export", ADMIN_ADMIN, .desk = DESK_CA_EXPORT),
    {HTTP_POST, V1 "/cas:import", "application/json", ADMIN_MAX_BODY_BYTES, ADMIN_ADMIN,
     ca_import_handle,
     CALL(.args = {BODY_INT("format", 1, 1000),
                   {"cas", ARG_BODY, ARG_OBJECTS, true, 0, MAX_BUNDLE_CAS, NULL},
                   {"check", ARG_BODY, ARG_BOOL, false, 0, 0, NULL}})},
    {HTTP_POST, V1 "/cas/{}/crl", "application/pkix-crl", CRL_MAX_BYTES, ADMIN_ADMIN, admin_handle,
     CALL(.desk = DESK_CA_CRL, .body_is_document = true, .changes_catalog = true,
          .before = ca_crl_before, .after = ca_crl_after, .args = {PATH("name")})},
    ACT("/cas/{}/activate", ADMIN_ADMIN, .desk = DESK_CA_ACTIVATE, .changes_catalog = true,
        .args = {PATH("name"), {"active", ARG_TRUE, ARG_BOOL, false, 0, 0, NULL}}),
    ACT("/cas/{}/deactivate", ADMIN_ADMIN, .desk = DESK_CA_ACTIVATE, .changes_catalog = true,
        .args = {PATH("name"), {"active", ARG_FALSE, ARG_BOOL, false, 0, 0, NULL}}),
    GET("/crls", ADMIN_VIEWER, .desk = DESK_CRL_LIST, .list = true),
    ACT("/crls:sign", ADMIN_OPERATOR, .desk = DESK_CRL_SIGN, .after = crl_sign_after),
    ACT("/registry:trust-own", ADMIN_ADMIN, .desk = DESK_TRUST_OWN, .changes_catalog = true,
        .args = {BODY_INT("for_s", 60, YEAR_S),
                 BODY("template"),
                 {"off", ARG_BODY, ARG_BOOL, false, 0, 0, NULL}}),
    GET("/unknown-cas", ADMIN_VIEWER, .desk = DESK_UNKNOWN_LIST, .list = true),
    {HTTP_DELETE, V1 "/unknown-cas/{}", NULL, 0, ADMIN_OPERATOR, admin_handle,
     CALL(.desk = DESK_UNKNOWN_DISMISS, .status = 204, .args = {PATH_SHA256("hash")})},

    GET("/devices", ADMIN_VIEWER, .desk = DESK_DEVICE_LIST, .list = true,
        .args = {QUERY_WORD("state", DEVICE_STATES), QUERY("product"), QUERY("template"),
                 QUERY("claim"), QUERY_WORD("approval", "pending approved rejected")}),
    GET("/devices:stuck", ADMIN_VIEWER, .desk = DESK_STUCK_LIST, .list = true,
        .args = {QUERY_WORD("state", DEVICE_STATES), QUERY("product"), QUERY("template")}),
    GET("/state-limits", ADMIN_VIEWER, .desk = DESK_LIMIT_LIST, .list = true),
    ACT("/state-limits", ADMIN_ADMIN, .desk = DESK_LIMIT_SET,
        .args = {BODY_WORD("state", true,
                           "BOOTSTRAP ENROLL CREDENTIAL_STORE REGISTER VERIFY QUARANTINE"),
                 {"seconds", ARG_BODY, ARG_INT, true, 0, 10 * (int64_t)YEAR_S, NULL}}),
    GET("/devices/{}", ADMIN_VIEWER, .desk = DESK_DEVICE_SHOW,
        .args = {PATH("serial"),
                 QUERY("product"),
                 {"trail", ARG_QUERY, ARG_INT, false, 0, 200, NULL}}),
    ACT("/devices/{}/quarantine", ADMIN_OPERATOR, .desk = DESK_DEVICE_QUARANTINE,
        .args = {PATH("serial"),
                 QUERY("product"),
                 {"reason", ARG_BODY, ARG_TEXT, false, 0, 256, NULL}}),
    ACT("/devices/{}/release", ADMIN_OPERATOR, .desk = DESK_DEVICE_RELEASE,
        .args = {PATH("serial"), QUERY("product")}),
    ACT("/devices/{}/reset", ADMIN_OPERATOR, .desk = DESK_DEVICE_RESET,
        .args = {PATH("serial"),
                 QUERY("product"),
                 {"revoke", ARG_BODY, ARG_BOOL, false, 0, 0, NULL}}),
    ACT("/devices/{}/retire", ADMIN_ADMIN, .desk = DESK_DEVICE_RETIRE,
        .args = {PATH("serial"), QUERY("product"), BODY_WORD("reason", false, REVOKE_REASONS)}),
    ACT("/devices/{}/approve", ADMIN_OPERATOR, .desk = DESK_DEVICE_APPROVE,
        .args = {PATH("serial"),
                 QUERY("product"),
                 {"key", ARG_BODY, ARG_SHA256, false, 0, 0, NULL}}),
    ACT("/devices/{}/reject", ADMIN_OPERATOR, .desk = DESK_DEVICE_REJECT,
        .args = {PATH("serial"),
                 QUERY("product"),
                 {"key", ARG_BODY, ARG_SHA256, false, 0, 0, NULL},
                 {"reason", ARG_BODY, ARG_TEXT, false, 0, 256, NULL}}),
    ACT("/devices/{}/seen", ADMIN_OPERATOR, .desk = DESK_DEVICE_SEEN,
        .args = {PATH("serial"),
                 QUERY("product"),
                 {"fingerprint", ARG_BODY, ARG_SHA256, false, 0, 0, NULL}}),

    GET("/certs", ADMIN_VIEWER, .desk = DESK_CERT_LIST, .list = true,
        .args = {QUERY("serial"), QUERY("product"),
                 QUERY_WORD("status", "pending current superseded revoked"),
                 QUERY("expires_before")}),
    GET("/certs/{}", ADMIN_VIEWER, .desk = DESK_CERT_SHOW, .args = {PATH_SHA256("fingerprint")}),
    ACT("/certs/{}/revoke", ADMIN_OPERATOR, .desk = DESK_CERT_REVOKE,
        .args = {PATH_SHA256("fingerprint"), BODY_WORD("reason", false, REVOKE_REASONS)}),

    GET("/certs:waiting", ADMIN_VIEWER, .desk = DESK_CERT_WAITING, .list = true,
        .args = {QUERY_WORD("status", "pending active inactive failed"), QUERY("ca")}),
    GET("/certs:expiring", ADMIN_VIEWER, .desk = DESK_CERT_EXPIRING, .list = true,
        .args = {{"seconds", ARG_QUERY, ARG_INT, false, 60, 100 * (int64_t)YEAR_S, NULL},
                 {"silent_s", ARG_QUERY, ARG_INT, false, 60, 100 * (int64_t)YEAR_S, NULL},
                 QUERY("product"),
                 QUERY("template")}),
    GET("/certs:forecast", ADMIN_VIEWER, .desk = DESK_CERT_FORECAST, .list = true,
        .args = {QUERY("product"), QUERY("template"), QUERY_WORD("by", "day week month")}),
    {HTTP_POST, V1 "/certs/{}/activate", "application/json", SMALL_BODY_BYTES, ADMIN_OPERATOR,
     cert_activate_handle,
     CALL(.desk = DESK_CERT_ACTIVATE,
          .args = {PATH_SHA256("fingerprint"),
                   BODY("template"),
                   {"parameters", ARG_BODY, ARG_OBJECT, false, 0, 0, NULL},
                   {"active", ARG_TRUE, ARG_BOOL, false, 0, 0, NULL}})},
    ACT("/certs/{}/deactivate", ADMIN_OPERATOR, .desk = DESK_CERT_ACTIVATE,
        .args = {PATH_SHA256("fingerprint"), {"active", ARG_FALSE, ARG_BOOL, false, 0, 0, NULL}}),
    {HTTP_POST, V1 "/certs", "application/json", SMALL_BODY_BYTES, ADMIN_OPERATOR,
     cert_register_handle,
     CALL(.status = 201, .args = {{"pem", ARG_BODY, ARG_TEXT, true, 0, MAX_PEM_BYTES, NULL},
                                  BODY("template"),
                                  {"parameters", ARG_BODY, ARG_OBJECT, false, 0, 0, NULL},
                                  BODY_WORD("status", false, "active inactive")})},
    {HTTP_POST, V1 "/certs:import", "application/x-ndjson", MAX_CERT_IMPORT_BYTES, ADMIN_OPERATOR,
     cert_import_handle,
     CALL(.body_is_document = true,
          .args = {QUERY("template"), QUERY_WORD("report", "all rejected")})},

    GET("/factory-batches", ADMIN_VIEWER, .desk = DESK_BATCH_LIST, .list = true,
        .args = {QUERY("product")}),
    POST("/factory-batches", ADMIN_OPERATOR, SMALL_BODY_BYTES, .desk = DESK_BATCH_CREATE,
         .status = 201,
         .args = {BODY_MUST("name"),
                  BODY_MUST("template"),
                  {"size", ARG_BODY, ARG_INT, false, 1, 1000000000, NULL},
                  {"note", ARG_BODY, ARG_TEXT, false, 0, 256, NULL}}),
    GET("/factory-batches/{}", ADMIN_VIEWER, .desk = DESK_BATCH_SHOW, .args = {PATH("name")}),
    ACT("/factory-batches/{}/close", ADMIN_OPERATOR, .desk = DESK_BATCH_CLOSE,
        .args = {PATH("name")}),
    {HTTP_POST, V1 "/factory-batches/{}/certificates", "application/x-ndjson", UNITS_MAX_BODY_BYTES,
     ADMIN_OPERATOR, factory_certify_handle, NULL},
    GET("/factory-batches/{}/reconcile", ADMIN_VIEWER, .desk = DESK_FACTORY_RECONCILE,
        .args = {PATH("name"),
                 {"silent_s", ARG_QUERY, ARG_INT, false, 60, 100 * (int64_t)YEAR_S, NULL}}),
    GET("/factory-stations", ADMIN_VIEWER, .desk = DESK_STATION_LIST, .list = true,
        .args = {QUERY("batch")}),
    POST("/factory-stations", ADMIN_ADMIN, SMALL_BODY_BYTES, .desk = DESK_STATION_CREATE,
         .status = 201, .before = station_create_before,
         .args = {BODY_MUST("name"),
                  BODY_MUST("batch"),
                  {"budget", ARG_BODY, ARG_INT, true, 1, 1000000000, NULL},
                  {"certificate", ARG_BODY, ARG_TEXT, true, 0, MAX_PEM_BYTES, NULL}}),
    ACT("/factory-stations/{}/revoke", ADMIN_OPERATOR, .desk = DESK_STATION_REVOKE,
        .args = {PATH("name")}),
    {HTTP_POST, V1 "/factory-stations/{}/journal", "application/x-ndjson", UNITS_MAX_BODY_BYTES,
     ADMIN_OPERATOR, factory_journal_handle, NULL},

    GET("/enrollments", ADMIN_VIEWER, .desk = DESK_ENROLLMENT_LIST, .list = true,
        .args = {{"grouped", ARG_FALSE, ARG_BOOL, false, 0, 0, NULL},
                 QUERY("product"),
                 QUERY("template"),
                 QUERY_WORD("attestation", "symmetric-key x509 tpm")}),
    {HTTP_POST, V1 "/enrollments", "application/json", SMALL_BODY_BYTES * 2, ADMIN_OPERATOR,
     admin_handle, &enrollment_create_call},
    POST("/enrollments:import", ADMIN_OPERATOR, MAX_CERT_IMPORT_BYTES,
         .desk = DESK_ENROLLMENT_IMPORT, .before = enrollment_import_before,
         .after = enrollment_import_after,
         .args = {{"grouped", ARG_FALSE, ARG_BOOL, false, 0, 0, NULL},
                  {"enrollments", ARG_BODY, ARG_OBJECTS, true, 0, MAX_ENROLLMENTS_AT_ONCE, NULL}}),
    GET("/enrollments/{}", ADMIN_VIEWER, .desk = DESK_ENROLLMENT_SHOW,
        .args = {{"grouped", ARG_FALSE, ARG_BOOL, false, 0, 0, NULL}, PATH("name")}),
    {HTTP_POST, V1 "/enrollments/{}/update", "application/json", SMALL_BODY_BYTES * 2,
     ADMIN_OPERATOR, admin_handle, &enrollment_update_call},
    ACT("/enrollments/{}/enable", ADMIN_OPERATOR, .desk = DESK_ENROLLMENT_UPDATE,
        .before = enrollment_etag_before,
        .args = {{"grouped", ARG_FALSE, ARG_BOOL, false, 0, 0, NULL},
                 PATH("name"),
                 {"enabled", ARG_TRUE, ARG_BOOL, false, 0, 0, NULL}}),
    ACT("/enrollments/{}/disable", ADMIN_OPERATOR, .desk = DESK_ENROLLMENT_UPDATE,
        .before = enrollment_etag_before,
        .args = {{"grouped", ARG_FALSE, ARG_BOOL, false, 0, 0, NULL},
                 PATH("name"),
                 {"enabled", ARG_FALSE, ARG_BOOL, false, 0, 0, NULL}}),
    ACT("/enrollments/{}/rotate", ADMIN_OPERATOR, .desk = DESK_ENROLLMENT_UPDATE,
        .before = enrollment_rotate_before, .after = enrollment_keys_after,
        .args = {{"grouped", ARG_FALSE, ARG_BOOL, false, 0, 0, NULL},
                 PATH("name"),
                 BODY_WORD("key", true, "primary secondary")}),
    {HTTP_DELETE, V1 "/enrollments/{}", NULL, 0, ADMIN_OPERATOR, admin_handle,
     CALL(.desk = DESK_ENROLLMENT_DELETE, .status = 204, .before = enrollment_etag_before,
          .args = {{"grouped", ARG_FALSE, ARG_BOOL, false, 0, 0, NULL}, PATH("name")})},
    GET("/enrollment-groups", ADMIN_VIEWER, .desk = DESK_ENROLLMENT_LIST, .list = true,
        .args = {{"grouped", ARG_TRUE, ARG_BOOL, false, 0, 0, NULL},
                 QUERY("product"),
                 QUERY("template"),
                 QUERY_WORD("attestation", "symmetric-key x509 tpm psk")}),
    {HTTP_POST, V1 "/enrollment-groups", "application/json", SMALL_BODY_BYTES * 2, ADMIN_OPERATOR,
     admin_handle, &enrollment_group_create_call},
    POST("/enrollment-groups:import", ADMIN_OPERATOR, MAX_CERT_IMPORT_BYTES,
         .desk = DESK_ENROLLMENT_IMPORT, .before = enrollment_import_before,
         .after = enrollment_import_after,
         .args = {{"grouped", ARG_TRUE, ARG_BOOL, false, 0, 0, NULL},
                  {"enrollments", ARG_BODY, ARG_OBJECTS, true, 0, MAX_ENROLLMENTS_AT_ONCE, NULL}}),
    GET("/enrollment-groups/{}", ADMIN_VIEWER, .desk = DESK_ENROLLMENT_SHOW,
        .args = {{"grouped", ARG_TRUE, ARG_BOOL, false, 0, 0, NULL}, PATH("name")}),
    {HTTP_POST, V1 "/enrollment-groups/{}/update", "application/json", SMALL_BODY_BYTES * 2,
     ADMIN_OPERATOR, admin_handle, &enrollment_group_update_call},
    ACT("/enrollment-groups/{}/enable", ADMIN_OPERATOR, .desk = DESK_ENROLLMENT_UPDATE,
        .before = enrollment_etag_before,
        .args = {{"grouped", ARG_TRUE, ARG_BOOL, false, 0, 0, NULL},
                 PATH("name"),
                 {"enabled", ARG_TRUE, ARG_BOOL, false, 0, 0, NULL}}),
    ACT("/enrollment-groups/{}/disable", ADMIN_OPERATOR, .desk = DESK_ENROLLMENT_UPDATE,
        .before = enrollment_etag_before,
        .args = {{"grouped", ARG_TRUE, ARG_BOOL, false, 0, 0, NULL},
                 PATH("name"),
                 {"enabled", ARG_FALSE, ARG_BOOL, false, 0, 0, NULL}}),
    ACT("/enrollment-groups/{}/rotate", ADMIN_OPERATOR, .desk = DESK_ENROLLMENT_UPDATE,
        .before = enrollment_rotate_before, .after = enrollment_keys_after,
        .args = {{"grouped", ARG_TRUE, ARG_BOOL, false, 0, 0, NULL},
                 PATH("name"),
                 BODY_WORD("key", true, "primary secondary")}),
    {HTTP_DELETE, V1 "/enrollment-groups/{}", NULL, 0, ADMIN_OPERATOR, admin_handle,
     CALL(.desk = DESK_ENROLLMENT_DELETE, .status = 204, .before = enrollment_etag_before,
          .args = {{"grouped", ARG_TRUE, ARG_BOOL, false, 0, 0, NULL}, PATH("name")})},
    GET("/endpoints", ADMIN_VIEWER, .desk = DESK_ENDPOINT_LIST, .list = true),
    {HTTP_PUT, V1 "/endpoints/{}", NULL, SMALL_BODY_BYTES, ADMIN_ADMIN, admin_handle,
     CALL(.desk = DESK_ENDPOINT_PUT, .args = {PATH("host"), BODY_INT("weight", 0, 1000)})},
    {HTTP_DELETE, V1 "/endpoints/{}", NULL, 0, ADMIN_ADMIN, admin_handle,
     CALL(.desk = DESK_ENDPOINT_DELETE, .status = 204, .args = {PATH("host")})},

    {HTTP_POST, V1 "/broker/auth", NULL, SMALL_BODY_BYTES, ADMIN_BROKER, broker_auth_handle, NULL},
    {HTTP_POST, V1 "/broker/acl", NULL, SMALL_BODY_BYTES, ADMIN_BROKER, broker_acl_handle, NULL},
    GET("/webhooks", ADMIN_VIEWER, .desk = DESK_SINK_LIST, .list = true),
    POST("/webhooks", ADMIN_ADMIN, SMALL_BODY_BYTES, .desk = DESK_SINK_CREATE, .status = 201,
         .before = webhook_create_before,
         .args = {BODY_MUST("name"),
                  BODY_MUST("url"),
                  {"events", ARG_BODY, ARG_TEXTS, false, 1, MAX_EVENT_NAMES, NULL}}),
    ACT("/webhooks/{}/pause", ADMIN_ADMIN, .desk = DESK_SINK_PAUSE,
        .args = {PATH("name"), {"paused", ARG_TRUE, ARG_BOOL, false, 0, 0, NULL}}),
    ACT("/webhooks/{}/resume", ADMIN_ADMIN, .desk = DESK_SINK_PAUSE,
        .args = {PATH("name"), {"paused", ARG_FALSE, ARG_BOOL, false, 0, 0, NULL}}),
    {HTTP_DELETE, V1 "/webhooks/{}", NULL, 0, ADMIN_ADMIN, admin_handle,
     CALL(.desk = DESK_SINK_DELETE, .status = 204, .args = {PATH("name")})},
    GET("/events", ADMIN_VIEWER, .desk = DESK_EVENT_LIST, .list = true),
    GET("/dead-events", ADMIN_VIEWER, .desk = DESK_DEAD_LIST, .list = true,
        .args = {QUERY("receiver")}),
    ACT("/dead-events:retry", ADMIN_OPERATOR, .desk = DESK_DEAD_END,
        .args = {{"id", ARG_BODY, ARG_INT, false, 1, INT64_MAX, NULL},
                 {"drop", ARG_FALSE, ARG_BOOL, false, 0, 0, NULL}}),
    ACT("/dead-events:drop", ADMIN_OPERATOR, .desk = DESK_DEAD_END,
        .args = {{"id", ARG_BODY, ARG_INT, false, 1, INT64_MAX, NULL},
                 {"drop", ARG_TRUE, ARG_BOOL, false, 0, 0, NULL}}),

    GET("/attempts/{}", ADMIN_VIEWER, .desk = DESK_ATTEMPTS, .after = attempts_after,
        .args = {PATH("request_id")}),
    GET("/audit:export", ADMIN_ADMIN, .desk = DESK_AUDIT_EXPORT, .list = true),
    GET("/audit:verify", ADMIN_ADMIN, .desk = DESK_AUDIT_VERIFY),
    GET("/audit", ADMIN_ADMIN, .desk = DESK_AUDIT_LIST, .list = true,
        .args = {QUERY("object"), QUERY("actor")}),

    GET("/admin-tokens", ADMIN_ADMIN, .desk = DESK_ADMIN_TOKEN_LIST, .list = true),
    POST("/admin-tokens", ADMIN_ADMIN, SMALL_BODY_BYTES, .desk = DESK_ADMIN_TOKEN_CREATE,
         .status = 201, .before = admin_token_before, .after = token_one_after,
         .args = {BODY_MUST("name"), BODY_WORD("role", true, "viewer operator admin broker"),
                  BODY("product")}),
    ACT("/admin-tokens/{}/revoke", ADMIN_ADMIN, .desk = DESK_ADMIN_TOKEN_REVOKE,
        .args = {PATH("name")}),
};

const struct route_table admin_routes = {
    .rows = routes,
    .count = ARRAY_LEN(routes),
    .protocol = PROTOCOL_ADMIN,
    .before = admin_authenticate,
};
