"""Messages that RabbitMQ pushes to owners that subscribe."""

from __future__ import annotations

import select
import threading
import time
from contextlib import ExitStack, closing
from functools import partial
from unittest.mock import Mock

import pytest

from celeriac.brokers.rabbitmq import properties, wire
from celeriac.brokers.rabbitmq.broker import RabbitBroker
from celeriac.brokers.rabbitmq.connection import Connection
from celeriac.brokers.rabbitmq.methods import delete_queue
from celeriac.brokers.rabbitmq.stream import LOAD_ENDS
from celeriac.brokers.rabbitmq.topology import Binding, QueueSpec, plain_queue
from celeriac.compat.connect_rabbitmq import rabbit_options
from celeriac.errors import StoreUnavailable
from celeriac.message import Message
from tests.conformance.kits import QUEUE, done, messages, owner_of, raws
from tests.helpers import wait_until
from tests.proxy import FaultProxy


class Slot:
    """A broker as a slot uses it, one owner subscribed."""

    def __init__(self, broker, queues=(QUEUE,)):
        self.broker, self.queues = broker, list(queues)
        self.owner = owner_of(broker, queues)
        self.woken = threading.Event()
        broker.subscribe(self.owner, self.woken.set)

    def turn(self, limit, *settled):
        return self.broker.turn(self.owner, done(*settled), self.queues, limit)[1]

    def lease(self, count):
        """Turns until so many are held."""
        held = []

        def look():
            came = self.turn(count - len(held))
            held.extend(came)
            if len(held) < count and not came:
                self.broker.listen(self.owner, self.queues, count - len(held), quiet=False)
            return len(held) == count

        wait_until(look, 20, lambda: f"{raws(held)} came")
        return held

    def listen(self, *, quiet=True):
        """Listens until there is nothing to look for; returns what can be waited on."""
        found = wait_until(lambda: self.broker.listen(self.owner, self.queues, 1, quiet=quiet), 20)
        assert found.fd is not None
        return found.fd

    def withdraw(self, *, must=False):
        return self.broker.withdraw(self.owner, set(), must=must)


@pytest.fixture
def make(rabbitmq_url):
    with ExitStack() as stack:

        def make_slot(url=rabbitmq_url, specs=plain_queue, queues=(QUEUE,)):
            return Slot(stack.enter_context(closing(RabbitBroker(rabbit_options(url), specs))), queues)

        yield make_slot


@pytest.fixture
def outside(rabbitmq_url):
    """Somebody who sends and looks."""
    with closing(RabbitBroker(rabbit_options(rabbitmq_url))) as broker:
        yield broker


def ready(broker, queue=QUEUE):
    return broker.depth([queue])[0].ready


def numbered(first, last):
    return messages(*(f"{n:03d}" for n in range(first, last)))


def with_arguments(arguments, name):
    return QueueSpec(name, arguments=arguments, bindings=(Binding(name, name),))


def test_no_more_is_pushed_than_a_slot_may_hold(make, outside):
    slot = make()
    outside.publish(numbered(0, 40))
    held = slot.lease(3)
    assert slot.turn(0) == []
    assert ready(outside) == 37
    held = slot.turn(1, *held) or slot.lease(1)  # the tasks turned out to be slow
    wait_until(lambda: ready(outside) >= 40 - 3 - 3, 20)
    assert raws(held) == [b"003"]
    assert slot.withdraw(must=True)
    wait_until(lambda: ready(outside) == 36, 20)


def work_off(slot, count):
    """Returns what came, in its order, and how much at once."""
    seen, sizes, held = [], [], []
    while len(seen) < count:
        held = slot.turn(100, *held)
        sizes.append(len(held))
        seen += raws(held)
    assert slot.turn(100, *held) == []
    return seen, sizes


def test_a_window_grows_while_messages_keep_coming_and_shrinks_at_rest(make, outside):
    slot = make()
    outside.publish(numbered(0, 1000))
    seen, sizes = work_off(slot, 1000)
    assert seen == sorted(seen)
    assert max(sizes) > 25
    slot.listen()
    time.sleep(LOAD_ENDS + 0.1)  # and some round trips
    slot.listen()
    outside.publish(numbered(0, 10))
    assert wait_until(lambda: ready(outside), 20) == 9  # one for each that can start at once


def test_a_window_stays_open_while_the_server_pauses(make, outside):
    """The process of a long queue collects its garbage for tenths of a second, and a load is not over for that."""
    slot = make()
    outside.publish(numbered(0, 1000))
    work_off(slot, 1000)
    slot.listen()
    outside.publish(numbered(0, 30))
    wait_until(lambda: ready(outside) == 0, 20)
    trips = slot.broker.round_trips
    assert raws(slot.lease(30)) == raws(numbered(0, 30))
    assert slot.broker.round_trips - trips < 10  # from one message on it would be three for each size of the window


