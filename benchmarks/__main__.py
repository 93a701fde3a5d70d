"""``python -m benchmarks [ROW …]``: measure, print tables, write JSON.  ``--help`` has the options."""

from __future__ import annotations

import argparse
from dataclasses import replace

from rich.console import Console

from benchmarks.cases import QUICK, Effort
from benchmarks.goals import print_goals
from benchmarks.outcome import Outcome
from benchmarks.report import print_tables
from benchmarks.rows import ROWS, Choice, cases
from benchmarks.runner import Runner
from benchmarks.site import ROOT
from benchmarks.systems import SYSTEMS

WIDTH = 130
"""Columns for tables that go to a file."""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Celeriac against Celery and its peers.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all if none is given")
    parser.add_argument("--only", type=names, default=(), help=f"systems, comma-separated: {', '.join(SYSTEMS)}")
    parser.add_argument("--rtt", type=numbers, default=(0.0, 2.0), help="added round-trip times in ms (default 0,2)")
    parser.add_argument("--results", type=switches, default=(False, True), help="off, on or off,on (default)")
    parser.add_argument(
        "--repeats", type=int, help="how often each is measured; the median counts (default 3, quick 1)"
    )
    parser.add_argument("--quick", action="store_true", help="short and noisy, for a first look")
    options = parser.parse_args()
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"no such row: {', '.join(sorted(unknown))} (there are {', '.join(ROWS)})")
    return options


def names(text: str) -> tuple[str, ...]:
    chosen = tuple(text.split(","))
    if unknown := set(chosen) - set(SYSTEMS):
        raise argparse.ArgumentTypeError(f"no such system: {', '.join(sorted(unknown))}")
    return chosen


def numbers(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split(",")))


def switches(text: str) -> tuple[bool, ...]:
    try:
        return tuple({"off": False, "on": True}[word] for word in text.split(","))
    except KeyError as error:
        raise argparse.ArgumentTypeError("off, on or off,on") from error


def effort_of(options: argparse.Namespace) -> Effort:
    effort = QUICK if options.quick else Effort()
    return effort if options.repeats is None else replace(effort, repeats=options.repeats)


def main() -> None:
    options = parse()
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    chosen = cases(options.rows or ROWS, Choice(options.results, options.rtt, frozenset(options.only)))
    outcome = Outcome(vars(options))
    try:
        Runner(chosen, effort_of(options), outcome, console).run()
    except KeyboardInterrupt:
        console.print("Interrupted; this is what was measured.")
    print_tables(outcome, console)
    print_goals(outcome, console)
    console.print(f"\nWritten to {outcome.path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
