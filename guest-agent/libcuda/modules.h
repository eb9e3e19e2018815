/* SPDX-License-Identifier: Apache-2.0 */
/* Images, modules, libraries and functions: what their files share. */
#ifndef OG_MODULES_H
#define OG_MODULES_H

#include <pthread.h>

#include "client.h"

/* ---- image.c ---- */
enum og_image_kind { OG_IMAGE_RAW = 0, OG_IMAGE_WRAPPER_V1 = 1, OG_IMAGE_WRAPPER_V2 = 2 };
#define OG_IMAGE_MAX_PIECES 4096u
struct og_piece {
    const void *data;
    uint64_t bytes;
};
struct og_image {
    enum og_image_kind kind;
    bool text;              /* PTX or another text */
    bool copied;            /* the pieces are ours */
    unsigned nr;
    struct og_piece *pieces;
};
/* Finds how long the image at `code` is; it may not reach beyond `limit` bytes (UINT64_MAX: unknown). */
OG_MUST_CHECK CUresult og_image_scan(const void *code, uint64_t limit, struct og_image *image);
/* Replaces the pieces by copies of our own. */
OG_MUST_CHECK CUresult og_image_copy(struct og_image *image);
void og_image_free(struct og_image *image);
/* Sends it; *id names it on the host until og_image_drop. */
OG_MUST_CHECK CUresult og_image_send(const struct og_image *image, uint64_t *id);
/* Only announces it: *id can hold what options bring back. */
OG_MUST_CHECK CUresult og_image_begin(const struct og_image *image, uint64_t *id);
void og_image_drop(uint64_t id);
/* A whole file, NUL-terminated; free() it. */
OG_MUST_CHECK CUresult og_read_file(const char *path, void **data, uint64_t *bytes);

/* ---- jit.c: options of a load ---- */
#define OG_JIT_MAX 40u
struct og_jit {
    uint32_t nr;
    uint64_t packed[OG_JIT_MAX]; /* option << 32 | value, as it crosses */
    char *log[2];                /* info, error */
    uint32_t log_bytes[2];
    void **log_bytes_out[2];     /* where the application reads how much was written */
    void **wall_out, **threads_out;
};
OG_MUST_CHECK CUresult og_jit_parse(struct og_jit *jit, unsigned nr, CUjit_option *options, void **values);
/* Fetches logs and values of the load that was just tried with this image. */
void og_jit_results(const struct og_jit *jit, uint64_t image);

/* ---- function.c: CUfunction and CUkernel ---- */
#define OG_ATTRS 32u          /* function attributes that are cached */
#define OG_SHAPES 8u          /* accepted launches that are remembered */
#define OG_OCCUPANCIES 16u
struct og_attrs {
    _Atomic uint32_t known;   /* bit n: value[n] holds */
    _Atomic int value[OG_ATTRS];
    _Atomic uint32_t set;     /* bit n: the application set wanted[n] last, and the host took it */
    _Atomic int wanted[OG_ATTRS];
};
struct og_occupancy {
    uint64_t key[3];
    uint64_t value;
    bool used;
};
enum og_clustered { OG_CLUSTERED_UNKNOWN, OG_CLUSTERED_NO, OG_CLUSTERED_YES };
struct og_entry {
    struct og_function f;     /* first: og_function() hands this out */
    uint64_t owner;           /* module, library, or kernel of a function got from one */
    uint64_t context;         /* functions: dies with it; kernels: 0 */
    char *name;
    struct og_entry *next;    /* of the same owner */
    struct og_entry *functions; /* kernels: what cuKernelGetFunction gave, by context */
    struct og_attrs *_Atomic attrs[OC_MAX_DEVICES];
    _Atomic uint64_t shapes[OG_SHAPES];
    _Atomic uint8_t clustered; /* enum og_clustered */
    struct og_occupancy occupancy[OG_OCCUPANCIES];
    struct og_legacy *legacy; /* its next launch by the interface of CUDA 3; legacy.c */
};
extern pthread_mutex_t og_modules_lock; /* lists of entries, occupancy; never held across a call */
struct og_entry *og_entry(uint64_t handle);
struct og_entry *og_entry_make(enum ow_kind kind, uint64_t owner, uint64_t context, const char *name, CUresult *r);
void og_entry_free(struct og_entry *e);
void og_entries_free(struct og_entry *list);
/* Takes over parameter count and bytes from the reply, fetches the layout. */
OG_MUST_CHECK CUresult og_entry_layout(struct og_entry *e, uint32_t nr_params, uint32_t params_bytes);
struct og_entry *og_entry_find(struct og_entry *list, const char *name);
/* Asks for a named function of an owner (orion_module_function or orion_library_kernel). */
OG_MUST_CHECK CUresult og_entry_named(uint32_t op, struct og_entry *e);
/* Whether the function itself says of how many blocks its clusters are: asked once. */
bool og_entry_clustered(struct og_entry *e);
/* Settings of a function changed: forgets what followed from them. */
void og_entry_changed(struct og_entry *e);

/* ---- module.c, library.c ---- */
/* A module's variable was found; a managed one is shown in this process from now on. */
OG_MUST_CHECK CUresult og_global_found(uint64_t start, uint64_t bytes, bool managed);
struct og_module {
    uint64_t handle, context;
    uint64_t library;         /* that it is a module of, 0: loaded alone */
    struct og_entry *entries;
    struct og_module *next;   /* of all */
};
struct og_module *og_module(uint64_t handle);
struct og_module *og_module_make(uint64_t library, CUresult *r);
void og_module_free(struct og_module *m);
/* The module of a library in a context, NULL: not made yet. */
struct og_module *og_module_of(uint64_t library, uint64_t context);
void og_modules_of_library_free(uint64_t library);
/* The context dies: modules and functions in it are gone. */
void og_modules_context_died(uint64_t context);
void og_libraries_context_died(uint64_t context);

#endif
