/* SPDX-License-Identifier: Apache-2.0 */
/* What the modules of the simulated GPU share: objects, contexts, address space, work and streams. */
#ifndef SIM_H
#define SIM_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The client's header gives results that are strings by value; here they are what cuda.h says. */
#define cuGetErrorName spec_cuGetErrorName
#define cuGetErrorString spec_cuGetErrorString
#define cuFuncGetName spec_cuFuncGetName
#define cuKernelGetName spec_cuKernelGetName
#include "gen/cuda_abi.h"
#undef cuGetErrorName
#undef cuGetErrorString
#undef cuFuncGetName
#undef cuKernelGetName
#include "ptx.h"
#include "sim_extra.h"

#define SIM_API __attribute__((visibility("default")))
#define SIM_MAX_DEVICES 16
#define SIM_STACK 32              /* contexts that one thread may push */
#define SIM_GRANULE (2ull << 20)  /* unit in which device memory is booked */
#define SIM_MULTIPROCESSORS 4

/* ---- object.c: every handle is a pointer that is looked up before it is used ---- */
enum sim_kind {
    SIM_CONTEXT = 1, SIM_STREAM, SIM_EVENT, SIM_MODULE, SIM_LIBRARY, SIM_FUNCTION, SIM_KERNEL,
    SIM_GRAPH, SIM_NODE, SIM_EXEC, SIM_OBJECT, SIM_POOL, SIM_ARRAY, SIM_VMM, SIM_LINK,
    SIM_MIPMAP, SIM_GREEN, SIM_RESOURCE_DESC, SIM_TEXREF,
};
bool sim_register(void *object, enum sim_kind kind);
void sim_unregister(void *object);
bool sim_valid(const void *object, enum sim_kind kind);

/* ---- device.c ---- */
struct sim_device {
    int ordinal;
    uint64_t total_bytes;
    uint64_t context_bytes;       /* that a context takes; 0: the driver takes nothing for itself */
    _Atomic uint64_t used_bytes;
    struct CUctx_st *primary;     /* one object for the life of the process */
    unsigned primary_refs, primary_flags;
    struct CUmemPoolHandle_st *pool, *default_pool;
};
extern struct sim_device sim_devices[SIM_MAX_DEVICES];
extern int sim_nr_devices;
struct sim_device *sim_device(CUdevice device); /* NULL: no such device */
bool sim_initialized(void);
void sim_launch_settings(struct ptx_launch *l);
void sim_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- output.c: what kernels print ---- */
struct sim_texts {
    struct sim_text *first, *last;
    size_t bytes;
};
void sim_output_put(struct CUctx_st *ctx, int fd, const char *text, size_t bytes); /* fd 1 stdout, 2 stderr */
void sim_output_show(struct CUctx_st *ctx); /* by the calls of which the CUDA documentation says so */

/* ---- own.c: what the driver takes for itself ---- */
struct sim_own {
    uint64_t bytes;               /* all of it */
    uint64_t stack;               /* bytes of each thread that there is room for */
    uint64_t promised, set[3];    /* by limits, which take the most that they were */
    uint64_t small, room;         /* code and streams, in granules */
};
struct CUfunc_st;
void sim_own_open(void);
void sim_own_note(const struct sim_device *device); /* its use has changed */
CUresult sim_own_begin(struct CUctx_st *ctx);
void sim_own_end(struct CUctx_st *ctx);
CUresult sim_own_limit(struct CUctx_st *ctx, CUlimit limit, size_t value);
CUresult sim_own_load(struct CUctx_st *ctx);
CUresult sim_own_stream(struct CUctx_st *ctx, bool begins);
CUresult sim_own_run(struct CUctx_st *ctx, struct CUfunc_st *function); /* before a launch */
void sim_own_unload(struct CUfunc_st *function);

