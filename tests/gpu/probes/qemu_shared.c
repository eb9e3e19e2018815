/* SPDX-License-Identifier: Apache-2.0 */
/* Is host registration of a file that a running QEMU maps too coherent, both ways? Argument: the file. */
#include "probe.h"

#include <fcntl.h>
#include <sys/mman.h>

static int wait_for(volatile uint32_t *word, uint32_t value)
{
    for (int i = 0; i < 60000; i++, usleep(1000))
        if (*word == value)
            return 1;
    return 0;
}

int main(int argc, char **argv)
{
    size_t bytes = 16u << 20, part = (8u << 20) - 4096;
    int fd = argc > 1 ? open(argv[1], O_RDWR) : -1;
    volatile uint32_t *p;
    uint32_t *copy = malloc(part), bad = 0;
    CUdeviceptr d;
    double t;

    p = mmap((void *)0x200000000000, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
    if (p == MAP_FAILED) {
        fact("no file to map");
        return 1;
    }
    start();
    t = now();
    need(cuMemHostRegister((void *)p, bytes, CU_MEMHOSTREGISTER_PORTABLE), "register a file that QEMU maps");
    fact("register 16 MiB of QEMU's file: 0, %.2f ms", (now() - t) * 1e3);
    if (!wait_for(p, 1)) {
        fact("the guest did not answer");
        return 1;
    }
    NEED(cuMemAlloc(&d, part));
    NEED(cuMemcpyHtoD(d, (void *)(p + 1024), part));
    NEED(cuMemcpyDtoH(copy, d, part));
    for (uint32_t i = 0; i < part / 4; i++)
        bad += copy[i] != (i + 1024) * 2654435761u;
    fact("GPU reads what the guest wrote through its BAR: %u wrong words of %zu", bad, part / 4);
    for (uint32_t i = 0; i < part / 4; i++)
        copy[i] = ~copy[i];
    NEED(cuMemcpyHtoD(d, copy, part));
    NEED(cuMemcpyDtoH((void *)(p + 1024), d, part));
    *p = 2;
    fact("guest reads what the GPU wrote: %s, %u wrong words", wait_for(p, 3) ? "answered" : "no answer", p[1]);
    return 0;
}
