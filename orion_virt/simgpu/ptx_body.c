/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies of functions: scopes, registers, labels, operands and calls. */
#include <stdio.h>
#include <stdlib.h>

#include "ptx_internal.h"

#define DEPTH_MAX 256u /* the parser's own stack is finite */

struct ptx_insn *ptx_emit(struct ptx_parser *p)
{
    struct ptx_module *m = p->module;
    struct ptx_insn *i;

    m->code = ptx_grow(p, m->code, m->nr_code, sizeof(*m->code));
    i = &m->code[m->nr_code++];
    *i = (struct ptx_insn){ .line = p->lex.line, .pred = -1, .d = -1, .d2 = -1, .a = -1, .b = -1, .c = -1, .e = -1,
                            .list = -1 };
    return i;
}

int32_t ptx_new_slot(struct ptx_parser *p, unsigned width)
{
    struct ptx_kernel *f = p->f;

    f->widths = ptx_grow(p, f->widths, f->slots - f->first_slot, 1);
    f->widths[f->slots - f->first_slot] = (uint8_t)width;
    return (int32_t)f->slots++;
}

bool ptx_is_predicate(const struct ptx_parser *p, int32_t slot)
{
    return slot >= 0 && p->f->widths[slot - (int32_t)p->f->first_slot] == 0;
}

int32_t ptx_constant_slot(struct ptx_parser *p, enum ptx_fill fill, uint64_t value)
{
    struct ptx_kernel *f = p->f;

    for (unsigned i = f->nr_constants; i-- > 0;)
        if (f->constants[i].fill == fill && f->constants[i].value == value)
            return f->constants[i].slot;
    f->constants = ptx_grow(p, f->constants, f->nr_constants, sizeof(*f->constants));
    f->constants[f->nr_constants++] = (struct ptx_constant){ ptx_new_slot(p, 64), fill, value };
    return f->constants[f->nr_constants - 1].slot;
}

int32_t ptx_add_list(struct ptx_parser *p, int32_t value)
{
    struct ptx_module *m = p->module;

    m->lists = ptx_grow(p, m->lists, (unsigned)m->nr_lists, sizeof(*m->lists));
    m->lists[m->nr_lists] = value;
    return m->nr_lists++;
}

struct ptx_label *ptx_label(struct ptx_parser *p, const char *name, size_t len)
{
    for (unsigned i = 0; i < p->nr_labels; i++)
        if (p->labels[i].len == len && (len ? !memcmp(p->labels[i].name, name, len) : p->labels[i].name == name))
            return &p->labels[i];
    p->labels = ptx_grow(p, p->labels, p->nr_labels, sizeof(*p->labels));
    p->labels[p->nr_labels] = (struct ptx_label){ .name = name, .len = len, .list = -1 };
    return &p->labels[p->nr_labels++];
}

/* Innermost first. A numbered register matches its prefix: %r12 of .reg .b32 %r<20>. */
struct ptx_symbol *ptx_symbol(struct ptx_parser *p, const char *name, size_t len, int32_t *slot)
{
    size_t stem = len;
    unsigned number = 0, scale = 1;

    while (stem && name[stem - 1] >= '0' && name[stem - 1] <= '9' && len - stem < 8) {
        number += (unsigned)(name[--stem] - '0') * scale;
        scale *= 10;
    }
    for (unsigned i = p->nr_symbols; i-- > 0;) {
        struct ptx_symbol *s = &p->symbols[i];
        if (!s->count && s->len == len && !memcmp(s->name, name, len)) {
            *slot = s->slot;
            return s;
        }
        if (s->count && s->len == stem && number < s->count && !memcmp(s->name, name, stem)) {
            *slot = s->slot + (int32_t)number;
            return s;
        }
    }
    return NULL;
}

