"""A device that has nothing but a PSK: openssl s_client and gnutls-cli, as Python's ssl knows no PSK."""
import base64
import hashlib
import hmac
import json
import re
import subprocess

import openapi
from client import EST, certs_of, new_csr, new_key, unique
from stack import Refused

TLS12 = ("-tls1_2", "-cipher", "ECDHE-PSK-CHACHA20-POLY1305")
DHE = ("-tls1_2", "-cipher", "DHE-PSK-AES128-GCM-SHA256")
DHE_UNNAMED = (*DHE, "-groups", "X25519")  # it names no group of RFC 7919
TLS13 = ("-tls1_3",)
FORWARD_SECRET = {"TLS 1.2, ECDHE": TLS12, "TLS 1.2, DHE": DHE, "TLS 1.2, DHE of our group": DHE_UNNAMED, "TLS 1.3": TLS13}


class NoHandshake(Exception):
    """s_client came to no connection; its words."""


def derive(master, identity):
    return hmac.new(base64.b64decode(master), identity.encode(), hashlib.sha256).digest()


def http(method, path, body=b"", headers=None):
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(body)}", *(f"{k}: {v}" for k, v in (headers or {}).items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answer_of(data):
    head, _, body = data[data.index(b"HTTP/1.1"):].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    return int(lines[0].split()[1]), {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}, body


def s_client(port, *args, data=b""):
    return subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *map(str, args)], input=data, capture_output=True, timeout=60)


class PskDevice:
    def __init__(self, stack, group=None, serial=None, product="pump", how=TLS13, identity=None, key=None, suffix=""):
        self.stack, self.how = stack, how
        self.serial = serial or unique("psk")
        self.identity = identity or f"{product}/{self.serial}{suffix}"
        self.psk = key or derive(group["secondary_key" if suffix else "primary_key"], self.identity)
        self.key = new_key()

    def options(self):
        return ("-psk_identity", self.identity, "-psk", self.psk.hex())

    def handshake(self, port=None, how=None):
        """Version and cipher, or NoHandshake; one by the server's certificate is none."""
        done = s_client(port or self.stack.port, *self.options(), *(how or self.how))
        m = re.search(rb"(?:New|Reused), (\S+), Cipher is (\S+)", done.stdout)
        if done.returncode != 0 or not m or b"NONE" in m.group(2) or b"no peer certificate available" not in done.stdout:
            raise NoHandshake(done.stderr.decode())
        return m.group(1).decode(), m.group(2).decode()

    def exchange(self, method, path, body=b"", headers=None):
        """(status, headers, body) whatever the status; NoHandshake where there is no answer."""
        done = s_client(self.stack.port, "-quiet", *self.options(), *self.how, data=http(method, path, body, headers))
        if b"HTTP/1.1" not in done.stdout:
            raise NoHandshake(done.stderr.decode())
        status, got, text = answer_of(done.stdout)
        kind = (headers or {}).get("Content-Type")
        openapi.SPEC.seen("device", method, path, kind, body, status, got, text)
        return status, got, text

    def request(self, *args, **kw):
        status, got, text = self.exchange(*args, **kw)
        if status not in (200, 202):
            raise Refused(status, got, text)
        return status, got, text

    def enrol(self, subject=None, key=None, label=None, operation="simpleenroll"):
        path = f"{EST}/{label}/{operation}" if label else f"{EST}/{operation}"
        csr = base64.b64encode(new_csr(key or self.key, subject or self.serial))
        (cert,) = certs_of(self.request("POST", path, csr, {"Content-Type": "application/pkcs10"})[2])
        return cert

    def enrol_json(self, **body):
        pem = "-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(new_csr(self.key, self.serial)).decode() + "-----END CERTIFICATE REQUEST-----\n"
        return json.loads(self.request("POST", "/v1/enroll", json.dumps({"csr": pem, **body}).encode(), {"Content-Type": "application/json"})[2])
