# SPDX-License-Identifier: Apache-2.0
"""Runs what a console block shows, `$ command` and its output, and says where the two differ."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

SECONDS = 120
_END = "\x01"


@dataclass
class Step:
    """One command and what is shown of its output: `...` stands for anything on a line, alone for any lines."""

    command: str
    shown: list[str] = field(default_factory=list)


def steps(text: str) -> list[Step]:
    """The commands of a block. ValueError where it begins with no prompt."""
    found: list[Step] = []
    more = False
    for line in text.splitlines():
        if more:
            found[-1].command += "\n" + line
        elif line.startswith("$ "):
            found.append(Step(line[2:]))
        elif found:
            found[-1].shown.append(line.rstrip())
            continue
        else:
            raise ValueError(f"no prompt before {line!r}")
        more = line.endswith("\\")
    return found


def matches(shown: list[str], output: str) -> bool:
    """Whether the output is what is shown."""
    lines = [r"(?:.*\n)*?" if line == "..." else r"[^\n]*?".join(map(re.escape, line.split("..."))) + "\n" for line in shown]
    said = "".join(line.rstrip() + "\n" for line in output.strip("\n").splitlines())
    return re.fullmatch("".join(lines), said) is not None


def run(text: str, env: Mapping[str, str], cwd: Path, real: Callable[[str], str] = str, told: Callable[[str], str] = str) -> list[str]:
    """What is wrong: a command that fails, or another output than is shown. `real`: what to run for a command that the page
    shows; `told`: what the page would show of an output."""
    wanted = steps(text)
    script = "".join(f"{real(step.command)}\nprintf '{_END}%d{_END}' $?\n" for step in wanted)
    done = subprocess.run(["bash", "-c", script], env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=SECONDS, check=False)  # fmt: skip
    parts = done.stdout.decode(errors="replace").split(_END)
    wrong = []
    for number, step in enumerate(wanted):
        if 2 * number + 1 >= len(parts):
            return [*wrong, f"$ {step.command}\nwas not reached: {parts[-1]}"]
        output, status = told(parts[2 * number]), parts[2 * number + 1]
        if status != "0":
            wrong.append(f"$ {step.command}\nended with {status}:\n{output}")
        elif step.shown and not matches(step.shown, output):
            wrong.append(f"$ {step.command}\nprints\n{output}\nand not\n" + "\n".join(step.shown))
    return wrong


def program(path: Path, *words: str, **variables: str) -> None:
    """A program of a name, that is another one with arguments and variables before those it is given."""
    said = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    path.write_text("\n".join(["#!/bin/sh", *said, f'exec {shlex.join(words)} "$@"', ""]))
    path.chmod(0o755)


def path_before(*folders: Path) -> str:
    return os.pathsep.join([*map(str, folders), os.environ["PATH"]])