static void registers(struct ptx_parser *p)
{
    struct ptx_lexer *l = &p->lex;
    enum ptx_type type = T_NONE, t;

    for (; l->kind == K_NAME && l->text[0] == '.'; ptx_next(l)) {
        ptx_split_word(l);
        if (ptx_type_of(l->text + 1, l->len - 1, &t))
            type = t;
    }
    do {
        struct ptx_symbol s = { .name = l->text, .len = l->len };
        ptx_next(l);
        if (ptx_accept(p, "<")) {
            s.count = (unsigned)l->value;
            ptx_next(l);
            ptx_expect(p, ">");
        }
        s.slot = (int32_t)p->f->slots;
        for (unsigned k = 0; k < (s.count ? s.count : 1) && k <= 1u << 16; k++)
            ptx_new_slot(p, type == T_PRED ? 0 : ptx_bytes(type) <= 4 ? 32 : 64);
        p->symbols = ptx_grow(p, p->symbols, p->nr_symbols, sizeof(*p->symbols));
        p->symbols[p->nr_symbols++] = s;
        if (p->f->slots > 1u << 16)
            return ptx_fail(p, "more than 65536 registers");
    } while (ptx_accept(p, ","));
    ptx_expect(p, ";");
}

/* ---- operands ---- */

static int32_t special(struct ptx_parser *p, const char *name, size_t len)
{
    static const struct { const char *name; enum ptx_fill fill; unsigned value; } specials[] = {
        { "%tid.x", FILL_TID, 0 }, { "%tid.y", FILL_TID, 1 }, { "%tid.z", FILL_TID, 2 },
        { "%ntid.x", FILL_NTID, 0 }, { "%ntid.y", FILL_NTID, 1 }, { "%ntid.z", FILL_NTID, 2 },
        { "%ctaid.x", FILL_CTAID, 0 }, { "%ctaid.y", FILL_CTAID, 1 }, { "%ctaid.z", FILL_CTAID, 2 },
        { "%nctaid.x", FILL_NCTAID, 0 }, { "%nctaid.y", FILL_NCTAID, 1 }, { "%nctaid.z", FILL_NCTAID, 2 },
        { "%laneid", FILL_LANE, 0 }, { "%warpid", FILL_WARP, 0 }, { "%nwarpid", FILL_NWARP, 0 },
        { "%smid", FILL_VALUE, 0 }, { "%nsmid", FILL_VALUE, 1 }, { "%gridid", FILL_VALUE, 1 },
        { "%lanemask_eq", FILL_MASK_EQ, 0 }, { "%lanemask_lt", FILL_MASK_LT, 0 }, { "%lanemask_le", FILL_MASK_LE, 0 },
        { "%lanemask_gt", FILL_MASK_GT, 0 }, { "%lanemask_ge", FILL_MASK_GE, 0 }, { "WARP_SZ", FILL_VALUE, 32 },
        { "%dynamic_smem_size", FILL_DYNAMIC_BYTES, 0 }, { "%envreg0", FILL_VALUE, 0 },
        { "%envreg1", FILL_WORKSPACE, 32 }, { "%envreg2", FILL_WORKSPACE, 0 },
        { "%cluster_ctarank", FILL_CLUSTER_RANK, 0 }, { "%cluster_nctarank", FILL_CLUSTER_BLOCKS, 0 },
        { "%cluster_ctaid.x", FILL_CLUSTER_CTAID, 0 }, { "%cluster_ctaid.y", FILL_CLUSTER_CTAID, 1 },
        { "%cluster_ctaid.z", FILL_CLUSTER_CTAID, 2 }, { "%cluster_nctaid.x", FILL_CLUSTER_NCTAID, 0 },
        { "%cluster_nctaid.y", FILL_CLUSTER_NCTAID, 1 }, { "%cluster_nctaid.z", FILL_CLUSTER_NCTAID, 2 },
        { "%clusterid.x", FILL_CLUSTERID, 0 }, { "%clusterid.y", FILL_CLUSTERID, 1 }, { "%clusterid.z", FILL_CLUSTERID, 2 },
        { "%nclusterid.x", FILL_NCLUSTERID, 0 }, { "%nclusterid.y", FILL_NCLUSTERID, 1 },
        { "%nclusterid.z", FILL_NCLUSTERID, 2 }, { "%is_explicit_cluster", FILL_CLUSTERED, 0 },
    };

    for (size_t i = 0; i < sizeof(specials) / sizeof(specials[0]); i++)
        if (strlen(specials[i].name) == len && !memcmp(specials[i].name, name, len))
            return ptx_constant_slot(p, specials[i].fill, specials[i].value);
    return -1;
}

