# SPDX-License-Identifier: Apache-2.0
"""Programs of CuPy, `cupy_cases.py [PREFIX ...]`: each compares what CuPy computes with NumPy. Prints the names of those that passed.

CuPy must compile to PTX: CUPY_COMPILE_WITH_PTX=1, and CUPY_ACCELERATORS empty, since CUB's own kernels are machine code.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable

import cupy as cp
import cupyx
import numpy as np
from named_cases import CASES, case, run

INTEGERS, FLOATS, COMPLEX = "bhilBHIL", "efd", "FD"
TYPES = "?" + INTEGERS + FLOATS + COMPLEX
CLOSE = {"e": 4e-3, "f": 1e-5, "d": 1e-12, "F": 2e-5, "D": 1e-11}


def numbers(code: str, *shape: int, seed: int = 7, low: float = -9, high: float = 9) -> np.ndarray:
    """Small random values of a type; unsigned ones from 0 on."""
    rng, kind = np.random.default_rng([seed, ord(code)]), np.dtype(code).kind
    if kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if kind in "iu":
        return rng.integers(max(low, 0) if kind == "u" else low, high + 1, shape).astype(code)
    values = rng.uniform(low, high, shape)
    return (values + 1j * rng.uniform(low, high, shape) if kind == "c" else values).astype(code)


def same(got: object, want: object, close: float | None = None) -> None:
    """Types and shapes are equal, whole numbers too; the others up to `close`, relative to each and to a tenth of the largest."""
    got, want = cp.asnumpy(got), np.asarray(want)
    assert got.dtype == want.dtype and got.shape == want.shape, (got.dtype, want.dtype, got.shape, want.shape)
    if want.dtype.char not in CLOSE:
        np.testing.assert_array_equal(got, want)
        return
    close = CLOSE[want.dtype.char] if close is None else close
    large = np.abs(want[np.isfinite(want)]).max(initial=0)
    np.testing.assert_allclose(got, want, rtol=close, atol=close * float(large) / 10)


def like_numpy(body: Callable[..., object], *arrays: np.ndarray) -> None:
    """`body(module, *arrays)` gives the same with both modules: one array or several."""
    there = body(cp, *(cp.asarray(a) for a in arrays))
    here = body(np, *(a.copy() for a in arrays))
    if isinstance(here, (tuple, list)):
        assert len(there) == len(here), (len(there), len(here))
        for got, want in zip(there, here):
            same(got, want)
    else:
        same(there, here)


# ---- ufuncs, each in every type that NumPy and CuPy have it for ----

UNARY = """negative positive absolute sign rint floor ceil trunc sqrt cbrt square reciprocal exp exp2 expm1 log log2 log10 log1p sin cos tan
    arcsin arccos arctan sinh cosh tanh arcsinh arccosh arctanh deg2rad rad2deg isnan isinf isfinite signbit logical_not invert conjugate
    modf frexp""".split()
BINARY = """add subtract multiply true_divide floor_divide remainder fmod divmod power float_power maximum minimum fmax fmin arctan2 hypot
    logaddexp logaddexp2 copysign nextafter heaviside equal not_equal less less_equal greater greater_equal bitwise_and bitwise_or bitwise_xor
    left_shift right_shift gcd lcm logical_and logical_or logical_xor""".split()
FROM_ONE, BELOW_ONE = set("sqrt log log2 log10 log1p cbrt reciprocal arccosh".split()), set("arcsin arccos arctanh".split())
DIVIDES = set("true_divide floor_divide remainder fmod divmod".split())
# What CuPy lacks, or computes in fewer bits than the type of its result has.
APART = dict.fromkeys("logical_not logical_and logical_or logical_xor".split(), COMPLEX) | {"float_power": "F"}


def domain(name: str, code: str) -> np.ndarray:
    if name in BELOW_ONE and code != "?":
        return numbers(code, 3, 67, low=-0.98, high=0.98) if code not in INTEGERS else np.zeros((3, 67), code)
    if name in FROM_ONE and code not in COMPLEX:
        return numbers(code, 3, 67, low=1) if code != "?" else np.ones((3, 67), bool)
    return numbers(code, 3, 67)


def unary(name: str, code: str) -> Callable[[], None]:
    def run() -> None:
        values = domain(name, code)
        special = [np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0], code)] if code in FLOATS else []
        for a in [values, *special, np.asfortranarray(values[:, ::-2])]:
            like_numpy(lambda xp, x: getattr(xp, name)(x), a)

    return run


def binary(name: str, code: str) -> Callable[[], None]:
    def run() -> None:
        a, b = numbers(code, 3, 67), numbers(code, 3, 67, seed=8)
        if name in DIVIDES:
            b = np.where(b == 0, np.ones_like(b), b)
        if name in ("left_shift", "right_shift", "power") and code in INTEGERS:
            b = numbers(code, 3, 67, low=0, high=5)
        if name in ("power", "float_power") and code in FLOATS:
            a = np.abs(a) + np.asarray(0.1, code)
        for x, y in ((a, b), (a[:, :1], b[1]), (a[:, ::3], b[::-1, ::3])):
            like_numpy(lambda xp, x, y: getattr(xp, name)(x, y), x, y)

    return run


def has(name: str, code: str, *shapes: int) -> bool:
    try:
        with np.errstate(all="ignore"):
            getattr(np, name)(*(np.ones(n, code) for n in shapes))
    except TypeError:
        return False
    return code not in APART.get(name, "")


def conversions(code: str) -> Callable[[], None]:
    def run() -> None:
        for to in TYPES:
            like_numpy(lambda xp, x, to=to: x.astype(to), numbers(code, 5, 41, low=0))

    return run


def each(name: str, make: Callable[[str, str], Callable[[], None]], codes: str, *shapes: int) -> None:
    """Cases `name:type` for those types that NumPy's function `name`, if `shapes` are given, has."""
    CASES.update({f"{name}:{np.dtype(c)}": make(name, c) for c in codes if not shapes or has(name, c, *shapes)})


