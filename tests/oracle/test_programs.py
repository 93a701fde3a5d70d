"""Celery is the oracle: a program does on Celeriac what it does on Celery, or the difference is one that we mean."""

from __future__ import annotations

import re

import pytest

from tests.oracle.conftest import RunAll, Transcripts
from tests.oracle.lab import OURS, STOCK
from tests.oracle.programs_of_canvas import PROGRAMS

REPORTED_ONCE = (r"\.events\.\w+/0: - .*(task_failure|task_postrun|errback)",)

TOLD_OTHERWISE = (r"\.events\.a/\w+", r"\.(records|results)\.")

MEANT: dict[str, tuple[str, ...]] = {
    "a_hard_time_limit": REPORTED_ONCE,
    "an_error_callback_of_a_time_limit": REPORTED_ONCE,
    "a_chord_whose_member_is_killed": REPORTED_ONCE,
    "a_step_does_exit_process": TOLD_OTHERWISE,
    "a_step_does_interrupt": TOLD_OTHERWISE,
    "a_step_does_die": TOLD_OTHERWISE,
    "on_failure_that_raises": TOLD_OTHERWISE,
    "on_retry_that_raises": TOLD_OTHERWISE,
    "an_early_step_is_requeued_once": (
        r"\.events\.a/0: \+ ",
        r"\.records\.a: None is .*'second'",
        r"\.results\.(ready\[[01]\]: False is True|state: 'PENDING' is 'SUCCESS'|value: None is 'second')",
    ),
}
"""Differences of our worker that stay: what may differ, as patterns.  docs/differences.md says why."""


@pytest.fixture(scope="module")
def transcripts(run_all: RunAll) -> Transcripts:
    return run_all(PROGRAMS)


@pytest.mark.parametrize(("worker", "sender"), [(OURS, OURS), (OURS, STOCK), (STOCK, OURS)])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_does_what_it_does_on_celery(transcripts, program, worker, sender):
    expected = transcripts[STOCK, STOCK, program]

    differences = expected.differences(transcripts[worker, sender, program])

    meant = MEANT.get(program, ()) if worker == OURS else ()
    assert [line for line in differences if not any(re.match(pattern, line) for pattern in meant)] == []
    assert differences or not meant, (
        "there is no difference any more: take it off the list, and out of the documentation"
    )


@pytest.mark.parametrize(
    ("program", "state", "error"),
    [
        ("a_step_does_exit_process", "FAILURE", "SystemExit"),
        ("a_step_does_interrupt", "FAILURE", "KeyboardInterrupt"),
        ("a_step_does_die", "FAILURE", "WorkerLostError"),
        ("on_failure_that_raises", "FAILURE", "PlainError"),
        ("on_retry_that_raises", "SUCCESS", None),
    ],
)
def test_where_the_story_differs_its_end_is_known(transcripts, program, state, error):
    record = transcripts[OURS, OURS, program].records["a"]

    assert record["status"] == state
    assert error is None or record["result"]["exc_type"] == error


def test_every_program_runs_tasks_but_for_those_that_cannot_be_sent(transcripts):
    idle = {name: seen.results for (_, _, name), seen in transcripts.items() if not seen.events}

    assert idle.keys() == {"a_call_with_an_unknown_serializer", "arguments_that_cannot_be_sent"}, idle
