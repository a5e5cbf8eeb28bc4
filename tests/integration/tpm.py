"""A TPM 2.0 in software (swtpm) of a test's own, on free loopback ports, and what a device does with one, by tpm2-tools.

swtpm has no resource manager and talks to one client at a time: keys are made persistent, and what a tool leaves loaded is flushed behind it.
"""
import itertools
import os
import shutil
import socket
import ssl
import struct
import subprocess

from stack import free_port, wait_for

CREDENTIAL_FILE = bytes.fromhex("badcc0de00000001")  # how tpm2-tools begins a file with a credential
STORAGE = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|decrypt|noda"
SIGNING = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign|noda"
EK_RSA, EK_P384 = 0x81010001, 0x81010016  # those of the manufacturer
RS_PW = 0x40000009
TAG_SESSIONS = 0x8002
CC_CERTIFY = 0x148
RC_RETRY = 0x922


class TpmError(Exception):
    """A tool, or the TPM itself, said no."""


class Key:
    """A key in the TPM: its persistent handle and its TPM2B_PUBLIC."""

    def __init__(self, handle, public):
        self.handle, self.public = handle, public

    def __str__(self):
        return f"{self.handle:#010x}"


def sized(data):
    return struct.pack(">H", len(data)) + data


def take_sized(data):
    """The first TPM2B of data with its size, and the rest."""
    end = 2 + struct.unpack_from(">H", data)[0]
    assert end <= len(data), data.hex()
    return data[:end], data[end:]


def split_activation_blob(blob):
    """The six parts of Azure's authenticationKey, each with its size."""
    parts = []
    while blob:
        part, blob = take_sized(blob)
        parts.append(part)
    assert len(parts) == 6, len(parts)
    return parts


def port_pair():
    """The TCTI takes the port behind the TPM's for its control channel."""
    for _ in range(100):
        port = free_port()
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port + 1))
                return port
            except OSError:
                continue
    raise AssertionError("no two free ports in a row")


