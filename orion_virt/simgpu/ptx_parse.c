/* SPDX-License-Identifier: Apache-2.0 */
/* Types, declarations and variables of PTX, and what they are initialised with. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "ptx_internal.h"

void ptx_fail(struct ptx_parser *p, const char *format, ...)
{
    char unit[24] = "";
    va_list args;
    int n;

    if (p->failed)
        return;
    p->failed = true;
    if (p->unit > 1)
        snprintf(unit, sizeof(unit), " of input %u", p->unit);
    n = snprintf(p->error, p->error_bytes, "PTX line %u%s%s%s: ", p->insn_line ? p->insn_line : p->lex.line, unit,
                 p->f ? ", kernel " : "", p->f ? p->f->name : "");
    va_start(args, format);
    if (n > 0 && (size_t)n < p->error_bytes)
        vsnprintf(p->error + n, p->error_bytes - (size_t)n, format, args);
    va_end(args);
}

bool ptx_accept(struct ptx_parser *p, const char *text)
{
    if (!ptx_is(&p->lex, text))
        return false;
    ptx_next(&p->lex);
    return true;
}

void ptx_expect(struct ptx_parser *p, const char *text)
{
    if (!ptx_accept(p, text))
        ptx_fail(p, "expected '%s', found '%.*s'", text, (int)p->lex.len, p->lex.text);
}

/* Room for one more element: doubles at powers of two. */
void *ptx_grow(struct ptx_parser *p, void *array, unsigned nr, size_t element)
{
    void *q;

    if (nr & (nr - 1) && nr)
        return array;
    q = realloc(array, (nr ? (size_t)nr * 2 : 1) * element);
    if (!q) {
        ptx_fail(p, "out of memory");
        abort(); /* a few bytes could not be had; nothing sensible can follow */
    }
    return q;
}

static const struct { const char *name; enum ptx_type type; uint8_t bytes; } types[] = {
    { "u8", T_U8, 1 }, { "u16", T_U16, 2 }, { "u32", T_U32, 4 }, { "u64", T_U64, 8 }, { "s8", T_S8, 1 },
    { "s16", T_S16, 2 }, { "s32", T_S32, 4 }, { "s64", T_S64, 8 }, { "b8", T_B8, 1 }, { "b16", T_B16, 2 },
    { "b32", T_B32, 4 }, { "b64", T_B64, 8 }, { "b128", T_B128, 16 }, { "f16", T_F16, 2 }, { "bf16", T_BF16, 2 },
    { "f16x2", T_F16X2, 4 }, { "f32", T_F32, 4 }, { "f64", T_F64, 8 }, { "pred", T_PRED, 1 },
    { "bf16x2", T_BF16X2, 4 }, { "u16x2", T_U16X2, 4 },
    { "s16x2", T_S16X2, 4 }, { "tf32", T_TF32, 4 }, { "e4m3x2", T_E4M3X2, 2 }, { "e5m2x2", T_E5M2X2, 2 },
    { "texref", T_B64, 8 },
};

bool ptx_type_of(const char *name, size_t len, enum ptx_type *type)
{
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (strlen(types[i].name) == len && !memcmp(types[i].name, name, len)) {
            *type = types[i].type;
            return true;
        }
    return false;
}

unsigned ptx_bytes(enum ptx_type type)
{
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (types[i].type == type)
            return types[i].bytes;
    return 0;
}

/* .attribute(...): of these only .managed means something here. */
static void attributes(struct ptx_parser *p, struct ptx_variable *v)
{
    ptx_next(&p->lex);
    ptx_expect(p, "(");
    while (!p->failed && p->lex.kind != K_END && !ptx_accept(p, ")")) {
        v->managed |= ptx_is(&p->lex, ".managed");
        ptx_next(&p->lex);
    }
}

