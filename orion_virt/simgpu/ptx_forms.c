/* SPDX-License-Identifier: Apache-2.0 */
/* Instructions whose operands the table of ptx_decode.c cannot say: memory, branches, barriers, textures, video. */
#define _GNU_SOURCE
#include "ptx_internal.h"

static bool name_is(struct ptx_parser *p, size_t len, const char *name)
{
    return strlen(name) == len && !memcmp(p->insn_text, name, len);
}

bool ptx_is_float(enum ptx_type t)
{
    return t == T_F32 || t == T_F64 || t == T_F16 || t == T_BF16 || t == T_F16X2 || t == T_BF16X2 || t == T_TF32;
}

static void memory(struct ptx_parser *p, struct ptx_insn *i, const struct ptx_decoded *d, struct ptx_operand *o, bool load)
{
    const struct ptx_operand *address = load ? &o[1] : &o[0], *value = load ? &o[0] : &o[1];

    if (address->kind != O_ADDRESS)
        return ptx_fail(p, "'%.*s' without an address", (int)p->insn_len, p->insn_text);
    i->exec = load ? ptx_ld : ptx_st;
    i->a = address->slot;
    i->off = address->off;
    if (address->space >= 0 && (d->space < 0 || d->space == S_PARAM))
        i->space = (uint8_t)address->space; /* a named variable says more than the instruction */
    i->nr = value->kind == O_VECTOR ? value->nr : 1;
    i->list = value->list;
    i->d = value->slot;
}

static void atomic(struct ptx_parser *p, struct ptx_insn *i, const struct ptx_operand *o, unsigned nr, bool returns)
{
    const struct ptx_operand *address = &o[returns], *value = &o[1 + returns];

    if (nr < 2u + returns || address->kind != O_ADDRESS)
        return ptx_fail(p, "'%.*s' without an address", (int)p->insn_len, p->insn_text);
    i->exec = ptx_atom;
    i->a = address->slot;
    i->off = address->off;
    if (address->space >= 0 && i->space == S_GENERIC)
        i->space = (uint8_t)address->space;
    if (value->kind == O_VECTOR) {
        i->list = value->list;
        i->nr = value->nr;
        i->d2 = returns ? 0 : -1;
        for (unsigned k = 0; returns && k < o[0].nr; k++) /* a copy of the list behind the sources */
            ptx_add_list(p, p->module->lists[o[0].list + (int32_t)k]);
    } else {
        i->d = returns ? o[0].slot : -1;
        i->b = value->slot;
        i->c = nr > 2u + returns ? value[1].slot : -1;
    }
    if (i->mode == M_NONE || ptx_bytes(i->type) > 8 ||
        ptx_is_float(i->type) > (i->mode == M_ADD || i->mode == M_EXCH || i->mode == M_MIN || i->mode == M_MAX))
        ptx_unsupported(p);
}

/* Data and coordinates are adjacent in the module's lists, in the order of the text. */
static void texture(struct ptx_parser *p, struct ptx_insn *i, const struct ptx_decoded *d, const struct ptx_operand *o,
                    unsigned nr)
{
    bool fetch = p->insn_text[0] == 't', store = !fetch && p->insn_text[2] == 's';
    const struct ptx_operand *at = &o[!store], *data = &o[store];

    if (nr < 2 || at->kind != O_ADDRESS || at->at_list < 0 || data->kind != O_VECTOR || d->geometry == G_NONE ||
        at->at_nr < ptx_coordinates(d->geometry) || (fetch && data->nr != 4) || (!fetch && ptx_bytes(i->type) > 8))
        return ptx_unsupported(p);
    i->exec = fetch ? ptx_tex : store ? ptx_sust : ptx_suld;
    i->geometry = d->geometry;
    i->a = at->slot;
    if (at->space >= 0) /* a variable, not a register that holds the object */
        i->flags |= F_REFERENCE;
    i->b = nr > 2 ? o[2].slot : -1;
    i->list = store ? at->at_list : data->list;
    i->nr = (uint8_t)(data->nr + at->at_nr);
    i->mode = data->nr;
    if (!fetch)
        i->type2 = T_S32; /* coordinates */
}

