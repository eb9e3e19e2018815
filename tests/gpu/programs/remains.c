/* SPDX-License-Identifier: Apache-2.0 */
/* What device memory holds of earlier processes: remains plant|free|look MIB. plant fills that much with a pattern, sees that it is there,
 * and ends with it when its input ends; free gives it back first. look allocates as much, writes nothing, and prints how many of its words
 * hold the pattern, and how many are not zero. Standard error has the time of each step. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "program.h"

#define PATTERN 0x5eed1e57u
#define MAX_PIECES 256
#define PIECE_MIB 8192u
#define BLOCKS 2048u
#define THREADS 256u

/* Thread i reads the words i, i + all threads, ...: neighbours read neighbours. */
static const char PTX[] =
    ".version 7.0\n.target sm_70\n.address_size 64\n"
    ".visible .entry look(.param .u64 words, .param .u64 number, .param .u64 count) {\n"
    " .reg .b64 %rd<9>; .reg .b32 %r<6>; .reg .pred %p<3>;\n"
    " ld.param.u64 %rd1,[words]; ld.param.u64 %rd2,[number]; ld.param.u64 %rd3,[count];\n"
    " mov.u32 %r1,%ctaid.x; mov.u32 %r2,%ntid.x; mov.u32 %r3,%tid.x; mad.lo.u32 %r3,%r1,%r2,%r3; cvt.u64.u32 %rd4,%r3;\n"
    " mov.u32 %r1,%nctaid.x; mul.wide.u32 %rd5,%r1,%r2; mov.u64 %rd7,0; mov.u64 %rd8,0;\n"
    "next: setp.ge.u64 %p0,%rd4,%rd2; @%p0 bra end; shl.b64 %rd6,%rd4,2; add.u64 %rd6,%rd6,%rd1; ld.global.u32 %r4,[%rd6];\n"
    " setp.eq.u32 %p1,%r4,1592598103; setp.ne.u32 %p2,%r4,0; @%p1 add.u64 %rd7,%rd7,1; @%p2 add.u64 %rd8,%rd8,1;\n"
    " add.u64 %rd4,%rd4,%rd5; bra next;\n"
    "end: atom.global.add.u64 %rd6,[%rd3],%rd7; atom.global.add.u64 %rd6,[%rd3+8],%rd8; ret; }\n";

_Static_assert(PATTERN == 1592598103u, "the kernel has it in decimal");

struct piece {
    CUdeviceptr at;
    size_t words;
};

static struct piece pieces[MAX_PIECES];
static unsigned nr_pieces;

static void took(const char *what)
{
    static struct timespec before;
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    if (before.tv_sec)
        fprintf(stderr, "%s: %.2f s\n", what, (double)(now.tv_sec - before.tv_sec) + (double)(now.tv_nsec - before.tv_nsec) / 1e9);
    before = now;
}

/* found[0]: words of the pattern, found[1]: words other than zero. */
static void look(unsigned long long *found)
{
    CUdeviceptr count;
    CUfunction f;

    MUST(cuModuleLoadData(&module, PTX));
    MUST(cuModuleGetFunction(&f, module, "look"));
    MUST(cuMemAlloc_v2(&count, 16));
    memset(found, 0, 16);
    MUST(cuMemcpyHtoD_v2(count, found, 16));
    for (unsigned i = 0; i < nr_pieces; i++) {
        void *params[] = { &pieces[i].at, &pieces[i].words, &count };

        MUST(cuLaunchKernel(f, BLOCKS, 1, 1, THREADS, 1, 1, 0, NULL, params, NULL));
    }
    MUST(cuMemcpyDtoH_v2(found, count, 16));
    took("looked");
}

static void allocate(unsigned mib)
{
    for (; mib && nr_pieces < MAX_PIECES; nr_pieces++) {
        unsigned now = mib < PIECE_MIB ? mib : PIECE_MIB;

        MUST(cuMemAlloc_v2(&pieces[nr_pieces].at, (size_t)now << 20));
        pieces[nr_pieces].words = ((size_t)now << 20) / 4;
        mib -= now;
    }
    took("allocated");
}

static void plant(bool frees)
{
    unsigned long long found[2], all = 0;

    for (unsigned i = 0; i < nr_pieces; i++) {
        MUST(cuMemsetD32_v2(pieces[i].at, PATTERN, pieces[i].words));
        all += pieces[i].words;
    }
    look(found);
    for (unsigned i = 0; frees && i < nr_pieces; i++)
        MUST(cuMemFree_v2(pieces[i].at));
    puts(found[0] == all ? "planted" : "the pattern is not where it was planted");
    fflush(stdout);
    while (getchar() != EOF)
        ;
}

int main(int argc, char **argv)
{
    int mib = argc == 3 ? atoi(argv[2]) : 0;
    unsigned long long found[2];

    if (mib <= 0)
        return 2;
    took("start");
    MUST(cuInit(0));
    MUST(cuDevicePrimaryCtxRetain(&context, 0));
    MUST(cuCtxSetCurrent(context));
    took("made a context");
    allocate((unsigned)mib);
    if (strcmp(argv[1], "look")) {
        plant(!strcmp(argv[1], "free"));
        return 0;
    }
    look(found);
    printf("%llu words of the pattern, %llu not zero\n", found[0], found[1]);
    return 0;
}
