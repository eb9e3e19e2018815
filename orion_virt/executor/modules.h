/* SPDX-License-Identifier: Apache-2.0 */
/* Images, modules and functions in the executor: what their files share. */
#ifndef OH_MODULES_H
#define OH_MODULES_H

#include "executor.h"
#include "gen/ops.h"

#define OH_JIT_MAX 48u

/* ---- image_check.c: nothing of the guest reaches the driver's parsers with headers out of bounds ---- */
/* An ELF, fatbin, archive or text whose headers stay inside. `p[bytes - 1]` of a text is NUL. */
bool oh_image_piece_ok(const uint8_t *p, uint64_t bytes);
/* What the driver's wrapper struct may point at: a fatbin alone. */
bool oh_image_wrapped_ok(const uint8_t *p, uint64_t bytes);

/* ---- image_size.c ---- */
uint64_t oh_image_variables(const uint8_t *p, uint64_t bytes); /* the same of one piece that was found right */
bool oh_image_names_malloc(const uint8_t *p, uint64_t bytes);

/* ---- image.c ---- */
struct oh_image;
/* The image that the guest sent under `id`, complete, checked and put together; NULL: *r says why. It stays, whatever
 * the guest's other threads drop, until oh_image_put; a library keeps it for as long as it lives. */
struct oh_image *oh_image_get(uint64_t id, CUresult *r);
void oh_image_put(struct oh_image *image); /* NULL: nothing */
const void *oh_image_code(const struct oh_image *image);
uint64_t oh_image_bytes(const struct oh_image *image); /* what oh_image_code points at; 0: a wrapper */
uint64_t oh_image_takes(const struct oh_image *image); /* bytes of its variables on a card, where that can be told */
bool oh_image_mallocs(const struct oh_image *image); /* its kernels call malloc, where that can be told */
/* The same, without bytes: it only holds what options bring back. NULL: no image of that number. */
struct oh_image *oh_image_logs(uint64_t id);

/* Options of a load as the driver wants them, with room for what it answers. */
struct oh_jit {
    unsigned nr;
    CUjit_option option[OH_JIT_MAX];
    void *value[OH_JIT_MAX];
};
OH_MUST_CHECK CUresult oh_jit_get(struct oh_jit *jit, struct oh_image *image, const uint64_t *packed, uint32_t nr);
/* Keeps what the driver wrote, for orion_image_log. */
void oh_jit_keep(struct oh_jit *jit, struct oh_image *image);

/* ---- module.c ---- */
struct oh_code {              /* data of a MODULE or LIBRARY */
    uint64_t context, library;
    struct oh_image *image;   /* libraries */
    uint64_t takes;           /* bytes of its variables on each device that it is loaded to */
    bool mallocs;
    _Atomic uint32_t loaded;  /* devices, a bit each */
    uint64_t globals[64];     /* in the ledger */
    uint32_t nr_globals;
};
OH_MUST_CHECK CUresult oh_code_put(enum ow_kind kind, uint64_t id, void *real, uint64_t library, struct oh_image *image);
/* What the variables of an image take of each device that it is loaded to; `device`, -1: none yet. */
void oh_code_takes(enum ow_kind kind, uint64_t id, int device, const struct oh_image *image);
void oh_code_free(struct oh_code *code); /* what oh_take gave */
/* A variable of the image: becomes the client's memory. */
void oh_code_global(struct oh_code *code, int device, uint64_t ptr, uint64_t bytes);
/* A string that follows the fixed part of a command; NULL: not terminated, or missing. */
const char *oh_string(const void *in, uint32_t fixed, uint32_t bytes, uint32_t string_bytes);

/* ---- context_ops.c ---- */
/* A context for questions that the driver answers in one only, before the client has any; NULL: none to be had. */
CUcontext oh_context_ahead(void);

/* ---- function.c ---- */
#define OH_MAX_PARAMS 4096u
struct oh_function {          /* data of a FUNCTION or KERNEL; constant but for `ran` once it is put */
    uint64_t owner, context;
    _Atomic uint64_t ran;     /* contexts in which there is room for it, a bit of each slot */
    uint32_t nr_params, params_bytes;
    uint16_t offset[];        /* then the sizes */
};
OH_MUST_CHECK CUresult oh_function_put(enum ow_kind kind, uint64_t id, void *real, uint64_t owner, uint64_t context);
/* CUfunction or CUkernel; *data may be NULL only when this fails. */
OH_MUST_CHECK CUresult oh_function_get(uint64_t id, void **real, struct oh_function **data);
bool oh_is_kernel(uint64_t id);
/* Before it runs, or becomes a graph's: CUDA_ERROR_OUT_OF_MEMORY where its code and local memory do not fit the quota. */
OH_MUST_CHECK CUresult oh_function_room(int device, int slot, uint64_t id, void *real, struct oh_function *f);
/* All functions, kernels and modules of an owner (and of those), or of a context. */
void oh_drop_owned(uint64_t owner);
void oh_drop_context(uint64_t context);

#endif