/* st.async and red.async: ..., [barrier], which hears of the bytes. */
static void completing(struct ptx_parser *p, struct ptx_insn *i, const struct ptx_operand *o, unsigned nr, ptx_exec *exec)
{
    if (p->failed || !memmem(p->insn_text, p->insn_len, ".async.", 7))
        return;
    if (nr != 3 || o[2].kind != O_ADDRESS || !memmem(p->insn_text, p->insn_len, ".mbarrier::complete_tx::bytes", 29))
        return ptx_unsupported(p);
    i->exec = exec;
    i->c = -1;
    i->e = o[2].slot;
    i->target = (uint32_t)o[2].off;
}

static void barrier(struct ptx_insn *i, const struct ptx_operand *o, unsigned nr)
{
    if (i->flags & F_WARP) {
        i->op = OP_WARPSYNC;
        i->a = o[0].slot;
        return;
    }
    i->op = OP_BAR;
    if (i->flags & F_RED) { /* dest, barrier [, count], predicate */
        i->d = o[0].slot;
        i->a = o[1].slot;
        i->b = nr > 3 ? o[2].slot : -1;
        i->c = o[nr - 1].slot;
        if (o[nr - 1].negated)
            i->flags |= F_NEG_C;
        return;
    }
    i->a = nr ? o[0].slot : -1;
    i->b = nr > 1 ? o[1].slot : -1;
}

/* vadd, vadd2, vadd4 and so on: dTYPE.aTYPE.bTYPE, [.sat] [.add], without selectors of bytes. */
static bool video(struct ptx_parser *p, struct ptx_insn *i, size_t len, const struct ptx_decoded *d,
                  const struct ptx_operand *o, unsigned nr)
{
    static const struct { const char *name; uint8_t mode; } words[] = {
        { "vadd", M_ADD }, { "vsub", M_DEC }, { "vmin", M_MIN }, { "vmax", M_MAX }, { "vabsdiff", M_ABSDIFF },
        { "vavrg", M_AVERAGE }, { "vset", M_NONE },
    };
    char last = p->insn_text[len - 1];
    size_t stem = last == '2' || last == '4' ? len - 1 : len;

    for (size_t k = 0; k < sizeof(words) / sizeof(words[0]); k++) {
        if (!name_is(p, stem, words[k].name))
            continue;
        bool set = words[k].mode == M_NONE;
        if (nr < 3 || d->nr_types != (set ? 2u : 3u) || (stem == len && nr > 3))
            break;
        i->exec = ptx_video;
        if (d->mode == M_ADD)
            i->flags |= F_SUM;
        i->mode = words[k].mode;
        i->nr = (uint8_t)(stem == len ? 1 : last - '0');
        i->type = (uint8_t)(set ? T_U32 : d->types[0]);
        i->type2 = (uint8_t)d->types[!set];
        i->geometry = (uint8_t)d->types[set ? 1 : 2];
        i->d = o[0].slot;
        i->a = o[1].slot;
        i->b = o[2].slot;
        i->c = nr > 3 ? o[3].slot : -1;
        return true;
    }
    return false;
}

/* The two addresses of a copy. */
static void to_and_from(struct ptx_insn *i, const struct ptx_operand *o)
{
    i->a = o[0].slot;
    i->off = o[0].off;
    i->b = o[1].slot;
    i->target = (uint32_t)o[1].off;
}

/* An instruction's first `len` letters end with `end`: then they are the fewer before it. */
static bool without_end(struct ptx_parser *p, size_t *len, const char *end)
{
    size_t n = strlen(end);
    bool found = *len > n && !memcmp(p->insn_text + *len - n, end, n);

    *len -= found ? n : 0;
    return found;
}

