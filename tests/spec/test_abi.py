# SPDX-License-Identifier: Apache-2.0
"""The spec's prototypes, struct layouts and numbers against NVIDIA's headers of CUDA 12 and 13."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cuda_header import INTERNAL, compile_c, include_or_skip, other_names, preprocessed, public_functions

from orion_virt.codegen import abi
from orion_virt.codegen.load import Spec, load

MAJORS = [12, 13]
#: Members of unions and structs without a name.
NESTED = {"CUgraphNodeParams": ["kernel", "memcpy.copyCtx", "memcpy.copyParams", "memset", "host", "graph.graph",
                                "graph.ownership", "alloc.dptr", "free.dptr", "memOp.paramArray", "conditional.phGraph_out"],
          "CUstreamBatchMemOpParams": ["waitValue.value64", "waitValue.flags", "writeValue.alias", "memoryBarrier.flags"]}  # fmt: skip


@pytest.fixture(scope="module")
def spec() -> Spec:
    return load()


def _spec_symbols(spec: Spec) -> set[str]:
    lines = [c for c in spec.calls if not c.internal] + spec.unsupported
    return {c.name for c in lines} | {f"{c.name}_{c.ptsz}" for c in lines if c.ptsz}


@pytest.mark.parametrize("major", MAJORS)
def test_prototypes_agree_with_header(spec: Spec, major: int, tmp_path: Path) -> None:
    include = include_or_skip(major)
    known = public_functions(include)
    ours = [p for p in abi.prototypes(spec) if re.search(r"(cu\w+)\(", p)[1] in known]
    assert len(ours) > 250
    source = "#include <stdint.h>\n#include <cuda.h>\n" + "".join(f"{p};\n" for p in ours)
    compile_c(source, tmp_path, INTERNAL, f"-I{include}")


def test_wrong_prototype_is_caught(tmp_path: Path) -> None:
    include = include_or_skip(13)
    with pytest.raises(AssertionError, match="conflicting types"):
        compile_c("#include <cuda.h>\nCUresult cuInit(float Flags);\n", tmp_path, f"-I{include}")


@pytest.mark.parametrize("major", MAJORS)
def test_every_public_function_is_in_spec(spec: Spec, major: int) -> None:
    include = include_or_skip(major)
    missing = public_functions(include) - _spec_symbols(spec)
    assert not missing, f"add call(), local() or unsupported() lines for {sorted(missing)}"


def test_no_symbol_is_invented(spec: Spec) -> None:
    new = include_or_skip(13)
    known = public_functions(include_or_skip(12)) | public_functions(new) | other_names(new)
    plain = {re.sub(r"_pt[ds][sz]$", "", s) for s in _spec_symbols(spec)}
    assert plain <= known, sorted(plain - known)


def _fields(body: str, name: str) -> list[str]:
    """Top-level field names of struct `name`."""
    match = re.search(r"typedef struct \w+ \{(.*)\}[^{}]*\b" + name + r";", body, re.S)
    if not match:
        return NESTED.get(name, [])
    flat = match[1]
    while "{" in flat:
        flat = re.sub(r"\{[^{}]*\}", " ", flat)
    fields = []
    for declaration in flat.split(";"):
        for item in declaration.split(","):
            found = re.findall(r"\w+", re.sub(r"\[.*?\]", "", item))
            fields += found[-1:]
    return [f for f in fields if f not in ("union", "struct")] + NESTED.get(name, [])


@pytest.mark.parametrize("major", MAJORS)
def test_layouts_agree_with_header(spec: Spec, major: int, tmp_path: Path) -> None:
    include = include_or_skip(major)
    text = preprocessed(include)
    structs = [t for t in spec.types if t.wire == "bytes" and t.body and re.search(rf"\b{t.c}\b", text)]
    assert len(structs) > 15
    facts = [f"sizeof({t.c})" for t in structs]
    fields = [(t.c, f) for t in structs for f in _fields(t.body, t.c) if not f.startswith(("pad", "reserved"))]
    facts += [f"offsetof({name}, {field})" for name, field in fields]
    printed = "".join(f'printf("%zu\\n", {fact});\n' for fact in facts)
    ours = "#include <stdio.h>\n" + abi.cuda_abi_h(spec) + "int main(void)\n{\n" + printed + "return 0;\n}\n"
    values = compile_c(ours, tmp_path, run=True).split()
    checks = "".join(f'_Static_assert({f} == {v}, "{f}");\n' for f, v in zip(facts, values, strict=True))
    compile_c(f"#include <stddef.h>\n#include <cuda.h>\n{checks}", tmp_path, INTERNAL, f"-I{include}")


@pytest.mark.parametrize("major", MAJORS)
def test_numbers_agree_with_header(spec: Spec, major: int, tmp_path: Path) -> None:
    include = include_or_skip(major)
    text = (include / "cuda.h").read_text()
    words = set(re.findall(r"\bCU\w+", text))
    checks = [(n, v) for _, group in spec.constants for n, v in group if n in words]
    assert len(checks) > 500
    source = "".join(f'_Static_assert((long long){n} == {v}ll, "{n}");\n' for n, v in checks)
    compile_c(f"#include <cuda.h>\n{source}", tmp_path, f"-I{include}")
