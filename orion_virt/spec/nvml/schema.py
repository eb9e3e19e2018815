# SPDX-License-Identifier: Apache-2.0
"""The closed vocabulary in which NVML is described, one line for each function.

A *figure* is a number that the host asks of the physical card's NVML and sends to the guest under a number of its own,
stable for ever; a *text* is the same for a string. ``docs/design.md``, section 5, says what is generated from each.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

DEVICE = "nvmlDevice_t device"


@dataclass(frozen=True)
class Figure:
    """Generated on both sides: ``name(device, selectors..., out * outs)``.

    ``by``: (C type, count) of each selector, an argument from 0 to count - 1; every combination is a figure of its own,
    the last selector and then the outs running fastest. ``live``: asked anew when a guest asks, else at oriond's start.
    """

    number: int
    name: str
    out: str
    by: tuple[tuple[str, int], ...] = ()
    outs: int = 1
    live: bool = False

    @property
    def count(self) -> int:
        """How many figures these are, from ``number`` on."""
        return prod(count for _, count in self.by) * self.outs


@dataclass(frozen=True)
class Field:
    """A figure without a function of its own in the guest, for bodies by hand.

    ``field`` of the struct that pynvml's ``name`` returns; or, where ``field`` is a number, that value of
    nvmlDeviceGetFieldValues, in which the guest finds it too: its bits, and behind them its nvmlValueType_t.
    """

    number: int
    name: str
    field: str | int
    live: bool = False

    @property
    def count(self) -> int:
        return 2 if isinstance(self.field, int) else 1


@dataclass(frozen=True)
class Text:
    """A string: ``name(device, [selector,] char *, length)``; not ``bounded``: the prototype lacks the length."""

    number: int
    name: str
    by: tuple[tuple[str, int], ...] = ()
    bounded: bool = True

    @property
    def count(self) -> int:
        return prod(count for _, count in self.by)


@dataclass(frozen=True)
class Always:
    """The same for every vGPU: ``params`` with each pointer in ``values`` set so; ``reason`` says why."""

    name: str
    params: str
    values: tuple[tuple[str, int], ...]
    reason: str


@dataclass(frozen=True)
class Hand:
    """A body by hand in guest-agent/libnvidia-ml. ``public``: in nvml.h."""

    name: str
    params: str
    returns: str = "nvmlReturn_t"
    public: bool = True


@dataclass(frozen=True)
class Same:
    """Another name of the function ``of``, with the same parameters."""

    name: str
    of: str


@dataclass(frozen=True)
class Absent:
    """A public function that answers NVML_ERROR_NOT_SUPPORTED, and why."""

    name: str
    reason: str


Function = Figure | Text | Always | Hand | Same  #: what the library exports with an answer
Line = Function | Field | Absent


def figure(number: int, name: str, out: str, *by: tuple[str, int], outs: int = 1, live: bool = False) -> Figure:
    """A number of the card."""
    return Figure(number, name, out, by, outs, live)


def field(number: int, name: str, field: str | int, live: bool = False) -> Field:
    """A number of the card that is part of a struct."""
    return Field(number, name, field, live)


def text(number: int, name: str, *by: tuple[str, int], bounded: bool = True) -> Text:
    """A string of the card."""
    return Text(number, name, by, bounded)


def always(name: str, params: str, reason: str, **values: int) -> Always:
    """An answer that does not depend on the card."""
    return Always(name, params, tuple(values.items()), reason)


def hand(name: str, params: str, returns: str = "nvmlReturn_t", public: bool = True) -> Hand:
    """A function written by hand."""
    return Hand(name, params, returns, public)


def same(name: str, of: str) -> Same:
    """An alias."""
    return Same(name, of)


def absent(reason: str, *names: str) -> tuple[Absent, ...]:
    """Functions that we do not carry for one and the same reason."""
    return tuple(Absent(name, reason) for name in names)
