"""Other brokers ask over HTTP, in the shapes of EMQX (JSON) and NanoMQ (a form): who may connect, publish, subscribe."""
import json
import pathlib
import urllib.parse

import pytest

from client import Device, cert_pem, fingerprint, unique
from stack import Refused
from test_jit import Maker, certificates
from test_policies import ANY, allow, deny

TEMPLATES = pathlib.Path(__file__).parent / "templates"
ALLOW, DENY = "allow", "deny"


@pytest.fixture(scope="module")
def asker(stack):
    """What the broker's token lets it do."""
    made = stack.cli_json("admin-token", "create", unique("broker"), "--role", "broker")
    return Asker(stack, made["token"])


class Asker:
    def __init__(self, stack, token):
        self.stack, self.token = stack, token

    def post(self, what, body):
        return self.stack.v1("POST", f"/broker/{what}", body, token=self.token)

    def auth(self, client_id=None, **said):
        return self.post("auth", {"clientid": client_id or unique(), **said})["result"]

    def acl(self, action, topic, client_id="c-1", **said):
        answer = self.post("acl", {"clientid": client_id, "action": action, "topic": topic, **said})
        assert "client_attrs" not in answer
        return answer["result"]

    def form(self, what, **said):
        body = urllib.parse.urlencode(said).encode()
        try:
            self.stack.v1("POST", f"/broker/{what}", body, kind="application/x-www-form-urlencoded", token=self.token, raw=True)
            return ALLOW
        except Refused as e:
            assert e.status == 403 and e.body == b"deny\n"
            return DENY


def enrolled(stack, template="open"):
    d = Device(stack, template=template, token=stack.mint(template))
    d.enrol()
    d.print = fingerprint(d.cert)
    d.thing = stack.device(d.serial)["thing_name"]
    return d


def policed(stack, statements):
    """A device whose certificate has one policy."""
    d = Device(stack)
    ca = Maker(stack, "jitfields", auto_registration=False)
    d.cert, d.key = ca.ca.device(d.serial)
    d.print, d.thing, name = fingerprint(d.cert), f"t-{d.serial}", unique("pol")
    document = {"Parameters": {"SerialNumber": {"Type": "String"}}, "Resources": {
        "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Fn::Join": ["", ["t-", {"Ref": "SerialNumber"}]]}, "AttributePayload": {"site": "basel"}}},
        "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"}},
        "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": name, "PolicyDocument": json.dumps({"Version": "2012-10-17", "Statement": statements})}}},
        "Muster": {"Allowlist": "optional"}}
    stack.v1("PUT", f"/templates/{name}?product=pump", json.dumps(document).encode())
    stack.v1("POST", "/certs", {"pem": cert_pem(d.cert).decode(), "template": name})
    return d


def test_a_certificate_of_the_registry_may_connect_and_is_verified_by_it(stack, asker):
    d = enrolled(stack)
    assert stack.state(d.serial) == "VERIFY"
    answer = asker.post("auth", {"clientid": unique(), "cert_pem": cert_pem(d.cert).decode(), "peerhost": "192.0.2.7", "username": "left alone"})
    assert answer == {"result": ALLOW, "is_superuser": False, "client_attrs": {"cert_fingerprint": d.print}}
    assert stack.state(d.serial) == "PROVISIONED"
    trail = stack.device(d.serial)["trail"][0]
    assert (trail["operation"], trail["protocol"], trail["source"]) == ("verify", "broker", "192.0.2.7")
    assert asker.auth(cert_fingerprint=d.print.upper()) == ALLOW
    assert len(stack.device(d.serial)["trail"]) == 2


def test_what_is_not_in_order_is_denied(stack, asker):
    stranger = Maker(stack, auto_registration=False).device()
    assert asker.auth(cert_pem=cert_pem(stranger.cert).decode()) == DENY
    assert asker.auth(cert_fingerprint="ab" * 32) == DENY
    assert asker.auth(cert_common_name="nobody") == DENY
    assert asker.auth() == DENY
    d = enrolled(stack)
    for bad in ("a/b", "a+", "#", "x" * 300, "a\nb"):
        assert asker.auth(bad, cert_fingerprint=d.print) == DENY, bad
    assert asker.post("auth", {"cert_fingerprint": d.print})["result"] == DENY
    assert stack.state(d.serial) == "VERIFY"


