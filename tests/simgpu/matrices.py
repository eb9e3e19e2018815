# SPDX-License-Identifier: Apache-2.0
"""All forms of mma.sync that the simulated GPU knows, kernels that run them, and what they must give."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from matrix_layouts import BITS, collect, registers, spread, value

SETS = 3    # of operands for each form: ordinary, wide exponents, some of them special
_SPECIAL = {"f16": (0, 0x8000, 1, 0x83ff, 0x7bff, 0x7c00, 0xfc00, 0x7e01), "bf16": (0, 0x8000, 1, 0x807f, 0x7f7f, 0x7f80, 0xff80, 0x7fc1),
            "tf32": (0, 1 << 31, 1 << 13, 0x7f7fe000, 0x7f800000, 0xff800000, 0x7fc02000),
            "f32": (0, 1 << 31, 1, 0x7f7fffff, 0x7f800000, 0xff800000, 0x7fc00001), "e4m3": (0, 128, 1, 127, 126, 255),
            "e5m2": (0, 128, 1, 0x7b, 0x7c, 0xfc, 0x7e),
            "f64": (0, 1 << 63, 1, 0x7fefffffffffffff, 0x7ff << 52, 0xfff << 52, 0x7ff8 << 48 | 1)}
_FRACTION = {"f16": (10, 15), "bf16": (7, 127), "tf32": (23, 127), "f32": (23, 127), "e4m3": (3, 7), "e5m2": (2, 15), "f64": (52, 1023)}


@dataclass(frozen=True)
class Form:
    """One mma: types of A, B and of C and D, and what else its words say."""

    shape: str
    a: str
    b: str
    c: str
    last: str = ""     # behind the types
    finite: bool = False
    since: int = 80    # compute capability

    @property
    def text(self) -> str:
        return f"mma.sync.aligned.{self.shape}.row.col{'.satfinite' * self.finite}.{self.c}.{self.a}.{self.b}.{self.c}{self.last}"

    @property
    def sizes(self) -> tuple[int, int, int]:
        m, _, rest = self.shape[1:].partition("n")
        n, _, k = rest.partition("k")
        return int(m), int(n), int(k)


def forms(arch: int) -> list[Form]:
    """Those that a card of this compute capability has."""
    out = [Form(s, "f16", "f16", c, since=75 if s == "m16n8k8" else 80) for s in ("m16n8k8", "m16n8k16") for c in ("f16", "f32")]
    out += [Form(s, "bf16", "bf16", "f32") for s in ("m16n8k8", "m16n8k16")] + [Form(s, "tf32", "tf32", "f32") for s in ("m16n8k4", "m16n8k8")]
    out += [Form(s, "f64", "f64", "f64", since=n) for s, n in (("m8n8k4", 80), ("m16n8k4", 90), ("m16n8k8", 90), ("m16n8k16", 90))]
    out += [Form(s, a, b, "s32", finite=f) for s in ("m8n8k16", "m16n8k16", "m16n8k32") for a in ("s8", "u8") for b in ("s8", "u8")
            for f in (False, True)]
    out += [Form(s, a, b, "s32", finite=f) for s in ("m8n8k32", "m16n8k32", "m16n8k64") for a, b, f in
            (("s4", "s4", False), ("u4", "s4", True), ("u4", "u4", False))]
    out += [Form(s, "b1", "b1", "s32", f".{op}.popc") for s in ("m8n8k128", "m16n8k128", "m16n8k256") for op in ("xor", "and")]
    out += [Form("m16n8k32", a, b, "f32", since=89) for a in ("e4m3", "e5m2") for b in ("e4m3", "e5m2")]
    return [f for f in out if f.since <= arch]


# ---- operands ----

def _elements(kind: str, shape: tuple[int, int], which: int, rng: np.random.Generator) -> np.ndarray:
    bits = BITS[kind]
    raw = rng.integers(0, 1 << min(bits, 62), shape, dtype=np.uint64)
    if kind == "s32":  # near the limits in the last set, where the sum may leave them
        return raw if which < 2 else np.where(rng.integers(0, 2, shape) == 1, np.uint64(0x7fffff00), np.uint64(0x80000010))
    if kind not in _FRACTION:
        return raw
    fraction, bias = _FRACTION[kind]
    spread_of = 3 if which == 0 else min(bias - 1, 12)
    exponent = rng.integers(bias - spread_of, bias + min(spread_of, 6), shape).astype(np.uint64)
    sign = rng.integers(0, 2, shape).astype(np.uint64) << np.uint64(bits - 1)
    out = sign | exponent << np.uint64(fraction) | raw & np.uint64((1 << fraction) - 1)
    special = np.array(_SPECIAL[kind], np.uint64)
    if which == 2:
        out = np.where(rng.integers(0, 24, shape) == 0, special[rng.integers(0, len(special), shape)], out)
    return out


def operands(form: Form, which: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The bits of A, B and C; the same for ever, since results of a card are kept."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(form.text.encode()) + which))
    m, n, k = form.sizes
    return _elements(form.a, (m, k), which, rng), _elements(form.b, (k, n), which, rng), _elements(form.c, (m, n), which, rng)


# ---- kernels ----

def _body(form: Form, first: int) -> str:
    """Each word of a lane's registers has 8 bytes; A's come first, then B's and C's."""
    width = 64 if form.a == "f64" else 32
    counts = {role: registers(role, form.shape, getattr(form, role)) for role in "abc"}
    names = {role: [f"%{role}{k}" for k in range(counts[role])] for role in "abc"} | {"d": [f"%d{k}" for k in range(counts["c"])]}
    vectors = ", ".join("{" + ", ".join(names[role]) + "}" for role in "dabc")
    loads = [r for role in "abc" for r in names[role]]
    lines = [f".reg .b{width} {', '.join(names['d'] + loads)}; .reg .u64 %in, %out;",
             f"ld.param.u64 %in, [p{first}]; mad.wide.u32 %in, %l, {8 * len(loads)}, %in;",
             f"ld.param.u64 %out, [p{first + 1}]; mad.wide.u32 %out, %l, {8 * counts['c']}, %out;",
             *(f"ld.global.b{width} {r}, [%in+{8 * k}];" for k, r in enumerate(loads)), f"{form.text} {vectors};",
             *(f"st.global.b{width} [%out+{8 * k}], {r};" for k, r in enumerate(names["d"]))]
    return "{\n" + "\n".join(lines) + "\n}\n"


def module(groups: list[list[Form]], arch: int = 90) -> str:
    """PTX with an entry k0, k1, ... for each group of forms; a block for each set of operands."""
    text = f".version 8.4\n.target sm_{arch}\n.address_size 64\n"
    for n, group in enumerate(groups):
        parameters = ", ".join(f".param .u64 p{k}" for k in range(2 * len(group)))
        text += (f".visible .entry k{n}({parameters}) {{\n.reg .u32 %l, %b;\nmov.u32 %l, %tid.x; mov.u32 %b, %ctaid.x; "
                 f"mad.lo.u32 %l, %b, 32, %l;\n{''.join(_body(f, 2 * k) for k, f in enumerate(group))}ret; }}\n")
    return text


def _packed(form: Form) -> np.ndarray:
    sets = [operands(form, which) for which in range(SETS)]
    return np.stack([np.hstack([spread(role, form.shape, getattr(form, role), m) for role, m in zip("abc", one)]) for one in sets])


def results(device: object, groups: list[list[Form]], arch: int = 90) -> dict[str, np.ndarray]:
    """By the form's text, the bits of D for each set."""
    loaded, out = device.load(module(groups, arch)), {}
    for n, group in enumerate(groups):
        likes = [np.zeros((SETS, 32, registers("c", f.shape, f.c)), np.uint64) for f in group]
        buffers = [device.put(array) for f, like in zip(group, likes) for array in (_packed(f), like)]
        device.launch(device.function(loaded, f"k{n}"), SETS, 32, *buffers)
        for k, (form, like) in enumerate(zip(group, likes)):
            words = device.get(buffers[2 * k + 1], like)
            out[form.text] = np.stack([collect(form.shape, form.c, words[which]) for which in range(SETS)])
        device.free(*buffers)
    device.unload(loaded)
    return out


