/* SPDX-License-Identifier: Apache-2.0 */
/* Stream capture: work submitted to a capturing stream becomes nodes of a graph. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

struct sim_capture {
    struct CUgraph_st *graph;
    struct CUstream_st *origin;
    uint64_t id;
    CUstreamCaptureMode mode;
    bool invalid;
    bool given;                  /* the graph is the application's (BeginCaptureToGraph) */
    pthread_t thread;
};
int sim_nr_captures;
__thread CUstreamCaptureMode sim_thread_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
static uint64_t next_id = 1;
static struct sim_capture *active[64]; /* under sim_lock */

static CUgraphNodeType node_type(const struct sim_work *w)
{
    switch (w->kind) {
    case SIM_WORK_COPY: return CU_GRAPH_NODE_TYPE_MEMCPY;
    case SIM_WORK_SET: return CU_GRAPH_NODE_TYPE_MEMSET;
    case SIM_WORK_KERNEL: return CU_GRAPH_NODE_TYPE_KERNEL;
    case SIM_WORK_HOST: return CU_GRAPH_NODE_TYPE_HOST;
    case SIM_WORK_ALLOC: return CU_GRAPH_NODE_TYPE_MEM_ALLOC;
    case SIM_WORK_FREE: return CU_GRAPH_NODE_TYPE_MEM_FREE;
    case SIM_WORK_RECORD: return CU_GRAPH_NODE_TYPE_EVENT_RECORD;
    case SIM_WORK_WAIT: return CU_GRAPH_NODE_TYPE_WAIT_EVENT;
    case SIM_WORK_BATCH: case SIM_WORK_VALUE: return CU_GRAPH_NODE_TYPE_BATCH_MEM_OP;
    case SIM_WORK_GRAPH: return CU_GRAPH_NODE_TYPE_GRAPH;
    default: return CU_GRAPH_NODE_TYPE_EMPTY;
    }
}

static CUresult set_deps(struct CUgraphNode_st ***to, size_t *nr, struct CUgraphNode_st *const *from, size_t nr_from,
                         bool append)
{
    size_t keep = append ? *nr : 0;
    void *p = realloc(*to, (keep + nr_from + 1) * sizeof(**to));

    if (!p)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *to = p;
    if (nr_from)
        memcpy(*to + keep, from, nr_from * sizeof(**to));
    *nr = keep + nr_from;
    return CUDA_SUCCESS;
}

CUresult sim_capture_refuse(struct CUstream_st *s)
{
    s->capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}

/* The legacy stream would have to wait for a stream that captures. */
static bool legacy_conflict(const struct CUstream_st *s)
{
    if (!s->legacy || !sim_nr_captures)
        return false;
    for (const struct CUstream_st *t = s->ctx->streams; t; t = t->next_in_context)
        if (t->capture && !(t->flags & CU_STREAM_NON_BLOCKING)) {
            t->capture->invalid = true;
            return true;
        }
    return false;
}

bool sim_capture_work(struct CUstream_st *s, struct sim_work *work, CUresult *r)
{
    return sim_capture_node(s, node_type(work), work, r);
}

bool sim_capture_node(struct CUstream_st *s, CUgraphNodeType type, struct sim_work *work, CUresult *r)
{
    struct CUgraphNode_st *n;

    *r = CUDA_SUCCESS;
    if (!s->capture) {
        if (legacy_conflict(s))
            *r = CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
        return *r != CUDA_SUCCESS;
    }
    if (s->capture->invalid) {
        *r = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
        return true;
    }
    n = sim_graph_add(s->capture->graph, type, s->cap_deps, s->nr_cap_deps);
    if (!n) {
        *r = CUDA_ERROR_OUT_OF_MEMORY;
        return true;
    }
    n->work = *work;
    *r = set_deps(&s->cap_deps, &s->nr_cap_deps, &n, 1, false);
    return true;
}

bool sim_capture_record(struct CUstream_st *s, struct CUevent_st *e, CUresult *r)
{
    *r = CUDA_SUCCESS;
    if (!s->capture)
        return false;
    if (s->capture->invalid) {
        *r = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
        return true;
    }
    e->capture = s->capture;
    e->capture_id = s->capture->id;
    *r = set_deps(&e->cap_deps, &e->nr_cap_deps, s->cap_deps, s->nr_cap_deps, false);
    return true;
}

static struct sim_capture *capture_of(const struct CUevent_st *e)
{
    for (size_t i = 0; e->capture && i < 64; i++)
        if (active[i] == e->capture && active[i]->id == e->capture_id)
            return active[i];
    return NULL;
}

