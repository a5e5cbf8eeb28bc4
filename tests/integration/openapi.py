"""Holds every answer of a run against docs/openapi.yaml, and remembers what of it was seen.

Stack.admin and client.request hand their exchanges to seen(); what does not fit fails the test
that asked, and once more test_openapi.py, where a thread swallowed it."""
import json
import pathlib
import pickle
import re
import urllib.parse

import yaml

from schema import Mismatch, Schemas

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLAIN_HEADERS = {"content-type", "content-length", "connection", "date", "keep-alive"}
ADMIN = re.compile(r"/(admin/|metrics$)")
BOTH = {"/healthz", "/readyz"}


def fault_table():
    """{code: (status, seen)} of server/model/fault_table.h."""
    text = (ROOT / "server/model/fault_table.h").read_text()
    rows = re.findall(r'FAULT\(\w+,\s*"([^"]+)",\s*(\d+),\s*\d,\s*\d,\s*(\w+),', text)
    return {code: (int(status), seen) for code, status, seen in rows}


def flat(codes):
    """x-codes: lists of lists, as YAML anchors make them."""
    return {c for item in codes for c in (flat(item) if isinstance(item, list) else [item])}


class Operation:
    def __init__(self, document, path, method, shared):
        self.name = f"{method.upper()} {path}"
        self.path, self.method = path, method.upper()
        self.pattern = re.compile("".join("([^/]+)" if p.startswith("{") else re.escape(p) for p in re.split(r"(\{\w+\})", path)))
        node = document["paths"][path][method]
        self.responses = node["responses"]
        self.body = node.get("requestBody")
        self.parameters = [*shared, *node.get("parameters", [])]
        self.codes = flat(node.get("x-codes", []))
        self.dps = node.get("x-problem") == "dps"  # refuses in that protocol's shape

    def listener(self):
        return "both" if self.path in BOTH else "admin" if ADMIN.match(self.path) else "device"


