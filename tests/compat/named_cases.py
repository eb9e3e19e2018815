# SPDX-License-Identifier: Apache-2.0
"""For a program of many cases: each is a function, which fails by an exception."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence

CASES: dict[str, Callable[[], None]] = {}


def case(body: Callable[[], None]) -> Callable[[], None]:
    """A decorator: one more."""
    CASES[body.__name__] = body
    return body


def run(prefixes: Sequence[str]) -> None:
    """Prints the names of those that pass, of all or of those whose names begin so; on stderr how the others fail."""
    for name, body in CASES.items():
        if prefixes and not name.startswith(tuple(prefixes)):
            continue
        try:
            body()
            print(name, flush=True)
        except Exception:
            print(f"---- {name}", file=sys.stderr)
            traceback.print_exc()
