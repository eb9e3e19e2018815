/* SPDX-License-Identifier: Apache-2.0 */
/* Module level of PTX: directives, functions, units that are linked; what calls what. */
#include <stdio.h>
#include <stdlib.h>

#include "ptx_internal.h"

struct ptx_kernel *ptx_function(struct ptx_parser *p, const char *name, size_t len, unsigned *index)
{
    struct ptx_kernel *shown = NULL;

    for (unsigned i = 0; i < p->module->nr_functions; i++) {
        struct ptx_kernel *f = p->module->functions[i];
        if (strlen(f->name) != len || memcmp(f->name, name, len) || (f->unit != p->unit && !f->visible))
            continue;
        *index = i;
        if (f->unit == p->unit)
            return f;
        shown = f;
    }
    return shown;
}

uint64_t ptx_code_address(struct ptx_module *m, unsigned index)
{
    m->functions[index]->address_taken = true;
    return PTX_CODE_WINDOW + 16ull * (index + 1);
}

void ptx_defer(struct ptx_parser *p, struct ptx_deferred what)
{
    p->deferred = ptx_grow(p, p->deferred, p->nr_deferred, sizeof(*p->deferred));
    p->deferred[p->nr_deferred++] = what;
}

/* Parameters of a list in parentheses. `base` places them; a second list for the same function only renames. */
static void parameters(struct ptx_parser *p, struct ptx_variable **list, unsigned *nr, bool entry, unsigned *used)
{
    bool again = *nr > 0;
    unsigned at = 0;

    ptx_expect(p, "(");
    while (!p->failed && !ptx_accept(p, ")")) {
        struct ptx_variable v;
        enum ptx_type type;
        if (ptx_accept(p, ".reg"))
            return ptx_fail(p, "parameters of functions in registers (.reg) are not supported by the simulated GPU");
        ptx_expect(p, ".param");
        ptx_declaration(p, &v, &type);
        if (p->failed)
            return;
        v.space = entry ? S_PARAM : S_LOCAL;
        if (again && at < *nr) {
            free((*list)[at].name);
            (*list)[at++].name = v.name;
        } else {
            v.address = ptx_place(used, &v);
            *list = ptx_grow(p, *list, *nr, sizeof(**list));
            (*list)[(*nr)++] = v;
        }
        ptx_accept(p, ",");
    }
}

static struct ptx_kernel *declare(struct ptx_parser *p, bool entry, uint32_t linkage)
{
    struct ptx_lexer *l = &p->lex;
    struct ptx_module *m = p->module;
    unsigned index;
    struct ptx_kernel *f = ptx_function(p, l->text, l->len, &index);

    if (!f) {
        f = calloc(1, sizeof(*f));
        m->functions = ptx_grow(p, m->functions, m->nr_functions, sizeof(*m->functions));
        m->functions[m->nr_functions++] = f;
        f->module = m;
        f->name = strndup(l->text, l->len);
        f->entry = entry;
        f->unit = p->unit;
        f->target = p->target;
        f->max_threads = 1024;
        f->return_slot = -1;
    }
    f->visible = f->visible || linkage;
    ptx_next(l);
    return f;
}

/* Directives between a kernel's head and its body. */
static void tuning(struct ptx_parser *p, struct ptx_kernel *f)
{
    struct ptx_lexer *l = &p->lex;

    while (l->kind == K_NAME && l->text[0] == '.') {
        bool threads = ptx_is(l, ".maxntid") || ptx_is(l, ".reqntid"), cluster = ptx_is(l, ".reqnctapercluster");
        unsigned size[3] = { 1, 1, 1 }, nr = 0;
        if (ptx_is(l, ".blocksareclusters"))
            return ptx_fail(p, "'.blocksareclusters' is not supported by the simulated GPU");
        f->clustered = f->clustered || cluster || ptx_is(l, ".explicitcluster");
        ptx_next(l);
        while (l->kind == K_NUMBER || ptx_is(l, ",")) {
            if (l->kind == K_NUMBER && nr < 3)
                size[nr++] = l->value < UINT16_MAX ? (unsigned)l->value : UINT16_MAX;
            ptx_next(l);
        }
        uint64_t product = (uint64_t)size[0] * size[1] * size[2];
        if (threads && product && product < 1024)
            f->max_threads = (unsigned)product;
        if (cluster)
            memcpy(f->cluster, size, sizeof(size));
    }
}

