/* SPDX-License-Identifier: Apache-2.0 */
/* A kernel as C: each basic block is straight code for the 32 lanes of a warp. Registers that live within a block are
 * variables of it, others lie in the warp's frame. Where lanes part, wait or end, the code returns to the run loop, so that
 * which lanes run when is decided in one place for interpreted and translated kernels. */
#include <stdlib.h>

#include "ptx_translate.h"

#define INSTRUCTIONS_MAX 20000u

static bool in_code(const struct translator *t, uint32_t pc)
{
    return t->reached[pc];
}

/* ---- what belongs to the kernel ---- */

static bool reach(struct translator *t, const struct ptx_kernel *f, const char **why)
{
    const struct ptx_module *m = t->m;

    if (t->reached[f->first])
        return true;
    if (f->framed) {
        *why = "it calls functions that may call themselves";
        return false;
    }
    memset(t->reached + f->first, 1, f->end - f->first);
    for (unsigned c = 0; c < f->nr_calls; c++)
        for (unsigned k = 0; k < m->nr_functions; k++) {
            const struct ptx_kernel *g = m->functions[k];
            bool called = f->calls[c] == PTX_ANY_FUNCTION ? g->address_taken : f->calls[c] == k;
            g = g->alias ? g->alias : g;
            if (called && g->defined && !reach(t, g, why))
                return false;
        }
    return true;
}

static void find_leaders(struct translator *t)
{
    for (uint32_t pc = 0; pc < t->m->nr_code; pc++) {
        const struct ptx_insn *i = &t->m->code[pc];
        if (!in_code(t, pc))
            continue;
        if (i->op == OP_BRA)
            t->leader[i->target] = 1;
        for (unsigned k = 0; i->op == OP_BRX && k < i->nr; k++)
            t->leader[t->m->lists[i->list + (int32_t)k]] = 1;
        enum how how = ptx_how(t, i);
        if (how == H_WARP || how == H_CONTROL) /* lanes may wait there */
            t->leader[pc] = 1;
        if (ptx_ends_block(i, how) && pc + 1 < t->m->nr_code)
            t->leader[pc + 1] = 1;
    }
    for (unsigned k = 0; k < t->m->nr_functions; k++)
        if (t->m->functions[k]->defined && in_code(t, t->m->functions[k]->first))
            t->leader[t->m->functions[k]->first] = 1;
}

/* ---- where registers lie ---- */

static void frame(struct translator *t, int32_t slot)
{
    t->slots[slot].place = P_FRAME;
}

/* A use or definition in a segment of a block. */
static void note(struct translator *t, int32_t slot, int32_t block, int32_t segment, bool definition, bool loop)
{
    struct slot_info *s = &t->slots[slot];

    if (s->place == P_FRAME || !ptx_is_register(t, slot))
        return;
    if (s->constant) {
        frame(t, slot);
    } else if (s->place == P_UNUSED) {
        s->place = loop ? P_SCALAR : P_ARRAY;
        s->block = block;
        s->segment = segment;
        if (!definition)
            frame(t, slot);
    } else if (s->block != block) {
        frame(t, slot);
    } else if (s->segment != segment || !loop) {
        s->place = P_ARRAY;
    }
}

static bool in_loop(enum how how)
{
    return how == H_LANES;
}

