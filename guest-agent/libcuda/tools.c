/* SPDX-License-Identifier: Apache-2.0 */
/* What tools ask for: profilers and notifications, of which there is nothing to tell, and the log of errors. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "core.h"

#define NR_LINES 128u
#define LINE_BYTES 200u

/* ---- without a profiler the driver has nothing to start or stop ---- */
OG_EXPORT CUresult cuProfilerStart(void)
{
    CUresult r = og_check_init();

    return r != CUDA_SUCCESS ? r : og_current() ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

OG_EXPORT CUresult cuProfilerStop(void)
{
    return cuProfilerStart();
}

/* ---- a vGPU is told of no lower budget while it runs: a callback is known, and never called ---- */
struct CUasyncCallbackEntry_st {
    CUdevice device;
    struct CUasyncCallbackEntry_st *next;
};
static struct CUasyncCallbackEntry_st *watching;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static CUresult check_device(CUdevice device)
{
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    return device >= 0 && device < og_nr_devices() ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

OG_EXPORT CUresult cuDeviceRegisterAsyncNotification(CUdevice device, CUasyncCallback callbackFunc, void *userData,
                                                     CUasyncCallbackHandle *callback)
{
    CUresult r = check_device(device);
    CUasyncCallbackHandle entry;

    (void)userData;
    if (r != CUDA_SUCCESS)
        return r;
    if (!callbackFunc || !callback)
        return CUDA_ERROR_INVALID_VALUE;
    entry = malloc(sizeof(*entry));
    if (!entry)
        return CUDA_ERROR_OUT_OF_MEMORY;
    pthread_mutex_lock(&lock);
    *entry = (struct CUasyncCallbackEntry_st){ device, watching };
    watching = entry;
    pthread_mutex_unlock(&lock);
    *callback = entry;
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuDeviceUnregisterAsyncNotification(CUdevice device, CUasyncCallbackHandle callback)
{
    CUresult r = check_device(device);
    CUasyncCallbackHandle *p, entry;

    if (r != CUDA_SUCCESS)
        return r;
    pthread_mutex_lock(&lock);
    for (p = &watching; *p && (*p != callback || (*p)->device != device); p = &(*p)->next)
        ;
    entry = *p;
    if (entry)
        *p = entry->next;
    pthread_mutex_unlock(&lock);
    free(entry);
    return entry ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* ---- the log of errors: the last lines of this process ---- */
struct CUlogsCallbackEntry_st {
    CUlogsCallback function;
    void *data;
    struct CUlogsCallbackEntry_st *next;
};
static struct CUlogsCallbackEntry_st *readers;
static char lines[NR_LINES][LINE_BYTES];
static CUlogIterator written; /* lines ever; the next is lines[written % NR_LINES] */
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;

void og_tools_log(const char *what, CUresult result)
{
    static __thread bool inside; /* a reader's own failing calls are not told to it */
    const char *name = NULL;
    char line[LINE_BYTES];
    int n;

    if (inside)
        return;
    inside = true;
    (void)cuGetErrorName(result, &name);
    n = snprintf(line, sizeof(line), "[%d] %s: %s", (int)result, what, name ? name : "an error without a name");
    pthread_mutex_lock(&log_lock);
    memcpy(lines[written++ % NR_LINES], line, sizeof(line));
    for (struct CUlogsCallbackEntry_st *e = readers; e; e = e->next)
        e->function(e->data, 0, line, (size_t)n);
    pthread_mutex_unlock(&log_lock);
    inside = false;
}

OG_EXPORT CUresult cuLogsRegisterCallback(CUlogsCallback callbackFunc, void *userData, CUlogsCallbackHandle *callback_out)
{
    CUlogsCallbackHandle entry;

    if (!callbackFunc)
        return CUDA_ERROR_INVALID_VALUE;
    entry = malloc(sizeof(*entry));
    if (!entry)
        return CUDA_ERROR_OUT_OF_MEMORY;
    pthread_mutex_lock(&log_lock);
    *entry = (struct CUlogsCallbackEntry_st){ callbackFunc, userData, readers };
    readers = entry;
    pthread_mutex_unlock(&log_lock);
    if (callback_out)
        *callback_out = entry;
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuLogsUnregisterCallback(CUlogsCallbackHandle callback)
{
    CUlogsCallbackHandle *p, entry;

    pthread_mutex_lock(&log_lock);
    for (p = &readers; *p && *p != callback; p = &(*p)->next)
        ;
    entry = *p;
    if (entry)
        *p = entry->next;
    pthread_mutex_unlock(&log_lock);
    free(entry);
    return entry ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

OG_EXPORT CUresult cuLogsCurrent(CUlogIterator *iterator_out, unsigned int flags)
{
    if (!iterator_out || flags)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&log_lock);
    *iterator_out = written;
    pthread_mutex_unlock(&log_lock);
    return CUDA_SUCCESS;
}

/* Lines from the iterator on (NULL: all that are left), the newest last; as many of the newest as fit into `room`
 * with their NUL. Advances the iterator; free() the text. */
static char *dump(CUlogIterator *iterator, size_t room, size_t *bytes)
{
    char *text = malloc(NR_LINES * LINE_BYTES + 1);
    CUlogIterator from, kept;
    size_t n = 0;

    *bytes = 0;
    if (!text)
        return NULL;
    pthread_mutex_lock(&log_lock);
    kept = written > NR_LINES ? written - NR_LINES : 0;
    from = iterator && *iterator > kept && *iterator <= written ? *iterator : kept;
    for (CUlogIterator at = written; at > from && n + strlen(lines[(at - 1) % NR_LINES]) + 2 <= room; at--) {
        n += strlen(lines[(at - 1) % NR_LINES]) + 1;
        kept = at - 1;
    }
    from = n ? kept : written;
    for (n = 0; from < written; from++)
        n += (size_t)sprintf(text + n, "%s\n", lines[from % NR_LINES]);
    if (iterator)
        *iterator = written;
    pthread_mutex_unlock(&log_lock);
    text[n] = 0;
    *bytes = n;
    return text;
}

OG_EXPORT CUresult cuLogsDumpToMemory(CUlogIterator *iterator, char *buffer, size_t *size, unsigned int flags)
{
    size_t bytes;
    char *text;

    if (!buffer || !size || !*size || flags)
        return CUDA_ERROR_INVALID_VALUE;
    text = dump(iterator, *size, &bytes);
    if (!text)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memcpy(buffer, text, bytes + 1);
    *size = bytes;
    free(text);
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuLogsDumpToFile(CUlogIterator *iterator, const char *pathToFile, unsigned int flags)
{
    size_t bytes, put;
    FILE *file;
    char *text;

    if (!pathToFile || flags)
        return CUDA_ERROR_INVALID_VALUE;
    file = fopen(pathToFile, "ae");
    if (!file)
        return CUDA_ERROR_OPERATING_SYSTEM;
    text = dump(iterator, SIZE_MAX, &bytes);
    put = text ? fwrite(text, 1, bytes, file) : 0;
    free(text);
    if (fclose(file) != 0 || put != bytes)
        return CUDA_ERROR_OPERATING_SYSTEM;
    return CUDA_SUCCESS;
}
