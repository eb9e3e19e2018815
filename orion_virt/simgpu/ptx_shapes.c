/* SPDX-License-Identifier: Apache-2.0 */
/* Which registers address memory, and which of their changes leave their shape (struct n_shape): what is the same for all
 * lanes of the launch is added. Others are looked at anew at their next access. */
#include <stdlib.h>

#include "ptx_translate.h"

static bool one_for_all(const struct translator *t, int32_t slot)
{
    return slot >= 0 && (!ptx_is_register(t, slot) || t->slots[slot].launch);
}

/* Gives the same in whatever lane, whenever: of such operands, or of a kernel's parameters. */
static bool gives_one(const struct translator *t, const struct ptx_insn *i)
{
    int32_t slots[PTX_OPERANDS_MAX];
    unsigned nr = ptx_uses(t, i, slots);

    if (i->pred >= 0 || (ptx_how(t, i) != H_LANES && !(i->exec == ptx_ld && i->space == S_PARAM && i->nr == 1)))
        return false;
    for (unsigned k = 0; k < nr; k++)
        if (!one_for_all(t, slots[k]))
            return false;
    return true;
}

/* Registers with one definition that gives the same for all. */
static void find_launch_constants(struct translator *t)
{
    uint8_t *definitions = calloc(t->nr_slots + 1u, 1);
    int32_t slots[PTX_OPERANDS_MAX];
    bool found = definitions;

    for (uint32_t pc = 0; definitions && pc < t->m->nr_code; pc++) {
        unsigned nr = t->reached[pc] ? ptx_defs(t, &t->m->code[pc], slots) : 0;
        for (unsigned k = 0; k < nr; k++)
            definitions[slots[k]] = definitions[slots[k]] ? 2 : 1;
    }
    while (found) {
        found = false;
        for (uint32_t pc = 0; pc < t->m->nr_code; pc++) {
            const struct ptx_insn *i = &t->m->code[pc];
            unsigned nr = t->reached[pc] ? ptx_defs(t, i, slots) : 0;
            if (nr != 1 || definitions[slots[0]] != 1 || t->slots[slots[0]].launch || !gives_one(t, i))
                continue;
            t->slots[slots[0]].launch = found = true;
        }
    }
    free(definitions);
}

void ptx_shapes_find(struct translator *t)
{
    for (uint32_t pc = 0; pc < t->m->nr_code; pc++) {
        const struct ptx_insn *i = &t->m->code[pc];
        if (!t->reached[pc] || ptx_how(t, i) != H_MEMORY || !ptx_is_register(t, i->a) || t->slots[i->a].shape)
            continue;
        t->slots[i->a].shape = ++t->nr_shapes;
    }
    find_launch_constants(t);
}

bool ptx_one_for_all(const struct translator *t, int32_t slot, char *text)
{
    char name[64];

    if (!one_for_all(t, slot) || t->slots[slot].place == P_SCALAR)
        return false;
    if (ptx_is_register(t, slot))
        snprintf(text, PTX_TEXT, "%s[__builtin_ctz(m)]", ptx_array(t, slot, name)); /* others may not have come by its definition */
    else
        snprintf(text, PTX_TEXT, "%s", ptx_lane_name(t, slot, name));
    return true;
}

/* The register of a sum's operands whose shape the sum has, and the text of what is added; -1: it has none's. */
static int32_t source(const struct translator *t, const struct ptx_insn *i, char *more)
{
    bool sum = i->exec == ptx_add, difference = i->exec == ptx_sub, copy = i->exec == ptx_mov;
    int32_t from = i->a, by = i->b;
    char value[PTX_TEXT];

    if (i->pred >= 0 || ptx_how(t, i) != H_LANES || !(sum || difference || copy))
        return -1;
    if (copy)
        by = -1;
    if (sum && one_for_all(t, from))
        from = i->b, by = i->a;
    if (!ptx_is_register(t, from) || !t->slots[from].shape || t->slots[from].width != t->slots[i->d].width)
        return -1;
    if (copy)
        return snprintf(more, 2 * PTX_TEXT, "0"), from;
    if (ptx_bytes(i->type) * 8 != t->slots[i->d].width || !ptx_one_for_all(t, by, value))
        return -1;
    snprintf(more, 2 * PTX_TEXT, "%s%s", difference ? "0 - " : "", value);
    return from;
}

void ptx_shapes_follow(struct translator *t, const struct ptx_insn *i)
{
    int32_t slots[PTX_OPERANDS_MAX];
    unsigned nr = ptx_defs(t, i, slots);
    char more[2 * PTX_TEXT];

    for (unsigned k = 0; k < nr; k++) {
        const struct slot_info *s = &t->slots[slots[k]];
        int32_t from = s->shape ? source(t, i, more) : -1;
        if (!s->shape)
            continue;
        if (from < 0)
            fprintf(t->out, "S[%u].mask = 0;\n", s->shape - 1);
        else
            fprintf(t->out, "shape_add_%u(&S[%u], &S[%u], m, %s);\n", s->width, s->shape - 1, t->slots[from].shape - 1, more);
    }
}

const char *ptx_shape(struct translator *t, int32_t slot, char *text)
{
    const struct slot_info *s = &t->slots[slot];
    char name[64];

    if (!ptx_is_register(t, slot)) {
        fprintf(t->out, "struct n_shape one; shape_one(&one, m, %s);\n", ptx_lane_name(t, slot, name));
        snprintf(text, PTX_TEXT, "&one, 0");
        return text;
    }
    ptx_array(t, slot, name);
    fprintf(t->out, "if (S[%u].mask != m) shape_%u(w, &S[%u], m, %s);\n", s->shape - 1, s->width, s->shape - 1, name);
    snprintf(text, PTX_TEXT, "&S[%u], %s", s->shape - 1, name);
    return text;
}
