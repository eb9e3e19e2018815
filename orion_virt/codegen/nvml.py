# SPDX-License-Identifier: Apache-2.0
"""The guest's NVML library: ABI header, numbers of figures, generated answers, export map."""

from __future__ import annotations

from dataclasses import dataclass

from orion_virt.spec.nvml import LINES, types
from orion_virt.spec.nvml.schema import DEVICE, Absent, Always, Field, Figure, Function, Hand, Line, Same, Text

from .load import SpecError

GEN = "guest-agent/libnvidia-ml/gen"
_BANNER = """/* SPDX-License-Identifier: Apache-2.0 */
/* {} */
/* Generated from orion_virt/spec/nvml; do not edit. */
"""


@dataclass(frozen=True)
class Nvml:
    """All lines, checked."""

    lines: tuple[Line, ...]

    def of(self, *kinds: type) -> list:
        return [line for line in self.lines if isinstance(line, kinds)]

    @property
    def functions(self) -> list:
        """Lines that are an exported function with a prototype that we know."""
        return self.of(Figure, Text, Always, Hand, Same)

    def figures(self) -> list[Figure | Field]:
        return sorted(self.of(Figure, Field), key=lambda line: line.number)


def load(lines: tuple[Line, ...] = LINES) -> Nvml:
    """Raises SpecError for a name or a number that comes twice."""
    spec = Nvml(lines)
    names: set[str] = set()
    for line in spec.of(Figure, Text, Always, Hand, Same, Absent):
        if line.name in names:
            raise SpecError(f"spec/nvml: {line.name} comes twice; remove one")
        names.add(line.name)
    for same in spec.of(Same):
        if same.of not in names:
            raise SpecError(f"spec/nvml: {same.name}: {same.of} is no function of the spec")
    for what, found in (("figure", spec.figures()), ("text", sorted(spec.of(Text), key=lambda t: t.number))):
        end = 0
        for line in found:
            if line.number < end:
                raise SpecError(f"spec/nvml: {line.name}: {what} {line.number} is taken; take {end} or a later one")
            end = line.number + line.count
    return spec


def lock_entries(spec: Nvml) -> dict[str, str]:
    """What a figure or text number means, for the lock: "figure 30 4" -> its name."""
    found = {f"figure {f.number} {f.count}": _key(f) for f in spec.figures()}
    return found | {f"text {t.number} {t.count}": t.name for t in spec.of(Text)}


def _key(line: Figure | Field) -> str:
    return line.name if isinstance(line, Figure) or isinstance(line.field, int) else f"{line.name}.{line.field}"


def enum_name(line: Figure | Field | Text) -> str:
    """FIG_ClockInfo, FIG_PciInfo_pciDeviceId, FIG_MEMORY_TEMP, TXT_VbiosVersion."""
    prefix = "TXT_" if isinstance(line, Text) else "FIG_"
    key = line.name if isinstance(line, Text) else _key(line)
    for common in ("nvmlDeviceGet", "NVML_FI_DEV_"):
        key = key.removeprefix(common)
    return prefix + key.replace(".", "_")


# ---- prototypes ----


def parameters(spec: Nvml, line: Function) -> str:
    """The parameter list of a function, "" where there is none."""
    if isinstance(line, Same):
        return parameters(spec, next(other for other in spec.functions if other.name == line.of))
    if isinstance(line, (Hand, Always)):
        return line.params
    by = [f"{c} by{i}" for i, (c, _) in enumerate(line.by)]
    if isinstance(line, Text):
        return ", ".join([DEVICE, *by, "char *text", *(["unsigned int length"] if line.bounded else [])])
    return ", ".join([DEVICE, *by, *(f"{line.out} *out{i}" for i in range(line.outs))])


def prototype(spec: Nvml, line: Function) -> str:
    returns = line.returns if isinstance(line, Hand) else "nvmlReturn_t"
    return f"{returns}{'' if returns.endswith('*') else ' '}{line.name}({parameters(spec, line) or 'void'})"


# ---- generated files ----


def abi_h(spec: Nvml) -> str:
    """The text of nvml_abi.h."""
    lines = [_BANNER.format("NVML's ABI as far as we use it."), "#ifndef ORION_NVML_ABI_H", "#define ORION_NVML_ABI_H", ""]
    lines += ["typedef enum {"] + [f"    NVML_{name} = {value}," for name, value, _ in types.RETURNS] + ["} nvmlReturn_t;", ""]
    lines += [f"typedef struct {name}_st *{name}_t;" for name in types.HANDLES]
    lines += [f"typedef unsigned int {name};" for name in types.ENUMS]
    for name, body in types.STRUCTS:
        lines.append(f"typedef {'union' if name == 'nvmlValue_t' else 'struct'} {{ {body} }} {name};")
    lines += ["", "/* What a struct's first word must be. */"]
    lines += ["#define NVML_VERSION_OF(type, n) ((unsigned int)sizeof(type) | (n) << 24)", ""]
    lines += [f"{prototype(spec, line)};" for line in spec.functions]
    return "\n".join([*lines, "", "#endif", ""])


