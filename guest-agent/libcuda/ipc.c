/* SPDX-License-Identifier: Apache-2.0 */
/* Sharing with other processes of this machine: tokens in the handles' places, and files that hold one as descriptors. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <orion/share.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gen/send.h"
#include "memory.h"

#define BY_DESCRIPTOR 1u       /* CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR */
#define CLOSE_ON_EXEC 1u       /* MFD_CLOEXEC */
#define MAY_SEAL 2u            /* MFD_ALLOW_SEALING */
#define ALL_SEALS 15           /* F_SEAL_SEAL, SHRINK, GROW, WRITE */
#define ADD_SEALS (1024 + 9)   /* F_ADD_SEALS, newer than the oldest C library */

_Static_assert(sizeof(CUipcMemHandle) == OC_TOKEN_BYTES && sizeof(CUipcEventHandle) == OC_TOKEN_BYTES &&
               sizeof(CUmemPoolPtrExportData) == OC_TOKEN_BYTES, "a token is as long as what it stands for");

/* Connected, a context is current, and other processes of this domain can be told from other machines'. */
static CUresult may_share(const char *what, bool context)
{
    CUresult r = context ? og_need_context() : og_connect();

    if (r != CUDA_SUCCESS)
        return r;
    if (og_shared_memory())
        return CUDA_SUCCESS;
    og_log("%s: sharing between processes needs the shared memory region, which proves that they belong together; "
           "this channel is TCP", what);
    return CUDA_ERROR_NOT_SUPPORTED;
}

/* ---- memory ---- */

OG_EXPORT CUresult cuIpcGetMemHandle(CUipcMemHandle *pHandle, CUdeviceptr dptr)
{
    CUresult r = may_share("cuIpcGetMemHandle", true);

    if (r != CUDA_SUCCESS)
        return r;
    return pHandle ? og_send_orion_share(dptr, OC_SHARE_MEMORY, (uint8_t *)pHandle) : CUDA_ERROR_INVALID_VALUE;
}

