"""A small MQTT client, 3.1.1 and 5, over TLS: one thread, every packet in the caller's hands."""
import collections
import select
import socket
import ssl
import struct
import time

Message = collections.namedtuple("Message", "topic payload properties qos retain")
CONNACK, PUBLISH, PUBACK, SUBACK, UNSUBACK, PINGRESP, DISCONNECT = 2, 3, 4, 9, 11, 13, 14
WIDTHS = {0x01: 1, 0x02: 4, 0x11: 4, 0x13: 2, 0x17: 1, 0x18: 4, 0x19: 1, 0x21: 2, 0x22: 2, 0x23: 2, 0x24: 1, 0x25: 1, 0x27: 4, 0x28: 1, 0x29: 1, 0x2A: 1}


class Closed(Exception):
    """The broker has ended the connection; reason is that of its DISCONNECT, if it sent one."""

    def __init__(self, reason=None):
        self.reason = reason
        super().__init__(f"reason {reason}")


def text(value):
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack(">H", len(raw)) + raw


def varint(n):
    out = b""
    while True:
        n, low = n >> 7, n & 127
        out += bytes([low | 128 if n else low])
        if not n:
            return out


def varint_read(data, at):
    value, shift = 0, 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if not byte & 128:
            return value, at


def text_read(data, at):
    (n,) = struct.unpack_from(">H", data, at)
    return data[at + 2:at + 2 + n], at + 2 + n


def user_properties(data):
    """The user properties among a packet's."""
    at, found = 0, {}
    while at < len(data):
        kind, at = data[at], at + 1
        if kind == 0x26:
            name, at = text_read(data, at)
            value, at = text_read(data, at)
            found.setdefault(name.decode(), value.decode())
        elif kind == 0x0B:
            _, at = varint_read(data, at)
        elif kind in WIDTHS:
            at += WIDTHS[kind]
        else:
            _, at = text_read(data, at)
    return found


def packet(kind, flags, body):
    return bytes([kind << 4 | flags]) + varint(len(body)) + body


class Mqtt:
    """cert and key are paths; without them no certificate is shown."""

    def __init__(self, port, cafile, cert=None, key=None, version=5):
        context = ssl.create_default_context(cafile=cafile)
        if cert:
            context.load_cert_chain(cert, key)
        raw = socket.create_connection(("127.0.0.1", port), timeout=20)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(raw, server_hostname="127.0.0.1")
        self.version, self.mid, self.data = version, 0, b""
        self.messages = collections.deque()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        """Ends the connection without a word."""
        self.socket.close()

    def send(self, raw):
        try:
            self.socket.sendall(raw)
        except OSError as e:
            raise Closed() from e

    def properties(self, raw=b""):
        return varint(len(raw)) + raw if self.version == 5 else b""

    def readable(self, seconds):
        poll = select.poll()  # select ends at 1,024 files
        poll.register(self.socket, select.POLLIN)
        return poll.poll(seconds * 1000)

    # packets

    def connect_packet(self, client_id, clean=True, username=None, will=None, expiry=None):
        flags, tail = 0x02 if clean else 0, text(client_id)
        if will:
            topic, payload, qos, retain = will
            flags |= 0x04 | qos << 3 | (0x20 if retain else 0)
            tail += self.properties() + text(topic) + text(payload)
        if username is not None:
            flags |= 0x80
            tail += text(username)
        session = struct.pack(">BI", 0x11, expiry) if expiry is not None else b""
        return packet(1, 0, text("MQTT") + bytes([self.version, flags]) + struct.pack(">H", 600) + self.properties(session) + tail)

    def publish_packet(self, topic, payload=b"", qos=0, retain=False, user=()):
        self.mid += 1
        pairs = b"".join(b"\x26" + text(k) + text(v) for k, v in user)
        mid = struct.pack(">H", self.mid) if qos else b""
        return packet(PUBLISH, qos << 1 | bool(retain), text(topic) + mid + self.properties(pairs) + payload)

    def read(self, seconds=20):
        """The next packet: kind, flags, body."""
        end = time.monotonic() + seconds
        while True:
            try:
                size, at = varint_read(self.data, 1)
                if len(self.data) >= at + size:
                    head, body, self.data = self.data[0], self.data[at:at + size], self.data[at + size:]
                    return head >> 4, head & 15, body
            except IndexError:
                pass
            if not self.socket.pending() and not self.readable(max(0, end - time.monotonic())):
                raise TimeoutError("no packet from the broker")
            try:
                more = self.socket.recv(65536)
            except OSError as e:
                raise Closed() from e
            if not more:
                raise Closed()
            self.data += more

    def message_take(self, flags, body):
        topic, at = text_read(body, 0)
        qos = flags >> 1 & 3
        if qos:
            self.send(packet(PUBACK, 0, body[at:at + 2]))
            at += 2
        found = {}
        if self.version == 5:
            size, at = varint_read(body, at)
            found, at = user_properties(body[at:at + size]), at + size
        self.messages.append(Message(topic.decode(), body[at:], found, qos, flags & 1))

    def wait(self, kind, seconds=20):
        """The body of the next packet of that kind; messages on the way are kept."""
        while True:
            got, flags, body = self.read(seconds)
            if got == PUBLISH:
                self.message_take(flags, body)
            if got == kind:
                return body
            if got == DISCONNECT:
                raise Closed(body[0] if body else 0)

    # what a client does

    def connect(self, client_id, **kw):
        """The code of the CONNACK: 0, or 135 (5) respectively 5 (3.1.1) for not authorised."""
        self.send(self.connect_packet(client_id, **kw))
        body = self.wait(CONNACK)
        self.resumed = body[0] & 1
        return body[1]

    def publish(self, topic, payload=b"", qos=1, **kw):
        """The reason of the PUBACK, 0 where there is none."""
        self.send(self.publish_packet(topic, payload, qos, **kw))
        if not qos:
            return 0
        body = self.wait(PUBACK)
        return body[2] if len(body) > 2 else 0

    def subscribe(self, topic, qos=1):
        """The code of the SUBACK: the quality of service, or 128 and more for a refusal."""
        self.mid += 1
        self.send(packet(8, 2, struct.pack(">H", self.mid) + self.properties() + text(topic) + bytes([qos])))
        return self.wait(SUBACK)[-1]

    def unsubscribe(self, topic):
        self.mid += 1
        self.send(packet(10, 2, struct.pack(">H", self.mid) + self.properties() + text(topic)))
        self.wait(UNSUBACK)

    def ping(self):
        """Two turns of the broker's loop: what it had for us is then here."""
        for _ in range(2):
            self.send(packet(12, 0, b""))
            self.wait(PINGRESP)

    def message(self, seconds=20):
        while not self.messages:
            kind, flags, body = self.read(seconds)
            if kind == PUBLISH:
                self.message_take(flags, body)
            elif kind == DISCONNECT:
                raise Closed(body[0] if body else 0)
        return self.messages.popleft()

    def nothing(self):
        """Whether no message has come."""
        self.ping()
        return not self.messages

    def disconnect_packet(self):
        return packet(DISCONNECT, 0, b"")

    def disconnect(self):
        self.send(self.disconnect_packet())
        self.close()

    def ended(self, seconds=20):
        """Waits until the broker ends the connection; the reason of its DISCONNECT."""
        try:
            self.wait(None, seconds)
        except Closed as e:
            return e.reason
