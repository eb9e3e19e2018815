/* SPDX-License-Identifier: Apache-2.0 */
/* Module level of PTX: directives, variables, functions; linking calls; the interpreter's queries. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "ptx_internal.h"

void ptx_fail(struct ptx_parser *p, const char *format, ...)
{
    va_list args;
    int n;

    if (p->failed)
        return;
    p->failed = true;
    n = snprintf(p->error, p->error_bytes, "PTX line %u%s%s: ",
                 p->insn_line ? p->insn_line : p->lex.line, p->f ? ", kernel " : "",
                 p->f ? p->f->name : "");
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
    while (!p->failed && !ptx_accept(p, ")")) {
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
    v->bytes = (uint64_t)ptx_bytes(*type) * vector;
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

static unsigned place(unsigned *used, const struct ptx_variable *v)
{
    unsigned align = v->align ? v->align : 1, at = (*used + align - 1) / align * align;

    *used = at + (unsigned)v->bytes;
    return at;
}

static uint64_t find_address(struct ptx_parser *p, const char *name, size_t len, bool *found)
{
    for (unsigned i = 0; i < p->module->nr_variables; i++) {
        const struct ptx_variable *v = &p->module->variables[i];
        if (strlen(v->name) == len && !memcmp(v->name, name, len)) {
            *found = true;
            return v->address;
        }
    }
    *found = false;
    return 0;
}

/* One element of an initialiser, as the bits of the variable's type. */
static uint64_t initial_value(struct ptx_parser *p, enum ptx_type type)
{
    struct ptx_lexer *l = &p->lex;
    bool negative = ptx_accept(p, "-"), generic = ptx_accept(p, "generic"), found = true;
    uint64_t v = l->value;

    if (generic)
        ptx_expect(p, "(");
    if (l->kind == K_FLOAT && type == T_F32 && !l->single)
        v = ptx_u32((float)ptx_f64(v));
    if (l->kind == K_FLOAT && negative)
        v ^= type == T_F64 ? 1ull << 63 : 1ull << 31;
    if (l->kind == K_NAME)
        v = find_address(p, l->text, l->len, &found);
    if (!found || (l->kind != K_NUMBER && l->kind != K_FLOAT && l->kind != K_NAME))
        ptx_fail(p, "initialiser '%.*s' is not a number or a variable defined before", (int)l->len, l->text);
    if (l->kind == K_NUMBER && negative)
        v = -v;
    ptx_next(l);
    if (ptx_accept(p, "+")) {
        v += l->value;
        ptx_next(l);
    }
    if (generic)
        ptx_expect(p, ")");
    return v;
}

static void initialise(struct ptx_parser *p, struct ptx_variable *v, enum ptx_type type)
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

static void place_memory(struct ptx_parser *p, struct ptx_variable *v, enum ptx_type type, bool external)
{
    struct ptx_memory *mem = &p->module->memory;
    bool initialised = ptx_accept(p, "=");

    if (external && !initialised)
        return ptx_fail(p, "variable %s is defined in another module; the simulated GPU does not link", v->name);
    if (v->dynamic && initialised)
        return ptx_fail(p, "array %s has no length", v->name);
    v->address = (uint64_t)(uintptr_t)mem->alloc(mem->arg, v->bytes ? v->bytes : 1, v->managed);
    if (!v->address)
        return ptx_fail(p, "out of device memory for variable %s", v->name);
    if (initialised)
        initialise(p, v, type);
}

/* After the space's word: declarations up to the semicolon, at module or function scope. */
void ptx_variable(struct ptx_parser *p, enum ptx_space space, bool external)
{
    struct ptx_variable v;
    enum ptx_type type;

    do {
        ptx_declaration(p, &v, &type);
        v.space = space;
        if (p->failed)
            return free(v.name);
        if (space == S_GLOBAL || space == S_CONST)
            place_memory(p, &v, type, external);
        else if (space == S_SHARED && !v.dynamic)
            v.address = place(p->f ? &p->f->shared_bytes : &p->module->shared_bytes, &v);
        else if (space == S_LOCAL || space == S_PARAM) {
            v.address = place(p->f ? &p->f->local_bytes : &p->module->local_bytes, &v);
            v.space = S_LOCAL;
        }
        if (p->f && space != S_GLOBAL && space != S_CONST)
            add_symbol(p, &v); /* the name lives as long as the parse: freed with the symbols */
        else
            add_variable(p, &v);
    } while (!p->failed && ptx_accept(p, ","));
    ptx_expect(p, ";");
}

