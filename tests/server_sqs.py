"""A server that speaks Amazon SQS's protocol: moto's, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from types import TracebackType

import boto3
from typing_extensions import Self

from tests.helpers import free_port, wait_until
from tests.servers import die_with_parent

REGION = "eu-west-1"


class SQSServer:
    """One private server."""

    def __enter__(self) -> Self:
        """Start it and wait until it answers."""
        self.port = free_port()
        self._process = subprocess.Popen(
            [*die_with_parent(), sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        wait_until(self._answers, 30, "moto's server did not start")
        return self

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/moto-api/data.json", timeout=2):
                return True
        except OSError:
            return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()

    @property
    def url(self) -> str:
        """As kombu writes it."""
        return f"sqs://key:secret@127.0.0.1:{self.port}//"

    def client(self) -> object:
        """A client of it."""
        return boto3.client(
            "sqs", region_name=REGION, endpoint_url=f"http://127.0.0.1:{self.port}", aws_access_key_id="key",
            aws_secret_access_key="secret",
        )  # fmt: skip
