"""The authorization matrix: what every route answers to every kind of credential.

The tables are the specification, written by hand; test_matrix.py plays them. A row is a
credential, a column a group of routes, a cell the code of the refusal or ok. Under DEVICE_ROUTES
and ADMIN_ROUTES each route of the server names its group: one that is missing fails the test."""

# (method, pattern of the route table): (column, path that is asked)
EST = "/.well-known/est"
DEVICE_ROUTES = {
    ("GET", "/healthz"): ("public", "/healthz"),
    ("GET", "/readyz"): ("public", "/readyz"),
    ("GET", EST + "/cacerts"): ("public", EST + "/cacerts"),
    ("GET", EST + "/{}/cacerts"): ("public", EST + "/matrix/cacerts"),
    ("GET", EST + "/csrattrs"): ("public", EST + "/csrattrs"),
    ("GET", EST + "/{}/csrattrs"): ("public", EST + "/matrix/csrattrs"),
    ("POST", EST + "/simpleenroll"): ("enrol", EST + "/simpleenroll"),
    ("POST", EST + "/{}/simpleenroll"): ("label", EST + "/matrix/simpleenroll"),
    ("POST", EST + "/simplereenroll"): ("renew", EST + "/simplereenroll"),
    ("POST", EST + "/{}/simplereenroll"): ("renew", EST + "/matrix/simplereenroll"),
    ("POST", EST + "/serverkeygen"): ("keygen", EST + "/serverkeygen"),
    ("POST", EST + "/{}/serverkeygen"): ("keylabel", EST + "/matrix/serverkeygen"),
    ("GET", EST + "/renewal-info/{}"): ("info", EST + "/renewal-info/{name}"),
    ("GET", EST + "/{}/renewal-info/{}"): ("info", EST + "/matrix/renewal-info/{name}"),
    ("POST", EST + "/fullcmc"): ("cmc", EST + "/fullcmc"),
    ("POST", EST + "/{}/fullcmc"): ("cmc", EST + "/matrix/fullcmc"),
    ("POST", "/v1/enroll"): ("json", "/v1/enroll"),
    ("GET", "/v1/device/config"): ("config", "/v1/device/config"),
    ("POST", "/v1/certificates/create"): ("create", "/v1/certificates/create"),
    ("POST", "/v1/certificates/create-from-csr"): ("create", "/v1/certificates/create-from-csr"),
    ("POST", "/v1/provisioning-templates/{}/provision"): ("register", "/v1/provisioning-templates/matrix-claim/provision"),
    ("POST", "/v1/factory/certificates"): ("station", "/v1/factory/certificates"),
    ("POST", "/v1/factory/journal"): ("station", "/v1/factory/journal"),
}

SCEP_PATHS = ("/scep", "/scep/pkiclient.exe", "/scep/{}", "/scep/{}/pkiclient.exe", "/cgi-bin/pkiclient.exe", "/certsrv/mscep/mscep.dll", "/certsrv/mscep/mscep.dll/pkiclient.exe")
# {dps} is a registration id and {operation} one of its operations: of the enrollment whose key is shown, else of nobody's
DPS = "/0ne00000001/registrations/{dps}"
DPS_QUERY = "?api-version=2021-06-01"
DEVICE_ROUTES |= {
    ("PUT", "/{}/registrations/{}/register"): ("dps", DPS + "/register" + DPS_QUERY),
    ("GET", "/{}/registrations/{}/operations/{}"): ("dps", DPS + "/operations/{operation}" + DPS_QUERY),
    ("POST", "/{}/registrations/{}"): ("dps", DPS + DPS_QUERY),
}
DEVICE_ROUTES |= {("POST", f"/v1/tpm/{name}"): ("tpm", f"/v1/tpm/{name}") for name in ("challenge", "enroll")}  # the credential is in the body: a TPM that nobody enrolled asks in the name of a device that has a symmetric key
# a message without a credential, whatever the connection has: only the message counts there
DEVICE_ROUTES |= {(method, path): ("public" if method == "GET" else "scep", path.replace("{}", "open") + "?operation=" + ("GetCACaps" if method == "GET" else "PKIOperation"))
                  for path in SCEP_PATHS for method in ("GET", "POST")}