struct ptx_kernel *ptx_function(struct ptx_parser *p, const char *name, size_t len, unsigned *index)
{
    for (unsigned i = 0; i < p->module->nr_functions; i++)
        if (strlen(p->module->functions[i]->name) == len && !memcmp(p->module->functions[i]->name, name, len)) {
            *index = i;
            return p->module->functions[i];
        }
    return NULL;
}

/* Parameters of a list in parentheses. `base` places them; a second list for the same function only renames. */
static void parameters(struct ptx_parser *p, struct ptx_variable **list, unsigned *nr, bool entry, unsigned *used)
{
    bool again = *nr > 0;
    unsigned at = 0;

    ptx_expect(p, "(");
    while (!p->failed && !ptx_accept(p, ")")) {
        struct ptx_variable v;
        enum ptx_type type;
        if (ptx_accept(p, ".reg"))
            return ptx_fail(p, "parameters in registers are not supported");
        ptx_expect(p, ".param");
        ptx_declaration(p, &v, &type);
        if (p->failed)
            return;
        v.space = entry ? S_PARAM : S_LOCAL;
        if (again && at < *nr) {
            free((*list)[at].name);
            (*list)[at++].name = v.name;
        } else {
            v.address = place(used, &v);
            *list = ptx_grow(p, *list, *nr, sizeof(**list));
            (*list)[(*nr)++] = v;
        }
        ptx_accept(p, ",");
    }
}

static struct ptx_kernel *declare(struct ptx_parser *p, bool entry)
{
    struct ptx_lexer *l = &p->lex;
    struct ptx_module *m = p->module;
    unsigned index;
    struct ptx_kernel *f = ptx_function(p, l->text, l->len, &index);

    if (!f) {
        f = calloc(1, sizeof(*f));
        m->functions = ptx_grow(p, m->functions, m->nr_functions, sizeof(*m->functions));
        m->functions[m->nr_functions++] = f;
        f->module = m;
        f->name = strndup(l->text, l->len);
        f->entry = entry;
        f->max_threads = 1024;
        f->return_slot = -1;
    }
    ptx_next(l);
    return f;
}

/* Directives between a kernel's head and its body. */
static void tuning(struct ptx_parser *p, struct ptx_kernel *f)
{
    struct ptx_lexer *l = &p->lex;

    while (l->kind == K_NAME && l->text[0] == '.') {
        bool threads = ptx_is(l, ".maxntid") || ptx_is(l, ".reqntid");
        uint64_t product = 1;
        ptx_next(l);
        while (l->kind == K_NUMBER || ptx_is(l, ",")) {
            product *= l->kind == K_NUMBER ? l->value : 1;
            ptx_next(l);
        }
        if (threads && product && product < 1024)
            f->max_threads = (unsigned)product;
    }
}

static void forget_symbols(struct ptx_parser *p)
{
    for (unsigned i = 0; i < p->nr_symbols; i++)
        free(p->symbols[i].variable.name);
    free(p->symbols);
    free(p->labels);
    p->symbols = NULL;
    p->labels = NULL;
    p->nr_symbols = p->nr_labels = 0;
}

