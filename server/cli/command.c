#include "cli/command.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

#define GLOBAL                                                                                     \
    (OPT(json) | OPT(url) | OPT(token_file) | OPT(cacert) | OPT(timeout) | OPT(help) | OPT(version))
#define V1 "/admin/v1"

#define CLAIM_BODY                                                                                 \
    (OPT(budget) | OPT(rate) | OPT(burst) | OPT(max_pending) | OPT(expires) | OPT(validity) |      \
     OPT(grace) | OPT(batch) | OPT(note))

static const struct command commands[] = {
    {"template", "put", "NAME FILE", 2,
     "store a template; a changed document becomes the next version and the one in use",
     "muster template put pump templates/est-token.json --product pump", "PUT", V1 "/templates/{}",
     OPT(product), 0, 0, 0, SHOW_OBJECT, NULL, NULL, run_template_put},
    {"template", "list", "", 0, "list the templates", "muster template list", "GET",
     V1 "/templates", OPT(product), 0, OPT(limit), 0, SHOW_LIST,
     "name product version enabled created_at", NULL, NULL},
    {"template", "show", "NAME", 1, "show a template", "muster template show pump --body", "GET",
     V1 "/templates/{}", OPT(number), 0, OPT(body), 0, SHOW_OBJECT, NULL, NULL, run_template_show},
    {"template", "validate", "FILE", 1,
     "say whether a document is right, and if not where it is wrong",
     "muster template validate my.json", "POST", V1 "/templates:validate", 0, 0, 0, 0, SHOW_OBJECT,
     NULL, NULL, run_template_validate},
    {"template", "render", "NAME", 1, "show what a template gives for a device",
     "muster template render pump --serial SN-1 --param Location=Basel", "POST",
     V1 "/templates/{}/render", 0, OPT(serial) | OPT(param), 0, OPT(serial), SHOW_OBJECT, NULL,
     NULL, NULL},
    {"template", "enable", "NAME", 1, "let a template admit devices again",
     "muster template enable pump", "POST", V1 "/templates/{}/enable", 0, 0, 0, 0, SHOW_OBJECT,
     NULL, NULL, NULL},
    {"template", "disable", "NAME", 1, "a disabled template refuses everything",
     "muster template disable pump", "POST", V1 "/templates/{}/disable", 0, 0, 0, 0, SHOW_OBJECT,
     NULL, NULL, NULL},

    {"allowlist", "import", "FILE|-", 1,
     "admit the serials of a file: CSV serial[,pin[,batch]] (a bare line is a serial) or JSON "
     "lines",
     "muster allowlist import serials.csv --product pump --batch week-12", "POST",
     V1 "/products/{product}/allowlist", OPT(batch), 0,
     OPT(product) | OPT(format) | OPT(report) | OPT(resume) | OPT(columns), OPT(product),
     SHOW_OBJECT, NULL, NULL, run_allowlist_import},
    {"allowlist", "list", "", 0,
     "list the allowlist of a product; --state unseen, claimed or blocked",
     "muster allowlist list --product pump --state unseen", "GET",
     V1 "/products/{product}/allowlist", OPT(state), 0, OPT(product) | OPT(limit), OPT(product),
     SHOW_LIST, "serial blocked spki_pin batch claimed_at", NULL, NULL},
    {"allowlist", "block", "SERIAL", 1, "refuse a serial from now on",
     "muster allowlist block SN-1 --product pump", "POST",
     V1 "/products/{product}/allowlist/{}/block", 0, 0, OPT(product), OPT(product), SHOW_OBJECT,
     NULL, NULL, NULL},
    {"allowlist", "unblock", "SERIAL", 1, "admit it again",
     "muster allowlist unblock SN-1 --product pump", "POST",
     V1 "/products/{product}/allowlist/{}/unblock", 0, 0, OPT(product), OPT(product), SHOW_OBJECT,
     NULL, NULL, NULL},

    {"manifest", "import", "FILE", 1,
     "admit the secure elements of a signed manifest (Microchip's, versions 1, 2 and 3), each "
     "with its own key only",
     "muster manifest import manifest.json --product pump --batch lot-7", "POST",
     V1 "/products/{product}/manifest", OPT(batch) | OPT(key_slot), 0,
     OPT(product) | OPT(report) | OPT(resume), OPT(product), SHOW_OBJECT, NULL, NULL,
     run_manifest_import},
    {"manifest", "trust", "NAME FILE", 2, "let the certificate's key sign manifests (PEM)",
     "muster manifest trust microchip signer.pem", "POST", V1 "/manifest-signers", 0, 0, 0, 0,
     SHOW_OBJECT, NULL, NULL, run_manifest_trust},
    {"manifest", "distrust", "NAME", 1, "its signatures count no more",
     "muster manifest distrust microchip", "DELETE", V1 "/manifest-signers/{}", 0, 0, 0, 0,
     SHOW_OBJECT, NULL, NULL, NULL},
    {"manifest", "signers", "", 0, "list whose signatures count", "muster manifest signers", "GET",
     V1 "/manifest-signers", 0, 0, OPT(limit), 0, SHOW_LIST, "name subject fingerprint not_after",
     NULL, NULL},

    {"token", "create", "", 0,
     "mint bootstrap tokens: bound to --serial or to each of --serials, else --count free ones; "
     "printed this once",
     "muster token create --template pump --serials serials.txt --expires 90d", "POST",
     V1 "/tokens", 0,
     OPT(template) | OPT(serial) | OPT(count) | OPT(uses) | OPT(expires) | OPT(grace) | OPT(note),
     OPT(serials) | OPT(csv) | OPT(out), OPT(template), SHOW_TOKENS, NULL, NULL, run_token_create},
    {"token", "qr", "FILE|-", 1,
     "draw a code of server, token and CA fingerprint for a device's camera; FILE is what create "
     "printed, for one token",
     "muster token create --template pump --serial SN-1 | muster token qr - --png SN-1.png", NULL,
     NULL, 0, 0, OPT(server) | OPT(png), 0, SHOW_OBJECT, NULL, NULL, run_token_qr},
    {"token", "list", "", 0, "list tokens; --state unused, active, used, expired or revoked",
     "muster token list --state unused --template pump", "GET", V1 "/tokens",
     OPT(state) | OPT(template) | OPT(serial), 0, OPT(limit), 0, SHOW_LIST,
     "id template serial state uses max_uses expires_at note", NULL, NULL},
    {"token", "show", "ID", 1, "show a token and who used it", "muster token show 12", "GET",
     V1 "/tokens/{}", 0, 0, 0, 0, SHOW_OBJECT, NULL, NULL, NULL},
    {"token", "revoke", "ID", 1, "refuse a token from now on", "muster token revoke 12", "POST",
     V1 "/tokens/{}/revoke", 0, 0, 0, 0, SHOW_OBJECT, NULL, NULL, NULL},
    {"token", "regenerate", "ID", 1, "revoke a token and mint another like it",
     "muster token regenerate 12", "POST", V1 "/tokens/{}/regenerate", 0, 0, 0, 0, SHOW_OBJECT,
     NULL, NULL, NULL},

    {"claim", "create", "NAME", 1,
     "make a claim: a certificate that the devices of a line share, good for asking for an "
     "identity "
     "and nothing else; its key is told this once",
     "muster claim create line-7 --template sensor --budget 10000 --batch line-7 --out line-7",
     "POST", V1 "/claims", 0, CLAIM_BODY | OPT(template) | OPT(temporary),
     OPT(templates) | OPT(csr) | OPT(certificate) | OPT(out), OPT(template), SHOW_OBJECT, NULL,
     "name", run_claim_create},
    {"claim", "list", "", 0, "list claims; --state active, grace, exhausted, expired or revoked",
     "muster claim list --state active --product pump", "GET", V1 "/claims",
     OPT(state) | OPT(product) | OPT(template), 0, OPT(limit), 0, SHOW_LIST,
     "name product template kind state enrol_until devices budget pending failures superseded_by",
     NULL, NULL},
    {"claim", "show", "NAME", 1, "show a claim, its scope, its counters and who used it last",
     "muster claim show line-7", "GET", V1 "/claims/{}", 0, 0, OPT(pem), 0, SHOW_OBJECT, NULL, NULL,
     run_cert_show},
    {"claim", "rotate", "NAME NEW", 2,
     "make its successor, of the same scope and limits where nothing else is said; the old one "
     "goes "
     "on until it ends",
     "muster claim rotate line-7 line-7b --out line-7b", "POST", V1 "/claims/{}/rotate", 0,
     CLAIM_BODY | OPT(old_expires), OPT(csr) | OPT(certificate) | OPT(out), 0, SHOW_OBJECT, NULL,
     NULL, run_claim_rotate},
    {"claim", "revoke", "NAME", 1, "refuse a claim from now on",
     "muster claim revoke line-7 --mode stop-new", "POST", V1 "/claims/{}/revoke", 0, OPT(mode), 0,
     OPT(mode), SHOW_OBJECT, NULL, NULL, NULL},
    {"claim", "stock", "", 0,
     "tell when each claim ends, and how many serials of its line were never seen",
     "muster claim stock --product pump", "GET", V1 "/claims:stock", OPT(product), 0, OPT(limit), 0,
     SHOW_STOCK, NULL, NULL, NULL},

    {"ca", "list", "", 0, "list the CAs: our own and the registered ones", "muster ca list", "GET",
     V1 "/cas", 0, 0, OPT(limit), 0, SHOW_LIST,
     "name kind active template auto_registration jit not_after subject", NULL, NULL},
    {"ca", "show", "NAME", 1, "show a CA", "muster ca show factory --pem", "GET", V1 "/cas/{}", 0,
     0, OPT(pem), 0, SHOW_OBJECT, NULL, NULL, run_cert_show},
    {"ca", "code", "", 0,
     "the registration code: the CN of the certificate that proves a CA's key is there",
     "muster ca code", "POST", V1 "/cas:code", 0, OPT(renew), 0, 0, SHOW_OBJECT, NULL, NULL, NULL},
    {"ca", "register", "[NAME] [FILE]", 0,
     "admit devices with certificates of this CA (PEM); with a template their first contact "
     "registers them (docs/protocols/jit.md)",
     "muster ca register factory factory-ca.pem --template pump --without-proof", "POST", V1 "/cas",
     0, OPT(template) | OPT(kind) | OPT(without_proof) | OPT(auto) | OPT(jit),
     OPT(proof) | OPT(unknown), 0, SHOW_OBJECT, NULL, NULL, run_ca_register},
    {"ca", "update", "NAME", 1, "change what a registered CA does with its devices",
     "muster ca update factory --auto off", "POST", V1 "/cas/{}/update", 0,
     OPT(template) | OPT(auto) | OPT(jit) | OPT(crl), 0, 0, SHOW_OBJECT, NULL, NULL, NULL},
    {"ca", "crl", "NAME FILE|-", 2,
     "upload the CRL of a registered CA or helper (PEM or DER): who is on it is refused at every "
     "door, and its devices are revoked",
     "muster ca crl factory factory.crl", "POST", V1 "/cas/{}/crl", 0, 0, 0, 0, SHOW_OBJECT, NULL,
     NULL, run_ca_crl},
    {"ca", "export", "", 0, "write the registered CAs and helpers as a bundle for another region",
     "muster ca export > cas.json", "GET", V1 "/cas:export", 0, 0, 0, 0, SHOW_OBJECT, NULL, NULL,
     run_ca_export},
    {"ca", "import", "FILE|-", 1,
     "take a bundle over; --check says what would happen. Imported again it changes nothing",
     "muster ca import cas.json", "POST", V1 "/cas:import", 0, 0, OPT(check), 0, SHOW_LIST,
     "name result reason", NULL, run_ca_import},
    {"ca", "unknown", "", 0,
     "list issuers of client certificates that nobody registered; one with a ca_fingerprint sent "
     "its certificate: compare it, then muster ca register --unknown FINGERPRINT",
     "muster ca unknown", "GET", V1 "/unknown-cas", 0, 0, OPT(limit) | OPT(dismiss), 0, SHOW_LIST,
     "issuer_hash issuer aki ca_fingerprint seen last_seen last_source", NULL, run_ca_unknown},
    {"ca", "activate", "NAME", 1, "let a CA sign or vouch again", "muster ca activate factory",
     "POST", V1 "/cas/{}/activate", 0, 0, 0, 0, SHOW_OBJECT, NULL, NULL, NULL},
    {"ca", "deactivate", "NAME", 1, "a deactivated CA neither signs nor vouches",
     "muster ca deactivate factory", "POST", V1 "/cas/{}/deactivate", 0, 0, 0, 0, SHOW_OBJECT, NULL,
     NULL, NULL},

    {"crl", "list", "", 0, "list the CRLs of our issuing CAs as they were signed last",
     "muster crl list", "GET", V1 "/crls", 0, 0, OPT(limit), 0, SHOW_LIST,
     "issuer kind shards shard number this_update next_update entries bytes", NULL, NULL},
    {"crl", "sign", "", 0, "sign full CRLs now, not when they are due", "muster crl sign", "POST",
     V1 "/crls:sign", 0, 0, 0, 0, SHOW_OBJECT, NULL, NULL, NULL},

    {"device", "list", "", 0,
     "list devices; --state UNPROVISIONED includes serials of the allowlist never seen",
     "muster device list --state QUARANTINE", "GET", V1 "/devices",
     OPT(state) | OPT(product) | OPT(template) | OPT(claim) | OPT(approval), 0, OPT(limit), 0,
     SHOW_LIST, "serial product state thing_name template last_seen", NULL, NULL},
    {"device", "show", "SERIAL", 1, "show a device, its certificates and its trail",
     "muster device show SN-1", "GET", V1 "/devices/{}", OPT(product) | OPT(trail), 0, 0, 0,
     SHOW_DEVICE, NULL, NULL, NULL},
    {"device", "stuck", "", 0, "list devices that stand in a state for longer than its limit",
     "muster device stuck --state VERIFY", "GET", V1 "/devices:stuck",
     OPT(state) | OPT(product) | OPT(template), 0, OPT(limit), 0, SHOW_LIST,
     "serial product state since overdue_s template last_outcome remedy", NULL, NULL},
    {"device", "limits", "", 0, "list how long a device may stand in each state",
     "muster device limits", "GET", V1 "/state-limits", 0, 0, OPT(limit), 0, SHOW_LIST,
     "state limit_s", NULL, NULL},
    {"device", "limit", "STATE", 1, "change it; --within 0s: no limit",
     "muster device limit QUARANTINE --within 3d", "POST", V1 "/state-limits", 0, OPT(within), 0,
     OPT(within), SHOW_OBJECT, NULL, "state", NULL},
    {"device", "quarantine", "SERIAL", 1, "refuse a device until it is released",
     "muster device quarantine SN-1 --reason 'stolen'", "POST", V1 "/devices/{}/quarantine",
     OPT(product), OPT(reason), 0, 0, SHOW_OBJECT, NULL, NULL, NULL},
    {"device", "release", "SERIAL", 1, "let a device out of quarantine",
     "muster device release SN-1", "POST", V1 "/devices/{}/release", OPT(product), 0, 0, 0,
     SHOW_OBJECT, NULL, NULL, NULL},
    {"device", "reset", "SERIAL", 1,
     "allow one enrolment with a new key, after repair or refurbishment",
     "muster device reset SN-1 --revoke", "POST", V1 "/devices/{}/reset", OPT(product), OPT(revoke),
     0, 0, SHOW_OBJECT, NULL, NULL, NULL},
    {"device", "retire", "SERIAL", 1,
     "end a device for good: its certificates are revoked, its serial never enrols again",
     "muster device retire SN-1 --yes", "POST", V1 "/devices/{}/retire", OPT(product), 0, OPT(yes),
     0, SHOW_OBJECT, NULL, NULL, run_retire},
    {"device", "approve", "SERIAL", 1,
     "let the enrolment that waits go on; --key only where that key waits",
     "muster device approve SN-1", "POST", V1 "/devices/{}/approve", OPT(product), OPT(key), 0, 0,
     SHOW_OBJECT, NULL, NULL, NULL},
    {"device", "reject", "SERIAL", 1, "refuse the enrolment that waits, until approved or reset",
     "muster device reject SN-1 --reason 'not ours'", "POST", V1 "/devices/{}/reject", OPT(product),
     OPT(key) | OPT(reason), 0, 0, SHOW_OBJECT, NULL, NULL, NULL},
    {"device", "seen", "SERIAL", 1, "report the first use of its certificate on a foreign platform",
     "muster device seen SN-1", "POST", V1 "/devices/{}/seen", OPT(product), OPT(fingerprint), 0, 0,
     SHOW_OBJECT, NULL, NULL, NULL},

    {"cert", "list", "", 0, "list certificates",
     "muster cert list --status current --expires-before 2027-01-01T00:00:00Z", "GET", V1 "/certs",
     OPT(serial) | OPT(product) | OPT(status) | OPT(expires_before), 0, OPT(limit), 0, SHOW_LIST,
     "fingerprint serial purpose status issuer not_after", NULL, NULL},
    {"cert", "show", "FINGERPRINT", 1, "show a certificate", "muster cert show FINGERPRINT --pem",
     "GET", V1 "/certs/{}", 0, 0, OPT(pem), 0, SHOW_OBJECT, NULL, NULL, run_cert_show},
    {"cert", "revoke", "FINGERPRINT", 1,
     "revoke a certificate and its key for good; --reason is one of RFC 5280, keyCompromise also "
     "quarantines the device",
     "muster cert revoke FINGERPRINT --reason keyCompromise", "POST", V1 "/certs/{}/revoke", 0,
     OPT(reason), 0, 0, SHOW_OBJECT, NULL, NULL, NULL},
    {"cert", "waiting", "", 0,
     "list certificates of registered CAs that belong to no device yet; --status pending, active, "
     "inactive or failed",
     "muster cert waiting --status pending", "GET", V1 "/certs:waiting", OPT(status) | OPT(ca), 0,
     OPT(limit), 0, SHOW_LIST, "fingerprint status ca subject template contacts last_seen reason",
     NULL, NULL},
    {"cert", "expiring", "", 0,
     "list certificates that end soon and that nothing has taken the place of; --within 30d unless "
     "given",
     "muster cert expiring --within 7d --silent 60d", "GET", V1 "/certs:expiring",
     OPT(within) | OPT(silent) | OPT(product) | OPT(template), 0, OPT(limit), 0, SHOW_LIST,
     "serial product template not_after days_left last_seen silent_days", NULL, NULL},
    {"cert", "forecast", "", 0,
     "tell how many renewals are to be expected in the next year, and how many certificates end",
     "muster cert forecast --by week", "GET", V1 "/certs:forecast",
     OPT(product) | OPT(template) | OPT(by), 0, OPT(limit), 0, SHOW_LIST, "date renewals ends",
     NULL, NULL},
    {"cert", "activate", "FINGERPRINT", 1,
     "let a certificate be used; one that waits becomes a device's by its CA's template or another",
     "muster cert activate FINGERPRINT --template pump", "POST", V1 "/certs/{}/activate", 0,
     OPT(template) | OPT(param), 0, 0, SHOW_OBJECT, NULL, NULL, NULL},
    {"cert", "deactivate", "FINGERPRINT", 1,
     "keep a certificate out until it is activated again; its sessions end",
     "muster cert deactivate FINGERPRINT", "POST", V1 "/certs/{}/deactivate", 0, 0, 0, 0,
     SHOW_OBJECT, NULL, NULL, NULL},
    {"cert", "register", "FILE", 1,
     "register a certificate of a registered CA ahead of its device (PEM, then what is between it "
     "and its CA); without --template its first contact makes the device",
     "muster cert register device.pem --template pump --param Site=basel", "POST", V1 "/certs", 0,
     OPT(template) | OPT(param) | OPT(status), 0, 0, SHOW_OBJECT, NULL, NULL, run_cert_register},
    {"cert", "import", "FILE|-", 1,
     "register many: JSON lines with CertificatePem, the other members are the template's "
     "parameters",
     "muster cert import batch.ndjson --template pump --report batch.csv", "POST",
     V1 "/certs:import", OPT(template), 0, OPT(report) | OPT(resume), 0, SHOW_OBJECT, NULL, NULL,
     run_cert_import},

    {"product", "list", "", 0, "list the product lines", "muster product list", "GET",
     V1 "/products", 0, 0, OPT(limit), 0, SHOW_LIST, "name serial_case strip_separators created_at",
     NULL, NULL},
    {"product", "create", "NAME", 1, "make a product line",
     "muster product create pump --serial-case upper", "POST", V1 "/products", 0,
     OPT(serial_case) | OPT(strip_separators), 0, 0, SHOW_OBJECT, NULL, "name", NULL},
    {"admin-token", "list", "", 0, "list admin tokens", "muster admin-token list", "GET",
     V1 "/admin-tokens", 0, 0, OPT(limit), 0, SHOW_LIST, "name role product created_at revoked_at",
     NULL, NULL},
    {"admin-token", "create", "NAME", 1, "mint an admin token, printed this once",
     "muster admin-token create line-3 --role operator --product pump", "POST", V1 "/admin-tokens",
     0, OPT(role) | OPT(product), 0, OPT(role), SHOW_OBJECT, NULL, "name", NULL},
    {"admin-token", "revoke", "NAME", 1, "refuse an admin token from now on",
     "muster admin-token revoke line-3", "POST", V1 "/admin-tokens/{}/revoke", 0, 0, 0, 0,
     SHOW_OBJECT, NULL, NULL, NULL},
    {"factory", "create", "NAME", 1, "make a batch: devices that are certified together",
     "muster factory create lot-7 --template pump --size 10000", "POST", V1 "/factory-batches", 0,
     OPT(template) | OPT(size) | OPT(note), 0, OPT(template), SHOW_OBJECT, NULL, "name", NULL},
    {"factory", "list", "", 0, "list the batches", "muster factory list --product pump", "GET",
     V1 "/factory-batches", OPT(product), 0, OPT(limit), 0, SHOW_LIST,
     "name product template size certified state created_at", NULL, NULL},
    {"factory", "show", "NAME", 1, "show a batch", "muster factory show lot-7", "GET",
     V1 "/factory-batches/{}", 0, 0, 0, 0, SHOW_OBJECT, NULL, NULL, NULL},
    {"factory", "close", "NAME", 1, "certify nothing more for a batch",
     "muster factory close lot-7", "POST", V1 "/factory-batches/{}/close", 0, 0, 0, 0, SHOW_OBJECT,
     NULL, NULL, NULL},
    {"factory", "batch", "NAME FILE|-", 2,
     "certify the devices of a file into a folder: JSON lines with serial and csr, or bare serials "
     "whose keys are made here",
     "muster factory batch lot-7 requests.ndjson --out lot-7", "POST",
     V1 "/factory-batches/{}/certificates", 0, 0,
     OPT(out) | OPT(keys) | OPT(passphrase_file) | OPT(again) | OPT(parallel) | OPT(resume),
     OPT(out),
     SHOW_OBJECT, NULL, NULL, run_factory_batch},
    {"factory", "station", "NAME", 1,
     "let the holder of a client certificate have devices of a batch certified",
     "muster factory station line-3 --batch lot-7 --budget 5000 --certificate line-3.pem", "POST",
     V1 "/factory-stations", 0, OPT(batch) | OPT(budget), OPT(certificate),
     OPT(batch) | OPT(budget) | OPT(certificate), SHOW_OBJECT, NULL, "name", run_factory_station},
    {"factory", "stations", "", 0, "list the stations", "muster factory stations --batch lot-7",
     "GET", V1 "/factory-stations", OPT(batch), 0, OPT(limit), 0, SHOW_LIST,
     "name batch state budget certified journal_lines last_seen", NULL, NULL},
    {"factory", "revoke-station", "NAME", 1, "refuse a station from now on",
     "muster factory revoke-station line-3", "POST", V1 "/factory-stations/{}/revoke", 0, 0, 0, 0,
     SHOW_OBJECT, NULL, NULL, NULL},
    {"factory", "record", "JOURNAL", 1,
     "at a station without a connection: note which certificate a device got; with its key, sealed "
     "at once",
     "muster factory record line-3.jsonl --serial SN-1 --certificate SN-1.pem", NULL, NULL, 0, 0,
     OPT(serial) | OPT(certificate) | OPT(private_key), OPT(serial) | OPT(certificate), SHOW_OBJECT,
     NULL, NULL, run_factory_record},
    {"factory", "seal", "JOURNAL", 1, "seal what the journal has so far",
     "muster factory seal line-3.jsonl --private-key line-3.key", NULL, NULL, 0, 0,
     OPT(private_key), OPT(private_key), SHOW_OBJECT, NULL, NULL, run_factory_seal},
    {"factory", "upload", "STATION JOURNAL", 2,
     "bring a station's journal, as often as you like; certificates of registered CAs are "
     "registered",
     "muster factory upload line-3 line-3.jsonl", "POST", V1 "/factory-stations/{}/journal", 0, 0,
     OPT(accept_gap), 0, SHOW_OBJECT, NULL, NULL, run_factory_upload},
    {"factory", "reconcile", "NAME", 1,
     "compare what the stations of a batch said with the registry; exit code 1 where they differ",
     "muster factory reconcile lot-7 --silent 60d", "GET", V1 "/factory-batches/{}/reconcile",
     OPT(silent), 0, 0, 0, SHOW_OBJECT, NULL, NULL, run_factory_reconcile},

    {"webhook", "list", "", 0, "list who is told of events, the broker's topics (mqtt) among them",
     "muster webhook list", "GET", V1 "/webhooks", 0, 0, OPT(limit), 0, SHOW_LIST,
     "name kind url events paused delivered failed waiting dead behind_s last_error", NULL, NULL},
    {"webhook", "create", "NAME URL", 2,
     "tell events to a web service, signed (docs/events.md), from now on",
     "muster webhook create ops https://ops.example.com/muster --event device.quarantined", "POST",
     V1 "/webhooks", 0, 0, OPT(event), 0, SHOW_OBJECT, NULL, "name", run_webhook_create},
    {"webhook", "pause", "NAME", 1, "keep its events until it is resumed",
     "muster webhook pause ops", "POST", V1 "/webhooks/{}/pause", 0, 0, 0, 0, SHOW_OBJECT, NULL,
     NULL, NULL},
    {"webhook", "resume", "NAME", 1, "deliver what has come meanwhile, and go on",
     "muster webhook resume ops", "POST", V1 "/webhooks/{}/resume", 0, 0, 0, 0, SHOW_OBJECT, NULL,
     NULL, NULL},
    {"webhook", "delete", "NAME", 1, "forget a receiver with what waits for it",
     "muster webhook delete ops", "DELETE", V1 "/webhooks/{}", 0, 0, 0, 0, SHOW_OBJECT, NULL, NULL,
     NULL},
    {"event", "list", "", 0, "list events, the newest first", "muster event list --limit 20", "GET",
     V1 "/events", 0, 0, OPT(limit), 0, SHOW_LIST, "id at event product serial", NULL, NULL},
    {"event", "dead", "", 0, "list events that were given up; --receiver NAME: those of one",
     "muster event dead", "GET", V1 "/dead-events", OPT(receiver), 0, OPT(limit), 0, SHOW_LIST,
     "id receiver event serial attempts last_error dead_at", NULL, NULL},
    {"event", "retry", "", 0, "try a dead one again; without --id all",
     "muster event retry --id 12", "POST", V1 "/dead-events:retry", 0, OPT(id), 0, 0, SHOW_OBJECT,
     NULL, NULL, NULL},
    {"event", "drop", "", 0, "forget a dead one; without --id all", "muster event drop --id 12",
     "POST", V1 "/dead-events:drop", 0, OPT(id), 0, 0, SHOW_OBJECT, NULL, NULL, NULL},
    {"explain", NULL, "REQUEST-ID", 1, "tell why an attempt ended as it did",
     "muster explain 01a20abaeb7b73af989dbc9765b7d062", "GET", V1 "/attempts/{}", 0, 0, 0, 0,
     SHOW_EXPLAIN, NULL, NULL, NULL},
    {"audit", "export", "", 0,
     "write the whole audit as JSON lines, oldest first, each with its hash and what was hashed",
     "muster audit export > audit.ndjson", "GET", V1 "/audit:export", 0, 0, 0, 0, SHOW_OBJECT, NULL,
     NULL, run_audit_export},
    {"audit", "verify", "", 0,
     "say whether a row of the audit was changed, taken out or put in; exit code 1 if so",
     "muster audit verify --export audit.ndjson", "GET", V1 "/audit:verify", 0, 0, OPT(export), 0,
     SHOW_OBJECT, NULL, NULL, run_audit_verify},
    {"audit", NULL, "", 0, "list what operators did, newest first", "muster audit --limit 20",
     "GET", V1 "/audit", OPT(object) | OPT(actor), 0, OPT(limit), 0, SHOW_LIST,
     "at actor source action object detail", NULL, NULL},
    {"registry", "trust-own", "", 0,
     "after the registry was lost: register a certificate of our own CAs that nobody knows at its "
     "first contact; with --off no longer",
     "muster registry trust-own --for 7d", "POST", V1 "/registry:trust-own", 0,
     OPT(for) | OPT(template) | OPT(off), 0, 0, SHOW_OBJECT, NULL, NULL, NULL},
    {"doctor", NULL, "", 0, "check the installation; exit code 1 when something is wrong",
     "muster doctor", "GET", V1 "/doctor", 0, 0, 0, 0, SHOW_DOCTOR, NULL, NULL, run_doctor},
    {"status", NULL, "", 0, "show the server's version, time, issuers and the devices by state",
     "muster status", "GET", V1 "/status", 0, 0, 0, 0, SHOW_OBJECT, NULL, NULL, NULL},
    {"whoami", NULL, "", 0, "show whose token this is", "muster whoami", "GET", V1 "/whoami", 0, 0,
     0, 0, SHOW_OBJECT, NULL, NULL, NULL},
    {"completion", NULL, "bash|zsh", 1, "print a completion script for a shell",
     "muster completion bash > /etc/bash_completion.d/muster", NULL, NULL, 0, 0, 0, 0, SHOW_OBJECT,
     NULL, NULL, run_completion},
};