static void place_slots(struct translator *t)
{
    int32_t block = 0, segment = 0, slots[PTX_OPERANDS_MAX];

    for (uint32_t pc = 0; pc < t->m->nr_code; pc++) {
        const struct ptx_insn *i = &t->m->code[t->order[pc]];
        if (!in_code(t, pc))
            continue;
        enum how how = ptx_how(t, i);
        block += t->leader[pc];
        segment += t->leader[pc] || !in_loop(how);
        bool interpreted = how == H_EXEC || how == H_CONTROL || how == H_WARP;
        unsigned nr = how == H_COPY || how == H_CALL ? 0 : ptx_uses(t, i, slots);
        for (unsigned k = 0; k < nr; k++) {
            note(t, slots[k], block, segment, false, in_loop(how));
            if (interpreted && ptx_is_register(t, slots[k]))
                frame(t, slots[k]);
        }
        nr = how == H_COPY || how == H_CALL ? 0 : ptx_defs(t, i, slots);
        for (unsigned k = 0; k < nr; k++) {
            note(t, slots[k], block, segment, i->pred < 0, in_loop(how));
            if (interpreted)
                frame(t, slots[k]);
        }
        segment += !in_loop(how);
    }
    for (unsigned s = 0; s < t->nr_slots; s++)
        if (t->slots[s].place == P_FRAME)
            t->slots[s].at = t->slots[s].width == 64 ? t->nr_r64++ : t->nr_r32++;
}

static void describe_slots(struct translator *t, const struct ptx_kernel *f)
{
    unsigned first = f->entry ? t->m->slots : f->first_slot;

    for (unsigned s = first; s < f->slots; s++)
        t->slots[s].width = f->widths[s - first];
    for (unsigned c = 0; c < f->nr_constants; c++)
        t->slots[f->constants[c].slot].constant = &f->constants[c];
}

/* ---- writing ---- */

/* The array of 32 lanes that a slot of the frame or block is. */
const char *ptx_array(const struct translator *t, int32_t slot, char *text)
{
    const struct slot_info *s = &t->slots[slot];

    if (s->place == P_FRAME)
        snprintf(text, 64, "(r%s + %uu)", s->width == 64 ? "64" : "32", s->at * PTX_LANES);
    else
        snprintf(text, 64, "a%d", slot);
    return text;
}

static void write_block_arrays(struct translator *t, uint32_t pc)
{
    int32_t slots[PTX_OPERANDS_MAX];

    for (uint32_t at = pc; at < t->m->nr_code && in_code(t, at) && (at == pc || !t->leader[at]); at++) {
        const struct ptx_insn *i = &t->m->code[at];
        unsigned nr = ptx_defs(t, i, slots);
        for (unsigned k = 0; k < nr; k++) {
            struct slot_info *s = &t->slots[slots[k]];
            if (s->place != P_ARRAY || s->defined)
                continue;
            s->defined = true;
            fprintf(t->out, "n_u%d a%d[32] AL; ", s->width == 64 ? 64 : 32, slots[k]);
        }
    }
    fprintf(t->out, "\n");
}

struct run {             /* of instructions that share a loop, by their place in the order */
    uint32_t first, end;
};

/* Registers of the loop: loaded before, stored behind; `pass` 0 declares and loads, 1 stores. */
static void write_loop_registers(struct translator *t, struct run r, uint8_t *seen, unsigned pass)
{
    int32_t slots[2 * PTX_OPERANDS_MAX];
    char text[64];

    for (uint32_t at = r.first; at < r.end; at++) {
        const struct ptx_insn *i = &t->m->code[t->order[at]];
        unsigned uses = ptx_uses(t, i, slots), nr = uses + ptx_defs(t, i, slots + uses);
        for (unsigned k = 0; k < nr; k++) {
            const struct slot_info *s = &t->slots[slots[k]];
            bool definition = k >= uses;
            if (!ptx_is_register(t, slots[k]) || seen[slots[k]] & (pass ? 2 : 1) || (pass && !definition))
                continue;
            seen[slots[k]] |= pass ? 2 : 1;
            if (!pass && s->place == P_SCALAR)
                fprintf(t->out, "n_u%d x%d; ", s->width == 64 ? 64 : 32, slots[k]);
            else if (!pass && definition && s->place == P_ARRAY && i->pred < 0)
                fprintf(t->out, "n_u%d x%d; ", s->width == 64 ? 64 : 32, slots[k]);
            else if (!pass)
                fprintf(t->out, "n_u%d x%d = %s[l]; ", s->width == 64 ? 64 : 32, slots[k], ptx_array(t, slots[k], text));
            else if (s->place == P_ARRAY)
                fprintf(t->out, "%s[l] = x%d; ", ptx_array(t, slots[k], text), slots[k]);
            else if (s->place == P_FRAME)
                fprintf(t->out, "%s[l] = BLEND(n_u%d, M[l], x%d, %s[l]); ", ptx_array(t, slots[k], text), s->width == 64 ? 64 : 32,
                        slots[k], ptx_array(t, slots[k], text));
        }
    }
    fprintf(t->out, "\n");
}