# of the listener for relying parties, which speaks HTTP without TLS: {slug} of a CRL, {ca} of an issuer's certificate, {asked} an
# OCSP request. No credential is asked for and none changes the answer, but Client-Cert, which only a proxy may send: test_revocation.py
REVOCATION_ROUTES = {
    ("GET", "/crl/{}.crl"): "/crl/{slug}.crl",
    ("GET", "/crl/{}.delta.crl"): "/crl/{slug}.delta.crl",
    ("GET", "/crl/{}/{}.crl"): "/crl/{slug}/2-1.crl",
    ("GET", "/crl/{}/{}.delta.crl"): "/crl/{slug}/2-1.delta.crl",
    ("GET", "/ca/{}.crt"): "/ca/{ca}.crt",
    ("GET", "/ocsp/{*}"): "/ocsp/{asked}",
    ("POST", "/ocsp"): "/ocsp",
}


def table(text):
    """{row: {column: cell}} of lines of words; the first line names the columns."""
    head, *lines = [line.split("|") for line in text.strip().splitlines()]
    columns = [c.strip() for c in head[1:]]
    rows = {}
    for line in lines:
        cells = [c.strip() for c in line[1:]]
        assert len(cells) == len(columns), line
        assert line[0].strip() not in rows, line
        rows[line[0].strip()] = dict(zip(columns, cells))
    return rows

TEMPLATE = {"Credentials": ["token", "factory"], "Allowlist": "required", "Reprovision": "replace", "Grace": "1h"}

