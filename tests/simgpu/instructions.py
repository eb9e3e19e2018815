# SPDX-License-Identifier: Apache-2.0
"""Every arithmetic form of PTX that compilers emit, as (text, types), and kernels that run each on many operands."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from itertools import product

import numpy as np

OPERANDS = 1024  # operand tuples for each instruction
# Registers by type: their PTX class, their bytes, and which bit patterns make good operands.
CLASSES = {"pred": "pred", "u16": "b16", "s16": "b16", "b16": "b16", "f16": "b16", "bf16": "b16", "u32": "b32",
           "s32": "b32", "b32": "b32", "f16x2": "b32", "bf16x2": "b32", "s16x2": "b32", "u16x2": "b32", "f32": "f32",
           "u64": "b64", "s64": "b64", "b64": "b64", "f64": "f64", "u8": "b16", "s8": "b16"}
WIDTH = {"pred": 4, "b16": 2, "b32": 4, "f32": 4, "b64": 8, "f64": 8}


@dataclass(frozen=True)
class Instruction:
    """`text` with its modifiers, the types of destination and sources, and how exact the PTX manual says it is."""

    text: str
    to: str
    sources: tuple[str, ...]
    since: int = 75          # compute capability
    relative: float = 0.0    # 0: the result is one of exact bits
    last: str = ""           # an immediate operand behind the sources
    limits: tuple[int, ...] = ()  # each integer source modulo this, 0: as it is
    absolute: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.text} {self.last}".strip()


def _same(words: str, types: str, nr: int, **more: object) -> list[Instruction]:
    return [Instruction(f"{w}.{t}", t, (t,) * nr, **more) for w in words.split() for t in types.split()]


def _rounded(word: str, nr: int) -> list[Instruction]:
    singles = [f"{word}.{r}{ftz}.f32" for r, ftz in product(("rn", "rz", "rm", "rp"), ("", ".ftz"))]
    doubles = [f"{word}.{r}.f64" for r in ("rn", "rz", "rm", "rp")]
    return [Instruction(t, t[-3:], (t[-3:],) * nr) for t in singles + doubles]


def _integers() -> list[Instruction]:
    every, wide = "u16 s16 u32 s32 u64 s64", "u32 s32 u64 s64"
    out = _same("add sub mul.lo mul.hi div rem min max", every, 2) + _same("mad.lo mad.hi sad", every, 3)
    out += _same("and or xor", "b16 b32 b64", 2) + _same("not cnot", "b16 b32 b64", 1) + _same("neg abs", "s16 s32 s64", 1)
    out += [Instruction(f"{w}.wide.{t}", t[0] + str(2 * int(t[1:])), (t, t, t[0] + str(2 * int(t[1:])))[:n])
            for w, n in (("mul", 2), ("mad", 3)) for t in ("u16", "s16", "u32", "s32")]
    out += [Instruction(f"{w}.s32", "s32", ("s32",) * n) for w, n in (("add.sat", 2), ("sub.sat", 2), ("mad.hi.sat", 3))]
    out += _same("mul24.lo mul24.hi", "u32 s32", 2) + _same("mad24.lo mad24.hi", "u32 s32", 3)
    out += [Instruction(f"shl.{t}", t, (t, "u32"), limits=(0, 70)) for t in ("b16", "b32", "b64")]
    out += [Instruction(f"shr.{t}", t, (t, "u32"), limits=(0, 70)) for t in (*every.split(), "b16", "b32", "b64")]
    out += [Instruction(f"shf.{d}.{m}.b32", "b32", ("b32", "b32", "u32"), limits=(0, 0, 40))
            for d in "lr" for m in ("wrap", "clamp")]
    out += [Instruction(f"{w}.{t}", "u32", (t,)) for w in ("popc", "clz") for t in ("b32", "b64")]
    out += [Instruction(f"bfind{s}.{t}", "u32", (t,)) for t in wide.split() for s in ("", ".shiftamt")]
    out += _same("brev", "b32 b64", 1)
    out += [Instruction(f"bfe.{t}", t, (t, "u32", "u32"), limits=(0, 300, 300)) for t in wide.split()]
    out += [Instruction(f"bfi.{t}", t, (t, t, "u32", "u32"), limits=(0, 0, 300, 300)) for t in ("b32", "b64")]
    out += [Instruction(f"prmt.b32{m}", "b32", ("b32", "b32", "b32")) for m in
            ("", ".f4e", ".b4e", ".rc8", ".ecl", ".ecr", ".rc16")]
    out += [Instruction("lop3.b32", "b32", ("b32",) * 3, last=str(v)) for v in (0x96, 0xe8, 0x1b, 0, 255)]
    out += [Instruction(f"dp4a.{a}.{b}", "s32", ("b32", "b32", "s32")) for a in ("u32", "s32") for b in ("u32", "s32")]
    out += [Instruction(f"dp2a.{h}.{a}.{b}", "s32", ("b32", "b32", "s32"))
            for h in ("lo", "hi") for a in ("u32", "s32") for b in ("u32", "s32")]
    out += [Instruction(f"szext.{m}.{t}", t, (t, "u32"), limits=(0, 40)) for m in ("wrap", "clamp") for t in ("u32", "s32")]
    out += [Instruction(f"bmsk.{m}.b32", "b32", ("u32", "u32"), limits=(40, 40)) for m in ("wrap", "clamp")]
    out += [Instruction("fns.b32", "b32", ("b32", "b32", "s32"), limits=(0, 32, 9))]
    out += _same("min max add", "u16x2 s16x2", 2, since=90)
    return out


def _video() -> list[Instruction]:
    signs = ("u32", "s32")
    out = [Instruction(f"{w}.{t}.{a}.{a}", t, (a, a, "u32")) for n in "24" for w in
           (f"vadd{n}", f"vsub{n}", f"vmin{n}", f"vmax{n}", f"vabsdiff{n}", f"vavrg{n}") for t, a in product(signs, signs)]
    out += [Instruction(f"vset{n}.{t}.{t}.{c}", "u32", (t, t, "u32")) for n in "24" for t in signs for c in ("lt", "eq", "ge")]
    out += [Instruction(f"{w}.{t}.{a}.{a}", t, (a, a)) for w in ("vadd", "vsub", "vmin", "vmax", "vabsdiff")
            for t, a in product(signs, signs)]
    return out


def _floats() -> list[Instruction]:
    out = [i for word, nr in (("add", 2), ("sub", 2), ("mul", 2), ("fma", 3), ("div", 2), ("rcp", 1), ("sqrt", 1))
           for i in _rounded(word, nr)]
    out += [Instruction(f"{w}.rn{ftz}.sat.f32", "f32", ("f32",) * n)
            for w, n in (("add", 2), ("mul", 2), ("fma", 3)) for ftz in ("", ".ftz")]
    out += [Instruction(f"{w}{m}.f32", "f32", ("f32", "f32")) for w in ("min", "max") for m in ("", ".ftz")]
    out += [Instruction(f"{w}{m}.f32", "f32", ("f32", "f32"), since=80) for w in ("min", "max") for m in (".NaN", ".ftz.NaN")]
    out += [Instruction(f"{w}{m}.f32", "f32", ("f32", "f32"), since=86) for w in ("min", "max")
            for m in (".xorsign.abs", ".NaN.xorsign.abs")]
    out += _same("min max", "f64", 2) + _same("neg abs neg.ftz abs.ftz", "f32", 1) + _same("neg abs", "f64", 1)
    out += _same("copysign", "f32 f64", 2)
    out += [Instruction(f"testp.{p}.{t}", "pred", (t,)) for t in ("f32", "f64")
            for p in ("finite", "infinite", "number", "notanumber", "normal", "subnormal")]
    return out


def _approximate() -> list[Instruction]:
    out = [Instruction(f"{w}.approx{ftz}.f32", "f32", ("f32",) * n, relative=e) for ftz in ("", ".ftz")
           for w, n, e in (("rcp", 1, 2e-7), ("sqrt", 1, 4e-7), ("rsqrt", 1, 4e-7), ("div", 2, 4e-7), ("ex2", 1, 5e-7))]
    out += [Instruction(f"lg2.approx{ftz}.f32", "f32", ("f32",), relative=2e-6, absolute=2e-7) for ftz in ("", ".ftz")]
    out += [Instruction(f"{w}.approx{ftz}.f32", "f32", ("f32",), absolute=2e-6) for ftz in ("", ".ftz") for w in ("sin", "cos")]
    out += [Instruction(f"div.full{ftz}.f32", "f32", ("f32", "f32"), relative=4e-7) for ftz in ("", ".ftz")]
    out += [Instruction("tanh.approx.f32", "f32", ("f32",), relative=1e-3),
            Instruction("rcp.approx.ftz.f64", "f64", ("f64",), relative=1e-5),
            Instruction("rsqrt.approx.f64", "f64", ("f64",), relative=1e-5)]
    out += [Instruction(f"tanh.approx.{t}", t, (t,), since=s, relative=2e-2, absolute=1e-2)
            for t, s in (("f16", 75), ("f16x2", 75), ("bf16", 90), ("bf16x2", 90))]
    out += [Instruction(f"ex2.approx{f}.{t}", t, (t,), since=s, relative=1e-2, absolute=1e-6)
            for t, f, s in (("f16", "", 75), ("f16x2", "", 75), ("bf16", ".ftz", 90), ("bf16x2", ".ftz", 90))]
    return out


def _halves() -> list[Instruction]:
    out = []
    for t in ("f16", "f16x2"):
        out += [Instruction(f"{w}{m}.{t}", t, (t,) * n) for w, n in (("add", 2), ("sub", 2), ("mul", 2), ("fma.rn", 3))
                for m in ("", ".ftz", ".sat", ".ftz.sat")]
        out += _same("neg abs neg.ftz abs.ftz", t, 1)
        out += [Instruction(f"{w}{m}.{t}", t, (t, t), since=80) for w in ("min", "max") for m in ("", ".ftz", ".NaN")]
        out += [Instruction(f"fma.rn.relu.{t}", t, (t,) * 3, since=80)]
    for t in ("bf16", "bf16x2"):
        out += _same("add.rn sub.rn mul.rn", t, 2, since=90) + _same("fma.rn fma.rn.relu", t, 3, since=80)
        out += _same("min max min.NaN max.NaN", t, 2, since=80) + _same("neg abs", t, 1, since=80)
    return out


def _compare() -> list[Instruction]:
    ordered, unordered = ("eq", "ne", "lt", "le", "gt", "ge"), ("equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan")
    out = [Instruction(f"setp.{c}.{t}", "pred", (t, t)) for t in ("s16", "u16", "s32", "u32", "s64", "u64") for c in ordered]
    out += [Instruction(f"setp.{c}.{t}", "pred", (t, t)) for t in ("u16", "u32", "u64") for c in ("lo", "ls", "hi", "hs")]
    out += [Instruction(f"setp.{c}.{t}", "pred", (t, t)) for t in ("f32", "f64", "f16") for c in ordered + unordered]
    out += [Instruction(f"setp.{c}.ftz.f32", "pred", ("f32", "f32")) for c in ordered + unordered]
    out += [Instruction(f"setp.{c}.bf16", "pred", ("bf16", "bf16"), since=90) for c in ordered + unordered]
    out += [Instruction(f"setp.{c}.{b}.s32", "pred", ("s32", "s32", "pred")) for c in ("lt", "ne") for b in ("and", "or", "xor")]
    out += [Instruction(f"set.{c}.{d}.{t}", d, (t, t)) for c in ("lt", "geu") for d in ("u32", "f32") for t in ("f32", "f64")]
    out += [Instruction(f"set.{c}.{d}.{t}", d, (t, t)) for c in ("lt", "ne") for d in ("u32", "s32", "f32") for t in ("s32", "u64")]
    out += [Instruction(f"set.{c}.{d}.{t}", d, (t, t)) for c in ("lt", "geu", "nan")
            for d, t in (("f16", "f16"), ("u16", "f16"), ("f16x2", "f16x2"), ("u32", "f16x2"))]
    out += [Instruction(f"set.{c}.{d}.{t}", d, (t, t), since=90) for c in ("lt", "geu")
            for d, t in (("bf16", "bf16"), ("bf16x2", "bf16x2"), ("u32", "bf16x2"))]
    out += [Instruction(f"selp.{t}", t, (t, t, "pred")) for t in ("b16", "b32", "b64", "f32", "f64")]
    out += [Instruction(f"slct{m}.{t}.{c}", t, (t, t, c)) for t in ("b32", "b64", "f32")
            for m, c in (("", "s32"), ("", "f32"), (".ftz", "f32"))]
    return out


def _narrows(to: str, source: str) -> bool:
    """Values of the one type do not all exist in the other: only then may an integer conversion saturate."""
    bits = int(to[1:]) - (to[0] == "s"), int(source[1:]) - (source[0] == "s")
    return bits[0] < bits[1] or (to[0] == "u" and source[0] == "s")


def _conversions() -> list[Instruction]:
    ints, floats = ("u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64"), ("f16", "f32", "f64")
    rounds, whole = ("rn", "rz", "rm", "rp"), ("rni", "rzi", "rmi", "rpi")
    out = [Instruction(f"cvt.{d}.{t}", d, (t,)) for d, t in product(ints, ints) if d != t]
    out += [Instruction(f"cvt.sat.{d}.{t}", d, (t,)) for d, t in product(ints, ints) if _narrows(d, t)]
    out += [Instruction(f"cvt.{r}.{d}.{t}", d, (t,)) for d, t in product(floats, ints) for r in rounds]
    out += [Instruction(f"cvt.{r}.{d}.{t}", d, (t,)) for d, t in product(ints, floats) for r in whole]
    out += [Instruction(f"cvt.{r}.sat.{d}.{t}", d, (t,)) for d, t in product(("s8", "u8", "s32"), floats) for r in ("rni", "rzi")]
    out += [Instruction(f"cvt.{r}.ftz.{d}.f32", d, ("f32",)) for d in ("s32", "u64") for r in whole]
    out += [Instruction(f"cvt.{r}{s}.{t}.{t}", t, (t,)) for t in floats for r in whole for s in ("", ".sat")]
    out += [Instruction(f"cvt{r}.{d}.{t}", d, (t,)) for d, t, r in
            [("f64", "f32", ""), ("f32", "f16", ""), ("f64", "f16", ""), ("f32", "f16", ".sat"), ("f32", "f32", ".sat"),
             ("f32", "f32", ".ftz.sat"), ("f64", "f32", ".ftz"), ("f32", "f16", ".ftz")]]
    out += [Instruction(f"cvt.{r}{s}.{d}.{t}", d, (t,)) for d, t in (("f32", "f64"), ("f16", "f64"), ("f16", "f32"))
            for r in rounds for s in ("", ".sat")]
    out += [Instruction(f"cvt.{r}.ftz.f32.f64", "f32", ("f64",)) for r in rounds]
    out += [Instruction(f"cvt.{r}{x}.{t}.f32", t, ("f32", "f32"), since=80) for r in ("rn", "rz") for x in ("", ".relu")
            for t in ("f16x2", "bf16x2")]
    out += [Instruction(f"cvt.{r}{x}.bf16.f32", "bf16", ("f32",), since=80) for r in ("rn", "rz") for x in ("", ".relu")]
    out += [Instruction("cvt.f32.bf16", "f32", ("bf16",), since=90), Instruction("cvt.rna.tf32.f32", "b32", ("f32",), since=80)]
    out += [Instruction(f"cvt.{r}.bf16.{t}", "bf16", (t,), since=90) for r in rounds for t in ("s32", "u16", "s64", "f64")]
    out += [Instruction(f"cvt.{r}.{t}.bf16", t, ("bf16",), since=90) for r in whole for t in ("s32", "u16", "s64")]
    out += [Instruction(f"cvt.rn.satfinite{x}.{e}.f32", "b16", ("f32", "f32"), since=89)
            for e in ("e4m3x2", "e5m2x2") for x in ("", ".relu")]
    out += [Instruction(f"cvt.rn.satfinite{x}.{e}.f16x2", "b16", ("f16x2",), since=89) for e in ("e4m3x2", "e5m2x2") for x in ("", ".relu")]
    out += [Instruction(f"cvt.rn.f16x2.{e}", "f16x2", ("b16",), since=89) for e in ("e4m3x2", "e5m2x2")]
    out += [Instruction(f"cvt.pack.sat.{d}.s32", "b32", ("s32", "s32")) for d in ("u16", "s16")]
    out += [Instruction(f"cvt.pack.sat.{d}.s32.b32", "b32", ("s32", "s32", "b32")) for d in ("u8", "s8")]
    return out


def instructions(arch: int) -> list[Instruction]:
    """All forms that a card of this compute capability knows."""
    every = _integers() + _video() + _floats() + _approximate() + _halves() + _compare() + _conversions()
    return [i for i in {i.name: i for i in every}.values() if i.since <= arch]


# ---- operands ----

_SPECIAL = {
    "f16": [0, 0x8000, 1, 0x83ff, 0x3ff, 0x400, 0x3c00, 0xbc00, 0x7bff, 0x7c00, 0xfc00, 0x7e00, 0x7d01, 0x3800, 0x4200],
    "bf16": [0, 0x8000, 1, 0x807f, 0x80, 0x3f80, 0xbf80, 0x7f7f, 0x7f80, 0xff80, 0x7fc0, 0x7f81, 0x3f00, 0x4040],
    "f32": [0, 0x80000000, 1, 0x807fffff, 0x7fffff, 0x800000, 0x3f800000, 0xbf800000, 0x7f7fffff, 0x7f800000, 0xff800000,
            0x7fc00000, 0x7f800001, 0x3f000000, 0x40200000, 0x4f000000, 0xcf000000, 0x3effffff],
    "f64": [0, 1 << 63, 1, 0x000fffffffffffff, 0x3ff0000000000000, 0xbff0000000000000, 0x7fefffffffffffff, 0x7ff << 52,
            0xfff << 52, 0x7ff8 << 48, 0x7ff0000000000001, 0x3fe0000000000000, 0x4004000000000000, 0x41e0000000000000,
            0x36a0000000000000, 0x380fffffffffffff, 0x47efffffffffffff],
}


def _bits(kind: str, rng: np.random.Generator) -> np.ndarray:
    bits = {"pred": 1, "u8": 8, "s8": 8}.get(kind, 8 * WIDTH[CLASSES[kind]])
    values = rng.integers(0, 1 << 63, OPERANDS, dtype=np.uint64) << np.uint64(1) | rng.integers(0, 2, OPERANDS, dtype=np.uint64)
    scalar = kind.removesuffix("x2")
    if scalar in _SPECIAL:
        fraction = {"f16": 10, "bf16": 7, "f32": 23, "f64": 52}[scalar]
        width = {"f16": 16, "bf16": 16, "f32": 32, "f64": 64}[scalar]
        bias = (1 << (width - fraction - 2)) - 1
        near = (values & np.uint64((1 << fraction) - 1)) | np.uint64(1 << (width - 1)) * (values >> np.uint64(63))
        near |= (np.uint64(bias - 12) + values % np.uint64(24)) << np.uint64(fraction)  # of similar size: sums cancel
        values[::2] = near[::2]
        values &= np.uint64((1 << width) - 1) if width < 64 else np.uint64(~np.uint64(0))
        special = np.array(_SPECIAL[scalar], dtype=np.uint64)
    else:
        special = np.array([0, 1, 2, (1 << bits) - 1, 1 << (bits - 1), (1 << (bits - 1)) - 1], dtype=np.uint64)
        values[::3] &= np.uint64(255)
    pick = rng.integers(0, 4, OPERANDS) == 0
    values = np.where(pick, special[rng.integers(0, len(special), OPERANDS)], values)
    if kind.endswith("x2"):
        values = values & np.uint64(0xffff) | np.roll(values & np.uint64(0xffff), 7) << np.uint64(16)
    return values & np.uint64((1 << bits) - 1) if bits < 64 else values


def operands(i: Instruction) -> list[np.ndarray]:
    """The bits of each source, as 64-bit words; the same for ever, since results of a card are kept."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(i.name.encode())))
    out = []
    for k, kind in enumerate(i.sources):
        values = _bits(kind, rng)
        limit = i.limits[k] if k < len(i.limits) else 0
        out.append(values % np.uint64(limit) if limit else values)
    return out


