/* SPDX-License-Identifier: Apache-2.0 */
/* Which slots an instruction reads and writes, and how it is best translated. */
#include "ptx_translate.h"

static unsigned add(int32_t *out, unsigned nr, int32_t slot)
{
    if (slot >= 0 && nr < PTX_OPERANDS_MAX)
        out[nr++] = slot;
    return nr;
}

static unsigned add_list(const struct translator *t, int32_t *out, unsigned nr, const struct ptx_insn *i, unsigned first,
                         unsigned end)
{
    for (unsigned k = first; k < end; k++)
        nr = add(out, nr, t->m->lists[i->list + (int32_t)k]);
    return nr;
}

/* Its destination operand is an address, or a value that goes to memory. */
static bool reads_all(const struct ptx_insn *i)
{
    return i->exec == ptx_st || i->exec == ptx_stasync || i->exec == ptx_cpbulk || i->exec == ptx_sust || i->exec == ptx_pcopy || i->exec == ptx_presult || i->exec == ptx_vprintf ||
           i->exec == ptx_assertfail || i->exec == ptx_setcondition || i->exec == ptx_malloc || i->exec == ptx_free;
}

/* The first `mode` registers of its list are results. */
static bool results_first(const struct ptx_insn *i)
{
    return i->exec == ptx_tex || i->exec == ptx_suld || ptx_is_matrix(i);
}

unsigned ptx_uses(const struct translator *t, const struct ptx_insn *i, int32_t *out)
{
    unsigned nr = add(out, 0, i->pred);

    nr = add(out, nr, i->a);
    nr = add(out, nr, i->b);
    nr = add(out, nr, i->c);
    nr = add(out, nr, i->e);
    if (reads_all(i))
        nr = add(out, nr, i->d);
    if (i->list < 0 || i->op == OP_BRX || i->exec == ptx_ld || i->exec == ptx_unpack)
        return nr;
    if (results_first(i))
        return add_list(t, out, nr, i, i->mode, i->nr);
    return add_list(t, out, nr, i, 0, i->nr);
}

unsigned ptx_defs(const struct translator *t, const struct ptx_insn *i, int32_t *out)
{
    unsigned nr = 0;

    if (reads_all(i))
        return 0;
    if (i->exec == ptx_atom && i->list >= 0)
        return i->d2 < 0 ? 0 : add_list(t, out, nr, i, i->nr, 2u * i->nr);
    nr = add(out, nr, i->d);
    nr = add(out, nr, i->d2);
    if (results_first(i))
        return add_list(t, out, nr, i, 0, i->mode);
    return (i->exec == ptx_ld && i->list >= 0) || i->exec == ptx_unpack ? add_list(t, out, nr, i, 0, i->nr) : nr;
}

bool ptx_is_register(const struct translator *t, int32_t slot)
{
    const struct ptx_constant *c = t->slots[slot].constant;

    if (!c)
        return true;
    switch (c->fill) { /* what differs between lanes is kept like a register */
    case FILL_TID: case FILL_LANE: case FILL_MASK_EQ: case FILL_MASK_LT: case FILL_MASK_LE: case FILL_MASK_GT: case FILL_MASK_GE:
        return true;
    default:
        return false;
    }
}

static bool fixed(const struct translator *t, int32_t slot)
{
    const struct ptx_constant *c = t->slots[slot].constant;

    return c && (c->fill == FILL_VALUE || c->fill == FILL_LOCAL || c->fill == FILL_FRAME);
}

enum how ptx_how(const struct translator *t, const struct ptx_insn *i)
{
    switch (i->op) {
    case OP_NOP: return H_NOTHING;
    case OP_BRA: return H_BRANCH;
    case OP_CALL: return i->a < 0 && i->pred < 0 ? H_CALL : H_CONTROL;
    case OP_RET: return i->pred < 0 && !t->m->functions[i->target]->entry ? H_RETURN : H_CONTROL;
    case OP_WARPSYNC: return H_WARP;
    case OP_EXEC: break;
    default: return H_CONTROL;
    }
    if (i->exec == ptx_ld || i->exec == ptx_st)
        return i->type == T_B128 ? H_EXEC : H_MEMORY;
    if (i->exec == ptx_pcopy)
        return i->pred < 0 && fixed(t, i->d) && fixed(t, i->a) ? H_COPY : H_EXEC;
    return ptx_lane_supported(t, i) ? H_LANES : H_EXEC;
}

bool ptx_ends_block(const struct ptx_insn *i, enum how how)
{
    return how == H_BRANCH || how == H_CALL || how == H_RETURN || how == H_CONTROL || (how == H_WARP && i->op == OP_WARPSYNC);
}