OG_EXPORT CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *pdptr, CUipcMemHandle handle, unsigned int Flags)
{
    CUresult r = may_share("cuIpcOpenMemHandle", true);
    uint64_t ptr, bytes;

    if (r == CUDA_SUCCESS && !pdptr)
        r = CUDA_ERROR_INVALID_VALUE;
    if (r == CUDA_SUCCESS)
        r = og_send_orion_open(0, OC_SHARE_MEMORY, Flags, (const uint8_t *)&handle, &ptr, &bytes);
    if (r != CUDA_SUCCESS)
        return r;
    if (!og_is_device(ptr))
        og_device_add(ptr, bytes);
    *pdptr = ptr;
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuIpcOpenMemHandle(CUdeviceptr *pdptr, CUipcMemHandle handle, unsigned int Flags)
{
    return cuIpcOpenMemHandle_v2(pdptr, handle, Flags);
}

OG_EXPORT CUresult cuIpcCloseMemHandle(CUdeviceptr dptr)
{
    CUresult r = og_need_context();
    uint32_t left;

    if (r == CUDA_SUCCESS)
        r = og_send_orion_close(dptr, &left);
    if (r == CUDA_SUCCESS && !left)
        og_device_del(dptr);
    return r;
}

/* ---- events ---- */

OG_EXPORT CUresult cuIpcGetEventHandle(CUipcEventHandle *pHandle, CUevent event)
{
    CUresult r = may_share("cuIpcGetEventHandle", true);

    if (r != CUDA_SUCCESS)
        return r;
    if (!og_valid(OW_KIND_EVENT, (uint64_t)(uintptr_t)event))
        return CUDA_ERROR_INVALID_HANDLE;
    if (!pHandle)
        return CUDA_ERROR_INVALID_VALUE;
    r = og_send_orion_share((uint64_t)(uintptr_t)event, OC_SHARE_EVENT, (uint8_t *)pHandle);
    if (r == CUDA_SUCCESS)
        og_event_between(event);
    return r;
}

OG_EXPORT CUresult cuIpcOpenEventHandle(CUevent *phEvent, CUipcEventHandle handle)
{
    CUresult r = may_share("cuIpcOpenEventHandle", true);
    uint64_t made, ptr, bytes;

    if (r != CUDA_SUCCESS)
        return r;
    if (!phEvent)
        return CUDA_ERROR_INVALID_VALUE;
    made = og_mint(OW_KIND_EVENT);
    if (!made)
        return CUDA_ERROR_OUT_OF_MEMORY;
    r = og_send_orion_open(made, OC_SHARE_EVENT, 0, (const uint8_t *)&handle, &ptr, &bytes);
    if (r != CUDA_SUCCESS) {
        og_unmint(OW_KIND_EVENT, made);
        return r;
    }
    *phEvent = (CUevent)(uintptr_t)made;
    og_event_between(*phEvent);
    return CUDA_SUCCESS;
}

/* ---- descriptors: what the application passes to another process is a file of ours ---- */

static int anonymous_file(void)
{
    char path[] = "/dev/shm/orion-share-XXXXXX";
    int fd = (int)syscall(SYS_memfd_create, "orion-share", CLOSE_ON_EXEC | MAY_SEAL);

    if (fd >= 0 || errno != ENOSYS)
        return fd;
    fd = mkostemp(path, O_CLOEXEC); /* a kernel before 3.17 */
    if (fd >= 0)
        unlink(path);
    return fd;
}

static int file_of(uint32_t kind, const uint8_t *token)
{
    struct oc_share_file file = { .magic = OC_SHARE_MAGIC, .kind = kind, .bytes = sizeof(file) };
    int fd = anonymous_file();

    memcpy(file.token, token, sizeof(file.token));
    if (fd >= 0 && write(fd, &file, sizeof(file)) != sizeof(file)) {
        close(fd);
        return -1;
    }
    if (fd >= 0)
        (void)fcntl(fd, ADD_SEALS, ALL_SEALS); /* nobody changes it; a file of the older kind has no seals */
    return fd;
}

/* False: the descriptor is none, or of something else. */
static bool token_of(void *handle, uint32_t kind, uint8_t token[OC_TOKEN_BYTES])
{
    struct oc_share_file file;

    if (pread((int)(intptr_t)handle, &file, sizeof(file), 0) != sizeof(file) || file.magic != OC_SHARE_MAGIC ||
        file.kind != kind)
        return false;
    memcpy(token, file.token, OC_TOKEN_BYTES);
    return true;
}

static CUresult export(uint64_t object, uint32_t kind, unsigned type, unsigned long long flags, void *to)
{
    uint8_t token[OC_TOKEN_BYTES];
    CUresult r;
    int fd;

    if (!to || type != BY_DESCRIPTOR)
        return CUDA_ERROR_INVALID_VALUE;
    r = og_send_orion_export(object, kind, flags, token);
    if (r != CUDA_SUCCESS)
        return r;
    fd = file_of(kind, token);
    if (fd < 0) {
        og_log("no descriptor for shared memory: %s", strerror(errno));
        return CUDA_ERROR_OPERATING_SYSTEM;
    }
    *(int *)to = fd;
    return CUDA_SUCCESS;
}

/* *made is a new number of `handles`. */
static CUresult import(void *from, uint32_t kind, unsigned type, unsigned long long flags, uint64_t *made)
{
    enum ow_kind handles = kind == OC_SHARE_POOL ? OW_KIND_MEMPOOL : OW_KIND_MEM_ALLOCATION;
    uint8_t token[OC_TOKEN_BYTES];
    CUresult r;

    if (type != BY_DESCRIPTOR || !token_of(from, kind, token))
        return CUDA_ERROR_INVALID_VALUE;
    *made = og_mint(handles);
    if (!*made)
        return CUDA_ERROR_OUT_OF_MEMORY;
    r = og_send_orion_import(*made, kind, flags, token);
    if (r != CUDA_SUCCESS)
        og_unmint(handles, *made);
    return r;
}

OG_EXPORT CUresult cuMemExportToShareableHandle(void *shareableHandle, CUmemGenericAllocationHandle handle,
                                                CUmemAllocationHandleType handleType, unsigned long long flags)
{
    CUresult r = may_share("cuMemExportToShareableHandle", false);

    if (r == CUDA_SUCCESS && !og_valid(OW_KIND_MEM_ALLOCATION, handle))
        r = CUDA_ERROR_INVALID_VALUE;
    return r == CUDA_SUCCESS ? export(handle, OC_SHARE_ALLOCATION, handleType, flags, shareableHandle) : r;
}

OG_EXPORT CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *handle, void *osHandle,
                                                  CUmemAllocationHandleType shHandleType)
{
    CUresult r = may_share("cuMemImportFromShareableHandle", false);
    uint64_t made = 0;

    if (r == CUDA_SUCCESS)
        r = handle ? import(osHandle, OC_SHARE_ALLOCATION, shHandleType, 0, &made) : CUDA_ERROR_INVALID_VALUE;
    if (r == CUDA_SUCCESS)
        *handle = made;
    return r;
}

