/* SPDX-License-Identifier: Apache-2.0 */
/* Loads, stores and atomics in all memories, each access checked for bounds and alignment. */
#include <math.h>

#include "ptx_internal.h"

/* True when host memory [address, address + bytes) is accessible; remembers the last allocations seen. */
static bool accessible(struct ptx_block *b, uint64_t address, unsigned bytes)
{
    uint64_t extent;

    for (unsigned k = 0; k < 4; k++)
        if (address - b->seen[k].start < b->seen[k].bytes)
            return b->seen[k].bytes - (address - b->seen[k].start) >= bytes;
    extent = b->memory->extent(b->memory->arg, address);
    if (extent < bytes)
        return false;
    b->seen[b->seen_next].start = address;
    b->seen[b->seen_next].bytes = extent;
    b->seen_next = (b->seen_next + 1) & 3;
    return true;
}

/* What the instruction that is at work does, for reports. */
static const char *verb(const struct ptx_warp *w)
{
    ptx_exec *exec = w->kernel->module->code[w->at].exec;

    if (exec == ptx_st || exec == ptx_stasync || exec == ptx_stmatrix || exec == ptx_wmmastore)
        return "write";
    return exec == ptx_atom || exec == ptx_redasync ? "atomic access" : exec == ptx_ld || exec == ptx_ldmatrix || exec == ptx_wmmaload ? "read" : "access";
}

static void *offset(struct ptx_warp *w, unsigned lane, uint8_t *base, size_t size, uint64_t at, unsigned bytes,
                    const char *name)
{
    if (at < size && size - at >= bytes)
        return base + at;
    ptx_fault(w, lane, PTX_ILLEGAL_ADDRESS, "invalid %s of %u bytes at %s memory address 0x%llx: outside its %zu bytes", verb(w),
              bytes, name, (unsigned long long)at, size);
    return NULL;
}

static void *outside(struct ptx_warp *w, unsigned lane, uint64_t address, unsigned bytes)
{
    const struct ptx_memory *memory = w->block->memory;
    char nearest[160] = "";

    if (memory->describe)
        memory->describe(memory->arg, address, nearest, sizeof(nearest));
    ptx_fault(w, lane, PTX_ILLEGAL_ADDRESS, "invalid %s of %u bytes at address 0x%llx, which is not device memory: %s", verb(w), bytes,
              (unsigned long long)address, nearest);
    return NULL;
}

void *ptx_at(struct ptx_warp *w, unsigned lane, enum ptx_space space, uint64_t address, unsigned bytes)
{
    struct ptx_block *b = w->block;

    if (space == S_SHARED || space == S_LOCAL) /* of 32 bits: a register below zero and an offset above wrap */
        address = (uint32_t)address;
    if (address & (bytes - 1)) {
        ptx_fault(w, lane, PTX_MISALIGNED, "%s of %u bytes at address 0x%llx, which is not a multiple of %u", verb(w), bytes,
                  (unsigned long long)address, bytes);
        return NULL;
    }
    if (space == S_GENERIC && address >> 56) {
        space = address >> 56 == 1 ? S_SHARED : address >> 56 == 2 ? S_LOCAL : address >> 56 == 3 ? S_PARAM : S_GLOBAL;
        if (space != S_GLOBAL)
            address &= (1ull << 56) - 1;
    }
    if (space == S_SHARED) {
        struct ptx_block *owner = ptx_shared_owner(b, &address);
        if (owner && !owner->done)
            return offset(w, lane, owner->shared, owner->shared_bytes, address, bytes, "shared");
        ptx_fault(w, lane, PTX_ILLEGAL_ADDRESS, owner ? "%s of %u bytes in the shared memory of block %u of the cluster, which has ended"
                  : "%s of %u bytes in the shared memory of a block beyond the %u of the cluster", verb(w), bytes,
                  owner ? owner->rank : b->nr_cluster);
        return NULL;
    }
    if (space == S_LOCAL)
        return offset(w, lane, w->local + (size_t)lane * w->local_bytes, w->local_bytes, address, bytes, "local");
    if (space == S_PARAM)
        return offset(w, lane, (uint8_t *)(uintptr_t)b->launch->params, w->kernel->params_bytes, address, bytes,
                      "parameter");
    return accessible(b, address, bytes) ? (void *)(uintptr_t)address : outside(w, lane, address, bytes);
}

static uint64_t read_one(const void *p, unsigned type)
{
    switch (type) {
    case T_U8: case T_B8: return *(const uint8_t *)p;
    case T_S8: return (uint64_t)*(const int8_t *)p;
    case T_U16: case T_B16: case T_F16: case T_BF16: return *(const uint16_t *)p;
    case T_S16: return (uint64_t)*(const int16_t *)p;
    case T_S32: return (uint64_t)*(const int32_t *)p;
    case T_U32: case T_B32: case T_F32: case T_F16X2: return __atomic_load_n((const uint32_t *)p, __ATOMIC_RELAXED);
    default: return __atomic_load_n((const uint64_t *)p, __ATOMIC_RELAXED);
    }
}

static void write_one(void *p, uint64_t v, unsigned bytes)
{
    switch (bytes) {
    case 1: *(uint8_t *)p = (uint8_t)v; break;
    case 2: *(uint16_t *)p = (uint16_t)v; break;
    case 4: __atomic_store_n((uint32_t *)p, (uint32_t)v, __ATOMIC_RELAXED); break;
    default: __atomic_store_n((uint64_t *)p, v, __ATOMIC_RELAXED); break;
    }
}