/* The slot that holds a variable's address in its own space. */
static int32_t address_slot(struct ptx_parser *p, const struct ptx_variable *v, bool in_function)
{
    bool kernel = in_function && p->f->entry;

    if (v->space == S_LOCAL && !p->f->entry) /* its own: moves with its frame */
        return ptx_constant_slot(p, FILL_FRAME, v->address);
    if (v->space == S_SHARED && v->dynamic)
        return ptx_constant_slot(p, FILL_DYNAMIC, 0);
    if (v->space == S_SHARED && kernel)
        return ptx_constant_slot(p, FILL_SHARED, v->address);
    if (v->space == S_LOCAL && kernel)
        return ptx_constant_slot(p, FILL_LOCAL, v->address);
    return ptx_constant_slot(p, FILL_VALUE, v->address);
}

static const struct ptx_variable *find_in(const struct ptx_variable *v, unsigned nr, const char *name, size_t len)
{
    for (unsigned i = 0; i < nr; i++)
        if (strlen(v[i].name) == len && !memcmp(v[i].name, name, len))
            return &v[i];
    return NULL;
}

static bool variable_slot(struct ptx_parser *p, const struct ptx_variable *v, bool in_function, struct ptx_operand *o)
{
    o->slot = address_slot(p, v, in_function);
    o->space = (int)v->space;
    o->element = v->element;
    return true;
}

/* A name as slot; the space is that of a variable, -1 for registers. False: a label or function. */
static bool named_slot(struct ptx_parser *p, const char *name, size_t len, struct ptx_operand *o)
{
    const struct ptx_variable *v;
    struct ptx_symbol *s = ptx_symbol(p, name, len, &o->slot);

    o->space = -1;
    if (s && o->slot >= 0)
        return true;
    if (s)
        return variable_slot(p, &s->variable, true, o);
    v = find_in(p->f->params, p->f->nr_params, name, len);
    if (!v)
        v = find_in(p->f->results, p->f->nr_results, name, len);
    if (!v)
        v = ptx_global(p, name, len);
    if (v)
        return variable_slot(p, v, false, o);
    o->slot = special(p, name, len);
    return o->slot >= 0;
}

static int32_t immediate(struct ptx_parser *p, enum ptx_type type, bool negative)
{
    struct ptx_lexer *l = &p->lex;
    uint64_t v = l->value;

    if (l->kind == K_FLOAT && type == T_F32 && !l->single)
        v = ptx_u32((float)ptx_f64(v));
    else if (l->kind == K_FLOAT && type == T_F64 && l->single)
        v = ptx_u64((double)ptx_f32(v));
    if (l->kind == K_FLOAT && negative)
        v ^= type == T_F64 ? 1ull << 63 : 1ull << 31;
    else if (negative)
        v = -v;
    ptx_next(l);
    return ptx_constant_slot(p, FILL_VALUE, v);
}

static void vector(struct ptx_parser *p, struct ptx_operand *o, enum ptx_type type)
{
    int32_t slots[8];

    o->kind = O_VECTOR;
    while (!p->failed && !ptx_accept(p, "}")) {
        struct ptx_operand e;
        ptx_operand(p, &e, type);
        if (o->nr == 8 || e.kind != O_SLOT)
            return ptx_fail(p, "vector operand of more than 8 or of strange elements");
        slots[o->nr++] = e.slot;
        ptx_accept(p, ",");
    }
    o->list = p->module->nr_lists;
    for (unsigned i = 0; i < o->nr; i++)
        ptx_add_list(p, slots[i]);
}