class Tpm:
    def __init__(self, folder):
        self.folder = folder
        self.process = None
        self.handles = itertools.count(0x81000010)

    def __enter__(self):
        for tool in ("swtpm", "swtpm_setup", "tpm2_createek"):
            assert shutil.which(tool), f"{tool} is not installed"
        self.manufacture()
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc):
        self.stop()

    # manufacture, power

    def manufacture(self):
        """Endorsement keys of RSA-2048 and P-384 at EK_RSA and EK_P384, with certificates of a CA of this folder."""
        for name in ("state", "ca", "certs"):
            (self.folder / name).mkdir()
        self.write("localca.conf", f"statedir = {self.folder}/ca\nsigningkey = {self.folder}/ca/signkey.pem\n"
                                   f"issuercert = {self.folder}/ca/issuercert.pem\ncertserial = {self.folder}/ca/certserial\n")
        self.write("localca.options", "--platform-manufacturer Test\n--platform-version 1\n--platform-model Test\n")
        self.write("setup.conf", f"create_certs_tool = {shutil.which('swtpm_localca')}\ncreate_certs_tool_config = {self.folder}/localca.conf\n"
                                 f"create_certs_tool_options = {self.folder}/localca.options\nactive_pcr_banks = sha256\n")
        self.run("swtpm_setup", "--tpm2", "--tpmstate", self.folder / "state", "--create-ek-cert", "--write-ek-cert-files", self.folder / "certs",
                 "--config", self.folder / "setup.conf")

    def start(self):
        for _ in range(5):  # somebody else may take one of the ports first
            self.port = port_pair()
            self.process = subprocess.Popen(
                ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.folder}/state", "--flags", "not-need-init,startup-clear",
                 "--server", f"type=tcp,port={self.port},bindaddr=127.0.0.1", "--ctrl", f"type=tcp,port={self.port + 1},bindaddr=127.0.0.1"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wait_for("swtpm", lambda: self.process.poll() is not None or self.answers())
            if self.process.poll() is None:
                return
        raise AssertionError("swtpm does not start")

    def answers(self):
        try:
            self.tool("tpm2_getcap", "properties-fixed")
        except TpmError:
            return False
        return True

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(20)
            self.process = None

    def certificate(self, name):
        """DER of the manufacturer's: "ek-rsa2048", "ek-secp384r1", "issuer", "root"."""
        if name.startswith("ek-"):
            return self.read(f"certs/{name}.crt")
        pem = self.read({"issuer": "ca/issuercert.pem", "root": "ca/swtpm-localca-rootca-cert.pem"}[name]).decode()
        return ssl.PEM_cert_to_DER_cert(pem)

    # tools

    def write(self, name, data):
        path = self.folder / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    def read(self, name):
        return (self.folder / name).read_bytes()

    def run(self, *args, **kw):
        done = subprocess.run([str(a) for a in args], cwd=self.folder, capture_output=True, timeout=120, **kw)
        if done.returncode != 0:
            raise TpmError(f"{args[0]}: {done.stderr.decode(errors='replace')}{done.stdout.decode(errors='replace')}")
        return done.stdout

    def tool(self, *args, **kw):
        env = {**os.environ, "TPM2TOOLS_TCTI": f"swtpm:host=127.0.0.1,port={self.port}", "TSS2_LOG": "all+NONE"}
        return self.run(*args, env=env, **kw)

    def flush(self, what="-t"):
        self.tool("tpm2_flushcontext", what)

    def persist(self, context):
        """Takes a loaded key's context to a handle of its own."""
        handle = next(self.handles)
        self.tool("tpm2_evictcontrol", "-C", "o", "-c", context, f"{handle:#x}")
        self.flush()
        return self.key_at(handle)

    def key_at(self, handle):
        self.tool("tpm2_readpublic", "-c", f"{handle:#x}", "-o", "public")
        return Key(handle, self.read("public"))

    # keys

    def endorsement_key(self, algorithm):
        """By the TCG's template, L-1 for "rsa", L-2 for "ecc" (P-256)."""
        self.tool("tpm2_createek", "-G", algorithm, "-c", "ek.ctx", "-u", "ek.pub")
        self.flush()
        return self.persist("ek.ctx")

    def storage_root_key(self, algorithm):
        """algorithm as tpm2_createprimary -G has it: "rsa2048", "ecc256"."""
        self.tool("tpm2_createprimary", "-C", "o", "-g", "sha256", "-G", f"{algorithm}:null:aes128cfb", "-a", STORAGE, "-c", "srk.ctx")
        self.flush()
        return self.persist("srk.ctx")

    def attestation_key(self, ek, algorithm="ecc", scheme="ecdsa"):
        self.tool("tpm2_createak", "-C", ek, "-c", "ak.ctx", "-G", algorithm, "-g", "sha256", "-s", scheme, "-u", "ak.pub")
        self.flush()
        return self.persist("ak.ctx")

    def signing_key(self, srk, algorithm="ecc256", attributes=SIGNING):
        self.tool("tpm2_create", "-C", srk, "-g", "sha256", "-G", algorithm, "-a", attributes, "-u", "key.pub", "-r", "key.priv")
        self.flush()
        return self.load(srk, "key.pub", "key.priv")

    def load(self, parent, public, private):
        self.tool("tpm2_load", "-C", parent, "-u", public, "-r", private, "-c", "loaded.ctx")
        self.flush()
        return self.persist("loaded.ctx")

    # what a device does

    def activate(self, ek, key, id_object, encrypted_secret, policy=True):
        """TPM2_ActivateCredential: the secret made for ek and the name of key. An EK opens by a policy session; the manufacturer's of P-384 by
        its empty password."""
        self.write("credential", CREDENTIAL_FILE + id_object + encrypted_secret)
        command = ["tpm2_activatecredential", "-c", key, "-C", ek, "-i", "credential", "-o", "secret"]
        try:
            if policy:
                self.tool("tpm2_startauthsession", "--policy-session", "-S", "session.ctx")
                self.tool("tpm2_policysecret", "-S", "session.ctx", "-c", "e")
                command += ["-P", "session:session.ctx"]
            self.tool(*command)
        finally:
            self.flush("-s")
        return self.read("secret")

    def import_hmac_key(self, ek, srk, blob):
        """All that a device does with Azure's authenticationKey; returns the key."""
        id_object, identity, duplicate, seed, public, data = split_activation_blob(blob)
        assert data == sized(b"")
        self.write("inner", self.activate(ek, srk, id_object, identity))
        for name, part in (("duplicate", duplicate), ("seed", seed), ("hmac.pub", public)):
            self.write(name, part)
        self.tool("tpm2_import", "-C", srk, "-i", "duplicate", "-s", "seed", "-u", "hmac.pub", "-k", "inner", "-r", "hmac.priv")
        self.flush()
        return self.load(srk, "hmac.pub", "hmac.priv")

    def hmac(self, key, data):
        self.write("message", data)
        self.tool("tpm2_hmac", "-c", key, "-g", "sha256", "-o", "mac", "message")
        self.flush()
        return self.read("mac")

    def send(self, tag, code, body):
        """A command in its bytes, again where the TPM asks for that; the response behind its header."""
        self.write("command", struct.pack(">HII", tag, 10 + len(body), code) + body)
        for _ in range(20):
            self.tool("tpm2_send", "-o", "response", "command")
            response = self.read("response")
            _, length, result = struct.unpack_from(">HII", response)
            if result != RC_RETRY:
                break
        if result != 0 or length != len(response):
            raise TpmError(f"command {code:#x}: {result:#x}")
        return response[10:]

    def certify(self, key, ak, nonce):
        """TPM2_Certify, which the tool calls with a nonce of its own only: TPMS_ATTEST and TPMT_SIGNATURE."""
        password = struct.pack(">IHBH", RS_PW, 0, 0, 0)
        body = struct.pack(">III", key.handle, ak.handle, 2 * len(password)) + 2 * password + sized(nonce) + struct.pack(">H", 0x0010)
        response = self.send(TAG_SESSIONS, CC_CERTIFY, body)
        (length,) = struct.unpack_from(">I", response)
        attest, signature = take_sized(response[4:4 + length])
        return attest[2:], signature
