# SPDX-License-Identifier: Apache-2.0
"""What PTX's manual says an instruction gives, computed with whole numbers and fractions: slow, and right by inspection."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

from instructions import Instruction

FORMATS = {"f16": (10, 5), "bf16": (7, 8), "f32": (23, 8), "f64": (52, 11)}  # bits of fraction and exponent
Number = Fraction | float  # a float only for infinities, NaN and -0


def bits_of(kind: str) -> int:
    return {"pred": 1, "f16x2": 32, "bf16x2": 32, "u16x2": 32, "s16x2": 32, "bf16": 16}.get(kind) or int(kind[1:])


def signed(v: int, bits: int) -> int:
    v &= (1 << bits) - 1
    return v - (1 << bits) if v >> (bits - 1) else v


def integer(v: int, kind: str) -> int:
    return signed(v, bits_of(kind)) if kind[0] == "s" else v & ((1 << bits_of(kind)) - 1)


def decode(v: int, kind: str) -> Number:
    """The number of these bits."""
    fraction, exponent = FORMATS[kind]
    e, f = v >> fraction & ((1 << exponent) - 1), v & ((1 << fraction) - 1)
    negative = v >> (fraction + exponent) & 1
    if e == (1 << exponent) - 1:
        return math.nan if f else -math.inf if negative else math.inf
    bias = (1 << (exponent - 1)) - 1
    x = Fraction(f + (1 << fraction if e else 0)) * Fraction(2) ** (max(e, 1) - bias - fraction)
    return -x if negative and x else -0.0 if negative else x


def whole(x: Fraction, mode: str) -> int:
    """A fraction rounded to an integer: rn (ties to even), rz, rm (down), rp (up)."""
    low = math.floor(x)
    if mode == "rz":
        return math.trunc(x)
    if mode == "rn":
        return round(x)
    return low if mode == "rm" or low == x else low + 1


def encode(x: Number, kind: str, mode: str = "rn", ftz: bool = False) -> int:
    """The bits of a number rounded to a format."""
    fraction, exponent = FORMATS[kind]
    top = (1 << exponent) - 1
    if isinstance(x, float) and math.isnan(x):
        return -1
    negative = math.copysign(1, x) < 0 if isinstance(x, float) else x < 0
    sign = negative << (fraction + exponent)
    if isinstance(x, float) and math.isinf(x):
        return sign | top << fraction
    x = Fraction(x)
    if x == 0:
        return sign
    bias, a = (1 << (exponent - 1)) - 1, abs(x)
    e = a.numerator.bit_length() - a.denominator.bit_length()
    e = max(e if Fraction(2) ** e <= a else e - 1, 1 - bias)
    toward = {"rm": "rp", "rp": "rm"}.get(mode, mode) if negative else mode
    v = ((e + bias - 1) << fraction) + whole(a * Fraction(2) ** (fraction - e), toward)
    if v >= top << fraction:
        v = (top << fraction) - (toward in ("rz", "rm"))
    if ftz and v < 1 << fraction:
        v = 0
    return sign | v


def is_nan(x: Number) -> bool:
    return isinstance(x, float) and math.isnan(x)


def _flushed(v: int, kind: str, ftz: bool) -> int:
    fraction, exponent = FORMATS[kind]
    return v & 1 << (fraction + exponent) if ftz and not v >> fraction & ((1 << exponent) - 1) else v


def _sign(x: Number) -> float:
    return math.copysign(1, x) if isinstance(x, float) else -1.0 if x < 0 else 1.0


def _special(x: Number) -> bool:
    return isinstance(x, float) and x != 0


def add(x: Number, y: Number, mode: str) -> Number:
    if _special(x) or _special(y):
        return float(x if _special(x) else 0) + float(y if _special(y) else 0)
    s = Fraction(x) + Fraction(y)
    if s:
        return s
    if x == 0 and y == 0 and _sign(x) == _sign(y):
        return x
    return -0.0 if mode == "rm" else Fraction(0)


def multiply(x: Number, y: Number) -> Number:
    if _special(x) or _special(y):
        return (float(x) if _special(x) else _sign(x) * (x != 0)) * (float(y) if _special(y) else _sign(y) * (y != 0))
    p, sign = Fraction(x) * Fraction(y), _sign(x) * _sign(y)
    return p if p or sign > 0 else -0.0


def divide(x: Number, y: Number) -> Number:
    if is_nan(x) or is_nan(y) or (x == 0 and y == 0) or (math.isinf(x) and math.isinf(y)):
        return math.nan
    sign = _sign(x) * _sign(y)
    if math.isinf(y) or x == 0:
        return -0.0 if sign < 0 else Fraction(0)
    if y == 0 or math.isinf(x):
        return sign * math.inf
    return Fraction(x) / Fraction(y)


def root(x: Number) -> Number:
    """A fraction so near the square root that it rounds as the root does."""
    if is_nan(x) or x == 0 or x == math.inf:
        return x
    if x < 0:
        return math.nan
    scale = 1 << 1200
    r = math.isqrt(int(x * scale * scale))
    return Fraction(r, scale) if Fraction(r, scale) ** 2 == x else Fraction(2 * r + 1, 2 * scale)


def _float_result(i: Instruction, v: list[int]) -> int | None:
    words, kind = i.text.split("."), i.to.removesuffix("x2")
    mode = next((w for w in words if w in ("rn", "rz", "rm", "rp")), "rn")
    ftz = "ftz" in words
    x = [decode(_flushed(b, kind, ftz), kind) for b in v]
    word = words[0]
    if word in ("min", "max"):
        return _extreme(words, x, kind, ftz)
    if word == "add" or word == "sub":
        r = add(x[0], x[1] if word == "add" else multiply(x[1], Fraction(-1)), mode)
    elif word == "mul":
        r = multiply(x[0], x[1])
    elif word == "fma":
        p = multiply(x[0], x[1])
        r = add(p, x[2], mode)
    elif word == "div" or word == "rcp":
        r = divide(*x) if word == "div" else divide(Fraction(1), x[0])
    elif word == "sqrt":
        r = root(x[0])
    elif word in ("neg", "abs"):
        sign = 1 << sum(FORMATS[kind])
        b = _flushed(v[0], kind, ftz)
        return -1 if is_nan(x[0]) else b ^ sign if word == "neg" else b & ~sign
    elif word == "copysign":
        sign = 1 << sum(FORMATS[kind])
        return -1 if is_nan(x[1]) else v[0] & sign | v[1] & ~sign
    else:
        return None
    if "sat" in words:
        r = Fraction(0) if is_nan(r) else min(max(r, 0), 1)
        r = Fraction(0) if r == 0 else r
    out = encode(r, kind, mode, ftz)
    return 0 if "relu" in words and out >= 0 and out >> sum(FORMATS[kind]) else out


def _extreme(words: list[str], x: list[Number], kind: str, ftz: bool) -> int:
    sign = _sign(x[0]) * _sign(x[1])
    xor = "xorsign" in words
    if xor:
        x = [v if is_nan(v) else abs(v) for v in x]
    numbers = [v for v in x if not is_nan(v)]
    if not numbers or ("NaN" in words and len(numbers) < 2):
        return -1
    r = sorted(numbers, key=lambda v: (v, _sign(v)))[0 if words[0] == "min" else -1]
    out = encode(r, kind, "rn", ftz)
    if xor and len(numbers) < 2:
        return -2  # the sign of a NaN takes part: the manual does not say how
    return out | 1 << sum(FORMATS[kind]) if xor and sign < 0 else out


_COMPARE: dict[str, Callable[[Number, Number], bool]] = {
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "lt": lambda a, b: a < b, "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b, "lo": lambda a, b: a < b, "ls": lambda a, b: a <= b,
    "hi": lambda a, b: a > b, "hs": lambda a, b: a >= b}


def _compared(i: Instruction, v: list[int]) -> bool:
    words, kind = i.text.split("."), i.sources[0].removesuffix("x2")
    c = words[1]
    if kind not in FORMATS:
        return _COMPARE[c](integer(v[0], kind), integer(v[1], kind))
    a, b = (decode(_flushed(x, kind, "ftz" in words), kind) for x in v[:2])
    unordered = is_nan(a) or is_nan(b)
    if c in ("num", "nan"):
        return unordered == (c == "nan")
    if unordered:
        return len(c) == 3
    return _COMPARE[c[:2]](a, b)


def _comparison(i: Instruction, v: list[int]) -> int:
    words = i.text.split(".")
    r = _compared(i, v)
    combine = {"and": lambda a, b: a and b, "or": lambda a, b: a or b, "xor": lambda a, b: a != b}
    for word, f in combine.items():
        if word in words:
            r = f(r, bool(v[2]))
    if words[0] == "setp":
        return int(r)
    kind = i.to.removesuffix("x2")
    return (encode(Fraction(1), kind) if kind in FORMATS else (1 << bits_of(i.to)) - 1) if r else 0


def _conversion(i: Instruction, v: list[int]) -> int | None:
    words, to, source = i.text.split("."), i.to, i.sources[0]
    mode = next((w for w in words if w[:2] in ("rn", "rz", "rm", "rp")), "rz")
    if "pack" in words or any(w.startswith(("e4", "e5", "tf32")) for w in words):
        return None
    if len(v) == 2:
        low, high = (_conversion(Instruction(".".join(words[:-2] + [to[:-2], "f32"]), to[:-2], ("f32",)), [b]) for b in v[::-1])
        return -1 if low == -1 or high == -1 else high << 16 | low
    x: Number = Fraction(integer(v[0], source)) if source not in FORMATS else decode(
        _flushed(v[0], source, "ftz" in words and source == "f32"), source)
    if to in FORMATS:
        if mode.endswith("i") and not _special(x):
            n = whole(Fraction(x), mode[:2])
            x = -0.0 if n == 0 and _sign(x) < 0 else Fraction(n)
        if "sat" in words:
            x = Fraction(0) if is_nan(x) else min(max(x, 0), 1)
            x = Fraction(0) if x == 0 else x
        out = encode(x, to, mode[:2], "ftz" in words and to == "f32")
        return 0 if "relu" in words and out >= 0 and out >> sum(FORMATS[to]) else out
    bits, sign = bits_of(to), to[0] == "s"
    top, bottom = (1 << (bits - sign)) - 1, -(1 << (bits - 1)) if sign else 0
    if source in FORMATS:
        if is_nan(x):
            return 1 << (bits - 1) if source == "f64" or bits == 64 else 0
        n = (top if x > 0 else bottom) if math.isinf(x) else whole(Fraction(x), mode[:2])
        n = min(max(n, bottom), top)
    else:
        n = min(max(int(x), bottom), top) if "sat" in words else int(x)
    return n & ((1 << bits) - 1)


def _integer_result(i: Instruction, v: list[int]) -> int | None:
    words, kind = i.text.split("."), i.sources[0]
    bits, x = bits_of(kind), [integer(b, k) for b, k in zip(v, i.sources)]
    p = x[0] * x[1] if len(x) > 1 else 0
    if "hi" in words:
        p >>= 16 if words[0].endswith("24") else bits
    simple: dict[str, Callable[[], int]] = {
        "add": lambda: x[0] + x[1], "sub": lambda: x[0] - x[1], "mul": lambda: p, "min": lambda: min(x[:2]),
        "max": lambda: max(x[:2]), "mad": lambda: signed(p, bits) + x[2] if "sat" in words else p + x[2],
        "sad": lambda: abs(x[0] - x[1]) + x[2], "and": lambda: x[0] & x[1], "or": lambda: x[0] | x[1],
        "xor": lambda: x[0] ^ x[1], "not": lambda: ~x[0], "cnot": lambda: int(x[0] == 0), "neg": lambda: -x[0],
        "abs": lambda: abs(x[0]), "popc": lambda: x[0].bit_count(), "clz": lambda: bits - x[0].bit_length(),
        "shl": lambda: x[0] << x[1], "shr": lambda: x[0] >> x[1], "brev": lambda: int(f"{x[0]:0{bits}b}"[::-1], 2),
        "div": lambda: abs(x[0]) // abs(x[1]) * (1 if x[0] * x[1] >= 0 else -1),
        "rem": lambda: abs(x[0]) % abs(x[1]) * (1 if x[0] >= 0 else -1)}
    if words[0] not in simple or kind.endswith("x2"):
        return _bit_result(i, v)
    # of division by zero the manual says nothing: a card gives all ones
    r = -1 if words[0] in ("div", "rem") and not x[1] else simple[words[0]]()
    if "sat" in words:
        r = min(max(r, -(1 << 31)), (1 << 31) - 1)
    return r & ((1 << bits_of(i.to)) - 1)


def field_extent(v: int, kind: str) -> int:
    """A position or length of a field. The manual ends at 255; a card takes the low eight bits, of 64-bit fields' all 32."""
    return v if bits_of(kind) == 64 else v & 255