static void forget_symbols(struct ptx_parser *p)
{
    for (unsigned i = 0; i < p->nr_symbols; i++)
        free(p->symbols[i].variable.name);
    free(p->symbols);
    free(p->labels);
    p->symbols = NULL;
    p->labels = NULL;
    p->nr_symbols = p->nr_labels = 0;
}

/* The body, when all names are known. */
static void define(struct ptx_parser *p, struct ptx_kernel *f)
{
    struct ptx_module *m = p->module;

    p->f = f;
    f->first = m->nr_code;
    f->first_list = m->nr_lists;
    if (!f->entry) { /* functions share one numbering, so that any kernel can call them */
        f->slots = f->first_slot = m->slots;
        f->local_bytes = f->first_body = m->local_bytes;
        f->shared_bytes = m->shared_bytes;
        f->return_slot = ptx_new_slot(p, 64);
    }
    ptx_body(p);
    f->end = m->nr_code;
    f->end_list = m->nr_lists;
    if (!f->entry) {
        m->slots = f->slots;
        m->local_bytes = f->local_bytes;
        m->shared_bytes = f->shared_bytes;
    }
    forget_symbols(p);
    p->f = NULL;
}

static void skip_body(struct ptx_parser *p)
{
    unsigned depth = 0;

    do {
        depth += ptx_is(&p->lex, "{") - ptx_is(&p->lex, "}");
        ptx_next(&p->lex);
    } while (depth && p->lex.kind != K_END);
    if (depth)
        ptx_fail(p, "the text ends inside a function");
}

/* Results come before the name, so they wait for the function that they belong to. */
static void take_results(struct ptx_kernel *f, struct ptx_variable *results, unsigned nr)
{
    if (!f->results) {
        f->results = results;
        f->nr_results = nr;
        return;
    }
    for (unsigned i = 0; i < nr; i++) { /* declared before: keep the places, take the new names */
        if (i < f->nr_results) {
            free(f->results[i].name);
            f->results[i].name = results[i].name;
        }
    }
    free(results);
}

static void function(struct ptx_parser *p, bool entry, uint32_t linkage)
{
    struct ptx_variable *results = NULL;
    unsigned nr_results = 0, kernel_used = 0, *used = entry ? &kernel_used : &p->module->local_bytes;
    unsigned first_local = p->module->local_bytes;
    struct ptx_kernel *f;

    if (!entry && ptx_is(&p->lex, "("))
        parameters(p, &results, &nr_results, false, used);
    f = declare(p, entry, linkage);
    if (!f->results && !f->params)
        f->first_local = first_local;
    take_results(f, results, nr_results);
    if (ptx_is(&p->lex, "("))
        parameters(p, &f->params, &f->nr_params, entry, used);
    if (!f->defined && !entry)
        f->end_local = p->module->local_bytes > f->end_local ? p->module->local_bytes : f->end_local;
    if (entry && kernel_used)
        f->params_bytes = kernel_used;
    tuning(p, f);
    if (ptx_accept(p, ";") || p->failed)
        return;
    if (f->defined && !(linkage & LINK_WEAK))
        return ptx_fail(p, "%s is defined twice", f->name);
    if (!f->defined)
        ptx_defer(p, (struct ptx_deferred){ .lex = p->lex, .unit = p->unit, .f = f });
    f->defined = true;
    skip_body(p);
}

/* .alias NAME, OTHER; both are declared: what calls the one runs the other. */
static void alias(struct ptx_parser *p)
{
    unsigned index, target;
    struct ptx_kernel *f, *other;

    ptx_next(&p->lex);
    f = ptx_function(p, p->lex.text, p->lex.len, &index);
    ptx_next(&p->lex);
    ptx_expect(p, ",");
    other = ptx_function(p, p->lex.text, p->lex.len, &target);
    ptx_next(&p->lex);
    ptx_expect(p, ";");
    if (!f || !other || f->entry || other->entry)
        return ptx_fail(p, ".alias of something that is not a declared function");
    f->alias = other;
}

static void skip_to(struct ptx_parser *p, const char *text)
{
    while (p->lex.kind != K_END && !ptx_is(&p->lex, text))
        ptx_next(&p->lex);
    ptx_next(&p->lex);
}

static bool space_of(const struct ptx_lexer *l, enum ptx_space *space)
{
    *space = ptx_is(l, ".global") ? S_GLOBAL : ptx_is(l, ".const") ? S_CONST : ptx_is(l, ".shared") ? S_SHARED
             : ptx_is(l, ".local") ? S_LOCAL : S_GENERIC;
    return *space != S_GENERIC;
}