/* The k-th register of a vector operand, or the only one. */
static uint64_t *element(struct ptx_warp *w, const struct ptx_insn *i, unsigned k)
{
    return REG(i->list < 0 ? i->d : w->kernel->module->lists[i->list + (int32_t)k]);
}

void ptx_ld(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    unsigned bytes = ptx_bytes(i->type);
    uint64_t *a = REG(i->a);

    EACH {
        const uint8_t *p = ptx_at(w, l, i->space, a[l] + (uint64_t)i->off, bytes * i->nr);
        if (!p)
            return;
        for (unsigned k = 0; k < i->nr; k++)
            element(w, i, k)[l] = read_one(p + (size_t)k * bytes, i->type);
    }
}

void ptx_st(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    unsigned bytes = ptx_bytes(i->type);
    uint64_t *a = REG(i->a);

    EACH {
        uint8_t *p = ptx_at(w, l, i->space, a[l] + (uint64_t)i->off, bytes * i->nr);
        if (!p)
            return;
        for (unsigned k = 0; k < i->nr; k++)
            write_one(p + (size_t)k * bytes, element(w, i, k)[l], bytes);
    }
}

/* add, min and max of halves, one or two. */
static uint64_t small(const struct ptx_insn *i, uint64_t old, uint64_t b)
{
    double x = ptx_from_small(old, i->type), y = ptx_from_small(b, i->type);
    double r = i->mode == M_ADD ? ptx_add_odd(x, y) : i->mode == M_MIN ? fmin(x, y) : fmax(x, y);

    return ptx_to_small(r, i->type, R_RN);
}

static uint64_t add_float(const struct ptx_insn *i, uint64_t old, uint64_t b)
{
    if (i->type == T_F64)
        return ptx_u64(ptx_f64(old) + ptx_f64(b));
    return ptx_u32(ptx_f32(old) + ptx_f32(b));
}

static bool less(uint64_t a, uint64_t b, unsigned type)
{
    switch (type) {
    case T_S32: return (int32_t)a < (int32_t)b;
    case T_S64: return (int64_t)a < (int64_t)b;
    case T_F32: return ptx_f32(a) < ptx_f32(b);
    case T_F64: return ptx_f64(a) < ptx_f64(b);
    default: return a < b;
    }
}

static uint64_t combine(const struct ptx_insn *i, uint64_t old, uint64_t b, uint64_t c)
{
    if (ptx_is_small(i->type) && i->mode != M_EXCH)
        return small(i, old, b) | (ptx_bytes(i->type) == 4 ? small(i, old >> 16, b >> 16) << 16 : 0);
    switch (i->mode) {
    case M_ADD: return i->type == T_F32 || i->type == T_F64 ? add_float(i, old, b) : old + b;
    case M_MIN: return less(b, old, i->type) ? b : old;
    case M_MAX: return less(old, b, i->type) ? b : old;
    case M_AND: return old & b;
    case M_OR: return old | b;
    case M_XOR: return old ^ b;
    case M_INC: return old >= b ? 0 : old + 1;
    case M_DEC: return old == 0 || old > b ? b : old - 1;
    case M_EXCH: return b;
    default: return old == b ? c : old; /* M_CAS */
    }
}

/* One read-modify-write; atomic towards other streams and the host too. */
static uint64_t modify(const struct ptx_insn *i, void *p, uint64_t b, uint64_t c, unsigned bytes)
{
    uint64_t old = 0, next;

    do {
        memcpy(&old, p, bytes);
        next = combine(i, old, b, c);
        if (bytes == 2) {
            uint16_t expect = (uint16_t)old;
            if (__atomic_compare_exchange_n((uint16_t *)p, &expect, (uint16_t)next, false, __ATOMIC_SEQ_CST,
                                            __ATOMIC_SEQ_CST))
                return old;
        } else if (bytes == 4) {
            uint32_t expect = (uint32_t)old;
            if (__atomic_compare_exchange_n((uint32_t *)p, &expect, (uint32_t)next, false, __ATOMIC_SEQ_CST,
                                            __ATOMIC_SEQ_CST))
                return old;
        } else if (__atomic_compare_exchange_n((uint64_t *)p, &old, next, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
            return old;
        }
    } while (1);
}

/* red and atom of a vector: each element for itself. */
static void atom_vector(struct ptx_warp *w, const struct ptx_insn *i, unsigned lane, uint8_t *p, unsigned bytes)
{
    const int32_t *list = w->kernel->module->lists + i->list;

    for (unsigned k = 0; k < i->nr; k++) {
        uint64_t old = modify(i, p + k * bytes, REG(list[k])[lane], 0, bytes);
        if (i->d2 >= 0) /* destinations follow the sources */
            REG(list[i->nr + k])[lane] = old;
    }
}

void ptx_atom(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    unsigned bytes = ptx_bytes(i->type), nr = i->list >= 0 ? i->nr : 1;
    uint64_t mask = bytes == 8 ? ~0ull : (1ull << (bytes * 8)) - 1;
    uint64_t *a = REG(i->a), *b = REG(i->b < 0 ? i->a : i->b), *c = REG(i->c < 0 ? i->a : i->c);

    EACH {
        void *p = ptx_at(w, l, i->space, a[l] + (uint64_t)i->off, bytes * nr);
        if (!p)
            return;
        if (i->list >= 0) {
            atom_vector(w, i, l, p, bytes);
            continue;
        }
        uint64_t old = modify(i, p, b[l] & mask, c[l] & mask, bytes);
        if (i->d >= 0)
            REG(i->d)[l] = old;
    }
}
