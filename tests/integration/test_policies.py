"""Policies of AWS IoT against the real broker: who may connect, publish, subscribe and receive."""
import json
import time

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from broker import REFUSED
from client import cert_pem, fingerprint, new_key, unique
from factory import Authority
from fleet import Client, joined
from stack import wait_for
from test_jit import Maker

ARN = "arn:aws:iot:eu-central-1:123456789012:"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with joined(tmp_path_factory.mktemp("policies")) as place:
        yield place


def allow(action, *resources, effect="Allow", **more):
    return {"Effect": effect, "Action": [f"iot:{a}" for a in action.split()], "Resource": [r if r == "*" else ARN + r for r in resources], **more}


def deny(action, *resources, **more):
    return allow(action, *resources, effect="Deny", **more)


ANY = allow("Connect", "client/*")


@pytest.fixture(scope="module")
def maker(place):
    made = Maker(place.stack, "jitfields", auto_registration=False)
    place.broker.trust_add(cert_pem(made.ca.cert))
    return made


def device(place, maker, statements, attributes=None, serial=None, kind="pump-v2"):
    """A device whose certificate has one policy, admitted already."""
    name, d = unique("pol"), maker.device(serial)
    document = {"Parameters": {"SerialNumber": {"Type": "String"}}, "Resources": {
        "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Fn::Join": ["", ["t-", {"Ref": "SerialNumber"}]]}, "ThingTypeName": kind,
                                                            "AttributePayload": attributes or {}}},
        "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"}}},
        "Muster": {"Allowlist": "optional"}}
    if statements:
        document["Resources"]["policy"] = {"Type": "AWS::IoT::Policy", "Properties": {
            "PolicyName": name, "PolicyDocument": json.dumps({"Version": "2012-10-17", "Statement": statements})}}
    place.stack.v1("PUT", f"/templates/{name}?product=pump", json.dumps(document).encode())
    before = place.metric("muster_gate_entries")
    place.stack.v1("POST", "/certs", {"pem": cert_pem(d.cert).decode(), "template": name})
    d.thing = f"t-{d.serial}"
    wait_for("the broker to know it", lambda: place.metric("muster_gate_entries") > before)
    return d


def ask(client, action, resource):
    """Whether the broker lets it: a word of the device and the broker's answer."""
    if action == "publish":
        return client.publish(resource, b"x") != REFUSED
    if action == "retain":
        return client.publish(resource, b"x", retain=True) != REFUSED
    return client.subscribe(resource) < 128


