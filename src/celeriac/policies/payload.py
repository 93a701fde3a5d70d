"""Typed arguments: checked, encoded and decoded by a task's signature, with pydantic (the extra ``pydantic``).

The sender's side: values are validated, made plain, and what came of that is read again as the worker will read it, so that a
payload which the worker of the same code would refuse is refused at once.  The worker's side: plain values become what the
annotations say.  A parameter without an annotation (or with ``Any``) is left alone.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from enum import Enum
from types import GenericAlias
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, with_config
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python
from typing_extensions import NotRequired, Required, TypedDict

from celeriac.errors import ConfigurationError, InvalidPayload
from celeriac.outcome import DeadReason
from celeriac.policy import Call, Policy, Refuse, Verdict

VERSION_HEADER = "celeriac-payload"
"""Header with the version of a message's payload, a whole number.  Absent means 1."""

FIRST_VERSION = 1

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Upgrade = Callable[[int, tuple[Any, ...], dict[str, Any]], tuple[Any, Any]]
"""Takes the version, the positional and the named arguments of an older message; returns the arguments as they are now."""

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Payload:
    """How the arguments of one task travel.

    Args:
        task: its name.
        signature: of its body, without ``self``.
        hints: its resolved annotations, with ``return``.
        version: of the payload that this code sends and expects.
        upgrade: what makes the arguments of an older version those of this one.

    Raises:
        ConfigurationError: an annotation that pydantic cannot use.
    """

    def __init__(
        self, task: str, signature: inspect.Signature, hints: Mapping[str, Any], *, version: int = FIRST_VERSION,
        upgrade: Upgrade | None = None,
    ) -> None:  # fmt: skip
        self.task = task
        self.version = version
        self._upgrade = upgrade
        self._parameters = signature.parameters
        self._positional = [p.name for p in signature.parameters.values() if p.kind in _POSITIONAL]
        self._rest = _name_of(signature, inspect.Parameter.VAR_POSITIONAL)
        self._others = _name_of(signature, inspect.Parameter.VAR_KEYWORD)
        hints = {name: hint for name, hint in hints.items() if hint is not Any}
        self._typed = frozenset(hints) & frozenset(signature.parameters)
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(self._shape(hints))
            self._result: TypeAdapter[Any] | None = TypeAdapter(hints["return"]) if "return" in hints else None
        except PydanticUserError as error:
            raise ConfigurationError(f"Task {task} has an annotation that pydantic cannot use: {error}") from error

    def _shape(self, hints: Mapping[str, Any]) -> Any:
        fields: dict[str, Any] = {}
        for name, parameter in self._parameters.items():
            hint: Any = hints.get(name, Any)
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                fields[name] = NotRequired[GenericAlias(list, (hint,))]
            elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
                fields[name] = NotRequired[GenericAlias(dict, (str, hint))]
            else:
                fields[name] = Required[hint] if parameter.default is inspect.Parameter.empty else NotRequired[hint]
        shape: Any = TypedDict("Arguments", fields)  # type: ignore[misc]  # mypy knows literal fields only
        return with_config(ConfigDict(arbitrary_types_allowed=True))(shape)

    # -- the sender's side -----------------------------------------------------------------------------------------

    def encode(self, args: Any, kwargs: Any) -> Arguments:
        """Arguments as they travel.

        Raises:
            InvalidPayload: they do not fit, or would not fit any more when they arrive.
        """
        values = self._named(args or (), kwargs or {})
        try:
            checked = self._adapter.validate_python(values)
            dumped = self._adapter.dump_python(
                checked, mode="json", include=set(self._typed), by_alias=True, round_trip=True, warnings=False
            )
        except ValidationError as error:
            raise self._invalid(error) from None
        except PydanticSerializationError as error:
            raise InvalidPayload(self.task, [("", str(error), "serialization")]) from error
        plain = self._split({**values, **dumped}, len(args or ()))
        self.decode(*plain)
        return plain

    def decode(self, args: Any, kwargs: Any) -> Arguments:
        """What the annotations make of plain arguments.  Raises ``InvalidPayload``."""
        values = self._named(args, kwargs)
        try:
            checked = self._adapter.validate_python(values)
        except ValidationError as error:
            checked = self._decode_strictly(values, error)
        return self._split(checked, len(args))

    def _decode_strictly(self, values: dict[str, Any], error: ValidationError) -> Any:
        """Strict models take a date from JSON's text, but not from Python's."""
        try:
            checked = self._adapter.validate_json(to_json(values))
        except (ValidationError, PydanticSerializationError):
            raise self._invalid(error) from None
        return {name: value if name in self._typed else values[name] for name, value in checked.items()}

    def receive(self, args: Any, kwargs: Any, version: int) -> Arguments:
        """Decode arguments of any version up to this one.

        Raises:
            InvalidPayload: whatever is wrong with them; marked as refused.
        """
        try:
            return self.decode(*self._upgraded(args, kwargs, version))
        except InvalidPayload as error:
            error.refused = True
            raise
        except Exception as error:  # of the upgrade, or of a validator
            invalid = InvalidPayload(self.task, [("", f"{type(error).__name__}: {error}", "error")])
            invalid.refused = True
            raise invalid from error

    def _upgraded(self, args: Any, kwargs: Any, version: int) -> tuple[Any, Any]:
        if version > self.version:
            text = f"the message is of version {version}, and this worker knows {self.version}: upgrade it, then replay"
            raise InvalidPayload(self.task, [("", text, "version")])
        if version == self.version or self._upgrade is None:
            return args, kwargs
        return self._upgrade(version, tuple(args), dict(kwargs))

    # -- results and schema ----------------------------------------------------------------------------------------

    def encode_result(self, value: Any) -> Any:
        """A result as it is stored: models, dataclasses and enums made plain, by the annotation where there is one."""
        made = plain(value)
        if made is value or self._result is None:
            return made
        return self._result.dump_python(value, mode="json", by_alias=True, round_trip=True, warnings=False)

    def schema(self) -> dict[str, Any]:
        """JSON Schema of the arguments by name, as an object."""
        made = {**self._adapter.json_schema(), "title": self.task, "additionalProperties": self._others is not None}
        made.pop("description", None)
        return made

    # -- names and places ------------------------------------------------------------------------------------------

    def _named(self, args: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by their parameters' names.  Raises ``InvalidPayload`` for what no parameter takes."""
        values = dict(zip(self._positional, args, strict=False))
        wrong: list[tuple[str, str, str]] = []
        if len(args) > len(self._positional):
            if self._rest is None:
                wrong.append(
                    ("", f"{len(args)} positional arguments, and it takes {len(self._positional)}", "arguments")
                )
            else:
                values[self._rest] = list(args[len(self._positional) :])
        others: dict[str, Any] = {}
        for name, value in kwargs.items():
            if name in values and name != self._others:
                wrong.append((name, "given twice", "duplicate"))
            elif self._takes(name):
                values[name] = value
            elif self._others is not None:
                others[name] = value
            else:
                wrong.append((name, "there is no such parameter", "unexpected"))
        if wrong:
            raise InvalidPayload(self.task, wrong)
        if others and self._others is not None:
            values[self._others] = others
        return values

    def _takes(self, name: str) -> bool:
        parameter = self._parameters.get(name)
        return parameter is not None and parameter.kind in {
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            inspect.Parameter.KEYWORD_ONLY,
        }

    def _split(self, values: Mapping[str, Any], positional: int) -> Arguments:
        """The opposite of :meth:`_named`."""
        first = self._positional[:positional]
        rest = values.get(self._rest, ()) if self._rest is not None else ()
        others = values.get(self._others, {}) if self._others is not None else {}
        taken = {*first, self._rest, self._others}
        named = {name: value for name, value in values.items() if name not in taken}
        return (*(values[name] for name in first), *rest), {**named, **others}

    def _invalid(self, error: ValidationError) -> InvalidPayload:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        return InvalidPayload(self.task, [(".".join(map(str, e["loc"])), e["msg"], e["type"]) for e in found])


def _name_of(signature: inspect.Signature, kind: Any) -> str | None:
    return next((p.name for p in signature.parameters.values() if p.kind is kind), None)


def plain(value: Any) -> Any:
    """A value with the models, dataclasses and enums in it made plain, whoever they are for; the value itself without any."""
    if isinstance(value, BaseModel) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        return to_jsonable_python(value, by_alias=True, round_trip=True)
    if isinstance(value, Enum):
        return value.value
    if type(value) in {list, tuple, set, frozenset}:
        made = [plain(each) for each in value]
        same = type(value) in {list, tuple} and all(new is old for new, old in zip(made, value, strict=True))
        return value if same else made
    if type(value) is dict:
        named = {name: plain(each) for name, each in value.items()}
        return value if all(named[name] is value[name] for name in value) else named
    return value


def version_in(headers: Mapping[str, Any]) -> int:
    """The version that a message's headers state."""
    stated = headers.get(VERSION_HEADER)
    return stated if type(stated) is int and stated > 0 else FIRST_VERSION


class PayloadPolicy(Policy):
    """Decodes the arguments for the policies after it and for the body; refuses a message whose arguments do not fit."""

    def __init__(self, payload: Payload) -> None:
        self._payload = payload

    def enter(self, call: Call) -> Verdict | None:
        """See :meth:`Policy.enter`."""
        try:
            call.args, call.kwargs = self._payload.receive(call.args, call.kwargs, version_in(call.headers))
        except InvalidPayload as error:
            return Refuse(DeadReason.INVALID, error)
        return None
