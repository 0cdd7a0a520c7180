import os
import socket

import pytest

from gdino_build.server_ports import ServerPorts, listener_of
from gdino_core.errors import ConfigError, ServerError


def test_ports_default_to_the_ones_that_the_readme_names_and_http_is_off() -> None:
    assert ServerPorts.from_environment({}) == ServerPorts(grpc=8001, http=None, metrics=8002)
    assert "HTTP_PORT" not in ServerPorts().by_variable()


def test_environment_changes_each_port() -> None:
    environment = {"GRPC_PORT": "1", "HTTP_PORT": "2", "METRICS_PORT": "65535"}
    assert ServerPorts.from_environment(environment) == ServerPorts(grpc=1, http=2, metrics=65535)


def test_empty_variable_is_as_good_as_none() -> None:
    assert ServerPorts.from_environment({"GRPC_PORT": ""}).grpc == 8001


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"GRPC_PORT": "http"}, "GRPC_PORT is 'http'\n  fix: give a port from 1 to 65535"),
        ({"HTTP_PORT": "0"}, "HTTP_PORT is 0"),
        ({"METRICS_PORT": "65536"}, "METRICS_PORT is 65536"),
        ({"HTTP_PORT": "8002"}, "two of GRPC_PORT 8001, HTTP_PORT 8002, METRICS_PORT 8002 are the same"),
        ({"METRICS_PORT": "8001"}, "two of GRPC_PORT 8001, METRICS_PORT 8001 are the same"),
    ],
)
def test_what_is_no_port_is_refused_with_its_variable(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ServerPorts.from_environment(environment)


def test_a_passing_server_takes_the_ports_that_are_named_and_else_any() -> None:
    assert ServerPorts.given_or_unused({"GRPC_PORT": "9001"}) == ServerPorts(grpc=9001)
    assert ServerPorts.given_or_unused({"HTTP_PORT": "9000"}) == ServerPorts(http=9000)
    assert ServerPorts.given_or_unused({"GRPC_PORT": ""}) != ServerPorts()


def test_unused_ports_are_unused() -> None:
    ServerPorts.unused().check_unused()


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_listener_on_any_address_makes_a_port_taken(address: str) -> None:
    with socket.socket() as holder:
        holder.bind((address, 0))
        holder.listen()
        port = holder.getsockname()[1]
        unused = ServerPorts.unused()
        with pytest.raises(ServerError, match=rf"port {port} is taken by .* \(pid {os.getpid()}\)\n.*GRPC_PORT="):
            ServerPorts(grpc=port, metrics=unused.metrics).check_unused()


def test_connection_that_was_just_closed_does_not_make_a_port_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # with SO_REUSEADDR, as servers have it
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()  # the side that closes first waits, in TIME_WAIT
    unused = ServerPorts.unused()
    ServerPorts(grpc=port, metrics=unused.metrics).check_unused()


def test_nobody_listens_on_an_unused_port() -> None:
    assert listener_of(ServerPorts.unused().grpc) == ""
