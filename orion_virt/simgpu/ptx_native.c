/* SPDX-License-Identifier: Apache-2.0 */
/* Translated kernels: when a kernel is translated, and how the run loop and translated code hand lanes to each other. */
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "ptx_compile.h"
#include "ptx_native.h"
#include "ptx_translate.h"

#define HOT 400000u /* instructions of warps that a kernel executed before it is worth a compiler's time */

/* What ptx_native.h says, for the compiler to read. */
__asm__(".section .rodata\n.global ptx_native_text\n.hidden ptx_native_text\nptx_native_text:\n"
        ".incbin \"ptx_native.h\"\n.byte 0\n.previous\n");
extern const char ptx_native_text[] PTX_HIDDEN;

struct ptx_native {
    n_run *run;
    void *library;
    struct translator t;
    int32_t *frame;      /* slots that lie in frames */
    unsigned nr_frame;
};
struct ptx_translation { /* of a kernel; lives as long */
    _Atomic(struct ptx_native *) done;
    _Atomic int asked, child;
    _Atomic uint64_t heat;
    pthread_t thread;
    bool started;
};

/* ---- translating ---- */

static void say_once(const struct ptx_kernel *k, bool kept, const char *why)
{
    static _Atomic int said[2];
    char text[900];

    if (said[kept]++ > 0)
        return;
    snprintf(text, sizeof(text), kept ? "kernel %s is translated, but not kept for the next process: %s"
             : "kernel %s is interpreted, which is slow: %s", k->name, why);
    if (k->module->memory.say)
        k->module->memory.say(text);
}

static char *whole_text(const char *body)
{
    size_t room = strlen(ptx_native_text) + strlen(body) + 64;
    char *text = malloc(room);

    if (text)
        snprintf(text, room, "#define PTX_TRANSLATED\n%s%s", ptx_native_text, body);
    return text;
}

static void free_native(struct ptx_native *n)
{
    if (n->library)
        dlclose(n->library);
    ptx_translate_end(&n->t);
    free(n->frame);
    free(n);
}

static bool list_frame(struct ptx_native *n)
{
    n->frame = calloc(n->t.nr_slots + 1u, sizeof(*n->frame));
    for (unsigned s = 0; n->frame && s < n->t.nr_slots; s++)
        if (n->t.slots[s].place == P_FRAME)
            n->frame[n->nr_frame++] = (int32_t)s;
    return n->frame;
}

static void *translate(void *arg)
{
    struct ptx_kernel *k = arg;
    struct ptx_native *n = calloc(1, sizeof(*n));
    const char *reason = "out of memory";
    char why[640] = "", *body = n ? ptx_translate(k, &n->t, &reason) : NULL, *text = body ? whole_text(body) : NULL;

    if (text && list_frame(n))
        n->library = ptx_compile(text, &k->translation->child, why, sizeof(why));
    if (n && n->library) {
        *(void **)&n->run = dlsym(n->library, "ptx_translated");
        k->translation->done = n;
        if (*why)
            say_once(k, true, why);
    } else {
        if (n)
            free_native(n);
        if (!text || *why)
            say_once(k, false, text ? why : reason);
    }
    free(body);
    free(text);
    return NULL;
}

