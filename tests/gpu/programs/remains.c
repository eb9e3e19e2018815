/* SPDX-License-Identifier: Apache-2.0 */
/* What device memory holds of earlier processes: remains plant|look MIB. plant fills that much with a pattern and ends with it;
 * look allocates as much, writes nothing, and prints how many of its words hold the pattern, and how many are not zero. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"

#define PATTERN 0x5eed1e57u
#define MAX_PIECES 4096
#define PIECE_MIB 64u

static const char PTX[] =
    ".version 7.0\n.target sm_70\n.address_size 64\n"
    ".visible .entry look(.param .u64 words, .param .u64 count, .param .u32 each) {\n"
    " .reg .b64 %rd<5>; .reg .b32 %r<8>; .reg .pred %p<3>;\n"
    " ld.param.u64 %rd1,[words]; ld.param.u64 %rd2,[count]; ld.param.u32 %r1,[each];\n"
    " mov.u32 %r2,%ctaid.x; mov.u32 %r3,%ntid.x; mov.u32 %r4,%tid.x; mad.lo.u32 %r2,%r2,%r3,%r4;\n"
    " mul.wide.u32 %rd3,%r2,%r1; shl.b64 %rd3,%rd3,2; add.u64 %rd1,%rd1,%rd3; mov.u32 %r5,0; mov.u32 %r6,0;\n"
    "next: ld.global.u32 %r7,[%rd1]; setp.eq.u32 %p0,%r7,1592598103; setp.ne.u32 %p1,%r7,0;\n"
    " @%p0 add.u32 %r5,%r5,1; @%p1 add.u32 %r6,%r6,1; add.u64 %rd1,%rd1,4; sub.u32 %r1,%r1,1;\n"
    " setp.ne.u32 %p2,%r1,0; @%p2 bra next;\n"
    " cvt.u64.u32 %rd3,%r5; atom.global.add.u64 %rd4,[%rd2],%rd3; cvt.u64.u32 %rd3,%r6; atom.global.add.u64 %rd4,[%rd2+8],%rd3; ret; }\n";

_Static_assert(PATTERN == 1592598103u, "the kernel has it in decimal");

static CUdeviceptr pieces[MAX_PIECES];

static void look(unsigned nr)
{
    unsigned long long found[2] = { 0, 0 };
    unsigned each = 64, blocks = (PIECE_MIB << 20) / 4 / each / 256;
    CUdeviceptr count;
    CUmodule module;
    CUfunction f;

    MUST(cuModuleLoadData(&module, PTX));
    MUST(cuModuleGetFunction(&f, module, "look"));
    MUST(cuMemAlloc_v2(&count, sizeof(found)));
    MUST(cuMemcpyHtoD_v2(count, found, sizeof(found)));
    for (unsigned i = 0; i < nr; i++) {
        void *params[] = { &pieces[i], &count, &each };

        MUST(cuLaunchKernel(f, blocks, 1, 1, 256, 1, 1, 0, NULL, params, NULL));
    }
    MUST(cuMemcpyDtoH_v2(found, count, sizeof(found)));
    printf("%llu words of the pattern, %llu not zero\n", found[0], found[1]);
}

int main(int argc, char **argv)
{
    unsigned nr = argc > 2 ? (unsigned)atoi(argv[2]) / PIECE_MIB : 0;
    bool plants = nr && !strcmp(argv[1], "plant");
    CUcontext context;

    if (!nr || nr > MAX_PIECES || (!plants && strcmp(argv[1], "look")))
        return 2;
    MUST(cuInit(0));
    MUST(cuDevicePrimaryCtxRetain(&context, 0));
    MUST(cuCtxSetCurrent(context));
    for (unsigned i = 0; i < nr; i++) {
        MUST(cuMemAlloc_v2(&pieces[i], PIECE_MIB << 20));
        if (plants)
            MUST(cuMemsetD32_v2(pieces[i], PATTERN, (PIECE_MIB << 20) / 4));
    }
    if (!plants)
        look(nr);
    MUST(cuCtxSynchronize());
    if (plants)
        printf("planted\n");
    return 0;
}
