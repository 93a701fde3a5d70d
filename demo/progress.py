"""What is known about a run while it runs, from the journal: who works on what, what is done, retried, rescued."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from demo.journal import Entry, JournalReader


@dataclass(frozen=True, slots=True)
class Rescue:
    """A body that started again because its first process died."""

    first: Entry
    again: Entry


class RunProgress:
    """Follows a journal."""

    def __init__(self, journal: Path) -> None:
        self._journal = JournalReader(journal)
        self.running: dict[tuple[str, int], Entry] = {}
        """By :attr:`Entry.run`: the start of each body that has not ended."""
        self.done: dict[str, dict[str, float]] = {"resize": {}, "write_receipt": {}, "mail_receipt": {}}
        """By task and task id: when it succeeded."""
        self.mailed: dict[str, float] = {}
        """By order id: when its mail was handed over."""
        self.receipts: set[str] = set()
        """Orders whose pictures and receipt are there."""
        self.failed: list[Entry] = []
        self.failed_orders: set[str] = set()
        """Orders whose mail will never come, because one of their tasks has failed."""
        self.rescues: list[Rescue] = []
        self.retries: Counter[str] = Counter()
        """By task."""
        self.started: Counter[str] = Counter()
        """By order id: how often its work was started."""
        self.waits: list[float] = []
        """Seconds from sending to starting, for first attempts: a retry or a rescue waits for other reasons."""

    def update(self) -> None:
        """Read what is new."""
        for entry in self._journal.new_entries():
            if entry.event == "start":
                self._start(entry)
            else:
                self._end(entry)

    def ended_orders(self) -> set[str]:
        """Orders for which nothing more will happen that matters."""
        return self.failed_orders | self.mailed.keys()

    def tasks_done(self) -> int:
        return sum(map(len, self.done.values()))

    def _start(self, entry: Entry) -> None:
        if entry.task == "start_order":
            self.started[entry.order_id] += 1
            return
        before = self.running.get(entry.run)
        if before is not None:
            self.rescues.append(Rescue(before, entry))
        elif entry.retries == 0 and entry.sent is not None:
            self.waits.append(entry.at - entry.sent)
        self.running[entry.run] = entry

    def _end(self, entry: Entry) -> None:
        self.running.pop(entry.run, None)
        if entry.state == "RETRY":
            self.retries[entry.task] += 1
        elif entry.state == "SUCCESS" and entry.task in self.done:
            self._succeed(entry)
        elif entry.state == "SUCCESS":
            return
        else:
            self.failed.append(entry)
            self.failed_orders.add(entry.order_id)

    def _succeed(self, entry: Entry) -> None:
        self.done[entry.task].setdefault(entry.task_id, entry.at)
        if entry.task == "write_receipt":
            self.receipts.add(entry.order_id)
        elif entry.task == "mail_receipt":
            self.mailed.setdefault(entry.order_id, entry.at)
