"""More programs: the rest of what Celery's guide says of the canvas, stamps, names and calls."""

from __future__ import annotations

from celery import chain, chord, group
from celery.canvas import StampingVisitor, maybe_signature

from tests.oracle.programs import PROGRAMS, Maker, program

__all__ = ["PROGRAMS"]

# -- map, starmap, chunks ----------------------------------------------------------------------------------------------


@program
def a_starmap(t, tag):
    return t.pair.starmap([(tag, "a", 1), (tag, "b", 2)]).apply_async()


@program
def a_map(t, tag):
    return t.listed.map([[tag, "a", 1], [tag, "b", 2]]).apply_async()


@program
def a_starmap_that_fails(t, tag):
    return t.pair.starmap([(tag, "a", 1), (tag, "b", None)]).apply_async()


@program
def chunks_of_two(t, tag):
    return t.pair.chunks([(tag, f"m{n}", n) for n in range(5)], 2).apply_async()


@program
def chunks_as_a_group_in_a_chain(t, tag):
    s = Maker(tag)
    parts = t.pair.chunks([(tag, f"m{n}", n) for n in range(3)], 2).group()
    chain(parts, s(t.step, "end", do="echo")).apply_async()
    return []  # the parts have no names, so that their order in a handle would be chance


# -- names and classes -------------------------------------------------------------------------------------------------


@program
def a_call_with_another_name(t, tag):
    return t.step.apply_async((1,), {"tag": tag, "label": "a", "do": "context"}, shadow="seen.as")


@program
def a_task_that_names_its_calls(t, tag):
    return t.named.delay(1, tag=tag, label="a", do="context")


@program
def a_task_with_a_call_of_its_own(t, tag):
    return t.wrapped.delay(1, tag=tag, label="a")


@program
def a_task_that_is_replaced_in_its_own_way(t, tag):
    s = Maker(tag)
    return t.replacing.delay(tag=tag, label="a", do="replace", by=s(t.step, "b", 3))


# -- calls -------------------------------------------------------------------------------------------------------------


@program
def a_call_whose_result_is_ignored(t, tag):
    return t.step.apply_async((1,), {"tag": tag, "label": "a", "do": "context"}, ignore_result=True)


@program
def a_call_whose_result_is_wanted(t, tag):
    return t.silent.apply_async((1,), {"tag": tag, "label": "a"}, ignore_result=False)


@program
def a_call_with_limits(t, tag):
    options = {"time_limit": 20, "soft_time_limit": 10, "priority": 3, "headers": {"colour": "red"}}
    return t.step.apply_async((1,), {"tag": tag, "label": "a", "do": "context"}, **options)


@program
def headers_go_with_a_chain(t, tag):
    s = Maker(tag)
    work = chain(s(t.step, "a", 1, do="context"), s(t.step, "b", do="context"))
    return work.apply_async(headers={"colour": "red"})


@program
def a_signature_from_a_dict(t, tag):
    s = Maker(tag)
    known = maybe_signature(dict(s(t.step, "a", 1).set(queue="second")), app=t.app)
    return [known.delay(), t.app.signature("step", args=(2,), kwargs={"tag": tag, "label": "b"}).delay()]


@program
def a_group_that_starts_one_by_one(t, tag):
    s = Maker(tag)
    return group(s(t.step, f"m{n}", n) for n in range(3)).skew(start=0.1, stop=0.4, step=0.1).apply_async()


@program
def a_group_with_a_callback_and_an_error_callback(t, tag):
    s = Maker(tag)
    work = group(s(t.step, "m0", 1), s(t.step, "m1", do="fail"))
    work.link(s(t.step, "after"))
    work.link_error(s(t.errback, "e"))
    return work.apply_async()


@program
def pipes_of_everything(t, tag):
    s = Maker(tag)
    work = (
        s(t.step, "a", 1) | group(s(t.step, "m0"), s(t.step, "m1")) | s(t.step, "b") | (s(t.step, "c") | s(t.step, "d"))
    )
    return work.apply_async()


@program
def a_chain_on_error(t, tag):
    s = Maker(tag)
    work = chain(s(t.step, "a", 1), chain(s(t.step, "b", do="fail"), s(t.step, "c"))).on_error(s(t.errback, "e"))
    return work.apply_async()


@program
def error_callbacks_of_a_link(t, tag):
    s = Maker(tag)
    failing = s(t.step, "b", do="fail").on_error(s(t.errback, "e"))
    return chain(s(t.step, "a", 1), failing, s(t.step, "c")).apply_async()


@program
def an_error_callback_that_is_a_chain(t, tag):
    s = Maker(tag)
    sorry = chain(s.fixed(t.step, "e1", 1), s(t.step, "e2"))
    return t.step.apply_async((1,), {"tag": tag, "label": "a", "do": "fail"}, link_error=sorry)