for _name in UNARY:
    each(_name, unary, TYPES, 1)
for _name in BINARY:
    each(_name, binary, TYPES, 1, 1)
each("astype", lambda name, code: conversions(code), TYPES)


# ---- reductions and scans ----

REDUCTIONS = "sum prod min max argmin argmax any all mean var std ptp nansum nanprod nanmin nanmax nanmean nanvar count_nonzero".split()
AXES = [None, 0, 1, -1, (0, 2), (0, 1, 2)]
GROWS = set("prod nanprod var std nanvar".split())


def reduction(name: str, code: str) -> Callable[[], None]:
    def run() -> None:
        a, long = numbers(code, 4, 9, 37), numbers(code, 70001, low=0, high=1)
        if name in ("prod", "nanprod") and code not in INTEGERS + "?":
            a = a / np.asarray(6, code)
        if name.startswith("nan") and code in FLOATS:
            a[a > 8] = np.nan
        for axis in AXES if not name.startswith("arg") else AXES[:4]:
            for words in ({}, {"keepdims": True}) if name != "count_nonzero" else ({},):
                like_numpy(lambda xp, x, axis=axis, words=words: xp.asarray(getattr(xp, name)(x, axis=axis, **words)), a)
        like_numpy(lambda xp, x: xp.asarray(getattr(xp, name)(x.T[::2, :, 1::2], axis=1)), a)
        if name not in GROWS and code != "e":
            like_numpy(lambda xp, x: xp.asarray(getattr(xp, name)(x)), long)

    return run


