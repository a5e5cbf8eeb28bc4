/*
 * The registry of refusals, one row each; docs/errors.md is generated from it.
 *
 * FAULT(name, code, http, retry, counts, seen, title, remedy)
 *   http    status of the HTTP and EST form
 *   retry   1: the same request may succeed later without anybody's help
 *   counts  1: counts against the device when the credential proved that very device
 *   seen    FULL: the device is told; HIDDEN: it is told enrol.refused, the operator's trail
 *           has the rest; PROVEN: told only to a credential that proves that very device
 *   title   one sentence for people; remedy: what the operator does
 */
#pragma once

/* clang-format off */
#define FAULT_TABLE(FAULT) \
FAULT(REQUEST_NOT_FOUND, "request.not_found", 404, 0, 0, FULL, "No such path", "Compare the path with docs/openapi.yaml; an EST label is a template name") \
FAULT(REQUEST_METHOD, "request.method_not_allowed", 405, 0, 0, FULL, "This path does not take that method", "Use a method from the Allow header") \
FAULT(REQUEST_TYPE, "request.type_unsupported", 415, 0, 0, FULL, "The Content-Type is not one this path takes", "Send application/pkcs10 to EST, application/json to the admin API") \
FAULT(REQUEST_TOO_LARGE, "request.too_large", 413, 0, 0, FULL, "The body is longer than this path allows", "Shorten it; docs/operations.md lists the limits") \
FAULT(REQUEST_MALFORMED, "request.malformed", 400, 0, 0, FULL, "The request does not parse", "The detail says where") \
FAULT(REQUEST_CONFLICT, "request.conflict", 409, 0, 0, FULL, "The object is in a state that does not allow this", "The detail says which") \
FAULT(REQUEST_EXISTS, "request.exists", 409, 0, 0, FULL, "An object of this name exists already", "Choose another name") \
FAULT(OBJECT_NOT_FOUND, "object.not_found", 404, 0, 0, FULL, "There is no such object", "List the objects of that kind") \
FAULT(DEVICE_AMBIGUOUS, "device.ambiguous", 409, 0, 0, FULL, "More than one product has a device of this serial", "Name the product") \
FAULT(PROXY_HEADER, "proxy.header_refused", 400, 0, 0, FULL, "A Client-Cert header is believed from nobody on this listener", "Let the balancer strip the headers that clients send, or pass TLS through") \
FAULT(PROXY_HEADER_MALFORMED, "proxy.header_malformed", 400, 0, 0, FULL, "The proxy's Client-Cert headers do not parse", "See RFC 9440, the detail, and the balancer's configuration in docs/operations.md") \
FAULT(PROXY_UNAUTHENTICATED, "proxy.unauthenticated", 403, 0, 0, FULL, "Only a proxy that is configured may ask here", "Compare proxy.client_ca and proxy.names with the certificate the balancer presents") \
FAULT(ADMIN_CERTIFICATE, "admin.certificate_required", 403, 0, 0, FULL, "The admin listener wants a client certificate of its CA, besides the token", "Present a certificate that leads to admin.client_ca") \
FAULT(NOT_IMPLEMENTED, "request.not_implemented", 501, 0, 0, FULL, "Muster does not do this part of the protocol", "EST: use simpleenroll and simplereenroll") \
FAULT(AUTH_REQUIRED, "auth.required", 401, 0, 0, FULL, "This path needs a credential", "Present a bootstrap token or a client certificate") \
FAULT(AUTH_MALFORMED, "auth.malformed", 400, 0, 0, FULL, "The Authorization header does not parse", "Send Basic serial:token or Bearer token") \
FAULT(ADMIN_DENIED, "admin.denied", 401, 0, 0, FULL, "The admin token is unknown or revoked", "Use a token of musterd init or musterd admin-token") \
FAULT(ADMIN_FORBIDDEN, "admin.forbidden", 403, 0, 0, FULL, "The admin token's role or products do not allow this", "Use a token with a wider role") \
FAULT(ENROL_REFUSED, "enrol.refused", 403, 0, 0, FULL, "The credential, the serial or both are refused", "muster explain REQUEST-ID tells the reason") \
FAULT(TOKEN_UNKNOWN, "token.unknown", 403, 0, 0, HIDDEN, "The bootstrap token is not in the registry", "Mint one with muster token create") \
FAULT(TOKEN_EXPIRED, "token.expired", 403, 0, 0, HIDDEN, "The bootstrap token has expired", "muster token regenerate ID") \
FAULT(TOKEN_CONSUMED, "token.consumed", 403, 0, 0, HIDDEN, "The bootstrap token has been used and its grace is over", "muster token regenerate ID, after finding out who used it") \
FAULT(TOKEN_REVOKED, "token.revoked", 403, 0, 0, HIDDEN, "The bootstrap token was revoked", "Mint another if the device is yours") \
FAULT(TOKEN_WRONG_SERIAL, "token.wrong_serial", 403, 0, 0, HIDDEN, "The bootstrap token is bound to another serial", "Compare the serial the device presents with the token's") \
FAULT(TOKEN_WRONG_TEMPLATE, "token.wrong_template", 403, 0, 0, HIDDEN, "The bootstrap token is for another template", "Use the EST label of the token's template") \
FAULT(ALLOWLIST_UNKNOWN, "allowlist.unknown_serial", 403, 0, 1, HIDDEN, "The serial is not on the product's allowlist", "muster allowlist import") \
FAULT(ALLOWLIST_BLOCKED, "allowlist.blocked", 403, 0, 1, HIDDEN, "The serial is blocked on the allowlist", "muster allowlist unblock SERIAL") \
FAULT(ALLOWLIST_KEY, "allowlist.key_mismatch", 403, 0, 1, HIDDEN, "The key is not the one pinned for this serial", "Check the factory's key list") \
FAULT(SERIAL_MALFORMED, "serial.malformed", 400, 0, 0, FULL, "The serial is not one the product allows", "1 to 64 characters of A-Z a-z 0-9 . _ : -, and the product's rule") \
FAULT(SERIAL_MISSING, "serial.missing", 400, 0, 0, FULL, "The template takes the serial from a place that is empty", "Put the serial where the template's Muster.Serial says") \
FAULT(SERIAL_MISMATCH, "serial.mismatch", 403, 0, 1, FULL, "The credential is for another serial than the request names", "Let the device name its own serial") \
FAULT(CSR_MALFORMED, "csr.malformed", 400, 0, 1, FULL, "The body is not a PKCS#10 request", "DER, in base64 or PEM") \
FAULT(CSR_SIGNATURE, "csr.signature_invalid", 400, 0, 1, FULL, "The request is not signed with its own key", "Proof of possession failed; make the CSR again") \
FAULT(CSR_KEY, "csr.key_not_allowed", 400, 0, 1, FULL, "The template does not allow this kind of key", "Use a key type from the template's Keys") \
FAULT(POP_MISSING, "pop.missing", 403, 0, 0, FULL, "The template wants the request linked to its TLS connection", "The device must put the channel binding into challengePassword; see /csrattrs") \
FAULT(POP_MISMATCH, "pop.mismatch", 403, 0, 0, FULL, "The challengePassword is not the channel binding of this connection", "Send the CSR over the connection it was made for, and no other text as challengePassword") \
FAULT(POP_UNAVAILABLE, "pop.unavailable", 403, 0, 0, FULL, "This TLS connection has no channel binding that can be relied on", "Use TLS 1.3, or TLS 1.2 with the extended master secret") \
FAULT(CSR_SUBJECT_CHANGED, "csr.subject_changed", 403, 0, 1, FULL, "A renewal must keep subject and SAN of the certificate it renews", "Copy subject and SAN from the current certificate") \
FAULT(KEY_REUSED, "key.reused", 403, 0, 1, FULL, "This key belongs to another certificate or was revoked", "The device must make a new key") \
FAULT(DEVICE_BUSY, "device.busy", 503, 1, 0, FULL, "Another key was enrolled for this device while the request was under way", "Nothing, if the device lost power and comes again; two devices of one serial otherwise") \
FAULT(KEY_CONFLICT, "device.key_conflict", 409, 0, 0, FULL, "Another key has been enrolled for this device", "The device keeps the certificate it has; otherwise muster device reset SERIAL") \
FAULT(DEVICE_PROVISIONED, "device.already_provisioned", 409, 0, 1, FULL, "The device holds a verified certificate and its template refuses another key", "muster device reset SERIAL for a repair") \
FAULT(DEVICE_QUARANTINED, "device.quarantined", 403, 0, 0, PROVEN, "The device is in quarantine", "muster device show SERIAL, then muster device release SERIAL") \
FAULT(DEVICE_RETIRED, "device.retired", 403, 0, 0, PROVEN, "The device was retired for good", "A retired serial never enrols again") \
FAULT(THING_TAKEN, "thing.name_taken", 409, 0, 0, FULL, "The template gives this device a thing name that belongs to another", "Make the template's ThingName depend on the serial") \
FAULT(APPROVAL_PENDING, "approval.pending", 202, 1, 0, FULL, "The enrolment waits for an operator's approval", "muster device list --approval pending, then muster device approve SERIAL") \
FAULT(APPROVAL_REJECTED, "approval.rejected", 403, 0, 0, FULL, "An operator rejected this enrolment", "muster device show SERIAL; muster device approve or reset lets it try again") \
FAULT(KEYGEN_REFUSED, "keygen.not_allowed", 403, 0, 0, FULL, "The template makes no keys for devices", "Let the device make its key, or set Muster.ServerKeygen to allow") \
FAULT(KEYGEN_KEY_UNKNOWN, "keygen.key_unknown", 403, 0, 0, FULL, "The key to encrypt the new private key with is not known here", "asymmDecryptKeyID must name the key of the client certificate in TLS, RSA or EC") \
FAULT(KEYGEN_CIPHER, "keygen.cipher_unsupported", 400, 0, 0, FULL, "None of the ciphers the client accepts for its private key is known here", "Offer AES-256-CBC or AES-128-CBC in smimeCapabilities") \
FAULT(TEMPLATE_UNKNOWN, "template.unknown", 404, 0, 0, FULL, "There is no template of this name", "muster template list; the EST label is the template's name") \
FAULT(TEMPLATE_NO_DEFAULT, "template.no_default", 404, 0, 0, FULL, "No label was given and no default template is configured", "Use /.well-known/est/LABEL/ or set default_template") \
FAULT(TEMPLATE_CREDENTIAL, "template.credential_not_allowed", 403, 0, 0, FULL, "The template does not take this kind of credential", "See Muster.Credentials of the template") \
FAULT(TEMPLATE_INVALID, "template.invalid", 400, 0, 0, FULL, "The template document is wrong", "The detail gives the JSON path of the fault") \
FAULT(TEMPLATE_PARAMETER, "template.parameter_missing", 400, 0, 0, FULL, "A parameter has neither a value nor a default", "Send it, or give the parameter a Default") \
FAULT(TEMPLATE_EVALUATION, "template.evaluation_failed", 400, 0, 0, FULL, "The template cannot be evaluated for this device", "The detail gives the JSON path; muster template render reproduces it") \
FAULT(TEMPLATE_OVERRIDE, "template.override_fail", 409, 0, 0, FULL, "The device exists with other values and OverrideSettings say FAIL", "Change the template or the device") \
FAULT(CA_NOT_REGISTERED, "ca.not_registered", 403, 0, 0, FULL, "The client certificate's issuer is not registered here", "muster ca unknown, then muster ca register") \
FAULT(CA_PROOF_REQUIRED, "ca.proof_required", 400, 0, 0, FULL, "Registering a CA takes a proof that its holder has the key, or an operator's word", "muster ca code, then --proof FILE; or --without-proof") \
FAULT(CA_PROOF_INVALID, "ca.proof_invalid", 400, 0, 0, FULL, "The verification certificate does not prove anything", "It must be signed by the CA's key, valid now, and its CN the code of muster ca code") \
FAULT(CA_NO_REGISTRATION, "ca.no_auto_registration", 403, 0, 0, FULL, "The certificate is unknown, and its CA does not register devices by itself", "muster ca update CA --auto on, or muster cert register FILE") \
FAULT(CHAIN_INCOMPLETE, "chain.incomplete", 403, 0, 0, FULL, "An intermediate between the client certificate and its registered CA is missing", "Let the device send it, or register the intermediate") \
FAULT(CHAIN_MALFORMED, "chain.malformed", 400, 0, 0, FULL, "The client certificate does not parse", "Make the certificate again") \
FAULT(CHAIN_SIGNATURE, "chain.signature_invalid", 403, 0, 0, FULL, "A signature in the client certificate's chain is wrong", "The certificate is damaged or forged") \
FAULT(CHAIN_INVALID, "chain.invalid", 403, 0, 0, FULL, "The client certificate's chain breaks RFC 5280", "The detail gives the reason") \
FAULT(CERT_EXPIRED, "cert.expired", 403, 0, 0, FULL, "The client certificate or one above it has expired", "Enrol again with another credential, or correct the clock") \
FAULT(CERT_NOT_YET, "cert.not_yet_valid", 403, 1, 0, FULL, "The client certificate or one above it is not valid yet", "Compare the clocks: the detail has the server's time") \
FAULT(CERT_REVOKED, "cert.revoked", 403, 0, 0, FULL, "The client certificate was revoked", "A revoked certificate never comes back; enrol with another credential") \
FAULT(CERT_UNKNOWN, "cert.unknown", 403, 0, 0, FULL, "The client certificate is from our CA but not in the registry", "The registry was lost or restored from an old backup: musterd registry rebuild, or muster registry trust-own for a while") \
FAULT(CERT_SUPERSEDED, "cert.superseded", 403, 0, 0, FULL, "A newer certificate of this device is in use already", "The device should use its newest certificate") \
FAULT(CERT_INACTIVE, "cert.inactive", 403, 0, 0, FULL, "The certificate is not active", "muster cert activate FINGERPRINT, if it is to be used") \
FAULT(CERT_PENDING, "cert.pending_activation", 403, 1, 0, FULL, "The certificate is registered and waits to be activated", "muster cert waiting, then muster cert activate FINGERPRINT") \
FAULT(CERT_NO_SERIAL, "cert.no_serial", 403, 0, 0, FULL, "The client certificate carries no serial where its CA's template looks", "See Muster.Serial of the CA's template") \
FAULT(CERT_PURPOSE, "cert.wrong_purpose", 403, 0, 0, FULL, "The client certificate's purpose does not allow this", "Renewal takes the operational certificate") \
FAULT(CLAIM_REQUIRED, "claim.required", 403, 0, 0, FULL, "This operation is for claim certificates", "Present the claim certificate of the product line; muster claim list") \
FAULT(CLAIM_EXPIRED, "claim.expired", 403, 0, 0, FULL, "The claim's enrolment has ended, and its grace does not cover this", "muster claim show; muster claim rotate makes its successor") \
FAULT(CLAIM_REVOKED, "claim.revoked", 403, 0, 0, FULL, "The claim was revoked", "Ship firmware with its successor; devices on the allowlist may come with another credential") \
FAULT(CLAIM_BUDGET, "claim.budget_exhausted", 403, 0, 0, FULL, "The claim has provisioned as many devices as it may", "muster claim show: more devices than were built is a leak; muster claim rotate makes its successor") \
FAULT(CLAIM_TEMPLATE, "claim.wrong_template", 403, 0, 0, FULL, "The claim's scope does not have this template", "muster claim show lists its templates; compare the topic or label the device uses") \
FAULT(CLAIM_RATE, "claim.rate_limited", 429, 1, 0, FULL, "The claim makes more requests than its rate allows", "Wait as told; a claim that leaked shows so: muster claim show") \
FAULT(CLAIM_PENDING, "claim.too_many_pending", 429, 1, 0, FULL, "Too many certificates of this claim wait for their registration", "Devices must call RegisterThing after they got a certificate; those that never do are revoked after an hour") \
FAULT(CLAIM_TOPIC, "claim.topic_denied", 403, 0, 0, FULL, "A claim may only ask for an identity", "Firmware must use its own certificate for data; otherwise the claim has leaked") \
FAULT(OWNERSHIP_INVALID, "ownership.invalid", 400, 0, 0, FULL, "The certificate ownership token is unknown, expired, or was given to somebody else", "The device must ask for a certificate again, and register it within the hour over the same claim and client id") \
FAULT(OWNERSHIP_USED, "ownership.used", 409, 0, 0, FULL, "The certificate was registered already, with another template or other parameters", "The same request again would get the same answer; for anything else ask for a certificate again") \
FAULT(STATION_UNKNOWN, "station.unknown", 403, 0, 0, FULL, "The client certificate is no station's", "muster factory station NAME --batch BATCH --certificate FILE") \
FAULT(STATION_REVOKED, "station.revoked", 403, 0, 0, FULL, "The station was revoked, or its certificate has ended", "muster factory stations; make another with a new certificate") \
FAULT(BATCH_CLOSED, "factory.batch_closed", 409, 0, 0, FULL, "The batch is closed", "Make another batch") \
FAULT(BATCH_BUDGET, "factory.budget_exhausted", 403, 0, 0, FULL, "The batch or the station may not have so many devices", "Count what was built; more devices than were ordered is what a stolen station looks like") \
FAULT(JOURNAL_MALFORMED, "journal.malformed", 400, 0, 0, FULL, "The upload is no journal of a station", "docs/factory.md has the format") \
FAULT(JOURNAL_CHAIN, "journal.chain_broken", 409, 0, 0, FULL, "A line of the journal does not follow the one before it", "The file was changed; find out by whom before anything of it is believed") \
FAULT(JOURNAL_FORKED, "journal.forked", 409, 0, 0, FULL, "The journal differs from what was uploaded before", "Two files go by one station's name, or one was changed") \
FAULT(JOURNAL_GAP, "journal.gap", 409, 0, 0, FULL, "Lines are missing between the last upload and this one", "Upload those first; lost for good: --accept-gap, which reconcile tells for ever") \
FAULT(JOURNAL_SEAL, "journal.seal_invalid", 403, 0, 0, FULL, "A seal of the journal is not by the station's key", "Compare the station's certificate with the key it seals with") \
FAULT(JOURNAL_UNSEALED, "journal.unsealed", 400, 0, 0, FULL, "The new lines of the journal have no seal", "Seal the journal, then upload it: muster factory seal") \
FAULT(JOURNAL_ENTRY, "journal.entry_invalid", 400, 0, 0, FULL, "A line of the journal does not tell a device and its certificate", "The detail says what is missing") \
FAULT(JOURNAL_BUSY, "journal.busy", 503, 1, 0, FULL, "Another upload of the same journal is under way", "Send it again") \
FAULT(ENROLLMENT_UNKNOWN, "enrollment.unknown", 401, 0, 0, HIDDEN, "No enrollment has this registration id, and no group takes this credential", "muster enrollment list; compare ID scope and registration id") \
FAULT(ENROLLMENT_KEY, "enrollment.key_mismatch", 401, 0, 0, HIDDEN, "The registration is not signed with a key of the enrollment, or comes with another certificate", "Compare the device's key; that of a group's device is derived from its registration id in small letters") \
FAULT(ENROLLMENT_NAME, "enrollment.name_mismatch", 401, 0, 0, FULL, "The certificate's or the CSR's CN is not the registration id", "A device registers under the CN of its certificate") \
FAULT(ENROLLMENT_OTHER, "enrollment.other", 409, 0, 0, FULL, "The device is of another enrollment than that whose key it has", "An individual enrollment goes before every group; of two groups: muster device reset SERIAL lets the other have it once") \
FAULT(ENROLLMENT_DISABLED, "enrollment.disabled", 401, 0, 0, FULL, "The enrollment is disabled", "muster enrollment enable ID, or muster enrollment-group enable NAME") \
FAULT(ENROLLMENT_GROUP_FULL, "enrollment.group_full", 403, 0, 0, FULL, "The enrollment group has as many devices as it may", "More devices than were built is what a master key that leaked looks like; muster enrollment-group update NAME --max-devices N") \
FAULT(ENROLLMENT_NO_ENDPOINT, "enrollment.no_endpoint", 409, 0, 0, FULL, "There is no broker to assign the device to", "muster endpoint put HOST; compare the enrollment's endpoints") \
FAULT(TPM_MALFORMED, "tpm.malformed", 400, 0, 0, FULL, "The TPM's keys are missing, or not such as a TPM makes for this", "tpm.endorsementKey and tpm.storageRootKey are base64 of TPM2B_PUBLIC") \
FAULT(TPM_KEY, "tpm.key_mismatch", 400, 0, 0, FULL, "The TPM is not that of the enrollment", "muster enrollment show ID; a device whose TPM was changed needs another enrollment") \
FAULT(TPM_CERTIFICATE, "tpm.certificate_invalid", 400, 0, 0, FULL, "The endorsement key's certificate does not vouch for it here", "Compare the group's roots with the manufacturer's") \
FAULT(TPM_CHALLENGE, "tpm.challenge", 401, 0, 0, FULL, "The TPM is to prove itself", "Nothing: the device goes on by itself") \
FAULT(TPM_SIGNATURE, "tpm.signature_invalid", 401, 0, 0, FULL, "The registration is not signed by the TPM", "The device should begin again without a signature") \
FAULT(SCEP_OFF, "scep.not_configured", 404, 0, 0, FULL, "SCEP is not configured here", "musterd add-ra, then [scep] certificate and key") \
FAULT(SCEP_OPERATION, "scep.operation_unknown", 400, 0, 0, FULL, "The operation is none of SCEP's", "GetCACaps, GetCACert, GetNextCACert or PKIOperation") \
FAULT(SCEP_MALFORMED, "scep.malformed", 400, 0, 0, FULL, "That is no message of SCEP", "docs/protocols/scep.md") \
FAULT(SCEP_ALGORITHM, "scep.algorithm", 400, 0, 0, FULL, "The message uses an algorithm that is not allowed here", "AES and SHA-256 with RSA keys; [scep] allow_3des and allow_sha1 for old clients") \
FAULT(SCEP_CHECK, "scep.message_check", 400, 0, 0, FULL, "The message's envelope is not for this registration authority, or is damaged", "Let the client fetch GetCACert again") \
FAULT(SCEP_SIGNER, "scep.signer_mismatch", 403, 0, 0, FULL, "The message is not signed with the key that it asks a certificate for", "A new device signs with a self-signed certificate of the key of its CSR") \
FAULT(SCEP_TRANSACTION, "scep.unknown_transaction", 404, 0, 0, FULL, "Nothing waits under this transaction", "The device should send its request again") \
FAULT(SCEP_CERTIFICATE, "scep.unknown_certificate", 404, 0, 0, FULL, "There is no such certificate or CRL for this device", "A device may ask for its own certificates, and for the CRLs of our CAs") \
FAULT(SCEP_NO_NEXT, "scep.no_next_ca", 404, 0, 0, FULL, "There is no CA that comes next", "musterd add-issuer or add-root begins a change of CA") \
FAULT(SECRETS_UNAVAILABLE, "secrets.unavailable", 503, 1, 0, FULL, "Symmetric keys cannot be used here", "Set [secrets] key; docs/protocols/dps.md") \
FAULT(SAS_MALFORMED, "sas.malformed", 401, 0, 0, FULL, "The Authorization header is no shared access signature", "SharedAccessSignature sr=...&sig=...&se=...&skn=registration") \
FAULT(SAS_RESOURCE, "sas.wrong_resource", 401, 0, 0, FULL, "The shared access signature is for another registration", "sr is {idScope}/registrations/{registrationId}") \
FAULT(SAS_EXPIRED, "sas.expired", 401, 0, 0, FULL, "The shared access signature does not hold at this time", "Compare the device's clock with the server's time in the answer") \
FAULT(DPS_SCOPE, "dps.scope_unknown", 404, 0, 0, FULL, "There is no such ID scope here", "The scope is [dps] id_scope of musterd") \
FAULT(DPS_OPERATION, "dps.operation_unknown", 404, 0, 0, FULL, "The registration has no such operation", "Register again") \
FAULT(DPS_UNREGISTERED, "dps.not_registered", 404, 0, 0, FULL, "The device has not registered yet", "Let it register") \
FAULT(ETAG_MISMATCH, "request.etag_mismatch", 412, 0, 0, FULL, "Somebody has changed it meanwhile", "Look at it again, and repeat with its present etag") \
FAULT(HOOK_DENIED, "hook.denied", 403, 0, 0, FULL, "The pre-provisioning hook of the template said no", "The hook's own log has the reason, under the request id") \
FAULT(HOOK_FAILED, "hook.failed", 503, 1, 0, FULL, "The pre-provisioning hook did not answer as it should", "The detail says why; without its yes nothing is provisioned") \
FAULT(HOOK_BUSY, "hook.busy", 503, 1, 0, FULL, "Too many requests wait for pre-provisioning hooks", "The hook is slow; hook.workers and hook.max_waiting") \
FAULT(CA_CRL_OVERDUE, "ca.crl_overdue", 403, 0, 0, FULL, "The device's CA requires a CRL, and none is in date", "Upload the CA's present CRL: muster ca crl NAME FILE; or muster ca update NAME --crl use") \
FAULT(CA_NO_ISSUER, "ca.no_issuer", 503, 1, 0, FULL, "No issuing CA is able to sign now", "muster ca list; musterd init makes one") \
FAULT(RATE_LIMITED, "load.rate_limited", 429, 1, 0, FULL, "Too many requests for the moment", "Wait as Retry-After says; docs/operations.md, Rate limits") \
FAULT(OVERLOADED, "load.overloaded", 503, 1, 0, FULL, "The server is full for the moment", "Wait as Retry-After says; add replicas") \
FAULT(DRAINING, "load.draining", 503, 1, 0, FULL, "This replica is shutting down", "Try again; another replica answers") \
FAULT(CLOCK_WRONG, "server.clock_wrong", 503, 1, 0, FULL, "The server's clock differs from the registry's", "Set the clock, run a time service; enrol.max_clock_skew_s is how far it may be") \
FAULT(DB_UNAVAILABLE, "db.unavailable", 503, 1, 0, FULL, "The registry cannot be reached now", "Check PostgreSQL; nothing was lost or consumed") \
FAULT(JOURNAL_UNAVAILABLE, "journal.unavailable", 503, 1, 0, FULL, "The journal cannot be written now", "Look after the volume of journal.directory: full, read-only or broken; /readyz has the reason. Nothing was lost, devices come again") \
FAULT(INTERNAL, "server.internal", 500, 1, 0, FULL, "The server failed", "The log record of the request id has the reason")
/* clang-format on */