static void define(struct ptx_parser *p, struct ptx_kernel *f)
{
    struct ptx_module *m = p->module;

    if (f->defined)
        return ptx_fail(p, "%s is defined twice", f->name);
    p->f = f;
    f->defined = true;
    f->first = m->nr_code;
    f->first_list = m->nr_lists;
    if (!f->entry) { /* functions share one numbering, so that any kernel can call them */
        f->slots = m->slots;
        f->local_bytes = m->local_bytes;
        f->shared_bytes = m->shared_bytes;
        f->return_slot = ptx_new_slot(p);
    }
    ptx_body(p);
    f->end = m->nr_code;
    f->end_list = m->nr_lists;
    if (!f->entry) {
        m->slots = f->slots;
        m->local_bytes = f->local_bytes;
        m->shared_bytes = f->shared_bytes;
    }
    forget_symbols(p);
    p->f = NULL;
}

static void function(struct ptx_parser *p, bool entry)
{
    struct ptx_variable *results = NULL;
    unsigned nr_results = 0, kernel_used = 0, *used = entry ? &kernel_used : &p->module->local_bytes;
    struct ptx_kernel *f;

    if (!entry && ptx_is(&p->lex, "("))
        parameters(p, &results, &nr_results, false, used);
    f = declare(p, entry);
    if (f->results) { /* declared before: keep the places, take the new names */
        for (unsigned i = 0; i < nr_results && i < f->nr_results; i++) {
            free(f->results[i].name);
            f->results[i].name = results[i].name;
        }
        free(results);
    } else {
        f->results = results;
        f->nr_results = nr_results;
    }
    if (ptx_is(&p->lex, "("))
        parameters(p, &f->params, &f->nr_params, entry, used);
    if (entry && kernel_used)
        f->params_bytes = kernel_used;
    tuning(p, f);
    if (ptx_accept(p, ";") || p->failed)
        return;
    define(p, f);
}

static void skip_to(struct ptx_parser *p, const char *text)
{
    while (p->lex.kind != K_END && !ptx_is(&p->lex, text))
        ptx_next(&p->lex);
    ptx_next(&p->lex);
}

static bool space_of(const struct ptx_lexer *l, enum ptx_space *space)
{
    *space = ptx_is(l, ".global") ? S_GLOBAL : ptx_is(l, ".const") ? S_CONST : ptx_is(l, ".shared") ? S_SHARED
             : ptx_is(l, ".local") ? S_LOCAL : S_GENERIC;
    return *space != S_GENERIC;
}

static void directive(struct ptx_parser *p)
{
    struct ptx_lexer *l = &p->lex;
    bool external = false;
    enum ptx_space space;

    while (ptx_is(l, ".visible") || ptx_is(l, ".extern") || ptx_is(l, ".weak") || ptx_is(l, ".common")) {
        external = external || ptx_is(l, ".extern");
        ptx_next(l);
    }
    if (space_of(l, &space)) {
        ptx_next(l);
        ptx_variable(p, space, external);
    } else if (ptx_accept(p, ".entry")) {
        function(p, true);
    } else if (ptx_accept(p, ".func")) {
        while (ptx_accept(p, ".noreturn"))
            ;
        function(p, false);
    } else if (ptx_is(l, ".version") || ptx_is(l, ".address_size")) {
        ptx_next(l);
        ptx_next(l);
    } else if (ptx_is(l, ".target")) {
        ptx_next(l);
        do
            ptx_next(l);
        while (ptx_accept(p, ","));
    } else if (ptx_accept(p, ".file")) {
        while (l->kind == K_NUMBER || l->kind == K_STRING || ptx_is(l, ","))
            ptx_next(l);
    } else if (ptx_is(l, ".section")) {
        skip_to(p, "}");
    } else if (ptx_is(l, ".pragma") || ptx_is(l, ".alias")) {
        skip_to(p, ";");
    } else {
        ptx_fail(p, "unknown directive '%.*s'", (int)l->len, l->text);
    }
}

/* ---- linking ---- */

static void move_slot(int32_t *slot, unsigned by)
{
    if (*slot >= 0)
        *slot += (int32_t)by;
}

