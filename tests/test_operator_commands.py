"""``celeriac dead``, ``queues`` and ``release``, as an operator types them, on real brokers."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
import time
import uuid

import pytest
from celery import Celery
from celery.bin.base import CLIContext
from click.testing import CliRunner

from celeriac.cli.dead import dead
from celeriac.cli.purge import purge
from celeriac.cli.queues import queues
from celeriac.cli.release import release
from celeriac.compat import connect
from celeriac.message import Message
from celeriac.outcome import DeadLetter, Outcome, State

LONG = 60.0
"""Seconds that an owner stays alive without a beat."""


def nothing(*args):
    """The body of every task here; none of them is run."""


def envelope(task, *args, **headers):
    """A message as Celery sends it."""
    task_id = str(uuid.uuid4())
    body = json.dumps([args, {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
    properties = {
        "correlation_id": task_id,
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": "celery"},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": str(uuid.uuid4()),
    }
    message = {
        "body": base64.b64encode(body.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": task, "id": task_id, "root_id": task_id, "retries": 0, **headers},
        "properties": properties,
    }
    return json.dumps(message).encode()


@pytest.fixture(params=["sqlite", "redis", "postgres"])
def app(request, tmp_path):
    sqlite_url = f"sqlite:///{tmp_path}/celery.sqlite3"
    url = sqlite_url if request.param == "sqlite" else request.getfixturevalue(f"{request.param}_url")
    app = Celery("shop", broker=url, set_as_current=False)
    app.task(name="late", acks_late=True, shared=False)(nothing)
    app.task(name="early", shared=False)(nothing)
    return app


@pytest.fixture
def broker(app):
    broker = connect.open_broker(app)
    yield broker
    broker.close()


@pytest.fixture
def run(app):
    def run(command, *args, typed=""):
        context = CLIContext(app, no_color=True, workdir=None)
        return CliRunner().invoke(command, args, obj=context, input=typed, catch_exceptions=False)

    return run


def bury(broker, *letters, raw=None, queue="celery"):
    """Put dead letters into the store, oldest first; return their ids in that order."""
    broker.register("undertaker", [queue], LONG)
    for letter in letters:
        broker.publish([Message(queue, raw or envelope(letter.task, 1))])
        (delivery,) = broker.lease("undertaker", [queue], 1)
        broker.settle("undertaker", [Outcome(delivery, State.FAILED, dead=letter)])
    assert broker.unregister("undertaker")
    return [letter.id for letter in broker.dead_letters()][: len(letters)][::-1]


def died(task, reason="failed", error="ValueError: no", ago=0.0):
    return DeadLetter(reason, error, task=task, task_id=f"id-of-{task}", attempts=2, at=time.time() - ago)


def hold(broker, owner, *raws, ttl=LONG, queue="celery"):
    """Have an owner lease these messages."""
    broker.register(owner, [queue], ttl)
    broker.publish([Message(queue, raw) for raw in raws])
    assert len(broker.lease(owner, [queue], len(raws))) == len(raws)


def schedule(broker, *dues, queue="celery"):
    """Put messages into the schedule, as a producer does while a worker is alive."""
    broker.register("worker", [queue], LONG)
    broker.publish([Message(queue, envelope("late"), due=due) for due in dues])
    assert broker.unregister("worker")


def ready(broker, queue="celery"):
    return broker.depth([queue])[0].ready


# -- dead list ---------------------------------------------------------------------------------------------------------


def test_without_dead_letters_the_list_says_so(run):
    assert run(dead, "list").output == "No dead letters.\n"


def test_the_list_shows_the_newest_first(run, broker):
    bury(broker, died("first", ago=7200), died("second", ago=120))

    lines = run(dead, "list").output.splitlines()

    assert lines[0].split() == ["ID", "AGE", "REASON", "TASK", "QUEUE", "TRIES", "ERROR"]
    assert lines[1].split()[1:] == ["2m", "failed", "second", "celery", "3", "ValueError:", "no"]
    assert lines[2].split()[1:4] == ["2h", "failed", "first"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--task", "shop.*"], ["shop.pay"]),
        (["--reason", "lost"], ["mail"]),
        (["--reason", "lost", "--reason", "failed"], ["shop.pay", "mail"]),
        (["--error", "TIMEOUT"], ["mail"]),
        (["--older-than", "1h"], ["mail"]),
        (["--newer-than", "1h"], ["shop.pay"]),
        (["--queue", "celery"], ["shop.pay", "mail"]),
        (["--queue", "other"], []),
        (["--limit", "1"], ["shop.pay"]),
    ],
)
def test_the_list_can_be_narrowed(run, broker, options, expected):
    bury(broker, died("mail", "lost", "WorkerLostError: timeout", ago=7200), died("shop.pay"))

    letters = json.loads(run(dead, "list", "--json", *options).output)

    assert [letter["task"] for letter in letters] == expected


def test_the_list_goes_on_over_pages(run, broker):
    bury(broker, *(died(f"task-{n}") for n in range(120)))

    letters = json.loads(run(dead, "list", "--json", "--limit", "1000").output)

    assert [letter["task"] for letter in letters] == [f"task-{n}" for n in reversed(range(120))]


def test_the_list_says_that_there_are_more(run, broker):
    bury(broker, died("a"), died("b"))

    assert "of 2 dead letters in all" in run(dead, "list", "--limit", "1").output


def test_a_wrong_age_is_explained(run):
    result = run(dead, "list", "--older-than", "soon")

    assert result.exit_code == 2
    assert "write for example 90s, 10m, 2h or 7d" in result.output


def test_control_characters_of_a_message_do_not_reach_the_terminal(run, broker):
    bury(broker, died("evil", error="\x1b[2Jgone"))

    assert "\\x1b[2Jgone" in run(dead, "list").output


# -- dead show ---------------------------------------------------------------------------------------------------------


def test_a_dead_letter_is_shown_with_its_arguments_and_traceback(run, broker):
    letter = died("pay")._replace(traceback="Traceback:\n  line 1")
    (id,) = bury(broker, letter, raw=envelope("pay", "an argument"))

    output = run(dead, "show", id).output

    assert "id-of-pay" in output
    assert "  line 1" in output
    assert '"an argument"' in output


def test_the_raw_bytes_are_given_as_they_were(run, broker):
    raw = b"\xff\x00 not JSON\n"
    (id,) = bury(broker, died("", "invalid"), raw=raw)

    assert run(dead, "show", id, "--raw").stdout_bytes == raw
    assert base64.b64decode(json.loads(run(dead, "show", id, "--json").output)["raw_base64"]) == raw
    assert "\\xff" in run(dead, "show", id).output


def test_json_that_is_nested_too_deeply_is_shown_as_it_is(run, broker):
    (id,) = bury(broker, died("", "invalid"), raw=b"[" * 100_000)

    assert "[[[[" in run(dead, "show", id).output


def test_showing_what_is_not_there_fails(run):
    result = run(dead, "show", "1-0")

    assert result.exit_code == 1
    assert "There is no dead letter 1-0" in result.output


# -- dead replay and discard -------------------------------------------------------------------------------------------


def test_a_named_dead_letter_is_replayed_without_a_question(run, broker):
    kept, replayed = bury(broker, died("a"), died("b"))

    result = run(dead, "replay", replayed)

    assert result.exit_code == 0
    assert ready(broker) == 1
    assert [letter.id for letter in broker.dead_letters()] == [kept]


def test_what_is_replayed_runs_in_its_old_order(run, broker):
    bury(broker, died("first"), died("second"), died("third"))

    run(dead, "replay", "--all", "--force")

    broker.register("reader", ["celery"], LONG)
    leased = broker.lease("reader", ["celery"], 10)
    assert [json.loads(delivery.raw)["headers"]["task"] for delivery in leased] == ["first", "second", "third"]


def test_replaying_by_filter_asks_first(run, broker):
    bury(broker, died("a"), died("a"), died("b"))

    refused = run(dead, "replay", "--task", "a", typed="n\n")
    untouched = ready(broker)
    agreed = run(dead, "replay", "--task", "a", typed="y\n")

    assert "Replay 2 dead letters?" in refused.output
    assert (refused.exit_code, untouched) == (1, 0)
    assert (agreed.exit_code, ready(broker)) == (0, 2)


def test_replaying_twice_sends_once_and_says_what_was_missing(run, broker):
    (id,) = bury(broker, died("a"))
    run(dead, "replay", id)

    again = run(dead, "replay", id)

    assert again.exit_code == 1
    assert id in again.output
    assert ready(broker) == 1


@pytest.mark.parametrize("choice", [[], ["--all", "--task", "a"], ["1-0", "--all"]])
@pytest.mark.parametrize("verb", ["replay", "discard"])
def test_what_is_meant_must_be_said_in_one_way(run, verb, choice):
    assert run(dead, verb, *choice).exit_code == 2


def test_dead_letters_are_discarded(run, broker):
    bury(broker, died("a", ago=7200), died("b"))

    result = run(dead, "discard", "--older-than", "1h", "--force", "--json")

    assert json.loads(result.output) == {"discarded": 1, "missing": []}
    assert [letter.task for letter in broker.dead_letters()] == ["b"]
    assert ready(broker) == 0


# -- queues ------------------------------------------------------------------------------------------------------------


def test_purging_erases_what_waits_and_what_is_scheduled(run, broker):
    broker.register("worker", ["celery"], LONG)
    broker.publish([Message("celery", envelope("late")), Message("celery", envelope("late"), due=time.time() + 100)])

    result = run(purge, "--force")

    assert "2 messages" in result.output
    (depth,) = broker.depth(["celery"])
    assert (depth.ready, depth.scheduled) == (0, 0)


def test_purging_asks_first(run, broker):
    broker.publish([Message("celery", envelope("late"))])

    result = run(purge, typed="n\n")

    assert result.exit_code == 1
    assert broker.depth(["celery"])[0].ready == 1


def test_queues_are_measured(run, broker):
    sent = json.dumps(time.time() - 300)
    broker.publish([Message("celery", envelope("a", **{"celeriac-sent": float(sent)})) for _ in range(3)])
    schedule(broker, time.time() + 600)
    hold(broker, "worker", envelope("late"), queue="other")

    measured = json.loads(run(queues, "--json", "-Q", "celery,other").output)

    celery, other = measured["queues"]
    assert (celery["ready"], celery["scheduled"], celery["consumers"]) == (3, 1, 0)
    assert (other["ready"], other["consumers"]) == (0, 1)
    assert celery["oldest_age"] >= 0
    assert (measured["leased"], measured["dead"]) == (1, 0)


def test_queues_are_a_table_for_people(run, broker):
    broker.publish([Message("celery", envelope("a"))])

    lines = run(queues).output.splitlines()

    assert lines[0].split() == ["QUEUE", "READY", "SCHEDULED", "PARKED", "CONSUMERS", "OLDEST"]
    assert lines[1].split()[:5] == ["celery", "1", "0", "0", "0"]
    assert lines[-1] == "All queues: 0 leased, 0 dead letters."


def test_queues_are_watched_through_an_outage_until_interrupted(redis_server):
    script = (
        "import sys; from celery import Celery; from celery.bin.base import CLIContext;"
        "from celeriac.cli.queues import queues;"
        "queues(['--watch', '--json', '--interval', '0.1'], obj=CLIContext(Celery(broker=sys.argv[1]), True, None))"
    )
    command = [sys.executable, "-c", script, redis_server.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        before = json.loads(watching.stdout.readline())
        redis_server.kill()
        trouble = watching.stderr.readline()
        redis_server.start()
        after = [json.loads(watching.stdout.readline()) for _ in range(3)]

        watching.send_signal(signal.SIGINT)
        _, errors = watching.communicate(timeout=10)

    assert before["queues"][0]["queue"] == "celery"
    assert "trying again" in trouble
    assert after[-1] == before
    assert "Traceback" not in errors
    assert watching.returncode == 0


# -- release -----------------------------------------------------------------------------------------------------------


def test_release_returns_what_an_owner_that_is_gone_held(run, broker):
    held = [envelope("late", n) for n in range(3)]
    hold(broker, "gone", *held, ttl=0.0)

    result = run(release, "--wait", "5s", "--json")

    assert result.exit_code == 0
    released = json.loads(result.output)
    assert (released["returned"], released["dead_lettered"], released["leased"]) == (3, 0, 0)
    broker.register("reader", ["celery"], LONG)
    arguments = [base64.b64decode(json.loads(d.raw)["body"]) for d in broker.lease("reader", ["celery"], 10)]
    assert arguments == [base64.b64decode(json.loads(raw)["body"]) for raw in held]


def test_release_does_not_run_twice_what_was_acknowledged_early(run, broker):
    hold(broker, "gone", envelope("early"), ttl=0.0)

    result = run(release, "--wait", "5s")

    assert result.exit_code == 0
    assert "may have run already" in result.output
    assert [letter.reason for letter in broker.dead_letters()] == ["lost"]
    assert ready(broker) == 0


def test_release_refuses_while_workers_are_alive(run, broker):
    hold(broker, "alive", envelope("late"))

    result = run(release)

    assert result.exit_code == 1
    assert "alive on: celery (1)" in result.output
    assert broker.leased_count() == 1


def test_a_forced_release_leaves_the_living_what_they_hold(run, broker):
    hold(broker, "alive", envelope("late", 1))
    hold(broker, "gone", envelope("late", 2), ttl=0.0)

    result = run(release, "--force", "--json")

    released = json.loads(result.output)
    assert (released["returned"], released["leased"]) == (1, 1)
    assert result.exit_code == 1
    assert len(broker.leased("alive")) == 1


def test_release_promotes_what_is_due_and_tells_what_is_not(run, broker):
    schedule(broker, time.time() + 0.2, time.time() + 600)

    result = run(release, "--wait", "1s")

    assert result.exit_code == 1
    assert "Still scheduled: 1, the next one due in 10m" in result.output
    assert ready(broker) == 1


def test_release_with_nothing_to_do_is_content(run):
    result = run(release)

    assert result.exit_code == 0
    assert "Nothing is left" in result.output


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(dead, "list"), (queues,), (release,)])
def test_a_broker_that_is_away_is_one_line_and_an_exit_code(redis_server, arguments):
    app = Celery("shop", broker=redis_server.url, set_as_current=False)
    redis_server.kill()

    result = CliRunner().invoke(arguments[0], arguments[1:], obj=CLIContext(app, no_color=True, workdir=None))

    assert result.exit_code == 69
    assert result.output.startswith("Error: ")
    assert "Traceback" not in result.output
