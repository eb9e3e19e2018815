# SPDX-License-Identifier: Apache-2.0
"""The closed vocabulary in which the driver API is described, one line for each function.

Spec files (``spec/calls/<family>.py``) hold nothing but calls of these constructors;
``codegen`` turns them into C. ``docs/design.md`` says what is generated from each.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum


class Order(Enum):
    """How a call travels."""

    CALL = "round trip"
    ASYNC = "one way"
    LOCAL = "answered in the client"


CALL, ASYNC, LOCAL = Order.CALL, Order.ASYNC, Order.LOCAL


@dataclass(frozen=True)
class Type:
    """A C type of ``cuda.h``.

    ``c`` is the spelling there, ``wire`` the fixed-width C type that crosses (``u32``,
    ``i32``, ``u64``, ``f32``; ``bytes`` for a struct, which crosses in buffers only),
    ``handle`` the handle kind (``STREAM``, ...) or None. ``invalid`` is what a bad handle of
    this type answers. ``body`` is the C definition of a struct or function type.
    """

    c: str
    wire: str
    handle: str | None = None
    invalid: str = "CUDA_ERROR_INVALID_HANDLE"
    body: str = ""


@dataclass(frozen=True)
class Param:
    """One parameter. ``dir`` is in, out, inout; ``shape`` is value, buffer or cstr.

    ``in``/value crosses by value; ``out`` and ``inout`` are pointers to one value. A
    buffer is a pointer to ``length`` elements of ``type`` where ``length`` is an integer
    or the name of an integer parameter. ``optional``: NULL is allowed. ``const``: False where
    the header's prototype lacks the const of an input buffer.
    """

    name: str
    type: Type
    dir: str = "in"
    shape: str = "value"
    length: str | int | None = None
    optional: bool = False
    const: bool = True


@dataclass(frozen=True)
class Call:
    """A function of the driver API, or (``internal``) an operation of our own.

    ``op``: operation number, stable for ever, None for LOCAL. ``hand``: subset of
    {"client", "executor"} whose body is written by hand. ``makes``/``frees``: the
    parameter whose handle the call makes (minted by the client) or frees. ``books``:
    quota change, "+arg" or "-arg". ``ledger``: "+ptr:size" or "-ptr", device memory that
    becomes or ceases to be the client's. ``blocks``: may wait or take long, so the
    executor gives up the baton. ``reports``: a deferred error of the thread is reported here.
    ``works``: brings work to the card, so the call takes a turn where compute limits are on.
    ``grows``: the driver may take memory of the card for itself, so there must be some left of the quota.
    ``checks``: device memory that the call touches, "ptr:bytes" or "ptr:width@pitch*rows", each
    factor a parameter or number, several separated by a comma; a byte outside the ledger and
    the grants is CUDA_ERROR_INVALID_VALUE. ``flags``: "param:mask" of the allowed bits.
    ``context``: False where the call needs no current context. ``per_thread``: the call that does
    the same on a stream, for the "ptds" variant; ``stream_in``: "param.field" of the struct that
    holds the stream, for the "ptsz" variant. ``since``: CUDA version that brought this symbol.
    ``ptsz``: suffix of the per-thread default stream variant ("ptsz", "ptds") or None.
    """

    op: int | None
    name: str
    params: tuple[Param, ...]
    order: Order = CALL
    hand: frozenset[str] = frozenset()
    makes: str | None = None
    frees: str | None = None
    books: str | None = None
    ledger: str | None = None
    blocks: bool = False
    reports: bool = False
    works: bool = False
    grows: bool = False
    checks: str = ""
    flags: str = ""
    context: bool = True
    per_thread: str | None = None
    stream_in: str | None = None
    internal: bool = False
    since: int = 0
    until: int | None = None
    ptsz: str | None = None
    family: str = ""


@dataclass(frozen=True)
class Unsupported:
    """A public function that answers CUDA_ERROR_NOT_SUPPORTED, and why."""

    name: str
    reason: str
    since: int = 0
    ptsz: str | None = None
    by_name: bool = True


@dataclass
class Family:
    """What one spec file defines, in its order."""

    name: str
    calls: list[Call] = field(default_factory=list)
    unsupported: list[Unsupported] = field(default_factory=list)


def inp(name: str, type: Type) -> Param:
    """A value that goes in."""
    return Param(name, type)


def out(name: str, type: Type) -> Param:
    """A pointer to one value that comes out; NULL is CUDA_ERROR_INVALID_VALUE."""
    return Param(name, type, "out")


def inout(name: str, type: Type) -> Param:
    """A pointer to one value that goes in and comes out."""
    return Param(name, type, "inout")


def opt(param: Param) -> Param:
    """The same parameter, but NULL is allowed."""
    return replace(param, optional=True)


def mut(param: Param) -> Param:
    """The same input buffer, but declared without const, as some prototypes of the header are."""
    return replace(param, const=False)


def buf(name: str, type: Type, length: str | int, dir: str = "in") -> Param:
    """A pointer to `length` elements; `length` is a number or an integer parameter's name."""
    return Param(name, type, dir, "buffer", length)


def cstr(name: str) -> Param:
    """A NUL-terminated string that goes in."""
    return Param(name, Type("char", "u8"), "in", "cstr")


def call(op: int, name: str, *params: Param, order: Order = CALL, hand: str = "", **facts: object) -> Call:
    """A function that crosses. ``hand`` is "", "client", "executor" or "both"."""
    sides = {"": (), "client": ("client",), "executor": ("executor",), "both": ("client", "executor")}[hand]
    return Call(op, name, params, order, frozenset(sides), **facts)  # type: ignore[arg-type]


def local(name: str, *params: Param, **facts: object) -> Call:
    """A function that the client answers itself; always written by hand."""
    return Call(None, name, params, LOCAL, frozenset({"client"}), **facts)  # type: ignore[arg-type]


def internal(op: int, name: str, *params: Param, order: Order = CALL, **facts: object) -> Call:
    """An operation of ours, no function of the API: sender generated, executor by hand."""
    return Call(op, name, params, order, frozenset({"executor"}), internal=True, **facts)  # type: ignore[arg-type]


def unsupported(name: str, reason: str, since: int = 0, ptsz: str | None = None, by_name: bool = True) -> Unsupported:
    """A public function that we do not carry. ``by_name``: cuGetProcAddress of the driver finds it."""
    return Unsupported(name, reason, since, ptsz, by_name)
