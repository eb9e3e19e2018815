/* SPDX-License-Identifier: Apache-2.0 */
/* Life of the NVML library: init and shutdown are counted; error texts; what is not carried. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "nvml.h"
#include "gen/procaddr.h"

/* A failure is answered again from memory for this long: frameworks try several times. */
#define REPEAT_NS 1000000000u

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Atomic unsigned nr_inits;
static nvmlReturn_t last_result;
static uint64_t failed_at_ns;

void og_view_lock(void)
{
    pthread_mutex_lock(&lock);
}

void og_view_unlock(void)
{
    pthread_mutex_unlock(&lock);
}

/* A child of fork may go on where its parent was, whatever the parent's other threads did. */
static void prepare(void)
{
    pthread_atfork(og_view_lock, og_view_unlock, og_view_unlock);
}

/* vGPUs are numbered as ORION_VGPU has them: CUDA_VISIBLE_DEVICES is CUDA's, not NVML's. */
int og_visible(int device)
{
    return device;
}

/* A snapshot lies in the region's header; over TCP the server is asked for it. */
static nvmlReturn_t find_server(void)
{
    struct og_why why;

    if (og_settings_load() != CUDA_SUCCESS)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (!og_shared_region.base)
        og_region_find(false);
    else if (!og_region_reread(&why)) {
        og_say("no vGPU: the shared region is not valid now: %s. Start the program again; if it persists, power-cycle the "
               "domain", why.text);
        return NVML_ERROR_DRIVER_NOT_LOADED;
    }
    if (og_shared_region.base)
        og_settings_of_domain(&og_shared_region.header);
    if (og_region_snapshot())
        return NVML_SUCCESS;
    return og_probe_server() == CUDA_SUCCESS ? NVML_SUCCESS : NVML_ERROR_DRIVER_NOT_LOADED;
}

static nvmlReturn_t start(void)
{
    nvmlReturn_t r;

    if (failed_at_ns && og_now_ns() - failed_at_ns < REPEAT_NS)
        return last_result;
    r = find_server();
    if (r == NVML_SUCCESS)
        r = og_view_load();
    last_result = r;
    failed_at_ns = r == NVML_SUCCESS ? 0 : og_now_ns();
    return r;
}

OG_EXPORT nvmlReturn_t nvmlInit_v2(void)
{
    nvmlReturn_t r = NVML_SUCCESS;

    pthread_once(&once, prepare);
    og_view_lock();
    if (!nr_inits)
        r = start();
    if (r == NVML_SUCCESS)
        nr_inits++;
    og_view_unlock();
    return r;
}

OG_EXPORT nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
    (void)flags; /* they allow a machine without a GPU; here an init without one tells why */
    return nvmlInit_v2();
}

OG_EXPORT nvmlReturn_t nvmlShutdown(void)
{
    nvmlReturn_t r = NVML_ERROR_UNINITIALIZED;

    og_view_lock();
    if (nr_inits) {
        nr_inits--;
        r = NVML_SUCCESS;
    }
    og_view_unlock();
    return r;
}

nvmlReturn_t og_ready(void)
{
    return nr_inits ? NVML_SUCCESS : NVML_ERROR_UNINITIALIZED;
}

nvmlReturn_t og_bad(void)
{
    return nr_inits ? NVML_ERROR_INVALID_ARGUMENT : NVML_ERROR_UNINITIALIZED;
}

/* Names are string constants, so that their addresses tell them apart. */
nvmlReturn_t og_absent(const char *name)
{
    static const char *seen[512];

    if (og_ready() != NVML_SUCCESS)
        return NVML_ERROR_UNINITIALIZED;
    og_view_lock();
    for (unsigned i = 0; i < 512 && seen[i] != name; i++) {
        if (seen[i])
            continue;
        seen[i] = name;
        og_log_at(OG_DEBUG, "%s is not supported; it answers NVML_ERROR_NOT_SUPPORTED", name);
        break;
    }
    og_view_unlock();
    return NVML_ERROR_NOT_SUPPORTED;
}

OG_EXPORT const char *nvmlErrorString(nvmlReturn_t result)
{
    for (const struct og_error *e = og_errors; e->text; e++)
        if (e->code == (int)result)
            return e->text;
    return "Unknown Error";
}

/* nvidia-smi looks into a private table and goes without what it finds empty. */
OG_EXPORT nvmlReturn_t nvmlInternalGetExportTable(const void **table, const void *id)
{
    static const void *const empty[512];

    if (!table || !id)
        return NVML_ERROR_INVALID_ARGUMENT;
    *table = empty;
    return NVML_SUCCESS;
}

nvmlReturn_t og_put_text(char *to, unsigned length, const char *text)
{
    if (!to)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (strlen(text) >= length)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    strcpy(to, text);
    return NVML_SUCCESS;
}

/* As cuDriverGetVersion: what the host's driver can do, as far as we carry it. */
OG_EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *cudaDriverVersion)
{
    nvmlReturn_t r = og_ready();

    if (r != NVML_SUCCESS)
        return r;
    if (!cudaDriverVersion)
        return NVML_ERROR_INVALID_ARGUMENT;
    *cudaDriverVersion = OG_SURFACE_VERSION;
    if (og_snapshot()->driver_version < OG_SURFACE_VERSION)
        *cudaDriverVersion = (int)og_snapshot()->driver_version;
    return NVML_SUCCESS;
}

/* A second init may be filling the view. */
static nvmlReturn_t version(const char *text, char *to, unsigned length)
{
    nvmlReturn_t r = og_ready();

    if (r != NVML_SUCCESS)
        return r;
    og_view_lock();
    r = og_put_text(to, length, text);
    og_view_unlock();
    return r;
}

OG_EXPORT nvmlReturn_t nvmlSystemGetDriverVersion(char *to, unsigned int length)
{
    return version(og_view.driver, to, length);
}

OG_EXPORT nvmlReturn_t nvmlSystemGetNVMLVersion(char *to, unsigned int length)
{
    return version(og_view.nvml, to, length);
}
