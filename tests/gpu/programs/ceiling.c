/* SPDX-License-Identifier: Apache-2.0 */
/* All that takes memory of a card, at random: ceiling STEPS SEED [KIND...]. Each call must succeed or be out of memory; then
 * everything is freed, and half of what is free then can be had. Prints a JSON object: MiB free, and of each kind made and refused. */
#include <unistd.h>

#include "program.h"

#define SLOTS 192
#define MIB (1ull << 20)

struct thing {
    const struct kind *kind;
    CUdeviceptr p;
    void *handle;
    int device;
};
struct kind {
    const char *name;
    CUresult (*make)(struct thing *t);
    CUresult (*end)(struct thing *t);
    unsigned made, refused;
};

static struct thing things[SLOTS];
static CUcontext contexts[8]; /* the primary one of each device */
static int nr_devices, current;
static unsigned long long dice;

static unsigned roll(unsigned below)
{
    dice = dice * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(dice >> 33) % below;
}

/* A few bytes to 48 MiB, each order of magnitude as likely. */
static size_t some_bytes(void)
{
    return ((size_t)1 << roll(25)) + roll(1u << 24);
}

static void use(int device)
{
    current = device;
    MUST(cuCtxSetCurrent(contexts[device]));
}

/* ---- kinds ---- */
static CUresult linear(struct thing *t)
{
    return cuMemAlloc_v2(&t->p, roll(2) ? some_bytes() : 1 + roll(4096));
}

static CUresult pitched(struct thing *t)
{
    size_t pitch;

    return cuMemAllocPitch_v2(&t->p, &pitch, 1 + roll(8192), 1 + roll(2048), 4);
}

static CUresult linear_end(struct thing *t)
{
    return cuMemFree_v2(t->p);
}

static CUresult pooled(struct thing *t)
{
    return cuMemAllocAsync(&t->p, some_bytes(), NULL);
}

static CUresult pooled_end(struct thing *t)
{
    CUresult r = cuMemFreeAsync(t->p, NULL);

    return r ? r : cuStreamSynchronize(NULL);
}

static CUresult own_pool(struct thing *t)
{
    CUmemPoolProps props = { .allocType = 1, .location = { 1, current } };
    CUmemoryPool pool;
    CUresult r = cuMemPoolCreate(&pool, &props);

    if (r)
        return r;
    r = cuMemAllocFromPoolAsync(&t->p, 1 + roll(100000), pool, NULL);
    t->handle = pool;
    if (r)
        (void)cuMemPoolDestroy(pool);
    return r;
}

static CUresult own_pool_end(struct thing *t)
{
    CUresult r = pooled_end(t);

    return r ? r : cuMemPoolDestroy(t->handle);
}

static CUresult array(struct thing *t)
{
    CUDA_ARRAY3D_DESCRIPTOR d = { .Width = 1 + roll(roll(2) ? 2000 : 20), .Height = roll(3) ? 1 + roll(1000) : 0,
                                  .Format = 0x20, .NumChannels = 1u << roll(3) };
    CUarray made = NULL;
    CUresult r = cuArray3DCreate_v2(&made, &d);

    t->handle = made;
    return r;
}

static CUresult array_end(struct thing *t)
{
    return cuArrayDestroy(t->handle);
}

static CUresult physical(struct thing *t)
{
    CUmemAllocationProp prop = { .type = 1, .location = { 1, current } };
    CUmemGenericAllocationHandle made = 0;
    CUresult r = cuMemCreate(&made, (1 + roll(24)) * 2 * MIB, &prop, 0);

    t->handle = (void *)made;
    return r;
}

static CUresult physical_end(struct thing *t)
{
    return cuMemRelease((CUmemGenericAllocationHandle)t->handle);
}

