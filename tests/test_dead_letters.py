"""Dead letters: found, edited and replayed once, from Python and from the command line; bounded; left out where asked."""

from __future__ import annotations

import base64
import json
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone

import pytest
from celery.bin.base import CLIContext
from click.testing import CliRunner

from celeriac import Celery, InvalidPayload
from celeriac.cli.dead import dead
from celeriac.compat import connect
from celeriac.compat.dead import CannotEdit, DeadLetters
from celeriac.engine.dead_expirer import DeadExpirer
from celeriac.errors import ConfigurationError
from celeriac.message import Message
from celeriac.outcome import DeadLetter, Outcome, State
from tests.apps import typed_models as typed
from tests.helpers import wait_until
from tests.stages import STORES, lasting_stage

LONG = 60.0


def envelope(task, *args, headers=None, **kwargs):
    """A message as Celery sends it, with a hard life behind it."""
    body = json.dumps([args, kwargs, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
    lived = {"retries": 3, "celeriac-crashes": 4, "celeriac-started": 1.0, "celeriac-sent": 5.0}
    return json.dumps(
        {
            "body": base64.b64encode(body.encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"lang": "py", "task": task, "id": f"id-{args}-{kwargs}", **lived, **(headers or {})},
            "properties": {
                "body_encoding": "base64", "delivery_mode": 2, "delivery_tag": "tag", "priority": 0,
                "delivery_info": {"exchange": "", "routing_key": "celery", "redelivered": True},
            },
        }
    ).encode()  # fmt: skip


@pytest.fixture(params=STORES)
def app(request, tmp_path):
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/celery.sqlite3"
    else:
        url = request.getfixturevalue(f"{request.param}_url")
    app = Celery("shop", broker=url, backend=f"sqlite:///{tmp_path}/results.sqlite3", set_as_current=False)

    @app.task(name="pay", shared=False)
    def pay(order_id, amount=0): ...

    @app.task(name="ship", shared=False)
    def ship(order: typed.Order, note: str = ""): ...

    assert pay.name, ship.name
    yield app
    connect.producer(app).close()


@pytest.fixture
def broker(app):
    broker = connect.open_broker(app)
    yield broker
    broker.close()


@pytest.fixture
def run(app):
    def run(*args, typed="", **env):
        context = CLIContext(app, no_color=True, workdir=None)
        return CliRunner().invoke(dead, args, obj=context, input=typed, catch_exceptions=False, env=env)

    return run


def bury(broker, *raws, reason="failed", error="ValueError: no", ago=0.0, queue="celery"):
    """Put dead letters into the store, oldest first; return their ids in that order."""
    broker.register("undertaker", [queue], LONG)
    for raw in raws:
        broker.publish([Message(queue, raw)])
        (delivery,) = wait_until(lambda: broker.lease("undertaker", [queue], 1))
        task = json.loads(raw)["headers"]["task"] if raw.startswith(b"{") else ""
        letter = DeadLetter(reason, error, task=task, task_id="i", attempts=3, crashes=4, at=time.time() - ago)
        broker.settle("undertaker", [Outcome(delivery, State.FAILED, dead=letter)])
    wait_until(lambda: broker.unregister("undertaker"))
    return [letter.id for letter in broker.dead_letters(len(raws))][::-1]


def queued(broker, queue="celery"):
    """What is in the queue: arguments, named arguments, headers, and whether it says that it may have run."""
    broker.register("reader", [queue], LONG)
    found, deadline = [], time.monotonic() + 1
    while deliveries := broker.lease("reader", [queue], 100) or (not found and time.monotonic() < deadline):
        if deliveries is not True:
            found += [json.loads(delivery.raw) for delivery in deliveries]
    bodies = [json.loads(base64.b64decode(each["body"])) for each in found]
    return [
        (args, kwargs, each["headers"], each["properties"]["delivery_info"].get("redelivered", False))
        for (args, kwargs, _), each in zip(bodies, found, strict=True)
    ]


# -- found -------------------------------------------------------------------------------------------------------------


def test_letters_are_found_by_what_they_are_like(app, broker):
    bury(broker, envelope("pay", 1), reason="invalid", error="Boom: first", ago=7200)
    bury(broker, envelope("pay", order_id=2, amount=7), error="Boom: second", ago=60)
    bury(broker, envelope("ship", {"key": "a", "lines": [{"sku": "tea"}]}), queue="other")
    bury(broker, b"not a message", reason="invalid")
    letters = app.dead_letters
    found = {
        "all": letters.list(),
        "newest": letters.list(limit=1),
        "task": letters.list(task="p*"),
        "queue": letters.list(queue="other"),
        "reason": letters.list(reason="invalid"),
        "reasons": letters.list(reason=("invalid", "failed"), task="pay"),
        "error": letters.list(error="SECOND"),
        "since": letters.list(newer_than=timedelta(minutes=5)),
        "until": letters.list(older_than=3600),
        "name": letters.list(arguments={"order_id": 2}),
        "position by name": letters.list(arguments={"order_id": 1}),
        "number": letters.list(arguments={"0": "1"}),
        "path": letters.list(arguments={"order.lines.0.sku": "tea"}),
        "two": letters.list(arguments={"order_id": "2", "amount": 8}),
    }
    sizes = {name: len(each) for name, each in found.items()}
    assert sizes == {
        "all": 4, "newest": 1, "task": 2, "queue": 1, "reason": 2, "reasons": 2, "error": 1, "since": 3, "until": 1,
        "name": 1, "position by name": 1, "number": 1, "path": 1, "two": 0,
    }  # fmt: skip
    (letter,) = found["name"]
    assert (letter.task, letter.args, letter.kwargs, letter.sent) == ("pay", [], {"order_id": 2, "amount": 7}, 5.0)
    assert (letter.attempts, letter.crashes, letters.count()) == (3, 4, 4)
    assert letters.get(letter.id) == letter
    assert found["newest"][0].args is None
    with pytest.raises(LookupError):
        letters.get("17-17")


def test_the_command_finds_them_too(run, broker):
    bury(broker, envelope("pay", 1), ago=7200)
    bury(broker, envelope("pay", 2))
    found = json.loads(run("list", "--arg", "order_id=2", "--since", "1h", "--json").output)
    assert [letter["sent"] for letter in found] == ["1970-01-01T00:00:05.000+00:00"]
    assert "order_id=17" in run("list", "--arg", "order_id").output


# -- replayed ----------------------------------------------------------------------------------------------------------


def test_a_replayed_message_starts_anew(app, broker):
    past = {"expires": (datetime.now(timezone.utc) - timedelta(hours=1)).isoformat(), "mine": "kept"}
    (id,) = bury(broker, envelope("pay", 1, headers=past))
    assert app.dead_letters.replay(id) == ([id], [])
    assert app.dead_letters.replay(id) == ([], [id])
    ((args, _, headers, redelivered),) = queued(broker)
    assert (args, headers["retries"], headers["expires"], headers["mine"]) == ([1], 0, None, "kept")
    assert headers["celeriac-sent"] > 1e9
    assert not redelivered
    assert not {"celeriac-crashes", "celeriac-started"} & set(headers)


def test_what_is_no_message_is_replayed_as_it_is(app, broker):
    (id,) = bury(broker, b"not a message")
    assert app.dead_letters.replay(id).done == [id]
    broker.register("reader", ["celery"], LONG)
    (delivery,) = wait_until(lambda: broker.lease("reader", ["celery"], 1))
    assert delivery.raw == b"not a message"


def test_operators_at_once_send_each_letter_once(app, broker):
    ids = bury(broker, *(envelope("pay", n) for n in range(10)))

    def operate(_):
        own = connect.open_broker(app)
        try:
            return DeadLetters(app, own).replay(*ids)
        finally:
            own.close()

    with ThreadPoolExecutor(4) as pool:
        acted = list(pool.map(operate, range(4)))
    assert sorted(id for each in acted for id in each.done) == sorted(ids)
    assert sorted(args for args, *_ in queued(broker)) == [[n] for n in range(10)]


def test_replaying_many_keeps_to_a_rate(app, broker):
    ids = bury(broker, *(envelope("pay", n) for n in range(5)))
    slept = []
    letters = DeadLetters(app, broker, sleep=lambda seconds: (slept.append(seconds), time.sleep(seconds)))
    began = time.monotonic()
    assert letters.replay(everything=True, rate="10/s").done == ids
    assert time.monotonic() - began >= 0.39
    assert slept[0] == 0
    with pytest.raises(ValueError, match="no rate"):
        letters.replay(everything=True, rate="fast")
    with pytest.raises(TypeError, match="everything=True"):
        letters.replay()


def test_the_command_replays_at_a_rate(run, broker):
    bury(broker, envelope("pay", 1), envelope("pay", 2))
    assert run("replay", "--all", "--rate", "soon").exit_code == 2
    result = run("replay", "--task", "pay", "--rate", "100/s", "--force", "--json")
    assert json.loads(result.output) == {"replayed": 2, "missing": []}
    assert len(queued(broker)) == 2


DYING = """
import os, signal, sys
from celeriac import Celery
from celeriac.compat import connect
where, url, results, id = sys.argv[1:]
app = Celery("shop", broker=url, backend=results)
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
broker = connect.producer(app)
replay = broker.replay
if where == "before":
    broker.replay = die
elif where == "after":
    broker.replay = lambda *args: (replay(*args), die())
else:
    from celeriac.brokers.sqlite import publishing
    publishing.publish = die
app.dead_letters.replay(id)
"""


def die_while_replaying(app, where, id):
    command = [sys.executable, "-c", DYING, where, app.conf.broker_url, app.conf.result_backend, id]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL


def test_an_operator_who_is_killed_after_the_move_has_moved_it(app, broker):
    (id,) = bury(broker, envelope("pay", 1))
    die_while_replaying(app, "after", id)
    assert broker.dead_count() == 0
    assert app.dead_letters.replay(id).done == []
    assert [args for args, *_ in queued(broker)] == [[1]]


@pytest.mark.parametrize("where", ["before", "within"])
@pytest.mark.parametrize("app", ["sqlite"], indirect=True)
def test_an_operator_who_is_killed_before_or_within_the_move_has_not_moved_it(app, broker, where):
    (id,) = bury(broker, envelope("pay", 1))
    die_while_replaying(app, where, id)
    assert broker.dead_count() == 1
    assert app.dead_letters.replay(id).done == [id]
    assert [args for args, *_ in queued(broker)] == [[1]]


def test_letters_are_discarded(app, broker):
    bury(broker, envelope("pay", 1), envelope("pay", 2), envelope("ship", 3))
    assert len(app.dead_letters.discard(task="pay", arguments={"order_id": 1}).done) == 1
    assert [letter.args for letter in app.dead_letters.list()] == [[3], [2]]
    assert len(app.dead_letters.discard(everything=True).done) == 2
    assert app.dead_letters.count() == 0


# -- edited ------------------------------------------------------------------------------------------------------------


def test_a_letter_is_edited_and_sent_in_one_step(app, broker):
    first, second = bury(broker, envelope("pay", "one", amount=1), envelope("old.name", 2))
    assert app.dead_letters.edit(first, args=["1"], kwargs={"amount": 2})
    assert app.dead_letters.edit(second, task="pay", queue="other", countdown=3600)
    assert not app.dead_letters.edit(first, args=[])
    ((args, kwargs, headers, _),) = queued(broker)
    assert (args, kwargs, headers["argsrepr"], headers["kwargsrepr"]) == (
        ["1"],
        {"amount": 2},
        "('1',)",
        "{'amount': 2}",
    )
    assert headers["retries"] == 0
    ((args, _, headers, _),) = queued(broker, "other")
    assert (args, headers["task"]) == ([2], "pay")
    assert datetime.fromisoformat(headers["eta"]) > datetime.now(timezone.utc) + timedelta(minutes=50)
    assert broker.dead_count() == 0


def test_what_cannot_be_sent_stays_as_it_was(app, broker):
    typed_letter, other, broken = bury(broker, envelope("ship", {"key": "a"}), envelope("pay", 1), b"not a message")
    with pytest.raises(InvalidPayload, match=r"order\.id: Field required"):
        app.dead_letters.edit(typed_letter, args=[{"key": "b"}])
    with pytest.raises(CannotEdit, match="no JSON"):
        app.dead_letters.edit(other, args=[object()])
    with pytest.raises(CannotEdit, match="cannot be read"):
        app.dead_letters.edit(broken, args=[1])
    assert broker.dead_count() == 3
    assert app.dead_letters.edit(typed_letter, queue="other"), "its arguments are not touched, so they are not checked"


def test_the_command_edits_by_options_and_in_an_editor(run, broker, tmp_path):
    first, second, third = bury(broker, *(envelope("pay", n) for n in range(3)))
    assert "no JSON" in run("edit", first, "--args", "[").output
    assert "a JSON list" in run("edit", first, "--args", "{}").output
    assert run("edit", "17-17", "--args", "[]").exit_code == 1
    assert (
        run("edit", first, "--kwargs", '{"amount": 5}', "--args", "[9]").output == "Replayed 1 dead letter, edited.\n"
    )

    def editor(script):
        path = tmp_path / f"editor{len(script)}"
        path.write_text(f"#!{sys.executable}\nimport sys, os\nname = sys.argv[1]\ntext = open(name).read()\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    saves = 'os.utime(name, (1, 1)); open(name, "w").write(text.replace("1", "41"))'
    assert run("edit", second, EDITOR=editor(saves)).exit_code == 0
    assert "Nothing was changed" in run("edit", third, EDITOR=editor("")).output
    assert sorted((args, kwargs) for args, kwargs, *_ in queued(broker)) == [([9], {"amount": 5}), ([41], {})]
    assert [letter.id for letter in broker.dead_letters()] == [third]


# -- bounded -----------------------------------------------------------------------------------------------------------


def test_old_letters_expire(broker):
    bury(broker, *(envelope("pay", n) for n in range(2)), ago=100)
    bury(broker, envelope("pay", 2))
    now = time.time()
    assert DeadExpirer(broker, 50, clock=lambda: now).run_once() > 60
    assert broker.dead_count() == 1
    DeadExpirer(broker, 50, clock=lambda: now + 60).run_once()
    assert broker.dead_count() == 0


def test_the_number_of_letters_is_bounded(tmp_path):
    app = Celery("few", broker=f"sqlite:///{tmp_path}/few.sqlite3", set_as_current=False)
    app.conf.celeriac_dead_limit = 3
    with ExitStack() as stack:
        broker = connect.open_broker(app)
        stack.callback(broker.close)
        bury(broker, *(envelope("pay", n) for n in range(5)))
        assert [letter.args for letter in DeadLetters(app, broker).list()] == [[4], [3], [2]]
    app.conf.celeriac_dead_limit = 0
    with pytest.raises(ConfigurationError, match="celeriac_dead_limit is 0"):
        connect.open_broker(app)


# -- made --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def stage(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("dead")
    for stage in lasting_stage(request, directory, "tests.apps.typed", 953, celeriac_dead_max_age=3600):
        bury(stage.broker, envelope("pay", "from long ago"), ago=7200)
        with stage.worker():
            yield stage


def test_a_worker_deletes_what_is_too_old(stage):
    wait_until(lambda: "from long ago" not in {letter.args[0] for letter in DeadLetters(stage.client).list(task="pay")})


def test_a_task_can_leave_the_dead_letters_alone_and_expected_errors_are_none(stage):
    for task, kind in (("unmourned", ValueError), ("expected", KeyError)):
        result = stage.send(task, task)
        with pytest.raises(kind):
            result.get(timeout=15)
    stage.wait_until_drained()
    assert not {letter.task.rpartition(".")[2] for letter in stage.dead()} & {"unmourned", "expected"}


def test_a_replayed_task_has_all_its_retries_again_and_runs_once(stage):
    result = stage.send("fails", "again", tenant="acme")
    with pytest.raises(ValueError, match="again is broken"):
        result.get(timeout=15)
    letters = DeadLetters(stage.client)
    (letter,) = wait_until(lambda: letters.list(arguments={"tenant": "acme"}) or letters.list(arguments={"0": "again"}))
    assert (letter.attempts, letter.reason, len(stage.effects.of("ran", "again"))) == (1, "failed", 2)
    with ThreadPoolExecutor(4) as pool:
        acted = list(pool.map(lambda _: letters.replay(letter.id), range(4)))
    assert sum(len(each.done) for each in acted) == 1
    (again,) = wait_until(lambda: [each for each in letters.list(arguments={"0": "again"}) if each.id != letter.id])
    assert again.attempts == 1
    assert len(stage.effects.of("ran", "again")) == 4
    assert letters.edit(again.id, kwargs={"fixed": True})
    wait_until(lambda: len(stage.effects.of("ran", "again")) == 5)
    stage.wait_until_drained()
    assert len(stage.effects.of("ran", "again")) == 5
    assert not letters.list(arguments={"0": "again"})
    assert stage.client.AsyncResult(result.id).get(timeout=15) == "again"


def test_an_option_that_is_no_answer_is_refused(tmp_path):
    app = Celery("odd", broker=f"sqlite:///{tmp_path}/odd.sqlite3", set_as_current=False)
    with pytest.raises(ConfigurationError, match="dead_letter is 'no'"):
        app.task(shared=False, dead_letter="no")(envelope).name  # noqa: B018 - tasks are declared when they are looked at
