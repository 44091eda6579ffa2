"""Bad settings are refused by name: the argument, its value, and what is allowed."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any


def require(condition: bool, argument: str, value: object, allowed: str) -> None:
    """ValueError that names the argument, its value and what is allowed."""
    if not condition:
        raise ValueError(f"{argument}={value!r}: allowed is {allowed}")


def plain(value: object) -> object:
    """A number of any kind, such as NumPy's, as Python's own; anything else as it is."""
    if isinstance(value, bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def is_whole(value: object, least: int) -> bool:
    """Whether a value is an integer of at least `least`. True and False are not numbers."""
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= least  # type: ignore[operator]


def is_number(value: object) -> bool:
    """Whether a value is a finite number. True and False are not numbers."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def is_unicode(text: str) -> bool:
    """Whether a text can be written down: half a surrogate pair can't, and no tokenizer takes it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def recorded(value: object) -> object:
    """A setting as a checkpoint may hold it: Python's own numbers and texts, else its repr."""
    if isinstance(value, tuple | list):
        return tuple(map(recorded, value))
    value = str(value) if isinstance(value, str) else plain(value)
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def require_whole(argument: str, value: Any, least: int, or_none: bool = False) -> Any:
    """The value as an int, or None where that is allowed; ValueError unless it is an integer of at
    least `least`."""
    none = "None or " if or_none else ""
    valid = (or_none and value is None) or is_whole(value, least)
    require(valid, argument, value, f"{none}an integer of at least {least}")
    return plain(value)


def require_number(
    argument: str,
    value: object,
    allowed: str,
    above: float = -math.inf,
    least: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
) -> None:
    """ValueError unless value is a finite number with above < value, least <= value <= most and
    value < below; `allowed` says so in words."""
    inside = is_number(value) and above < value < below and least <= value <= most
    require(inside, argument, value, allowed)


def require_choice(argument: str, value: object, choices: tuple[str, ...]) -> None:
    """ValueError unless value is one of the choices."""
    require(value in choices, argument, value, " or ".join(map(repr, choices)))
