/* SPDX-License-Identifier: Apache-2.0 */
/* Refuses every module: this build has no interpreter. */
#include <stdio.h>

#include "ptx.h"

enum ptx_status ptx_load(const char *text, size_t bytes, const struct ptx_memory *memory, struct ptx_module **module,
                         char *error, size_t error_bytes)
{
    (void)text;
    (void)bytes;
    (void)memory;
    *module = NULL;
    snprintf(error, error_bytes, "this build of the simulated GPU has no PTX interpreter");
    return PTX_PARSE;
}
void ptx_unload(struct ptx_module *m) { (void)m; }
struct ptx_kernel *ptx_find_kernel(struct ptx_module *m, const char *n) { (void)m; (void)n; return NULL; }
struct ptx_kernel *ptx_kernel_at(struct ptx_module *m, unsigned i) { (void)m; (void)i; return NULL; }
const char *ptx_kernel_name(const struct ptx_kernel *k) { (void)k; return ""; }
int ptx_find_global(struct ptx_module *m, const char *n, uint64_t *a, uint64_t *b)
{ (void)m; (void)n; (void)a; (void)b; return 0; }
unsigned ptx_nr_params(const struct ptx_kernel *k) { (void)k; return 0; }
int ptx_param(const struct ptx_kernel *k, unsigned i, size_t *o, size_t *b) { (void)k; (void)i; (void)o; (void)b; return -1; }
size_t ptx_params_bytes(const struct ptx_kernel *k) { (void)k; return 0; }
size_t ptx_shared_bytes(const struct ptx_kernel *k) { (void)k; return 0; }
unsigned ptx_max_threads(const struct ptx_kernel *k) { (void)k; return 1024; }
unsigned ptx_nr_registers(const struct ptx_kernel *k) { (void)k; return 0; }
enum ptx_status ptx_run(struct ptx_kernel *k, const struct ptx_launch *l, const struct ptx_memory *m, char *e, size_t n)
{ (void)k; (void)l; (void)m; snprintf(e, n, "no interpreter"); return PTX_ILLEGAL_INSTRUCTION; }
