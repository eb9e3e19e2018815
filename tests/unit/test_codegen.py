# SPDX-License-Identifier: Apache-2.0
"""The generator: same input same output, bad lines refused by name, shape of what it makes."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from orion_virt.codegen import dispatch, exports, stubs, wire
from orion_virt.codegen.__main__ import generate, write
from orion_virt.codegen.load import Spec, SpecError, family_of, load, make_spec
from orion_virt.codegen.lock import read_lock, update_lock
from orion_virt.spec import types
from orion_virt.spec.schema import ASYNC, Type, buf, call, inout, inp, local, opt, out, unsupported
from orion_virt.spec.types import DEVICE, DEVPTR, EVENT, GRAPH, GRAPH_NODE, INT, MEMCPY2D, SIZE, STREAM, UINT

ROOT = Path(__file__).resolve().parents[2]
TYPES = tuple(v for v in vars(types).values() if isinstance(v, Type))


def spec_of(*lines: object, family: str = "stream") -> Spec:
    return make_spec([family_of(family, lines)], TYPES)  # type: ignore[arg-type]


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        command = [sys.executable, "-m", "orion_virt.codegen", "--out", str(tmp_path / name)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=180)
    first, second = (
        {str(p.relative_to(tmp_path / n)): p.read_bytes() for p in (tmp_path / n).rglob("*") if p.is_file()}
        for n in ("a", "b")
    )
    assert len(first) > 30
    assert first == second


def test_unchanged_files_are_left_alone_and_old_ones_removed(tmp_path: Path) -> None:
    spec = load()
    write(generate(spec), tmp_path)
    header = tmp_path / "ivshmem/gen/wire.h"
    before = header.stat().st_mtime_ns
    old = tmp_path / "guest-agent/libcuda/gen/stub_gone.c"
    old.write_text("/* of a family that is gone */\n")
    write(generate(spec), tmp_path)
    assert header.stat().st_mtime_ns == before
    assert not old.exists()


BAD = [
    ([call(0, "cuA")], "operation number 0"),
    ([call(601, "cuA"), call(601, "cuB")], "belongs to cuA"),
    ([call(601, "cuA"), call(602, "cuA")], "already in"),
    ([call(100, "cuA")], "outside 600..699"),
    ([call(601, "cuA", inp("x", Type("wrong_t", "u32")))], "wrong_t is not in spec/types.py"),
    ([call(601, "cuA", inp("x", INT), inp("x", INT))], "same name"),
    ([call(601, "cuA", buf("p", UINT, "n"))], "names no integer parameter"),
    ([call(601, "cuA", inp("p", MEMCPY2D))], "crosses as buf"),
    ([call(601, "cuA", inout("s", STREAM))], "goes in and comes out"),
    ([call(601, "cuA", out("d", DEVICE))], "must be translated"),
    ([call(601, "cuA", out("s", STREAM), makes="s", reports=True)], "cannot report an older error"),
    ([call(601, "cuA", out("x", INT), order=ASYNC)], "can have no results"),
    ([call(601, "cuA", inp("x", INT), makes="x")], "names no out parameter"),
    ([call(601, "cuA", inp("x", INT), frees="x")], "names no in parameter"),
    ([call(601, "cuA", inp("p", DEVPTR), checks="p")], 'is not "ptr:bytes"'),
    ([call(601, "cuA", inp("p", DEVPTR), checks="p:n*2")], "'n' is no number or parameter"),
    ([call(601, "cuA", inp("p", DEVPTR), inp("n", SIZE), checks="p:n@n")], 'is not "pitch*rows"'),
    ([call(601, "cuA", inp("f", UINT), flags="f")], 'is not "param:mask"'),
    ([call(601, "cuA", inp("n", SIZE), books="n")], "+arg"),
    ([call(601, "cuA", out("p", DEVPTR), ledger="+p")], "needs a size"),
    ([call(601, "cuA", ptsz="ptsz")], "needs a stream parameter"),
    ([call(601, "cuA", ptsz="ptds", per_thread="cuNone")], "no function of the spec"),
    ([local("cuA"), unsupported("cuA", "why")], "already in"),
    (["cuA"], "is no call()"),
]


@pytest.mark.parametrize(("lines", "says"), BAD, ids=[b[1][:24] for b in BAD])
def test_bad_line_is_refused_by_name(lines: list[object], says: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec_of(*lines)
    assert says in str(caught.value)
    assert str(caught.value).startswith("stream.py: ")
    assert "cuA" in str(caught.value) or "cuB" in str(caught.value)


def test_lock_only_grows(tmp_path: Path) -> None:
    lock = tmp_path / "ops.lock"
    update_lock(spec_of(call(601, "cuA")), lock)
    update_lock(spec_of(call(602, "cuB")), lock)
    assert read_lock(lock) == {601: "cuA", 602: "cuB"}
    with pytest.raises(SpecError, match="number 601 was cuA; take a new number"):
        update_lock(spec_of(call(601, "cuC")), lock)


def test_committed_lock_agrees_with_spec() -> None:
    known = read_lock(ROOT / "tests/spec/ops.lock")
    changed = {c.op: (known[c.op], c.name) for c in load().crossing if c.op in known and known[c.op] != c.name}
    assert not changed, "an operation number never changes its meaning"


def test_committed_table_of_what_is_not_carried_agrees_with_spec() -> None:
    assert (ROOT / "docs/unsupported.md").read_text() == exports.unsupported_md(load())


def test_reasons_are_no_promises() -> None:
    assert not [line.name for line in load().unsupported if "yet" in line.reason.split()]


def test_no_function_name_in_generator() -> None:
    for path in (ROOT / "orion_virt/codegen").glob("*.py"):
        assert not re.findall(r"\bcu[A-Z]\w*", path.read_text()), path


def test_spec_files_hold_constructor_calls_only() -> None:
    words = {"call", "local", "internal", "unsupported", "inp", "out", "inout", "opt", "mut", "buf", "cstr"}
    for path in (ROOT / "orion_virt/spec/calls").glob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            assert isinstance(node, ALLOWED), f"{path.name}:{getattr(node, 'lineno', 0)}: {type(node).__name__}"
            if isinstance(node, ast.Call):
                assert isinstance(node.func, ast.Name) and node.func.id in words, f"{path.name}:{node.lineno}"
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[-1] in ("schema", "types"), f"{path.name}:{node.lineno}"


ALLOWED = (
    ast.Module, ast.Expr, ast.Constant, ast.Assign, ast.Name, ast.Load, ast.Store, ast.Tuple, ast.List, ast.Call,
    ast.keyword, ast.ImportFrom, ast.alias,
)  # fmt: skip


def test_golden_stub_of_a_one_way_call() -> None:
    spec = spec_of(call(601, "cuMark", inp("hEvent", EVENT), inp("hStream", STREAM), order=ASYNC))
    text = stubs.stub_c(spec, spec.families[0])
    assert text is not None and text.endswith(
        """