def _bit_result(i: Instruction, v: list[int]) -> int | None:
    words, kind = i.text.split("."), i.sources[0]
    bits = bits_of(kind)
    if words[0] == "bfind":
        x = integer(v[0], kind)
        n = (~x if x < 0 else x).bit_length() - 1
        return 0xffffffff if n < 0 else bits - 1 - n if "shiftamt" in words else n
    if words[0] == "lop3":
        table = int(i.last)
        return sum((table >> ((v[0] >> k & 1) * 4 + (v[1] >> k & 1) * 2 + (v[2] >> k & 1)) & 1) << k for k in range(32))
    if words[0] == "shf":
        n = min(v[2], 32) if "clamp" in words else v[2] & 31
        both = v[1] << 32 | v[0]
        return (both << n >> 32 if words[1] == "l" else both >> n) & 0xffffffff
    if words[0] in ("mul24", "mad24"):
        a, b = ((signed(x, 24) if kind == "s32" else x & 0xffffff) for x in v[:2])
        return ((a * b >> (16 if "hi" in words else 0)) + (v[2] if len(v) > 2 else 0)) & 0xffffffff
    if words[0] == "bfi":
        at, n = (field_extent(x, kind) for x in v[2:])
        mask = ((1 << n) - 1) << at
        return (v[1] & ~mask | v[0] << at & mask) & ((1 << bits) - 1)
    if words[0] == "dp4a":
        a, b = ([signed(x >> k, 8) if t == "s32" else x >> k & 255 for k in (0, 8, 16, 24)] for x, t in zip(v, words[1:]))
        return (sum(p * q for p, q in zip(a, b)) + v[2]) & 0xffffffff
    return None