def scan(name: str, code: str) -> Callable[[], None]:
    def run() -> None:
        a = numbers(code, 6, 5, 7, low=1, high=2)
        like_numpy(lambda xp, x: getattr(xp, name)(x), a[:2])
        for axis in (0, 1, 2):
            like_numpy(lambda xp, x, axis=axis: getattr(xp, name)(x, axis=axis), a)
        if name == "cumsum":
            like_numpy(lambda xp, x: xp.cumsum(x), numbers(code, 5000, low=0, high=1))

    return run


def scatter(name: str, code: str) -> Callable[[], None]:
    def run() -> None:
        a, b, at = numbers(code, 7, 3), numbers(code, 200, 3, seed=9), numbers("l", 200, low=0, high=6)
        there = cp.asarray(a)
        getattr(cupyx, name)(there, cp.asarray(at), cp.asarray(b))
        {"scatter_add": np.add, "scatter_max": np.maximum, "scatter_min": np.minimum}[name].at(a, at, b)
        same(there, a, close=0.05 if code == "e" else None)

    return run


for _name in REDUCTIONS:
    each(_name, reduction, TYPES, 2)
for _name in ("cumsum", "cumprod", "nancumsum", "nancumprod"):
    each(_name, scan, INTEGERS + "fd" + COMPLEX)
each("scatter_add", scatter, "iILefd")
for _name in ("scatter_max", "scatter_min"):
    each(_name, scatter, "iILlf")  # of doubles CuPy compares the first 24 bits


# ---- shapes, views and choices ----

SOME = "?bBilefdD"


def method(name: str, body: Callable[..., object], codes: str, *shapes: tuple[int, ...]) -> None:
    """Cases `name:type`: `body(module, *arrays)` of random arrays of these shapes."""

    def make(_: str, code: str) -> Callable[[], None]:
        return lambda: like_numpy(body, *(numbers(code, *shape, seed=n) for n, shape in enumerate(shapes)))

    each(name, make, codes)


def changes(name: str, body: Callable[..., object], codes: str, *shapes: tuple[int, ...]) -> None:
    """As `method`, for what changes its first array."""
    method(name, lambda xp, x, *others: (body(xp, x, *others), x)[1], codes, *shapes)


def moved(xp: object, x: object) -> tuple[object, ...]:
    return xp.roll(x, 2, 0), xp.flip(x, 1), xp.rot90(x), xp.moveaxis(x[..., None], 2, 0), xp.swapaxes(x, 0, 1)


def chosen_by_arrays(xp: object, x: object) -> tuple[object, ...]:
    return (x[xp.array([2, 0]), xp.array([1, 5])], x[xp.ix_(xp.array([1, 3]), xp.array([0, 2]))], x[1:3, xp.array([[4], [0]])],
            xp.take(x, xp.array([3, 0, 3]), 1), x.take(xp.array([[1, 5], [7, 2]])))  # fmt: skip


def set_views(xp: object, x: object) -> None:
    x[1:, ::2] = 7
    x[:, 1] = x[:, 0]
    x[::-1, -1] += x[0, 0]


def set_by_arrays(xp: object, x: object, y: object) -> None:
    x[xp.array([3, 1])] = y
    x[x > 5] = 0
    x[xp.array([0, 2]), xp.array([5, 4])] = 1


def normal(xp: object, x: object) -> tuple[object, ...]:
    return xp.linalg.norm(x), xp.linalg.norm(x, 1, axis=0), xp.linalg.norm(x, xp.inf, axis=1)


def similar(xp: object, x: object) -> tuple[object, ...]:
    return xp.isclose(x, x * (1 + 1e-9)), xp.asarray(xp.allclose(x, x + 1)), xp.asarray(xp.array_equal(x, x))


def sought(xp: object, x: object) -> tuple[object, ...]:
    return xp.searchsorted(xp.arange(-9, 9, 2).astype(x.dtype), x), xp.digitize(x, xp.array([-5, 0, 4]))


