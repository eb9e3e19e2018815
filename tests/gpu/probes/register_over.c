/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemHostRegister by mapping an extent over application memory: are both addresses of the pages coherent with DMA? */
#include "probe.h"

#include <fcntl.h>
#include <sys/mman.h>

int main(void)
{
    size_t bytes = 8u << 20;
    int fd = shm_open("/orion-probe", O_CREAT | O_RDWR, 0600);
    uint8_t *app = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint8_t *worker = NULL, *moved;
    CUdeviceptr device, d;
    uint8_t back[4096];
    double t;

    shm_unlink("/orion-probe");
    if (fd < 0 || ftruncate(fd, (off_t)bytes))
        return 1;
    worker = mmap((void *)0x200000000000, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
    start();
    memset(app, 0x11, bytes);
    t = now();
    memcpy(worker, app, bytes);
    moved = mmap(app, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
    fact("move of 8 MiB under the application's address: %.2f ms, same address %d, contents kept %d",
         (now() - t) * 1e3, moved == app, app[bytes - 1] == 0x11);
    NEED(cuMemHostRegister(worker, bytes, CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP));
    NEED(cuMemHostGetDevicePointer(&device, worker, 0));
    fact("device pointer equals the worker's address: %d", device == (CUdeviceptr)(uintptr_t)worker);
    NEED(cuMemAlloc(&d, bytes));
    memset(app, 0x22, 4096);
    NEED(cuMemcpyHtoD(d, worker, 4096));
    NEED(cuMemcpyDtoH(back, d, 4096));
    fact("DMA from the worker's address sees what was written through the application's: %d", back[4095] == 0x22);
    NEED(cuMemsetD8(d, 0x33, bytes));
    NEED(cuMemcpyDtoH(worker, d, bytes));
    fact("DMA into the worker's address is seen through the application's: %d", app[bytes - 1] == 0x33);
    fact("registering the second mapping of the same pages: %d",
         cuMemHostRegister(app, bytes, CU_MEMHOSTREGISTER_PORTABLE));
    return 0;
}