static void address(struct ptx_parser *p, struct ptx_operand *o)
{
    struct ptx_lexer *l = &p->lex;
    struct ptx_operand where;

    o->kind = O_ADDRESS;
    if (l->kind == K_NUMBER) {
        o->slot = immediate(p, T_U64, false);
    } else if (!named_slot(p, l->text, l->len, o)) {
        return ptx_fail(p, "'%.*s' in an address is defined in no module that was linked", (int)l->len, l->text);
    } else {
        ptx_next(l);
    }
    while (ptx_is(l, "+") || ptx_is(l, "-")) {
        bool minus = ptx_is(l, "-");
        ptx_next(l);
        minus ^= ptx_accept(p, "-");
        o->off += minus ? -(int64_t)l->value : (int64_t)l->value;
        ptx_next(l);
    }
    if (ptx_accept(p, ",")) { /* of a texture or surface */
        ptx_operand(p, &where, T_F32);
        o->at_list = where.kind == O_VECTOR ? where.list : ptx_add_list(p, where.slot);
        o->at_nr = where.kind == O_VECTOR ? where.nr : 1;
    }
    ptx_expect(p, "]");
}

/* variable+bytes, and variable[index]: an element's address for mov, else its place in memory. */
static void behind_variable(struct ptx_parser *p, struct ptx_operand *o)
{
    struct ptx_lexer *l = &p->lex;
    bool index = ptx_accept(p, "[");

    if (!index && !ptx_accept(p, "+"))
        return;
    if (l->kind != K_NUMBER)
        return ptx_fail(p, "'%.*s' behind a variable is no number", (int)l->len, l->text);
    o->off = (int64_t)l->value * (index ? o->element : 1);
    ptx_next(l);
    if (!index)
        return;
    ptx_expect(p, "]");
    if (p->insn_len < 3 || memcmp(p->insn_text, "mov", 3))
        o->kind = O_ADDRESS;
}

void ptx_operand(struct ptx_parser *p, struct ptx_operand *o, enum ptx_type type)
{
    struct ptx_lexer *l = &p->lex;
    bool negative;

    *o = (struct ptx_operand){ .kind = O_SLOT, .slot = -1, .slot2 = -1, .list = -1, .space = -1,
                                .at_list = -1 };
    if (ptx_accept(p, "["))
        return address(p, o);
    if (ptx_accept(p, "{"))
        return vector(p, o, type);
    o->negated = ptx_accept(p, "!");
    negative = ptx_accept(p, "-");
    if (l->kind == K_NUMBER || l->kind == K_FLOAT) {
        o->value = l->value;
        o->slot = immediate(p, type, negative);
        return;
    }
    if (l->kind != K_NAME || negative)
        return ptx_fail(p, "unexpected '%.*s' in '%.*s'", (int)l->len, l->text, (int)p->insn_len, p->insn_text);
    if (ptx_is(l, "_")) {
        o->slot = ptx_new_slot(p, 64); /* a sink */
    } else if (!named_slot(p, l->text, l->len, o)) {
        unsigned index;
        if (ptx_function(p, l->text, l->len, &index) && p->insn_len >= 3 && !memcmp(p->insn_text, "mov", 3)) {
            o->slot = ptx_constant_slot(p, FILL_VALUE, ptx_code_address(p->module, index));
            ptx_next(l);
            return;
        }
        o->kind = O_NAME;
        o->name = l->text;
        o->len = l->len;
    }
    ptx_next(l);
    if (o->kind == O_SLOT && o->space >= 0)
        behind_variable(p, o);
    if (ptx_accept(p, "|")) {
        struct ptx_operand second;
        ptx_operand(p, &second, type);
        o->slot2 = second.slot;
    }
}