/* cp.async.bulk.TO.FROM.DONE [to], [from], bytes [, [barrier] [, blocks]]: what is done as soon as it is started. */
static void copy_bulk(struct ptx_parser *p, struct ptx_insn *i, const struct ptx_operand *o, unsigned nr)
{
    static const struct { const char *words; uint8_t to, from; bool barrier; } forms[] = {
        { "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes", S_SHARED, S_GLOBAL, true },
        { "cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes", S_SHARED, S_GLOBAL, true },
        { "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes", S_SHARED, S_SHARED, true },
        { "cp.async.bulk.global.shared::cta.bulk_group", S_GLOBAL, S_SHARED, false },
    };
    size_t len = p->insn_len, k = 0;
    bool hinted = without_end(p, &len, ".L2::cache_hint"), multicast = without_end(p, &len, ".multicast::cluster");
    unsigned want;

    if (name_is(p, len, "cp.async.bulk.commit_group") || name_is(p, len, "cp.async.bulk.wait_group") ||
        name_is(p, len, "cp.async.bulk.wait_group.read") || name_is(p, len, "cp.async.bulk.prefetch.L2.global"))
        return;
    while (k < sizeof(forms) / sizeof(forms[0]) && !name_is(p, len, forms[k].words))
        k++;
    if (k == sizeof(forms) / sizeof(forms[0]) || (multicast && k))
        return ptx_unsupported(p);
    want = 3u + forms[k].barrier + multicast + hinted;
    if (nr != want || o[0].kind != O_ADDRESS || o[1].kind != O_ADDRESS || o[2].kind != O_SLOT ||
        (forms[k].barrier && o[3].kind != O_ADDRESS) || (multicast && o[4].kind != O_SLOT))
        return ptx_unsupported(p);
    i->op = OP_EXEC;
    i->exec = ptx_cpbulk;
    to_and_from(i, o);
    i->c = o[2].slot;
    i->space = forms[k].to;
    i->geometry = forms[k].from;
    i->e = forms[k].barrier ? o[3].slot : -1;
    i->d = multicast ? o[4].slot : -1;
    i->list = ptx_add_list(p, forms[k].barrier ? (int32_t)o[3].off : 0); /* the barrier's offset; no registers */
}

/* cp.async.SPACES [to], [from], bytes [, how many or whether none]; the other forms wait for what is done already. */
static void copy_async(struct ptx_parser *p, struct ptx_insn *i, const struct ptx_operand *o, unsigned nr)
{
    bool arrive = memmem(p->insn_text, p->insn_len, "mbarrier", 8) != NULL;

    i->op = OP_NOP;
    if (memmem(p->insn_text, p->insn_len, "reduce", 6))
        return ptx_unsupported(p);
    if (memmem(p->insn_text, p->insn_len, "bulk", 4))
        return copy_bulk(p, i, o, nr);
    if (arrive && memmem(p->insn_text, p->insn_len, "noinc", 5)) {
        i->op = OP_EXEC;
        i->exec = ptx_mbarrier;
        i->mode = M_ARRIVE;
        i->a = o[0].slot;
        i->off = o[0].off;
        i->space = S_SHARED;
    }
    if (arrive || nr < 3)
        return;
    i->op = OP_EXEC;
    i->exec = ptx_cpasync;
    to_and_from(i, o);
    i->nr = (uint8_t)o[2].value;
    i->c = nr > 3 && !memmem(p->insn_text, p->insn_len, "cache_hint", 10) ? o[3].slot : -1;
    if (i->c >= 0 && ptx_is_predicate(p, i->c))
        i->flags |= F_NEG_C;
}