DEVICE = table("""
credential               | public               | info                 | enrol                | label                | renew                | keygen               | keylabel             | json                 | config               | cmc                      | create               | register | station
none                     | ok                   | ok                   | auth.required        | auth.required        | auth.required        | auth.required        | auth.required        | auth.required        | auth.required        | request.not_implemented  | auth.required        | auth.required | auth.required
basic                    | ok                   | ok                   | ok                   | ok                   | auth.required        | ok                   | ok                   | ok                   | auth.required        | request.not_implemented  | auth.required        | auth.required | auth.required
bearer                   | ok                   | ok                   | ok                   | ok                   | auth.required        | ok                   | ok                   | ok                   | auth.required        | request.not_implemented  | auth.required        | auth.required | auth.required
token expired            | ok                   | ok                   | enrol.refused        | enrol.refused        | auth.required        | enrol.refused        | enrol.refused        | enrol.refused        | auth.required        | request.not_implemented  | auth.required        | auth.required | auth.required
token used up            | ok                   | ok                   | enrol.refused        | enrol.refused        | auth.required        | enrol.refused        | enrol.refused        | enrol.refused        | auth.required        | request.not_implemented  | auth.required        | auth.required | auth.required
token revoked            | ok                   | ok                   | enrol.refused        | enrol.refused        | auth.required        | enrol.refused        | enrol.refused        | enrol.refused        | auth.required        | request.not_implemented  | auth.required        | auth.required | auth.required
token foreign serial     | ok                   | ok                   | enrol.refused        | enrol.refused        | auth.required        | enrol.refused        | enrol.refused        | enrol.refused        | auth.required        | request.not_implemented  | auth.required        | auth.required | auth.required
token other template     | ok                   | ok                   | enrol.refused        | enrol.refused        | auth.required        | enrol.refused        | enrol.refused        | enrol.refused        | auth.required        | request.not_implemented  | auth.required        | auth.required | auth.required
token unknown            | ok                   | ok                   | enrol.refused        | enrol.refused        | auth.required        | enrol.refused        | enrol.refused        | enrol.refused        | auth.required        | request.not_implemented  | auth.required        | auth.required | auth.required
admin token              | ok                   | ok                   | enrol.refused        | enrol.refused        | auth.required        | enrol.refused        | enrol.refused        | enrol.refused        | auth.required        | request.not_implemented  | auth.required        | auth.required | auth.required
authorization malformed  | ok                   | ok                   | auth.malformed       | auth.malformed       | auth.required        | auth.malformed       | auth.malformed       | auth.malformed       | auth.required        | request.not_implemented  | auth.required        | auth.required | auth.required
factory own              | ok                   | ok                   | ok                   | ok                   | cert.wrong_purpose   | ok                   | ok                   | ok                   | cert.wrong_purpose   | request.not_implemented  | claim.required       | claim.required | station.unknown
factory of another       | ok                   | ok                   | ok                   | ok                   | cert.wrong_purpose   | ok                   | ok                   | serial.mismatch      | cert.wrong_purpose   | request.not_implemented  | claim.required       | claim.required | station.unknown
factory unregistered CA  | ok                   | ok                   | ca.not_registered    | ca.not_registered    | ca.not_registered    | ca.not_registered    | ca.not_registered    | ca.not_registered    | ca.not_registered    | request.not_implemented  | ca.not_registered    | ca.not_registered | station.unknown
factory deactivated CA   | ok                   | ok                   | ca.not_registered    | ca.not_registered    | ca.not_registered    | ca.not_registered    | ca.not_registered    | ca.not_registered    | ca.not_registered    | request.not_implemented  | ca.not_registered    | ca.not_registered | station.unknown
factory expired          | ok                   | ok                   | cert.expired         | cert.expired         | cert.expired         | cert.expired         | cert.expired         | cert.expired         | cert.expired         | request.not_implemented  | claim.required       | claim.required | station.unknown
factory not yet valid    | ok                   | ok                   | cert.not_yet_valid   | cert.not_yet_valid   | cert.not_yet_valid   | cert.not_yet_valid   | cert.not_yet_valid   | cert.not_yet_valid   | cert.not_yet_valid   | request.not_implemented  | cert.not_yet_valid   | cert.not_yet_valid | station.unknown
factory revoked          | ok                   | ok                   | cert.revoked         | cert.revoked         | cert.wrong_purpose   | cert.revoked         | cert.revoked         | cert.revoked         | cert.wrong_purpose   | request.not_implemented  | claim.required       | claim.required | station.unknown
device current           | ok                   | ok                   | ok                   | ok                   | ok                   | ok                   | ok                   | ok                   | ok                   | request.not_implemented  | claim.required       | claim.required | station.unknown
device superseded        | ok                   | ok                   | cert.superseded      | cert.superseded      | cert.superseded      | cert.superseded      | cert.superseded      | cert.superseded      | cert.superseded      | request.not_implemented  | claim.required       | claim.required | station.unknown
device revoked           | ok                   | ok                   | cert.revoked         | cert.revoked         | cert.revoked         | cert.revoked         | cert.revoked         | cert.revoked         | cert.revoked         | request.not_implemented  | claim.required       | claim.required | station.unknown
device quarantined       | ok                   | ok                   | device.quarantined   | device.quarantined   | device.quarantined   | device.quarantined   | device.quarantined   | device.quarantined   | device.quarantined   | request.not_implemented  | claim.required       | claim.required | station.unknown
device retired           | ok                   | ok                   | cert.revoked         | cert.revoked         | cert.revoked         | cert.revoked         | cert.revoked         | cert.revoked         | cert.revoked         | request.not_implemented  | claim.required       | claim.required | station.unknown
device of another        | ok                   | ok                   | csr.subject_changed  | csr.subject_changed  | csr.subject_changed  | csr.subject_changed  | csr.subject_changed  | serial.mismatch      | ok                   | request.not_implemented  | claim.required       | claim.required | station.unknown
claim                    | ok                  | ok                  | ok                  | claim.wrong_template| cert.wrong_purpose  | ok                  | claim.wrong_template| ok                  | cert.unknown        | request.not_implemented| ok                  | ok | station.unknown
server certificate       | ok                   | ok                   | chain.invalid        | chain.invalid        | chain.invalid        | chain.invalid        | chain.invalid        | chain.invalid        | chain.invalid        | request.not_implemented  | chain.invalid        | chain.invalid | station.unknown
station                  | ok                   | ok                   | ca.not_registered    | ca.not_registered    | ca.not_registered    | ca.not_registered    | ca.not_registered    | ca.not_registered    | ca.not_registered    | request.not_implemented  | ca.not_registered    | ca.not_registered | ok
psk                      | ok                   | ok                   | ok                   | ok                   | auth.required        | ok                   | ok                   | ok                   | auth.required        | request.not_implemented  | auth.required        | auth.required | auth.required
psk wrong                | hung up | hung up | hung up | hung up | hung up | hung up | hung up | hung up | hung up | hung up | hung up | hung up | hung up
issuing CA's certificate | hung up              | hung up              | hung up              | hung up              | hung up              | hung up              | hung up              | hung up              | hung up              | hung up                  | hung up              | hung up | hung up
Client-Cert header       | proxy.header_refused | proxy.header_refused | proxy.header_refused | proxy.header_refused | proxy.header_refused | proxy.header_refused | proxy.header_refused | proxy.header_refused | proxy.header_refused | proxy.header_refused     | proxy.header_refused | proxy.header_refused | proxy.header_refused
""")

