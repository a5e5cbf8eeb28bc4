"""A private PostgreSQL and musterd on free loopback ports, ended by their process ids."""
import contextlib
import json
import os
import pathlib
import random
import re
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

import psycopg2

import openapi

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("MUSTER_BUILD", ROOT / "build"))
MUSTERD = BUILD / "server" / "musterd"
MUSTER = BUILD / "server" / "muster"
TEMPLATES = ROOT / "tests" / "integration" / "templates"
SCOPE = "0ne00000001"  # of the device API of DPS
LOSE = "SET LOCAL session_replication_role = replica; "  # before a DELETE that the schema would refuse


def free_port():
    """None of those that the kernel gives to connections going out, where it leaves any: one could take it before its server does, or while that is stopped."""
    first, last = map(int, pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    ports = range(max(1024, first // 2), first) or range(last + 1, 65536) or range(first, last + 1)
    for _ in range(1000):
        port = random.choice(ports)
        with contextlib.suppress(OSError), socket.socket() as s:
            s.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def wait_for(what, condition, seconds=30):
    """Polls until condition() is true; fails with what was waited for."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        result = condition()
        if result:
            return result
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds} s for {what}")


def shell(script, **env):
    """Runs a function of deploy/lib.sh."""
    done = subprocess.run(["bash", "-c", f". {ROOT}/deploy/lib.sh; {script}"], env={**os.environ, **env},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


class Refused(Exception):
    """An answer that is no success: status, the problem's members, the headers."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body
        try:
            self.problem = json.loads(body)
        except ValueError:
            self.problem = {}
        self.code = self.problem.get("code")
        super().__init__(f"{status} {body[:500]!r}")


class Stack:
    def __init__(self, folder, pg_options=""):
        self.folder = folder
        os.chmod(folder, 0o755)
        self.pg_port = free_port()
        self.pg_options = pg_options
        self.process = None
        self.token = None
        self.prefix = []  # what musterd is started by
        self.doors = False  # SCEP, and keys that both sides know: they need files that are made after init

    def __enter__(self):
        self.doors = True
        self.pg_start()
        try:
            self.configure()
            self.migrate()
            self.token = self.musterd("init", "--organization", "Test").stdout.strip()
            self.secrets_key()
            self.musterd("add-ra", "--organization", "Test")
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc):
        self.stop()
        self.pg_stop("immediate")

    # PostgreSQL

    def pg_start(self):
        shell(f'pg_start "{self.folder}/pg" {self.pg_port}', PG_OPTIONS="-c fsync=off " + self.pg_options)

    def pg_stop(self, mode="fast"):
        shell(f'pg_stop "{self.folder}/pg" {mode}')

    def sql(self, text, *args):
        """Rows of a statement; commits."""
        with contextlib.closing(psycopg2.connect(host="127.0.0.1", port=self.pg_port, user="muster", dbname="muster",
                                                 options="-c search_path=muster")) as c, c, c.cursor() as cursor:
            cursor.execute(text, args or None)
            return cursor.fetchall() if cursor.description else []

    def one(self, text, *args):
        rows = self.sql(text, *args)
        assert len(rows) == 1, (text, args, rows)
        return rows[0][0] if len(rows[0]) == 1 else rows[0]

    # musterd

    def configure(self, **extra):
        self.config = self.folder / "musterd.conf"
        sections = {
            "listen": {"device_address": "127.0.0.1", "device_port": 0, "admin_address": "127.0.0.1", "admin_port": 0,
                       "ports_file": self.folder / "ports", "max_connections": 600},
            "tls": {"certificate": self.folder / "server.pem", "key": self.folder / "server.key"},
            "database": {"host": "127.0.0.1", "port": self.pg_port, "name": "muster", "user": "muster"},
            "ca": {"directory": self.folder / "ca"},
            "enrol": {"default_template": "open", "refused_tokens_burst": 100000},
            "admin": {"login_failures_per_minute": 10000},
            "trail": {"records_per_source_s": 1000, "records_per_source_burst": 10000},
            "dps": {"id_scope": SCOPE},
        }
        if self.doors:
            sections["secrets"] = {"key": "secrets.key"}
            sections["scep"] = {"certificate": self.folder / "scep-ra.pem", "key": "scep-ra.key", "address": "127.0.0.1", "port": 0}
        for key, value in extra.items():
            section, name = key.split("__")
            sections.setdefault(section, {})[name] = value
        text = "".join(f"[{s}]\n" + "".join(f"{k} = {v}\n" for k, v in keys.items()) for s, keys in sections.items())
        self.config.write_text(text)

    def musterd(self, *args, check=True):
        done = subprocess.run([MUSTERD, "--config", self.config, *map(str, args)], capture_output=True, text=True)
        assert not check or done.returncode == 0, done.stderr
        return done

    def secrets_key(self):
        """The key outside the registry, as docs/operations.md has it made."""
        subprocess.run(["openssl", "genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", self.folder / "ca" / "secrets.key"],
                       check=True, stderr=subprocess.DEVNULL)

    def migrate(self):
        self.musterd("migrate")

    def start(self):
        ports = self.folder / "ports"
        ports.unlink(missing_ok=True)
        self.log = open(self.folder / "musterd.log", "ab")
        self.process = subprocess.Popen([*self.prefix, MUSTERD, "serve", "--config", self.config], stderr=self.log,
                                        stdin=subprocess.DEVNULL)
        wait_for("musterd to listen", lambda: ports.exists() or self.process.poll() is not None)
        assert self.process.poll() is None, self.log_text()[-3000:]
        listed = dict(line.split("=") for line in ports.read_text().split())
        self.port, self.admin_port = int(listed["device"]), int(listed["admin"])
        self.proxy_port = int(listed.get("proxy", 0))
        self.scep_port = int(listed.get("scep", 0))
        self.cafile = self.folder / "ca" / "root.pem"

    def stop(self, sig=signal.SIGTERM):
        """Ends musterd; a sanitizer's report or a crash fails the test."""
        if not self.process:
            return None
        self.process.send_signal(sig)
        code = self.process.wait(90)
        self.process = None
        self.log.close()
        if sig == signal.SIGTERM:
            assert code == 0, (code, self.log_text()[-6000:])
        return code

    def log_text(self):
        return (self.folder / "musterd.log").read_text(errors="replace")

    def log_records(self):
        records = []
        for line in self.log_text().splitlines():
            with contextlib.suppress(ValueError):
                records.append(json.loads(line))
        return records

    # the admin API and the CLI

    def tls(self, cert=None, key=None):
        context = ssl.create_default_context(cafile=str(self.cafile))
        if cert:
            context.load_cert_chain(cert, key)
        return context

    def admin(self, method, path, body=None, kind="application/json", token=None, raw=False):
        data = json.dumps(body).encode() if body is not None and kind == "application/json" and not isinstance(body, bytes) else body
        headers = {"Authorization": f"Bearer {token or self.token}"}
        if data is not None:
            headers["Content-Type"] = kind
        elif method in ("POST", "PUT"):
            data = b""
            headers["Content-Type"] = kind
        request = urllib.request.Request(f"https://127.0.0.1:{self.admin_port}{path}", data=data, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, context=self.tls(), timeout=60) as answer:
                text = answer.read()
                openapi.SPEC.seen("admin", method, path, kind, data, answer.status, answer.headers, text)
                if raw:
                    return answer.status, dict(answer.headers), text
                return json.loads(text) if text else None
        except urllib.error.HTTPError as e:
            text = e.read()
            openapi.SPEC.seen("admin", method, path, kind, data, e.code, e.headers, text)
            raise Refused(e.code, dict(e.headers), text) from None

    def v1(self, method, path, body=None, **kw):
        return self.admin(method, "/admin/v1" + path, body, **kw)

    def pages(self, path, most=10000):
        """The arrays of a list, page by page, following Link."""
        for _ in range(most):
            _, headers, body = self.admin("GET", "/admin/v1" + path, raw=True)
            yield json.loads(body)
            link = headers.get("Link")
            if not link:
                return
            path = link[1:link.index(">")].removeprefix("/admin/v1")

    def cli(self, *args, check=True, stdin=None, token=None):
        env = {**os.environ, "MUSTER_ADMIN_URL": f"https://127.0.0.1:{self.admin_port}",
               "MUSTER_ADMIN_TOKEN": token or self.token, "MUSTER_CACERT": str(self.cafile)}
        done = subprocess.run([MUSTER, *map(str, args)], capture_output=True, text=True, env=env, input=stdin)
        assert not check or done.returncode == 0, (args, done.returncode, done.stdout, done.stderr)
        return done

    def cli_json(self, *args, **kw):
        return json.loads(self.cli(*args, "--json", **kw).stdout)

    # what most tests need

    def seed(self):
        """A product and templates of every temper."""
        self.v1("POST", "/products", {"name": "pump"})
        self.v1("POST", "/products", {"name": "folded", "serial_case": "upper", "strip_separators": True})
        for file in sorted(TEMPLATES.glob("*.json")):
            product = "folded" if file.stem == "folded" else "pump"
            self.v1("PUT", f"/templates/{file.stem}?product={product}", file.read_bytes())

    def allow(self, *serials, product="pump"):
        return self.v1("POST", f"/products/{product}/allowlist", "\n".join(serials).encode(), kind="text/csv")

    def mint(self, template="strict", serial=None, **kw):
        """A token's text."""
        body = {"template": template, **kw}
        if serial:
            body["serial"] = serial
        return self.v1("POST", "/tokens", body)[0]["token"]

    def catalog_caught_up(self):
        """Waits until what was written past this server, or at another, counts here: templates and CAs are looked at every second."""
        epoch = self.one("SELECT epoch FROM registry_epoch")
        wait_for("the catalog", lambda: self.metric("muster_catalog_epoch") >= epoch)

    def metric(self, name):
        """The value of one series without labels."""
        return float(re.search(rf"^{name} (\S+)$", self.admin("GET", "/metrics", raw=True)[2].decode(), re.M)[1])

    def device(self, serial, **query):
        suffix = "?" + urllib.parse.urlencode(query) if query else ""
        return self.v1("GET", f"/devices/{serial}{suffix}")

    def state(self, serial):
        return self.device(serial)["state"]

    def last_attempt(self, serial):
        """Outcome and detail of the newest trail row of a serial."""
        rows = self.sql("SELECT outcome, detail FROM history WHERE serial = %s ORDER BY at DESC LIMIT 1", serial)
        return rows[0] if rows else None