@pytest.mark.parametrize("command, told", [("cert revoke {print}", DENY), ("cert deactivate {print}", DENY), ("device quarantine {serial}", DENY)])
def test_who_was_shut_out_is_denied_with_the_next_question(stack, asker, command, told):
    d = enrolled(stack)
    topic = f"things/{d.thing}/up"
    assert asker.auth(cert_fingerprint=d.print) == ALLOW and asker.acl("publish", topic, cert_fingerprint=d.print) == ALLOW
    stack.cli(*command.format(print=d.print, serial=d.serial).split())
    assert asker.auth(cert_fingerprint=d.print) == told
    assert asker.auth(cert_pem=cert_pem(d.cert).decode()) == told
    assert asker.acl("publish", topic, cert_fingerprint=d.print) == told


def test_a_claim_is_for_musterds_own_broker(stack, asker):
    from claims import Claim
    claim = Claim(stack, "claimopen")
    assert asker.auth(cert_fingerprint=fingerprint(claim.cert)) == DENY
    assert asker.auth(cert_pem=cert_pem(claim.cert).decode()) == DENY


def test_the_first_contact_at_another_broker_registers_the_device(stack, asker):
    d = Maker(stack).device()
    assert asker.auth(cert_fingerprint=fingerprint(d.cert)) == DENY
    assert asker.auth(cert_pem=cert_pem(d.cert).decode(), peerhost="192.0.2.8") == ALLOW
    assert certificates(stack, d.serial) == [("operational", "current", "registered", fingerprint(d.cert))]
    assert [(t["operation"], t["source"]) for t in stack.device(d.serial)["trail"]] == [("verify", "192.0.2.8"), ("jitp", "192.0.2.8")]
    assert stack.state(d.serial) == "PROVISIONED"


def test_a_name_alone_serves_only_who_has_it_in_a_certificate_of_ours(stack, asker):
    """NanoMQ says no more than the CN. Another CA may write there what it wants."""
    document = json.loads((TEMPLATES / "open.json").read_text())
    document["Resources"]["thing"]["Properties"]["ThingName"] = {"Ref": "SerialNumber"}
    template = unique("cn")
    stack.v1("PUT", f"/templates/{template}?product=pump", json.dumps(document).encode())
    d = enrolled(stack, template)
    assert d.thing == d.serial, "as the CN has it"
    assert asker.auth(cert_common_name=d.thing) == ALLOW
    assert asker.form("acl", clientid="c", cn=d.thing, access="2", topic=f"things/{d.thing}/up") == ALLOW
    foreign = Maker(stack).device()
    foreign.config()
    assert asker.auth(cert_common_name=stack.device(foreign.serial)["thing_name"]) == DENY
    assert asker.auth(cert_common_name=enrolled(stack).thing) == DENY, "its certificate says another"


def test_forms_are_answered_by_the_status(stack, asker):
    d = enrolled(stack)
    assert asker.form("auth", clientid="c 1", cert_fingerprint=d.print, username="", password="x") == ALLOW
    assert asker.form("auth", clientid="c", cert_fingerprint="00" * 32) == DENY
    assert asker.form("acl", clientid="c", cert_fingerprint=d.print, access="1", topic=f"things/{d.thing}/#", ipaddr="::1") == ALLOW
    assert asker.form("acl", clientid="c", cert_fingerprint=d.print, access="1", topic="#") == DENY