const struct command *command_row(size_t i)
{
    return i < ARRAY_LEN(commands) ? &commands[i] : NULL;
}

option_set command_options(const struct command *c)
{
    return c->query | c->body | c->own | GLOBAL;
}

const struct command *command_find(const char *const *words, size_t count, size_t *ret_used)
{
    for (size_t i = 0; i < ARRAY_LEN(commands) && count > 0; i++) {
        const struct command *c = &commands[i];
        bool verb = !c->verb || (count > 1 && strcmp(c->verb, words[1]) == 0);
        if (strcmp(c->object, words[0]) != 0 || !verb)
            continue;
        *ret_used = c->verb ? 2 : 1;
        return c;
    }
    return NULL;
}

static void name_print(const struct command *c)
{
    char name[80];
    snprintf(name, sizeof(name), "%s%s%s %s", c->object, c->verb ? " " : "", c->verb ? c->verb : "",
             c->words);
    printf("  %-34s %s\n", name, c->help);
}

static void options_print(option_set options)
{
    for (int i = 0; i < OPT_COUNT; i++) {
        const struct option_row *r = option_row((enum option_id)i);
        char name[64];
        if (!(options & OPTION_BIT << i))
            continue;
        snprintf(name, sizeof(name), "--%s%s%s", r->name, r->value ? " " : "",
                 r->value ? r->value : "");
        for (char *c = name; *c && *c != ' '; c++) {
            if (*c == '_')
                *c = '-';
        }
        printf("      %-30s %s\n", name, r->help);
    }
}

