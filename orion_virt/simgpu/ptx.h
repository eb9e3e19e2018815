/* SPDX-License-Identifier: Apache-2.0 */
/* PTX to results: parses a PTX module and runs its kernels on host memory. Knows nothing of CUDA's API. */
#ifndef SIM_PTX_H
#define SIM_PTX_H

#include <stddef.h>
#include <stdint.h>

struct ptx_module;
struct ptx_kernel;

/* Device memory is host memory at its own address. The driver tells what is valid. */
struct ptx_memory {
    /* Length of the accessible memory from `address` on within one allocation, 0: none. */
    uint64_t (*extent)(void *arg, uint64_t address);
    /* Zeroed device memory for module globals, 256-byte aligned; NULL: out of memory. */
    void *(*alloc)(void *arg, size_t bytes, int managed);
    void (*free)(void *arg, void *p);
    /* What one call of printf printed (fd 1), or the message of a failed assertion (fd 2). */
    void (*print)(void *arg, int fd, const char *text, size_t bytes);
    void *arg;
};

enum ptx_status {
    PTX_OK = 0,
    PTX_PARSE,          /* not PTX, or an instruction that we lack: error text names it and the line */
    PTX_ILLEGAL_ADDRESS,
    PTX_MISALIGNED,
    PTX_ILLEGAL_INSTRUCTION,
    PTX_TRAP,           /* trap */
    PTX_ASSERT,         /* failed device-side assert */
    PTX_TIMEOUT,        /* stopped by the driver's cancel flag */
    PTX_NO_MEMORY,
    PTX_LAUNCH_CONFIG,
};

/* `error` receives a NUL-terminated explanation of at most `error_bytes`. */
enum ptx_status ptx_load(const char *text, size_t bytes, const struct ptx_memory *memory,
                         struct ptx_module **module, char *error, size_t error_bytes);
void ptx_unload(struct ptx_module *module);
struct ptx_kernel *ptx_find_kernel(struct ptx_module *module, const char *name);
struct ptx_kernel *ptx_kernel_at(struct ptx_module *module, unsigned index); /* NULL past the end */
const char *ptx_kernel_name(const struct ptx_kernel *kernel);
/* A module-scope .global or .const variable. */
int ptx_find_global(struct ptx_module *module, const char *name, uint64_t *address, uint64_t *bytes);
unsigned ptx_nr_params(const struct ptx_kernel *kernel);
int ptx_param(const struct ptx_kernel *kernel, unsigned index, size_t *offset, size_t *bytes);
size_t ptx_params_bytes(const struct ptx_kernel *kernel);
size_t ptx_shared_bytes(const struct ptx_kernel *kernel); /* static */
unsigned ptx_max_threads(const struct ptx_kernel *kernel);  /* .maxntid or 1024 */
unsigned ptx_nr_registers(const struct ptx_kernel *kernel); /* an estimate, at most 255 */

struct ptx_launch {
    unsigned grid[3], block[3];
    size_t dynamic_shared;
    const void *params;       /* packed at ptx_param offsets, ptx_params_bytes long */
    int cooperative;
    const volatile int *cancel; /* may be NULL */
};
/* Runs the whole grid; blocks may run in parallel on host threads. */
enum ptx_status ptx_run(struct ptx_kernel *kernel, const struct ptx_launch *launch,
                        const struct ptx_memory *memory, char *error, size_t error_bytes);

#endif
