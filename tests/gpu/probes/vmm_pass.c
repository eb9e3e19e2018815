/* SPDX-License-Identifier: Apache-2.0 */
/* Can a VMM allocation be exported by one worker and mapped by another, and who pays for it? */
#include "probe.h"

#include <sys/socket.h>
#include <sys/wait.h>

static void send_fd(int socket, int fd)
{
    char control[CMSG_SPACE(sizeof(int))] = { 0 }, byte = 1;
    struct iovec io = { &byte, 1 };
    struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
    if (sendmsg(socket, &m, 0) != 1)
        exit(1);
}

static int recv_fd(int socket)
{
    char control[CMSG_SPACE(sizeof(int))], byte;
    struct iovec io = { &byte, 1 };
    struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
    int fd;

    if (recvmsg(socket, &m, 0) != 1)
        exit(1);
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
    return fd;
}

static CUdeviceptr map(CUmemGenericAllocationHandle h, size_t bytes)
{
    CUmemAccessDesc access = { .location.type = CU_MEM_LOCATION_TYPE_DEVICE,
                               .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE };
    CUdeviceptr p;

    NEED(cuMemAddressReserve(&p, bytes, 0, 0, 0));
    NEED(cuMemMap(p, bytes, 0, h, 0));
    NEED(cuMemSetAccess(p, bytes, &access, 1));
    return p;
}

int main(void)
{
    CUmemAllocationProp prop = { .type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                 .requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                                 .location.type = CU_MEM_LOCATION_TYPE_DEVICE };
    size_t bytes = 64u << 20, free0, free1, total;
    CUmemGenericAllocationHandle h;
    int pair[2], fd;
    uint32_t value;

    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    if (fork() == 0) {
        start();
        fd = recv_fd(pair[1]);
        NEED(cuMemGetInfo(&free0, &total));
        NEED(cuMemImportFromShareableHandle(&h, (void *)(uintptr_t)fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
        CUdeviceptr p = map(h, bytes);
        NEED(cuMemGetInfo(&free1, &total));
        NEED(cuMemcpyDtoH(&value, p + bytes - 4, 4));
        fact("importing 64 MiB lowers free memory by %zd MiB", (ssize_t)(free0 - free1) >> 20);
        fact("importer reads 0x%x (exporter wrote 0xabcd1234)", value);
        NEED(cuMemsetD32(p, 0x55, bytes / 4));
        NEED(cuCtxSynchronize());
        if (write(pair[1], "x", 1) != 1)
            return 1;
        return 0;
    }
    start();
    NEED(cuMemCreate(&h, bytes, &prop, 0));
    CUdeviceptr p = map(h, bytes);
    NEED(cuMemsetD32(p, 0xabcd1234, bytes / 4));
    NEED(cuCtxSynchronize());
    NEED(cuMemExportToShareableHandle(&fd, h, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    send_fd(pair[0], fd);
    if (read(pair[0], &value, 1) != 1)
        return 1;
    NEED(cuMemcpyDtoH(&value, p, 4));
    fact("exporter then reads 0x%x (importer wrote 0x55)", value);
    wait(NULL);
    return 0;
}