static bool wanted(const struct command *c, const char *object, const char *verb)
{
    if (!object)
        return true;
    if (strcmp(c->object, object) != 0)
        return false;
    return !verb || !c->verb || strcmp(c->verb, verb) == 0;
}

bool command_help(const char *object, const char *verb)
{
    int shown = 0;
    if (!object)
        printf("muster " MUSTER_VERSION
               ": the operator's command of the Muster provisioning server\n\n");
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        const struct command *c = &commands[i];
        if (!wanted(c, object, verb))
            continue;
        shown++;
        name_print(c);
        if (object) {
            options_print(c->query | c->body | c->own);
            printf("      e.g. %s\n", c->example);
        }
    }
    if (shown == 0)
        return false;
    printf("\nEvery command:\n");
    options_print(GLOBAL);
    printf("\nExit codes: 0 done, 1 refused by the server or lines rejected, 2 wrong usage, 3 "
           "server out of reach.\n");
    if (!object)
        printf("muster COMMAND --help tells the options of a command; docs/cli.md has it all.\n");
    return true;
}

/* Whether every option given is one of the command's, and those it needs are there. */
static bool options_fit(const struct cli *cli)
{
    const struct command *c = cli->command;
    option_set strange = cli->options.given & ~command_options(c);
    option_set missing = c->must & ~cli->options.given;
    for (int i = 0; i < OPT_COUNT && (strange | missing); i++) {
        if ((strange | missing) & OPTION_BIT << i) {
            fprintf(stderr, "muster: --%s %s; see muster %s %s --help\n",
                    option_row((enum option_id)i)->name,
                    missing & OPTION_BIT << i ? "must be given"
                                              : "is not an option of this command",
                    c->object, c->verb ? c->verb : "");
            return false;
        }
    }
    return true;
}

int command_run(struct cli *cli)
{
    const struct command *c = cli->command;
    if (!options_fit(cli))
        return EXIT_USAGE;
    return c->run ? c->run(cli) : command_call(cli, NULL);
}
