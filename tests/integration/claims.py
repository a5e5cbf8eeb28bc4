"""Claims and devices that provision themselves with one, over HTTPS."""
import json

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from client import fingerprint, new_csr, new_key, request, unique
from stack import Refused

CREATE_KEYS, CREATE_FROM_CSR = "/v1/certificates/create", "/v1/certificates/create-from-csr"


class Claim:
    """A claim made through the admin API, with its certificate and key."""

    def __init__(self, stack, template="claimed", name=None, **body):
        self.stack, self.template = stack, template
        self.name = name or unique("claim")
        self.take(stack.v1("POST", "/claims", {"name": self.name, "template": template, "rate_per_second": 0, **body}))

    def take(self, made):
        self.made = made
        self.cert_pem, self.key_pem = made["certificate_pem"], made["private_key_pem"]
        self.cert = x509.load_pem_x509_certificate(self.cert_pem.encode())
        self.key = serialization.load_pem_private_key(self.key_pem.encode(), None)
        self.chain = [self.cert]

    def __iter__(self):
        """Unpacks as a credential does: certificate and key."""
        return iter((self.cert, self.key))

    @property
    def id(self):
        return fingerprint(self.cert)

    def show(self):
        return self.stack.v1("GET", f"/claims/{self.name}")

    def files(self, folder):
        """Paths of certificate and key, for clients that want files."""
        cert, key = folder / f"{self.name}.pem", folder / f"{self.name}.key"
        cert.write_text(self.cert_pem + self.made.get("chain_pem", ""))
        key.write_text(self.key_pem)
        key.chmod(0o600)
        return cert, key

    def call(self, path, body, stack=None):
        """One of the three operations; its answer, or Refused with the rejection."""
        status, headers, text = request(stack or self.stack, "POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"}, self.chain, self.key)
        if status != 200:
            raise Rejected(status, headers, text)
        return json.loads(text)


class Rejected(Refused):
    """The three members that a rejection always has."""

    def __init__(self, status, headers, body):
        super().__init__(status, headers, body)
        self.rejection = json.loads(body)
        if "statusCode" in self.rejection:
            assert self.rejection["statusCode"] == status
            assert self.rejection["errorMessage"].split(" ")[0] == self.code
            self.error = self.rejection["errorCode"]


def csr_pem(key, subject):
    return x509.load_der_x509_csr(new_csr(key, subject)).public_bytes(serialization.Encoding.PEM).decode()


class ClaimDevice:
    def __init__(self, claim, serial=None, stack=None, client=None):
        self.claim, self.serial = claim, serial or unique("cd")
        self.stack, self.client = stack or claim.stack, client
        self.key, self.cert = new_key(), None

    def extra(self):
        return {"clientId": self.client} if self.client else {}

    def create(self, subject=""):
        """CreateCertificateFromCsr; subject: what the CSR's CN says."""
        name = x509.Name([]) if not subject else subject
        self.created = self.claim.call(CREATE_FROM_CSR, {"certificateSigningRequest": csr_pem(self.key, name), **self.extra()}, self.stack)
        return self.take()

    def create_keys(self):
        self.created = self.claim.call(CREATE_KEYS, self.extra(), self.stack)
        self.key = serialization.load_pem_private_key(self.created["privateKey"].encode(), None)
        return self.take()

    def take(self):
        self.cert = x509.load_pem_x509_certificate(self.created["certificatePem"].encode())
        assert self.created["certificateId"] == fingerprint(self.cert)
        assert self.cert.public_key().public_numbers() == self.key.public_key().public_numbers()
        assert len(self.created["certificateOwnershipToken"]) <= 512
        return self.created

    def register(self, template=None, token=None, **parameters):
        body = {"certificateOwnershipToken": token or self.created["certificateOwnershipToken"],
                "parameters": {"SerialNumber": self.serial, **parameters}, **self.extra()}
        return self.claim.call(f"/v1/provisioning-templates/{template or self.claim.template}/provision", body, self.stack)

    def provision(self, **parameters):
        self.create()
        return self.register(**parameters)

    def config(self):
        """The first use of the certificate."""
        status, headers, text = request(self.stack, "GET", "/v1/device/config", chain=[self.cert], key=self.key)
        if status != 200:
            raise Refused(status, headers, text)
        return json.loads(text)


def digest(cert):
    return cert.fingerprint(hashes.SHA256())
