"""docs/openapi.yaml against the server: the document agrees with itself, every answer of the run fitted, nothing was left out."""
import itertools

import pytest

from client import Device, fingerprint, new_key, request, spki_sha256, unique
from factory import Authority
from openapi import SPEC
from stack import Refused, Stack

# what no run meets, and why
UNSEEN_OPERATIONS = {
    "POST /.well-known/est/fullcmc": "its only answer is request.not_implemented",
    "POST /.well-known/est/{label}/fullcmc": "its only answer is request.not_implemented",
}
UNSEEN_MEMBERS = {}
UNSEEN_PARAMETERS = {("POST /.well-known/est/{label}/fullcmc", "label"): "the operation never succeeds"}
UNSEEN_CODES = {
    "server.internal": "nothing that a client may send is known to bring it",
    "journal.busy": "test_factory_journal.py meets it when two uploads are under way at the right moment",
    "load.draining": "test_crash.py meets it when a request comes at the right moment of the drain",
}
SOMETIMES = {"load.draining", "journal.busy"}


@pytest.mark.parametrize("operation", SPEC.operations, ids=lambda o: o.name)
def test_the_codes_of_an_operation_are_faults_with_documented_statuses(operation):
    assert operation.codes, f"{operation.name} has no x-codes: list the codes its refusals may bear"
    unknown = operation.codes - set(SPEC.faults)
    assert not unknown, f"not in fault_table.h: {unknown}"
    hidden = {c for c in operation.codes if SPEC.faults[c][1] == "HIDDEN"}
    assert not hidden or operation.listener() == "admin", f"no device is told {hidden}"
    for code in operation.codes:
        assert str(SPEC.faults[code][0]) in operation.responses or "default" in operation.responses, (operation.name, code, SPEC.faults[code][0])
    for status in set(operation.responses) - {"default"}:
        assert status < "400" or any(SPEC.faults[c][0] == int(status) for c in operation.codes), f"{operation.name}: no code bears {status}"


def test_every_fault_that_is_told_belongs_to_an_operation():
    """But the one that only the broker has for an answer, and the one that is told of a line only."""
    told = {code for code, (_, seen) in SPEC.faults.items() if seen != "HIDDEN"}
    documented = set().union(*(o.codes for o in SPEC.operations), SPEC.anywhere)
    assert told - documented - {"claim.topic_denied", "journal.entry_invalid"} == set(), "add them to x-codes of the operations that answer with them"


# what other tests leave out, or ask only by way of the CLI, whose answers are not seen here

def refused(code, call, *args, **kw):
    with pytest.raises(Refused) as e:
        call(*args, **kw)
    assert e.value.code == code, e.value


LISTS = [o.path for o in SPEC.operations if o.method == "GET" and "{" not in o.path and {"limit", "after"} <= {SPEC.follow(p)["name"] for p in o.parameters}]


@pytest.mark.parametrize("path", LISTS)
def test_a_list_goes_on_behind_a_key(stack, path):
    """Whatever there is, and however the files of tests were dealt out. Most keys are names or numbers, for which 1 will do."""
    after = {"/admin/v1/unknown-cas": "00", "/admin/v1/certs:forecast": "2026-01-01", "/admin/v1/certs:expiring": "1:1", "/admin/v1/events": "1:1"}.get(path, "1")
    assert isinstance(stack.admin("GET", f"{path}?limit=1&after={after}"), list)


def test_unknown_cas_page(stack):
    for _ in range(2):
        cert, key = Authority(unique("Unknown")).device(unique())
        status, _, _ = request(stack, "GET", "/v1/device/config", None, {}, [cert], key)
        assert status == 403
    first, second = itertools.islice(stack.pages("/unknown-cas?limit=1"), 2)
    assert first[0]["issuer_hash"] != second[0]["issuer_hash"]


def test_filters_of_lists(stack):
    d = Device(stack, token=stack.mint("open", note="filters"))
    d.enrol()
    (listed,) = stack.v1("GET", f"/certs?serial={d.serial}&product=pump&status=pending&expires_before=2999-01-01T00:00:00Z")
    assert listed["fingerprint"] == fingerprint(d.cert)
    assert d.serial in [x["serial"] for page in stack.pages("/devices?product=pump&template=open&limit=1000") for x in page]
    assert [t["product"] for t in stack.v1("GET", "/templates?product=folded")] == ["folded"]
    assert stack.v1("GET", "/templates/open?version=1")["version"] == 1
    assert len(stack.v1("GET", f"/devices/{d.serial}?trail=1")["trail"]) == 1
    assert {x["actor"] for x in stack.v1("GET", "/audit?actor=admin&limit=5")} == {"admin"}
    (token,) = stack.v1("GET", f"/tokens?state=unused&template=open&serial={mint_bound(stack)}")
    assert token["state"] == "unused"


def mint_bound(stack):
    serial = unique()
    stack.mint("open", serial)
    return serial


