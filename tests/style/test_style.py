# SPDX-License-Identifier: Apache-2.0
"""Shape of the tree: sizes, licence lines, layers of includes and imports, packages in use."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Longer than the gate, each with its reason.
LONG_FILES: dict[str, str] = {
    "orion_virt/spec/calls/unsupported.py": "a table",
}
LONG_FUNCTIONS: dict[str, str] = {}


def tracked(*suffixes: str) -> list[Path]:
    """Files of the repository that end so."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True,
                            check=True).stdout.split("\n")
    return [ROOT / name for name in listed if name.endswith(suffixes) and (ROOT / name).is_file()]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("suffix", [".py", ".c", ".h", ".cu"])
def test_files_start_with_the_licence(suffix: str) -> None:
    bad = [name_of(p) for p in tracked(suffix) if p.stat().st_size
           and "SPDX-License-Identifier: Apache-2.0" not in "\n".join(p.read_text().split("\n")[:3])]
    assert not bad


def test_files_are_short() -> None:
    gates = {".c": 700, ".h": 700, ".py": 500}
    long = {}
    for path in tracked(*gates):
        name, lines = name_of(path), path.read_text().count("\n")
        gate = 600 if name.startswith("tests/") else gates[path.suffix]
        if lines > gate and name not in LONG_FILES and not name.startswith("orion_virt/spec/calls/"):
            long[name] = lines
    assert not long


def python_functions(path: Path) -> list[tuple[str, int]]:
    tree = ast.parse(path.read_text())
    return [(node.name, (node.end_lineno or 0) - node.lineno + 1) for node in ast.walk(tree)
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def c_functions(path: Path) -> list[tuple[str, int]]:
    """A function's braces stand alone in the first column, which the compiler cannot check but this relies on."""
    found, start, head = [], 0, ""
    lines = path.read_text().split("\n")
    for number, line in enumerate(lines):
        if line == "{":
            head = next((m[1] for m in (re.search(r"(\w+)\(", lines[i]) for i in range(number - 1, max(number - 6, -1), -1)) if m), "?")
            start = number
        elif line == "}" and start:
            found.append((head, number - start - 1))
            start = 0
    return found


def test_functions_are_short() -> None:
    long = {}
    for path in tracked(".py", ".c", ".h"):
        gate, reader = (50, python_functions) if path.suffix == ".py" else (60, c_functions)
        for function, lines in reader(path):
            name = f"{name_of(path)}:{function}"
            if lines > gate and name not in LONG_FUNCTIONS:
                long[name] = lines
    assert not long


def test_sides_share_only_the_region_headers() -> None:
    """guest-agent and executor include nothing of each other; ivshmem includes neither."""
    guest = r'"(executor|.*executor/|gen/driver)'
    foreign = {"guest-agent/libcuda/": guest, "guest-agent/libnvidia-ml/": guest,
               "orion_virt/executor/": r'"(client\.h|.*libcuda/)',
               "ivshmem/": r'"(client|executor|cuda|gen/)'}
    bad = [f"{name_of(p)}: {line}" for p in tracked(".c", ".h") for prefix, pattern in foreign.items()
           if name_of(p).startswith(prefix) for line in p.read_text().split("\n")
           if re.match(r"\s*#\s*include\s+" + pattern, line)]
    assert not bad


def test_every_package_that_the_user_named_is_in_use() -> None:
    imports = "\n".join(p.read_text() for p in tracked(".py") if name_of(p).startswith("orion_virt/"))
    for module in ("libvirt", "lxml", "pynvml", "cuda.bindings", "posix_ipc", "click"):
        assert re.search(rf"^\s*(import|from) {re.escape(module)}\b", imports, re.M), f"{module} is not imported"


def test_the_tree_speaks_of_the_project_only() -> None:
    words = re.compile(r"/work/|\.\./shared|\bsubagent|deb\.debian\.org|files\.pythonhosted")
    bad = [f"{name_of(p)}: {m[0]}" for p in tracked(".py", ".c", ".h", ".md", ".cu", ".sh", "Makefile", ".cfg", ".toml", ".in")
           if p != Path(__file__) for m in [words.search(p.read_text())] if m]
    assert not bad


def test_test_files_have_names_of_their_own() -> None:
    """pytest imports them by their base names."""
    names = [p.name for p in tracked(".py") if p.name.startswith("test_")]
    assert sorted(set(names)) == sorted(names)
