/* SPDX-License-Identifier: Apache-2.0 */
/* Clusters of thread blocks (compute capability 9.0): launches that fit and that do not, limits, graphs. */
#include "program.h"

#define CLUSTER_DIMENSION 4
#define MUST_BE_SET 10
#define WIDTH 11
#define NON_PORTABLE 14

/* Each block stores its rank and the value that the next block of its cluster has in shared memory. */
#define BODY                                                                                                          \
    "{\n.reg .b32 %r<12>;\n.reg .b64 %rd<6>;\n.shared .align 4 .b32 value;\n"                                          \
    "ld.param.u64 %rd1, [out];\nmov.u32 %r1, %ctaid.x;\nmul.lo.u32 %r2, %r1, 11;\nst.shared.u32 [value], %r2;\n"       \
    "barrier.cluster.arrive;\nbarrier.cluster.wait;\n"                                                                 \
    "mov.u32 %r3, %cluster_ctarank;\nmov.u32 %r4, %cluster_nctarank;\nadd.u32 %r5, %r3, 1;\nrem.u32 %r5, %r5, %r4;\n"  \
    "mov.u32 %r6, value;\nmapa.shared::cluster.u32 %r7, %r6, %r5;\nld.shared::cluster.u32 %r8, [%r7];\n"               \
    "barrier.cluster.arrive;\nbarrier.cluster.wait;\n"                                                                 \
    "mul.wide.u32 %rd2, %r1, 8;\nadd.u64 %rd3, %rd1, %rd2;\nst.global.v2.u32 [%rd3], {%r3, %r8};\nret;\n}\n"

static const char text[] = ".version 8.0\n.target sm_90\n.address_size 64\n"
    ".visible .entry pairs(.param .u64 out) .explicitcluster .reqnctapercluster 2, 1, 1\n" BODY
    ".visible .entry told(.param .u64 out) .explicitcluster\n" BODY
    ".visible .entry free(.param .u64 out)\n" BODY;

static CUdeviceptr out;

static void ready(void)
{
    start();
    MUST(cuModuleLoadData(&module, text));
    out = device_memory(4096);
}

static void show(unsigned blocks)
{
    unsigned got[128];

    MUST(cuMemcpyDtoH_v2(got, out, sizeof(got)));
    for (unsigned k = 0; k < blocks; k++)
        printf(" %u:%u", got[2 * k], got[2 * k + 1]);
    puts("");
    MUST(cuMemsetD32_v2(out, 0, 1024));
}

static CUresult clustered(const char *name, unsigned blocks, unsigned x, unsigned y)
{
    CUlaunchAttribute a = { .id = CLUSTER_DIMENSION, .value.clusterDim = { x, y, 1 } };
    CUlaunchConfig c = { .gridDimX = blocks, .gridDimY = 1, .gridDimZ = 1, .blockDimX = 32, .blockDimY = 1, .blockDimZ = 1,
                         .attrs = &a, .numAttrs = x != 0 };
    void *parameters[] = { &out };

    return cuLaunchKernelEx(&c, function(name), parameters, NULL);
}

/* A grid that is no multiple comes after one that is: what was right once vouches for nothing. */
static void plain(void)
{
    void *parameters[] = { &out };
    static const unsigned grids[] = { 4, 3, 6, 1, 5, 2 };

    ready();
    for (unsigned k = 0; k < 6; k++) {
        printf("%u: %s\n", grids[k], name_of(launch("pairs", grids[k], 32, NULL, parameters)));
        SAY(cuCtxSynchronize());
        show(6);
    }
    SAY(launch("free", 3, 32, NULL, parameters));
    show(3);
}

static void attribute(void)
{
    ready();
    SAY(clustered("free", 8, 4, 1));
    show(8);
    SAY(clustered("free", 6, 4, 1));
    SAY(clustered("free", 6, 3, 1));
    show(6);
    SAY(clustered("free", 16, 16, 1));
    SAY(clustered("pairs", 4, 2, 1));
    show(4);
    SAY(clustered("told", 4, 4, 1));
    show(4);
    SAY(clustered("told", 4, 2, 1));
    show(4);
    SAY(cuCtxSynchronize());
}

static void attributes_of(const char *name)
{
    printf("%s:", name);
    for (int what = MUST_BE_SET; what <= NON_PORTABLE; what++) {
        int v = -1;
        CUresult r = cuFuncGetAttribute(&v, (CUfunction_attribute)what, function(name));
        printf(" %d %s", v, name_of(r));
    }
    puts("");
}

static void queries(void)
{
    CUlaunchConfig c = { .gridDimX = 8, .gridDimY = 1, .gridDimZ = 1, .blockDimX = 32, .blockDimY = 1, .blockDimZ = 1 };
    int n = 0;

    ready();
    attributes_of("pairs");
    attributes_of("told");
    attributes_of("free");
    SAY(cuOccupancyMaxPotentialClusterSize(&n, function("free"), &c));
    printf("%d\n", n);
    SAY(cuFuncSetAttribute(function("free"), (CUfunction_attribute)NON_PORTABLE, 1));
    SAY(cuOccupancyMaxPotentialClusterSize(&n, function("free"), &c));
    printf("%d\n", n);
    SAY(clustered("free", 16, 16, 1));
    show(16);
    SAY(cuFuncSetAttribute(function("pairs"), (CUfunction_attribute)WIDTH, 4));
    attributes_of("free");
}

static void graph(void)
{
    CUgraph g;
    CUgraphExec e;
    CUstream s;
    CUlaunchAttribute a = { .id = CLUSTER_DIMENSION, .value.clusterDim = { 4, 1, 1 } };
    CUlaunchConfig c = { .gridDimX = 8, .gridDimY = 1, .gridDimZ = 1, .blockDimX = 32, .blockDimY = 1, .blockDimZ = 1,
                         .attrs = &a, .numAttrs = 1 };
    void *parameters[] = { &out };

    ready();
    s = c.hStream = new_stream();
    MUST(cuStreamBeginCapture_v2(s, 0));
    SAY(cuLaunchKernelEx(&c, function("free"), parameters, NULL));
    MUST(cuStreamEndCapture(s, &g));
    MUST(cuGraphInstantiateWithFlags(&e, g, 0));
    MUST(cuGraphLaunch(e, s));
    MUST(cuStreamSynchronize(s));
    show(8);
}

int main(int argc, char **argv)
{
    static const struct body bodies[] = { { "plain", plain }, { "attribute", attribute }, { "queries", queries }, { "graph", graph } };

    return run_body(bodies, sizeof(bodies) / sizeof(bodies[0]), argc, argv);
}