def test_members_of_bodies(stack):
    d = Device(stack, token=stack.mint("open"))
    d.enrol()
    (use,) = stack.v1("GET", f"/tokens/{stack.v1('GET', '/tokens?state=used&limit=1000')[-1]['id']}")["used_by"]
    assert set(use) == {"serial", "fingerprint", "used_at"}
    assert len(stack.v1("POST", "/tokens", {"template": "open", "count": 3})) == 3
    assert stack.v1("POST", f"/devices/{d.serial}/seen?product=pump", {"fingerprint": fingerprint(d.cert)})["state"] == "PROVISIONED"
    for action in ("quarantine", "release", "reset", "retire"):
        assert stack.v1("POST", f"/devices/{d.serial}/{action}?product=pump")["serial"] == d.serial
    for action in ("approve", "reject"):
        serial, key = unique("asks"), new_key()
        refused("approval.pending", Device(stack, serial, "waiting", stack.mint("waiting", serial)).enrol, key=key)
        assert stack.v1("POST", f"/devices/{serial}/{action}?product=pump", {"key": spki_sha256(key).hex()})["serial"] == serial
    report = stack.v1("POST", "/products/pump/allowlist?batch=lot-9&report=rejected", f"{unique()}\nnot a serial\n".encode(), kind="text/csv")
    assert (report["imported"], report["rejected"], len(report["lines"])) == (1, 1, 1)


POLICY = {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": {"Version": "2012-10-17", "Statement": []}}}
NAMED = {"Parameters": {"Colour": {"Type": "String"}, "SerialNumber": {"Type": "String"}},
         "Resources": {"thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Fn::Join": ["-", [{"Ref": "Colour"}, {"Ref": "SerialNumber"}]]}}}, "policy": POLICY},
         "Muster": {"Allowlist": "optional"}}


def test_templates_that_cannot_be_evaluated(stack):
    stack.v1("PUT", "/templates/coloured?product=pump", NAMED)
    shown = stack.v1("POST", "/templates/coloured/render", {"serial": "SN-1", "parameters": {"Colour": "red"}})
    assert shown["registration"]["thing_name"] == "red-SN-1" and shown["registration"]["policies"][0]["document"]
    refused("template.parameter_missing", stack.v1, "POST", "/templates/coloured/render", {"serial": "SN-1"})
    refused("template.evaluation_failed", stack.v1, "POST", "/templates/coloured/render", {"serial": "SN-1", "parameters": {"Colour": "no such name: \u00e9"}})
    refused("template.invalid", stack.v1, "PUT", "/templates/invalid?product=pump", {"Resources": 1})


def test_overrides_that_fail(stack):
    def template(colour):
        thing = {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "SerialNumber"}, "AttributePayload": {"colour": colour}},
                 "OverrideSettings": {"AttributePayload": "FAIL"}}
        stack.v1("PUT", "/templates/firm?product=pump", {"Parameters": {"SerialNumber": {"Type": "String"}}, "Resources": {"thing": thing},
                                                        "Muster": {"Allowlist": "optional", "Reprovision": "replace"}})
        stack.catalog_caught_up()
    template("red")
    d = Device(stack, template="firm", token=stack.mint("firm", uses=3))
    d.enrol()
    template("blue")
    refused("template.override_fail", d.enrol, key=new_key(), keep=False)


def test_serials_that_are_not_there(stack):
    stack.v1("PUT", "/templates/bysan?product=pump", {"Muster": {"Credentials": ["token", "factory"], "Serial": "SAN.URI", "Allowlist": "optional"}})
    ca = Authority(unique("San Maker"))
    ca.register(stack, unique("san-maker"), "bysan")
    d = Device(stack, template="bysan", token=stack.mint("bysan"))
    refused("serial.missing", d.enrol, user=False)
    cert, key = ca.device("x")
    refused("cert.no_serial", d.enrol_factory, [cert], key)


def test_a_retired_device_with_another_factory_certificate(stack):
    ca, serial = Authority(unique("Retired Maker")), unique("retired")
    ca.register(stack, unique("retired-maker"))
    first, again = ca.device(serial), ca.device(serial)
    d = Device(stack, serial, "factory")
    d.enrol_factory([first[0]], first[1])
    stack.v1("POST", f"/devices/{serial}/retire")
    refused("device.retired", d.enrol_factory, [again[0]], again[1], key=new_key())


def test_a_chain_of_too_many(stack):
    ca = Authority("Long 0")
    above = [ca]
    for n in range(1, 9):
        above.insert(0, Authority(f"Long {n}", parent=above[0]))
    cert, key = above[0].device("x")
    refused("chain.malformed", Device(stack, "x", "factory").enrol_factory, [cert] + [a.cert for a in above], key)


def test_no_default_template(tmp_path):
    with Stack(tmp_path) as stack:
        stack.stop()
        stack.configure(enrol__default_template="")
        stack.start()
        refused("template.no_default", Device(stack, token="mst_x").enrol)


# conftest.py runs these two last, and only when the whole folder was collected

def test_last_every_answer_of_the_run_fitted():
    assert SPEC.violations == []


def test_last_nothing_documented_was_left_unseen():
    left = {"operations": (SPEC.unseen_operations(), UNSEEN_OPERATIONS), "members": (SPEC.unseen_members(), UNSEEN_MEMBERS),
            "parameters": (SPEC.unseen_parameters(), UNSEEN_PARAMETERS), "codes": (SPEC.unseen_codes(), UNSEEN_CODES)}
    wrong = [f"{what}: {one} was met by no test: test it, or say in UNSEEN_{what.upper()} why not"
             for what, (unseen, allowed) in left.items() for one in sorted(unseen - set(allowed))]
    wrong += [f"{what}: {one} was met: remove it from UNSEEN_{what.upper()}"
              for what, (unseen, allowed) in left.items() for one in sorted(set(allowed) - unseen) if one not in SOMETIMES]
    assert not wrong, "\n".join(wrong)