class Spec:
    def __init__(self):
        self.document = yaml.safe_load((ROOT / "docs/openapi.yaml").read_text())
        self.schemas = Schemas(self.document)
        self.faults = fault_table()
        self.anywhere = flat(self.document["x-codes-without-route"])
        self.operations = [Operation(self.document, path, method, item.get("parameters", [])) for path, item in self.document["paths"].items()
                           for method in item if method in ("get", "post", "put", "delete")]
        self.succeeded, self.codes_met, self.parameters_met, self.violations = set(), set(), set(), []

    def follow(self, node):
        return self.schemas.follow(node, "")[0]

    def find(self, listener, method, path):
        matches = [o for o in self.operations if o.method == method and o.pattern.fullmatch(path) and listener in (None, o.listener())
                   or o.method == method and o.path == path and o.listener() == "both"]
        return min(matches, key=lambda o: o.path.count("{"), default=None)

    def seen(self, listener, method, target, sent_type, sent, status, headers, body):
        """One exchange. listener is device or admin; None where the caller does not know."""
        path, _, query = target.partition("?")
        headers = {k.lower(): v for k, v in headers.items()}
        if status == 431 and "muster-request-id" not in headers:
            return  # libmicrohttpd's own word on headers past its memory; no request came of them
        operation = self.find(listener, method, path)
        try:
            self._answer(operation, status, headers, body)
            if status < 300:
                self._request(operation, path, query, sent_type, sent)
                self.succeeded.add(operation.name)
        except Mismatch as e:
            text = f"docs/openapi.yaml does not tell of {method} {path} {status}: {e}"
            self.violations.append(text)
            raise AssertionError(text) from None

    def need(self, fits, why):
        if not fits:
            raise Mismatch(why)

    def _answer(self, operation, status, headers, body):
        self.need(re.fullmatch("[0-9a-f]{32}", headers.get("muster-request-id", "")), "no Muster-Request-Id")
        self.need(status not in (429, 503) or headers.get("retry-after", "").isdigit(), "no Retry-After")
        if operation is None:
            self.need(status >= 400, "an answer to an undocumented request: add its path and method")
            value = json.loads(body)
            self._dps_problem(None, status, value) if "errorCode" in value else self._problem(None, status, value)
            return
        response = self.follow(operation.responses.get(str(status), operation.responses.get("default")))
        self.need(response is not None, "the status is not documented")
        self._headers(response, headers)
        if not response.get("content"):
            self.need(body == b"", "a body where none is documented")
            return
        kind = headers.get("content-type", "")
        media = response["content"].get(kind) or response["content"].get(kind.split(";")[0])
        self.need(media is not None, f"the content type {kind}")
        value = json.loads(body) if kind.split(";")[0].endswith("json") else body.decode(errors="replace")
        if operation and operation.dps and status >= 400 and "authenticationKey" in value:
            self.codes_met.add("tpm.challenge")
        elif operation and operation.dps and status >= 400 and "errorCode" in value:
            self._dps_problem(operation, status, value)
        elif operation and operation.dps and isinstance(value, dict) and value.get("status") == "failed":
            self.said({400208: "enrollment.no_endpoint", 429001: "load.overloaded"}[value["registrationState"]["errorCode"]])
        elif isinstance(value, dict) and (status >= 400 or status == 202 and not operation.dps):
            self._problem(operation, status, value)
        self.schemas.check(value, media["schema"], f"{operation.name} {status}")

    def _headers(self, response, headers):
        documented = {k.lower(): self.follow(v) for k, v in response.get("headers", {}).items()}
        trace = headers.get("traceparent", f"00-{'1' * 32}-{'1' * 16}-00")
        self.need(re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", trace), "the traceparent")
        undocumented = set(headers) - set(documented) - PLAIN_HEADERS - {"muster-request-id", "traceparent"}
        self.need(not undocumented, f"the headers {sorted(undocumented)}")
        for name, header in documented.items():
            if name in headers:
                schema = header["schema"]
                self.schemas.check(int(headers[name]) if schema.get("type") == "integer" else headers[name], schema, f"header {name}", f"header {name}")

    def said(self, code):
        """A code that was told inside an answer of another protocol, which has its own shape of a refusal."""
        self.need(code in self.faults, f"the code {code} is not in fault_table.h")
        self.codes_met.add(code)

    def _dps_problem(self, operation, status, problem):
        code = problem["info"]["code"]
        self.need(code in self.faults, f"the code {code} is not in fault_table.h")
        expected = {403: 401}.get(self.faults[code][0], self.faults[code][0])
        self.need(expected == status == problem["errorCode"] // 1000, f"the code {code} goes with {expected}")
        allowed = operation.codes | self.anywhere if operation else self.anywhere
        self.need(code in allowed, f"the code {code}: add it to x-codes")
        self.codes_met.add(code)

    def _problem(self, operation, status, problem):
        code = problem.get("code")
        self.need(code in self.faults, f"the code {code} is not in fault_table.h")
        self.need(self.faults[code][0] == status == problem["status"], f"the code {code} goes with {self.faults[code][0]}")
        allowed = operation.codes if operation else self.anywhere
        self.need(code in allowed, f"the code {code}: add it to x-codes of {operation.name if operation else 'x-codes-without-route'}")
        self.codes_met.add(code)

    def _request(self, operation, path, query, sent_type, sent):
        given = {"path": dict(zip(re.findall(r"\{(\w+)\}", operation.path), map(urllib.parse.unquote, operation.pattern.fullmatch(path).groups()))),
                 "query": dict(urllib.parse.parse_qsl(query, keep_blank_values=True))}
        parameters = [self.follow(p) for p in operation.parameters]
        for place, values in given.items():
            documented = {p["name"]: p for p in parameters if p["in"] == place}
            self.need(set(values) <= set(documented), f"accepted {place} arguments {sorted(set(values) - set(documented))}")
            for name, text in values.items():
                schema = self.follow(documented[name]["schema"])
                value = int(text) if schema.get("type") == "integer" else text
                self.schemas.check(value, schema, f"{operation.name} ?{name}", f"{place} {name}")
                self.parameters_met.add((operation.name, name))
        if sent:
            body = self.follow(operation.body)
            self.need(body is not None, "accepted a body where none is documented")
            kind = (sent_type or "").split(";")[0].lower()
            self.need(kind in body["content"], f"accepted the type {kind}")
            value = json.loads(sent) if kind == "application/json" else sent.decode("latin-1")
            self.schemas.check(value, body["content"][kind]["schema"], f"{operation.name} request", "request")

    # what a whole run has left out

    def unseen_operations(self):
        return {o.name for o in self.operations} - self.succeeded

    def unseen_members(self):
        documented = set()
        for o in self.operations:
            for status, response in o.responses.items():
                for media in self.follow(response).get("content", {}).values():
                    documented |= self.schemas.members(media["schema"], f"{o.name} {status}")
            for media in (self.follow(o.body) if o.body else {}).get("content", {}).values():
                documented |= self.schemas.members(media["schema"], f"{o.name} request")
        return documented - self.schemas.met

    def unseen_parameters(self):
        return {(o.name, self.follow(p)["name"]) for o in self.operations for p in o.parameters} - self.parameters_met

    def unseen_codes(self):
        return set().union(*(o.codes for o in self.operations), self.anywhere) - self.codes_met


    # a run in several processes

    def leave(self, file):
        """What this process has seen, for the one that judges the whole run."""
        file.write_bytes(pickle.dumps((self.succeeded, self.codes_met, self.parameters_met, self.schemas.met, self.violations)))

    def take(self, folder):
        for file in folder.glob("*.seen"):
            succeeded, codes, parameters, members, violations = pickle.loads(file.read_bytes())
            self.succeeded |= succeeded
            self.codes_met |= codes
            self.parameters_met |= parameters
            self.schemas.met |= members
            self.violations += violations


SPEC = Spec()