/* ---- calls: arguments are .param variables in local memory, copied to where the callee has its own ---- */

static void copy_param(struct ptx_parser *p, int32_t to, int32_t from, uint64_t bytes)
{
    struct ptx_insn *i = ptx_emit(p);

    i->exec = ptx_pcopy;
    i->d = to;
    i->a = from;
    i->off = (int64_t)bytes;
}

static unsigned arguments(struct ptx_parser *p, struct ptx_symbol **list, unsigned most)
{
    unsigned nr = 0;
    int32_t slot;

    ptx_expect(p, "(");
    while (!p->failed && !ptx_accept(p, ")")) {
        struct ptx_symbol *s = ptx_symbol(p, p->lex.text, p->lex.len, &slot);
        if (!s || slot >= 0 || nr == most) {
            ptx_fail(p, "argument '%.*s' of a call is not a .param variable", (int)p->lex.len, p->lex.text);
            return 0;
        }
        list[nr++] = s;
        ptx_next(&p->lex);
        ptx_accept(p, ",");
    }
    return nr;
}

static bool builtin(struct ptx_parser *p, const char *name, size_t len, struct ptx_symbol **args, unsigned nr,
                    struct ptx_symbol *result)
{
    static const struct { const char *name; ptx_exec *exec; unsigned args; } builtins[] = {
        { "vprintf", ptx_vprintf, 2 }, { "__assertfail", ptx_assertfail, 4 }, { "malloc", ptx_malloc, 1 },
        { "free", ptx_free, 1 }, { "cudaGraphSetConditional", ptx_setcondition, 2 },
    };
    int32_t slots[4] = { -1, -1, -1, -1 }, result_slot = -1;

    for (unsigned b = 0; b < sizeof(builtins) / sizeof(builtins[0]); b++) {
        if (strlen(builtins[b].name) != len || memcmp(builtins[b].name, name, len) || nr < builtins[b].args)
            continue;
        for (unsigned a = 0; a < builtins[b].args; a++)
            slots[a] = address_slot(p, &args[a]->variable, true);
        if (result)
            result_slot = address_slot(p, &result->variable, true);
        struct ptx_insn *i = ptx_emit(p);
        i->exec = builtins[b].exec;
        i->a = slots[0];
        i->b = slots[1];
        i->c = slots[2];
        i->e = slots[3];
        i->d = result_slot;
        return true;
    }
    return false;
}

static void note_call(struct ptx_parser *p, unsigned callee)
{
    p->f->calls = ptx_grow(p, p->f->calls, p->f->nr_calls, sizeof(*p->f->calls));
    p->f->calls[p->f->nr_calls++] = callee;
}

static struct ptx_insn *emit_call(struct ptx_parser *p, int32_t pointer, unsigned index)
{
    struct ptx_insn *i = ptx_emit(p);

    i->op = OP_CALL;
    i->a = pointer;
    i->target = index;
    note_call(p, pointer >= 0 ? PTX_ANY_FUNCTION : index);
    return i;
}

static void call_direct(struct ptx_parser *p, unsigned index, struct ptx_symbol **args, unsigned nr_args,
                        const struct ptx_symbol *result)
{
    const struct ptx_kernel *f = p->module->functions[index];

    for (unsigned a = 0; a < nr_args; a++)
        copy_param(p, ptx_constant_slot(p, FILL_VALUE, f->params[a].address),
                   address_slot(p, &args[a]->variable, true), f->params[a].bytes);
    emit_call(p, -1, index);
    if (result)
        copy_param(p, address_slot(p, &result->variable, true),
                   ptx_constant_slot(p, FILL_VALUE, f->results[0].address), f->results[0].bytes);
}

