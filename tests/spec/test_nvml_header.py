# SPDX-License-Identifier: Apache-2.0
"""The NVML spec against NVIDIA's nvml.h of CUDA 12 and 13: prototypes, structs, error codes, and that no function is left out."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from cuda_header import COMPILER, _nvidia_folders, compile_c

from orion_virt.codegen import nvml
from orion_virt.codegen.load import SpecError
from orion_virt.codegen.lock import update_figures
from orion_virt.spec.nvml import LINES, types
from orion_virt.spec.nvml.schema import Absent, Field, figure, hand, same

BELOW = {12: "nvml_dev/include", 13: "cu13/include"}
OLD_NAMES = "-DNVML_NO_UNVERSIONED_FUNC_DEFS"  # declares every version of every function
LOCK = Path(__file__).with_name("figures.lock")


@pytest.fixture(params=sorted(BELOW))
def include(request: pytest.FixtureRequest) -> Path:
    """The folder of nvml.h of one CUDA version."""
    folder = next((f / BELOW[request.param] for f in _nvidia_folders() if (f / BELOW[request.param] / "nvml.h").exists()), None)
    if folder is None:
        wheel = "nvidia-nvml-dev-cu12" if request.param == 12 else "nvidia-nvml-dev"
        pytest.skip(f"no nvml.h of CUDA {request.param}: pip install {wheel}")
    return folder


@pytest.fixture(scope="module")
def spec() -> nvml.Nvml:
    return nvml.load()


def preprocessed(include: Path) -> str:
    command = [COMPILER, "-E", "-P", OLD_NAMES, f"-I{include}", "-x", "c", "-"]
    done = subprocess.run(command, input="#include <nvml.h>\n", capture_output=True, text=True, check=True, timeout=180)
    return re.sub(r"\s+", " ", done.stdout)


def public(include: Path) -> set[str]:
    return set(re.findall(r"(?:nvmlReturn_t|const char ?\*) ?(nvml\w+) ?\([^;{]*\);", preprocessed(include)))


def newest() -> Path:
    return next(f / BELOW[13] for f in _nvidia_folders() if (f / BELOW[13] / "nvml.h").exists())


def test_prototypes_agree_with_the_header(spec: nvml.Nvml, include: Path, tmp_path: Path) -> None:
    known = public(include)
    ours = [nvml.prototype(spec, line) for line in spec.functions if line.name in known]
    assert len(ours) > 120
    compile_c("#include <nvml.h>\n" + "".join(f"{p};\n" for p in ours), tmp_path, OLD_NAMES, f"-I{include}")


def test_a_wrong_prototype_is_caught(include: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="conflicting types"):
        compile_c("#include <nvml.h>\nnvmlReturn_t nvmlShutdown(int);\n", tmp_path, f"-I{include}")


def test_every_public_function_is_in_the_spec(spec: nvml.Nvml, include: Path) -> None:
    ours = {line.name for line in [*spec.functions, *spec.of(Absent)]}
    assert public(include) - ours == set()


def test_no_function_is_invented(spec: nvml.Nvml) -> None:
    private = {line.name for line in spec.functions if getattr(line, "public", True) is False}
    ours = {line.name for line in [*spec.functions, *spec.of(Absent)]} - private
    assert private == {"nvmlInternalGetExportTable"}
    assert ours - public(newest()) == set()


def test_structs_agree_with_the_header(include: Path, tmp_path: Path) -> None:
    """The same program prints the same sizes and offsets with our header and with NVIDIA's."""
    text = preprocessed(include)
    prints = ""
    for name, body in types.STRUCTS:
        if not re.search(rf"\b{name};", text) or (name == "nvmlGpuFabricInfoV_t" and "healthSummary" not in text):
            continue  # that header does not know it, or an older version of it under the same name
        prints += f'printf("{name} %zu\\n", sizeof({name}));\n'
        for field in re.findall(r"(\w+)(?:\[\d+\])?\s*[,;]", re.sub(r"union \{.*\}", "", body)):
            prints += f'printf("{name}.{field} %zu\\n", offsetof({name}, {field}));\n'
    assert prints.count("sizeof") > 20
    program = "#include <stddef.h>\n#include <stdio.h>\n{}\nint main(void) {{ {} return 0; }}\n"
    theirs = compile_c(program.format("#include <nvml.h>", prints), tmp_path, f"-I{include}", run=True)
    ours = compile_c(program.format(nvml.abi_h(nvml.load()), prints), tmp_path, run=True)
    assert ours == theirs


def test_error_codes_agree_with_the_header(include: Path) -> None:
    body = re.search(r"\{([^{}]*NVML_ERROR_UNINITIALIZED[^{}]*)\}", preprocessed(include))
    theirs = dict(re.findall(r"NVML_(\w+) ?= ?(\d+)", body[1] if body else ""))
    ours = {name: str(value) for name, value, _ in types.RETURNS}
    assert set(theirs.items()) <= set(ours.items())


def test_field_numbers_agree_with_the_header() -> None:
    text = (newest() / "nvml.h").read_text()
    numbers = [line for line in LINES if isinstance(line, Field) and isinstance(line.field, int)]
    assert len(numbers) > 10
    for line in numbers:
        assert re.search(rf"#define {line.name} +{line.field}\b", text), line


def test_numbers_are_never_reused(spec: nvml.Nvml, tmp_path: Path) -> None:
    assert set(nvml.lock_entries(spec).items()) <= {tuple(line.rsplit(" ", 1)) for line in LOCK.read_text().splitlines()}
    lock = tmp_path / "figures.lock"
    update_figures({"figure 3 1": "one"}, lock)
    update_figures({"figure 3 1": "one", "figure 4 2": "two"}, lock)
    assert lock.read_text().splitlines()[1:] == ["figure 3 1 one", "figure 4 2 two"]
    with pytest.raises(SpecError, match="take a new number"):
        update_figures({"figure 3 1": "other"}, lock)


@pytest.mark.parametrize(("lines", "said"), [
    ((figure(1, "a", "int", outs=3), figure(3, "b", "int")), "figure 3 is taken; take 4"),
    ((hand("a", ""), hand("a", "")), "a comes twice"),
    ((same("a", "b"),), "b is no function"),
])  # fmt: skip
def test_wrong_lines_are_refused(lines: tuple, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        nvml.load(lines)


def test_every_absence_has_a_reason(spec: nvml.Nvml) -> None:
    assert all(len(line.reason) > 10 for line in spec.of(Absent))