/* [.attribute(...)] [.align N] [.ptr ...] [.vN] .TYPE NAME [\[N\]...] */
void ptx_declaration(struct ptx_parser *p, struct ptx_variable *v, enum ptx_type *type)
{
    struct ptx_lexer *l = &p->lex;
    unsigned vector = 1;

    memset(v, 0, sizeof(*v));
    *type = T_NONE;
    while (l->kind == K_NAME && l->text[0] == '.') {
        if (ptx_is(l, ".attribute")) {
            attributes(p, v);
            continue;
        }
        if (ptx_is(l, ".align")) {
            ptx_next(l);
            v->align = (unsigned)l->value;
        } else if (l->text[1] == 'v' && l->len == 3) {
            vector = (unsigned)(l->text[2] - '0');
        } else if (*type == T_NONE) {
            ptx_type_of(l->text + 1, l->len - 1, type);
            v->reference = ptx_is(l, ".texref");
        } /* the rest (.ptr .global ...) describes what a parameter points to */
        ptx_next(l);
    }
    if (*type == T_NONE || l->kind != K_NAME)
        return ptx_fail(p, "expected a variable, found '%.*s'", (int)l->len, l->text);
    v->name = strndup(l->text, l->len);
    v->bytes = v->element = ptx_bytes(*type) * vector;
    if (v->align < v->bytes && !v->align)
        v->align = (unsigned)v->bytes;
    ptx_next(l);
    while (ptx_accept(p, "[")) {
        if (ptx_is(l, "]")) {
            v->dynamic = true;
        } else {
            v->bytes *= l->value;
            ptx_next(l);
        }
        ptx_expect(p, "]");
    }
}

unsigned ptx_place(unsigned *used, const struct ptx_variable *v)
{
    unsigned align = v->align ? v->align : 1, at = (*used + align - 1) / align * align;

    *used = at + (unsigned)v->bytes;
    return at;
}

/* A variable of module scope: the unit's own, or one that another unit shows. */
struct ptx_variable *ptx_global(struct ptx_parser *p, const char *name, size_t len)
{
    struct ptx_variable *shown = NULL;

    for (unsigned i = 0; i < p->module->nr_variables; i++) {
        struct ptx_variable *v = &p->module->variables[i];
        if (strlen(v->name) != len || memcmp(v->name, name, len))
            continue;
        if (v->unit == p->unit)
            return v;
        if (v->visible)
            shown = v;
    }
    return shown;
}

/* The address of a variable or function, or false. */
static bool find_address(struct ptx_parser *p, const char *name, size_t len, uint64_t *address)
{
    struct ptx_variable *v = ptx_global(p, name, len);
    unsigned index;

    if (v)
        *address = v->address + (v->space == S_SHARED ? PTX_SHARED_WINDOW : 0);
    else if (ptx_function(p, name, len, &index))
        *address = ptx_code_address(p->module, index);
    else
        return false;
    return true;
}

/* One element of an initialiser, as the bits of the variable's type. */
static uint64_t initial_value(struct ptx_parser *p, enum ptx_type type)
{
    struct ptx_lexer *l = &p->lex;
    bool negative = ptx_accept(p, "-"), mask = ptx_is(l, "mask") || (l->kind == K_NUMBER && l->p < l->end && *l->p == '('),
         generic = ptx_accept(p, "generic"), found = true;
    uint64_t v = l->value;

    if (mask) /* 0xff(variable): one byte of an address */
        return ptx_fail(p, "initialiser by single bytes of an address is not supported"), 0;
    if (generic)
        ptx_expect(p, "(");
    if (l->kind == K_FLOAT && type == T_F32 && !l->single)
        v = ptx_u32((float)ptx_f64(v));
    if (l->kind == K_FLOAT && negative)
        v ^= type == T_F64 ? 1ull << 63 : 1ull << 31;
    if (l->kind == K_NAME)
        found = find_address(p, l->text, l->len, &v);
    if (!found || (l->kind != K_NUMBER && l->kind != K_FLOAT && l->kind != K_NAME))
        ptx_fail(p, "initialiser '%.*s' is not a number, variable or function", (int)l->len, l->text);
    if (l->kind == K_NUMBER && negative)
        v = -v;
    ptx_next(l);
    if (generic)
        ptx_expect(p, ")");
    while (ptx_is(l, "+") || ptx_is(l, "-")) {
        bool minus = ptx_is(l, "-");
        ptx_next(l);
        v += minus ? 0 - l->value : l->value;
        ptx_next(l);
    }
    return v;
}