method("outer", lambda xp, x, y: xp.add.outer(x, y), SOME, (5, 3), (7,))
method("reduceat", lambda xp, x: xp.add.reduceat(x, [0, 4, 2, 9]), "ilfd", (12,))
method("diff", lambda xp, x: xp.diff(x, n=2, axis=0), "ilfdD", (9, 4))
method("gradient", lambda xp, x: xp.gradient(x), "fdD", (9, 4))
method("trace", lambda xp, x: xp.trace(x, offset=1), "ilfdD", (5, 6))
method("clip", lambda xp, x: xp.clip(x, 1, 5), "bBilefd", (40,))
method("round", lambda xp, x: xp.round(x, 1), "ilfd", (40,))
method("angle", lambda xp, x: (xp.angle(x), x.real, x.imag, abs(x)), "FD", (40,))
method("nan_to_num", lambda xp, x: xp.nan_to_num(x / (x > 0)), "fd", (40,))
method("average", lambda xp, x, y: xp.average(x, axis=1, weights=abs(y) + 1), "fd", (6, 7), (6, 7))
method("views", lambda xp, x: (x.T[1:, ::-2] + x[::2].reshape(-1, 6)[:, :2].sum(), x[..., None] * 2, x.ravel()[::5] - 1), "lfD", (8, 6))
method("broadcasting", lambda xp, x, y: (x[:, None, :] * y[None], xp.broadcast_to(x[0], (4, 6)) + x), "lefD", (4, 6), (3, 6))
method("joining", lambda xp, x, y: (xp.concatenate([x, y], 1), xp.stack([x, y], 2), xp.vstack([x, y])), SOME, (4, 6), (4, 6))
method("splitting", lambda xp, x: xp.split(x, 3, 1) + xp.array_split(x, 3), SOME, (4, 6))
method("repeating", lambda xp, x: (xp.repeat(x, 3, 0), xp.repeat(x, [1, 0, 2, 4], 0), xp.tile(x, (2, 1, 2))), SOME, (4, 6))
method("moving", moved, SOME, (4, 6))
method("padding", lambda xp, x: tuple(xp.pad(x, 2, how) for how in ("constant", "edge", "reflect", "wrap")), "ilfdD", (4, 6))
method("triangles", lambda xp, x: (xp.tril(x), xp.triu(x, 1), xp.diag(x), xp.diagflat(x[0]), xp.diagonal(x, 1)), SOME, (5, 6))
method("where", lambda xp, x, y: (xp.where(x > y, x, y), xp.select([x > 3, y > 3], [x, y], 1)), "bBilefd", (9, 8), (8,))
method("choose", lambda xp, x: xp.choose(xp.array([0, 1, 1, 0, 3, 2]), x), SOME, (4, 6))
method("masks", lambda xp, x: (x[x > 2], xp.compress(xp.array([True, False, True]), x, 0), xp.extract(x < 4, x)), "bBilefd", (4, 60))
method("nonzero", lambda xp, x: (*xp.nonzero(x > 0), xp.argwhere(x), xp.flatnonzero(x)), "?bBilefd", (4, 60))
method("indexing", chosen_by_arrays, SOME, (4, 6))
method("packed_bits", lambda xp, x: (xp.packbits(x), xp.unpackbits(xp.packbits(x))), "?B", (77,))
method("searching", sought, "ilfd", (50,))
method("bincount", lambda xp, x: (xp.bincount(abs(x)), xp.bincount(abs(x), minlength=40)), "bil", (500,))
method("histogram", lambda xp, x: xp.histogram(x, bins=7, range=(-9, 9)), "ilfd", (500,))
method("interp", lambda xp, x: xp.interp(x, xp.arange(-5.0, 5), xp.arange(10.0) ** 2), "fd", (50,))
method("polyval", lambda xp, x: xp.polyval(xp.array([1, -2, 3]), x), "ildD", (50,))
method("cross", lambda xp, x, y: (xp.cross(x, y), xp.kron(x[:2], y[:2])), "ilfd", (6, 3), (6, 3))
method("norms", normal, "fdD", (9, 8))
method("closeness", similar, "fdD", (9, 8))
changes("at", lambda xp, x, y: xp.add.at(x, xp.array([1, 1, 3]), y), "iILfd", (5,), (3,))
changes("set_views", set_views, "bBilefdD", (4, 6))
changes("set_by_arrays", set_by_arrays, "bBilefd", (4, 6), (6,))
changes("put", lambda xp, x: xp.put(x, xp.array([3, 9, 0]), xp.array([1, 2, 3]).astype(x.dtype)), "bBilefdD", (4, 6))
changes("putmask", lambda xp, x, y: xp.putmask(x, x > 1, y), "bBilefd", (4, 6), (4, 6))
changes("place", lambda xp, x, y: xp.place(x, x > 1, y), "bBilefd", (4, 6), (7,))
changes("fill_diagonal", lambda xp, x: xp.fill_diagonal(x, 3), "bBilefdD", (5, 5))