/* A variable of some MiB, a kernel with code, and one with local memory. */
static CUresult image(struct thing *t)
{
    static char text[1 << 16];
    CUmodule made = NULL;
    size_t at;
    CUresult r;

    at = (size_t)snprintf(text, sizeof(text), ".version 7.0\n.target sm_70\n.address_size 64\n.visible .global .align 4 .b8 v%u[%u];\n"
                          ".visible .entry k(.param .u64 p) { .reg .b32 %%r<3>; .reg .b64 %%d; mov.u32 %%r1,%u; ld.param.u64 %%d,[p];\n",
                          roll(1000), 1 + roll(24u << 20), roll(1000));
    for (unsigned i = roll(400); i; i--)
        at += (size_t)snprintf(text + at, sizeof(text) - at, "mad.lo.u32 %%r1,%%r1,%u,%%r1; xor.b32 %%r1,%%r1,%u;\n", roll(1u << 30), i);
    snprintf(text + at, sizeof(text) - at, "st.global.u32 [%%d],%%r1; ret; }\n");
    r = cuModuleLoadData(&made, text);
    t->handle = made;
    return r;
}

static CUresult image_end(struct thing *t)
{
    return cuModuleUnload(t->handle);
}

static CUresult another_context(struct thing *t)
{
    CUcontext made = NULL, unused;
    CUresult r = cuCtxCreate_v2(&made, 0, current);

    t->handle = made;
    return r ? r : cuCtxPopCurrent_v2(&unused);
}

static CUresult context_end(struct thing *t)
{
    return cuCtxDestroy_v2(t->handle);
}

static CUresult stream_of(struct thing *t)
{
    CUstream made = NULL;
    CUresult r = cuStreamCreate(&made, 1);

    t->handle = made;
    return r;
}

static CUresult stream_end(struct thing *t)
{
    return cuStreamDestroy_v2(t->handle);
}

/* Stack, printf's buffer, malloc's heap. What was set stays: nothing is kept. */
static CUresult limit(struct thing *t)
{
    static const size_t most[] = { 4096, 32 << 20, 64 << 20 };
    unsigned which = roll(3);

    t->kind = NULL;
    return cuCtxSetLimit(which, 1024 + roll((unsigned)most[which]));
}

static CUresult local(struct thing *t)
{
    static char text[2048];
    CUdeviceptr p = 0;
    CUmodule made = NULL;
    CUfunction f;
    void *params[] = { &p };
    CUresult r;

    snprintf(text, sizeof(text), ".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry k(.param .u64 p) {\n"
             ".local .align 4 .b8 a[%u]; .reg .b32 %%r<4>; .reg .b64 %%d<5>; .reg .pred %%q;\n"
             "mov.u32 %%r1,%%tid.x; mov.u64 %%d1,a; mul.wide.u32 %%d2,%%r1,4; add.u64 %%d1,%%d1,%%d2; st.local.u32 [%%d1],%%r1;\n"
             "ld.param.u64 %%d3,[p]; setp.eq.u64 %%q,%%d3,0; ld.local.u32 %%r2,[%%d1]; @%%q ret; st.global.u32 [%%d3],%%r2; ret; }\n",
             256 + roll(4096) / 4 * 4);
    r = cuModuleLoadData(&made, text);
    if (!r)
        r = cuModuleGetFunction(&f, made, "k");
    if (!r)
        r = cuLaunchKernel(f, 8, 1, 1, 32, 1, 1, 0, NULL, params, NULL);
    if (!r)
        r = cuCtxSynchronize();
    t->handle = made;
    if (r && made)
        (void)cuModuleUnload(made);
    return r;
}

static CUresult graph(struct thing *t)
{
    CUDA_MEM_ALLOC_NODE_PARAMS p = { .poolProps = { .allocType = 1, .location = { 1, current } }, .bytesize = some_bytes() };
    CUgraphExec made = NULL;
    CUgraphNode node, last;
    CUgraph g;
    CUresult r = cuGraphCreate(&g, 0);

    if (r)
        return r;
    r = cuGraphAddMemAllocNode(&node, g, NULL, 0, &p);
    if (!r)
        r = cuGraphAddMemFreeNode(&last, g, &node, 1, p.dptr);
    if (!r)
        r = cuGraphInstantiateWithFlags(&made, g, 0);
    if (!r)
        r = cuGraphLaunch(made, NULL);
    if (!r)
        r = cuStreamSynchronize(NULL);
    if (r && made)
        (void)cuGraphExecDestroy(made);
    (void)cuGraphDestroy(g);
    t->handle = made;
    return r;
}