def test_topics_follow_the_policies(stack, asker):
    d = policed(stack, [ANY, allow("Publish", "topic/${iot:Connection.Thing.Attributes[site]}/*", "topic/c/${iot:ClientId}", "topic/o/${iot:Certificate.Subject.Organization}"),
                        allow("Subscribe", "topicfilter/jobs/*"), deny("Publish", "topic/basel/secret"), allow("RetainPublish", "topic/basel/kept")])

    def ask(action, topic, **more):
        return asker.acl(action, topic, cert_fingerprint=d.print, **more)

    table = [("publish", "basel/x", ALLOW), ("publish", "basel/secret", DENY), ("publish", "bern/x", DENY), ("publish", "c/c-1", ALLOW), ("publish", "c/c-2", DENY),
             ("publish", "o/Factory", ALLOW), ("subscribe", "jobs/#", ALLOW), ("subscribe", "#", DENY), ("subscribe", "$share/g/jobs/#", ALLOW), ("publish", "muster/request", DENY)]
    assert [(a, t, ask(a, t)) for a, t, _ in table] == table
    assert ask("publish", "basel/x", retain=True) == DENY and ask("publish", "basel/kept", retain=True) == ALLOW
    assert ask("publish", "basel/x", retain="false") == ALLOW
    assert asker.auth("any", cert_fingerprint=d.print, action="publish", topic="secret", retain=True) == ALLOW, "they are for acl"
    assert asker.acl("publish", "basel/x", cert_pem=cert_pem(d.cert).decode(), peerhost="192.0.2.9") == ALLOW


def test_connecting_takes_a_policy_that_allows_it(stack, asker):
    d = policed(stack, [allow("Connect", "client/${iot:Connection.Thing.ThingName}")])
    assert asker.auth("another", cert_fingerprint=d.print) == DENY
    assert asker.auth(d.thing, cert_fingerprint=d.print) == ALLOW


def test_nobody_has_musterds_topics(stack, asker):
    d = policed(stack, [allow("*", "*")])
    for topic in ("muster/request", "$CONTROL/muster/v1", "$muster/events/x", "$aws/events/certificates/registered/x", "$aws/certificates/create/json/accepted"):
        assert asker.acl("publish", topic, cert_fingerprint=d.print) == DENY, topic
    assert asker.acl("publish", "x", cert_fingerprint=d.print) == ALLOW


@pytest.mark.parametrize("what, body", [
    ("auth", b"[]"), ("auth", b"{"), ("auth", b'{"clientid":"a","clientid":"b"}'), ("auth", {"clientid": "c", "cert_pem": "none"}), ("auth", {"clientid": "c", "cert_fingerprint": "12"}),
    ("auth", {"clientid": "c", "peerhost": "nowhere"}), ("auth", {"clientid": "x" * 20000}), ("acl", {"clientid": "c", "action": "publish"}), ("acl", {"clientid": "c", "topic": "x"}),
    ("acl", {"clientid": "c", "action": "shout", "topic": "x"})])
def test_what_does_not_parse_is_said(stack, asker, what, body):
    with pytest.raises(Refused) as e:
        asker.post(what, body)
    assert e.value.problem["code"] == "request.malformed" and e.value.status == 400


def test_a_brokers_token_is_for_nothing_else(stack, asker):
    for method, path in (("GET", "/devices"), ("GET", "/doctor"), ("POST", "/tokens")):
        with pytest.raises(Refused) as e:
            stack.v1(method, path, {} if method == "POST" else None, token=asker.token)
        assert e.value.problem["code"] == "admin.forbidden", path
    viewer = stack.cli_json("admin-token", "create", unique("viewer"), "--role", "viewer")["token"]
    with pytest.raises(Refused) as e:
        Asker(stack, viewer).auth(cert_fingerprint="00" * 32)
    assert e.value.problem["code"] == "admin.forbidden"


def test_a_token_of_one_product_knows_of_no_other(stack, asker):
    d, unknown = enrolled(stack), Maker(stack).device()
    for product, told in (("pump", ALLOW), ("folded", DENY)):
        token = stack.cli_json("admin-token", "create", unique(product), "--role", "broker", "--product", product)["token"]
        assert Asker(stack, token).auth(cert_fingerprint=d.print) == told
        assert Asker(stack, token).auth(cert_pem=cert_pem(unknown.cert).decode()) == DENY
    assert certificates(stack, unknown.serial) == []