/* ---- context.c ---- */
struct CUctx_st {
    struct sim_device *device;
    unsigned flags, sms;          /* sms: multiprocessors of a green one, 0: all */
    bool primary;
    _Atomic bool active;
    _Atomic int error;            /* sticky CUresult; every later call answers it */
    _Atomic int cancel;           /* asks running kernels to stop */
    uint64_t id;                  /* of this incarnation */
    struct CUstream_st *legacy;
    struct CUstream_st *streams;  /* all, linked by next_in_context; under sim_lock */
    size_t limits[16];
    struct sim_own own;
    struct sim_texts texts;
    int cache_config, shared_config;
    uint64_t peers[SIM_MAX_DEVICES]; /* id of the context of that device whose memory was opened to this one */
};
/* Context of the calling thread, or why there is none: not initialised, none, destroyed, sticky error. */
CUresult sim_enter(struct CUctx_st **ctx);
/* The same for a call on a thing that was made in `own`: a thread without a current context gets that one. */
CUresult sim_enter_for(struct CUctx_st *own, struct CUctx_st **ctx);
struct CUctx_st *sim_current(void); /* NULL: none; says nothing about errors */
bool sim_context_valid(struct CUctx_st *ctx);
struct CUctx_st *sim_context_green(struct sim_device *device); /* part of the device's primary one; NULL: no memory */
void sim_context_green_end(struct CUctx_st *ctx);
void sim_poison(struct CUctx_st *ctx, CUresult error); /* all contexts of its device */

/* ---- space.c: addresses that device code and copies may touch ---- */
enum sim_memory {
    SIM_MEM_DEVICE = 1, SIM_MEM_MANAGED, SIM_MEM_POOL, SIM_MEM_GLOBAL, SIM_MEM_ARRAY,
    SIM_MEM_HOST, SIM_MEM_REGISTERED, SIM_MEM_MAPPED, SIM_MEM_RESERVED,
    SIM_MEM_OPENED,   /* another process's, by cuIpcOpenMemHandle */
    SIM_MEM_IMPORTED, /* another process's, by cuMemPoolImportPointer */
};
struct sim_range {
    uint64_t start, bytes;
    enum sim_memory kind;
    struct CUctx_st *ctx;
    struct sim_device *device;
    unsigned flags;
    uint64_t id;
    void *owner;                  /* pool, VMM object */
    struct sim_chunk *chunk;      /* of a sub-allocation */
    uint64_t mapped, booked;
    uint64_t reservation;         /* start of the VMM reservation that it is a piece of */
    int access;                   /* CUmemAccess_flags of a VMM mapping */
    bool sync_memops;
    bool asleep;                  /* an address of a graph's with nothing behind it now */
};
CUresult sim_space_alloc(struct CUctx_st *ctx, struct sim_device *device, size_t bytes, enum sim_memory kind,
                         unsigned flags, uint64_t *address);
CUresult sim_space_alloc_from(struct CUmemPoolHandle_st *pool, struct CUctx_st *ctx, size_t bytes, uint64_t *address);
CUresult sim_space_free(uint64_t address);         /* INVALID_VALUE: no allocation starts there */
int sim_space_file(uint64_t address, uint64_t *offset); /* the file that holds device memory, and where in it */
CUresult sim_space_open(int fd, uint64_t offset, struct sim_range *range); /* maps a piece of another process's */
bool sim_space_find(uint64_t address, struct sim_range *out);
uint64_t sim_space_extent(uint64_t address);       /* accessible bytes from address on, 0: none */
CUresult sim_space_add(const struct sim_range *range); /* a range that the caller owns; HOST_MEMORY_ALREADY_REGISTERED */
bool sim_space_del(uint64_t start, enum sim_memory kind);
bool sim_space_update(uint64_t start, void (*change)(struct sim_range *r, void *arg), void *arg);
bool sim_space_replace(uint64_t start, const struct sim_range *range); /* same addresses, another kind */
void sim_space_drop(struct CUctx_st *ctx);         /* all memory of a context that ends */
bool sim_space_split(uint64_t at);                 /* a reservation's piece becomes two that meet at `at` */
uint64_t sim_space_reserve(uint64_t bytes, uint64_t align, uint64_t hint); /* PROT_NONE; 0: none left */
bool sim_space_book(struct sim_device *device, uint64_t bytes);
void sim_space_unbook(struct sim_device *device, uint64_t bytes);
extern const struct ptx_memory sim_ptx_memory;     /* arg: the context */