bool sim_capture_wait(struct CUstream_st *s, struct CUevent_st *e, CUresult *r)
{
    struct sim_capture *c = capture_of(e);

    *r = CUDA_SUCCESS;
    if (!c) {
        if (!s->capture || !e->recorded)
            return s->capture != NULL;
        s->capture->invalid = true; /* depends on work outside the capture */
        *r = CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
        return true;
    }
    if (s->legacy) {
        c->invalid = true;
        *r = CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
    } else if (s->capture && s->capture != c) {
        c->invalid = s->capture->invalid = true;
        *r = CUDA_ERROR_STREAM_CAPTURE_MERGE;
    } else {
        *r = set_deps(&s->cap_deps, &s->nr_cap_deps, e->cap_deps, e->nr_cap_deps, s->capture != NULL);
        s->capture = c;
    }
    return true;
}

CUresult sim_may_block(struct CUctx_st *ctx)
{
    CUresult r = CUDA_SUCCESS;

    (void)ctx;
    if (sim_thread_mode == CU_STREAM_CAPTURE_MODE_RELAXED)
        return r;
    pthread_mutex_lock(&sim_lock);
    for (size_t i = 0; sim_nr_captures && i < 64; i++) {
        struct sim_capture *c = active[i];
        if (!c || c->mode == CU_STREAM_CAPTURE_MODE_RELAXED)
            continue;
        bool mine = pthread_equal(c->thread, pthread_self());
        if (mine || (c->mode == CU_STREAM_CAPTURE_MODE_GLOBAL && sim_thread_mode == CU_STREAM_CAPTURE_MODE_GLOBAL)) {
            c->invalid = true;
            r = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
        }
    }
    pthread_mutex_unlock(&sim_lock);
    return r;
}

static CUresult begin_locked(struct CUstream_st *s, struct CUgraph_st *graph, CUstreamCaptureMode mode)
{
    struct sim_capture *c;
    size_t i = 0;

    if (s->capture)
        return CUDA_ERROR_ILLEGAL_STATE;
    if (s->legacy)
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    while (i < 64 && active[i])
        i++;
    c = i < 64 ? calloc(1, sizeof(*c)) : NULL;
    if (!c || !(c->graph = graph ? graph : sim_graph_create())) {
        free(c);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    c->given = graph != NULL;
    c->origin = s;
    c->id = next_id++;
    c->mode = mode;
    c->thread = pthread_self();
    active[i] = c;
    s->capture = c;
    s->nr_cap_deps = 0;
    sim_nr_captures++;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode)
{
    struct CUstream_st *s;
    CUresult r = sim_stream(stream, &s);

    if (r)
        return r;
    if ((unsigned)mode > 2)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&sim_lock);
    r = begin_locked(s, NULL, mode);
    pthread_mutex_unlock(&sim_lock);
    return r;
}

SIM_API CUresult cuStreamBeginCaptureToGraph(CUstream stream, CUgraph graph, const CUgraphNode *deps,
                                             const CUgraphEdgeData *edges, size_t nr, CUstreamCaptureMode mode)
{
    struct CUstream_st *s;
    CUresult r = sim_stream(stream, &s);

    (void)edges;
    if (r)
        return r;
    if ((unsigned)mode > 2 || !sim_valid(graph, SIM_GRAPH) || (nr && !deps))
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < nr; i++)
        if (!sim_valid(deps[i], SIM_NODE) || deps[i]->graph != graph)
            return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&sim_lock);
    r = begin_locked(s, graph, mode);
    if (!r)
        r = set_deps(&s->cap_deps, &s->nr_cap_deps, deps, nr, false);
    pthread_mutex_unlock(&sim_lock);
    return r;
}

/* True when `node` is one of `from` or something they depend on. */
static bool reaches(struct CUgraphNode_st *const *from, size_t nr, const struct CUgraphNode_st *node)
{
    for (size_t i = 0; i < nr; i++)
        if (from[i] == node || reaches(from[i]->deps, from[i]->nr_deps, node))
            return true;
    return false;
}

/* Streams of the capture leave it; false when one had work that the origin does not wait for. */
static bool join_all(struct CUstream_st *origin)
{
    struct sim_capture *c = origin->capture;
    bool joined = true;

    for (struct CUstream_st *t = origin->ctx->streams; t; t = t->next_in_context) {
        if (t->capture != c || t == origin)
            continue;
        for (size_t i = 0; i < t->nr_cap_deps; i++)
            joined = joined && reaches(origin->cap_deps, origin->nr_cap_deps, t->cap_deps[i]);
        t->capture = NULL;
        t->nr_cap_deps = 0;
    }
    return joined;
}

