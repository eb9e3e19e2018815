# SPDX-License-Identifier: Apache-2.0
"""`python3 -m orion_virt.cli.man DIRECTORY`: man pages from what the commands say of themselves."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from orion_virt.cli.status import MEANINGS

# Program -> (module, manual's section).
PROGRAMS = {
    "orion-virt": ("main", 1),
    "orion-check": ("check", 1),
    "oriond": ("oriond", 8),
    "orion-controller": ("controller", 8),
}
VARIABLES = {
    "ORION_ETC": "server.conf's directory, default /etc/orion.",
    "ORION_RUN": "Directory of control.sock, default /run/orion.",
    "ORION_LOG": "Directory of the logs, default /var/log/orion.",
    "ORION_LIBVIRT_URI": "Wins over [libvirt] uri; this machine's system libvirt only.",
}


def roff(text: str) -> str:
    """Text that roff prints as it is."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + escaped if escaped.startswith((".", "'")) else escaped


def pieces(text: str) -> Iterator[tuple[bool, list[str]]]:
    """Paragraphs of a help text by lines, each with whether click's mark says to leave its lines alone."""
    for part in inspect.cleandoc(text).split("\n\n"):
        lines = [line.strip() for line in part.splitlines()]
        kept = bool(lines) and part.splitlines()[0].strip() == "\b"
        yield kept, (part.splitlines()[1:] if kept else lines)


def paragraphs(text: str) -> Iterator[str]:
    """The same in roff."""
    for number, (kept, lines) in enumerate(pieces(text)):
        if number:
            yield ".PP"
        yield from ((".nf", *map(roff, lines), ".fi") if kept else map(roff, lines))


def usage(ctx: click.Context) -> str:
    """The synopsis of a command, bold where it is to be typed."""
    arguments = " ".join(ctx.command.collect_usage_pieces(ctx))
    return f"\\fB{roff(ctx.command_path)}\\fR {roff(arguments)}"


def described(ctx: click.Context) -> Iterator[tuple[str, str]]:
    """Each option with its help on one line."""
    for param in ctx.command.params:
        record = param.get_help_record(ctx)
        if isinstance(param, click.Option) and record is not None and not param.hidden:
            yield record[0], " ".join(record[1].split())


def options(ctx: click.Context) -> Iterator[str]:
    """The same in roff."""
    for option, meaning in described(ctx):
        yield from (".TP", f"\\fB{roff(option)}\\fR")
        if meaning:
            yield roff(meaning)


def subcommands(ctx: click.Context) -> Iterator[click.Context]:
    """Of a group, and of groups in it."""
    for name, command in sorted(getattr(ctx.command, "commands", {}).items()):
        inner = click.Context(command, info_name=name, parent=ctx)
        if isinstance(command, click.Group):
            yield from subcommands(inner)
        elif not command.hidden:
            yield inner


def page(program: str) -> str:
    """One program's page, its subcommands in it, as virsh's is."""
    module, section = PROGRAMS[program]
    command = importlib.import_module(f"orion_virt.cli.{module}").main
    ctx = click.Context(command, info_name=program)
    what = (command.help or "").strip().splitlines()[0].rstrip(".")
    lines = [
        f'.TH "{program.upper()}" {section} "" "orion\\-virt" "orion\\-virt"',
        ".SH NAME",
        f"{roff(program)} \\- {roff(what)}",
        ".SH SYNOPSIS",
        usage(ctx),
        ".SH DESCRIPTION",
        *paragraphs(command.help or ""),
    ]
    inner = list(subcommands(ctx))
    if inner:
        lines.append(".SH COMMANDS")
    for each in inner:
        lines += [f".SS {usage(each)}", *paragraphs(each.command.help or ""), *options(each)]
    lines += [".SH OPTIONS", *options(ctx), *_common()]
    return "\n".join(lines) + "\n"


def _common() -> Iterator[str]:
    yield ".SH EXIT STATUS"
    for status, meaning in MEANINGS.items():
        yield from (".TP", f"\\fB{status}\\fR", roff(meaning))
    yield ".SH ENVIRONMENT"
    for name, meaning in VARIABLES.items():
        yield from (".TP", f"\\fB{name}\\fR", roff(meaning))
    others = ", ".join(f"\\fB{roff(name)}\\fR({section})" for name, (_, section) in sorted(PROGRAMS.items()))
    yield from (".SH SEE ALSO", f"{others}, \\fBvirsh\\fR(1)")


def main() -> None:
    """Writes all pages."""
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for program, (_, section) in PROGRAMS.items():
        (directory / f"{program}.{section}").write_text(page(program))


if __name__ == "__main__":
    main()
