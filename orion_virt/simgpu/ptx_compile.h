/* SPDX-License-Identifier: Apache-2.0 */
/* Compiled C as a library of this process. */
#ifndef SIM_PTX_COMPILE_H
#define SIM_PTX_COMPILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A library that defines ptx_translated, for dlclose; NULL: `why` says why not, or is empty where *child was killed. With
 * a library, `why` says why it is not kept for later, or is empty. While the compiler runs, *child is its process, which
 * may be killed. Blocks until it is done; any thread may call. */
void *ptx_compile(const char *text, _Atomic int *child, char *why, size_t why_bytes);

#endif
