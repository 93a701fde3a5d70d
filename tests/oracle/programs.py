"""Small programs over the tasks of :mod:`tests.oracle.app`.

Each gets the tasks of one sender and a tag for its notes, and returns what it was handed: a result, or a list of results.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

from celery import chain, chord, group

from tests.oracle.app import Tasks

Program = Callable[[Tasks, str], Any]
PROGRAMS: dict[str, Program] = {}


def program(function: Program) -> Program:
    """Make a function one of the programs."""
    PROGRAMS[function.__name__] = function
    return function


class Maker:
    """Makes signatures of one program."""

    def __init__(self, tag: str) -> None:
        self.tag = tag

    def __call__(self, task: Any, label: str, *args: Any, **kwargs: Any) -> Any:
        return task.s(*args, tag=self.tag, label=label, **kwargs)

    def fixed(self, task: Any, label: str, *args: Any, **kwargs: Any) -> Any:
        return task.si(*args, tag=self.tag, label=label, **kwargs)


# -- single tasks ------------------------------------------------------------------------------------------------------


def single(name: str, task: str = "step", options: dict[str, Any] | None = None, **kwargs: Any) -> None:
    """A program that sends one task."""

    def run(t: Tasks, tag: str) -> Any:
        return getattr(t, task).apply_async((1, 2), {"tag": tag, "label": "a", **kwargs}, **(options or {}))

    PROGRAMS[name] = run


def bare(name: str, task: str, **kwargs: Any) -> None:
    """A program that sends one task without positional arguments."""

    def run(t: Tasks, tag: str) -> Any:
        return getattr(t, task).delay(tag=tag, label="a", **kwargs)

    PROGRAMS[name] = run


for _act in (
    "ok", "echo", "fail", "fail_from", "fail_two", "fail_key", "recurse", "retry", "retry_because", "retry_out",
    "retry_in_error", "retry_with", "retry_quietly", "ignore", "ignore_with_state", "ignore_as_failed", "progress",
    "reject", "unserialisable", "nested_value", "context", "fan_out", "call_inside", "fail_unprintable",
    "fail_unpicklable", "fail_group", "exit_process", "interrupt", "die", "send_then_fail", "cyclic",
    "many_children", "state_of_others",
):  # fmt: skip
    single(f"a_step_does_{_act}", do=_act)
for _act in ("ok", "fail", "retry", "retry_out", "ignore", "reject"):
    single(f"a_late_step_does_{_act}", task="late", do=_act)
    single(f"a_silent_step_does_{_act}", task="silent", do=_act)
    single(f"a_tracked_step_does_{_act}", task="tracked", do=_act)
single("a_late_step_is_requeued_once", task="late", do="reject", requeue=True)
single("an_early_step_is_requeued_once", do="reject", requeue=True)
single("a_silent_failure_is_stored", task="silent_errors", do="fail")
single("an_expected_error", task="throwing", do="expected")
single("an_unexpected_error_of_a_task_that_throws", task="throwing", do="fail")
single("a_step_of_another_queue_by_route", task="second")
single("a_step_of_another_queue_by_option", options={"queue": "second"}, do="context")
single("a_step_with_options_of_its_own", task="expiring", do="context")
single("retries_of_a_step_with_options_of_its_own", task="expiring", do="retry", times=2)
single("a_call_with_priority", options={"priority": 6}, do="context")
single("a_retry_keeps_the_priority", options={"priority": 6}, do="retry")
single("a_call_with_headers", options={"headers": {"colour": "red"}}, do="context")
single("a_call_with_shadow", options={"shadow": "another name"}, do="context")
single("a_call_with_time_limits", options={"time_limit": 20, "soft_time_limit": 10}, do="context")
single("a_call_with_reply_to", options={"reply_to": "somebody", "correlation_id": "me"}, do="context")
single("a_call_with_an_unknown_serializer", options={"serializer": "no such"})
single("arguments_that_cannot_be_sent", value=object())
single("a_call_with_compression", options={"compression": "zlib"}, do="context")
single("a_call_that_ignores_its_result", options={"ignore_result": True}, do="context")
single("a_silent_task_called_for_its_result", task="silent", options={"ignore_result": False})
single("a_call_with_countdown", options={"countdown": 0.3}, do="context")
single("a_call_with_countdown_and_expiry", options={"countdown": 0.3, "expires": 60}, do="context")
single("an_expired_call", options={"expires": -5})
single("a_soft_time_limit", task="impatient", do="soft_limit")
single("a_soft_time_limit_that_is_not_caught", task="impatient", do="too_long")
single("a_hard_time_limit", task="doomed", do="too_long")
for _act in ("ok", "fail", "ignore", "progress", "reject", "fail_unpicklable"):
    single(f"handlers_that_look_at_the_result_of_{_act}", task="looking", do=_act)
single("handlers_that_look_at_a_result_nobody_wants", task="looking", options={"ignore_result": True})
single("several_retries", do="retry", times=3)
single("a_retry_after_a_while", do="retry_later")
single("a_retry_with_options", do="retry_elsewhere")
single("on_failure_that_raises", task="raises_at_the_end", do="fail")
single("on_retry_that_raises", task="raises_at_the_end", do="retry")
bare("autoretry_until_it_works", "auto", times=2)
bare("autoretry_until_it_gives_up", "auto")
bare("autoretry_only_for_what_was_named", "auto", error="value")
bare("autoretry_with_backoff", "auto_backoff")
bare("autoretry_not_for_what_was_excluded", "auto_backoff", error="expected")
bare("autoretry_with_retry_kwargs", "auto_kwargs")
bare("handlers_that_raise", "raising")
bare("before_start_that_raises", "raises_before")


@program
def wrong_arguments_at_the_worker(t, tag):
    return t.app.send_task("auto", (1, 2, 3), {"tag": tag, "label": "a"})


@program
def a_call_by_name(t, tag):
    return t.app.send_task("step", (4,), {"tag": tag, "label": "a", "do": "context"})


@program
def an_eta_in_the_past(t, tag):
    return t.step.apply_async((1,), {"tag": tag, "label": "a"}, eta=datetime.now(timezone.utc) - timedelta(hours=1))


@program
def an_eta_in_another_zone(t, tag):
    zone = timezone(timedelta(hours=5))
    return t.step.apply_async((1,), {"tag": tag, "label": "a"}, eta=datetime.now(zone) + timedelta(seconds=0.3))


@program
def an_expiry_date(t, tag):
    return t.step.apply_async(
        (1,), {"tag": tag, "label": "a", "do": "ok"}, expires=datetime.now(timezone.utc) + timedelta(hours=1)
    )


# -- callbacks ---------------------------------------------------------------------------------------------------------


@program
def a_callback(t, tag):
    s = Maker(tag)
    return t.step.apply_async((1,), {"tag": tag, "label": "a"}, link=s(t.step, "b", do="context"))


@program
def several_callbacks(t, tag):
    s = Maker(tag)
    callbacks = [s(t.step, "b"), s.fixed(t.step, "c", 5), group([s(t.step, "d"), s(t.step, "e")])]
    return t.step.apply_async((1,), {"tag": tag, "label": "a"}, link=callbacks)


@program
def a_callback_of_a_callback(t, tag):
    s = Maker(tag)
    inner = s(t.step, "b")
    inner.link(s(t.step, "c"))
    return t.step.apply_async((1,), {"tag": tag, "label": "a"}, link=inner)


@program
def a_callback_with_options(t, tag):
    s = Maker(tag)
    return t.step.apply_async(
        (1,), {"tag": tag, "label": "a"}, link=s(t.step, "b", do="context").set(queue="second", priority=5)
    )


@program
def a_callback_after_a_retry(t, tag):
    s = Maker(tag)
    return t.step.apply_async((1,), {"tag": tag, "label": "a", "do": "retry"}, link=s(t.step, "b"))


@program
def no_callback_after_ignore(t, tag):
    s = Maker(tag)
    return t.step.apply_async((1,), {"tag": tag, "label": "a", "do": "ignore"}, link=s(t.step, "b"))


@program
def a_callback_of_a_silent_task(t, tag):
    s = Maker(tag)
    return t.silent.apply_async((1,), {"tag": tag, "label": "a"}, link=s(t.step, "b"))


@program
def a_callback_that_is_a_chain(t, tag):
    s = Maker(tag)
    return t.step.apply_async((1,), {"tag": tag, "label": "a"}, link=s(t.step, "b") | s(t.step, "c"))


@program
def error_callbacks_of_both_styles(t, tag):
    s = Maker(tag)
    errbacks = [s(t.errback, "e1"), s(t.old_errback, "e2"), s.fixed(t.step, "e3")]
    return t.step.apply_async((1,), {"tag": tag, "label": "a", "do": "fail"}, link_error=errbacks)


@program
def an_error_callback_that_looks_at_the_result(t, tag):
    s = Maker(tag)
    kwargs = {"tag": tag, "label": "a", "do": "fail"}
    return t.step.apply_async((1,), kwargs, link_error=s(t.looking_errback, "e"), link=s(t.step, "b"))


@program
def an_error_callback_after_retries(t, tag):
    s = Maker(tag)
    kwargs = {"tag": tag, "label": "a", "do": "retry_out"}
    return t.step.apply_async((1,), kwargs, link_error=s(t.errback, "e"))


@program
def an_error_callback_of_a_rejected_task(t, tag):
    s = Maker(tag)
    return t.late.apply_async((1,), {"tag": tag, "label": "a", "do": "reject"}, link_error=s(t.errback, "e"))


@program
def an_error_callback_of_a_time_limit(t, tag):
    s = Maker(tag)
    return t.doomed.apply_async((1,), {"tag": tag, "label": "a", "do": "too_long"}, link_error=s(t.errback, "e"))


@program
def an_error_callback_of_a_silent_task(t, tag):
    s = Maker(tag)
    return t.silent.apply_async((1,), {"tag": tag, "label": "a", "do": "fail"}, link_error=s(t.errback, "e"))


@program
def an_error_callback_of_an_unserialisable_result(t, tag):
    s = Maker(tag)
    kwargs = {"tag": tag, "label": "a", "do": "unserialisable"}
    return t.step.apply_async((1,), kwargs, link=s(t.step, "b"), link_error=s(t.errback, "e"))


@program
def an_immutable_callback_of_an_unserialisable_result(t, tag):
    s = Maker(tag)
    kwargs = {"tag": tag, "label": "a", "do": "unserialisable"}
    return t.step.apply_async((1,), kwargs, link=s.fixed(t.step, "b"))


# -- chains ------------------------------------------------------------------------------------------------------------


@program
def a_chain(t, tag):
    s = Maker(tag)
    return chain(s(t.step, "a", 1), s(t.step, "b", do="context"), s(t.step, "c")).apply_async()


@program
def a_chain_that_fails(t, tag):
    s = Maker(tag)
    steps = [s(t.step, "a", 1), s(t.step, "b", do="fail"), s(t.step, "c")]
    return chain(*steps).apply_async(link_error=s(t.errback, "e"))


@program
def a_chain_that_retries(t, tag):
    s = Maker(tag)
    return chain(s(t.step, "a", 1), s(t.step, "b", do="retry", times=2), s(t.step, "c")).apply_async()


@program
def a_chain_that_ignores(t, tag):
    s = Maker(tag)
    return chain(s(t.step, "a", 1), s(t.step, "b", do="ignore"), s(t.step, "c")).apply_async()


@program
def a_chain_across_queues(t, tag):
    s = Maker(tag)
    return chain(s(t.step, "a", 1), s(t.second, "b"), s(t.step, "c").set(queue="second")).apply_async()


@program
def a_chain_with_a_link(t, tag):
    s = Maker(tag)
    return chain(s(t.step, "a", 1), s(t.step, "b")).apply_async(link=s(t.step, "after"))


@program
def a_chain_with_countdown(t, tag):
    s = Maker(tag)
    return chain(s(t.step, "a", 1), s(t.step, "b").set(countdown=0.2), s(t.step, "c")).apply_async()


@program
def a_chain_of_chains(t, tag):
    s = Maker(tag)
    return chain(s(t.step, "a", 1), chain(s(t.step, "b"), s(t.step, "c")), s(t.step, "d")).apply_async()


@program
def a_chain_with_a_silent_link(t, tag):
    s = Maker(tag)
    return chain(s(t.step, "a", 1), s(t.silent, "b"), s(t.step, "c")).apply_async()


@program
def a_chain_with_priority(t, tag):
    s = Maker(tag)
    return chain(s(t.step, "a", 1, do="context"), s(t.step, "b", do="context")).apply_async(priority=5)


# -- groups and chords -------------------------------------------------------------------------------------------------


@program
def a_group(t, tag):
    s = Maker(tag)
    return group(s(t.step, f"m{n}", n, do="context" if not n else "ok") for n in range(3)).apply_async()


@program
def a_group_of_all_kinds(t, tag):
    s = Maker(tag)
    acts = ("ok", "fail", "retry", "ignore", "retry_out")
    return group(s(t.step, do, 1, do=do).on_error(s(t.errback, f"error-{do}")) for do in acts).apply_async()


@program
def a_saved_group(t, tag):
    s = Maker(tag)
    result = group(s(t.step, f"m{n}", n) for n in range(2)).apply_async()
    result.save()
    return t.app.GroupResult.restore(result.id)


@program
def a_group_of_chains(t, tag):
    s = Maker(tag)
    return group(chain(s(t.step, f"a{n}", n), s(t.step, f"b{n}")) for n in range(2)).apply_async()


@program
def a_chain_that_ends_in_a_group(t, tag):
    s = Maker(tag)
    return chain(s(t.step, "a", 1), group(s(t.step, f"m{n}") for n in range(2))).apply_async()


@program
def a_chord(t, tag):
    s = Maker(tag)
    header = [s(t.step, f"m{n}", n, do="context" if not n else "ok") for n in range(3)]
    return chord(header, s(t.step, "body", do="context")).apply_async()


@program
def a_chord_keeps_the_order_of_its_header(t, tag):
    s = Maker(tag)
    header = [s(t.step, f"m{n}", do="give", value=n).set(countdown=0.2 * (3 - n)) for n in range(3)]
    return chord(header, s(t.step, "body", do="echo")).apply_async()


@program
def a_chord_with_one_member(t, tag):
    s = Maker(tag)
    return chord([s(t.step, "m", 1)], s(t.step, "body")).apply_async()


@program
def a_chord_with_an_empty_header(t, tag):
    return chord([], Maker(tag)(t.step, "body", do="echo")).apply_async()


@program
def a_chord_whose_member_fails(t, tag):
    s = Maker(tag)
    header = [s(t.step, "m0", 1), s(t.step, "m1", do="fail")]
    return chord(header, s(t.step, "body").on_error(s(t.errback, "e"))).apply_async()


@program
def a_chord_whose_members_have_error_callbacks(t, tag):
    s = Maker(tag)
    work = chord([s(t.step, "m0", 1), s(t.step, "m1", do="fail")], s(t.step, "body"))
    work.link_error(s(t.errback, "e"))
    return work.apply_async()


@program
def a_chord_whose_member_retries(t, tag):
    s = Maker(tag)
    header = [s(t.step, "m0", 1), s(t.step, "m1", 2, do="retry", times=2)]
    return chord(header, s(t.step, "body")).apply_async()


@program
def a_chord_whose_member_is_ignored(t, tag):
    s = Maker(tag)
    header = [s(t.step, "m0", 1), s(t.step, "m1", do="ignore")]
    return chord(header, s(t.step, "body")).apply_async()


@program
def a_chord_whose_member_is_rejected(t, tag):
    s = Maker(tag)
    header = [s(t.late, "m0", 1), s(t.late, "m1", do="reject")]
    return chord(header, s(t.step, "body").on_error(s(t.errback, "e"))).apply_async()


@program
def a_chord_whose_member_expires(t, tag):
    s = Maker(tag)
    header = [s(t.step, "m0", 1), s(t.step, "m1", 1).set(expires=-5)]
    return chord(header, s(t.step, "body").on_error(s(t.errback, "e"))).apply_async()


@program
def a_chord_whose_member_is_killed(t, tag):
    s = Maker(tag)
    header = [s(t.step, "m0", 1), s(t.doomed, "m1", do="too_long")]
    return chord(header, s(t.step, "body").on_error(s(t.errback, "e"))).apply_async()


@program
def a_chord_whose_body_fails(t, tag):
    s = Maker(tag)
    body = s(t.step, "body", do="fail").on_error(s(t.errback, "e"))
    return chord([s(t.step, "m0", 1), s(t.step, "m1", 1)], body).apply_async()


@program
def a_chord_whose_member_cannot_be_stored(t, tag):
    s = Maker(tag)
    header = [s(t.step, "m0", 1), s(t.step, "m1", do="unserialisable")]
    return chord(header, s(t.step, "body").on_error(s(t.errback, "e"))).apply_async()


@program
def a_chord_with_arguments_that_are_not_plain_json(t, tag):
    s = Maker(tag)
    body = s(t.step, "body", do="give", value=b"bytes").on_error(s(t.errback, "e", b"more bytes"))
    ends = [s(t.step, "m", 1), s(t.step, "bad", do="fail", when=datetime(2020, 2, 29, tzinfo=timezone.utc))]
    return [chord([ends[0]], body).apply_async(), chord(ends[1:], s(t.step, "body2", value=b"x")).apply_async()]


@program
def a_chord_of_silent_members(t, tag):
    s = Maker(tag)
    return chord([s(t.silent, "m0", 1), s(t.silent, "m1", 1)], s(t.step, "body", do="echo")).apply_async()


@program
def a_chord_with_a_chain_for_a_body(t, tag):
    s = Maker(tag)
    return chord([s(t.step, "m0", 1), s(t.step, "m1", 1)], chain(s(t.step, "b"), s(t.step, "c"))).apply_async()


@program
def a_chord_with_a_group_for_a_body(t, tag):
    s = Maker(tag)
    header = [s(t.step, "m0", 1), s(t.step, "m1", 1)]
    return chord(header, group(s(t.step, "b"), s(t.step, "c"))).apply_async()


@program
def a_chord_of_chains(t, tag):
    s = Maker(tag)
    header = [chain(s(t.step, f"a{n}", n), s(t.step, f"b{n}")) for n in range(2)]
    return chord(header, s(t.step, "body")).apply_async()


@program
def a_chord_of_groups(t, tag):
    s = Maker(tag)
    header = [group([s(t.step, f"m{n}{k}", n) for k in range(2)]) for n in range(2)]
    return chord(header, s(t.step, "body", do="echo")).apply_async()


@program
def a_chord_of_chords(t, tag):
    s = Maker(tag)
    inner = [chord([s(t.step, f"m{n}{k}", k) for k in range(2)], s(t.step, f"inner{n}")) for n in range(2)]
    return chord(inner, s(t.step, "body", do="echo")).apply_async()


@program
def a_chord_of_chords_that_fail(t, tag):
    s = Maker(tag)
    inner = [chord([s(t.step, f"m{n}", 1, do="fail" if n else "ok")], s(t.step, f"inner{n}")) for n in range(2)]
    return chord(inner, s(t.step, "body").on_error(s(t.errback, "e"))).apply_async()


@program
def a_chain_into_a_chord_into_a_chain(t, tag):
    s = Maker(tag)
    middle = group(s(t.step, f"m{n}") for n in range(2))
    return chain(s(t.step, "a", 1), middle, s(t.step, "b"), s(t.step, "c")).apply_async()


@program
def a_chain_of_groups(t, tag):
    s = Maker(tag)
    groups = [group([s(t.step, f"{name}{n}") for n in range(2)]) for name in "ab"]
    return chain(s(t.step, "start", 1), *groups, s(t.step, "end")).apply_async()


@program
def a_chord_grows(t, tag):
    s = Maker(tag)
    return chord([s(t.step, "m0", do="grow"), s(t.step, "m1", 1)], s(t.step, "body")).apply_async()


# -- replacing ---------------------------------------------------------------------------------------------------------


@program
def a_task_replaced_by_a_task(t, tag):
    s = Maker(tag)
    return t.step.delay(tag=tag, label="a", do="replace", by=s(t.step, "b", 3, do="context"))


@program
def a_task_replaced_by_a_chain(t, tag):
    s = Maker(tag)
    return t.step.delay(tag=tag, label="a", do="replace", by=chain(s(t.step, "b", 3), s(t.step, "c")))


@program
def a_task_replaced_by_a_group(t, tag):
    s = Maker(tag)
    return t.step.delay(tag=tag, label="a", do="replace", by=group([s(t.step, "m0", 3), s(t.step, "m1", 1)]))


@program
def a_task_replaced_by_a_chord(t, tag):
    s = Maker(tag)
    by = chord([s(t.step, "m0", 3), s(t.step, "m1", 1)], s(t.step, "d"))
    return t.step.delay(tag=tag, label="a", do="replace", by=by)


@program
def a_link_of_a_chain_is_replaced(t, tag):
    s = Maker(tag)
    by = s.fixed(t.step, "by", 3)
    return chain(s(t.step, "a", 1), s(t.step, "b", do="replace", by=by), s(t.step, "c")).apply_async()


@program
def a_member_of_a_chord_is_replaced(t, tag):
    s = Maker(tag)
    by = chain(s.fixed(t.step, "by", 3), s(t.step, "by2"))
    return chord([s(t.step, "m0", 1), s(t.step, "m1", do="replace", by=by)], s(t.step, "body")).apply_async()


@program
def a_replacement_that_fails(t, tag):
    s = Maker(tag)
    kwargs = {"tag": tag, "label": "a", "do": "replace", "by": s(t.step, "b", do="fail")}
    return t.step.apply_async((), kwargs, link_error=s(t.errback, "e"))


# -- the rest of the canvas --------------------------------------------------------------------------------------------


@program
def partial_arguments(t, tag):
    s = Maker(tag)
    signature = s(t.step, "a", 1, do="echo").clone(args=(2,), kwargs={"extra": 3})
    return [signature.delay(4), s.fixed(t.step, "b", 1, do="echo").apply_async((5,))]


@program
def sending_in_one_batch(t, tag):
    s = Maker(tag)
    return [s(t.step, f"s{n}", n).delay() for n in range(5)]


@program
def stamped_tasks(t, tag):
    s = Maker(tag)
    work = chain(s(t.step, "a", 1, do="context"), s(t.step, "b", do="context"))
    work.stamp(monitoring="abc", append_stamps=True)
    return work.apply_async()
