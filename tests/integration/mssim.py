"""The protocol of Microsoft's TPM simulator in front of swtpm, for clients that speak nothing else: the TPM's port, and the platform's behind it."""
import contextlib
import socket
import struct
import threading

from tpm import port_pair

VERSION, SEND, HANDSHAKE, OK = 1, 8, 15, struct.pack(">I", 0)
PLATFORM = (1, 11)  # power on, NV on


def take(s, length):
    data = b""
    while len(data) < length:
        piece = s.recv(length - len(data))
        if not piece:
            raise ConnectionError
        data += piece
    return data


class Simulator:
    """One client at a time, as swtpm has it."""

    def __init__(self, tpm):
        self.tpm, self.port = tpm, port_pair()
        self.sockets = [socket.create_server(("127.0.0.1", self.port + n)) for n in (0, 1)]
        self.threads = [threading.Thread(target=self.serve, args=(s, f), daemon=True) for s, f in zip(self.sockets, (self.commands, self.platform))]

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *exc):
        for s in self.sockets:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()
        for t in self.threads:
            t.join(10)

    def serve(self, listening, talk):
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                with client, contextlib.suppress(ConnectionError):
                    talk(client)

    def platform(self, client):
        while True:
            (code,) = struct.unpack(">I", take(client, 4))
            if code in PLATFORM:
                client.sendall(OK)

    def commands(self, client):
        with socket.create_connection(("127.0.0.1", self.tpm.port)) as tpm:
            while True:
                (code,) = struct.unpack(">I", take(client, 4))
                if code == HANDSHAKE:
                    take(client, 4)
                    client.sendall(struct.pack(">II", VERSION, 0) + OK)
                elif code == SEND:
                    _, length = struct.unpack(">BI", take(client, 5))
                    tpm.sendall(take(client, length))
                    head = take(tpm, 10)
                    answer = head + take(tpm, struct.unpack_from(">HI", head)[1] - 10)
                    client.sendall(struct.pack(">I", len(answer)) + answer + OK)
                else:
                    return