/* ---- work.c: what streams and graphs execute ---- */
enum sim_work_kind {
    SIM_WORK_EMPTY, SIM_WORK_COPY, SIM_WORK_SET, SIM_WORK_KERNEL, SIM_WORK_HOST, SIM_WORK_RECORD,
    SIM_WORK_WAIT, SIM_WORK_GRAPH, SIM_WORK_FREE, SIM_WORK_VALUE, SIM_WORK_ALLOC, SIM_WORK_BATCH,
};
struct sim_copy { /* boxes of bytes; a pitch is the distance of rows, a slice that of planes */
    uint64_t src, dst;
    size_t src_pitch, src_slice, dst_pitch, dst_slice;
    size_t width, height, depth;
    void *owned;                  /* private copy of a pageable source */
};
struct sim_set {
    uint64_t dst;
    size_t pitch, width, height;  /* width in elements */
    unsigned value, element;
};
struct sim_call {
    void *function;               /* CUfunction or CUkernel */
    void *kernel;                 /* CUkernel given beside it, of a graph's node */
    unsigned grid[3], block[3], shared;
    unsigned cluster[3];          /* blocks; 0: as the function says */
    void *params;                 /* owned, packed */
    size_t params_bytes;
    bool cooperative;
};
struct sim_host {
    CUhostFn fn;
    CUstreamCallback callback;
    CUstream stream;
    void *data;
};
struct sim_mark {
    struct CUevent_st *event;
    uint64_t count;
};
struct sim_value {
    uint64_t address, value;
    unsigned flags;
    bool wide, wait;
};
struct sim_work {
    enum sim_work_kind kind;
    struct sim_copy copy;
    struct sim_set set;
    struct sim_call call;
    struct sim_host host;
    struct sim_mark mark;
    struct sim_value val;
    struct CUgraphExec_st *exec;
    uint64_t address;
    struct sim_alloc *alloc;      /* memory of a graph that the node allocates or frees */
    CUstreamBatchMemOpParams *ops; /* owned */
    unsigned nr_ops, ops_flags;
    CUDA_MEMCPY3D copy_params;    /* as the application gave it, for graph queries */
    CUDA_MEMSET_NODE_PARAMS set_params;
};
/* Executes one piece of work on the calling thread; an error of the device comes back as its CUresult. */
CUresult sim_work_run(struct CUctx_st *ctx, struct sim_work *work);
void sim_work_clear(struct sim_work *work);
CUresult sim_work_clone(struct sim_work *to, const struct sim_work *from);
void sim_copy_box(const struct sim_copy *c);
void sim_value_run(struct CUctx_st *ctx, const struct sim_value *v);

/* ---- stream.c ---- */
struct sim_item;
struct sim_capture;
struct CUstream_st {
    struct CUctx_st *ctx;
    unsigned flags;
    int priority;
    uint64_t id;
    bool legacy, started, closing;
    int refs;
    uint64_t submitted, completed;
    struct sim_item *head, *tail;
    pthread_cond_t arrived;
    pthread_t thread;
    struct CUstream_st *next_in_context;
    struct sim_capture *capture;       /* NULL: not capturing */
    struct CUgraphNode_st **cap_deps;
    size_t nr_cap_deps;
};
extern pthread_mutex_t sim_lock;       /* streams, events, captures, contexts' lists */
extern pthread_cond_t sim_progress;    /* broadcast at every completion */
CUresult sim_stream(CUstream handle, struct CUstream_st **stream); /* enters the context too; resolves 0, 1, 2 */
CUresult sim_stream_create(struct CUctx_st *ctx, unsigned flags, int priority, struct CUstream_st **stream);
CUresult sim_submit(struct CUstream_st *stream, struct sim_work *work); /* takes over the work's memory, also on error */
CUresult sim_submit_wait(struct CUstream_st *stream, struct sim_work *work);
CUresult sim_stream_wait(struct CUstream_st *stream);   /* all work so far */
CUresult sim_context_wait(struct CUctx_st *ctx);
void sim_streams_end(struct CUctx_st *ctx);             /* all streams of a context that ends */
CUresult sim_may_block(struct CUctx_st *ctx);           /* STREAM_CAPTURE_UNSUPPORTED under an unsafe capture */
extern __thread bool sim_in_callback;

