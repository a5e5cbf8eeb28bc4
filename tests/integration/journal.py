"""Journals of replicas: stacks that keep one, what stands in their files, and registries made again from them."""
import contextlib
import hashlib
import json
import os

import psycopg2
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from client import Device
from replica import Replica
from stack import Refused, Stack


def journal_make(folder):
    """A folder and the key that seals its files."""
    directory, key_file = folder / "journal", folder / "journal.key"
    directory.mkdir(mode=0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    key_file.touch(0o600)
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    public = folder / "journal.pub"
    public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return directory, key_file, public


class Keeps:
    """Keeps a journal of its own."""
    more = {}

    def configure(self, **extra):
        if not hasattr(self, "journal"):
            self.journal, self.journal_key, self.journal_public = journal_make(self.folder)
        super().configure(**{"journal__directory": self.journal, "journal__key_file": self.journal_key, **self.more, **extra})

    def files(self):
        return sorted(self.journal.glob("*.jsonl"))

    def lines(self, kind=None):
        """The lines of all files, whose chain must hold."""
        found, prev, n = [], "0" * 64, 0
        for file in self.files():
            for line in file.read_bytes().split(b"\n")[:-1]:
                entry = json.loads(line)
                n += 1
                assert (entry["n"], entry["prev"]) == (n, prev), (file, line)
                prev = hashlib.sha256(line).hexdigest()
                found.append(entry)
        return [e for e in found if kind is None or e.get("kind") == kind]


class JournaledStack(Keeps, Stack):
    pass


class JournaledReplica(Keeps, Replica):
    pass


def sealed(file):
    return "seal" in json.loads(file.read_bytes().split(b"\n")[-2])


def mode(path):
    return os.stat(path).st_mode & 0o777


def lose(stack):
    """The database is gone, and an empty one is there, with the newest schema."""
    with contextlib.closing(psycopg2.connect(host="127.0.0.1", port=stack.pg_port, user="muster", dbname="postgres")) as c, c.cursor() as cursor:
        c.autocommit = True
        cursor.execute("DROP DATABASE muster WITH (FORCE)")
        cursor.execute("CREATE DATABASE muster OWNER muster")
    stack.migrate()


def rebuild(stack, *args, code=0):
    """What the report says."""
    done = stack.musterd("registry", "rebuild", "--json", *args, check=False)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return json.loads(done.stdout)


def from_journals(*stacks):
    return [a for s in stacks for a in ("--journal", s.journal, "--journal-key", s.journal_public)]


def device(stack, template="open", serial=None):
    d = Device(stack, serial, template)
    d.token = stack.mint(template, d.serial)
    d.enrol()
    return d


def issued(stack, serial):
    return [e for e in stack.lines("issued") if e["serial"] == serial]


def ended(stack, serial):
    return [(e["kind"], e.get("reason")) for e in stack.lines() if e.get("serial") == serial and e["kind"] != "issued"]


def refused(code, call, *args, **kw):
    with pytest.raises(Refused) as caught:
        call(*args, **kw)
    assert caught.value.code == code, caught.value
