"""Three RabbitMQ nodes that are one cluster."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType

from typing_extensions import Self

from tests.server_rabbitmq import RabbitServer

NODES = 3
"""The fewest of which one can be lost."""


_MEMBERS = """
lists:usort([length(proplists:get_value(online, rabbit_quorum_queue:info(Queue, [online])))
    || Queue <- rabbit_amqqueue:list(), amqqueue:get_type(Queue) =:= rabbit_quorum_queue]).
""".replace("\n", " ")
"""How many members of quorum queues are up: each number that there is."""


class RabbitCluster:
    """A cluster.  Nodes can be killed and started again, but for good only the first goes last: it has the port mapper."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.nodes: list[RabbitServer] = []

    @property
    def url(self) -> str:
        """Of all nodes, the first first."""
        return ";".join(node.url for node in self.nodes)

    def __enter__(self) -> Self:
        """Start."""
        with self._stack:
            first = self._stack.enter_context(RabbitServer())
            self.nodes.append(first)
            for _ in range(NODES - 1):
                self.nodes.append(self._stack.enter_context(RabbitServer(joins=first)))
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill all and delete their files."""
        self._stack.close()

    def is_whole(self) -> bool:
        """Whether each quorum queue has a member that is up on every node."""
        return self.nodes[0].eval(_MEMBERS) in ("[]", f"[{NODES}]")