def test_what_was_acknowledged_before_a_note_was_lost_is_settled(make, outside):
    slot = make()
    outside.publish(numbered(0, 200))
    held = slot.lease(2)
    wait_until(lambda: slot.broker.listen(slot.owner, slot.queues, 1, quiet=False).fd is None, 20)  # the next has come
    cut = StoreUnavailable("cut")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("celeriac.brokers.rabbitmq.turns.Turns._confirm_note", lost := Mock(side_effect=cut))
        settlement, leased = slot.broker.turn(slot.owner, done(*held), slot.queues, 10)
    assert lost.called
    assert (settlement.fenced, leased) == (0, [])
    seen, held = raws(held), []
    while len(seen) < 200:
        held = slot.turn(100, *held)
        seen += raws(held)
    slot.turn(0, *held)
    assert sorted(seen) == raws(numbered(0, 200))
    assert outside.leased_count() == 0


def test_an_idle_slot_gets_what_a_busy_one_had_held(make, outside):
    busy, idle = make(), make()
    outside.publish(numbered(0, 20))
    running = wait_until(lambda: busy.turn(20), 20)
    wait_until(lambda: ready(outside) == 0, 20)
    fd = idle.listen()
    assert busy.withdraw()
    assert select.select([fd], [], [], 20)[0]
    held = idle.lease(20 - len(running))
    assert sorted(raws(running + held)) == raws(numbered(0, 20))
    assert busy.turn(0) == []
    assert outside.leased_count() == 20


def test_nothing_goes_back_while_nobody_waits_for_it(make, outside):
    slot = make()
    outside.publish(numbered(0, 30))
    wait_until(lambda: slot.turn(20), 20)
    wait_until(lambda: ready(outside) == 10, 20)
    assert not slot.withdraw()
    assert ready(outside) == 10
    assert slot.withdraw(must=True)
    wait_until(lambda: ready(outside) == 20, 20)


def test_a_message_wakes_a_slot_whoever_reads_it(make, outside):
    slot = make()
    slot.listen()
    outside.publish(messages("a"))
    wait_until(lambda: slot.broker.tend() or slot.woken.is_set(), 20)  # as its keeper does
    assert raws(slot.turn(1)) == [b"a"]


def test_a_queue_that_was_deleted_is_consumed_again(make, outside):
    slot = make()
    fd = slot.listen()
    with closing(Connection(outside.options, "deletes")) as connection:
        connection.call(delete_queue(QUEUE))
    assert select.select([fd], [], [], 20)[0] or slot.woken.is_set()
    assert slot.turn(1) == []
    slot.listen()
    outside.publish(messages("a"))
    assert raws(slot.lease(1)) == [b"a"]


def test_a_cut_connection_loses_and_doubles_nothing_of_what_was_pushed(make, outside, shared_rabbitmq):
    with FaultProxy(shared_rabbitmq.port) as proxy:
        through = outside.url.replace(str(shared_rabbitmq.port), str(proxy.port)).replace("//", "//guest:guest@", 1)
        cut, other = make(through), make()
        outside.publish(numbered(0, 20))
        running = wait_until(lambda: cut.turn(20), 20)
        wait_until(lambda: ready(outside) == 0, 20)
        proxy.cut()
        others = other.lease(20 - len(running))
        assert sorted(raws(running + others)) == raws(numbered(0, 20))
        assert cut.turn(20, *running) == []
        wait_until(lambda: other.turn(20, *others) == [] and ready(outside) == 0, 20)
        assert outside.leased_count() == 0


def test_a_queue_with_a_single_active_consumer_keeps_it_while_its_slot_is_busy(make):
    single = partial(with_arguments, {"x-single-active-consumer": True})
    first, second = make(specs=single), make(specs=single)
    first.listen()
    second.listen()
    first.broker.publish(numbered(0, 3))
    (running,) = first.lease(1)
    assert first.withdraw(must=True)
    assert second.turn(9) == []
    assert first.turn(0, running) == []
    assert first.broker.unregister(first.owner)
    assert raws(second.lease(2)) == [b"001", b"002"]


def test_a_quorum_queue_pushes_as_well(make):
    slot = make(specs=partial(with_arguments, {"x-queue-type": "quorum"}))
    slot.broker.publish(numbered(0, 50))
    seen, held = [], []
    deadline = time.monotonic() + 20
    while len(seen) < 50 and time.monotonic() < deadline:
        held = slot.turn(10, *held)
        seen += raws(held)
    assert sorted(seen) == raws(numbered(0, 50))


def test_a_message_of_many_frames_comes_whole(make, outside):
    slot = make()
    large = wire.pack(b"", QUEUE.encode(), properties.encode({"delivery_mode": 2}), b"\x00<\x00<" * 200_000)
    outside.publish([Message(QUEUE, large), *numbered(0, 2)])
    assert raws(slot.lease(3)) == [large, b"000", b"001"]