/* ---- ipc.c ---- */
struct sim_shared_event {              /* in device memory, which processes can share */
    _Atomic uint64_t recorded, done;
    _Atomic int recorder;              /* pid of who recorded last */
};
bool sim_shared_pending(struct sim_shared_event *e, uint64_t count); /* not reached, and whoever recorded it lives */

/* ---- pool.c ---- */
struct CUmemPoolHandle_st {
    struct CUmemPoolHandle_st *next;
    struct sim_device *device;
    uint64_t threshold, high; /* high: most bytes in use since the application set it to 0 */
    uint64_t taken, kept, reserved_high; /* booked for allocations; booked for none; most of both since then */
    bool ended;               /* destroyed, and its allocations live on */
    int reuse[4];
    bool built_in, imported;
    unsigned types;           /* of handles by which it may be shared */
};
bool sim_pool_book(struct CUmemPoolHandle_st *pool, uint64_t bytes);
void sim_pool_unbook(struct CUmemPoolHandle_st *pool, uint64_t bytes);
void sim_pools_release(struct sim_device *device, bool all); /* of what they keep: what exceeds their thresholds, or all */

/* ---- event.c ---- */
struct CUevent_st {
    struct CUctx_st *ctx;
    unsigned flags;
    int refs;
    struct sim_shared_event *shared;   /* of an interprocess event: in place of recorded and done */
    uint64_t recorded, done;           /* numbers of records asked for and reached */
    uint64_t time_ns;
    struct sim_capture *capture;       /* recorded in this capture, at these nodes */
    uint64_t capture_id;
    struct CUgraphNode_st **cap_deps;
    size_t nr_cap_deps;
};
void sim_event_put(struct CUevent_st *event);
void sim_event_reached(struct CUevent_st *event, uint64_t count);
void sim_event_await(struct CUevent_st *event, uint64_t count);

/* ---- capture.c ---- */
/* True when `stream` captures: then the work became a node (or *r says why not). Called under sim_lock. */
bool sim_capture_work(struct CUstream_st *stream, struct sim_work *work, CUresult *r);
bool sim_capture_record(struct CUstream_st *stream, struct CUevent_st *event, CUresult *r);
bool sim_capture_wait(struct CUstream_st *stream, struct CUevent_st *event, CUresult *r);
/* True when `stream` captures: then work of that type became a node, of the graph that is returned too. */
bool sim_capture_node(struct CUstream_st *stream, CUgraphNodeType type, struct sim_work *work, CUresult *r);
CUresult sim_capture_refuse(struct CUstream_st *stream); /* a call that may not happen under capture: invalidates */
extern int sim_nr_captures;            /* under sim_lock */
extern __thread CUstreamCaptureMode sim_thread_mode;

/* ---- graph.c ---- */
struct CUgraphNode_st {
    struct CUgraph_st *graph;
    struct sim_work work;
    struct CUgraph_st *child;          /* owned clone of a child graph node */
    struct CUgraphNode_st **deps;
    CUgraphEdgeData *edges;            /* of each dependency */
    size_t nr_deps;
    struct CUgraphNode_st *origin;     /* of a clone */
    CUgraphNodeType type;
    bool disabled;                     /* of an executable's */
    CUDA_CONDITIONAL_NODE_PARAMS condition; /* phGraph_out: owned, and the graphs in it */
    CUlaunchAttribute attrs[8];        /* of a kernel node, as set */
    unsigned nr_attrs;
    void *got;                         /* what a question for parameters pointed at */
};
struct CUgraph_st {
    struct CUgraphNode_st **nodes;
    size_t nr_nodes;
    struct sim_kept *kept;             /* user objects */
    bool owned;                        /* by a node or a capture: not the application's to destroy */
};
struct CUgraphNode_st *sim_graph_add(struct CUgraph_st *graph, CUgraphNodeType type, struct CUgraphNode_st *const *deps,
                                     size_t nr_deps); /* NULL: out of memory */
