"""Tasks that misbehave: towards their process, with errors and results that cannot be told, in size and in number."""

from __future__ import annotations

import gc

import pytest
from celery import chord, group

from tests.apps.robust import ERRORS, RESULTS
from tests.helpers import wait_until
from tests.workers import Stage, is_alive

APP = "tests.apps.robust"
LARGE = 30_000_000


@pytest.fixture(scope="module", params=["processes", "threads"])
def stage(request, shared_redis, tmp_path_factory):
    """A worker of each pool for the whole module: what one task does must not harm the next."""
    url = shared_redis.database_url({"processes": 900, "threads": 901}[request.param])
    with Stage(tmp_path_factory.mktemp(request.param), url, app=APP) as stage:
        stage.pool = request.param
        with stage.worker(pool=request.param) as stage.node:
            yield stage
            assert stage.node.stop() == 0  # and after all that it still stops warmly
        stage.client.backend._pending_results.concrete.clear()  # noqa: SLF001  # nothing public does it
        gc.collect()  # handles of results want their server when they go


@pytest.fixture(autouse=True)
def works_afterwards(stage):
    yield
    values = [stage.send("echo", n) for n in range(4)]
    assert [value.get(timeout=20) for value in values] == [0, 1, 2, 3]
    assert is_alive(stage.node.pid)


in_processes = pytest.mark.parametrize("stage", ["processes"], indirect=True)
"""For what takes a while and does not depend on the pool."""


def made(stage, task, *args, timeout=20):
    """What a task returned, or its error."""
    try:
        return stage.send(task, *args).get(timeout=timeout)
    except BaseException as error:
        return error


# -- errors and results ------------------------------------------------------------------------------------------------


def test_a_task_fails_with_whatever_it_raises(stage):
    sent = {kind: stage.send("fail_with", kind) for kind in ERRORS}

    for kind, result in sent.items():
        wait_until(result.ready, 20, f"{kind} was not recorded")
    assert {kind: result.state for kind, result in sent.items()} == dict.fromkeys(ERRORS, "FAILURE")
    assert {result.id for result in sent.values()} <= {letter.task_id for letter in stage.dead()}


def test_an_endless_recursion_is_an_error(stage):
    assert isinstance(made(stage, "recurse"), RecursionError)


def test_a_result_that_cannot_be_stored_is_an_error(stage):
    sent = {kind: stage.send("give", kind) for kind in RESULTS}

    for kind, result in sent.items():
        wait_until(result.ready, 20, f"{kind} was not recorded")
    assert {kind: result.state for kind, result in sent.items()} == dict.fromkeys(RESULTS, "FAILURE")
    assert "not JSON serializable" in str(sent["object"].result)


def test_signal_receivers_that_raise_change_nothing(stage):
    assert made(stage, "received_badly", 3) == 3
    assert made(stage, "retried", 3) == 1


# -- the process -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "args", "value"),
    [
        ("close_files", (), "closed"),
        ("close_standard_streams", (), "closed"),
        ("leak_files", (600,), 600),
        ("change_directory", ("/",), "/"),
        ("block_signals", (), "blocked"),
        ("leave_a_thread", (True,), "left"),
        ("leave_a_thread", (False,), "left"),
        ("fork_child", (), 7),
        ("use_multiprocessing", (), True),
        ("use_subprocess", ("print(3)",), "3"),
        ("print_much", (20_000, 100), 20_000),
        ("change_everything", (), "changed"),
    ],
)
def test_a_task_may_treat_its_process_badly(stage, task, args, value):
    assert made(stage, task, *args) == value


def test_a_task_may_change_the_handlers_of_signals(stage):
    expected = ["changed", "started"]
    found = [made(stage, "change_signals"), made(stage, "start_alarm")]

    if stage.pool == "threads":  # Python allows it in the main thread only
        assert [type(each) for each in found] == [ValueError, ValueError]
    else:
        assert found == expected


def test_a_process_that_a_task_forks_ends_with_its_body(stage):
    assert made(stage, "fork_and_return", "twice") == "both"
    assert made(stage, "fork_and_raise", "twice") == "parent"

    (child,) = stage.wait_for("child", "twice")
    wait_until(lambda: not is_alive(child.pid), message="the copy lives on")
    assert len(stage.effects.of("parent", "twice")) == 1


def test_a_program_that_a_task_leaves_behind_does_not_hold_the_worker(stage):
    pid = made(stage, "leave_a_program", 20)

    assert is_alive(pid)


# -- waiting inside ----------------------------------------------------------------------------------------------------


def test_a_task_may_wait_for_others_as_long_as_there_is_a_slot_for_them(stage):
    assert made(stage, "nested", 1) == 1
    assert made(stage, "wait_for_children", 20) == 210
    assert made(stage, "wait_for_chord") == 10


def test_a_task_that_waits_without_saying_so_is_refused(stage):
    assert "Never call result.get() within a task" in str(made(stage, "wait_forbidden"))


# -- size and number ---------------------------------------------------------------------------------------------------


def signature(stage, task, *args, **options):
    return stage.client.signature(f"{APP}.{task}", args, **options)


@in_processes
def test_arguments_and_results_of_tens_of_megabytes_pass(stage):
    assert len(stage.send("make", LARGE).get(timeout=60)) == LARGE
    assert stage.send("size", "x" * LARGE).get(timeout=60) == LARGE


def test_deeply_nested_groups_and_chords_come_to_their_end(stage):
    one = signature(stage, "add", 1)
    nested, chords = one, one
    for _ in range(50):
        nested = group(nested)
    for _ in range(6):
        chords = chord([chords, one], signature(stage, "total"))

    assert nested.apply_async().get(timeout=30) == [1]
    assert chords.apply_async().get(timeout=30) == 7


@in_processes
@pytest.mark.timeout(240)
def test_a_task_may_have_ten_thousands_of_callbacks(stage):
    links = [signature(stage, "add", 1, immutable=True).set(ignore_result=True)] * 10_000
    before = stage.broker.depth(["celery"])[0]

    result = stage.client.send_task(f"{APP}.echo", (1,), link=links)

    assert result.get(timeout=100) == 1
    assert before.ready == 0
    stage.wait_until_drained(100)
    assert len(result.children[0].results) == len(links)


@pytest.mark.timeout(240)
def test_a_chord_of_thousands_of_which_some_fail_tells_once(stage):
    size, bad = 2_000, 700
    header = [signature(stage, "fail_if", number, bad) for number in range(1, size + 1)]
    body = signature(stage, "total").on_error(signature(stage, "count_error"))

    result = chord(header)(body)

    stage.wait_until_drained(100)
    assert result.state == "FAILURE"
    assert len(stage.effects.of("error", result.id)) == 1
    states = [member.state for member in result.parent.results]
    assert (states.count("FAILURE"), states.count("SUCCESS")) == (2, size - 2)


@in_processes
@pytest.mark.timeout(240)
def test_the_body_of_a_chord_of_thousands_gets_all_results(stage):
    size = 2_000
    header = [signature(stage, "add", number) for number in range(size)]

    assert chord(header)(signature(stage, "total")).get(timeout=100) == sum(range(size))