# ---- kernels ----

def _load(kind: str, k: int) -> str:
    register, at = f"%s{k}", f"[%a{k}]"
    c = CLASSES[kind]
    if c == "pred":
        return f"ld.global.u32 %w, {at}; setp.ne.u32 {register}, %w, 0;"
    return f"ld.global.{c} {register}, {at};"


def _body(i: Instruction, first: int) -> str:
    """The instruction in a scope of its own; its parameters' numbers begin with `first`."""
    declare = "".join(f".reg .{CLASSES[kind]} %s{k}; .reg .u64 %a{k};" for k, kind in enumerate(i.sources))
    load = "\n".join(f"ld.param.u64 %a{k}, [p{first + k + 1}]; add.u64 %a{k}, %a{k}, %off; {_load(kind, k)}"
                     for k, kind in enumerate(i.sources))
    to = CLASSES[i.to]
    arguments = ", ".join(["%d", *(f"%s{k}" for k in range(len(i.sources))), *([i.last] if i.last else [])])
    store = "selp.u32 %w, 1, 0, %d; st.global.u32 [%out], %w;" if to == "pred" else f"st.global.{to} [%out], %d;"
    return f"""{{
.reg .{to} %d; .reg .u32 %w; .reg .u64 %out; {declare}
ld.param.u64 %out, [p{first}]; add.u64 %out, %out, %off;
{load}
{i.text} {arguments};
{store}
}}"""