static uint32_t write_loop(struct translator *t, uint32_t pc)
{
    struct run r = { pc, pc };
    uint8_t *seen = calloc(t->nr_slots + 1u, 1);

    while (r.end < t->m->nr_code && in_code(t, r.end) && (r.end == pc || !t->leader[r.end]) &&
           ptx_how(t, &t->m->code[t->order[r.end]]) == H_LANES)
        r.end++;
    fprintf(t->out, "for (int l = 0; l < 32; l++) {\n");
    if (seen) {
        write_loop_registers(t, r, seen, 0);
        for (uint32_t at = r.first; at < r.end; at++)
            ptx_lane_write(t, &t->m->code[t->order[at]]);
        write_loop_registers(t, r, seen, 1);
    }
    fprintf(t->out, "}\n");
    for (uint32_t at = r.first; at < r.end; at++)
        ptx_shapes_follow(t, &t->m->code[t->order[at]]);
    free(seen);
    return r.end;
}

/* The lanes that an instruction's guard leaves, as an expression. */
static const char *guarded(const struct translator *t, const struct ptx_insn *i, char *text)
{
    char p[64];

    if (i->pred < 0)
        return "m";
    snprintf(text, 128, "(m & %sbits(%s))", i->pred_neg ? "~" : "", ptx_array(t, i->pred, p));
    return text;
}

static const char *memory_type(const struct ptx_insn *i)
{
    switch (i->type) {
    case T_S8: return "s8";
    case T_U8: case T_B8: return "u8";
    case T_S16: return "s16";
    case T_U16: case T_B16: case T_F16: case T_BF16: return "u16";
    case T_S32: return "s32";
    default: return ptx_bytes(i->type) == 8 ? "u64" : "u32";
    }
}

/* A value to store may be a constant: then it is an array first. */
static void write_value_array(struct translator *t, int32_t slot, unsigned k)
{
    char name[64];

    if (ptx_is_register(t, slot))
        return;
    ptx_lane_name(t, slot, name);
    fprintf(t->out, "n_u64 v%u[32] AL; for (int l = 0; l < 32; l++) v%u[l] = %s;\n", k, k, name);
}

static void write_element(struct translator *t, const struct ptx_insn *i, int32_t slot, unsigned k, const char *where)
{
    bool load = i->exec == ptx_ld, constant = !ptx_is_register(t, slot);
    unsigned width = constant || t->slots[slot].width == 64 ? 64 : 32, bytes = ptx_bytes(i->type);
    const char *type = memory_type(i);
    char text[64], from[24];

    snprintf(from, sizeof(from), "v%u", k);
    if (width == 32 && bytes == 4)
        type = "u32";
    if (i->nr == 1 && load)
        fprintf(t->out, "if (!ld_%s_%u(w, g, %s, &x, %s)) return 0;\n", type, width, where, ptx_array(t, slot, text));
    else if (i->nr == 1)
        fprintf(t->out, "if (!st_%u_%u(w, g, %s, &x, %s)) return 0;\n", bytes * 8, width, where,
                constant ? from : ptx_array(t, slot, text));
    else if (load)
        fprintf(t->out, "if (g >> l & 1) %s[l] = (n_u%u)(n_%s%u)*(volatile n_%s *)(P[l] + %u);\n", ptx_array(t, slot, text), width,
                type[0] == 's' ? "s" : "u", width, type, k * bytes);
    else
        fprintf(t->out, "if (g >> l & 1) *(volatile n_u%u *)(P[l] + %u) = (n_u%u)%s[l];\n", bytes * 8, k * bytes, bytes * 8,
                constant ? from : ptx_array(t, slot, text));
}