/* A kernel's slots come after those of the functions. */
static void move_kernel(struct ptx_module *m, struct ptx_kernel *k)
{
    for (uint32_t i = k->first; i < k->end; i++) {
        struct ptx_insn *n = &m->code[i];
        int32_t *slots[] = { &n->pred, &n->d, &n->d2, &n->a, &n->b, &n->c, &n->e };
        for (unsigned s = 0; s < 7; s++)
            if (!(n->op == OP_CALL && slots[s] == &n->d)) /* the callee's own */
                move_slot(slots[s], m->slots);
        for (int32_t e = 0; n->list >= 0 && n->op != OP_BRX && e < n->nr; e++)
            move_slot(&m->lists[n->list + e], m->slots);
    }
    for (unsigned c = 0; c < k->nr_constants; c++)
        k->constants[c].slot += (int32_t)m->slots;
    k->slots += m->slots;
}

static bool recursive(const struct ptx_module *m, unsigned f, unsigned depth)
{
    if (depth > m->nr_functions)
        return true;
    for (unsigned c = 0; c < m->functions[f]->nr_calls; c++)
        if (recursive(m, m->functions[f]->calls[c], depth + 1))
            return true;
    return false;
}

static void link_module(struct ptx_parser *p)
{
    struct ptx_module *m = p->module;

    m->local_bytes = (m->local_bytes + 15) & ~15u; /* kernels' own variables follow: keep their alignment */
    m->shared_bytes = (m->shared_bytes + 127) & ~127u;
    for (unsigned i = 0; i < m->nr_functions && !p->failed; i++)
        if (recursive(m, i, 0))
            ptx_fail(p, "function %s calls itself: recursion is not supported by the simulated GPU",
                     m->functions[i]->name);
    for (uint32_t i = 0; i < m->nr_code && !p->failed; i++) {
        if (m->code[i].op != OP_CALL)
            continue;
        const struct ptx_kernel *f = m->functions[m->code[i].target];
        if (!f->defined)
            ptx_fail(p, "function %s is not defined in this module; the simulated GPU does not link", f->name);
        m->code[i].target = f->first;
    }
    for (unsigned i = 0; i < m->nr_functions && !p->failed; i++)
        if (m->functions[i]->entry)
            move_kernel(m, m->functions[i]);
}

enum ptx_status ptx_load(const char *text, size_t bytes, const struct ptx_memory *memory,
                         struct ptx_module **module, char *error, size_t error_bytes)
{
    struct ptx_module *m = calloc(1, sizeof(*m));
    struct ptx_parser p = {
        .lex = { .p = text, .end = text + bytes, .line = 1 }, .module = m, .error = error, .error_bytes = error_bytes,
    };

    *module = NULL;
    if (!m)
        return PTX_NO_MEMORY;
    m->memory = *memory;
    ptx_next(&p.lex);
    if (!ptx_is(&p.lex, ".version"))
        ptx_fail(&p, "this is not PTX: it must begin with .version");
    while (p.lex.kind != K_END && !p.failed)
        directive(&p);
    if (!p.failed)
        link_module(&p);
    forget_symbols(&p);
    if (p.failed) {
        ptx_unload(m);
        return PTX_PARSE;
    }
    *module = m;
    return PTX_OK;
}

static void free_variables(struct ptx_variable *v, unsigned nr)
{
    for (unsigned i = 0; i < nr; i++)
        free(v[i].name);
    free(v);
}

void ptx_unload(struct ptx_module *m)
{
    for (unsigned i = 0; i < m->nr_functions; i++) {
        struct ptx_kernel *f = m->functions[i];
        free_variables(f->params, f->nr_params);
        free_variables(f->results, f->nr_results);
        free(f->constants);
        free(f->calls);
        free(f->name);
        free(f);
    }
    for (unsigned i = 0; i < m->nr_variables; i++)
        if ((m->variables[i].space == S_GLOBAL || m->variables[i].space == S_CONST) && m->variables[i].address)
            m->memory.free(m->memory.arg, (void *)(uintptr_t)m->variables[i].address);
    free_variables(m->variables, m->nr_variables);
    free(m->functions);
    free(m->code);
    free(m->lists);
    free(m);
}