/* Which function it is, and so where its parameters are, is known when it is called. */
static void call_pointer(struct ptx_parser *p, int32_t pointer, struct ptx_symbol **args, unsigned nr_args,
                         const struct ptx_symbol *result)
{
    int32_t slots[64], list;
    struct ptx_insn *i;

    for (unsigned a = 0; a < nr_args; a++)
        slots[a] = address_slot(p, &args[a]->variable, true);
    list = p->module->nr_lists;
    for (unsigned a = 0; a < nr_args; a++)
        ptx_add_list(p, slots[a]);
    i = emit_call(p, pointer, 0);
    i->list = list;
    i->nr = (uint8_t)nr_args;
    if (!result)
        return;
    int32_t to = address_slot(p, &result->variable, true);
    i = ptx_emit(p);
    i->exec = ptx_presult;
    i->a = pointer;
    i->d = to;
    i->off = (int64_t)result->variable.bytes;
}

static void call_to(struct ptx_parser *p, const char *name, size_t len, struct ptx_symbol **args, unsigned nr_args,
                    struct ptx_symbol *result)
{
    unsigned index = 0;
    int32_t pointer = -1;
    struct ptx_symbol *s = ptx_symbol(p, name, len, &pointer);
    struct ptx_kernel *f;

    if (builtin(p, name, len, args, nr_args, result))
        return;
    if (s && pointer >= 0)
        return call_pointer(p, pointer, args, nr_args, result);
    f = ptx_function(p, name, len, &index);
    if (!f || f->entry || nr_args != f->nr_params || (result && !f->nr_results))
        return ptx_fail(p, "call of '%.*s', which is no function with these parameters", (int)len, name);
    call_direct(p, index, args, nr_args, result);
}

/* The instruction's word has been read. */
void ptx_call(struct ptx_parser *p, int32_t pred, bool pred_neg)
{
    struct ptx_symbol *results[1], *args[64];
    unsigned nr_results = 0, nr_args = 0, around = 0;
    const char *name;
    size_t len;

    if (pred >= 0) { /* a branch around it */
        struct ptx_insn *i = ptx_emit(p);
        around = (unsigned)(ptx_label(p, p->insn_text, 0) - p->labels);
        i->op = OP_BRA;
        i->pred = pred;
        i->pred_neg = !pred_neg;
        i->target = around;
    }
    if (ptx_is(&p->lex, "(")) {
        nr_results = arguments(p, results, 1);
        ptx_expect(p, ",");
    }
    name = p->lex.text;
    len = p->lex.len;
    ptx_next(&p->lex);
    if (ptx_accept(p, ",") && ptx_is(&p->lex, "("))
        nr_args = arguments(p, args, 64);
    while (!p->failed && p->lex.kind != K_END && !ptx_is(&p->lex, ";")) /* the prototype or list of targets of a pointer */
        ptx_next(&p->lex);
    ptx_expect(p, ";");
    if (!p->failed)
        call_to(p, name, len, args, nr_args, nr_results ? results[0] : NULL);
    if (pred >= 0) {
        p->labels[around].known = true;
        p->labels[around].pc = p->module->nr_code;
    }
}

/* ---- statements ---- */

static void branch_targets(struct ptx_parser *p, struct ptx_label *label)
{
    size_t at = (size_t)(label - p->labels);
    int32_t list = p->module->nr_lists;
    unsigned nr = 0;

    do { /* entries are indexes of labels until the end of the body */
        struct ptx_label *target = ptx_label(p, p->lex.text, p->lex.len);
        ptx_add_list(p, (int32_t)(target - p->labels));
        nr++;
        ptx_next(&p->lex);
    } while (ptx_accept(p, ","));
    ptx_expect(p, ";");
    if (nr > 255)
        ptx_fail(p, "more than 255 branch targets");
    p->labels[at].list = list;
    p->labels[at].nr = (uint8_t)nr;
}

