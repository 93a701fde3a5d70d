"""How much work a slot may take at once: bounded by time, measured from what ran lately."""

from __future__ import annotations

from celeriac.settings import EngineSettings

SMOOTHING = 0.2
"""Weight of the newest turn in the moving average of a task's run time."""

GROWTH = 4
"""A lease may be at most this many times as large as the last one that was used up, so that a change from tiny to slow
tasks costs one small batch."""

SHORTEST_RUN = 5e-6
"""Seconds.  Nothing is faster; keeps the first measurements from promising too much."""


class Budget:
    """Turns run times into lease sizes."""

    def __init__(self, settings: EngineSettings, best_batch: int = 1000) -> None:
        """``best_batch``: the broker's."""
        self._seconds = settings.prefetch_seconds * settings.slot_concurrency
        self._most = min(settings.batch_limit, best_batch) if settings.prefetch else 0
        self._average = 0.0
        self._last = max(1, settings.slot_concurrency)

    def observe(self, seconds: float, runs: int) -> None:
        """Some runs have taken this long together."""
        if runs:
            average = max(seconds / runs, SHORTEST_RUN)
            # Getting slower counts at once, getting faster little by little: holding too much hurts others.
            if average > self._average:
                self._average = average
            else:
                self._average += SMOOTHING * (average - self._average)

    @property
    def affordable(self) -> int:
        """How many messages are the share of one slot."""
        return int(self._seconds / self._average) if self._average else self._most

    def within(self, seconds: float) -> int:
        """How many messages start within so many seconds, one after another; 1 as long as nothing is known."""
        return max(1, int(seconds / self._average)) if self._average else 1

    def limit(self, held: int, room: int) -> int:
        """How many messages to lease when ``held`` are unstarted and ``room`` jobs could start at once."""
        if self._most == 0 or self._average == 0.0:
            return max(0, room - held)
        self._last = max(1, min(self.affordable, self._last * GROWTH, self._most))
        return max(0, max(self._last, room) - held)