# What each credential is worth at the two doors that have credentials of their own: nothing but the reason
AT_DPS = {"psk": "auth.required", "psk wrong": "hung up", "none": "auth.required", "symmetric key": "ok", "derived key": "ok", "pinned certificate": "ok", "authorization malformed": "sas.malformed", "basic": "sas.malformed", "bearer": "sas.malformed", "admin token": "sas.malformed",
          "factory own": "enrol.refused", "factory of another": "enrol.refused", "factory unregistered CA": "ca.not_registered", "factory deactivated CA": "ca.not_registered",
          "factory expired": "cert.expired", "factory not yet valid": "cert.not_yet_valid", "factory revoked": "enrol.refused", "claim": "enrol.refused", "server certificate": "chain.invalid",
          "station": "ca.not_registered", "issuing CA's certificate": "hung up", "Client-Cert header": "proxy.header_refused"}
AT_DPS |= {kind: "sas.malformed" for kind in DEVICE if kind.startswith("token ")} | {kind: "enrol.refused" for kind in DEVICE if kind.startswith("device ")}
DEVICE |= {"symmetric key": dict(DEVICE["authorization malformed"]), "derived key": dict(DEVICE["authorization malformed"]),
           "pinned certificate": {**DEVICE["station"], "station": "station.unknown"}}
for _kind, _row in DEVICE.items():
    _row["dps"] = AT_DPS[_kind]
    _row["tpm"] = _row["create"] if _row["create"] in ("hung up", "proxy.header_refused") else "enrol.refused"
    _row["scep"] = _row["create"] if _row["create"] in ("hung up", "proxy.header_refused") else "auth.required"

# The same through a proxy that proved itself and forwards the certificate: the rows of DEVICE with a
# certificate hold, but for one whose key cannot sign a handshake, which here nobody asked to.
BY_PROXY = [kind for kind in DEVICE if kind.startswith(("factory", "device")) or kind in ("server certificate", "claim", "station", "pinned certificate")]
PROXIES = table("""
who speaks                        | health               | public                | cmc                     | others | station
issuing CA's certificate by proxy | ok                   | ok                    | request.not_implemented | chain.invalid | station.unknown
proxy without certificate         | ok                   | proxy.unauthenticated | proxy.unauthenticated   | proxy.unauthenticated | proxy.unauthenticated
proxy of another CA               | ok                   | proxy.unauthenticated | proxy.unauthenticated   | proxy.unauthenticated | proxy.unauthenticated
proxy of another name             | ok                   | proxy.unauthenticated | proxy.unauthenticated   | proxy.unauthenticated | proxy.unauthenticated
device as proxy                   | ok                   | proxy.unauthenticated | proxy.unauthenticated   | proxy.unauthenticated | proxy.unauthenticated
Client-Cert through passthrough   | proxy.header_refused | proxy.header_refused  | proxy.header_refused    | proxy.header_refused | proxy.header_refused
""")

for _who, _row in PROXIES.items():
    _row["tpm"] = "enrol.refused" if _who == "issuing CA's certificate by proxy" else _row["others"]
    _row["scep"] = "auth.required" if _who == "issuing CA's certificate by proxy" else _row["others"]

