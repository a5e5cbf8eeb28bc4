/*
 * What single calls of the admin API do besides their statement. For proto/admin only.
 */
#pragma once

#include "proto/admin/call.h"

/* templates.c */
enum err template_put_before(struct service *service, struct exchange *x, json_t *args);
enum err template_validate_handle(struct service *service, struct exchange *x) MUST_CHECK;
enum err template_render_handle(struct service *service, struct exchange *x) MUST_CHECK;

/* tokens.c */
enum err token_create_before(struct service *service, struct exchange *x, json_t *args);
enum err token_create_after(struct service *service, struct exchange *x, const json_t *args,
                            json_t *answer);
enum err token_one_before(struct service *service, struct exchange *x, json_t *args);
enum err token_one_after(struct service *service, struct exchange *x, const json_t *args,
                         json_t *answer);
enum err admin_token_before(struct service *service, struct exchange *x, json_t *args);

/* claims.c: certificate and key are made here, and the key is told once */
enum err claim_create_handle(struct service *service, struct exchange *x) MUST_CHECK;
enum err claim_rotate_handle(struct service *service, struct exchange *x) MUST_CHECK;

/* cas.c */
enum err ca_register_before(struct service *service, struct exchange *x, json_t *args);
enum err ca_code_before(struct service *service, struct exchange *x, json_t *args);
enum err ca_import_handle(struct service *service, struct exchange *x) MUST_CHECK;

/* ca_crl.c */
enum err ca_crl_before(struct service *service, struct exchange *x, json_t *args);
enum err ca_crl_after(struct service *service, struct exchange *x, const json_t *args,
                      json_t *answer);

/* certs.c: certificates that become, or are to become, devices' own */
enum err cert_activate_handle(struct service *service, struct exchange *x) MUST_CHECK;
enum err cert_register_handle(struct service *service, struct exchange *x) MUST_CHECK;

/* crls.c */
enum err crl_sign_after(struct service *service, struct exchange *x, const json_t *args,
                        json_t *answer);

/* cert_import.c */
enum err cert_import_handle(struct service *service, struct exchange *x) MUST_CHECK;

/* brokers.c */
enum err broker_auth_handle(struct service *service, struct exchange *x) MUST_CHECK;
enum err broker_acl_handle(struct service *service, struct exchange *x) MUST_CHECK;

/* webhooks.c */
enum err webhook_create_before(struct service *service, struct exchange *x, json_t *args);

/* enrollments.c: keys are made or taken here, and told once */
extern const struct admin_call enrollment_create_call;
extern const struct admin_call enrollment_group_create_call;
extern const struct admin_call enrollment_update_call;
extern const struct admin_call enrollment_group_update_call;
enum err enrollment_etag_before(struct service *service, struct exchange *x, json_t *args);
enum err enrollment_create_before(struct service *service, struct exchange *x, json_t *args);
enum err enrollment_rotate_before(struct service *service, struct exchange *x, json_t *args);
enum err enrollment_keys_after(struct service *service, struct exchange *x, const json_t *args,
                               json_t *answer);
enum err enrollment_import_before(struct service *service, struct exchange *x, json_t *args);
enum err enrollment_import_after(struct service *service, struct exchange *x, const json_t *args,
                                 json_t *answer);

/* allowlist.c */
enum err allowlist_import_handle(struct service *service, struct exchange *x) MUST_CHECK;

/* manifests.c */
enum err manifest_import_handle(struct service *service, struct exchange *x) MUST_CHECK;
enum err manifest_signer_before(struct service *service, struct exchange *x, json_t *args);

/* factory.c */
enum err station_create_before(struct service *service, struct exchange *x, json_t *args);
enum err factory_certify_handle(struct service *service, struct exchange *x) MUST_CHECK;
enum err factory_journal_handle(struct service *service, struct exchange *x) MUST_CHECK;

/* attempts.c */
enum err attempts_after(struct service *service, struct exchange *x, const json_t *args,
                        json_t *answer);
enum err status_before(struct service *service, struct exchange *x, json_t *args);
enum err whoami_handle(struct service *service, struct exchange *x) MUST_CHECK;

/* doctor.c */
enum err doctor_before(struct service *service, struct exchange *x, json_t *args);

/* metrics.c; metrics_scraper: whether the request brings the scrape token, which opens
 * GET /metrics and nothing else, without the registry */
bool metrics_scraper(const struct service *service, const struct exchange *x);
enum err metrics_handle(struct service *service, struct exchange *x) MUST_CHECK;