def expected(i: Instruction, v: list[int]) -> int | None:
    """The bits that the result has; -1: any NaN, None or -2: this file does not say."""
    if i.relative or i.absolute:
        return None
    word = i.text.split(".")[0]
    if i.sources[0].endswith("x2") or i.to in ("f16x2", "bf16x2") and len(i.sources) != 2:
        return _halves(i, v)
    if word in ("setp", "set"):
        return _comparison(i, v)
    if word == "cvt":
        return _conversion(i, v)
    if word == "testp" or word == "slct" or word == "selp":
        return v[0] if word == "selp" and v[2] else v[1] if word == "selp" else None
    return _float_result(i, v) if i.to in FORMATS else _integer_result(i, v)


def _halves(i: Instruction, v: list[int]) -> int | None:
    if not all(k.endswith("x2") for k in (i.to, *i.sources)):
        return None
    if i.to in ("u16x2", "s16x2"):
        one = Instruction(i.text.removesuffix("x2"), i.to[:-2], tuple(k[:-2] for k in i.sources))
    else:
        one = Instruction(i.text.replace("x2", ""), i.to[:-2], tuple(k[:-2] for k in i.sources))
    halves = [expected(one, [b >> s & 0xffff for b in v]) for s in (0, 16)]
    return None if None in halves else -1 if -1 in halves else halves[1] << 16 | halves[0]