CUresult og_send_cuMark(CUevent hEvent, CUstream hStream)
{
    OG_ON((uint64_t)(uintptr_t)hStream);
    struct og_call c_;
    struct ow_cuMark_in *in_;
    CUresult r_;

    if (!og_valid(OW_KIND_EVENT, (uint64_t)(uintptr_t)hEvent))
        return og_refuse(CUDA_ERROR_INVALID_HANDLE);
    if (!og_stream_valid((uint64_t)(uintptr_t)hStream))
        return og_refuse(CUDA_ERROR_INVALID_HANDLE);
    r_ = og_begin(&c_, OW_OP_cuMark, (uint32_t)sizeof(struct ow_cuMark_in));
    if (r_ != CUDA_SUCCESS)
        return r_;
    in_ = c_.in;
    in_->hEvent = (uint64_t)(uintptr_t)hEvent;
    in_->hStream = (uint64_t)(uintptr_t)hStream;
    return og_post(&c_);
}

OG_EXPORT CUresult cuMark(CUevent hEvent, CUstream hStream)
{
    return og_send_cuMark(hEvent, hStream);
}
"""
    )


def test_golden_body_of_a_call_that_frees() -> None:
    spec = spec_of(call(601, "cuDrop", inp("hEvent", EVENT), frees="hEvent"))
    text = dispatch.dispatch_c(spec, spec.families[0])
    assert text is not None and text.endswith(
        """
{
    const struct ow_cuDrop_in *in = payload;
    void *v_hEvent = NULL;
    void *taken, *data;
    CUresult r;

    (void)t;
    (void)bytes;
    (void)reply;
    (void)reply_bytes;
    if (!oh_drv.cuDrop)
        return CUDA_ERROR_NOT_SUPPORTED;
    r = oh_get(OW_KIND_EVENT, in->hEvent, &v_hEvent);
    if (r != CUDA_SUCCESS)
        return r;
    if (!oh_take(OW_KIND_EVENT, in->hEvent, &taken, &data))
        return CUDA_ERROR_INVALID_HANDLE;
    r = oh_drv.cuDrop(v_hEvent);
    if (r != CUDA_SUCCESS) {
        if (oh_put(OW_KIND_EVENT, in->hEvent, taken) != CUDA_SUCCESS)
            return OH_FAULT;
        oh_set_data(OW_KIND_EVENT, in->hEvent, data);
        return r;
    }
    return CUDA_SUCCESS;
}
"""
    )


def test_one_way_free_forgets_the_handle_whatever_the_driver_says() -> None:
    """The client gives the number out again at once; a stale entry would then look like a forged handle."""
    spec = spec_of(call(601, "cuDrop", inp("hEvent", EVENT), frees="hEvent", order=ASYNC))
    text = dispatch.dispatch_c(spec, spec.families[0]) or ""
    assert text.count("oh_take(") == 1 and "oh_put(" not in text
    assert text.index("oh_get(") < text.index("oh_take(") < text.index("oh_drv.cuDrop(")


def test_golden_wire_struct() -> None:
    nodes = opt(buf("nodes", GRAPH_NODE, "count"))
    made = call(601, "cuMake", out("node", GRAPH_NODE), inp("graph", GRAPH), nodes, inp("count", SIZE), makes="node")
    text = wire.wire_h(spec_of(made))
    assert """struct ow_cuMake_in {
    uint64_t node;
    uint64_t graph;
    uint32_t nodes_bytes;
    uint64_t count;
} __attribute__((aligned(8)));
_Static_assert(sizeof(struct ow_cuMake_in) == 32, "cuMake in");
struct ow_cuMake_out {
};
""" in text
