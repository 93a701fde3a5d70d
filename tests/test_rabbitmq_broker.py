"""The RabbitMQ broker, beyond what all brokers have in common."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, closing
from functools import partial

import pytest

from celeriac.brokers.rabbitmq import properties, wire
from celeriac.brokers.rabbitmq.broker import RabbitBroker
from celeriac.brokers.rabbitmq.closed import ChannelClosed
from celeriac.brokers.rabbitmq.connection import Connection
from celeriac.brokers.rabbitmq.delays import LEVELS, delay_route, ticks_until
from celeriac.brokers.rabbitmq.methods import declare_queue, delete_queue
from celeriac.brokers.rabbitmq.options import Address
from celeriac.brokers.rabbitmq.own_queues import kinds
from celeriac.brokers.rabbitmq.owners import Owners
from celeriac.brokers.rabbitmq.topology import Binding, QueueSpec, plain_queue
from celeriac.compat.connect_rabbitmq import rabbit_options
from celeriac.errors import ConfigurationError, OwnerLost, QueueFull, StoreFull, StoreUnavailable, Unroutable
from celeriac.message import Message
from celeriac.outcome import Outcome, State
from tests.conformance.kits import QUEUE, done, failed, messages, owner_of, raws, tags
from tests.helpers import free_port, wait_until
from tests.proxy import FaultProxy


@pytest.fixture
def make(rabbitmq_url):
    """Brokers, each with connections of its own as each process has them."""
    with ExitStack() as stack:

        def make_broker(url=rabbitmq_url, specs=plain_queue, **options):
            return stack.enter_context(closing(RabbitBroker(rabbit_options(url, **options), specs)))

        yield make_broker


@pytest.fixture
def broker(make):
    return make()


def with_arguments(arguments, name):
    return QueueSpec(name, arguments=arguments, bindings=(Binding(name, name),))


def ready(broker, queue=QUEUE):
    return broker.depth([queue])[0].ready


# -- queues ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queue", ["ünïcode-⚙ b", "a.b.*.#", "7"])
def test_any_name_of_a_queue_works_and_can_be_delayed_to(broker, queue):
    owner = owner_of(broker, [queue])
    broker.publish(messages("now", queue=queue) + messages("later", queue=queue, due=time.time() + 0.05))
    assert raws(broker.lease(owner, [queue], 1)) == [b"now"]
    assert wait_until(lambda: raws(broker.lease(owner, [queue], 1))) == [b"later"]


def test_a_name_that_amqp_cannot_carry_is_refused(broker):
    with pytest.raises(ConfigurationError, match="255 bytes"):
        broker.publish(messages("a", queue="x" * 300))


def test_the_highest_priority_comes_first(make):
    broker = make(specs=partial(with_arguments, {"x-max-priority": 9}))
    owner = owner_of(broker)
    for priority in (0, 9, 3):
        broker.publish(messages(str(priority), priority=priority))
    held = broker.lease(owner, [QUEUE], 2)
    assert raws(held) == [b"9", b"3"]
    broker.release(owner, tags(held))
    assert raws(broker.lease(owner, [QUEUE], 9)) == [b"9", b"3", b"0"]


def test_a_full_queue_refuses_and_the_sender_is_told(make):
    broker = make(specs=partial(with_arguments, {"x-max-length": 2, "x-overflow": "reject-publish"}))
    broker.publish(messages("a", "b"))
    with pytest.raises(QueueFull, match="images has no room"):
        broker.publish(messages("c"))
    assert ready(broker) == 2


def bound_by_policy(server, url, length):
    """Bound the queue by what the app does not know of; return what names the policy."""
    policy = f'<<"{url.rpartition("/")[2]}">>, <<"bound">>'
    server.eval(
        f'rabbit_policy:set({policy}, <<"^images$">>, [{{<<"max-length">>, {length}}}, {{<<"overflow">>, '
        '<<"reject-publish">>}], 0, <<"queues">>, <<"tests">>).'
    )
    return policy


def test_a_queue_that_the_server_bounds_by_a_policy_is_full_after_a_while_and_then_at_once(
    make, shared_rabbitmq, rabbitmq_url
):
    """A refusal has no reason: a queue that elects its leader refuses, too, and is asked again for a while."""
    bound_by_policy(shared_rabbitmq, rabbitmq_url, 2)
    broker = make(answer_timeout=1.0)
    broker.publish(messages("a", "b"))
    for longest in (5.0, 0.5):
        since = time.monotonic()
        with pytest.raises(QueueFull, match="images has no room"):
            broker.publish(messages("c"))
        assert time.monotonic() - since < longest
    assert ready(broker) == 2


def test_what_is_refused_for_a_moment_is_sent_all_the_same(make, shared_rabbitmq, rabbitmq_url):
    policy = bound_by_policy(shared_rabbitmq, rabbitmq_url, 1)
    broker = make()
    broker.publish(messages("a"))
    opened = threading.Timer(0.3, lambda: shared_rabbitmq.eval(f'rabbit_policy:delete({policy}, <<"tests">>).'))
    opened.start()
    broker.publish(messages("b", "c"))
    opened.join()
    assert raws(broker.lease(owner_of(broker), [QUEUE], 9)) == [b"a", b"b", b"c"]


def test_a_queue_that_was_deleted_is_made_again_by_who_sends_to_it(make):
    broker, other = make(), make()
    broker.publish(messages("gone"))
    _delete_queue(other, QUEUE)
    with pytest.raises(Unroutable):
        broker.publish(messages("lost, and told"))
    broker.publish(messages("a"))
    assert ready(broker) == 1


@pytest.mark.parametrize(("earlier", "later"), [("classic", "quorum"), ("quorum", "classic")])
def test_own_queues_of_another_type_are_used_as_they_are(make, caplog, earlier, later):
    first, second = make(queue_type=earlier), make(queue_type=later)
    for broker in (first, second):
        broker.publish(messages("later", due=time.time() + 0.2))
        owner = owner_of(broker)
        assert raws(wait_until(lambda: broker.lease(owner, [QUEUE], 9))) == [b"later"]  # noqa: B023 - in its turn
        broker.settle(owner, [failed(*broker.leased(owner))])
    assert second.dead_count() == 2
    warned = [each.getMessage() for each in caplog.records if "another type" in each.getMessage()]
    assert len(warned) == (2 if later == "quorum" else 0)  # owners' and delays'; dead letters are looked for first


@pytest.mark.parametrize(
    ("wanted", "version", "first"),
    [
        ("classic", (3, 10), {}),
        ("quorum", (3, 10), {"x-queue-type": "quorum"}),
        ("classic", (4, 0), {"x-queue-type": "classic"}),
        ("quorum", (4, 1), {"x-queue-type": "quorum", "x-delivery-limit": -1}),
    ],
)
def test_own_queues_are_declared_of_a_type_where_the_server_has_a_default(wanted, version, first):
    found = kinds(wanted, version)
    assert found[0] == first
    assert {} in found  # what an earlier version may have left
    assert {each.get("x-queue-type") for each in found} >= {None, "quorum"}


def test_before_messages_in_quorum_queues_can_expire_own_queues_are_classic():
    assert kinds("quorum", (3, 9)) == [{}]


def test_a_queue_that_is_there_with_other_settings_is_named(make):
    make().publish(messages("a"))
    other = make(specs=partial(with_arguments, {"x-max-priority": 9}))
    with pytest.raises(ConfigurationError, match=r"images.*task_queues"):
        other.publish(messages("b"))


def test_a_deleted_queue_comes_back(make):
    broker, other = make(), make()
    owner = owner_of(broker)
    broker.publish(messages("kept", queue="other"))
    (kept,) = broker.lease(owner, ["other"], 1)
    assert broker.lease(owner, [QUEUE], 1) == []
    _delete_queue(other, QUEUE)
    assert broker.lease(owner, [QUEUE], 1) == []
    broker.publish(messages("a"))
    (delivery,) = wait_until(lambda: broker.lease(owner, [QUEUE], 1))
    assert broker.settle(owner, done(delivery, kept)).fenced == 0
    assert broker.lease(owner, ["other"], 1) == []


def test_an_auto_delete_queue_goes_with_the_last_that_serves_it(make):
    """As ``Broadcast`` makes them; consumers come and go here, so it is not for the server to tell."""
    broadcast = partial(QueueSpec, auto_delete=True)
    one, two = make(specs=broadcast), make(specs=broadcast)
    owners = [(broker, owner_of(broker)) for broker in (one, two)]
    one.publish(messages("a", "b"))
    for broker, owner in owners:
        broker.beat([owner], [QUEUE], 60)
        broker.subscribe(owner, lambda: None)
        assert len(wait_until(lambda broker=broker, owner=owner: broker.lease(owner, [QUEUE], 1))) == 1
        assert broker.unregister(owner) is False
        broker.settle(owner, done(*broker.leased(owner)))
        assert broker.unregister(owner)
        broker.close()
    with closing(Connection(one.options, "looks")) as connection, pytest.raises(ChannelClosed) as refused:
        connection.call(declare_queue(QUEUE, passive=True))
    assert refused.value.code == 404


def _delete_queue(broker, queue):
    with closing(Connection(broker.options, "deletes")) as connection:
        connection.call(delete_queue(queue))


# -- delays ------------------------------------------------------------------------------------------------------------


def test_delayed_messages_come_by_themselves_and_never_early(broker):
    owner = owner_of(broker)
    broker.publish(messages("first", due=time.time() + 0.01))  # declares the levels
    assert raws(wait_until(lambda: broker.lease(owner, [QUEUE], 1))) == [b"first"]
    dues = [time.time() + seconds for seconds in (0.83, 0.45, 0.58)]
    for due in dues:
        broker.publish(messages(str(due), due=due))
    assert broker.depth([QUEUE])[0].scheduled == 3
    seen = []
    while len(seen) < 3:
        assert broker.wait([QUEUE], 5)
        for raw in raws(broker.lease(owner, [QUEUE], 5)):
            assert time.time() >= float(raw)
            assert time.time() - float(raw) < 0.5
            seen.append(float(raw))
    assert seen == sorted(dues)
    assert broker.depth([QUEUE])[0].scheduled == 0
    assert broker.promote([QUEUE]) == (0, None)


def test_what_is_delayed_can_be_looked_at_and_stays_where_it_is(broker):
    owner = owner_of(broker)
    assert broker.first_scheduled(QUEUE, 10) == []
    due = time.time() + 1.5
    broker.publish([Message("elsewhere", b"not this", 0, due), *(Message(QUEUE, b"m%d" % n, n, due) for n in (0, 3))])
    for _ in range(3):
        looked = broker.first_scheduled(QUEUE, 10)
        assert sorted(raw for _, raw in looked) == [b"m0", b"m3"]
        assert all(earliest <= due + 0.05 for earliest, _ in looked)
        time.sleep(0.2)
    assert broker.lease(owner, [QUEUE], 10) == []
    found = []
    wait_until(lambda: found.extend(broker.lease(owner, [QUEUE], 10)) or len(found) == 2)
    assert time.time() >= due - 0.01
    assert {delivery.raw for delivery in found} == {b"m0", b"m3"}
    assert broker.first_scheduled(QUEUE, 10) == []


def test_a_delay_is_rounded_up_to_ticks_and_has_a_longest():
    assert ticks_until(100.011, 100.0) == 2
    assert ticks_until(99.0, 100.0) == 0
    assert ticks_until(1e12, 100.0) == 2**LEVELS - 1
    exchange, key = delay_route("celery", 5)
    assert exchange == "celeriac.delay.2"
    assert key == "0." * (LEVELS - 3) + "1.0.1.celery"


# -- whose is it? ------------------------------------------------------------------------------------------------------


def test_what_was_released_is_anybodys(make):
    broker, other = make(), make()
    owner, second = owner_of(broker), owner_of(other)
    broker.publish(messages("a", "b", "c"))
    held = broker.lease(owner, [QUEUE], 2)
    broker.release(owner, tags(held))
    assert raws(other.lease(second, [QUEUE], 9)) == [b"a", b"b", b"c"]


def test_what_a_lost_process_held_waits_for_its_rescuer(make):
    lost, other = make(), make()
    owner, second = owner_of(lost), owner_of(other)
    lost.publish(messages("started", "crashed", "finished", "unstarted"))
    lost.lease(owner, [QUEUE], 4)
    lost.close()  # as when the process is killed: the server gives all of it to others
    assert other.lease(second, [QUEUE], 9) == []
    other.condemn(owner)
    started, crashed, finished, unstarted = other.leased(owner)
    follow_up = tuple(messages("follow-up"))
    outcomes = [
        failed(started, "lost"),
        Outcome(crashed, State.INTERRUPTED, requeue=b"crashed once"),
        Outcome(finished, State.SUCCEEDED, publish=follow_up),
        Outcome(unstarted, State.INTERRUPTED, requeue=unstarted.raw),
    ]
    assert other.settle_condemned(owner, outcomes).fenced == 0
    assert other.unregister(owner)
    assert sorted(raws(other.lease(second, [QUEUE], 9))) == [b"crashed once", b"follow-up", b"unstarted"]
    assert ready(other) == 0
    assert [dead.raw for dead in other.dead_letters()] == [b"started"]


def test_who_only_lost_the_connection_keeps_its_leases(make, shared_rabbitmq):
    with FaultProxy(shared_rabbitmq.port) as proxy:
        near = make()
        cut = make(near.url.replace(str(shared_rabbitmq.port), str(proxy.port)).replace("//", "//guest:guest@", 1))
        owner, other = owner_of(cut), owner_of(near)
        near.publish(messages("a"))
        (delivery,) = cut.lease(owner, [QUEUE], 1)
        proxy.cut()
        wait_until(lambda: ready(near) == 1)
        assert near.lease(other, [QUEUE], 1) == []
        follow_up = tuple(messages("follow-up"))
        assert cut.settle(owner, [Outcome(delivery, State.SUCCEEDED, publish=follow_up)]).fenced == 0
        assert raws(wait_until(lambda: near.lease(other, [QUEUE], 9))) == [b"follow-up"]
        assert ready(near) == 0
        assert near.leased_count() == 1


def test_a_condemned_owner_is_fenced_off(make):
    broker, rescuer = make(), make()
    owner = owner_of(broker)
    broker.publish(messages("a", "b"))
    (delivery,) = broker.lease(owner, [QUEUE], 1)
    rescuer.condemn(owner)
    assert broker.beat([owner], [QUEUE], 60) == [owner]
    time.sleep(1.01)  # a proof of not being condemned is good for a second
    with pytest.raises(OwnerLost):
        broker.turn(owner, done(delivery), [QUEUE], 1)
    assert broker.release(owner, [delivery.tag]) == 0
    assert rescuer.leased(owner) == [delivery]


def test_who_falls_silent_with_the_lock_in_its_hands_loses_it(make):
    other = make()
    owner = owner_of(other, ttl=0.01)
    publishing = Connection(other.options, "publishes")
    expired = []

    def hold_the_lock():
        with Owners(other.options, publishing).locked() as registry:
            # As when its process is paused: nobody sends a heartbeat.
            assert list(registry) == [owner]
            expired.extend(other.expired())

    with closing(publishing), pytest.raises(StoreUnavailable):
        hold_the_lock()
    assert expired == [owner]


def test_two_rescuers_settle_each_message_once(make):
    lost, one, two = make(), make(), make()
    owner = owner_of(lost)
    lost.publish(messages(*(str(n) for n in range(40))))
    lost.lease(owner, [QUEUE], 40)
    lost.close()
    one.condemn(owner)
    two.condemn(owner)
    held = two.leased(owner)
    outcomes = [Outcome(delivery, State.INTERRUPTED, requeue=delivery.raw + b"!") for delivery in held]
    assert one.settle_condemned(owner, outcomes[:30]).fenced == 0
    assert two.settle_condemned(owner, outcomes).fenced == 30
    second = owner_of(two)
    seen = []
    while len(seen) < 40:
        seen += wait_until(lambda: two.lease(second, [QUEUE], 100))
    assert sorted(raws(seen)) == sorted(delivery.raw + b"!" for delivery in held)
    assert two.lease(second, [QUEUE], 100) == []


def test_a_quorum_queue_knows_its_messages_again(make):
    quorum = partial(with_arguments, {"x-queue-type": "quorum"})
    lost, other = make(specs=quorum), make(specs=quorum)
    owner, second = owner_of(lost), owner_of(other)
    lost.publish([Message(QUEUE, _parcel(lost, "started")), Message(QUEUE, _parcel(lost, "unstarted"))])
    lost.lease(owner, [QUEUE], 2)
    lost.close()
    assert wait_until(lambda: ready(other) == 2)
    assert other.lease(second, [QUEUE], 9) == []
    other.condemn(owner)
    started, unstarted = other.leased(owner)
    back = Outcome(unstarted, State.INTERRUPTED, requeue=unstarted.raw)
    other.settle_condemned(owner, [failed(started, "lost"), back])
    (again,) = wait_until(lambda: other.lease(second, [QUEUE], 9))
    assert again.raw.endswith(b"unstarted")
    assert b"x-delivery-count" in again.raw
    assert other.settle(second, done(again)).fenced == 0
    assert ready(other) == 0


def _parcel(broker, body):
    headers = {"task": "t", "id": body, "retries": 0, "timelimit": [None, None], "celeriac-sent": 1.5}
    return wire.pack(b"", QUEUE.encode(), properties.encode({"delivery_mode": 2, "headers": headers}), body.encode())


def test_what_follows_an_outcome_and_has_no_place_is_refused_each_time(make):
    broker = make()
    owner = owner_of(broker)
    broker.publish(messages("a"))
    (delivery,) = broker.lease(owner, [QUEUE], 1)
    nowhere = Message("", wire.pack(b"amq.topic", b"nowhere", properties.encode({"delivery_mode": 2}), b"x"))
    outcome = Outcome(delivery, State.SUCCEEDED, publish=(nowhere, *messages("follow-up")))
    for _ in range(2):
        with pytest.raises(Unroutable, match=r"exchange 'amq.topic' for routing key 'nowhere'"):
            broker.settle(owner, [outcome])
    assert broker.leased(owner) == [delivery]
    assert broker.settle(owner, [failed(delivery)]).fenced == 0
    assert ready(broker) == 1  # the follow-up that had a place was sent once


def test_a_full_queue_keeps_an_outcome_until_there_is_room_and_sends_the_rest_once(make):
    broker = make(specs=partial(with_arguments, {"x-max-length": 1, "x-overflow": "reject-publish"}))
    owner = owner_of(broker, [QUEUE, "other"])
    broker.publish(messages("a"))
    (delivery,) = broker.lease(owner, [QUEUE], 1)
    broker.publish(messages("in the way"))
    outcome = Outcome(delivery, State.SUCCEEDED, publish=(*messages("once", queue="other"), *messages("no room")))
    for _ in range(2):
        with pytest.raises(StoreFull):
            broker.settle(owner, [outcome])
    broker.purge(QUEUE)
    assert broker.settle(owner, [outcome]).fenced == 0
    assert raws(broker.lease(owner, [QUEUE, "other"], 9)) == [b"no room", b"once"]


def test_a_copy_of_a_message_that_others_have_settled_is_not_taken_for_it(make):
    """As when a dead letter is replayed: the server may deliver the replayed message twice, too."""
    lost, other = make(), make()
    owner, second = owner_of(lost), owner_of(other)
    lost.publish([Message(QUEUE, _parcel(lost, "doomed"))])
    lost.lease(owner, [QUEUE], 1)
    lost.close()
    other.condemn(owner)
    other.settle_condemned(owner, [failed(each, "lost") for each in other.leased(owner)])
    wait_until(lambda: other.lease(second, [QUEUE], 9) == [] and ready(other) == 0)
    assert other.replay(other.dead_letters()[0].id)
    held = other.lease(second, [QUEUE], 9)
    other.release(second, tags(held))
    (again,) = other.lease(second, [QUEUE], 9)
    assert again.raw.endswith(b"doomed")


# -- trouble -----------------------------------------------------------------------------------------------------------


def test_a_cut_connection_is_made_again(make, shared_rabbitmq):
    with FaultProxy(shared_rabbitmq.port) as proxy:
        near = make()
        broker = make(near.url.replace(str(shared_rabbitmq.port), str(proxy.port)).replace("//", "//guest:guest@", 1))
        owner = owner_of(broker)
        broker.publish(messages("a"))
        proxy.cut()
        broker.publish(messages("b"))
        proxy.cut()
        assert sorted(raws(broker.lease(owner, [QUEUE], 9))) == [b"a", b"b"]


def test_a_silent_server_counts_as_away(make, shared_rabbitmq):
    with FaultProxy(shared_rabbitmq.port) as proxy:
        url = make().url.replace(str(shared_rabbitmq.port), str(proxy.port)).replace("//", "//guest:guest@", 1)
        broker = make(url, answer_timeout=0.3)
        broker.publish(messages("a"))
        proxy.black_hole()
        with pytest.raises(StoreUnavailable, match=r"no answer within 0.3 s"):
            broker.publish(messages("b"))


def test_while_the_servers_alarm_is_on_nothing_is_sent_and_work_goes_on(make, shared_rabbitmq):
    sender, broker = make(answer_timeout=0.4), make(answer_timeout=2.0)
    owner = owner_of(broker)
    broker.publish(messages("a", "b"))
    sender.publish(messages("c"))
    shared_rabbitmq.alarm(on=True)
    try:
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match=r"takes no messages for now"):
                sender.publish(messages("d"))
        first = broker.lease(owner, [QUEUE], 1)
        second = broker.lease(owner, [QUEUE], 1)
        assert broker.settle(owner, done(*first, *second)).fenced == 0
    finally:
        shared_rabbitmq.alarm(on=False)
    wait_until(lambda: ready(broker) >= 1)
    sender.publish(messages("e"))
    assert b"e" in raws(broker.lease(owner, [QUEUE], 9))


def test_the_next_address_is_tried(make, rabbitmq_url):
    vhost = rabbitmq_url.rpartition("/")[2]
    broker = make(f"amqp://guest:guest@127.0.0.1:{free_port()}/{vhost};{rabbitmq_url}")
    broker.publish(messages("a"))
    assert ready(broker) == 1
    assert broker.options.addresses[1] == Address("127.0.0.1", int(rabbitmq_url.rpartition(":")[2].split("/")[0]))


def test_wrong_doors_are_told_apart(make, shared_rabbitmq, shared_redis):
    port = shared_rabbitmq.port
    doors = {
        f"amqp://guest:wrong@127.0.0.1:{port}//": (ConfigurationError, "refused the login"),
        f"amqp://guest:guest@127.0.0.1:{port}/nowhere": (ConfigurationError, r"virtual host 'nowhere'.*add_vhost"),
        f"amqp://guest:guest@127.0.0.1:{free_port()}//": (StoreUnavailable, "refused"),
        f"amqp://guest:guest@127.0.0.1:{shared_redis.port}//": (StoreUnavailable, "cannot be reached"),
    }
    for url, (error, text) in doors.items():
        with pytest.raises(error, match=text):
            make(url, answer_timeout=0.5).ping()


# -- dead letters ------------------------------------------------------------------------------------------------------


def test_dead_letters_are_bounded_and_the_oldest_go(make):
    broker = make(dead_limit=3)
    owner = owner_of(broker)
    for n in range(5):
        broker.publish(messages(str(n)))
        broker.settle(owner, [failed(*broker.lease(owner, [QUEUE], 1))])
    assert [dead.raw for dead in broker.dead_letters()] == [b"4", b"3", b"2"]


def test_looking_at_dead_letters_changes_nothing(make):
    broker = make()
    owner = owner_of(broker)
    for n in range(3):
        broker.publish(messages(str(n)))
        broker.settle(owner, [failed(*broker.lease(owner, [QUEUE], 1))])
    first = broker.dead_letters()
    assert make().dead_letters() == broker.dead_letters() == first
    assert broker.dead_letter(first[1].id) == first[1]
    assert broker.dead_count() == 3