static void write_memory(struct translator *t, const struct ptx_insn *i)
{
    char guard[128], where[PTX_TEXT];
    int32_t one = i->d;
    const int32_t *elements = i->list < 0 ? &one : t->m->lists + i->list;
    unsigned wide = !ptx_is_register(t, i->a) ? 2 : t->slots[i->a].width == 64;

    fprintf(t->out, "{ n_u32 g = %s; static const struct n_access x = { %u, %u, %u, %u, 0x%llxull };\n", guarded(t, i, guard), i->space, wide,
            t->sites, t->pc, (unsigned long long)i->off);
    ptx_shape(t, i->a, where);
    for (unsigned k = 0; i->exec == ptx_st && k < i->nr; k++)
        write_value_array(t, elements[k], k);
    if (i->nr > 1)
        fprintf(t->out, "n_u8 *P[32] AL; if (!places(w, g, %s, &x, %u, P)) return 0;\nfor (int l = 0; l < 32; l++) {\n", where,
                ptx_bytes(i->type) * i->nr);
    for (unsigned k = 0; k < i->nr; k++)
        write_element(t, i, elements[k], k, where);
    fprintf(t->out, i->nr > 1 ? "} }\n" : "}\n");
    t->sites++;
}

static uint64_t fixed_address(const struct translator *t, int32_t slot)
{
    const struct ptx_constant *c = t->slots[slot].constant;

    return c->value + (c->fill == FILL_LOCAL ? t->m->local_bytes : 0);
}

/* To a block; backwards the budget is looked at, and who is met next. */
static void write_jump(struct translator *t, uint32_t target)
{
    if (target <= t->pc)
        fprintf(t->out, "BACK(%u); ", target);
    fprintf(t->out, "goto L%u;\n", target);
}

static void write_branch(struct translator *t, const struct ptx_insn *i)
{
    char guard[128];

    if (i->pred < 0)
        return write_jump(t, i->target);
    fprintf(t->out, "{ n_u32 g = %s; if (g == m) { ", guarded(t, i, guard));
    write_jump(t, i->target);
    fprintf(t->out, "} if (g) { set_pc(w, m, %u); set_pc(w, g, %u); return 0; } }\n", t->pc + 1, i->target);
}

static void write_call(struct translator *t, const struct ptx_insn *i)
{
    const struct ptx_kernel *f = t->m->functions[i->target];

    fprintf(t->out, "for (int l = 0; l < 32; l++) if (m >> l & 1) w->regs[%u + l] = %u;\n", (unsigned)f->return_slot * PTX_LANES,
            t->pc + 1);
    write_jump(t, f->first);
}

/* All lanes to one place, or each to its own. */
static void write_return(struct translator *t, const struct ptx_insn *i)
{
    unsigned slot = (unsigned)t->m->functions[i->target]->return_slot * PTX_LANES;

    fprintf(t->out, "{ n_u64 to = w->regs[%u + __builtin_ctz(m)]; int same = 1;\n"
            "for (int l = 0; l < 32; l++) if (m >> l & 1) { same &= w->regs[%u + l] == to; w->pc[l] = (n_u32)w->regs[%u + l]; }\n"
            "if (!same || others) return 0;\npc = (n_u32)to; meeting = ~0u; if (*budget < 0) { w->exhausted = 1; return 0; } "
            "goto again; }\n", slot, slot, slot);
}

