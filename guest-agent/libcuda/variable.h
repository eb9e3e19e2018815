/* SPDX-License-Identifier: Apache-2.0 */
/* __managed__ variables of modules, which have a copy in this process. */
#ifndef OG_VARIABLE_H
#define OG_VARIABLE_H

#include "client.h"

extern _Atomic uint32_t og_nr_variables;
/* The variable that holds [p, p + bytes); false: none. */
bool og_variable_find(uint64_t p, uint64_t bytes, uint64_t *start, uint64_t *whole);
/* Shows a variable of the host's here, at its address, with its present value. */
OG_MUST_CHECK CUresult og_variable_add(uint64_t start, uint64_t bytes);
/* Before a command and after a successful answer, where there are variables: exchange what the other side needs. */
void og_variables_before(uint32_t op);
void og_variables_after(uint32_t op);
#define OG_VARIABLES_NOW OC_OP_PAD /* as `op`: whatever the command */

static inline bool og_has_variables(void)
{
    return __builtin_expect(atomic_load_explicit(&og_nr_variables, memory_order_relaxed) != 0, 0);
}

#endif
