# SPDX-License-Identifier: Apache-2.0
"""Like exact.py: instructions on parts of registers, and approximate ones, whose results lie in a range."""

from __future__ import annotations

import math

from exact import FORMATS, decode, field_extent, is_nan, signed
from instructions import Instruction

MASK = 0xffffffff


def _permute(i: Instruction, v: list[int]) -> int:
    mode, at = i.text.split(".")[-1], v[2] & 3
    source = [(v[1] << 32 | v[0]) >> 8 * k & 255 for k in range(8)]
    pick = {"f4e": [at + k for k in range(4)], "b4e": [(at - k) % 8 for k in range(4)], "rc8": [at] * 4,
            "ecl": [max(at, k) for k in range(4)], "ecr": [min(at, k) for k in range(4)],
            "rc16": [at % 2 * 2, at % 2 * 2 + 1] * 2}.get(mode, [v[2] >> 4 * k & 15 for k in range(4)])
    values = [source[p & 7] if p < 8 else 255 * (source[p & 7] >> 7) for p in pick]
    return sum(b << 8 * k for k, b in enumerate(values))


def _extract(i: Instruction, v: list[int]) -> int:
    kind = i.sources[0]
    bits, at, n = int(kind[1:]), field_extent(v[1], kind), field_extent(v[2], kind)
    x = signed(v[0], bits) if kind[0] == "s" else v[0]
    if not n:
        return 0
    # bits beyond the register are the field's own sign, which is the register's where the field reaches its end
    field = x >> at & ((1 << n) - 1)
    if kind[0] == "s" and field >> (n - 1):
        field -= 1 << n
    return field & ((1 << bits) - 1)


def _parts(v: int, nr: int, kind: str) -> list[int]:
    bits = 32 // nr
    return [signed(v >> bits * k, bits) if kind[0] == "s" else v >> bits * k & ((1 << bits) - 1) for k in range(nr)]


def _video(i: Instruction, v: list[int]) -> int:
    words = i.text.split(".")
    nr, word = (int(words[0][-1]), words[0][1:-1]) if words[0][-1] in "24" else (1, words[0][1:])
    kinds = (words[1], words[2]) if word == "set" else (words[2], words[3])
    operate = {"add": lambda a, b: a + b, "sub": lambda a, b: a - b, "min": min, "max": max,
               "absdiff": lambda a, b: abs(a - b), "avrg": lambda a, b: (a + b + (a + b >= 0)) >> 1,
               "set": {"lt": int.__lt__, "eq": int.__eq__, "ge": int.__ge__}.get(words[-1])}[word]
    bits = 32 // nr
    return sum((int(operate(a, b)) & ((1 << bits) - 1)) << bits * k
               for k, (a, b) in enumerate(zip(_parts(v[0], nr, kinds[0]), _parts(v[1], nr, kinds[1]))))


def _mask(i: Instruction, v: list[int]) -> int:
    clamp = "clamp" in i.text
    at, n = (min(x, 32) if clamp else x & 31 for x in v[:2])
    if i.text.startswith("bmsk"):
        return ((1 << n) - 1) << at & MASK
    low = v[0] & ((1 << n) - 1)
    return (signed(low, n) if n and i.sources[0] == "s32" else low) & MASK


def _nth(i: Instruction, v: list[int]) -> int:
    n = signed(v[2], 32)
    order = range(v[1], 32) if n > 0 else range(v[1], -1, -1)
    found = [k for k in order if v[0] >> k & 1]
    if n == 0:
        return v[1] if v[0] >> v[1] & 1 else MASK
    return found[abs(n) - 1] if len(found) >= abs(n) else MASK


def _dot(i: Instruction, v: list[int]) -> int:
    half, ta, tb = i.text.split(".")[1:]
    a, b = _parts(v[0], 2, ta), _parts(v[1], 4, tb)
    return (sum(p * q for p, q in zip(a, b[2:] if half == "hi" else b[:2])) + v[2]) & MASK


def _property(i: Instruction, v: list[int]) -> int:
    name, kind = i.text.split(".")[1:]
    fraction, exponent = FORMATS[kind]
    e, f = v[0] >> fraction & ((1 << exponent) - 1), v[0] & ((1 << fraction) - 1)
    top = (1 << exponent) - 1
    return int({"finite": e < top, "infinite": e == top and not f, "number": e < top or not f,
                "notanumber": e == top and f > 0, "normal": 0 < e < top or e == f == 0, "subnormal": e == 0 and f > 0}[name])


def _select(i: Instruction, v: list[int]) -> int:
    c = decode(v[2], "f32") if i.sources[2] == "f32" else signed(v[2], 32)
    return v[0] if c >= 0 else v[1]  # -0 and flushed numbers are not below 0, NaN is


def _flushed_select(i: Instruction, v: list[int]) -> int:
    subnormal = ".ftz" in i.text and not v[2] >> 23 & 255
    return v[0] if subnormal else _select(i, v)


def bits(i: Instruction, v: list[int]) -> int | None:
    """The result, for what exact.py leaves out; None: it leaves no bits to say."""
    word = i.text.split(".")[0]
    if word[0] == "v":
        return _video(i, v)
    table = {"prmt": _permute, "bfe": _extract, "szext": _mask, "bmsk": _mask, "fns": _nth, "dp2a": _dot,
             "testp": _property, "slct": _flushed_select}
    return table[word](i, v) if word in table else None


def _real(word: str, x: list[float]) -> float:
    """The function itself; NaN where it has no value."""
    try:
        return {"rcp": lambda: math.copysign(math.inf, x[0]) if x[0] == 0 else 1 / x[0],
                "sqrt": lambda: math.sqrt(x[0]), "rsqrt": lambda: math.inf if x[0] == 0 else 1 / math.sqrt(x[0]),
                "div": lambda: x[0] / x[1], "ex2": lambda: 2.0 ** x[0], "lg2": lambda: math.log2(x[0]),
                "sin": lambda: math.sin(x[0]), "cos": lambda: math.cos(x[0]), "tanh": lambda: math.tanh(x[0])}[word]()
    except OverflowError:
        return math.inf
    except (ValueError, ZeroDivisionError):
        return math.nan


def near(i: Instruction, v: list[int], got: int) -> bool | None:
    """Whether an approximate result lies where the manual says; None: no approximate one, or it says nothing of these."""
    kind, word = i.to, i.text.split(".")[0]
    if not (i.relative or i.absolute) or kind.endswith("x2"):
        return None
    x = [float(decode(b, kind)) for b in v]
    y, want = float(decode(got, kind)), _real(word, x)
    least, most = {"f32": (2.0 ** -126, 2.0 ** 126), "f64": (2.0 ** -1022, 2.0 ** 1020), "f16": (2.0 ** -14, 65000.0),
                   "bf16": (2.0 ** -126, 2.0 ** 126)}[kind]
    if any(is_nan(a) or math.isinf(a) or (a and abs(a) < least) for a in x) or is_nan(want):
        return None
    if word in ("sin", "cos") and abs(x[0]) > math.pi or word == "div" and abs(x[1]) > most:
        return None
    if abs(want) > most or (want and abs(want) < 2 * least):
        return None
    return abs(y - want) <= i.relative * abs(want) + i.absolute
