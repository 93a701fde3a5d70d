"""One worker of each kind for the whole session."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest

from tests.oracle.lab import OURS, STOCK, Lab, laboratory
from tests.oracle.programs import Program
from tests.oracle.transcript import Transcript
from tests.servers import RedisServer

Transcripts = dict[tuple[str, str, str], Transcript]
RunAll = Callable[[Mapping[str, Program]], Transcripts]


@pytest.fixture(scope="session")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Lab]]:
    """The two labs by the kind of their worker."""
    logs = tmp_path_factory.mktemp("oracle")
    with (
        RedisServer() as server,
        laboratory(server, STOCK, (0, 1), logs / "celery.log") as stock,
        laboratory(server, OURS, (2, 3), logs / "celeriac.log") as ours,
    ):
        yield {STOCK: stock, OURS: ours}


@pytest.fixture(scope="session")
def run_all(labs: dict[str, Lab]) -> RunAll:
    """Run programs from senders of both kinds on workers of both kinds; transcripts by worker, sender and program."""

    def run(programs: Mapping[str, Program]) -> Transcripts:
        for lab in labs.values():
            lab.send(programs, (STOCK, OURS))
        collected = {kind: lab.collect() for kind, lab in labs.items()}
        return {(kind, *key): transcript for kind, found in collected.items() for key, transcript in found.items()}

    return run
