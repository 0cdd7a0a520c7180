"""Hostile requests are each answered with the right code, and the server goes on as if they had not been."""

import pytest

from gdino_build.machine import session_processes
from gdino_build.serve import RunningServer
from tests.end_to_end.fuzzer import KINDS, fuzz

pytestmark = pytest.mark.server

REQUESTS = 1000


def test_a_thousand_hostile_requests_harm_nobody(server: RunningServer) -> None:
    before = session_processes(server.pid)
    findings = fuzz(server.grpc_url, REQUESTS, seed=0)
    assert not findings.wrong, "\n".join(findings.wrong[:20])
    assert session_processes(server.pid).keys() == before.keys()
    assert len(findings.answered) > len(KINDS)
