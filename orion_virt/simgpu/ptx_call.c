/* SPDX-License-Identifier: Apache-2.0 */
/* Calls: a function has one set of registers and memory, unless it may call itself: then each activation has a frame,
 * which holds the outer one's registers and the inner one's memory. Arguments and results pass through the fixed places. */
#include "ptx_internal.h"

static uint8_t *local(struct ptx_warp *w, unsigned lane)
{
    return w->local + (size_t)lane * w->local_bytes;
}

/* A frame: the caller's frame pointer, the function's registers, its parameters and results, its variables. Each part
 * of memory keeps its remainder by 128, so that what is in it keeps its alignment. */
struct frame {
    uint32_t base, end;
    int64_t by_parameters, by_variables; /* from the fixed places to the frame's */
};

static struct frame frame_at(uint32_t base, const struct ptx_kernel *f)
{
    uint32_t at = (base + 8 + (f->slots - f->first_slot) * 8 + 127) & ~127u;
    struct frame r = { .base = base, .by_parameters = (int64_t)at + (f->first_local & 127) - (int64_t)f->first_local };

    at = (at + (f->first_local & 127) + (f->end_local - f->first_local) + 127) & ~127u;
    r.by_variables = (int64_t)at + (f->first_body & 127) - (int64_t)f->first_body;
    r.end = at + (f->first_body & 127) + (f->local_bytes - f->first_body);
    return r;
}

static void copy_variables(struct ptx_warp *w, unsigned lane, const struct ptx_variable *v, unsigned nr, int64_t to, int64_t from)
{
    for (unsigned k = 0; k < nr; k++)
        memcpy(local(w, lane) + (int64_t)v[k].address + to, local(w, lane) + (int64_t)v[k].address + from, v[k].bytes);
}

static bool push(struct ptx_warp *w, unsigned lane, const struct ptx_kernel *f)
{
    struct frame frame = frame_at((w->sp[lane] + 15) & ~15u, f);
    uint64_t *save = (uint64_t *)(void *)(local(w, lane) + frame.base);

    if (frame.end > w->local_bytes) {
        ptx_fault(w, lane, PTX_ILLEGAL_ADDRESS, "stack overflow in function %s: its frames take more than %u bytes", f->name,
                  PTX_STACK_BYTES);
        return false;
    }
    save[0] = w->fp[lane];
    for (unsigned s = f->first_slot; s < f->slots; s++)
        save[1 + s - f->first_slot] = REG(s)[lane];
    w->fp[lane] = frame.base;
    w->sp[lane] = frame.end;
    for (unsigned c = 0; c < f->nr_constants; c++) {
        const struct ptx_constant *k = &f->constants[c];
        if (k->fill == FILL_FRAME)
            REG(k->slot)[lane] = k->value + (uint64_t)(k->value >= f->first_body ? frame.by_variables : frame.by_parameters);
    }
    copy_variables(w, lane, f->params, f->nr_params, frame.by_parameters, 0);
    return true;
}

static void pop(struct ptx_warp *w, unsigned lane, const struct ptx_kernel *f)
{
    struct frame frame = frame_at(w->fp[lane], f);
    const uint64_t *save = (const uint64_t *)(const void *)(local(w, lane) + frame.base);

    copy_variables(w, lane, f->results, f->nr_results, 0, frame.by_parameters);
    w->sp[lane] = frame.base;
    w->fp[lane] = (uint32_t)save[0];
    for (unsigned s = f->first_slot; s < f->slots; s++)
        REG(s)[lane] = save[1 + s - f->first_slot];
}

/* The function at a code address; NULL: none. */
static const struct ptx_kernel *pointed(struct ptx_warp *w, uint64_t address)
{
    const struct ptx_module *m = w->kernel->module;
    uint64_t index = (address - PTX_CODE_WINDOW) / 16 - 1;
    const struct ptx_kernel *f;

    if (address <= PTX_CODE_WINDOW || address % 16 || index >= m->nr_functions)
        return NULL;
    f = m->functions[index]->alias ? m->functions[index]->alias : m->functions[index];
    return f->defined && !f->entry ? f : NULL;
}

static const struct ptx_kernel *callee(struct ptx_warp *w, const struct ptx_insn *i, unsigned lane)
{
    const struct ptx_kernel *f;

    if (i->a < 0)
        return w->kernel->module->functions[i->target];
    f = pointed(w, REG(i->a)[lane]);
    if (!f || f->nr_params != i->nr) {
        ptx_fault(w, lane, PTX_ILLEGAL_INSTRUCTION, "call through pointer 0x%llx, which is %s",
                  (unsigned long long)REG(i->a)[lane], f ? "a function with other parameters" : "no function's address");
        return NULL;
    }
    for (unsigned k = 0; k < i->nr; k++)
        memmove(local(w, lane) + f->params[k].address,
                local(w, lane) + REG(w->kernel->module->lists[i->list + (int32_t)k])[lane], f->params[k].bytes);
    return f;
}

void ptx_enter(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m, uint32_t pc)
{
    EACH {
        const struct ptx_kernel *f = callee(w, i, l);
        if (!f || (f->framed && !push(w, l, f)))
            return;
        REG(f->return_slot)[l] = pc + 1;
        w->pc[l] = f->first;
    }
}

/* To the return addresses, which may differ between lanes. */
void ptx_leave(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    const struct ptx_kernel *f = w->kernel->module->functions[i->target];

    EACH {
        w->pc[l] = (uint32_t)REG(f->return_slot)[l];
        if (f->framed)
            pop(w, l, f);
    }
}

/* Copies an argument between two places of local memory. */
void ptx_pcopy(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    uint64_t *d = REG(i->d), *a = REG(i->a);

    EACH memmove(local(w, l) + d[l], local(w, l) + a[l], (size_t)i->off);
}

/* The result of what was called through a pointer. */
void ptx_presult(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    EACH {
        const struct ptx_kernel *f = pointed(w, REG(i->a)[l]);
        uint64_t bytes = f && f->nr_results ? f->results[0].bytes : 0;
        if (bytes)
            memmove(local(w, l) + REG(i->d)[l], local(w, l) + f->results[0].address,
                    bytes < (uint64_t)i->off ? bytes : (uint64_t)i->off);
    }
}

/* ---- memory of the stack ---- */

void ptx_alloca(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    uint64_t *d = REG(i->d), *a = REG(i->a);
    uint64_t align = i->b >= 0 ? REG(i->b)[__builtin_ctz(m)] : 8;

    align = align < 8 ? 8 : align;
    EACH {
        uint64_t start = (w->sp[l] + align - 1) / align * align;
        if (start + a[l] > w->local_bytes) {
            ptx_fault(w, l, PTX_ILLEGAL_ADDRESS, "stack overflow: alloca of %llu bytes", (unsigned long long)a[l]);
            return;
        }
        w->sp[l] = (uint32_t)(start + a[l]);
        d[l] = start;
    }
}

void ptx_stacksave(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    EACH REG(i->d)[l] = w->sp[l];
}

void ptx_stackrestore(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    EACH w->sp[l] = (uint32_t)REG(i->a)[l];
}
