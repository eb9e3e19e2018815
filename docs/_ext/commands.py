# SPDX-License-Identifier: Apache-2.0
"""The commands' pages, from the same source as `--help` and the manual pages."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import click
import markdown

from orion_virt.cli import man


def text() -> str:
    """All programs, each with its subcommands."""
    return "\n\n".join(part for program in man.PROGRAMS for part in _program(program))


def _program(program: str) -> Iterator[str]:
    module, _ = man.PROGRAMS[program]
    ctx = click.Context(importlib.import_module(f"orion_virt.cli.{module}").main, info_name=program)
    yield f"## {program}"
    yield from _command(ctx)
    for inner in man.subcommands(ctx):
        yield f"### {inner.command_path}"
        yield from _command(inner)


def _command(ctx: click.Context) -> Iterator[str]:
    yield f"```text\n{ctx.command_path} {' '.join(ctx.command.collect_usage_pieces(ctx))}\n```"
    for kept, lines in man.pieces(ctx.command.help or ""):
        body = "\n".join(lines)
        yield f"```text\n{body}\n```" if kept else markdown.plain(body)
    options = list(man.described(ctx))
    if options:
        yield markdown.table(("option", "effect"), ((markdown.code(o), markdown.plain(m)) for o, m in options))