V1 = "/admin/v1"
CSV = "text/csv"
# ... and, where it has one, the body and its type; <name> stands for an object that test_matrix.py makes
ADMIN_ROUTES = {
    ("GET", "/metrics"): ("all products", "/metrics"),
    ("GET", V1 + "/doctor"): ("all products", V1 + "/doctor"),
    ("GET", V1 + "/unknown-cas"): ("all products", V1 + "/unknown-cas"),
    ("GET", V1 + "/whoami"): ("lists", V1 + "/whoami"),
    ("GET", V1 + "/status"): ("lists", V1 + "/status"),
    ("GET", V1 + "/products"): ("lists", V1 + "/products"),
    ("GET", V1 + "/templates"): ("lists", V1 + "/templates"),
    ("GET", V1 + "/tokens"): ("lists", V1 + "/tokens"),
    ("GET", V1 + "/cas"): ("lists", V1 + "/cas"),
    ("GET", V1 + "/cas/{}"): ("lists", V1 + "/cas/matrix-maker"),
    ("GET", V1 + "/claims"): ("lists", V1 + "/claims"),
    ("GET", V1 + "/claims:stock"): ("lists", V1 + "/claims:stock"),
    ("GET", V1 + "/devices"): ("lists", V1 + "/devices"),
    ("GET", V1 + "/certs"): ("lists", V1 + "/certs"),
    ("POST", V1 + "/templates:validate"): ("validate", V1 + "/templates:validate", {}),
    ("GET", V1 + "/templates/{}"): ("shows", V1 + "/templates/matrix"),
    ("POST", V1 + "/templates/{}/render"): ("render", V1 + "/templates/matrix/render", {"serial": "x"}),
    ("GET", V1 + "/products/{}/allowlist"): ("shows", V1 + "/products/matrix/allowlist?limit=5"),
    ("GET", V1 + "/tokens/{}"): ("shows", V1 + "/tokens/<token>"),
    ("GET", V1 + "/claims/{}"): ("shows", V1 + "/claims/<claim>"),
    ("GET", V1 + "/devices/{}"): ("shows", V1 + "/devices/<serial>"),
    ("GET", V1 + "/certs/{}"): ("shows", V1 + "/certs/<fingerprint>"),
    ("GET", V1 + "/attempts/{}"): ("shows", V1 + "/attempts/<attempt>"),
    ("POST", V1 + "/products/{}/allowlist"): ("operates", V1 + "/products/matrix/allowlist", b"<new>", CSV),
    ("POST", V1 + "/products/{}/manifest"): ("operates", V1 + "/products/matrix/manifest", b"{}", "application/x-ndjson"),
    ("GET", V1 + "/manifest-signers"): ("lists", V1 + "/manifest-signers"),
    ("POST", V1 + "/manifest-signers"): ("administers all", V1 + "/manifest-signers", {"name": "<new>", "pem": "<pem>"}),
    ("DELETE", V1 + "/manifest-signers/{}"): ("administers all", V1 + "/manifest-signers/<signer>"),
    ("POST", V1 + "/products/{}/allowlist/{}/block"): ("operates", V1 + "/products/matrix/allowlist/<listed>/block"),
    ("POST", V1 + "/products/{}/allowlist/{}/unblock"): ("operates", V1 + "/products/matrix/allowlist/<listed>/unblock"),
    ("POST", V1 + "/tokens"): ("operates", V1 + "/tokens", {"template": "matrix"}),
    ("POST", V1 + "/tokens/{}/revoke"): ("operates", V1 + "/tokens/<token>/revoke"),
    ("POST", V1 + "/tokens/{}/regenerate"): ("operates", V1 + "/tokens/<token>/regenerate"),
    ("POST", V1 + "/claims"): ("operates", V1 + "/claims", {"name": "<new>", "template": "matrix-claim"}),
    ("POST", V1 + "/claims/{}/rotate"): ("operates", V1 + "/claims/<claim>/rotate", {"name": "<new>"}),
    ("POST", V1 + "/claims/{}/revoke"): ("operates", V1 + "/claims/<claim>/revoke", {"mode": "hard"}),
    ("POST", V1 + "/devices/{}/quarantine"): ("operates", V1 + "/devices/<serial>/quarantine", {"reason": "matrix"}),
    ("POST", V1 + "/devices/{}/release"): ("operates", V1 + "/devices/<held>/release"),
    ("POST", V1 + "/devices/{}/reset"): ("operates", V1 + "/devices/<serial>/reset"),
    ("POST", V1 + "/devices/{}/approve"): ("operates", V1 + "/devices/<waiting>/approve"),
    ("POST", V1 + "/devices/{}/reject"): ("operates", V1 + "/devices/<waiting>/reject", {"reason": "matrix"}),
    ("POST", V1 + "/devices/{}/seen"): ("operates", V1 + "/devices/<serial>/seen"),
    ("POST", V1 + "/certs/{}/revoke"): ("operates", V1 + "/certs/<fingerprint>/revoke", {"reason": "superseded"}),
    ("GET", V1 + "/certs:waiting"): ("lists", V1 + "/certs:waiting"),
    ("GET", V1 + "/certs:expiring"): ("lists", V1 + "/certs:expiring"),
    ("GET", V1 + "/certs:forecast"): ("lists", V1 + "/certs:forecast"),
    ("POST", V1 + "/certs"): ("operates", V1 + "/certs", {"pem": "<cert>", "template": "matrix"}),
    ("POST", V1 + "/certs:import"): ("operates", V1 + "/certs:import?template=matrix", b'{"CertificatePem": "<line>"}\n', "application/x-ndjson"),
    ("POST", V1 + "/certs/{}/activate"): ("operates", V1 + "/certs/<off>/activate"),
    ("POST", V1 + "/certs/{}/deactivate"): ("operates", V1 + "/certs/<fingerprint>/deactivate"),
    ("POST", V1 + "/broker/auth"): ("brokers", V1 + "/broker/auth", {"clientid": "x", "cert_common_name": "nobody"}),
    ("POST", V1 + "/broker/acl"): ("brokers", V1 + "/broker/acl", {"clientid": "x", "cert_common_name": "nobody", "action": "publish", "topic": "x"}),
    ("GET", V1 + "/factory-batches"): ("lists", V1 + "/factory-batches"),
    ("POST", V1 + "/factory-batches"): ("operates", V1 + "/factory-batches", {"name": "<new>", "template": "matrix"}),
    ("GET", V1 + "/factory-batches/{}"): ("shows", V1 + "/factory-batches/<batch>"),
    ("POST", V1 + "/factory-batches/{}/close"): ("operates", V1 + "/factory-batches/<batch>/close"),
    ("POST", V1 + "/factory-batches/{}/certificates"): ("operates", V1 + "/factory-batches/<batch>/certificates", b"<unit>", "application/x-ndjson"),
    ("GET", V1 + "/factory-batches/{}/reconcile"): ("shows", V1 + "/factory-batches/<batch>/reconcile"),
    ("GET", V1 + "/factory-stations"): ("lists", V1 + "/factory-stations"),
    ("POST", V1 + "/factory-stations"): ("administers", V1 + "/factory-stations", {"name": "<new>", "batch": "<batch>", "budget": 5, "certificate": "<pem>"}),
    ("POST", V1 + "/factory-stations/{}/revoke"): ("operates", V1 + "/factory-stations/<station>/revoke"),
    ("POST", V1 + "/factory-stations/{}/journal"): ("operates", V1 + "/factory-stations/<station>/journal", b"<journal>", "application/x-ndjson"),
    ("GET", V1 + "/enrollments"): ("lists", V1 + "/enrollments"),
    ("POST", V1 + "/enrollments"): ("operates", V1 + "/enrollments", {"registration_id": "<new>", "attestation": "symmetric-key", "template": "matrix"}),
    ("POST", V1 + "/enrollments:import"): ("imports", V1 + "/enrollments:import", {"enrollments": []}),
    ("GET", V1 + "/enrollments/{}"): ("shows", V1 + "/enrollments/<enrollment>"),
    ("POST", V1 + "/enrollments/{}/update"): ("operates", V1 + "/enrollments/<enrollment>/update", {"note": "matrix"}),
    ("POST", V1 + "/enrollments/{}/enable"): ("operates", V1 + "/enrollments/<enrollment>/enable"),
    ("POST", V1 + "/enrollments/{}/disable"): ("operates", V1 + "/enrollments/<enrollment>/disable"),
    ("POST", V1 + "/enrollments/{}/rotate"): ("operates", V1 + "/enrollments/<enrollment>/rotate", {"key": "primary"}),
    ("DELETE", V1 + "/enrollments/{}"): ("operates", V1 + "/enrollments/<enrollment>"),
    ("GET", V1 + "/enrollment-groups"): ("lists", V1 + "/enrollment-groups"),
    ("POST", V1 + "/enrollment-groups"): ("operates", V1 + "/enrollment-groups", {"name": "<new>", "attestation": "symmetric-key", "template": "matrix"}),
    ("POST", V1 + "/enrollment-groups:import"): ("imports", V1 + "/enrollment-groups:import", {"enrollments": []}),
    ("GET", V1 + "/enrollment-groups/{}"): ("shows", V1 + "/enrollment-groups/<engroup>"),
    ("POST", V1 + "/enrollment-groups/{}/update"): ("operates", V1 + "/enrollment-groups/<engroup>/update", {"note": "matrix"}),
    ("POST", V1 + "/enrollment-groups/{}/enable"): ("operates", V1 + "/enrollment-groups/<engroup>/enable"),
    ("POST", V1 + "/enrollment-groups/{}/disable"): ("operates", V1 + "/enrollment-groups/<engroup>/disable"),
    ("POST", V1 + "/enrollment-groups/{}/rotate"): ("operates", V1 + "/enrollment-groups/<engroup>/rotate", {"key": "primary"}),
    ("DELETE", V1 + "/enrollment-groups/{}"): ("operates", V1 + "/enrollment-groups/<engroup>"),
    ("GET", V1 + "/endpoints"): ("lists", V1 + "/endpoints"),
    ("PUT", V1 + "/endpoints/{}"): ("administers all", V1 + "/endpoints/<new>.example.com", {"weight": 2}),
    ("DELETE", V1 + "/endpoints/{}"): ("administers all", V1 + "/endpoints/<endpoint>"),
    ("GET", V1 + "/devices:stuck"): ("lists", V1 + "/devices:stuck"),
    ("GET", V1 + "/state-limits"): ("lists", V1 + "/state-limits"),
    ("POST", V1 + "/state-limits"): ("administers all", V1 + "/state-limits", {"state": "VERIFY", "seconds": 86400}),
    ("GET", V1 + "/crls"): ("all products", V1 + "/crls"),
    ("POST", V1 + "/crls:sign"): ("operates on all", V1 + "/crls:sign"),
    ("POST", V1 + "/registry:trust-own"): ("administers all", V1 + "/registry:trust-own", {"off": True}),
    ("GET", V1 + "/webhooks"): ("all products", V1 + "/webhooks"),
    ("GET", V1 + "/events"): ("all products", V1 + "/events?limit=5"),
    ("GET", V1 + "/dead-events"): ("all products", V1 + "/dead-events"),
    ("POST", V1 + "/dead-events:retry"): ("operates on all", V1 + "/dead-events:retry"),
    ("POST", V1 + "/dead-events:drop"): ("operates on all", V1 + "/dead-events:drop"),
    ("POST", V1 + "/webhooks"): ("administers all", V1 + "/webhooks", {"name": "<new>", "url": "http://127.0.0.1:9/x"}),
    ("POST", V1 + "/webhooks/{}/pause"): ("administers all", V1 + "/webhooks/<hook>/pause"),
    ("POST", V1 + "/webhooks/{}/resume"): ("administers all", V1 + "/webhooks/<hook>/resume"),
    ("DELETE", V1 + "/webhooks/{}"): ("administers all", V1 + "/webhooks/<hook>"),
    ("DELETE", V1 + "/unknown-cas/{}"): ("operates on all", V1 + "/unknown-cas/<issuer>"),
    ("POST", V1 + "/devices/{}/retire"): ("administers", V1 + "/devices/<serial>/retire"),
    ("PUT", V1 + "/templates/{}"): ("puts", V1 + "/templates/matrix-put?product=matrix", {"DeviceConfiguration": {"new": "<new>"}}),
    ("POST", V1 + "/templates/{}/enable"): ("administers", V1 + "/templates/matrix-put/enable"),
    ("POST", V1 + "/templates/{}/disable"): ("administers", V1 + "/templates/matrix-put/disable"),
    ("GET", V1 + "/audit:export"): ("admin lists", V1 + "/audit:export?limit=5"),
    ("GET", V1 + "/audit:verify"): ("admin lists", V1 + "/audit:verify"),
    ("GET", V1 + "/audit"): ("admin lists", V1 + "/audit?limit=5"),
    ("GET", V1 + "/admin-tokens"): ("admin lists", V1 + "/admin-tokens"),
    ("POST", V1 + "/products"): ("administers all", V1 + "/products", {"name": "<new>"}),
    ("POST", V1 + "/cas"): ("administers all", V1 + "/cas", {"name": "<new>", "pem": "<pem>", "template": "matrix", "without_proof": True}),
    ("POST", V1 + "/cas/{}/update"): ("administers all", V1 + "/cas/<ca>/update", {"auto_registration": True}),
    ("POST", V1 + "/cas/{}/crl"): ("administers all", V1 + "/cas/<ca>/crl", b"<crl>", "application/pkix-crl"),
    ("POST", V1 + "/cas:code"): ("administers all", V1 + "/cas:code", {"renew": True}),
    ("POST", V1 + "/cas:import"): ("administers all", V1 + "/cas:import", {"format": 1, "cas": [{"name": "<new>", "pem": "<pem>"}]}),
    ("GET", V1 + "/cas:export"): ("administers all", V1 + "/cas:export"),
    ("POST", V1 + "/cas/{}/activate"): ("administers all", V1 + "/cas/<ca>/activate"),
    ("POST", V1 + "/cas/{}/deactivate"): ("administers all", V1 + "/cas/<ca>/deactivate"),
    ("POST", V1 + "/admin-tokens"): ("administers all", V1 + "/admin-tokens", {"name": "<new>", "role": "viewer", "product": "matrix"}),
    ("POST", V1 + "/admin-tokens/{}/revoke"): ("administers all", V1 + "/admin-tokens/<admin>/revoke"),
}
CHANGES_NOTHING = {"validate", "render", "brokers", "imports"}

