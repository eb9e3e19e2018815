/* SPDX-License-Identifier: Apache-2.0 */
/* CUDA arrays as the simulated GPU keeps them, for copies, textures and surfaces. */
#ifndef SIM_ARRAY_H
#define SIM_ARRAY_H

#include "sim.h"

#define SIM_MAX_LEVELS 18u

struct CUarray_st {
    struct CUctx_st *ctx;
    CUDA_ARRAY3D_DESCRIPTOR desc;
    uint64_t address;
    size_t texel, pitch, slice;
    struct CUmipmappedArray_st *mipmap; /* of which it is a level */
    struct CUarray_st *next;
};
struct CUmipmappedArray_st {
    struct CUctx_st *ctx;
    CUDA_ARRAY3D_DESCRIPTOR desc;
    uint64_t address;
    unsigned nr_levels;
    struct CUarray_st levels[SIM_MAX_LEVELS];
    struct CUmipmappedArray_st *next;
};

unsigned sim_component_bytes(unsigned format); /* 0: a format that we lack */
/* Where the copy's box lies in an array whose position is bytes, row, slice; sets pitch and slice of that side. */
CUresult sim_array_box(CUarray a, const size_t at[3], struct sim_copy *c, uint64_t *address, bool src);
void sim_arrays_drop(struct CUctx_st *ctx);
void sim_textures_drop(struct CUctx_st *ctx);
void sim_texture_forget(uint64_t value); /* of a module that ends */
void sim_references_drop(struct CUmod_st *module);
/* For ptx_memory: what a kernel's texture or surface object names; false: nothing. */
bool sim_texture_view(void *ctx, uint64_t object, bool surface, struct ptx_texture *out);

#endif