static uint32_t linkage(struct ptx_parser *p)
{
    struct ptx_lexer *l = &p->lex;
    uint32_t how = 0;

    while (ptx_is(l, ".visible") || ptx_is(l, ".extern") || ptx_is(l, ".weak") || ptx_is(l, ".common")) {
        how |= ptx_is(l, ".extern") ? LINK_EXTERN | LINK_VISIBLE : ptx_is(l, ".visible") ? LINK_VISIBLE : LINK_WEAK | LINK_VISIBLE;
        ptx_next(l);
    }
    return how;
}

/* The head of a unit, or what a debugger reads. */
static void describe(struct ptx_parser *p)
{
    struct ptx_lexer *l = &p->lex;

    if (ptx_is(l, ".version") || ptx_is(l, ".address_size")) {
        if (ptx_is(l, ".version") && p->unit++) /* lines count from each unit's own beginning */
            l->line = 1;
        ptx_next(l);
        ptx_next(l);
    } else if (ptx_is(l, ".target")) {
        ptx_next(l);
        if (l->len > 3 && !memcmp(l->text, "sm_", 3)) /* a letter may follow the number */
            p->target = (unsigned)strtoul(l->text + 3, NULL, 10);
        if (p->target > PTX_NEWEST_TARGET)
            return ptx_fail(p, "'.target %.*s' is for a newer card than this one, sm_%u", (int)l->len, l->text, PTX_NEWEST_TARGET);
        do
            ptx_next(l);
        while (ptx_accept(p, ","));
    } else if (ptx_accept(p, ".file")) {
        while (l->kind == K_NUMBER || l->kind == K_STRING || ptx_is(l, ","))
            ptx_next(l);
    } else if (ptx_is(l, ".section")) {
        skip_to(p, "}");
    } else if (ptx_is(l, ".pragma")) {
        skip_to(p, ";");
    } else {
        ptx_fail(p, "unknown directive '%.*s'", (int)l->len, l->text);
    }
}

static void directive(struct ptx_parser *p)
{
    struct ptx_lexer *l = &p->lex;
    uint32_t how = linkage(p);
    enum ptx_space space;

    ptx_split_word(l);
    if (space_of(l, &space)) {
        ptx_next(l);
        ptx_variable(p, space, how);
    } else if (ptx_accept(p, ".entry")) {
        function(p, true, how);
    } else if (ptx_accept(p, ".func")) {
        while (ptx_accept(p, ".noreturn"))
            ;
        function(p, false, how);
    } else if (ptx_is(l, ".alias")) {
        alias(p);
    } else {
        describe(p);
    }
}

static void read_deferred(struct ptx_parser *p)
{
    for (unsigned i = 0; i < p->nr_deferred && !p->failed; i++) {
        struct ptx_deferred *d = &p->deferred[i];
        p->lex = d->lex;
        p->unit = d->unit;
        if (d->f)
            define(p, d->f);
        else
            ptx_initialise(p, &p->module->variables[d->variable], d->type);
    }
}

/* ---- linking ---- */

static void move_slot(int32_t *slot, unsigned by)
{
    if (*slot >= 0)
        *slot += (int32_t)by;
}

/* A kernel's slots come after those of the functions. */
static void move_kernel(struct ptx_module *m, struct ptx_kernel *k)
{
    for (uint32_t i = k->first; i < k->end; i++) {
        struct ptx_insn *n = &m->code[i];
        int32_t *slots[] = { &n->pred, &n->d, &n->d2, &n->a, &n->b, &n->c, &n->e };
        for (unsigned s = 0; s < 7; s++)
            move_slot(slots[s], m->slots);
        int32_t nr = n->exec == ptx_atom && n->d2 >= 0 ? 2 * n->nr : n->nr; /* old values go to as many registers */
        for (int32_t e = 0; n->list >= 0 && n->op != OP_BRX && e < nr; e++)
            move_slot(&m->lists[n->list + e], m->slots);
    }
    for (unsigned c = 0; c < k->nr_constants; c++)
        k->constants[c].slot += (int32_t)m->slots;
    k->slots += m->slots;
}

/* Whether a call in `from` may come back to `to`; `seen` has a byte for each function. */
static bool reaches(const struct ptx_module *m, const struct ptx_kernel *from, const struct ptx_kernel *to, uint8_t *seen)
{
    for (unsigned c = 0; c < from->nr_calls; c++) {
        bool any = from->calls[c] == PTX_ANY_FUNCTION; /* through a pointer: all whose address is known */
        for (unsigned k = 0; k < m->nr_functions; k++) {
            const struct ptx_kernel *f = m->functions[k];
            if ((any ? !f->address_taken : from->calls[c] != k) || seen[k])
                continue;
            f = f->alias ? f->alias : f;
            seen[k] = 1;
            if (f == to || reaches(m, f, to, seen))
                return true;
        }
    }
    return false;
}

