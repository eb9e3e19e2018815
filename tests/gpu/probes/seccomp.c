/* SPDX-License-Identifier: Apache-2.0 */
/* Which system calls may a worker lose once its context is up, and still JIT, load lazily, allocate and launch? */
#include "probe.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static void deny(const int *numbers, int n)
{
    struct sock_filter code[64];
    int at = 0;

    code[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < n; i++) {
        code[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)numbers[i], 0, 1);
        code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    }
    code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog prog = { (unsigned short)at, code };

    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
        fact("seccomp filter refused: errno %d", errno);
}

static void body(const char *name, const int *numbers, int n, int warm)
{
    CUdeviceptr p, q;
    CUlibrary lib;
    CUkernel kernel;
    uint32_t value = 0;

    start();
    NEED(cuMemAlloc(&p, 4096));
    NEED(cuMemsetD32(p, 0, 1));
    if (warm)
        spin_kernel(); /* loads the driver's PTX compiler */
    deny(numbers, n);
    /* a fresh constant defeats the driver's JIT cache */
    char ptx[4096];
    snprintf(ptx, sizeof ptx, "%s// %ld %d\n", SPIN_PTX, (long)time(NULL), getpid());
    CUresult r = cuLibraryLoadData(&lib, ptx, NULL, NULL, 0, NULL, NULL, 0);
    fact("%s: cuLibraryLoadData(PTX) %d", name, r);
    r = r ? r : cuLibraryGetKernel(&kernel, lib, "spin");
    fact("%s: cuLibraryGetKernel %d", name, r);
    void *params[] = { &p, &(uint64_t){ 10 } };
    r = r ? r : cuLaunchKernel((CUfunction)kernel, 1, 1, 1, 1, 1, 1, 0, 0, params, NULL);
    fact("%s: lazy load + launch %d", name, r);
    r = cuMemAlloc(&q, 1u << 30);
    fact("%s: cuMemAlloc 1 GiB %d", name, r);
    r = cuMemcpyDtoH(&value, p, 4);
    fact("%s: copy back %d, value %u", name, r, value);
    CUstream s;
    fact("%s: cuStreamCreate %d", name, cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
}

int main(void)
{
    static const int network[] = { SYS_socket, SYS_connect, SYS_bind, SYS_accept, SYS_execve, SYS_execveat, SYS_ptrace,
                                   SYS_process_vm_readv, SYS_process_vm_writev, SYS_mount, SYS_unshare, SYS_setns };
    static const int files[] = { SYS_open, SYS_openat, SYS_unlink, SYS_rename, SYS_mkdir, SYS_socket, SYS_connect,
                                 SYS_execve, SYS_fork, SYS_vfork };
    static const int threads[] = { SYS_open, SYS_openat, SYS_clone, SYS_clone3, SYS_fork, SYS_socket };
    struct { const char *name; const int *numbers; int n, warm; } set[] = {
        { "no network, exec, ptrace", network, sizeof network / sizeof *network, 0 },
        { "and no files opened", files, sizeof files / sizeof *files, 0 },
        { "no files, no new threads", threads, sizeof threads / sizeof *threads, 0 },
        { "no files, JIT used before", files, sizeof files / sizeof *files, 1 },
        { "no files, no threads, JIT used before", threads, sizeof threads / sizeof *threads, 1 },
    };

    for (unsigned i = 0; i < sizeof set / sizeof *set; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            body(set[i].name, set[i].numbers, set[i].n, set[i].warm);
            _exit(0);
        }
        int status;
        waitpid(pid, &status, 0);
        fact("%s: exit status 0x%x", set[i].name, status);
    }
    return 0;
}