OWN = "things/${iot:Connection.Thing.ThingName}/*"
TABLE = [
    ("plain", [ANY, allow("Publish", "topic/a/b")], {}, [("publish", "a/b", True), ("publish", "a/c", False), ("publish", "a/b/c", False), ("subscribe", "a/b", False)]),
    ("wildcard", [ANY, allow("Publish", "topic/a/*/z"), allow("Subscribe", "topicfilter/a/*")], {},
     [("publish", "a/b/c/z", True), ("publish", "a/b/y", False), ("subscribe", "a/#", True), ("subscribe", "a/+/c", True), ("subscribe", "#", False), ("subscribe", "b/#", False)]),
    ("one character", [ANY, allow("Publish", "topic/a?c")], {}, [("publish", "abc", True), ("publish", "ac", False), ("publish", "abbc", False)]),
    ("deny over allow", [ANY, allow("Publish Subscribe", "*"), deny("Publish", "topic/secret/*"), deny("Subscribe", "topicfilter/secret/*")], {},
     [("publish", "x", True), ("publish", "secret/x", False), ("subscribe", "secret/x", False), ("subscribe", "y/#", True)]),
    ("thing name", [ANY, allow("Publish", "topic/" + OWN), allow("Subscribe", "topicfilter/" + OWN)], {},
     [("publish", "things/{thing}/up", True), ("publish", "things/t-other/up", False), ("subscribe", "things/{thing}/#", True), ("subscribe", "things/+/up", False)]),
    ("client id", [ANY, allow("Publish", "topic/c/${iot:ClientId}")], {}, [("publish", "c/{client}", True), ("publish", "c/another", False)]),
    ("attribute", [ANY, allow("Publish", "topic/${iot:Connection.Thing.Attributes[site]}/x")], {"site": "basel"}, [("publish", "basel/x", True), ("publish", "zurich/x", False)]),
    ("thing type", [ANY, allow("Publish", "topic/${iot:Connection.Thing.ThingTypeName}/x")], {}, [("publish", "pump-v2/x", True), ("publish", "/x", False)]),
    ("certificate", [ANY, allow("Publish", "topic/${iot:Certificate.Subject.CommonName}/${iot:Certificate.Subject.Organization}")], {},
     [("publish", "{serial}/Factory", True), ("publish", "{serial}/Other", False)]),
    ("unknown variable", [ANY, allow("Publish", "topic/${iot:Connection.Thing.Attributes[none]}/x", "topic/${aws:Nothing}/x")], {},
     [("publish", "/x", False), ("publish", "none/x", False), ("publish", "${{aws:Nothing}}/x", False)]),
    ("unknown variable in a denial", [ANY, allow("Publish", "*"), deny("Publish", "topic/${aws:Nothing}/x")], {}, [("publish", "any/x", False), ("publish", "any/y", True)]),
    ("unsafe values", [ANY, allow("Publish", "topic/${iot:Connection.Thing.Attributes[slash]}"), allow("Subscribe", "topicfilter/${iot:Connection.Thing.Attributes[hash]}")],
     {"slash": "a/b", "hash": "#"}, [("publish", "a/b", False), ("subscribe", "#", False), ("subscribe", "+/x", False)]),
    ("$aws topics", [ANY, allow("Publish", "topic/$aws/things/${iot:Connection.Thing.ThingName}/shadow/update"), allow("Subscribe", "topicfilter/$aws/things/*")], {},
     [("publish", "$aws/things/{thing}/shadow/update", True), ("publish", "$aws/things/t-other/shadow/update", False), ("subscribe", "$aws/things/#", True), ("subscribe", "$aws/#", False)]),
    ("topics that are nobody's", [ANY, allow("*", "*")], {},
     [("publish", "x", True), ("publish", "muster/request", False), ("publish", "$CONTROL/muster/v1", False), ("publish", "$aws/certificates/create/json", False),
      ("publish", "$aws/provisioning-templates/jit/provision/json/accepted", False), ("publish", "$aws/events/certificates/registered/x", False),
      ("publish", "$muster/events/pump/x/renewed", False), ("publish", "$SYS/broker/x", False), ("subscribe", "$share/muster/muster/request", False)]),
    ("retain", [ANY, allow("Publish", "topic/*"), allow("RetainPublish", "topic/kept")], {}, [("retain", "kept", True), ("retain", "other", False), ("publish", "other", True)]),
    ("shared subscription", [ANY, allow("Subscribe", "topicfilter/jobs/*")], {}, [("subscribe", "$share/g/jobs/#", True), ("subscribe", "$share/g/other/#", False)]),
    ("action wildcard", [allow("*", "*")], {}, [("publish", "x", True), ("subscribe", "x/#", True), ("retain", "x", True)]),
    ("condition", [ANY, allow("Publish", "topic/*", Condition={"StringLike": {"iot:ClientId": "dev-*"}}), deny("Publish", "topic/no", Condition={"Bool": {"iot:Connection.Thing.IsAttached": "true"}})], {},
     [("publish", "yes", True), ("publish", "no", False)]),
    ("what is not understood", [ANY, allow("Publish", "topic/a", Condition={"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}})], {}, [("publish", "a", False)]),
    ("no policy at all", None, {}, [("publish", "things/{thing}/up", True), ("subscribe", "things/{thing}/#", True), ("publish", "things/t-other/up", False), ("publish", "x", False), ("subscribe", "#", False)]),
]


@pytest.mark.parametrize("statements, attributes, questions", [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_the_table(place, maker, statements, attributes, questions):
    d = device(place, maker, statements, attributes)
    client = unique()
    with Client(place, d.cert, d.key, client) as c:
        assert c.code == 0
        for action, resource, wanted in questions:
            resource = resource.format(thing=d.thing, client=client, serial=d.serial)
            assert ask(c, action, resource) == wanted, (action, resource)


def test_connecting_takes_a_policy_that_allows_it(place, maker):
    d = device(place, maker, [allow("Connect", "client/${iot:Connection.Thing.ThingName}"), allow("Publish", "*")])
    with Client(place, d.cert, d.key, "another") as c:
        assert c.code == REFUSED
    with Client(place, d.cert, d.key, d.thing) as c:
        assert c.code == 0
    silent = device(place, maker, [allow("Publish", "*")])
    with Client(place, silent.cert, silent.key) as c:
        assert c.code == REFUSED


def test_what_is_received_is_judged_at_delivery(place, maker):
    """A wide subscription gets only what iot:Receive allows, and never musterd's own topics."""
    sender = device(place, maker, [ANY, allow("Publish", "*")])
    reader = device(place, maker, [ANY, allow("Subscribe", "*"), allow("Receive", "topic/open/*"), deny("Receive", "topic/open/secret")])
    everything = device(place, maker, [allow("*", "*")])
    with Client(place, sender.cert, sender.key) as s, Client(place, reader.cert, reader.key) as r, Client(place, everything.cert, everything.key) as e:
        assert r.subscribe("#") < 128 and e.subscribe("#") < 128 and e.subscribe("muster/#") < 128
        for topic in ("open/a", "open/secret", "closed/a"):
            assert s.publish(topic, b"x") != REFUSED
        time.sleep(1.2)  # the table's status is sent every second
        r.ping()
        assert [m.topic for m in r.messages] == ["open/a"]
        e.ping()
        got = {m.topic for m in e.messages}
        assert got >= {"open/a", "open/secret", "closed/a"} and not [t for t in got if t.startswith("muster/")]


def test_an_attribute_that_changes_counts_within_a_second(place, maker):
    d = device(place, maker, [ANY, allow("Publish", "topic/${iot:Connection.Thing.Attributes[site]}/x")], {"site": "basel"})
    with Client(place, d.cert, d.key) as c:
        assert ask(c, "publish", "basel/x")
        place.stack.sql("UPDATE device SET attributes = '{\"site\": \"bern\"}' WHERE serial = %s", d.serial)
        wait_for("the change", lambda: ask(c, "publish", "bern/x"), 3)
        assert not ask(c, "publish", "basel/x")


def test_a_document_that_means_nothing_refuses_its_certificates(place, maker):
    """It came into the registry before anybody looked at it."""
    d = device(place, maker, [ANY, allow("Publish", "*")])
    assert place.code(d.cert, d.key) == 0
    other = device(place, maker, [allow("*", "*")])
    place.stack.sql("ALTER TABLE policy DISABLE TRIGGER ALL")
    place.stack.sql("UPDATE policy SET document = '{\"Statement\": 7}' WHERE id = (SELECT x.policy_id FROM certificate_policy x JOIN certificate c ON c.id = x.certificate_id"
                    " WHERE c.fingerprint = decode(%s, 'hex'))", fingerprint(d.cert))
    place.stack.sql("ALTER TABLE policy ENABLE TRIGGER ALL")
    place.broker.restart()
    place.ready()
    wait_for("the load", lambda: place.code(other.cert, other.key) == 0)
    assert place.code(d.cert, d.key) == REFUSED
    assert any(r["event"] == "policy.refused" for r in place.stack.log_records())


def test_a_registered_ca_that_is_switched_off_puts_its_devices_out(place):
    made = Maker(place.stack, "jit")
    place.broker.trust_add(cert_pem(made.ca.cert))
    d = made.device()
    d.config()
    place.admitted(d.cert, d.key)
    with Client(place, d.cert, d.key) as c:
        place.stack.v1("POST", f"/cas/{made.ca.nick}/deactivate")
        began = time.monotonic()
        c.ended(5)
        assert time.monotonic() - began < 2
    place.refused(d.cert, d.key)
    place.stack.v1("POST", f"/cas/{made.ca.nick}/activate")
    place.admitted(d.cert, d.key)


def test_a_new_ca_is_trusted_without_a_restart(tmp_path):
    """The plugin keeps the folder; before, the handshake ends."""
    with joined(tmp_path, ca_folder=True) as place:
        ca = Authority(unique("Late "))
        d = Maker(place.stack, "jit").device()
        d.cert, d.key = ca.device(d.serial)
        with pytest.raises(Exception):
            place.code(d.cert, d.key)
        ca.register(place.stack, unique("late"), "jit", auto_registration=True)

        def admitted():
            try:
                return place.code(d.cert, d.key) == 0
            except Exception:
                return False
        wait_for("the CA to be trusted and the device to be registered", admitted, 10)
        names = (place.broker.trust / "muster.list").read_text().split()
        assert len(names) >= 2 and all((place.broker.trust / n).read_bytes().startswith(b"-----BEGIN") for n in names)
        # and a second CA of the same name has a place of its own
        same = Authority(ca.cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value, key=new_key())
        same.register(place.stack, unique("same"), "jit", auto_registration=True)
        wait_for("the other CA of that name", lambda: len((place.broker.trust / "muster.list").read_text().split()) == len(names) + 1, 10)
        kept = [x509.load_pem_x509_certificate((place.broker.trust / n).read_bytes()) for n in (place.broker.trust / "muster.list").read_text().split()]
        assert ca.cert in kept and same.cert in kept
