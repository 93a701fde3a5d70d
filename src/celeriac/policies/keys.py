"""Keys made of a call's arguments: ``"order:{order_id}"``, names of arguments, or a function."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import inspect
import json
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from celeriac.errors import ConfigurationError

LONGEST_NAME = 200
"""Characters of a key; of a longer one the rest is replaced by its digest."""

_formatter = string.Formatter()


class BrokenKey(ConfigurationError):
    """A key cannot be made of a call's arguments; the text names the argument."""


class CallKey:
    """Makes the key of a call.

    Args:
        option: name of the option that the key was given as, for errors.
        task: the task's name, for errors.
        given: a template such as ``"order:{order_id}"`` (or ``"{order.id}"``, of an object or a mapping), names of arguments, a
            function of the call's arguments that returns text (or ``None``: no key), or ``True``: all arguments.
        signature: of the task's body.

    Raises:
        ConfigurationError: it names an argument that the task does not have.
    """

    def __init__(self, option: str, task: str, given: Any, signature: inspect.Signature) -> None:
        self._where = f"{option} of task {task}"
        self._signature = signature
        self._function: Callable[..., Any] | None = None
        self._parts: list[tuple[str, str | None]] = []
        self.is_certain = True
        """Whether each call that fits the signature has a key (unless an argument is ``None``)."""
        if given is True:
            self._names: Sequence[str] | None = None
        elif isinstance(given, str):
            self._parts = self._parse(given)
        elif callable(given):
            self._function, self.is_certain = given, False
        elif isinstance(given, (list, tuple)) and given and all(isinstance(name, str) for name in given):
            for name in given:
                self._check(name)
            self._names = tuple(given)
        else:
            raise ConfigurationError(
                f"{self._where} is a template such as 'order:{{order_id}}', a list of the names of arguments, or a function of "
                f"the arguments, not {given!r}"
            )
        self._is_template = isinstance(given, str)

    def _parse(self, template: str) -> list[tuple[str, str | None]]:
        try:
            parts = [(literal, field) for literal, field, _, _ in _formatter.parse(template)]
        except ValueError as error:
            raise ConfigurationError(f"{self._where}, {template!r}, is no template: {error}") from error
        if not template:
            raise ConfigurationError(f"{self._where} is empty")
        for _, field in parts:
            if field is not None:
                self._check(_root(field))
                self.is_certain = self.is_certain and field == _root(field)
        return parts

    def _check(self, name: str) -> None:
        parameters = self._signature.parameters
        if name in parameters and parameters[name].kind not in (
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        ):
            return
        if name and any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
            self.is_certain = False
            return
        known = ", ".join(parameters) or "none"
        close = difflib.get_close_matches(name, list(parameters), 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        what = f"the argument {name!r}, which there is not" if name else "no argument between { and }"
        raise ConfigurationError(f"{self._where} names {what}; the task's arguments are: {known}.{hint}")

    def of(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
        """The key of a call; ``None`` when its function says so.

        Raises:
            BrokenKey: an argument that the key needs is missing or ``None``, or its function raised.
            TypeError: the call does not fit the task's signature.
        """
        bound = self._signature.bind(*args, **kwargs)
        if self._function is not None:
            return self._of_function(self._function, args, kwargs)
        bound.apply_defaults()
        arguments = _flat(bound)
        if not self._is_template:
            chosen = arguments if self._names is None else {name: self._pick(arguments, name) for name in self._names}
            return _digest(chosen)
        values = [self._value(arguments, field) for _, field in self._parts if field is not None]
        texts = iter(values)
        text = "".join(literal + (next(texts) if field is not None else "") for literal, field in self._parts)
        # Several values in one text could be cut in other places: "1:2" and "3", "1" and "2:3".
        return _bounded(text if len(values) < 2 else f"{text}#{_digest(values)[:16]}")

    def _of_function(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
        try:
            made = function(*args, **kwargs)
        except Exception as error:
            raise BrokenKey(f"{self._where} raised {type(error).__name__}: {error}") from error
        if made is None:
            return None
        if not isinstance(made, str) or not made:
            raise BrokenKey(f"{self._where} returned {made!r}; it must return text, or None for no key")
        return _bounded(made)

    def _pick(self, arguments: Mapping[str, Any], name: str) -> Any:
        if name not in arguments:
            raise BrokenKey(f"{self._where} needs the argument {name!r}, and the call has none")
        return arguments[name]

    def _value(self, arguments: Mapping[str, Any], field: str) -> str:
        first, rest = _split(field)
        value = self._pick(arguments, first)
        seen = first
        for step in rest:
            value, seen = self._step(value, seen, step), f"{seen}.{step}"
        if value is None:
            raise BrokenKey(
                f"{self._where} needs {seen!r}, which is None in this call: different calls would have one key"
            )
        return str(value)

    def _step(self, value: Any, seen: str, step: str) -> Any:
        """A part of an argument, which is an object where it is sent and a mapping or a list in the message."""
        if isinstance(value, Mapping) and step in value:
            return value[step]
        if isinstance(value, (list, tuple)) and step.isdigit() and int(step) < len(value):
            return value[int(step)]
        if not isinstance(value, Mapping) and hasattr(value, step):
            return getattr(value, step)
        raise BrokenKey(f"{self._where} needs {f'{seen}.{step}'!r}, and the argument {seen!r} has no {step!r}")


def _root(field: str) -> str:
    return _split(field)[0]


def _split(field: str) -> tuple[str, list[str]]:
    first, *rest = field.replace("]", "").replace("[", ".").split(".")
    return first, rest


def _flat(bound: inspect.BoundArguments) -> dict[str, Any]:
    """Arguments by name, those that ``**kwargs`` took among them."""
    arguments = dict(bound.arguments)
    for name, parameter in bound.signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            arguments.update(arguments.pop(name, {}))
    return arguments


def _digest(value: Any) -> str:
    """The same for equal values in every process."""
    text = json.dumps(value, sort_keys=True, default=_plain, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def _plain(value: Any) -> Any:
    """What JSON has no form for, in the one that it most likely has in a message."""
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(mode="json")
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return sorted(map(str, value)) if isinstance(value, (set, frozenset)) else str(value)


def _bounded(text: str) -> str:
    text = text.replace("\n", " ")
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 41]}#{_digest(text)}"
