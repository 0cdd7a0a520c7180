"""An HTTP server on loopback that serves one file, and misbehaves as the path asks.

`/truncates/model.pth` serves the file with the fault `truncates`; every other first part of a path is a fault of the
same name below. The log holds every request: its fault, its Range, and how many bytes of the body were sent.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WEB_PAGE = b"<!DOCTYPE html><title>Sign in</title>"


@dataclass
class Request:
    """One request as the server saw it."""

    fault: str
    path: str
    range: str | None
    sent_bytes: int = 0
    authorization: str | None = None


@dataclass
class MisbehavingServer:
    """What is served, and what was asked.

    Attributes:
        content: the right file.
        url: of the server, without a path.
        log: requests in the order in which they came.
        go_on: `waits` sends the first half of the file, and the rest once this is set.
        half_sent: set by `waits` when the first half is out.
    """

    content: bytes
    url: str = ""
    log: list[Request] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)
    half_sent: threading.Event = field(default_factory=threading.Event)

    def at(self, fault: str) -> str:
        """The address of the file with a fault."""
        return f"{self.url}/{fault}/model.pth"

    def ranges(self) -> list[str | None]:
        """The Range of each request."""
        return [request.range for request in self.log]

    def faults(self) -> list[str]:
        """The fault of each request: which sources were asked, in order."""
        return [request.fault for request in self.log]


@contextmanager
def listening(server: MisbehavingServer) -> Iterator[MisbehavingServer]:
    """Let the server listen on a free loopback port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fault = self.path.split("/")[1]
            request = Request(fault, self.path, self.headers["Range"], authorization=self.headers["Authorization"])
            server.log.append(request)
            _Answer(self, server, request).give()

        def log_message(self, *_: object) -> None:
            pass

    class Listener(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # a client that hangs up early is what many tests are about

    with Listener(("127.0.0.1", 0), Handler) as listener:
        server.url = f"http://127.0.0.1:{listener.server_port}"
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.go_on.set()
            listener.shutdown()
            thread.join()


class _Answer:
    """One answer, with the fault that its request asks for."""

    def __init__(self, handler: BaseHTTPRequestHandler, server: MisbehavingServer, request: Request) -> None:
        self.handler, self.server, self.request = handler, server, request
        self.content = server.content
        self.size = len(server.content)
        self.start = int(request.range.removeprefix("bytes=").removesuffix("-")) if request.range else 0

    def give(self) -> None:
        name = self.request.fault.replace("-", "_")
        fault: Callable[[], None] = getattr(self, name, self.right)
        fault()

    def head(self, status: int, **headers: object) -> None:
        self.handler.send_response(status)
        for name, value in headers.items():
            self.handler.send_header(name.replace("_", "-"), str(value))
        self.handler.end_headers()

    def send(self, body: bytes) -> None:
        for at in range(0, len(body), 2**16):
            self.handler.wfile.write(body[at : at + 2**16])
            self.request.sent_bytes += len(body[at : at + 2**16])

    def right_head(self, content_length: int | None = None) -> None:
        length = self.size - self.start if content_length is None else content_length
        if self.start:
            content_range = f"bytes {self.start}-{self.size - 1}/{self.size}"
            self.head(206, Content_Length=length, Content_Range=content_range)
        else:
            self.head(200, Content_Length=length)

    def right(self) -> None:
        self.right_head()
        self.send(self.content[self.start :])

    # --- faults that a client can get over ---------------------------------------------------------------------------
    def truncates(self) -> None:
        """Announce all and close after a third of the file, each time."""
        self.right_head()
        self.send(self.content[self.start : self.start + self.size // 3])

    def truncates_silently(self) -> None:
        """The same without announcing a length, so that HTTP does not show it."""
        if self.start:
            self.head(206, Content_Range=f"bytes {self.start}-{self.size - 1}/{self.size}")
        else:
            self.head(200)
        self.send(self.content[self.start : self.start + self.size // 3])

    def stalls(self) -> None:
        """Fall silent in the middle; go on when asked again."""
        if self.start:
            self.right()
            return
        self.right_head()
        self.send(self.content[: self.size // 2])
        self.server.go_on.wait(timeout=30)

    def waits(self) -> None:
        """Send one half, wait, send the other."""
        if self.start:
            self.right()
            return
        self.right_head()
        self.send(self.content[: self.size // 2])
        self.server.half_sent.set()
        self.server.go_on.wait(timeout=30)
        self.send(self.content[self.size // 2 :])

    def ignores_range(self) -> None:
        self.start = 0
        self.right()

    def wrong_content_range(self) -> None:
        """Claim to send another part than was asked for."""
        if not self.start:
            self.right()
            return
        self.head(206, Content_Length=self.size, Content_Range=f"bytes 0-{self.size - 1}/{self.size}")
        self.send(self.content)

    def answers_416(self) -> None:
        """Refuse every Range."""
        if not self.start:
            self.right()
            return
        self.head(416, Content_Length=0, Content_Range=f"bytes */{self.size}")

    def redirects(self) -> None:
        self.head(302, Location="/right/model.pth", Content_Length=0)

    # --- faults that the source must be left for ---------------------------------------------------------------------
    def dies(self) -> None:
        """Send half; then, whatever is asked, nothing but a head."""
        self.right_head()
        self.send(self.content[: self.size // 2] if not self.start else b"")

    def always_truncates(self) -> None:
        """Announce all and send nothing."""
        self.right_head()

    def always_stalls(self) -> None:
        """Announce all, and fall silent before the first byte."""
        self.right_head()
        self.server.go_on.wait(timeout=30)

    def answers_nothing(self) -> None:
        """Take the connection, and never answer."""
        self.server.go_on.wait(timeout=30)

    def redirect_loop(self) -> None:
        self.head(302, Location=self.request.path, Content_Length=0)

    def redirects_to_a_file(self) -> None:
        self.head(302, Location="file:///etc/passwd", Content_Length=0)

    def answers_404(self) -> None:
        self.handler.send_error(404)

    def answers_500(self) -> None:
        self.handler.send_error(500)

    def always_416(self) -> None:
        self.head(416, Content_Length=0)

    def wrong_bytes(self) -> None:
        self.content = bytes(len(self.content))
        self.right()

    def oversized_body(self) -> None:
        """Send more than the file, without announcing how much."""
        self.head(200)
        self.send(self.content + bytes(2**22))

    def wrong_announced_size(self) -> None:
        self.head(200, Content_Length=self.size + 7)
        self.send(self.content + b"garbage")

    def wrong_announced_range(self) -> None:
        self.head(206, Content_Range=f"bytes {self.start}-{self.size + 6}/{self.size + 7}")

    def web_page(self) -> None:
        self.head(200, Content_Type="text/html; charset=utf-8", Content_Length=len(WEB_PAGE))
        self.send(WEB_PAGE)

    def unnamed_web_page(self) -> None:
        """A web page that does not say that it is one, nor how long it is."""
        self.head(200)
        self.send(b"\n" + WEB_PAGE)

    def compresses(self) -> None:
        self.head(200, Content_Encoding="gzip", Content_Length=self.size)

    def is_not_http(self) -> None:
        self.handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
