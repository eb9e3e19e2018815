# SPDX-License-Identifier: Apache-2.0
"""Every message that the code can show, found in the code: texts, remedies, and who says them. `…` stands for a value."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import markdown

from orion_virt import errors

ROOT = Path(__file__).resolve().parents[2]
KINDS = {kind.__name__: kind for kind in (errors.OrionError, *errors.OrionError.__subclasses__())}
LEVELS = {"error": "ERROR", "warning": "WARNING"}
SPEAKERS = ("og_say", "og_announce", "og_lost", "og_log", "og_log_at", "og_because")
GUEST = (("guest-agent/libcuda", "libcuda.so.1"), ("guest-agent/libnvidia-ml", "libnvidia-ml.so.1"))
HOST = (("cli", "commands"), ("doctor", "`orion-virt doctor`"), ("hook", "libvirt's hook"), ("server", "oriond"),
        ("controller", "orion-controller"), ("", "configuration, domains, regions and cards"))  # fmt: skip


@dataclass(frozen=True)
class Message:
    """``said_by``: the function or class that shows it; ``where``: the folder of its source, below orion_virt for Python."""

    text: str
    remedy: str
    said_by: str
    where: str


# ---- Python ----


def _words(node: ast.AST) -> str:
    """A string expression with … for what is computed; empty where it is no text at all."""
    if isinstance(node, ast.Constant):
        return re.sub(r"%[-+#0 ]*[\d.]*[sdgfr]", "…", str(node.value)) if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(_words(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _words(node.left) + _words(node.right)
    return "…"


def _says_something(text: str) -> bool:
    return len(re.findall(r"[A-Za-z]{2,}", text)) > 1


def _python_calls(path: Path) -> Iterator[tuple[str, list[str], dict[str, str]]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            yield name, [_words(arg) for arg in node.args], {k.arg or "": _words(k.value) for k in node.keywords}


@cache
def of_python() -> tuple[Message, ...]:
    """Errors with their hints, findings of doctor, refusals of the hook, and oriond's warnings and errors."""
    found: dict[Message, None] = {}
    for path in sorted((ROOT / "orion_virt").rglob("*.py")):
        where = path.relative_to(ROOT / "orion_virt").parts[0]
        if where in ("codegen", "spec"):
            continue
        for name, args, named in _python_calls(path):
            if name in KINDS and args:
                message = Message(args[0], named.get("hint", ""), name, where)
            elif name == "Finding" and len(args) > 1:
                message = Message(args[1], args[2] if len(args) > 2 else named.get("fix", ""), name, where)
            elif name == "Refusal" and where == "hook" and args:
                message = Message(*_split(args[0]), name, where)
            elif name in LEVELS and args:
                message = Message(args[0], "", name, where)
            else:
                continue
            if _says_something(message.text):
                found[message] = None
    return tuple(found)


def _split(text: str) -> tuple[str, str]:
    """The hook's lines name the remedy behind a semicolon."""
    what, _, remedy = text.partition("; ")
    return what, remedy


# ---- C ----

_C_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
# Why a channel was closed: the words that the guest's library chooses from, and the remedy that is the same for all.
_CLOSED = re.compile(r'static const char (again)\[\] = ("[^"]*");\s*static const char \*const reasons\[\] = \{(.*?)\};', re.S)
_C_VALUE = re.compile(r"%[-+#0 ]*[\d.*]*(?:hh|ll|[hlz])?[sduxXcpi]")


def _arguments(source: str, start: int) -> list[str]:
    """Of a call whose parenthesis is at `start`: each argument's source."""
    depth, at, begin, found = 0, start, start + 1, []
    while True:
        here = source[at]
        if here == '"':
            at = _C_TEXT.match(source, at).end()  # type: ignore[union-attr]
            continue
        depth += (here == "(") - (here == ")")
        if depth == 0 or (here == "," and depth == 1):
            found.append(source[begin:at])
            begin = at + 1
        if depth == 0:
            return found
        at += 1


def _c_texts(argument: str) -> list[str]:
    """More than one where a condition chooses."""
    return [_c_text(part) for part in re.split(r'(?<=")\s*:\s*(?=")', argument)]


def _c_text(argument: str) -> str:
    text = "".join(_C_TEXT.findall(re.sub(r"\bPRI\w+", '"…"', argument)))
    return re.sub("…+", "…", _C_VALUE.sub("…", text)).replace('\\"', '"').replace("%%", "%").replace("\\n", " ")


@cache
def of_c() -> tuple[Message, ...]:
    """What the guest's libraries say on stderr and in client.log."""
    found: dict[Message, None] = {}
    for folder, _ in GUEST:
        for path in sorted((ROOT / folder).glob("*.c")):
            source = path.read_text()
            for call in re.finditer(rf"\b({'|'.join(SPEAKERS)})\(", source):
                found |= dict.fromkeys(_c_messages(call[1], _arguments(source, call.end() - 1), folder))
            for words in _CLOSED.findall(source):
                found |= {Message(one, _c_text(words[1]), "og_lost", folder): None for one in _C_TEXT.findall(words[2])}
    return tuple(message for message in found if _says_something(message.text))


def _c_messages(name: str, arguments: list[str], folder: str) -> list[Message]:
    if name == "og_lost":
        return [Message(_c_text(arguments[0]), _c_text(arguments[1]), name, folder)]
    texts = next((texts for texts in map(_c_texts, arguments) if any(texts)), [])
    return [Message(text, "", name, folder) for text in texts]


# ---- the page ----


def _cell(text: str) -> str:
    return markdown.plain(" ".join(text.split()))


def guest_text() -> str:
    """The guest's messages: on stderr, in the log, and the reasons that stand in others."""
    kinds = (("On the program's stderr", ("og_say", "og_announce")), ("After `the vGPU is lost: `", ("og_lost",)),
             ("In client.log alone", ("og_log", "og_log_at")), ("Reasons that stand inside those above", ("og_because",)))  # fmt: skip
    parts = []
    for title, names in kinds:
        said = sorted({(m.text, m.remedy) for m in of_c() if m.said_by in names})
        parts.append(f"### {title}")
        if any(remedy for _, remedy in said):
            parts.append(markdown.table(("message", "remedy"), ((_cell(a), _cell(b)) for a, b in said)))
        else:
            parts.append("\n".join(f"* {_cell(text)}" for text, _ in said))
    return "\n\n".join(parts)


def host_text() -> str:
    """The host's errors, findings and refusals by who says them, with remedy and exit status."""
    parts, left = [], [m for m in of_python() if m.said_by not in LEVELS]
    for folder, title in HOST:
        mine = [m for m in left if not folder or m.where == folder]
        left = [m for m in left if m not in mine]
        parts.append(f"### {title}")
        parts.append(markdown.table(("message", "remedy", "status"), sorted(map(_host_row, mine))))
    return "\n\n".join(parts)


def _host_row(message: Message) -> tuple[str, str, str]:
    kind = KINDS.get(message.said_by)
    return _cell(message.text), _cell(message.remedy) or "-", str(kind.exit_code) if kind else "-"


def log_text() -> str:
    """Warnings and errors in server.log and the controller's log."""
    rows = sorted({(_cell(m.text), LEVELS[m.said_by], m.where) for m in of_python() if m.said_by in LEVELS})
    return markdown.table(("line", "level", "part"), rows)
