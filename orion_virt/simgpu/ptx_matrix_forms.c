/* SPDX-License-Identifier: Apache-2.0 */
/* What the words of a matrix instruction say; whatever is not listed here is refused by name and line. */
#define _GNU_SOURCE
#include "ptx_matrix.h"

static const struct { const char *name; ptx_exec *exec; } kinds[] = {
    [X_LDMATRIX] = { "ldmatrix", ptx_ldmatrix }, [X_STMATRIX] = { "stmatrix", ptx_stmatrix },
    [X_MOVMATRIX] = { "movmatrix", ptx_movmatrix }, [X_MMA] = { "mma", ptx_mma },
    [X_WMMA_LOAD] = { "wmma.load", ptx_wmmaload }, [X_WMMA_STORE] = { "wmma.store", ptx_wmmastore },
    [X_WMMA_MMA] = { "wmma.mma", ptx_mma },
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
    bool sync, aligned, b16, nearest;
    unsigned nr_roles;               /* x.role: the last of them */
    unsigned count;                  /* .x1 .x2 .x4 */
    char layouts[3];                 /* r or c, in their order */
    unsigned nr_layouts, nr_types;
    int32_t types[4];
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

static bool element(const char *word, size_t len, struct said *s)
{
    static const struct { const char *name; int32_t type; } types[] = {
        { "f16", E_F16 }, { "bf16", E_BF16 }, { "tf32", E_TF32 }, { "f32", E_F32 }, { "f64", E_F64 }, { "s8", E_S8 }, { "u8", E_U8 },
        { "s4", E_S4 }, { "u4", E_U4 }, { "b1", E_B1 }, { "e4m3", E_E4M3 }, { "e5m2", E_E5M2 }, { "s32", E_S32 },
    };

    for (size_t k = 0; k < sizeof(types) / sizeof(types[0]); k++)
        if (s->nr_types < 4 && word_is(word, len, types[k].name)) {
            s->types[s->nr_types++] = types[k].type;
            return true;
        }
    return false;
}

static bool layout(const char *word, size_t len, struct said *s)
{
    if (s->nr_layouts == 2 || !(word_is(word, len, "row") || word_is(word, len, "col")))
        return false;
    s->layouts[s->nr_layouts++] = word[0];
    return true;
}

static bool modifier(const char *word, size_t len, struct said *s)
{
    static const struct { const char *name; int32_t flag; } flags[] = {
        { "trans", MATRIX_TRANS }, { "satfinite", MATRIX_SATFINITE }, { "xor", MATRIX_XOR }, { "and", MATRIX_AND },
        { "popc", MATRIX_POPC },
    };

    if (element(word, len, s) || layout(word, len, s))
        return true;
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
    else if (word_is(word, len, "rn"))
        s->nearest = true;
    else if (len == 1 && word[0] >= 'a' && word[0] <= 'd' && ++s->nr_roles)
        s->x.role = word[0] == 'd' ? X_D : X_A + word[0] - 'a';
    else if (word_is(word, len, "global"))
        s->space = S_GLOBAL;
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
    bool shaped = s->x.m == 8 && s->x.n == 8 && !s->x.k && s->b16;
    bool other = s->nr_types || s->nr_layouts || s->nr_roles || s->nearest || s->x.flags & ~MATRIX_TRANS;

    if (!shaped || other || nr != 2 || !s->count == !move || (move && (s->space >= 0 || !(s->x.flags & MATRIX_TRANS))))
        return false;
    if (move)
        return (i->mode = 1) && add_registers(p, i, &o[0]) == 1 && add_registers(p, i, &o[1]) == 1;
    if (!address(i, &o[load], s) || (i->space != S_SHARED && i->space != S_GENERIC) || add_registers(p, i, &o[!load]) != s->count)
        return false;
    i->mode = load ? i->nr : 0;
    return true;
}

/* ---- products ---- */

/* Types that are told apart only by how an element's bits are read. */
static int32_t family(int32_t type)
{
    return type == E_U8 ? E_S8 : type == E_U4 ? E_S4 : type == E_E5M2 ? E_E4M3 : type;
}

static bool shape_exists(const struct matrix *x, int32_t type)
{
    static const struct exists { int16_t m, n, k, type; } wmma[] = {
        { 16, 16, 16, E_F16 }, { 32, 8, 16, E_F16 }, { 8, 32, 16, E_F16 }, { 16, 16, 16, E_BF16 }, { 32, 8, 16, E_BF16 },
        { 8, 32, 16, E_BF16 }, { 16, 16, 16, E_S8 }, { 32, 8, 16, E_S8 }, { 8, 32, 16, E_S8 }, { 16, 16, 8, E_TF32 },
        { 8, 8, 4, E_F64 }, { 8, 8, 32, E_S4 }, { 8, 8, 128, E_B1 },
    }, mma[] = {
        { 16, 8, 8, E_F16 }, { 16, 8, 16, E_F16 }, { 16, 8, 8, E_BF16 }, { 16, 8, 16, E_BF16 }, { 16, 8, 4, E_TF32 }, { 16, 8, 8, E_TF32 },
        { 8, 8, 4, E_F64 }, { 16, 8, 4, E_F64 }, { 16, 8, 8, E_F64 }, { 16, 8, 16, E_F64 }, { 8, 8, 16, E_S8 }, { 16, 8, 16, E_S8 },
        { 16, 8, 32, E_S8 }, { 8, 8, 32, E_S4 }, { 16, 8, 32, E_S4 }, { 16, 8, 64, E_S4 }, { 8, 8, 128, E_B1 }, { 16, 8, 128, E_B1 },
        { 16, 8, 256, E_B1 }, { 16, 8, 16, E_E4M3 }, { 16, 8, 32, E_E4M3 },
    };
    bool of_mma = x->kind == X_MMA;
    const struct exists *at = of_mma ? mma : wmma, *end = at + (of_mma ? sizeof(mma) : sizeof(wmma)) / sizeof(*at);

    while (at < end && (at->m != x->m || at->n != x->n || at->k != x->k || at->type != type))
        at++;
    return at < end;
}

/* A type that C and D may have where A is of this one. */
static bool accumulates(int32_t type, int32_t sum)
{
    switch (type) {
    case E_F16: case E_E4M3: return sum == E_F16 || sum == E_F32;
    case E_BF16: case E_TF32: return sum == E_F32;
    case E_F64: return sum == E_F64;
    default: return sum == E_S32;
    }
}

unsigned ptx_matrix_registers(const struct matrix *x, enum matrix_role role)
{
    if (x->kind != X_MMA && x->type[role] == E_F16 && (role == X_A || role == X_B)) /* of any shape: elements may repeat */
        return 8;
    return (unsigned)((role == X_B ? x->k : x->m) * (role == X_A ? x->k : x->n)) / (PTX_LANES * ptx_elements(x->type[role]));
}

static bool flags_fit(const struct matrix *x, int32_t type)
{
    int32_t bits = x->flags & ~MATRIX_SATFINITE;

    if (x->flags & MATRIX_SATFINITE && type != E_S8 && type != E_S4)
        return false;
    return type == E_B1 ? bits == (MATRIX_XOR | MATRIX_POPC) || bits == (MATRIX_AND | MATRIX_POPC) : !bits;
}

static bool layouts_fit(const struct said *s, int32_t type)
{
    bool any = s->x.kind == X_WMMA_MMA && ptx_element_bits(type) >= 8; /* elements smaller than a byte lie along k */

    return s->nr_layouts == 2 && (any || (s->layouts[0] == 'r' && s->layouts[1] == 'c'));
}

/* mma.SHAPE.row.col.D.A.B.C and wmma.mma.ROW.COL.SHAPE.D.A.B.C d, a, b, c; of f16 wmma names only D and C. */
static bool product(struct ptx_parser *p, struct ptx_insn *i, struct said *s, const struct ptx_operand *o, unsigned nr)
{
    bool wmma = s->x.kind == X_WMMA_MMA, halves = wmma && s->nr_types == 2;
    const int32_t named[X_ROLES] = { s->types[0], halves ? E_F16 : s->types[1], halves ? E_F16 : s->types[2], s->types[halves ? 1 : 3] };
    int32_t type = family(named[X_A]);

    memcpy(s->x.type, named, sizeof(named));
    if (nr != 4 || (s->nr_types != 4 && !halves) || s->b16 || s->count || s->space >= 0 || s->nr_roles ||
        (s->nearest && !(wmma && type == E_F64)) || !layouts_fit(s, type) || !shape_exists(&s->x, type) ||
        family(named[X_B]) != type || !accumulates(type, named[X_D]) || !accumulates(type, named[X_C]) ||
        (named[X_D] != named[X_C] && !halves) || !flags_fit(&s->x, type))
        return false;
    for (unsigned role = 0; role < X_ROLES; role++) {
        s->x.nr[role] = (int32_t)add_registers(p, i, &o[role]);
        if ((unsigned)s->x.nr[role] != ptx_matrix_registers(&s->x, role))
            return false;
    }
    i->mode = (uint8_t)s->x.nr[X_D];
    return true;
}

static bool shape_holds(const struct matrix *x, int32_t type)
{
    if (x->role == X_A || x->role == X_B)
        return shape_exists(x, family(type));
    for (int32_t a = E_F16; a <= E_S32; a++)
        if (accumulates(a, type) && shape_exists(x, a))
            return true;
    return false;
}

/* wmma.load.ROLE.sync.aligned.LAYOUT.SHAPE.SPACE.TYPE r, [p], stride; wmma.store.d... [p], r, stride; */
static bool transfer(struct ptx_parser *p, struct ptx_insn *i, struct said *s, const struct ptx_operand *o, unsigned nr)
{
    bool load = s->x.kind == X_WMMA_LOAD, along = s->nr_layouts && s->layouts[0] == (s->x.role == X_B ? 'c' : 'r');

    if (nr < 2 || nr > 3 || s->nr_roles != 1 || load == (s->x.role == X_D) || s->nr_types != 1 || s->nr_layouts != 1 || s->b16 ||
        s->count || s->x.flags || s->nearest || !shape_holds(&s->x, s->types[0]) || (ptx_element_bits(s->types[0]) < 8 && !along) ||
        (nr == 3 && (o[2].kind != O_SLOT || o[2].slot < 0)) || !address(i, &o[load], s))
        return false;
    s->x.type[s->x.role] = s->types[0];
    s->x.flags = s->layouts[0] == 'c' ? MATRIX_COL : 0;
    i->b = nr == 3 ? o[2].slot : -1;
    s->x.nr[s->x.role] = (int32_t)add_registers(p, i, &o[!load]);
    i->mode = load ? i->nr : 0;
    return i->nr == ptx_matrix_registers(&s->x, (enum matrix_role)s->x.role);
}

static bool form(struct ptx_parser *p, struct ptx_insn *i, struct said *s, const struct ptx_operand *o, unsigned nr)
{
    switch (s->x.kind) {
    case X_MMA: case X_WMMA_MMA: return product(p, i, s, o, nr);
    case X_WMMA_LOAD: case X_WMMA_STORE: return transfer(p, i, s, o, nr);
    default: return eights(p, i, s, o, nr);
    }
}

/* `text` begins with the first word of a matrix instruction, `len` long. */
bool ptx_matrix_word(const char *text, size_t len)
{
    for (size_t k = 0; k < KINDS; k++)
        if (!strncmp(kinds[k].name, text, len) && (!kinds[k].name[len] || kinds[k].name[len] == '.'))
            return true;
    return false;
}

/* Which it is, by all its words; false: none. */
static bool kind_of(const struct ptx_parser *p, struct said *s, size_t *len)
{
    for (size_t k = 0; k < KINDS; k++) {
        *len = strlen(kinds[k].name);
        s->x.kind = (int32_t)k;
        if (p->insn_len > *len && p->insn_text[*len] == '.' && !memcmp(p->insn_text, kinds[k].name, *len))
            return true;
    }
    return false;
}

void ptx_matrix(struct ptx_parser *p, struct ptx_insn *i, const struct ptx_operand *o, unsigned nr)
{
    struct said s = { .space = -1 };
    int32_t words[MATRIX_WORDS];
    size_t len;

    if (!kind_of(p, &s, &len))
        return ptx_unsupported(p);
    *i = (struct ptx_insn){ .exec = kinds[s.x.kind].exec, .op = OP_WARPSYNC, .line = i->line, .pred = i->pred, .pred_neg = i->pred_neg,
                            .d = -1, .d2 = -1, .a = -1, .b = -1, .c = -1, .list = p->module->nr_lists,
                            .e = ptx_constant_slot(p, FILL_VALUE, UINT32_MAX) }; /* waits for all lanes */
    if (!modifiers(p, len, &s) || !form(p, i, &s, o, nr))
        return ptx_unsupported(p);
    memcpy(words, &s.x, sizeof(words));
    for (size_t k = 0; k < MATRIX_WORDS; k++)
        ptx_add_list(p, words[k]);
}
