/* SPDX-License-Identifier: Apache-2.0 */
/* PTX to results: parses a PTX module and runs its kernels on host memory. Knows nothing of CUDA's API. */
#ifndef SIM_PTX_H
#define SIM_PTX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ptx_module;
struct ptx_kernel;

#define PTX_NEWEST_TARGET 90u /* sm_90; text for newer ones is refused, as by a card */

/* What a texture or surface object names. Sizes are in elements, of a dimension that it lacks 1. */
#define PTX_TEXTURE_LEVELS 18u
enum ptx_component { PTX_UNSIGNED, PTX_SIGNED, PTX_FLOAT };
enum ptx_address_mode { PTX_WRAP, PTX_CLAMP, PTX_MIRROR, PTX_BORDER };
struct ptx_texture {
    struct ptx_level {
        uint8_t *base;
        uint32_t size[3];             /* the third counts layers and faces too */
        size_t pitch, slice;
    } level[PTX_TEXTURE_LEVELS];
    unsigned levels, channels, component_bytes;
    enum ptx_component component;
    enum ptx_address_mode mode[3];
    bool linear_memory;               /* a row of memory: fetches outside are 0 */
    bool linear, mip_linear;          /* filters */
    bool normalized_coordinates, as_integer;
    float border[4], bias, min_lod, max_lod;
};

/* Device memory is host memory at its own address. The driver tells what is valid. */
struct ptx_memory {
    /* Length of the accessible memory from `address` on within one allocation, 0: none. */
    uint64_t (*extent)(void *arg, uint64_t address);
    /* Zeroed device memory for module globals, 256-byte aligned; NULL: out of memory. */
    void *(*alloc)(void *arg, size_t bytes, int managed);
    void (*free)(void *arg, void *p);
    /* How much malloc of device code may give in all. */
    uint64_t (*heap_bytes)(void *arg);
    /* What one call of printf printed (fd 1), or the message of a failed assertion (fd 2). */
    void (*print)(void *arg, int fd, const char *text, size_t bytes);
    /* Which memory is nearest to an address that is none. */
    void (*describe)(void *arg, uint64_t address, char *text, size_t room);
    /* A line for whoever looks after the machine. */
    void (*say)(const char *text);
    /* False: `object` is no live texture (or surface) object. */
    bool (*texture)(void *arg, uint64_t object, bool surface, struct ptx_texture *out);
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
    PTX_DEADLINE,       /* it ran longer than it may */
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
/* A texture reference: a variable of 8 bytes that holds a texture object. */
int ptx_find_reference(struct ptx_module *module, const char *name, uint64_t *address);
unsigned ptx_nr_params(const struct ptx_kernel *kernel);
int ptx_param(const struct ptx_kernel *kernel, unsigned index, size_t *offset, size_t *bytes);
size_t ptx_params_bytes(const struct ptx_kernel *kernel);
size_t ptx_shared_bytes(const struct ptx_kernel *kernel); /* static */
size_t ptx_local_bytes(const struct ptx_kernel *kernel);  /* of a thread: the kernel's and those of functions it may call */
size_t ptx_constant_bytes(const struct ptx_kernel *kernel); /* of its module */
unsigned ptx_target(const struct ptx_kernel *kernel);       /* of its unit: 75 for sm_75 */
unsigned ptx_max_threads(const struct ptx_kernel *kernel);  /* .maxntid or 1024 */
unsigned ptx_nr_registers(const struct ptx_kernel *kernel); /* an estimate, at most 255 */
/* Is it for clusters only? `blocks`: their size in each dimension, if the kernel says it, else 0. */
bool ptx_cluster(const struct ptx_kernel *kernel, unsigned blocks[3]);

struct ptx_launch {
    unsigned grid[3], block[3];
    unsigned cluster[3];      /* blocks of one in each dimension, of which the grid has a multiple; 0 is 1 */
    size_t dynamic_shared;
    const void *params;       /* packed at ptx_param offsets, ptx_params_bytes long */
    int cooperative;
    const volatile int *cancel; /* may be NULL */
    uint64_t *done;           /* counts blocks that have ended, atomically; may be NULL */
    unsigned threads;         /* of the host, that run blocks; 0: as many as it has CPUs, at most PTX_THREADS_MAX */
    unsigned timeout_s;       /* 0: none */
    enum ptx_translate { PTX_TRANSLATE_HOT, PTX_TRANSLATE_ALL, PTX_TRANSLATE_NONE } translate;
};
#define PTX_THREADS_MAX 256u
/* Runs the whole grid; blocks may run in parallel on host threads. */
enum ptx_status ptx_run(struct ptx_kernel *kernel, const struct ptx_launch *launch,
                        const struct ptx_memory *memory, char *error, size_t error_bytes);

#endif
