"""The worker's HTTP endpoint, asked over a real connection."""

from __future__ import annotations

import os
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import NamedTuple

import pytest

from celeriac.errors import ConfigurationError
from celeriac.telemetry.health import Health
from celeriac.telemetry.http import MAX_CONNECTIONS, Endpoint
from tests.helpers import wait_until

WELL = Health(
    started=True,
    stopping=False,
    loop_ages={"beat": 1.0, "scheduler": 0.2},
    slots_alive=4,
    slots_wanted=4,
    consuming_age=0.5,
)
OWN = "127.0.0.1"


class Answer(NamedTuple):
    status: int
    text: str
    content_type: str


class Worker:
    """An endpoint with a state that a test changes."""

    def __init__(self) -> None:
        self.health = WELL
        self.endpoint = Endpoint(OWN, 0, health=self._tell, exposition=lambda accept: ("text/x-test", accept.encode()))

    def _tell(self) -> Health:
        return self.health

    def get(self, path: str, method: str = "GET") -> Answer:
        return get(self.endpoint.port, path, method)


def get(port: int, path: str, method: str = "GET") -> Answer:
    request = urllib.request.Request(f"http://{OWN}:{port}{path}", method=method, headers={"Accept": "text/asked"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return Answer(response.status, response.read().decode(), response.headers["Content-Type"])
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read().decode(), error.headers["Content-Type"])


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    with worker.endpoint:
        yield worker


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/startupz"])
def test_a_worker_that_is_well_passes_every_probe(worker: Worker, path: str) -> None:
    assert worker.get(path)[:2] == (200, "ok\n")


@pytest.mark.parametrize(
    ("state", "failing"),
    [
        pytest.param({"started": False}, {"/readyz", "/startupz"}, id="starting"),
        pytest.param({"stopping": True}, {"/readyz"}, id="stopping"),
        pytest.param({"slots_alive": 0, "consuming_age": None}, {"/readyz"}, id="no slots"),
        pytest.param({"broker_error": "refused", "consuming_age": 999.0}, {"/readyz"}, id="broker down"),
        pytest.param({"consuming_age": 30.0}, {"/readyz"}, id="not consuming"),
        pytest.param({"consuming_age": 999.0}, {"/readyz", "/livez"}, id="deaf"),
        pytest.param({"consuming_age": None}, set(), id="all slots busy"),
        pytest.param({"stopping": True, "consuming_age": 999.0}, {"/readyz"}, id="draining"),
        pytest.param({"loop_ages": {"beat": 90.0}}, {"/livez"}, id="stuck loop"),
    ],
)
def test_each_trouble_fails_the_probes_that_it_should(
    worker: Worker, state: dict[str, object], failing: set[str]
) -> None:
    worker.health = replace(WELL, **state)  # type: ignore[arg-type]

    assert {path for path in ("/livez", "/readyz", "/startupz") if worker.get(path).status == 503} == failing


def test_a_failing_probe_says_why(worker: Worker) -> None:
    worker.health = replace(WELL, broker_error="connection refused")

    assert worker.get("/readyz").text == "[-] broker: connection refused\nreadyz failed\n"


def test_verbose_lists_every_check(worker: Worker) -> None:
    text = worker.get("/livez?verbose").text

    assert text.splitlines() == [
        "[+] loop beat: last turn 1.0 s ago (limit 60 s)",
        "[+] loop scheduler: last turn 0.2 s ago (limit 60 s)",
        "[+] consuming: asked for messages 0.5 s ago (limit 120 s)",
        "ok",
    ]


def test_metrics_are_served_in_the_format_asked_for(worker: Worker) -> None:
    assert worker.get("/metrics") == Answer(200, "text/asked", "text/x-test")


def test_a_head_request_has_no_body_and_other_paths_are_not_found(worker: Worker) -> None:
    assert worker.get("/readyz", "HEAD")[:2] == (200, "")
    assert worker.get("/nothing").status == 404
    assert "/metrics" in worker.get("/").text


def test_without_the_extra_the_probes_work_and_metrics_names_the_pip_line() -> None:
    with Endpoint(OWN, 0, health=lambda: WELL) as endpoint:
        answer = get(endpoint.port, "/metrics")

        assert get(endpoint.port, "/livez").status == 200
    assert answer.status == 501
    assert "pip install 'celeriac[metrics]'" in answer.text


def test_an_error_while_answering_is_told_and_does_not_end_the_server() -> None:
    def broken() -> Health:
        raise RuntimeError("no state")

    with Endpoint(OWN, 0, health=broken) as endpoint:
        answers = [get(endpoint.port, "/livez") for _ in range(2)]

    assert [(answer.status, answer.text) for answer in answers] == [(500, "RuntimeError: no state\n")] * 2


def test_a_port_in_use_is_a_configuration_error_that_names_the_way_out(worker: Worker) -> None:
    with pytest.raises(ConfigurationError, match=f"port {worker.endpoint.port}.*--http-port"):
        Endpoint(OWN, worker.endpoint.port, health=lambda: WELL)


def test_stopping_frees_the_port_at_once_and_may_be_done_twice() -> None:
    first = Endpoint(OWN, 0, health=lambda: WELL)
    first.start()
    assert get(first.port, "/livez").status == 200

    first.stop()
    first.stop()

    with Endpoint(OWN, first.port, health=lambda: WELL) as second:
        assert get(second.port, "/livez").status == 200


def test_connections_that_say_nothing_are_bounded_and_do_not_hold_up_the_stop(worker: Worker) -> None:
    port = worker.endpoint.port
    silent = [socket.create_connection((OWN, port), timeout=10) for _ in range(MAX_CONNECTIONS)]
    with closing(socket.create_connection((OWN, port), timeout=10)) as one_too_many:
        assert one_too_many.recv(1) == b""
    for connection in silent:
        connection.close()

    wait_until(lambda: _status_or_none(port) == 200)


def _status_or_none(port: int) -> int | None:
    try:
        return get(port, "/livez").status
    except OSError:
        return None


def test_a_forked_child_does_not_keep_the_port(worker: Worker) -> None:
    port = worker.endpoint.port
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write_end)
        os.read(read_end, 1)
        os._exit(0)
    try:
        worker.endpoint.stop()

        with Endpoint(OWN, port, health=lambda: WELL) as second:
            assert get(second.port, "/livez").status == 200
    finally:
        os.close(write_end)
        os.close(read_end)
        os.waitpid(pid, 0)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no dual-stack IPv6 on this machine")
def test_a_double_colon_serves_both_families() -> None:
    with Endpoint("::", 0, health=lambda: WELL) as endpoint:
        assert get(endpoint.port, "/livez").status == 200
        with urllib.request.urlopen(f"http://[::1]:{endpoint.port}/livez", timeout=10) as response:
            assert response.status == 200
