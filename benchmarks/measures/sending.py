"""Sending: one message at a time, and many at once, by one process."""

from __future__ import annotations

from benchmarks.cases import Case, Effort
from benchmarks.site import Site, open_site
from benchmarks.systems import System, part

WARM_MESSAGES = 50
"""Connecting, and what else is done once, is not timed."""

FIRST_GUESS = 300
"""Messages from which the number for the measurement is reckoned."""


def measure(system: System, case: Case, effort: Effort) -> dict[str, float]:
    figures = {}
    for how in ("each", "many"):
        with open_site(results=case.results, rtt=case.rtt) as site:
            guess = _send(system, site, how, FIRST_GUESS)
            count = max(FIRST_GUESS, int(guess * effort.send_seconds))
            before = site.proxy.round_trips() if site.proxy else 0
            figures[how] = _send(system, site, how, count)
            if site.proxy:
                figures[f"{how}_round_trips"] = (site.proxy.round_trips() - before) / (count + WARM_MESSAGES)
    return figures


def _send(system: System, site: Site, how: str, count: int) -> float:
    """Messages per second."""
    parts = [part("noop", WARM_MESSAGES, warm=True), part("noop", count)]
    outcome = system.produce(site, how, parts, near=False)
    return outcome["sent"] / outcome["seconds"]