ADMIN = table("""
credential              | lists                | validate             | shows                | render               | all products         | operates             | operates on all      | administers          | puts                 | admin lists          | administers all      | brokers
none                    | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied
authorization malformed | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied
token unknown           | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied
device token            | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied
admin revoked           | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied         | admin.denied
Client-Cert header      | proxy.header_refused | proxy.header_refused | proxy.header_refused | proxy.header_refused | proxy.header_refused | proxy.header_refused | proxy.header_refused | proxy.header_refused | proxy.header_refused | proxy.header_refused | proxy.header_refused | proxy.header_refused
viewer                  | ok                   | ok                   | ok                   | ok                   | ok                   | admin.forbidden      | admin.forbidden      | admin.forbidden      | admin.forbidden      | admin.forbidden      | admin.forbidden      | admin.forbidden
viewer own product      | ok                   | ok                   | ok                   | ok                   | admin.forbidden      | admin.forbidden      | admin.forbidden      | admin.forbidden      | admin.forbidden      | admin.forbidden      | admin.forbidden      | admin.forbidden
viewer other product    | ok                   | ok                   | object.not_found     | object.not_found     | admin.forbidden      | admin.forbidden      | admin.forbidden      | admin.forbidden      | admin.forbidden      | admin.forbidden      | admin.forbidden      | admin.forbidden
operator                | ok                   | ok                   | ok                   | ok                   | ok                   | ok                   | ok                   | admin.forbidden      | admin.forbidden      | admin.forbidden      | admin.forbidden      | admin.forbidden
operator own product    | ok                   | ok                   | ok                   | ok                   | admin.forbidden      | ok                   | admin.forbidden      | admin.forbidden      | admin.forbidden      | admin.forbidden      | admin.forbidden      | admin.forbidden
operator other product  | ok                   | ok                   | object.not_found     | object.not_found     | admin.forbidden      | object.not_found     | admin.forbidden      | admin.forbidden      | admin.forbidden      | admin.forbidden      | admin.forbidden      | admin.forbidden
admin                   | ok                   | ok                   | ok                   | ok                   | ok                   | ok                   | ok                   | ok                   | ok                   | ok                   | ok                   | ok
admin own product       | ok                   | ok                   | ok                   | ok                   | admin.forbidden      | ok                   | admin.forbidden      | ok                   | ok                   | admin.forbidden      | admin.forbidden      | ok
admin other product     | ok                   | ok                   | object.not_found     | object.not_found     | admin.forbidden      | object.not_found     | admin.forbidden      | object.not_found     | admin.forbidden      | admin.forbidden      | admin.forbidden      | ok
broker                  | admin.forbidden      | admin.forbidden      | admin.forbidden      | admin.forbidden      | admin.forbidden      | admin.forbidden      | admin.forbidden      | admin.forbidden      | admin.forbidden      | admin.forbidden      | admin.forbidden      | ok
""")
for _row in ADMIN.values():
    _row["imports"] = "ok" if _row["operates"] == "object.not_found" else _row["operates"]  # what is refused is an item of the answer