def figures_h(spec: Nvml) -> str:
    """The text of figures.h."""
    figures, texts = spec.figures(), sorted(spec.of(Text), key=lambda t: t.number)
    lines = [_BANNER.format("Numbers of figures and texts, as host and guest use them."), "#ifndef ORION_FIGURES_H"]
    lines += ["#define ORION_FIGURES_H", "", "#include <stdbool.h>", "", "enum og_figure {"]
    lines += [f"    {enum_name(f)} = {f.number}," for f in figures]
    lines += [f"    OG_NR_FIGURES = {figures[-1].number + figures[-1].count},", "};", "", "enum og_text_number {"]
    lines += [f"    {enum_name(t)} = {t.number}," for t in texts] + [f"    OG_NR_TEXTS = {texts[-1].number + texts[-1].count},"]
    lines += ["};", "", "/* Values by NVML's field numbers. */"]
    lines += ["static const struct og_field {", "    unsigned int id, figure;", "    bool live;", "} og_fields[] = {"]
    lines += [f"    {{ {f.field}, {f.number}, {_bool(f.live)} }}," for f in spec.of(Field) if isinstance(f.field, int)]
    return "\n".join([*lines, "};", "", "#endif", ""])


def answers_c(spec: Nvml) -> str:
    """The text of answers.c: everything that is not written by hand."""
    lines = [_BANNER.format("Answers from figures and texts, constants, other names, and what is not carried."), '#include "nvml.h"']
    lines += ["", "const struct og_error og_errors[] = {"]
    lines += [f'    {{ {value}, "{text}" }},' for _, value, text in types.RETURNS] + ["    { -1, NULL },", "};"]
    for line in spec.functions:
        if not isinstance(line, Hand):
            lines += ["", f"OG_EXPORT {prototype(spec, line)}", "{", *_body(spec, line), "}"]
    lines += ["", "/* The arguments are not looked at, so one shape serves every prototype. */", "#define OG_ABSENT(name) \\"]
    lines += ["    OG_EXPORT nvmlReturn_t name(void); \\", "    OG_EXPORT nvmlReturn_t name(void) { return og_absent(#name); }"]
    for absent in spec.of(Absent):
        lines.append(f"OG_ABSENT({absent.name})")
    return "\n".join([*lines, ""])


def _body(spec: Nvml, line: Figure | Text | Always | Same) -> list[str]:
    if isinstance(line, Same):
        names = [p.split()[-1].lstrip("*") for p in parameters(spec, line).split(",")] if parameters(spec, line) else []
        return [f"    return {line.of}({', '.join(names)});"]
    if isinstance(line, Always):
        return _constant(line)
    bad = [f"by{i} >= {count}u" for i, (_, count) in enumerate(line.by)]
    at = f"{line.number}u"
    for i, (_, _count) in enumerate(line.by):
        step = line.outs if isinstance(line, Figure) else 1
        for _, later in line.by[i + 1 :]:
            step *= later
        at += f" + by{i} * {step}u"
    if isinstance(line, Text):
        length = "length" if line.bounded else "OG_TEXT_BYTES"
        return [f"    if ({' || '.join([*bad, '!text'])})", "        return og_bad();",
                f"    return og_text_of(device, {at}, text, {length});"]  # fmt: skip
    outs = [f"out{i}" for i in range(line.outs)]
    return [
        f"    uint64_t v[{line.outs}];", "    nvmlReturn_t r;", "",
        f"    if ({' || '.join([*bad, *('!' + o for o in outs)])})", "        return og_bad();",
        f"    r = og_figures_of(device, {at}, {line.outs}, {_bool(line.live)}, v);", "    if (r != NVML_SUCCESS)", "        return r;",
        *(f"    *{o} = ({line.out})v[{i}];" for i, o in enumerate(outs)), "    return NVML_SUCCESS;",
    ]  # fmt: skip


def _constant(line: Always) -> list[str]:
    names = [p.split()[-1].lstrip("*") for p in line.params.split(",")]
    check = "og_device_of(device, NULL)" if line.params.startswith(DEVICE) else "og_ready()"
    lines = [f"    nvmlReturn_t r = {check};", ""]
    lines += [f"    (void){name};" for name in names if name not in dict(line.values) and name != "device"]
    lines += ["    if (r != NVML_SUCCESS)", "        return r;"]
    lines += [f"    if ({' || '.join('!' + name for name, _ in line.values)})", "        return NVML_ERROR_INVALID_ARGUMENT;"]
    return [*lines, *(f"    *{name} = {value}; /* {line.reason} */" for name, value in line.values), "    return NVML_SUCCESS;"]


def export_map(spec: Nvml) -> str:
    """The text of libnvidia-ml.map."""
    names = sorted(line.name for line in [*spec.functions, *spec.of(Absent)])
    head = "/* SPDX-License-Identifier: Apache-2.0 */\n/* Exported symbols; generated from orion_virt/spec/nvml. */\n"
    return head + "{\n  global:\n" + "".join(f"    {n};\n" for n in names) + "  local: *;\n};\n"


def generate() -> dict[str, str]:
    """path below the root -> text."""
    spec = load()
    return {
        f"{GEN}/nvml_abi.h": abi_h(spec),
        f"{GEN}/figures.h": figures_h(spec),
        f"{GEN}/answers.c": answers_c(spec),
        f"{GEN}/libnvidia-ml.map": export_map(spec),
    }


def _bool(value: bool) -> str:
    return "true" if value else "false"
