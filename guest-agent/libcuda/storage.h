/* SPDX-License-Identifier: Apache-2.0 */
/* Context-local storage: values that each copy of the CUDA runtime keeps by (context, key). */
#ifndef OG_STORAGE_H
#define OG_STORAGE_H

#include <stdint.h>

#include "client.h"

typedef void og_storage_dtor(uint64_t context, void *key, void *value);

/* `context` is resolved: never 0. */
OG_MUST_CHECK CUresult og_storage_put(uint64_t context, void *key, void *value, og_storage_dtor *dtor);
OG_MUST_CHECK CUresult og_storage_delete(uint64_t context, void *key); /* without the destructor */
/* Lock-free. CUDA_ERROR_INVALID_HANDLE and *value untouched when there is none. */
OG_MUST_CHECK CUresult og_storage_get(uint64_t context, void *key, void **value);
/* The context dies: runs every destructor of it, no lock held, and drops its values. */
void og_storage_context_died(uint64_t context);

#endif