struct CUgraph_st *sim_graph_create(void);
void sim_graph_destroy(struct CUgraph_st *graph);
struct CUgraph_st *sim_graph_clone(const struct CUgraph_st *graph);
struct CUgraph_st *sim_graph_clone_whole(const struct CUgraph_st *graph); /* conditions too, for executables */
void sim_node_free(struct CUgraphNode_st *node);
bool sim_dep_add(struct CUgraphNode_st *node, struct CUgraphNode_st *dep, const CUgraphEdgeData *edge);
CUresult sim_exec_run(struct CUctx_st *ctx, struct CUgraphExec_st *exec);
struct CUgraph_st *sim_exec_graph(struct CUgraphExec_st *exec);

/* ---- graph_nodes.c: work of nodes; the node takes it over, on error it is cleared ---- */
CUresult sim_kernel_work(const CUDA_KERNEL_NODE_PARAMS *p, struct sim_work *work);
CUresult sim_copy_work(const CUDA_MEMCPY3D *p, struct sim_work *work);
CUresult sim_set_work(const CUDA_MEMSET_NODE_PARAMS *p, struct sim_work *work);
CUresult sim_node_add(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t nr, CUgraphNodeType type,
                      struct sim_work *work);
/* `made` is what making the work answered; no node of the right type (NULL) is INVALID_VALUE. */
CUresult sim_node_replace(struct CUgraphNode_st *node, CUresult made, struct sim_work *work);

/* ---- graph_memory.c ---- */
struct sim_alloc;
CUresult sim_alloc_create(struct CUctx_st *ctx, size_t bytes, struct sim_alloc **alloc, uint64_t *address);
struct sim_alloc *sim_alloc_find(uint64_t address); /* with a reference; NULL: no graph's */
void sim_alloc_get(struct sim_alloc *alloc);
void sim_alloc_put(struct sim_alloc *alloc);
void sim_alloc_begin(struct sim_alloc *alloc);   /* runs the node */
void sim_alloc_end(struct sim_alloc *alloc);
bool sim_alloc_plan(struct sim_alloc *alloc, bool live); /* at submission; false: it is so already */
uint64_t sim_alloc_bytes(struct sim_alloc *alloc);
CUresult sim_graph_memory_capture(struct CUstream_st *stream, size_t bytes, CUdeviceptr *p);
CUresult sim_graph_memory_free(struct CUstream_st *stream, struct sim_work *work); /* takes the work over */
CUresult sim_graph_memory_freed(uint64_t address); /* at once; drops the reference of the search */
CUresult sim_graph_memory_launch(struct CUgraph_st *graph, bool auto_free);

/* ---- graph_object.c ---- */
void sim_kept_drop(struct CUgraph_st *graph);
bool sim_kept_clone(struct CUgraph_st *to, const struct CUgraph_st *from);
CUresult sim_condition_add(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t nr,
                           CUDA_CONDITIONAL_NODE_PARAMS *p);
CUresult sim_condition_run(struct CUctx_st *ctx, struct CUgraphNode_st *node,
                           CUresult (*run)(struct CUctx_st *ctx, struct CUgraph_st *g));
void sim_condition_reset(struct CUgraph_st *graph); /* defaults, before a launch */
void sim_exec_put(struct CUgraphExec_st *exec);
void sim_exec_get(struct CUgraphExec_st *exec);

/* ---- copy.c ---- */
CUresult sim_copy_check(const struct sim_copy *c);
CUresult sim_copy_resolve(const CUDA_MEMCPY3D *p, struct sim_copy *c);