/* A name and a colon: true when it was one. */
static bool label_here(struct ptx_parser *p)
{
    struct ptx_lexer saved = p->lex;
    struct ptx_label *label;

    if (p->lex.kind != K_NAME || p->lex.text[0] == '.')
        return false;
    ptx_next(&p->lex);
    if (!ptx_is(&p->lex, ":")) {
        p->lex = saved;
        return false;
    }
    ptx_next(&p->lex);
    label = ptx_label(p, saved.text, saved.len);
    if (ptx_accept(p, ".branchtargets")) {
        branch_targets(p, label);
    } else if (ptx_is(&p->lex, ".callprototype") || ptx_is(&p->lex, ".calltargets")) {
        while (!p->failed && p->lex.kind != K_END && !ptx_accept(p, ";"))
            ptx_next(&p->lex);
    } else {
        label->known = true;
        label->pc = p->module->nr_code;
    }
    return true;
}

static void statement(struct ptx_parser *p)
{
    struct ptx_lexer *l = &p->lex;

    ptx_split_word(l);
    if (ptx_accept(p, ".reg"))
        registers(p);
    else if (ptx_accept(p, ".local"))
        ptx_variable(p, S_LOCAL, 0);
    else if (ptx_accept(p, ".param"))
        ptx_variable(p, S_PARAM, 0);
    else if (ptx_accept(p, ".shared"))
        ptx_variable(p, S_SHARED, 0);
    else if (ptx_accept(p, ".global"))
        ptx_variable(p, S_GLOBAL, 0);
    else if (ptx_accept(p, ".const"))
        ptx_variable(p, S_CONST, 0);
    else if (ptx_is(l, ".loc")) {
        uint32_t line = l->line;
        while (l->kind != K_END && l->line == line)
            ptx_next(l);
    } else if (ptx_is(l, ".pragma")) {
        while (l->kind != K_END && !ptx_accept(p, ";"))
            ptx_next(l);
    } else if (!ptx_accept(p, ";") && !label_here(p)) {
        ptx_instruction(p);
    }
}

static void scope(struct ptx_parser *p)
{
    unsigned keep = p->nr_symbols;

    if (++p->depth > DEPTH_MAX)
        return ptx_fail(p, "scopes lie in each other more than %u deep", DEPTH_MAX);
    ptx_expect(p, "{");
    while (!p->failed && !ptx_accept(p, "}")) {
        if (p->lex.kind == K_END)
            ptx_fail(p, "the text ends inside a function");
        else if (ptx_is(&p->lex, "{"))
            scope(p);
        else
            statement(p);
    }
    for (unsigned i = keep; i < p->nr_symbols; i++)
        free(p->symbols[i].variable.name);
    p->nr_symbols = keep;
    p->depth--;
}

static uint32_t label_pc(struct ptx_parser *p, uint32_t index)
{
    if (!p->labels[index].known)
        ptx_fail(p, "label '%.*s' is not defined", (int)p->labels[index].len, p->labels[index].name);
    return p->labels[index].pc;
}

void ptx_body(struct ptx_parser *p)
{
    struct ptx_module *m = p->module;
    struct ptx_insn *last;
    unsigned index = 0;

    while (index < m->nr_functions && m->functions[index] != p->f)
        index++;
    scope(p);
    last = ptx_emit(p);
    last->op = OP_RET; /* running off the end returns */
    for (uint32_t i = p->f->first; i < m->nr_code && !p->failed; i++) {
        struct ptx_insn *n = &m->code[i];
        if (n->op == OP_RET)
            n->target = index;
        if (n->op == OP_BRA)
            n->target = label_pc(p, n->target);
        if (n->op != OP_BRX)
            continue;
        struct ptx_label *table = &p->labels[n->target];
        n->list = table->list;
        n->nr = table->nr;
        if (table->list < 0)
            ptx_fail(p, "brx.idx without .branchtargets");
    }
    for (unsigned t = 0; t < p->nr_labels && !p->failed; t++)
        for (int32_t e = 0; p->labels[t].list >= 0 && e < p->labels[t].nr; e++)
            m->lists[p->labels[t].list + e] = (int32_t)label_pc(p, (uint32_t)m->lists[p->labels[t].list + e]);
}