def kernel(chosen: list[Instruction], name: str) -> str:
    """An entry that applies instructions: 8 bytes for each source and result, one thread for each tuple."""
    nr = sum(len(i.sources) + 1 for i in chosen)
    firsts = [sum(len(i.sources) + 1 for i in chosen[:n]) for n in range(len(chosen))]
    bodies = "\n".join(_body(i, first) for i, first in zip(chosen, firsts))
    return f"""
.visible .entry {name}({", ".join(f".param .u64 p{k}" for k in range(nr))}) {{
.reg .u32 %t, %c, %n; .reg .u64 %off;
mov.u32 %t, %tid.x; mov.u32 %c, %ctaid.x; mov.u32 %n, %ntid.x; mad.lo.u32 %t, %c, %n, %t; mul.wide.u32 %off, %t, 8;
{bodies}
ret; }}"""


def module(chosen: list[list[Instruction]], arch: int) -> str:
    """PTX with an entry k0, k1, ... for each group of instructions."""
    return f".version 8.1\n.target sm_{arch}\n.address_size 64\n" + "".join(
        kernel(group, f"k{n}") for n, group in enumerate(chosen))


def results(device: object, groups: list[list[Instruction]], arch: int = 90) -> list[np.ndarray]:
    """The bits that each instruction gives for each tuple of its operands; a group's run in one kernel."""
    loaded, out = device.load(module(groups, arch)), []
    for n, group in enumerate(groups):
        buffers = []
        for i in group:
            buffers += [device.put(np.zeros(OPERANDS, np.uint64)), *(device.put(v) for v in operands(i))]
        device.launch(device.function(loaded, f"k{n}"), OPERANDS // 256, 256, *buffers)
        at = 0
        for i in group:
            width = 8 if i.to in ("u8", "s8") else 8 * WIDTH[CLASSES[i.to]]
            out.append(device.get(buffers[at], np.zeros(OPERANDS, np.uint64)) & np.uint64((1 << width) - 1))
            at += len(i.sources) + 1
        device.free(*buffers)
    device.unload(loaded)
    return out