OG_EXPORT CUresult cuMemPoolExportToShareableHandle(void *handle_out, CUmemoryPool pool,
                                                    CUmemAllocationHandleType handleType, unsigned long long flags)
{
    CUresult r = may_share("cuMemPoolExportToShareableHandle", false);

    if (r == CUDA_SUCCESS && !og_valid(OW_KIND_MEMPOOL, (uint64_t)(uintptr_t)pool))
        r = CUDA_ERROR_INVALID_VALUE;
    return r == CUDA_SUCCESS ? export((uint64_t)(uintptr_t)pool, OC_SHARE_POOL, handleType, flags, handle_out) : r;
}

OG_EXPORT CUresult cuMemPoolImportFromShareableHandle(CUmemoryPool *pool_out, void *handle,
                                                      CUmemAllocationHandleType handleType, unsigned long long flags)
{
    CUresult r = may_share("cuMemPoolImportFromShareableHandle", false);
    uint64_t made = 0;

    if (r == CUDA_SUCCESS)
        r = pool_out ? import(handle, OC_SHARE_POOL, handleType, flags, &made) : CUDA_ERROR_INVALID_VALUE;
    if (r == CUDA_SUCCESS)
        *pool_out = (CUmemoryPool)(uintptr_t)made;
    return r;
}

/* ---- memory of pools ---- */

OG_EXPORT CUresult cuMemPoolExportPointer(CUmemPoolPtrExportData *shareData_out, CUdeviceptr ptr)
{
    CUresult r = may_share("cuMemPoolExportPointer", true);

    if (r != CUDA_SUCCESS)
        return r;
    return shareData_out ? og_send_orion_share(ptr, OC_SHARE_POINTER, (uint8_t *)shareData_out)
                         : CUDA_ERROR_INVALID_VALUE;
}

OG_EXPORT CUresult cuMemPoolImportPointer(CUdeviceptr *ptr_out, CUmemoryPool pool, CUmemPoolPtrExportData *shareData)
{
    CUresult r = may_share("cuMemPoolImportPointer", true);
    uint64_t ptr, bytes;

    if (r == CUDA_SUCCESS && (!ptr_out || !shareData || !og_valid(OW_KIND_MEMPOOL, (uint64_t)(uintptr_t)pool)))
        r = CUDA_ERROR_INVALID_VALUE;
    if (r == CUDA_SUCCESS)
        r = og_send_orion_open((uint64_t)(uintptr_t)pool, OC_SHARE_POINTER, 0, (const uint8_t *)shareData, &ptr, &bytes);
    if (r != CUDA_SUCCESS)
        return r;
    og_device_add(ptr, bytes);
    *ptr_out = ptr;
    return CUDA_SUCCESS;
}
