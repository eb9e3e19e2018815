/* SPDX-License-Identifier: Apache-2.0 */
/* Texture and surface references: a module's are named at the first question for them. */
#include "client.h"
#include "gen/send.h"

OG_EXPORT CUresult cuModuleGetTexRef(CUtexref *pTexRef, CUmodule hmod, const char *name)
{
    uint64_t minted = pTexRef ? og_mint(OW_KIND_TEXREF) : 0;
    CUtexref answer = (CUtexref)(uintptr_t)minted;
    CUresult r;

    if (!minted)
        return pTexRef ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_INVALID_VALUE;
    r = og_send_cuModuleGetTexRef(&answer, hmod, name);
    if (r != CUDA_SUCCESS || (uint64_t)(uintptr_t)answer != minted)
        og_unmint(OW_KIND_TEXREF, minted);
    if (r == CUDA_SUCCESS)
        *pTexRef = answer;
    return r;
}

OG_EXPORT CUresult cuModuleGetSurfRef(CUsurfref *pSurfRef, CUmodule hmod, const char *name)
{
    uint64_t minted = pSurfRef ? og_mint(OW_KIND_SURFREF) : 0;
    CUsurfref answer = (CUsurfref)(uintptr_t)minted;
    CUresult r;

    if (!minted)
        return pSurfRef ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_INVALID_VALUE;
    r = og_send_cuModuleGetSurfRef(&answer, hmod, name);
    if (r != CUDA_SUCCESS || (uint64_t)(uintptr_t)answer != minted)
        og_unmint(OW_KIND_SURFREF, minted);
    if (r == CUDA_SUCCESS)
        *pSurfRef = answer;
    return r;
}

OG_EXPORT CUresult cuTexRefSetAddress2D_v2(CUtexref hTexRef, const CUDA_ARRAY_DESCRIPTOR *desc, CUdeviceptr dptr,
                                           size_t Pitch)
{
    return cuTexRefSetAddress2D_v3(hTexRef, desc, dptr, Pitch);
}
