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
