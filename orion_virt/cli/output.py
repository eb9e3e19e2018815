# SPDX-License-Identifier: Apache-2.0
"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

json_option: Callable[[Any], Any] = click.option(
    "--json", "as_json", is_flag=True, help="One JSON document, for programs."
)


def emit(found: Mapping[str, Any]) -> None:
    """JSON; of a daemon's answer without `ok: true`, which an exit status of 0 says."""
    click.echo(json.dumps({k: v for k, v in found.items() if k != "ok" or v is not True}, indent=2))


def table(rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns, as wide as they must be."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def words(settings: Mapping[str, str] | None) -> str:
    """Settings in one line."""
    return " ".join(f"{name}={value}" for name, value in (settings or {}).items()) or "none"


def settings_line(domain: Mapping[str, Any]) -> str:
    """The settings in force and, where they differ, those of the next start."""
    now, later = domain.get("settings") or {}, domain.get("next_settings")
    return words(now) if later is None or later == now else f"{words(now)} (at the next start: {words(later)})"
