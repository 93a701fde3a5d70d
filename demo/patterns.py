"""What goes wrong on purpose once the orders are through: an order that comes twice, a message that is wrong, a mail server that is
down, a queue that is full.  Each is one of Celeriac's production patterns at work.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import httpx

from celeriac.broker import Broker
from celeriac.compat import connect
from demo.broker import connected_app
from demo.children import ROOT
from demo.progress import RunProgress
from demo.settings import PREVIEWS_BOUND, ShopSettings
from demo.system import System, celeriac_program, environment

CHECKS = 24
"""Addresses that are checked while the mail server is down: enough failures for its breaker, with those of the mails."""

TOO_MANY = PREVIEWS_BOUND + 10
"""Previews that are asked for at once."""

PATIENCE_SECONDS = 60.0
"""How long each of these may take.  On an idle machine all of them take some three seconds."""


class Lesson(NamedTuple):
    """One row of the table."""

    name: str
    figure: str
    note: str
    problem: str = ""
    """What was not as it should be; empty: it was."""


class Lessons:
    """Makes things go wrong and looks at what becomes of it.

    Args:
        shop: its settings.
        system: the running system.
        client: for its API.
        progress: follows its journal.
    """

    def __init__(self, shop: ShopSettings, system: System, client: httpx.Client, progress: RunProgress) -> None:
        self._shop = shop
        self._system = system
        self._client = client
        self._progress = progress
        self._app = connected_app("visitor", shop)

    def run(self, order: dict[str, Any]) -> list[Lesson]:
        """All of them; ``order`` is one that was processed before."""
        outage = time.monotonic()
        self._shop.mail_outage.touch()
        try:
            checks = [self._post("/addresses", {"email": f"customer.{n}@example.com"}) for n in range(CHECKS)]
            lessons = [self._post_twice(order), self._bad_message(order), self._overfill(order["photo"])]
            opened = self._wait_for_breaker("open")
            down = time.monotonic() - outage
        finally:
            self._shop.mail_outage.unlink(missing_ok=True)
        return [*lessons, self._recovery([check.json()["task"] for check in checks], down, opened=opened)]

    # -- idempotency -----------------------------------------------------------------------------------------------

    def _post_twice(self, order: dict[str, Any]) -> Lesson:
        answer = self._post("/orders", order).json()
        done = self._wait(lambda: self._state(answer["task"]) == "SUCCESS")
        self._progress.update()
        started = self._progress.started[order["id"]]
        note = f"order {order['id']} was posted again: two messages, one idempotency key, processed once"
        problem = "" if done and started == 1 else f"{order['id']} was posted twice, and was started {started} times"
        return Lesson("posted twice", str(started), note, problem)

    # -- typed payloads and dead letters ---------------------------------------------------------------------------

    def _bad_message(self, order: dict[str, Any]) -> Lesson:
        bad = {**order, "id": "BAD-MESSAGE", "items": [{"product": "mug", "quantity": 0}]}
        # By its name only, as a program does that knows nothing of the task: nobody checks it here.
        sent = self._app.send_task("demo.shop.start_order", kwargs={"order": bad}, queue="orders")
        letters = self._app.dead_letters
        found = self._wait(lambda: letters.list(reason="invalid", arguments={"order.id": "BAD-MESSAGE"}))
        if not found:
            return Lesson("dead-lettered", "0", "", f"the bad message {sent.id} is not among the dead letters")
        return Lesson(
            "dead-lettered",
            str(len(found)),
            f"a bad message straight into the queue; {found[0].reason}: {_reason(found[0].traceback)}",
        )

    # -- back-pressure ---------------------------------------------------------------------------------------------

    def _overfill(self, photo: str) -> Lesson:
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _: self._post("/previews", {"photo": photo}), range(TOO_MANY)))
        statuses = [answer.status_code for answer in answers]
        taken, refused = statuses.count(httpx.codes.ACCEPTED), statuses.count(httpx.codes.TOO_MANY_REQUESTS)
        note = f"a queue of at most {PREVIEWS_BOUND}, which nobody serves, took {taken} of {TOO_MANY} previews at once"
        broker: Broker = connect.producer(self._app)
        left = broker.purge("previews")
        exact = taken == left == PREVIEWS_BOUND and refused == TOO_MANY - PREVIEWS_BOUND
        return Lesson(
            "429", str(refused), note, "" if exact else f"a queue of {PREVIEWS_BOUND} took {taken} messages: {statuses}"
        )

    # -- circuit breaker -------------------------------------------------------------------------------------------

    def _recovery(self, checks: list[str], down: float, *, opened: bool) -> Lesson:
        back = time.monotonic()
        done = self._wait(lambda: all(self._state(check) == "SUCCESS" for check in checks))
        closed = self._wait_for_breaker("closed")
        seconds = time.monotonic() - back
        note = f"the mail server was down for {down:.1f} s; {len(checks)} checks waited, and all was done {seconds:.1f} s after it was back"
        if opened and done and closed:
            return Lesson("breaker", "opened, closed", note)
        problem = f"the breaker opened: {opened}; it closed again: {closed}; all checks were done: {bool(done)}"
        return Lesson("breaker", "?", note, problem)

    def _wait_for_breaker(self, status: str) -> bool:
        return bool(self._wait(lambda: self._breaker() == status))

    def _breaker(self) -> str:
        """As an operator sees it."""
        command = [celeriac_program(), "-A", "demo.shop", "breakers", "--json"]
        shown = subprocess.run(
            command, env=environment(self._shop, inherit=True), cwd=ROOT, capture_output=True, check=True
        )
        return str({each["name"]: each["status"] for each in json.loads(shown.stdout)}.get("smtp"))

    # -- the rest --------------------------------------------------------------------------------------------------

    def _post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        return self._client.post(path, json=body)

    def _state(self, task: str) -> str:
        return str(self._client.get(f"/tasks/{task}").json()["state"])

    def _wait(self, condition: Callable[[], Any]) -> Any:
        """What the condition says when it is true, or in the end."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (value := condition()) and time.monotonic() < deadline:
            self._system.children.check()
            time.sleep(0.05)
        return value


def _reason(report: str) -> str:
    """The first field that was wrong."""
    return report.partition("\n")[0]
