"""Prints docs/errors.md from the registry of faults:  tests/house/errors.py > docs/errors.md"""
import pathlib
import re

root = pathlib.Path(__file__).resolve().parents[2]
table = (root / "server/model/fault_table.h").read_text()
rows = re.findall(r'FAULT\(\w+,\s*"([^"]+)",\s*(\d+),\s*(\d),\s*(\d),\s*(\w+),\s*"([^"]+)",\s*"([^"]+)"\)', table)
print("""# The registry of refusals

Every refusal of Muster has a stable code. Over HTTP and EST it comes as RFC 9457 problem+json:

```json
{"type":"urn:muster:error:cert.expired","title":"...","status":403,"code":"cert.expired","detail":"...","request_id":"..."}
```

`request_id` is also in the header `Muster-Request-Id`, in the server's log record and in the trail:
`muster explain REQUEST-ID` tells the rest. Codes never change their meaning; new ones may be added.

* **HTTP**: the status of the HTTP and EST form. 429 and 503 carry an integer `Retry-After`, spread by the server.
* **SCEP**: a signed CertRep, FAILURE with `code: title: detail` as failInfoText and a failInfo: badAlg for `scep.algorithm` and
  `csr.key_not_allowed`; badMessageCheck for `scep.message_check`, `scep.signer_mismatch` and `csr.signature_invalid`; badTime for
  `cert.expired` and `cert.not_yet_valid`; badCertId for `scep.unknown_transaction` and `scep.unknown_certificate`; badRequest for the rest.
  202 is PENDING; 429, 503, and what is no message at all keep HTTP's form.
* **DPS**: `{errorCode, trackingId, message, info: {code, serverTimeUtc}, timestampUtc}`, errorCode being the status times 1000 and a
  number of DPS's; 403 is 401. 202, 429 and 503 are an operation under way (202), which is to be polled.
* **MQTT** (fleet provisioning): `{statusCode, errorCode, errorMessage}` on the `rejected` topic (docs/protocols/fleet.md).
* **Retry**: whether the same request may succeed later without anybody's help.
* **Counts**: whether it counts against the device, when the credential proves that very device. Failures
  of free tokens count against the token, unauthenticated ones against nobody.
* **Told**: `full`: the device is told this code and its detail. `hidden`: it is told `enrol.refused`, as for every
  problem of serial or token, and only the operator sees this code. `proven`: told only to a credential that proves
  that very device.

This page is printed by `tests/house/errors.py` from the table that the server is built with, and a test holds the two
together.

| code | HTTP | retry | counts | told | what it means | what the operator does |
|---|---|---|---|---|---|---|""")
for code, http, retry, counts, seen, title, remedy in rows:
    print(f"| `{code}` | {http} | {'yes' if retry == '1' else 'no'} | {'yes' if counts == '1' else 'no'} | {seen.lower()} | {title} | {remedy} |")