/* The lexer stands behind "=". */
void ptx_initialise(struct ptx_parser *p, struct ptx_variable *v, enum ptx_type type)
{
    unsigned element = ptx_bytes(type), depth = 0;
    uint64_t at = 0;

    do {
        if (ptx_accept(p, "{")) {
            depth++;
            continue;
        }
        if (ptx_accept(p, "}")) {
            depth--;
            ptx_accept(p, ",");
            continue;
        }
        uint64_t bits = initial_value(p, type);
        if (at + element > v->bytes)
            return ptx_fail(p, "too many initialisers for %s", v->name);
        memcpy((char *)(uintptr_t)v->address + at, &bits, element);
        at += element;
        if (depth)
            ptx_accept(p, ",");
    } while (depth && !p->failed);
}

static void add_symbol(struct ptx_parser *p, const struct ptx_variable *v)
{
    p->symbols = ptx_grow(p, p->symbols, p->nr_symbols, sizeof(*p->symbols));
    p->symbols[p->nr_symbols++] = (struct ptx_symbol){ .name = v->name, .len = strlen(v->name), .slot = -1, .variable = *v };
}

static void add_variable(struct ptx_parser *p, const struct ptx_variable *v)
{
    struct ptx_module *m = p->module;

    m->variables = ptx_grow(p, m->variables, m->nr_variables, sizeof(*m->variables));
    m->variables[m->nr_variables++] = *v;
}

/* To the end of an initialiser, whose names may be defined further on: it is evaluated when all are known. */
static void skip_initialiser(struct ptx_parser *p)
{
    for (unsigned depth = 0; p->lex.kind != K_END && (depth || !(ptx_is(&p->lex, ",") || ptx_is(&p->lex, ";"))); ptx_next(&p->lex))
        depth += ptx_is(&p->lex, "{") - ptx_is(&p->lex, "}");
}

static void place_memory(struct ptx_parser *p, struct ptx_variable *v, enum ptx_type type)
{
    struct ptx_memory *mem = &p->module->memory;
    bool initialised = ptx_accept(p, "=");

    if (v->dynamic && initialised)
        return ptx_fail(p, "array %s has no length", v->name);
    v->address = (uint64_t)(uintptr_t)mem->alloc(mem->arg, v->bytes ? v->bytes : 1, v->managed);
    if (!v->address)
        return ptx_fail(p, "out of device memory for variable %s", v->name);
    if (!initialised)
        return;
    if (p->f)
        return ptx_initialise(p, v, type);
    ptx_defer(p, (struct ptx_deferred){ .lex = p->lex, .unit = p->unit, .variable = p->module->nr_variables, .type = type });
    skip_initialiser(p);
}

/* Declared elsewhere, or (weak, common) defined there too: nothing to place here. */
static bool known_elsewhere(struct ptx_parser *p, struct ptx_variable *v, uint32_t linkage)
{
    if (linkage & LINK_EXTERN && v->space != S_SHARED)
        return true;
    return linkage & LINK_WEAK && ptx_global(p, v->name, strlen(v->name));
}

/* After the space's word: declarations up to the semicolon, at module or function scope. */
void ptx_variable(struct ptx_parser *p, enum ptx_space space, uint32_t linkage)
{
    struct ptx_variable v;
    enum ptx_type type;

    do {
        ptx_declaration(p, &v, &type);
        v.space = space;
        if (p->failed)
            return free(v.name);
        v.unit = p->unit;
        v.visible = linkage & LINK_VISIBLE;
        if (!p->f && known_elsewhere(p, &v, linkage)) {
            free(v.name);
            skip_initialiser(p);
            continue;
        }
        if (space == S_GLOBAL || space == S_CONST)
            place_memory(p, &v, type);
        else if (space == S_SHARED && !v.dynamic)
            v.address = ptx_place(p->f ? &p->f->shared_bytes : &p->module->shared_bytes, &v);
        else if (space == S_LOCAL || space == S_PARAM) {
            v.address = ptx_place(p->f ? &p->f->local_bytes : &p->module->local_bytes, &v);
            v.space = S_LOCAL;
        }
        if (p->f && space != S_GLOBAL && space != S_CONST)
            add_symbol(p, &v); /* the name lives as long as the parse: freed with the symbols */
        else
            add_variable(p, &v);
    } while (!p->failed && ptx_accept(p, ","));
    ptx_expect(p, ";");
}