/* Starts a translation where that is due; waits for it where every kernel must be translated. */
void ptx_native_consider(struct ptx_kernel *k, enum ptx_translate how, uint64_t instructions)
{
    struct ptx_translation *t = k->translation;
    int none = 0;

    if (!t || atomic_fetch_add(&t->heat, instructions) + instructions < (how == PTX_TRANSLATE_ALL ? 0 : HOT) || how == PTX_TRANSLATE_NONE || t->asked)
        return;
    if (!__atomic_compare_exchange_n((int *)&t->asked, &none, 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        return;
    t->started = !pthread_create(&t->thread, NULL, translate, k);
    if (t->started && how == PTX_TRANSLATE_ALL) {
        pthread_join(t->thread, NULL);
        t->started = false;
    }
}

void ptx_native_begin(struct ptx_kernel *k)
{
    k->translation = calloc(1, sizeof(*k->translation));
}

void ptx_native_end(struct ptx_kernel *k)
{
    struct ptx_translation *t = k->translation;

    if (!t)
        return;
    if (t->started) {
        if (t->child > 0)
            kill(-t->child, SIGKILL);
        pthread_join(t->thread, NULL);
    }
    if (t->done)
        free_native(t->done);
    free(t);
    k->translation = NULL;
}

/* ---- running ---- */

static void put(const struct ptx_native *n, struct ptx_warp *w, int32_t slot, uint32_t m)
{
    const struct slot_info *s = &n->t.slots[slot];
    const n_u64 *r64 = w->native->r64 + (size_t)s->at * PTX_LANES;
    const n_u32 *r32 = w->native->r32 + (size_t)s->at * PTX_LANES;
    uint64_t *r = REG(slot);

    if (s->place != P_FRAME || s->constant)
        return;
    if (s->width == 64 && m == ~0u) /* as it mostly is: vector code */
        memcpy(r, r64, PTX_LANES * sizeof(*r));
    else if (m == ~0u)
        for (unsigned l = 0; l < PTX_LANES; l++)
            r[l] = r32[l];
    else
        EACH r[l] = s->width == 64 ? r64[l] : r32[l];
}

static void get(const struct ptx_native *n, struct ptx_warp *w, int32_t slot, uint32_t m)
{
    const struct slot_info *s = &n->t.slots[slot];
    n_u64 *r64 = w->native->r64 + (size_t)s->at * PTX_LANES;
    n_u32 *r32 = w->native->r32 + (size_t)s->at * PTX_LANES;
    const uint64_t *r = REG(slot);

    if (s->place != P_FRAME)
        return;
    if (s->width == 64 && m == ~0u)
        memcpy(r64, r, PTX_LANES * sizeof(*r));
    else if (s->width != 64 && m == ~0u)
        for (unsigned l = 0; l < PTX_LANES; l++)
            r32[l] = (uint32_t)r[l];
    else
        EACH {
            if (s->width == 64)
                r64[l] = r[l];
            else
                r32[l] = (uint32_t)r[l];
        }
}

/* What an instruction reads, from the frame to the interpreter's slots. */
static void put_uses(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    int32_t slots[PTX_OPERANDS_MAX];
    unsigned nr = ptx_uses(&w->block->native->t, i, slots);

    for (unsigned k = 0; k < nr; k++)
        put(w->block->native, w, slots[k], m);
}

void ptx_native_results(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    int32_t slots[PTX_OPERANDS_MAX];
    unsigned nr;

    if (!w->block->native)
        return;
    nr = ptx_defs(&w->block->native->t, i, slots);
    for (unsigned k = 0; k < nr; k++)
        get(w->block->native, w, slots[k], m);
}

static int exec(struct n_warp *nw, n_u32 at, n_u32 m)
{
    struct ptx_warp *w = nw->warp;
    const struct ptx_insn *i = &w->kernel->module->code[at];

    w->at = at;
    put_uses(w, i, m);
    i->exec(w, i, m);
    ptx_native_results(w, i, m);
    return !w->block->status;
}

static void *find(struct n_warp *nw, n_u32 at, n_u32 lane, n_u32 space, n_u64 address, n_u32 bytes)
{
    struct ptx_warp *w = nw->warp;

    w->at = at;
    return ptx_at(w, lane, (enum ptx_space)space, address, bytes);
}

static n_u64 extent(struct n_warp *nw, n_u64 address)
{
    const struct ptx_memory *memory = ((struct ptx_warp *)nw->warp)->block->memory;

    return memory->extent(memory->arg, address);
}

static n_u32 meeting(struct n_warp *nw, n_u32 m, n_u32 pc)
{
    return ptx_next_meeting(nw->warp, m, pc);
}

static bool prepare(struct ptx_warp *w, const struct ptx_native *n)
{
    struct n_warp *nw = calloc(1, sizeof(*nw));

    if (!nw)
        return false;
    *nw = (struct n_warp){ .warp = w, .regs = (n_u64 *)w->regs, .pc = w->pc, .shared = w->block->shared, .local = w->local,
                           .params = w->block->launch->params, .shared_bytes = w->block->shared_bytes,
                           .local_bytes = w->local_bytes, .params_bytes = w->kernel->params_bytes, .alive = &w->alive,
                           .exec = exec, .find = find, .extent = extent, .meeting = meeting };
    nw->r32 = aligned_alloc(64, (size_t)(n->t.nr_r32 + 1) * PTX_LANES * 4);
    nw->r64 = aligned_alloc(64, (size_t)(n->t.nr_r64 + 1) * PTX_LANES * 8);
    nw->ranges = calloc(n->t.sites + 1u, sizeof(*nw->ranges));
    nw->shapes = calloc(n->t.nr_shapes + 1u, sizeof(*nw->shapes));
    w->native = nw;
    return nw->r32 && nw->r64 && nw->ranges && nw->shapes;
}

void ptx_native_release(struct ptx_warp *w)
{
    if (!w->native)
        return;
    free(w->native->r32);
    free(w->native->r64);
    free(w->native->ranges);
    free(w->native->shapes);
    free(w->native);
    w->native = NULL;
}

/* From now on the block's warps run translated code, if there is some: with what their registers hold. */
void ptx_native_adopt(struct ptx_block *b, bool fresh)
{
    const struct ptx_native *n = b->kernel->translation ? b->kernel->translation->done : NULL;

    if (!n || b->launch->translate == PTX_TRANSLATE_NONE || (b->native && !fresh))
        return;
    for (unsigned k = 0; k < b->nr_warps; k++) {
        struct ptx_warp *w = &b->warps[k];
        bool first = !w->native;
        if (first && !prepare(w, n))
            return; /* without memory for it: interpret */
        for (unsigned f = 0; f < n->nr_frame && (first || !fresh); f++)
            if (!fresh || n->t.slots[n->frame[f]].constant)
                get(n, w, n->frame[f], ~0u);
        for (unsigned s = 0; s < n->t.nr_shapes; s++)
            w->native->shapes[s].mask = 0;
    }
    b->native = n;
}

bool ptx_native_run(struct ptx_warp *w, uint32_t m, uint32_t pc, unsigned *budget, uint32_t *at, uint32_t *mask)
{
    struct n_warp *nw = w->native;
    long left = *budget;
    uint32_t ready = ptx_lanes_in(w, L_RUN);

    nw->exhausted = 0;
    int why = w->block->native->run(nw, m, pc, ready & ~m ? ptx_next_meeting(w, m, pc) : UINT32_MAX, (ready & ~m) != 0, &left);
    *budget = left > 0 ? (unsigned)left : 0;
    if (nw->exhausted) {
        w->rotate = true;
        w->last = w->pc[__builtin_ctz(m)];
    }
    if (why != N_CONTROL || w->block->status)
        return false;
    *at = nw->at;
    *mask = nw->mask;
    put_uses(w, &w->kernel->module->code[*at], *mask);
    return true;
}