@program
def an_error_callback_that_fails(t, tag):
    s = Maker(tag)
    return t.step.apply_async(
        (1,), {"tag": tag, "label": "a", "do": "fail"}, link_error=s.fixed(t.step, "e", do="fail")
    )


@program
def a_fixed_body_of_a_chord(t, tag):
    s = Maker(tag)
    return chord([s(t.step, "m0", 1), s(t.step, "m1", 2)], s.fixed(t.step, "body", 5)).apply_async()


@program
def a_chord_with_countdown_and_another_queue(t, tag):
    s = Maker(tag)
    return chord([s(t.step, "m0", 1), s(t.second, "m1", 2)], s(t.step, "body")).apply_async(
        countdown=0.2, queue="second"
    )


@program
def a_failed_chord_whose_body_is_a_group(t, tag):
    s = Maker(tag)
    body = group(s(t.step, "b0").set(link_error=s.fixed(t.step, "e")), s(t.step, "b1"))
    return chord([s(t.step, "m0", 1), s(t.step, "m1", do="fail")], body).apply_async()


@program
def a_chord_that_is_replaced_inside(t, tag):
    s = Maker(tag)
    body = s(t.step, "body", do="replace", by=s.fixed(t.step, "by", 4))
    return chord([s(t.step, "m0", 1), s(t.step, "m1", 2)], body).apply_async()


@program
def a_task_replaced_by_one_that_is_replaced(t, tag):
    s = Maker(tag)
    inner = s(t.step, "b", do="replace", by=s(t.step, "c", 3, do="context"))
    return t.step.delay(tag=tag, label="a", do="replace", by=inner)


@program
def a_replaced_task_keeps_its_callbacks(t, tag):
    s = Maker(tag)
    kwargs = {"tag": tag, "label": "a", "do": "replace", "by": s(t.step, "b", 3)}
    return t.step.apply_async((), kwargs, link=s(t.step, "after"), link_error=s(t.errback, "e"))


# -- stamps ------------------------------------------------------------------------------------------------------------


class Stamps(StampingVisitor):
    """Stamps everything with what it is."""

    def on_signature(self, sig, **headers):
        return {"kind": "signature", "stamped_headers": ["kind"]}

    def on_group_start(self, sig, **headers):
        return {"grouped": "start", "stamped_headers": ["grouped"]}

    def on_chain_start(self, sig, **headers):
        return {"chained": ["start", 1], "stamped_headers": ["chained"]}

    def on_chord_header_start(self, sig, **headers):
        return {"header": "start", "stamped_headers": ["header"], **super().on_chord_header_start(sig, **headers)}

    def on_chord_body(self, sig, **headers):
        return {"body": "yes", "stamped_headers": ["body"]}

    def on_callback(self, sig, **headers):
        return {"callback": "yes", "stamped_headers": ["callback"]}

    def on_errback(self, sig, **headers):
        return {"errback": "yes", "stamped_headers": ["errback"]}


@program
def a_stamped_chain(t, tag):
    s = Maker(tag)
    work = chain(s(t.step, "a", 1, do="context"), s(t.step, "b", do="context"))
    work.stamp(Stamps())
    return work.apply_async()


@program
def a_stamped_chord(t, tag):
    s = Maker(tag)
    header = [s(t.step, f"m{n}", n, do="context") for n in range(2)]
    work = chord(header, s(t.step, "body", do="context"))
    work.stamp(visitor=Stamps(), extra="yes")
    return work.apply_async()


@program
def stamped_callbacks(t, tag):
    s = Maker(tag)
    work = s(t.step, "a", 1, do="context")
    work.link(s(t.step, "b", do="context"))
    work.stamp(Stamps())
    failing = s(t.step, "bad", do="fail").on_error(s.fixed(t.step, "e"))
    failing.stamp(Stamps())
    return [work.apply_async(), failing.apply_async()]


@program
def stamps_outlive_a_retry_and_a_replacement(t, tag):
    s = Maker(tag)
    retried = s(t.step, "a", do="retry_later")
    replaced = s(t.step, "b", do="replace", by=s(t.step, "c", 1, do="context"))
    for work in (retried, replaced):
        work.stamp(batch="b1", place=["x", "y"])
    return [retried.apply_async(), replaced.apply_async()]


# -- retries -----------------------------------------------------------------------------------------------------------


@program
def autoretry_with_backoff_and_a_factor(t, tag):
    return t.auto_factor.delay(tag=tag, label="a", times=2)


@program
def autoretry_of_a_method_that_retries_itself(t, tag):
    return t.auto_and_manual.delay(tag=tag, label="a")