/* mbarrier.WHAT ... [address] ...: a token or predicate before the address, a count, token or parity behind it. */
static void mbarrier(struct ptx_parser *p, struct ptx_insn *i, const struct ptx_operand *o, unsigned nr)
{
    static const struct { const char *word; uint8_t mode; } words[] = {
        { "mbarrier.init", M_INIT }, { "mbarrier.inval", M_INVAL }, { "mbarrier.arrive_drop", M_ARRIVE_DROP },
        { "mbarrier.arrive", M_ARRIVE }, { "mbarrier.pending_count", M_PENDING }, { "mbarrier.test_wait", M_TEST },
        { "mbarrier.try_wait", M_TEST }, { "mbarrier.expect_tx", M_EXPECT_TX }, { "mbarrier.complete_tx", M_COMPLETE_TX },
    };
    unsigned at = 0;
    bool expects = memmem(p->insn_text, p->insn_len, ".expect_tx", 10) != NULL;

    i->mode = M_NONE;
    for (size_t k = 0; k < sizeof(words) / sizeof(words[0]) && !i->mode; k++)
        if (p->insn_len >= strlen(words[k].word) && !memcmp(p->insn_text, words[k].word, strlen(words[k].word)))
            i->mode = words[k].mode;
    if (!i->mode || !nr)
        return ptx_unsupported(p);
    i->exec = ptx_mbarrier;
    i->op = i->mode == M_TEST ? OP_YIELD : OP_EXEC;
    if (o[0].kind != O_ADDRESS)
        i->d = o[at++].slot;
    i->a = o[at].slot;
    i->off = o[at].off;
    if (i->mode == M_PENDING)
        i->b = i->a, i->a = i->d;
    else if (nr > at + 1)
        i->b = o[at + 1].slot;
    if (memmem(p->insn_text, p->insn_len, "parity", 6))
        i->flags |= F_PARITY;
    if (expects && (i->mode == M_ARRIVE || i->mode == M_ARRIVE_DROP))
        i->flags |= F_EXPECT_TX;
    if (i->b < 0 && (expects || i->mode == M_COMPLETE_TX))
        return ptx_unsupported(p);
    if (o[at].space >= 0 && i->space == S_GENERIC)
        i->space = (uint8_t)o[at].space;
}

void ptx_unsupported(struct ptx_parser *p)
{
    ptx_fail(p, "instruction '%.*s' is not supported by the simulated GPU", (int)p->insn_len, p->insn_text);
}

bool ptx_irregular(struct ptx_parser *p, struct ptx_insn *i, size_t len, const struct ptx_decoded *d,
                      struct ptx_operand *o, unsigned nr)
{
    if (name_is(p, len, "bra") || name_is(p, len, "brx")) {
        bool indexed = name_is(p, len, "brx");
        i->op = indexed ? OP_BRX : OP_BRA;
        i->a = indexed ? o[0].slot : -1;
        if (nr != 1u + indexed || o[indexed].kind != O_NAME)
            ptx_fail(p, "'%.*s' without a label", (int)p->insn_len, p->insn_text);
        else
            i->target = (uint32_t)(ptx_label(p, o[indexed].name, o[indexed].len) - p->labels);
    } else if ((name_is(p, len, "ld") || name_is(p, len, "ldu") || name_is(p, len, "st")) && nr >= 2) {
        memory(p, i, d, o, p->insn_text[0] == 'l');
        completing(p, i, o, nr, ptx_stasync);
    } else if (name_is(p, len, "atom") || name_is(p, len, "red")) {
        atomic(p, i, o, nr, name_is(p, len, "atom"));
        completing(p, i, o, nr, ptx_redasync);
    } else if (name_is(p, len, "tex") || name_is(p, len, "suld") || name_is(p, len, "sust")) {
        texture(p, i, d, o, nr);
    } else if (name_is(p, len, "bar") || name_is(p, len, "barrier")) {
        if (memmem(p->insn_text, p->insn_len, "cluster", 7)) {
            i->op = OP_CLUSTER;
            i->mode = memmem(p->insn_text, p->insn_len, "arrive", 6) ? M_ARRIVE : M_NONE;
        } else {
            barrier(i, o, nr);
        }
    } else if (name_is(p, len, "cp")) {
        copy_async(p, i, o, nr);
    } else if (name_is(p, len, "mbarrier")) {
        mbarrier(p, i, o, nr);
    } else if (ptx_matrix_word(p->insn_text, len)) {
        ptx_matrix(p, i, o, nr);
    } else if (name_is(p, len, "nanosleep")) {
        i->op = OP_YIELD;
    } else if (name_is(p, len, "mov") && nr == 2 && (o[0].kind == O_VECTOR || o[1].kind == O_VECTOR)) {
        bool out = o[0].kind == O_VECTOR;
        i->exec = out ? ptx_unpack : ptx_pack;
        i->list = out ? o[0].list : o[1].list;
        i->nr = out ? o[0].nr : o[1].nr;
        i->d = out ? -1 : o[0].slot;
        i->a = out ? o[1].slot : -1;
    } else {
        return p->insn_text[0] == 'v' && video(p, i, len, d, o, nr);
    }
    return true;
}