static void find_frames(struct ptx_parser *p)
{
    struct ptx_module *m = p->module;
    uint8_t *seen = malloc(m->nr_functions + 1u);

    for (unsigned i = 0; seen && i < m->nr_functions; i++) {
        struct ptx_kernel *f = m->functions[i];
        memset(seen, 0, m->nr_functions);
        f->framed = !f->entry && f->defined && (f->framed || reaches(m, f, f, seen));
        m->needs_stack = m->needs_stack || f->framed;
    }
    free(seen);
}

static void undefined(struct ptx_parser *p, const struct ptx_kernel *f)
{
    if (!strncmp(f->name, "cudaLaunchDevice", 16) || !strncmp(f->name, "cudaGetParameterBuffer", 22) ||
        !strncmp(f->name, "cudaCDP", 7) || !strncmp(f->name, "__cudaCDP", 9))
        return ptx_fail(p, "device code starts kernels (%s): the simulated GPU does not support dynamic parallelism; start "
                        "them from the host", f->name);
    ptx_fail(p, "function %s is defined in no module that was linked", f->name);
}

static void link_module(struct ptx_parser *p)
{
    struct ptx_module *m = p->module;

    m->local_bytes = (m->local_bytes + 15) & ~15u; /* kernels' own variables follow: keep their alignment */
    m->shared_used = m->shared_bytes;
    m->shared_bytes = (m->shared_bytes + 127) & ~127u;
    find_frames(p);
    for (uint32_t i = 0; i < m->nr_code && !p->failed; i++) {
        if (m->code[i].op != OP_CALL || m->code[i].a >= 0)
            continue;
        const struct ptx_kernel *f = m->functions[m->code[i].target];
        f = f->alias ? f->alias : f;
        p->insn_line = m->code[i].line;
        if (!f->defined)
            undefined(p, f);
        for (unsigned k = 0; k < m->nr_functions; k++)
            if (m->functions[k] == f)
                m->code[i].target = k;
    }
    for (unsigned i = 0; i < m->nr_functions && !p->failed; i++)
        if (m->functions[i]->entry) {
            move_kernel(m, m->functions[i]);
            ptx_native_begin(m->functions[i]);
        }
}

enum ptx_status ptx_load(const char *text, size_t bytes, const struct ptx_memory *memory,
                         struct ptx_module **module, char *error, size_t error_bytes)
{
    struct ptx_module *m = calloc(1, sizeof(*m));
    struct ptx_parser p = {
        .lex = { .p = text, .end = text + bytes, .line = 1 }, .module = m, .error = error, .error_bytes = error_bytes,
    };

    *module = NULL;
    if (!m)
        return PTX_NO_MEMORY;
    m->memory = *memory;
    ptx_next(&p.lex);
    if (!ptx_is(&p.lex, ".version"))
        ptx_fail(&p, "this is not PTX: it must begin with .version");
    while (p.lex.kind != K_END && !p.failed)
        directive(&p);
    read_deferred(&p);
    if (!p.failed)
        link_module(&p);
    forget_symbols(&p);
    free(p.deferred);
    if (p.failed) {
        ptx_unload(m);
        return PTX_PARSE;
    }
    *module = m;
    return PTX_OK;
}

static void free_variables(struct ptx_variable *v, unsigned nr)
{
    for (unsigned i = 0; i < nr; i++)
        free(v[i].name);
    free(v);
}

void ptx_unload(struct ptx_module *m)
{
    ptx_heap_drop(m);
    for (unsigned i = 0; i < m->nr_functions; i++) {
        struct ptx_kernel *f = m->functions[i];
        ptx_native_end(f);
        free_variables(f->params, f->nr_params);
        free_variables(f->results, f->nr_results);
        free(f->constants);
        free(f->widths);
        free(f->calls);
        free(f->name);
        free(f);
    }
    for (unsigned i = 0; i < m->nr_variables; i++)
        if ((m->variables[i].space == S_GLOBAL || m->variables[i].space == S_CONST) && m->variables[i].address)
            m->memory.free(m->memory.arg, (void *)(uintptr_t)m->variables[i].address);
    free_variables(m->variables, m->nr_variables);
    free(m->functions);
    free(m->code);
    free(m->lists);
    free(m);
}