static CUresult graph_end(struct thing *t)
{
    return cuGraphExecDestroy(t->handle);
}

static struct kind kinds[] = {
    { "linear", linear, linear_end, 0, 0 },      { "linear again", linear, linear_end, 0, 0 },
    { "pitched", pitched, linear_end, 0, 0 },    { "pooled", pooled, pooled_end, 0, 0 },
    { "pool", own_pool, own_pool_end, 0, 0 },    { "array", array, array_end, 0, 0 },
    { "physical", physical, physical_end, 0, 0 }, { "module", image, image_end, 0, 0 },
    { "context", another_context, context_end, 0, 0 }, { "stream", stream_of, stream_end, 0, 0 },
    { "limit", limit, NULL, 0, 0 },              { "local", local, image_end, 0, 0 },
    { "graph", graph, graph_end, 0, 0 },
};
#define NR_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static void end(struct thing *t)
{
    CUresult r = CUDA_SUCCESS;

    if (t->kind) {
        use(t->device);
        r = t->kind->end(t);
    }
    if (r) {
        printf("the end of a %s: %s\n", t->kind->name, name_of(r));
        exit(1);
    }
    t->kind = NULL;
}

static void make(struct thing *t, struct kind *k)
{
    CUresult r;

    use((int)roll((unsigned)nr_devices));
    *t = (struct thing){ .kind = k, .device = current };
    r = k->make(t);
    k->made += r == CUDA_SUCCESS;
    k->refused += r == CUDA_ERROR_OUT_OF_MEMORY;
    if (r)
        t->kind = NULL;
    if (r && r != CUDA_ERROR_OUT_OF_MEMORY) {
        printf("a %s: %s\n", k->name, name_of(r));
        exit(1);
    }
}

static struct kind *choose(int argc, char **argv)
{
    struct kind *k = &kinds[roll(NR_KINDS)];

    for (int i = 3; i < argc; i++)
        if (!strcmp(argv[i], k->name))
            return k;
    return argc > 3 ? choose(argc, argv) : k;
}

static size_t free_bytes(void)
{
    size_t left, total;

    MUST(cuMemGetInfo_v2(&left, &total));
    return left;
}

/* Limits that were raised keep what they cost: half of what is free is to be had in any case. */
static void works_again(int device)
{
    CUdeviceptr p;
    CUresult r;

    use(device);
    MUST(cuCtxSynchronize());
    if (free_bytes() < 8 * MIB) /* others of its group have all */
        return;
    r = cuMemAlloc_v2(&p, free_bytes() / 2);
    if (r)
        printf("half of the %zu MiB that are free: %s\n", free_bytes() >> 20, name_of(r));
    if (r)
        exit(1);
    MUST(cuMemFree_v2(p));
}

static void start_all(void)
{
    MUST(cuInit(0));
    MUST(cuDeviceGetCount(&nr_devices));
    nr_devices = nr_devices < 8 ? nr_devices : 8;
    for (int i = 0; i < nr_devices; i++)
        MUST(cuDevicePrimaryCtxRetain(&contexts[i], i));
    use(0);
}

int main(int argc, char **argv)
{
    int steps = argc > 1 ? atoi(argv[1]) : 1;
    size_t at_start;
    char go;

    dice = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    start_all();
    if (getenv("CEILING_WAITS") && read(STDIN_FILENO, &go, 1) != 1) /* until all that press have their contexts */
        return 1;
    at_start = free_bytes();
    while (steps-- > 0) {
        struct thing *t = &things[roll(SLOTS)];

        if (t->kind)
            end(t);
        else
            make(t, choose(argc, argv));
    }
    use(0);
    printf("{\"start\": %zu, \"left\": %zu", at_start >> 20, free_bytes() >> 20);
    for (unsigned i = 0; i < SLOTS; i++)
        end(&things[i]);
    for (int i = 0; i < nr_devices; i++)
        works_again(i);
    use(0);
    for (unsigned i = 0; i < NR_KINDS; i++)
        printf(", \"%s\": [%u, %u]", kinds[i].name, kinds[i].made, kinds[i].refused);
    printf(", \"end\": %zu}\n", free_bytes() >> 20);
    return 0;
}