# ---- what is right ----

def _fused(terms: list[tuple[float, float]], c: float) -> float:
    """c, and then for each pair in order one product and sum, rounded together."""
    for x, y in terms:
        if not all(map(math.isfinite, (x, y, c))):
            c = x * y + c
            continue
        exact = Fraction(x) * Fraction(y) + Fraction(c)
        try:
            c = float(exact) if exact else x * y + c
        except OverflowError:
            c = math.inf if exact > 0 else -math.inf
    return c


def _whole(form: Form, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """D of whole numbers."""
    if "xor" in form.last:  # of bits: how many differ
        return (a[:, :, None] != b[None]).sum(axis=1) + c
    total = a @ b + c
    return np.clip(total, -(1 << 31), (1 << 31) - 1) if form.finite else (total + (1 << 31)) % (1 << 32) - (1 << 31)


def exact(form: Form, pairs: list[tuple[float, float]], c: float) -> tuple[float, float]:
    """The result before it is rounded to D's type, and the largest addend."""
    addends = [x * y for x, y in pairs] + [c]
    if form.c == "f64":
        return _fused(pairs, c), max(map(abs, addends))
    if not all(map(math.isfinite, addends)):
        return sum(addends), math.nan
    return math.fsum(addends), max(map(abs, addends))


def near(got: float, want: float, largest: float, kind: str, slack: float) -> bool:
    """Half a unit of the last place of D's type away at most, and `slack` of the largest addend; f64 is rounded already."""
    if want != want or largest != largest:  # of infinities and NaNs
        return got == want or (got != got and want != want)
    if kind == "f64":
        return got == want or abs(got - want) <= slack * largest
    fraction, bias, top = (10, 15, 65520.0) if kind == "f16" else (23, 127, 2.0 ** 128 * (1 - 2.0 ** -25))
    if abs(want) >= top or math.isinf(got):
        return got == math.copysign(math.inf, want) if abs(want) >= top else abs(want) + slack * largest >= top * (1 - 2.0 ** -fraction)
    unit = math.ldexp(1.0, max(math.frexp(want)[1] - 1, 1 - bias) - fraction)
    return abs(got - want) <= unit / 2 * (1 + 1e-6) + slack * largest


def _meaning(bits: np.ndarray, kind: str) -> np.ndarray:
    """What each element means; the few patterns of short types are decoded once."""
    patterns, at = np.unique(bits, return_inverse=True)
    return np.array([value(int(x), kind) for x in patterns])[at.reshape(bits.shape)]


def slack_of_a_card(form: Form) -> float:
    """How far its sum may be from the exact one, in largest addends: it adds in fixed point and truncates (ptx_mma.c)."""
    bits = 50 if form.c == "f64" else 12 if form.a in ("e4m3", "e5m2") else 10 if form.c == "f16" else 22
    return (form.sizes[2] + 2) * 2.0 ** -bits


def wrong(form: Form, got: np.ndarray, slack: float | None = None) -> list[str]:
    """Which elements of D differ from the exact results by more than they may: `slack` is of the largest addend."""
    slack = (0.0 if form.c == "f64" else 2.0 ** -46) if slack is None else slack
    out = []
    for which in range(SETS):
        a, b, c = (_meaning(bits, kind) for bits, kind in zip(operands(form, which), (form.a, form.b, form.c)))
        d = _meaning(got[which], form.c)
        if form.c == "s32":
            bad = np.argwhere(d != _whole(form, a, b, c)).tolist()
        else:
            bad = [at for at in np.ndindex(d.shape) if not near(
                float(d[at]), *exact(form, list(zip(a[at[0]].tolist(), b[:, at[1]].tolist())), float(c[at])), form.c, slack)]
        out += [f"{form.text} set {which} {tuple(at)}: {d[tuple(at)]!r}" for at in bad]
    return out
