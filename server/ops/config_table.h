/*
 * The configuration, one row a key; `musterd --help` and docs/operations.md are made from it.
 *
 * TEXT(section, key, default, help)      default NULL: must be given
 * NUMBER(section, key, default, min, max, help)
 *
 * CONFIG_LIVE(KEY) names the keys that SIGHUP changes; any other needs a restart.
 */
#pragma once

/* clang-format off */
#define CONFIG_TABLE(TEXT, NUMBER) \
TEXT(listen, device_address, "0.0.0.0", "address of the device listener") \
NUMBER(listen, device_port, 8443, 0, 65535, "its port; 0 takes a free one") \
TEXT(listen, admin_address, "127.0.0.1", "address of the admin listener") \
NUMBER(listen, admin_port, 8444, 0, 65535, "its port; 0 takes a free one") \
TEXT(listen, ports_file, "", "where the ports in use are written; empty: nowhere") \
NUMBER(listen, max_connections, 2000, 16, 100000, "connections of the device listener, a thread each") \
NUMBER(listen, max_connections_per_address, 0, 0, 100000, "of them from one address; 0: no limit") \
NUMBER(listen, idle_timeout_s, 20, 1, 3600, "a connection that is silent so long is closed; bounds the handshake") \
NUMBER(listen, request_timeout_s, 60, 1, 3600, "from when a request may begin to its last byte; a slower sender is cut off") \
TEXT(listen, proxy_protocol_from, "", "balancers, addresses or ranges separated by commas, whose connections to the device listener begin with a PROXY protocol v2 header; empty: none") \
NUMBER(listen, max_inside, 32, 1, 1000, "requests worked on at once") \
NUMBER(listen, max_waiting, 1500, 1, 100000, "requests that wait for it") \
NUMBER(listen, queue_timeout_ms, 5000, 10, 60000, "how long one waits before it is told 503") \
NUMBER(listen, drain_timeout_s, 25, 1, 3600, "how long requests under way may take after SIGTERM") \
TEXT(proxy, address, "", "address of the listener for proxies that end TLS, or unix:/path; empty: none") \
NUMBER(proxy, port, 8445, 0, 65535, "its port; 0 takes a free one") \
TEXT(proxy, client_ca, "", "PEM file: CAs of the proxies' certificates; must be given, but for unix:") \
TEXT(proxy, names, "", "names, separated by commas, of which a proxy's certificate must have one as dNSName or CN; must be given, but for unix:") \
TEXT(tls, certificate, NULL, "PEM file: the server's certificate chain, leaf first; or credential:NAME") \
TEXT(tls, key, NULL, "PEM file: its key, readable by its owner only; or credential:NAME") \
TEXT(database, host, "", "PostgreSQL host or socket folder; empty: libpq's default") \
TEXT(database, port, "", "port; empty: libpq's default") \
TEXT(database, name, "muster", "database") \
TEXT(database, user, "", "user; empty: libpq's default") \
TEXT(database, password_file, "", "file with the password, readable by its owner only; empty: none") \
TEXT(database, sslmode, "", "disable, prefer, require, verify-ca, verify-full; empty: libpq's default") \
NUMBER(database, pool_size, 8, 2, 64, "connections of this replica") \
NUMBER(database, connect_timeout_s, 5, 1, 300, "of one attempt to connect") \
NUMBER(database, statement_timeout_ms, 10000, 100, 600000, "of one statement") \
NUMBER(database, acquire_timeout_ms, 5000, 10, 60000, "how long a request waits for a connection") \
TEXT(ca, directory, NULL, "folder of the issuing keys; its files are readable by their owner only") \
TEXT(ca, passphrase_file, "", "file with the passphrase of encrypted keys in it; empty: they are not encrypted") \
TEXT(ca, pkcs11_module, "", "library of a PKCS#11 token for issuing keys that are pkcs11: URIs; empty: none") \
TEXT(ca, pkcs11_pin_file, "", "file with the token's PIN") \
TEXT(enrol, default_template, "", "template of requests without EST label; empty: none") \
NUMBER(enrol, refused_tokens_per_source_s, 20, 1, 100000, "refused bootstrap tokens, and keys of no enrollment, from one source; past it such credentials from there are told 429, by DPS to wait") \
NUMBER(enrol, refused_tokens_burst, 200, 1, 1000000, "and at once") \
NUMBER(enrol, max_clock_skew_s, 60, 0, 86400, "how far the clock may be from PostgreSQL's; past it devices are told 503; 0: however far") \
NUMBER(trail, records_per_source_s, 5, 1, 10000, "unauthenticated refusals recorded a second from one source") \
NUMBER(trail, records_per_source_burst, 20, 1, 100000, "and at once") \
NUMBER(retention, history_days, 730, 31, 36500, "how long the trail is kept") \
NUMBER(retention, outbox_days, 62, 31, 36500, "how long announced events are kept") \
NUMBER(retention, audit_days, 3650, 31, 36500, "how long the audit is kept") \
TEXT(admin, client_ca, "", "PEM file: CAs of operators' certificates, which the admin listener then wants besides the token; empty: none") \
TEXT(admin, metrics_token_file, "", "file with a token that opens GET /metrics alone, registry or not; empty: none") \
NUMBER(admin, login_failures_per_minute, 10, 1, 100000, "from one source; past it a wrong token is told 429 instead of 401") \
NUMBER(limits, enrolments_per_second, 0, 0, 100000, "enrolments and renewals a second of all replicas together; 0: no limit") \
NUMBER(limits, burst, 0, 0, 1000000, "and at once; 0: as many as a second") \
NUMBER(limits, per_source_per_second, 0, 0, 100000, "enrolments and renewals a second from one address, in each replica; 0: no limit") \
NUMBER(limits, per_source_burst, 0, 0, 1000000, "and at once; 0: as many as a second") \
NUMBER(limits, renewal_share, 20, 0, 90, "percent of a global or template rate that first enrolments cannot use up") \
NUMBER(limits, queue_wait_ms, 5500, 100, 30000, "how long a request waits for its turn before it is told 429") \
NUMBER(limits, queue_max_waiting, 1000, 0, 100000, "requests of a replica that wait so") \
TEXT(hook, secret_file, "", "file with the secret that signs the calls of pre-provisioning hooks, readable by its owner only; empty: none, and no hook is asked") \
TEXT(hook, ca, "", "PEM file: CAs of https hooks; empty: the system's") \
NUMBER(hook, workers, 8, 1, 64, "hooks asked at once") \
NUMBER(hook, max_waiting, 24, 0, 1000, "requests that wait for a hook to be asked; past it they are told 503") \
TEXT(mqtt, host, "", "name or address of the broker, as its certificate has it; empty: no MQTT") \
NUMBER(mqtt, port, 8883, 1, 65535, "its port, for TLS") \
TEXT(mqtt, ca, "", "PEM file: CAs of the broker's certificate; must be given with a host") \
TEXT(mqtt, certificate, "", "PEM file: musterd's own certificate chain for the broker, leaf first, or credential:NAME; must be given with a host") \
TEXT(mqtt, key, "", "PEM file: its key, readable by its owner only, or credential:NAME; must be given with a host") \
NUMBER(mqtt, workers, 32, 1, 256, "requests by MQTT worked on at once, at most half of them of one claim") \
NUMBER(mqtt, max_queued, 1000, 1, 100000, "requests by MQTT that wait for a worker; past it they are told 503") \
NUMBER(mqtt, keep_alive_s, 20, 5, 3600, "how long the connection to the broker may be silent") \
TEXT(revocation, address, "", "address of the listener for CRLs and OCSP, plain HTTP; empty: none") \
NUMBER(revocation, port, 8080, 0, 65535, "its port; 0 takes a free one") \
TEXT(revocation, url, "", "what relying parties reach that listener by, http://host[:port][/path]; certificates then say where their CRL, OCSP and issuer are; empty: they do not") \
NUMBER(revocation, crl_validity_s, 172800, 600, 31536000, "thisUpdate to nextUpdate of a CRL; a new one is signed at half of it") \
NUMBER(revocation, crl_every_s, 3600, 60, 86400, "how often a full CRL is signed when something was revoked; delta CRLs within a minute") \
NUMBER(revocation, crl_shards, 1, 1, 256, "in how many CRLs an issuer's certificates are divided, a power of two; new certificates name their own") \
NUMBER(revocation, ocsp_validity_s, 3600, 60, 604800, "thisUpdate to nextUpdate of an OCSP answer without nonce") \
NUMBER(revocation, ocsp_nonces_per_source_s, 20, 1, 100000, "OCSP answers with a nonce, or of several certificates, signed a second for one source; past it a nonce is left out") \
TEXT(scep, certificate, "", "PEM file: certificate of the registration authority, which musterd add-ra makes; empty: no SCEP") \
TEXT(scep, key, "", "its RSA key: name of a file in [ca] directory, or a pkcs11: URI; must be given with a certificate") \
TEXT(scep, address, "", "address of a listener for SCEP over plain HTTP; empty: only over HTTPS, at the device listener") \
NUMBER(scep, port, 8081, 0, 65535, "its port; 0 takes a free one") \
NUMBER(scep, allow_3des, 0, 0, 1, "1: take 3DES from clients that have nothing better") \
NUMBER(scep, allow_sha1, 0, 0, 1, "1: take signatures over SHA-1 likewise") \
TEXT(secrets, key, "", "RSA key that the registry's secrets (symmetric keys of enrollments) are sealed under: name of a file in [ca] directory, or a pkcs11: URI; empty: none are kept") \
TEXT(dps, id_scope, "", "ID scope of the device API of DPS, such as 0ne00000001; empty: nobody registers by it") \
TEXT(journal, directory, "", "folder, on a volume of its own, of this replica's journal of everything issued and revoked; empty: none is kept") \
TEXT(journal, key_file, "", "PEM file: P-256 key that seals the journal, readable by its owner only; must be given with a directory") \
NUMBER(journal, max_bytes, 67108864, 65536, 4294967296, "of a file of the journal before it is sealed and the next begun") \
NUMBER(journal, max_age_s, 86400, 60, 31536000, "of a file in which anything stands, likewise") \
TEXT(log, level, "info", "debug, info, warn or error")

#define CONFIG_LIVE(KEY) \
KEY(listen, max_inside) KEY(listen, max_waiting) KEY(listen, queue_timeout_ms) KEY(listen, drain_timeout_s) \
KEY(enrol, default_template) KEY(enrol, refused_tokens_per_source_s) KEY(enrol, refused_tokens_burst) KEY(enrol, max_clock_skew_s) \
KEY(trail, records_per_source_s) KEY(trail, records_per_source_burst) \
KEY(retention, history_days) KEY(retention, outbox_days) KEY(retention, audit_days) \
KEY(admin, login_failures_per_minute) KEY(log, level) \
KEY(limits, enrolments_per_second) KEY(limits, burst) KEY(limits, per_source_per_second) KEY(limits, per_source_burst) \
KEY(limits, renewal_share) KEY(limits, queue_wait_ms) KEY(limits, queue_max_waiting)
/* clang-format on */