static CUresult end_locked(struct CUstream_st *s, CUgraph *out)
{
    struct sim_capture *c = s->capture;
    CUresult r = CUDA_SUCCESS;

    if (!c)
        return CUDA_ERROR_ILLEGAL_STATE;
    if (c->origin != s) {
        c->invalid = true;
        return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
    }
    if (c->mode != CU_STREAM_CAPTURE_MODE_RELAXED && !pthread_equal(c->thread, pthread_self()))
        return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
    if (!join_all(s))
        r = CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
    if (c->invalid)
        r = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    s->capture = NULL;
    s->nr_cap_deps = 0;
    for (size_t i = 0; i < 64; i++)
        if (active[i] == c)
            active[i] = NULL;
    sim_nr_captures--;
    *out = r ? NULL : c->graph;
    return r;
}

SIM_API CUresult cuStreamEndCapture(CUstream stream, CUgraph *out)
{
    struct CUstream_st *s;
    CUresult r = sim_stream(stream, &s);
    struct sim_capture *c;

    if (r)
        return r;
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    *out = NULL;
    pthread_mutex_lock(&sim_lock);
    c = s->capture;
    r = end_locked(s, out);
    bool ended = c && !s->capture;
    pthread_mutex_unlock(&sim_lock);
    if (ended) { /* outside the lock: clearing work may put events */
        if (r && !c->given)
            sim_graph_destroy(c->graph);
        free(c);
    }
    return r;
}

SIM_API CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode)
{
    CUstreamCaptureMode old = sim_thread_mode;

    if (!mode || (unsigned)*mode > 2)
        return CUDA_ERROR_INVALID_VALUE;
    sim_thread_mode = *mode;
    *mode = old;
    return CUDA_SUCCESS;
}

static CUstreamCaptureStatus status_locked(const struct CUstream_st *s)
{
    if (!s->capture)
        return CU_STREAM_CAPTURE_STATUS_NONE;
    return s->capture->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED : CU_STREAM_CAPTURE_STATUS_ACTIVE;
}

SIM_API CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus *status)
{
    struct CUstream_st *s;
    CUresult r = sim_stream(stream, &s);

    if (r)
        return r;
    if (!status)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&sim_lock);
    *status = status_locked(s);
    if (legacy_conflict(s))
        r = CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
    pthread_mutex_unlock(&sim_lock);
    return r;
}

SIM_API CUresult cuStreamGetCaptureInfo_v2(CUstream stream, CUstreamCaptureStatus *status, cuuint64_t *id,
                                           CUgraph *graph, const CUgraphNode **deps, size_t *nr)
{
    struct CUstream_st *s;
    CUresult r = sim_stream(stream, &s);

    if (r)
        return r;
    if (!status)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&sim_lock);
    *status = status_locked(s);
    if (*status == CU_STREAM_CAPTURE_STATUS_ACTIVE) {
        if (id)
            *id = s->capture->id;
        if (graph)
            *graph = s->capture->graph;
        if (deps)
            *deps = s->cap_deps;
        if (nr)
            *nr = s->nr_cap_deps;
    }
    pthread_mutex_unlock(&sim_lock);
    return r;
}

SIM_API CUresult cuStreamGetCaptureInfo_v3(CUstream stream, CUstreamCaptureStatus *status, cuuint64_t *id,
                                           CUgraph *graph, const CUgraphNode **deps, const CUgraphEdgeData **edges,
                                           size_t *nr)
{
    if (edges)
        *edges = NULL;
    return cuStreamGetCaptureInfo_v2(stream, status, id, graph, deps, nr);
}

SIM_API CUresult cuStreamUpdateCaptureDependencies_v2(CUstream stream, CUgraphNode *deps, const CUgraphEdgeData *edges,
                                                      size_t nr, unsigned flags)
{
    struct CUstream_st *s;
    CUresult r = sim_stream(stream, &s);

    (void)edges;
    if (r)
        return r;
    if ((nr && !deps) || flags > 1)
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < nr; i++)
        if (!sim_valid(deps[i], SIM_NODE))
            return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&sim_lock);
    if (!s->capture)
        r = CUDA_ERROR_ILLEGAL_STATE;
    else
        r = set_deps(&s->cap_deps, &s->nr_cap_deps, deps, nr, flags == 0);
    pthread_mutex_unlock(&sim_lock);
    return r;
}

SIM_API CUresult cuStreamUpdateCaptureDependencies(CUstream stream, CUgraphNode *deps, size_t nr, unsigned flags)
{
    return cuStreamUpdateCaptureDependencies_v2(stream, deps, NULL, nr, flags);
}
