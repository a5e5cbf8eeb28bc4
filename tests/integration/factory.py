"""A factory: CAs and device certificates of its own, good and bad, and its stations."""
import base64
import datetime
import hashlib
import json

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from client import cert_pem, name_of, new_csr, new_key, request, unique
from stack import Refused

NDJSON = "application/x-ndjson"


def now():
    return datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)


class Authority:
    def __init__(self, cn, parent=None, key=None):
        self.key = key or new_key()
        self.name = name_of(cn)
        self.parent = parent
        self.cert = (parent or self).sign(self.name, self.key.public_key(), ca=True)

    def sign(self, subject, public_key, ca=False, begin=-1, end=3650, eku=ExtendedKeyUsageOID.CLIENT_AUTH, digest=None, san=None):
        """A certificate below this authority; begin and end in days from now."""
        builder = (x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(public_key)
                   .serial_number(x509.random_serial_number())
                   .not_valid_before(now() + datetime.timedelta(days=begin))
                   .not_valid_after(now() + datetime.timedelta(days=end))
                   .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
                   .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
                   .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False))
        if not ca and eku:
            builder = builder.add_extension(x509.ExtendedKeyUsage([eku]), critical=False)
        if san:
            builder = builder.add_extension(x509.SubjectAlternativeName(san), critical=False)
        return builder.sign(self.key, digest or hashes.SHA256())

    def device(self, serial, key=None, **kw):
        """(certificate, key) with the serial in CN."""
        key = key or new_key()
        return self.sign(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Factory"),
                                    x509.NameAttribute(NameOID.COMMON_NAME, serial)]), key.public_key(), **kw), key

    def register(self, stack, name, template="factory", **more):
        """For enrolment only, unless more says otherwise."""
        body = {"name": name, "pem": cert_pem(self.cert).decode(), "without_proof": True, "auto_registration": False, **more}
        if template:
            body["template"] = template
        return stack.v1("POST", "/cas", body)


def b64(data):
    return base64.b64encode(data).decode()


def unit(serial, key=None, csr=None):
    """What is asked for one device."""
    return {"serial": serial, "csr": csr or b64(new_csr(key or new_key(), serial))}


def lines_of(units):
    return "".join(json.dumps(u) + "\n" for u in units).encode()


class Station:
    """A fixture: a certificate nobody vouches for, which an operator pins."""

    def __init__(self, stack, name=None, key=None, days=365, cn=None):
        self.stack, self.name, self.key = stack, name or unique("station"), key or new_key()
        begin = now() - datetime.timedelta(days=1)
        self.cert = (x509.CertificateBuilder().subject_name(name_of(cn or self.name)).issuer_name(name_of(cn or self.name)).public_key(self.key.public_key())
                     .serial_number(x509.random_serial_number()).not_valid_before(begin).not_valid_after(begin + datetime.timedelta(days=days))
                     .sign(self.key, hashes.SHA256()))
        self.lines, self.n, self.hash = [], 0, "0" * 64

    def create(self, batch_name, budget=1000):
        return self.stack.v1("POST", "/factory-stations", {"name": self.name, "batch": batch_name, "budget": budget, "certificate": cert_pem(self.cert).decode()})

    def post(self, path, body):
        status, headers, text = request(self.stack, "POST", f"/v1/factory/{path}", body, {"Content-Type": NDJSON}, [self.cert], self.key)
        if status != 200:
            raise Refused(status, headers, text)
        return json.loads(text)

    def certify(self, units):
        return self.post("certificates", lines_of(units))

    # its journal, as docs/factory.md has it

    def add(self, text):
        self.n += 1
        line = f'{{"n":{self.n},"prev":"{self.hash}",{text}}}'
        self.hash = hashlib.sha256(line.encode()).hexdigest()
        self.lines.append(line)

    def record(self, serial, cert):
        self.add(f'"at":1700000000,"serial":"{serial}","certificate":"{b64(cert.public_bytes(serialization.Encoding.DER))}"')

    def seal(self, key=None):
        covered = f'{{"n":{self.n + 1},"prev":"{self.hash}"'
        self.add(f'"seal":"{b64((key or self.key).sign(covered.encode(), ec.ECDSA(hashes.SHA256())))}"')

    def journal(self, lines=None):
        return ("\n".join(self.lines if lines is None else lines) + "\n").encode()

    def upload(self, lines=None, query=""):
        return self.post("journal" + query, self.journal(lines))