@case
def creation() -> None:
    for make in (lambda xp: xp.arange(3, 50, 7), lambda xp: xp.linspace(0, 1, 33), lambda xp: xp.logspace(0, 3, 9), lambda xp: xp.eye(5, 6, 1),
                 lambda xp: xp.full((3, 4), 2.5), lambda xp: xp.tri(4), lambda xp: xp.identity(4, "F"), lambda xp: xp.indices((3, 4)),
                 lambda xp: xp.ones((0, 3)).sum(0), lambda xp: xp.meshgrid(xp.arange(3), xp.arange(4)), lambda xp: xp.vander(xp.arange(4.0)),
                 lambda xp: xp.asarray(xp.unravel_index(xp.array([7, 11]), (3, 4))),
                 lambda xp: xp.fromfunction(lambda i, j: i * j, (3, 4))):  # fmt: skip
        like_numpy(make)


@case
def special_functions() -> None:
    import cupyx.scipy.special as special

    x = np.linspace(0.1, 5, 101)
    for name, named in (("erf", "erf"), ("erfc", "erfc"), ("gamma", "gamma"), ("gammaln", "lgamma")):
        same(getattr(special, name)(cp.asarray(x)), np.array([getattr(math, named)(v) for v in x]))
    same(special.ndtr(cp.asarray(x)), np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x]))
    same(special.expit(cp.asarray(x)), 1 / (1 + np.exp(-x)))
    same(special.erfinv(special.erf(cp.asarray(x[:50]))), x[:50], close=1e-6)
    same(cp.i0(cp.asarray(x)), np.i0(x))
    same(cp.sinc(cp.asarray(x)), np.sinc(x))


@case
def structures() -> None:
    record = np.dtype([("a", "i4"), ("b", "f8"), ("c", "i1", 3)], align=True)
    rows = np.zeros(9, record)
    rows["a"], rows["b"] = np.arange(9), np.arange(9) / 3
    there = cp.asarray(rows)
    there["a"] *= 2
    rows["a"] *= 2
    assert (there.get() == rows).all() and float(there["b"].sum()) == rows["b"].sum()


@case
def large_arrays() -> None:
    n = np.arange(3_000_000, dtype=np.int32)
    a, cube = cp.asarray(n), n.reshape(3, 1000, 1000)
    assert int(a.sum()) == int(n.sum(dtype=np.int64)) and int((a * 7 % 1000).max()) == 999 and int(a[::-3].argmin()) == len(n[::-3]) - 1
    same(a.reshape(cube.shape).transpose(2, 0, 1).sum(1), cube.transpose(2, 0, 1).sum(1))


if __name__ == "__main__":
    import cupy_kernel_cases  # noqa: F401

    warnings.simplefilter("ignore")  # NumPy's, of divisions by zero
    with np.errstate(all="ignore"):
        run(sys.argv[1:])