/* The frequent ones, where all 32 lanes are there; false: it is none. Their registers lie in the frame. */
static bool write_exchange(struct translator *t, const struct ptx_insn *i)
{
    static const char *const modes[] = { [M_UP] = "N_UP", [M_DOWN] = "N_DOWN", [M_BFLY] = "N_BFLY", [M_IDX] = "N_IDX",
                                         [M_ALL] = "N_ALL", [M_ANY] = "N_ANY", [M_UNI] = "N_UNI", [M_BALLOT] = "N_BALLOT" };
    char a[64], b[PTX_TEXT], c[PTX_TEXT], d[64], d2[64];

    if ((i->exec != ptx_vote && i->exec != ptx_shfl) || !ptx_is_register(t, i->a) || t->slots[i->a].width == 64 || t->slots[i->d].width == 64)
        return false;
    ptx_array(t, i->a, a);
    ptx_array(t, i->d, d);
    if (i->exec == ptx_vote) {
        fprintf(t->out, "if (g == ~0u) vote(%s, %sbits(%s), %s); else ", modes[i->mode], i->flags & F_NEG_C ? "~" : "", a, d);
        return true;
    }
    if (!ptx_one_for_all(t, i->b, b) || !ptx_one_for_all(t, i->c, c))
        return false;
    fprintf(t->out, "if (g == ~0u) shuffle(%s, %s, (n_u32)%s, (n_u32)%s, %s, %s); else ", modes[i->mode], a, b, c, d,
            i->d2 >= 0 ? ptx_array(t, i->d2, d2) : "0");
    return true;
}

/* An instruction of the whole warp: here if all lanes that its mask names are. */
static void write_warp(struct translator *t, const struct ptx_insn *i)
{
    int32_t mask = ptx_mask_slot(i);
    char name[64], guard[128];

    fprintf(t->out, "{ n_u32 g = %s; ", guarded(t, i, guard));
    if (mask >= 0) {
        if (ptx_is_register(t, mask))
            fprintf(t->out, "n_u32 want = g ? %s[__builtin_ctz(g)] : 0, differs = 0;\n"
                    "for (int l = 0; l < 32; l++) differs |= (%s[l] ^ want) & (0 - (g >> l & 1)); want &= *w->alive;\n",
                    ptx_array(t, mask, name), name);
        else
            fprintf(t->out, "n_u32 want = (n_u32)%s & *w->alive, differs = 0;\n", ptx_lane_name(t, mask, name));
        fprintf(t->out, "if (g && (differs || (g & want) != want)) { w->at = %u; w->mask = m; return 1; }\n", t->pc);
    }
    if (i->exec) {
        write_exchange(t, i);
        fprintf(t->out, "if (g && !w->exec(w, %u, g)) return 0;\n", t->pc);
    }
    fprintf(t->out, "}\n");
}

static void write_instruction(struct translator *t, const struct ptx_insn *i, enum how how)
{
    char guard[128];

    switch (how) {
    case H_MEMORY: write_memory(t, i); break;
    case H_COPY:
        fprintf(t->out, "copy_local(w, m, 0x%llxull, 0x%llxull, 0x%llxull);\n", (unsigned long long)fixed_address(t, i->d),
                (unsigned long long)fixed_address(t, i->a), (unsigned long long)i->off);
        break;
    case H_EXEC: fprintf(t->out, "{ n_u32 g = %s; if (g && !w->exec(w, %u, g)) return 0; }\n", guarded(t, i, guard), t->pc); break;
    case H_BRANCH: write_branch(t, i); break;
    case H_CALL: write_call(t, i); break;
    case H_RETURN: write_return(t, i); break;
    case H_WARP: write_warp(t, i); break;
    case H_CONTROL: break;
    default: break;
    }
    if (how != H_COPY && how != H_CALL)
        ptx_shapes_follow(t, i);
    if (how == H_CONTROL)
        fprintf(t->out, "w->at = %u; w->mask = m; return 1;\n", t->pc);
}

/* One basic block; where it ends without a jump, the next follows in the text. */
static uint32_t write_block(struct translator *t, uint32_t pc)
{
    uint32_t end = pc + 1;

    while (end < t->m->nr_code && in_code(t, end) && !t->leader[end])
        end++;
    fprintf(t->out, "L%u: if (%uu >= meeting) { set_pc(w, m, %u); return 0; } *budget -= %u;\n{ ", pc, pc, pc, end - pc);
    write_block_arrays(t, pc);
    while (pc < end) {
        const struct ptx_insn *i = &t->m->code[t->order[pc]];
        enum how how = ptx_how(t, i);
        t->pc = t->order[pc];
        if (how == H_LANES) {
            pc = write_loop(t, pc);
            continue;
        }
        write_instruction(t, i, how);
        pc++;
    }
    fprintf(t->out, "}\n");
    if (end >= t->m->nr_code || !in_code(t, end))
        fprintf(t->out, "__builtin_unreachable();\n"); /* a body ends with ret */
    return end;
}

