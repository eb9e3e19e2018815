/* SPDX-License-Identifier: Apache-2.0 */
/* What the words of a matrix instruction say; whatever is not listed here is refused by name and line. */
#define _GNU_SOURCE
#include "ptx_matrix.h"

static const struct { const char *name; ptx_exec *exec; } kinds[] = {
    [X_LDMATRIX] = { "ldmatrix", ptx_ldmatrix }, [X_STMATRIX] = { "stmatrix", ptx_stmatrix },
    [X_MOVMATRIX] = { "movmatrix", ptx_movmatrix },
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

const char *ptx_matrix_name(int32_t kind)
{
    return kinds[kind].name;
}

bool ptx_is_matrix(const struct ptx_insn *i)
{
    for (size_t k = 0; k < KINDS; k++)
        if (i->exec && i->exec == kinds[k].exec)
            return true;
    return false;
}

/* ---- words ---- */

struct said {                        /* by the words behind the instruction's name */
    struct matrix x;
    bool sync, aligned, b16;
    unsigned count;                  /* .x1 .x2 .x4 */
    int space;
};

static bool word_is(const char *word, size_t len, const char *text)
{
    return strlen(text) == len && !memcmp(word, text, len);
}

static bool shape(const char *word, size_t len, struct matrix *x)
{
    int32_t *const sizes[] = { &x->m, &x->n, &x->k };
    const char *const letters = "mnk";
    unsigned at = 0;

    for (size_t c = 0; c < len; c++) {
        if (at < 3 && word[c] == letters[at])
            *sizes[at++] = 0;
        else if (at && word[c] >= '0' && word[c] <= '9' && *sizes[at - 1] < 1000)
            *sizes[at - 1] = *sizes[at - 1] * 10 + word[c] - '0';
        else
            return false;
    }
    return at >= 2;
}

static bool modifier(const char *word, size_t len, struct said *s)
{
    static const struct { const char *name; int32_t flag; } flags[] = { { "trans", MATRIX_TRANS } };

    for (size_t k = 0; k < sizeof(flags) / sizeof(flags[0]); k++)
        if (word_is(word, len, flags[k].name)) {
            s->x.flags |= flags[k].flag;
            return true;
        }
    if (word_is(word, len, "sync"))
        s->sync = true;
    else if (word_is(word, len, "aligned"))
        s->aligned = true;
    else if (word_is(word, len, "b16"))
        s->b16 = true;
    else if (word_is(word, len, "shared") || word_is(word, len, "shared::cta"))
        s->space = S_SHARED;
    else if (len == 2 && word[0] == 'x' && (word[1] == '1' || word[1] == '2' || word[1] == '4'))
        s->count = (unsigned)(word[1] - '0');
    else
        return shape(word, len, &s->x);
    return true;
}

static bool modifiers(const struct ptx_parser *p, size_t name_len, struct said *s)
{
    const char *at = p->insn_text + name_len, *end = p->insn_text + p->insn_len;

    while (at < end) {
        const char *next = memchr(at + 1, '.', (size_t)(end - at - 1));
        if (!modifier(at + 1, (size_t)((next ? next : end) - at - 1), s))
            return false;
        at = next ? next : end;
    }
    return s->sync && s->aligned;
}

/* ---- operands: all registers in one list, results first ---- */

static unsigned add_registers(struct ptx_parser *p, struct ptx_insn *i, const struct ptx_operand *o)
{
    unsigned nr = o->kind == O_VECTOR ? o->nr : o->kind == O_SLOT && o->slot >= 0;

    for (unsigned k = 0; k < nr; k++)
        ptx_add_list(p, o->kind == O_VECTOR ? p->module->lists[o->list + (int32_t)k] : o->slot);
    i->nr = (uint8_t)(i->nr + nr);
    return nr;
}

static bool address(struct ptx_insn *i, const struct ptx_operand *o, const struct said *s)
{
    i->a = o->slot;
    i->off = o->off;
    i->space = (uint8_t)(s->space >= 0 ? s->space : o->space >= 0 ? o->space : S_GENERIC);
    return o->kind == O_ADDRESS && o->at_list < 0;
}

/* ldmatrix r, [p]; stmatrix [p], r; movmatrix d, a. */
static bool eights(struct ptx_parser *p, struct ptx_insn *i, struct said *s, const struct ptx_operand *o, unsigned nr)
{
    bool load = s->x.kind == X_LDMATRIX, move = s->x.kind == X_MOVMATRIX;

    if (s->x.m != 8 || s->x.n != 8 || s->x.k || !s->b16 || nr != 2 || !s->count == !move ||
        (move && (s->space >= 0 || !(s->x.flags & MATRIX_TRANS))))
        return false;
    if (move)
        return (i->mode = 1) && add_registers(p, i, &o[0]) == 1 && add_registers(p, i, &o[1]) == 1;
    if (!address(i, &o[load], s) || (i->space != S_SHARED && i->space != S_GENERIC) || add_registers(p, i, &o[!load]) != s->count)
        return false;
    i->mode = load ? i->nr : 0;
    return true;
}

static bool form(struct ptx_parser *p, struct ptx_insn *i, struct said *s, const struct ptx_operand *o, unsigned nr)
{
    return eights(p, i, s, o, nr);
}

bool ptx_matrix_word(const char *text, size_t len)
{
    for (size_t k = 0; k < KINDS; k++)
        if (word_is(text, len, kinds[k].name))
            return true;
    return false;
}

void ptx_matrix(struct ptx_parser *p, struct ptx_insn *i, size_t len, const struct ptx_operand *o, unsigned nr)
{
    struct said s = { .space = -1 };
    int32_t words[MATRIX_WORDS];

    while (!word_is(p->insn_text, len, kinds[s.x.kind].name))
        s.x.kind++;
    *i = (struct ptx_insn){ .exec = kinds[s.x.kind].exec, .op = OP_WARPSYNC, .line = i->line, .pred = i->pred, .pred_neg = i->pred_neg,
                            .d = -1, .d2 = -1, .a = -1, .b = -1, .c = -1, .list = p->module->nr_lists,
                            .e = ptx_constant_slot(p, FILL_VALUE, UINT32_MAX) }; /* waits for all lanes */
    if (!modifiers(p, len, &s) || !form(p, i, &s, o, nr))
        return ptx_unsupported(p);
    memcpy(words, &s.x, sizeof(words));
    for (size_t k = 0; k < MATRIX_WORDS; k++)
        ptx_add_list(p, words[k]);
}
