# SPDX-License-Identifier: Apache-2.0
"""Reads the spec files and refuses what the generator could not turn into correct C."""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
import re
from dataclasses import dataclass, replace

from orion_virt.spec import calls as calls_package
from orion_virt.spec import constants, types
from orion_virt.spec.schema import ASYNC, LOCAL, Call, Family, Type, Unsupported

MAX_OP = 2047


class SpecError(Exception):
    """A spec line is wrong; the message names file and function."""


@dataclass(frozen=True)
class Spec:
    """The whole specification, checked."""

    families: tuple[Family, ...]
    types: tuple[Type, ...]
    kinds: tuple[str, ...]
    constants: tuple[tuple[str, tuple[tuple[str, int], ...]], ...]
    hash: int

    @property
    def calls(self) -> list[Call]:
        """All calls, in spec order."""
        return [call for family in self.families for call in family.calls]

    @property
    def crossing(self) -> list[Call]:
        """Calls with an operation number, by number."""
        return sorted((c for c in self.calls if c.op is not None), key=lambda c: c.op or 0)

    @property
    def unsupported(self) -> list[Unsupported]:
        """All functions that are not carried."""
        return [line for family in self.families for line in family.unsupported]


def base_name(symbol: str) -> str:
    """The name without the version suffix, as it is asked for by name."""
    return re.sub(r"_v\d+$", "", symbol)


def _families() -> list[Family]:
    names = sorted(m.name for m in pkgutil.iter_modules(calls_package.__path__))
    result = []
    for name in names:
        module = importlib.import_module(f"{calls_package.__name__}.{name}")
        if not hasattr(module, "CALLS"):
            raise SpecError(f"{name}.py: no CALLS tuple; write CALLS = ( call(...), ... )")
        result.append(family_of(name, module.CALLS))
    return result


def family_of(name: str, lines: tuple[Call | Unsupported, ...]) -> Family:
    """A family from the lines of its file."""
    family = Family(name)
    for line in lines:
        if isinstance(line, Unsupported):
            family.unsupported.append(line)
        elif isinstance(line, Call):
            family.calls.append(replace(line, family=name))
        else:
            raise SpecError(f"{name}.py: {line!r} is no call(), local(), internal() or unsupported()")
    return family


def load() -> Spec:
    """The checked specification of this package."""
    families = _families()
    all_types = tuple(value for value in vars(types).values() if isinstance(value, Type))
    return make_spec(families, all_types)


def _digest(families: list[Family], all_types: tuple[Type, ...]) -> int:
    """The same in every process: the order of a set is not."""
    lines = [(replace(c, hand=frozenset()), sorted(c.hand)) for family in families for c in family.calls]
    text = repr((lines, [f.unsupported for f in families], all_types, types.KINDS))
    return int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)


def make_spec(families: list[Family], all_types: tuple[Type, ...]) -> Spec:
    """Checks `families` against each other and `all_types`; SpecError says what is wrong."""
    from .check import check_spec

    enums = tuple((group, tuple(values.items())) for group, values in constants.GROUPS.items())
    spec = Spec(tuple(families), all_types, types.KINDS, enums, _digest(families, all_types))
    check_spec(spec)
    return spec


__all__ = ["ASYNC", "LOCAL", "MAX_OP", "Spec", "SpecError", "base_name", "family_of", "load", "make_spec"]
