"""Many connections that begin and do not go on: slow loris, with a byte now and then."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

_INTERVAL_S = 0.2
# A connection's preface and SETTINGS, then a HEADERS frame, valid so far, that comes byte by byte.
_BEGIN = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
_HEADERS = b"\x00\x40\x00\x01\x00\x00\x00\x00\x01" + b"\x00\x01x\x7f\xc1\x3d" + b"a" * 8000  # x: aaaa…


class HalfOpen:
    """Connections of three kinds: silent, in the midst of TLS, and in the midst of a call's headers.

    Args:
        address: of the server.
        ca: its authority.
        count: connections of each kind.
        certificate: of a client with its key, for mutual TLS.
    """

    def __init__(self, address: tuple[str, int], ca: Path, count: int, certificate: tuple[Path, Path] | None = None):
        context = ssl.create_default_context(cafile=ca)
        context.set_alpn_protocols(["h2"])
        if certificate:
            context.load_cert_chain(*certificate)
        self.silent = [socket.create_connection(address) for _ in range(count)]
        self.in_handshake = [socket.create_connection(address) for _ in range(count)]
        self.in_headers = [
            context.wrap_socket(socket.create_connection(address), server_hostname="localhost") for _ in range(count)
        ]
        self._hello = _client_hello(context)

    def trickle(self, rounds: threading.Event) -> None:
        """Send a byte on each at a time, until told to stop."""
        for connection in self.in_headers:
            with contextlib.suppress(OSError):
                connection.sendall(_BEGIN)
        position = 0
        while not rounds.wait(_INTERVAL_S):
            for connections, content in ((self.in_handshake, self._hello), (self.in_headers, _HEADERS)):
                for connection in connections:
                    with contextlib.suppress(OSError):  # hung up on
                        connection.sendall(content[position : position + 1])
            position += 1

    def close(self) -> None:
        for connection in (*self.silent, *self.in_handshake, *self.in_headers):
            connection.close()


def all_are_hung_up(connections: Sequence[socket.socket], timeout_s: float) -> bool:
    """Whether the other side ends all connections within a time; what it says before is left aside."""
    deadline = time.monotonic() + timeout_s
    return all(_is_hung_up(connection, deadline) for connection in connections)


def _is_hung_up(connection: socket.socket, deadline: float) -> bool:
    try:
        while True:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            if not connection.recv(4096):
                return True
    except TimeoutError:
        return False
    except OSError:  # reset
        return True


@contextlib.contextmanager
def half_open(
    address: tuple[str, int], ca: Path, count: int, certificate: tuple[Path, Path] | None = None
) -> Iterator[HalfOpen]:
    """Hold half-open connections, and trickle, while a `with` block lasts."""
    connections, stop = HalfOpen(address, ca, count, certificate), threading.Event()
    thread = threading.Thread(target=connections.trickle, args=[stop])
    thread.start()
    try:
        yield connections
    finally:
        stop.set()
        thread.join()
        connections.close()


def _client_hello(context: ssl.SSLContext) -> bytes:
    sent = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost").do_handshake()
    return sent.read()