static void write_constants(struct translator *t)
{
    for (unsigned s = 0; s < t->nr_slots; s++) {
        const struct ptx_constant *c = t->slots[s].constant;
        if (c && !ptx_is_register(t, (int32_t)s) && c->fill != FILL_VALUE && c->fill != FILL_FRAME && c->fill != FILL_LOCAL &&
            c->fill != FILL_SHARED)
            fprintf(t->out, "const n_u64 c%u = w->regs[%u]; (void)c%u;\n", s, s * PTX_LANES, s);
    }
}

static void write_kernel(struct translator *t)
{
    fprintf(t->out, "#define AL __attribute__((aligned(64)))\n"
            "#define BACK(to) do { if (*budget < 0) { set_pc(w, m, to); w->exhausted = 1; return 0; } "
            "__asm__ volatile(\"\" ::: \"memory\"); if (others) meeting = w->meeting(w, m, to); } while (0)\n"
            "n_run ptx_translated;\nint ptx_translated(struct n_warp *w, n_u32 m, n_u32 pc, n_u32 meeting, int others, long *budget)\n"
            "{\nn_u32 *restrict r32 = w->r32; n_u64 *restrict r64 = w->r64; (void)r32; (void)r64;\n"
            "struct n_shape *restrict S = w->shapes; (void)S;\nn_u32 M[32] AL;\n"
            "for (int l = 0; l < 32; l++) M[l] = m >> l & 1;\n");
    write_constants(t);
    fprintf(t->out, "goto again; again:\nswitch (pc) {\n");
    for (uint32_t pc = 0; pc < t->m->nr_code; pc++)
        if (in_code(t, pc) && t->leader[pc])
            fprintf(t->out, "case %u: goto L%u;\n", pc, pc);
    fprintf(t->out, "default: __builtin_trap();\n}\n");
    for (uint32_t pc = 0; pc < t->m->nr_code;)
        pc = in_code(t, pc) ? write_block(t, pc) : pc + 1;
    fprintf(t->out, "}\n");
}

char *ptx_translate(const struct ptx_kernel *k, struct translator *t, const char **why)
{
    const struct ptx_module *m = k->module;
    char *text = NULL;
    size_t bytes = 0;
    unsigned long nr = 0;

    *why = "out of memory";
    *t = (struct translator){ .k = k, .m = m, .nr_slots = k->slots };
    t->leader = calloc(m->nr_code + 1u, 1);
    t->reached = calloc(m->nr_code + 1u, 1);
    t->slots = calloc(k->slots + 1u, sizeof(*t->slots));
    if (!t->leader || !t->reached || !t->slots || !reach(t, k, why))
        return NULL;
    for (uint32_t pc = 0; pc < m->nr_code; pc++)
        nr += t->reached[pc];
    if (nr > INSTRUCTIONS_MAX) {
        *why = "it is too long";
        return NULL;
    }
    for (unsigned f = 0; f < m->nr_functions; f++)
        if (m->functions[f]->defined && (m->functions[f] == k || !m->functions[f]->entry))
            describe_slots(t, m->functions[f]);
    find_leaders(t);
    if (!ptx_order(t))
        return NULL;
    place_slots(t);
    ptx_shapes_find(t);
    t->out = open_memstream(&text, &bytes);
    if (!t->out)
        return NULL;
    write_kernel(t);
    fclose(t->out);
    t->out = NULL;
    return text;
}

void ptx_translate_end(struct translator *t)
{
    free(t->leader);
    free(t->reached);
    free(t->order);
    free(t->slots);
}
