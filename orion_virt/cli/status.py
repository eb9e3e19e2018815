# SPDX-License-Identifier: Apache-2.0
"""Exit statuses: the same ones of every command."""

from __future__ import annotations

from orion_virt.errors import OrionError

# Status -> meaning. Those of errors.py's classes, 0, and 2 which click gives for wrong usage.
MEANINGS = {
    0: "done",
    1: "failed",
    2: "wrong usage, or a bad value in a configuration file, setting or variable",
    3: "no such domain, region, allocation or command",
    4: "there already, or its state forbids it",
    5: "over a limit",
    6: "oriond, libvirt or the controller does not answer",
    7: "no permission",
    8: "not understood",
}
_KINDS: list[type[OrionError]] = [OrionError, *OrionError.__subclasses__()]
assert {kind.exit_code for kind in _KINDS} <= MEANINGS.keys()

EPILOG = "Exit status: " + "; ".join(f"{status} {meaning}" for status, meaning in MEANINGS.items()) + "."
EPILOG += " Of several domains, the first error's."
