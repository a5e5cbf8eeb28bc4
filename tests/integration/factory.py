"""A factory: CAs and device certificates of its own, good and bad."""
import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from client import cert_pem, name_of, new_key


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
