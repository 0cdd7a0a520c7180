"""The database of vulnerabilities as OSV's documentation has it: a query names a package and a version.

Its one entry is shortened from GHSA-j7hp-h8jx-5ppr (CVE-2023-4863), which is real; the version that it is found in here
is the one that is installed, and is not affected.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

VULNERABILITY: dict[str, Any] = {
    "id": "GHSA-j7hp-h8jx-5ppr",
    "summary": "libwebp: OOB write in BuildHuffmanTable",
    "aliases": ["CVE-2023-4863"],
    "modified": "2025-11-04T16:36:00Z",
    "published": "2023-09-12T15:30:20Z",
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "pillow"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.0.0"}]}],
            "versions": [],
        }
    ],
}


@dataclass
class OsvServer:
    """Where it listens, what it knows something against, and what it was asked."""

    url: str = ""
    vulnerable: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def osv_server(vulnerable: str = "") -> Iterator[OsvServer]:
    """Answer queries while a `with` block lasts."""
    state = OsvServer(vulnerable=vulnerable)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.asked.append((query["package"]["name"], query["version"]))
            known = query["package"]["name"] == state.vulnerable
            answer = json.dumps({"vulns": [VULNERABILITY]} if known else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}/v1/query"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