/* ---- module.c, function.c ---- */
struct sim_image {                     /* what was found in a module's bytes */
    char *ptx;                         /* owned text, NULL: none */
    size_t ptx_bytes;
    char *cubin;                       /* owned */
    size_t cubin_bytes;
};
CUresult sim_image_open(const void *image, struct sim_image *out, char *error, size_t error_bytes);
void sim_image_close(struct sim_image *image);
struct sim_global {
    const char *name;                  /* in the image */
    void *p;
    size_t bytes;
};
struct CUmod_st {
    struct CUctx_st *ctx;
    struct ptx_module *ptx;
    struct sim_image image;
    struct CUfunc_st **functions;
    size_t nr_functions;
    struct sim_global *globals;        /* of machine code; PTX has its own */
    size_t nr_globals;
    struct CUlib_st *library;
    struct CUmod_st *next;             /* of the library's modules */
    struct CUtexref_st *references;
};
struct sim_param {
    unsigned offset, bytes;
};
struct sim_tuning {                     /* what an application set for a function, or for a kernel in all contexts */
    int max_dynamic;                   /* bytes of shared memory; 0: not set */
    int cluster[3];                    /* blocks of a cluster; 0: not set */
    int beyond_portable;               /* more than 8 of them */
    int policy;
};
struct CUfunc_st {
    struct CUmod_st *module;
    struct ptx_kernel *kernel;         /* NULL: machine code only, then what follows is known of it */
    struct sim_param *params;
    unsigned nr_params;
    size_t shared_bytes;
    char *name;
    int carveout, cache;
    struct sim_tuning tuning;
    uint64_t code_bytes;               /* on the card since its first launch */
};
CUresult sim_module_load(struct CUctx_st *ctx, const void *image, char *error, size_t error_bytes,
                         struct CUmod_st **module);
void sim_module_free(struct CUmod_st *module);
CUresult sim_module_add(struct CUmod_st *module, const char *name, struct ptx_kernel *kernel);
CUresult sim_cubin_load(struct CUmod_st *module); /* functions and variables of the module's machine code */
void sim_cubin_unload(struct CUmod_st *module);
struct CUfunc_st *sim_module_function(struct CUmod_st *module, const char *name);
/* An attribute from 8 on; `static_bytes` of shared memory leave the rest for dynamic ones. */
CUresult sim_set_attribute(struct sim_tuning *tuning, CUfunction_attribute what, int value, int static_bytes);
/* The function behind a CUfunction or a CUkernel in this context. */
CUresult sim_function(struct CUctx_st *ctx, void *handle, struct CUfunc_st **function);
void sim_libraries_drop(struct CUctx_st *ctx);
CUresult sim_call_run(struct CUctx_st *ctx, struct sim_call *call);
/* Checks a launch and packs its parameters; on error nothing is owned. */
CUresult sim_call_prepare(struct CUctx_st *ctx, struct sim_call *call, void **params, void **extra);
CUresult sim_read_file(const char *path, char **out); /* a whole file, NULs behind it */
/* Puts the explanation where the application asked for it by JIT options, else on stderr. */
void sim_report(const char *error, unsigned nr, const CUjit_option *options, void **values);
/* The executable's copy of a node, for changing it between launches; NULL: none of that type. */
struct CUgraphNode_st *sim_exec_node(struct CUgraphExec_st *exec, struct CUgraphNode_st *node, CUgraphNodeType type);

/* ---- running.c ---- */
struct sim_running {                 /* a kernel that runs; the caller's memory */
    const char *name;
    uint64_t done, blocks, began_ns; /* done: atomic */
    struct sim_running *older;
};
void sim_running_begin(struct sim_running *run, const char *name, uint64_t blocks);
void sim_running_end(struct sim_running *run);
/* The kernel that has run for longest; 0: none runs. The executor looks for this name in its driver. */
SIM_API int orion_sim_running(char *name, size_t room, uint64_t *done, uint64_t *blocks, uint64_t *ns);

#endif
