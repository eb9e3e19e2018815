// SPDX-License-Identifier: Apache-2.0
// Bodies on copies with CUDA arrays, batches, tensor maps and references: `arrays NAME` checks itself and prints.
#include "arrays.h"

template <typename T> static T *pinned(size_t n)
{
    T *p;
    CHECK(cudaMallocHost(&p, n * sizeof(T)));
    return p;
}
static cudaArray_t made(size_t w, size_t h, size_t d = 0, unsigned flags = 0)
{
    cudaChannelFormatDesc format = cudaCreateChannelDesc<float>();
    cudaArray_t a;
    CHECK(cudaMalloc3DArray(&a, &format, make_cudaExtent(w, h, d), flags));
    return a;
}

/* ---- rectangles: cudaMemcpy2DToArray and its like ---- */
static void rectangles()
{
    const int w = 80, h = 30, x = 16, y = 5, cw = 40, ch = 20;
    std::vector<float> data = ramp(w * h), part = ramp(cw * ch, 7), got(w * h), want = data;
    cudaArray_t a = made(w, h), b = made(w, h);
    float *host = pinned<float>(w * h), *there = on_device<float>(w * h);
    cudaStream_t s;
    CHECK(cudaStreamCreate(&s));
    memcpy(host, data.data(), w * h * 4);
    CHECK(cudaMemcpy2DToArrayAsync(a, 0, 0, host, w * 4, w * 4, h, cudaMemcpyHostToDevice, s));
    CHECK(cudaMemcpy2DToArrayAsync(a, x * 4, y, part.data(), cw * 4, cw * 4, ch, cudaMemcpyHostToDevice, s));
    CHECK(cudaMemcpy2DFromArrayAsync(got.data(), w * 4, a, 0, 0, w * 4, h, cudaMemcpyDeviceToHost, s));
    CHECK(cudaStreamSynchronize(s));
    for (int i = 0; i < cw * ch; i++)
        want[(y + i / cw) * w + x + i % cw] = part[i];
    is("from ordinary memory into a part", near(got, want, 0));
    CHECK(cudaMemcpy2DArrayToArray(b, 0, 0, a, 0, 0, w * 4, h, cudaMemcpyDeviceToDevice));
    CHECK(cudaMemcpy2DFromArray(there, w * 4, b, 0, 0, w * 4, h, cudaMemcpyDeviceToDevice));
    is("array to array to device", near(back(there, w * h), want, 0));
    memset(host, 0, w * h * 4);
    CHECK(cudaMemcpy2DFromArray(host, w * 4, b, x * 4, y, cw * 4, ch, cudaMemcpyDefault));
    for (int i = 0; i < cw * ch; i++)
        got[i] = host[i / cw * w + i % cw];
    got.resize(cw * ch);
    is("a part into pinned memory", near(got, part, 0));
    gives("beyond the array", cudaMemcpy2DToArray(a, x * 4, 0, host, w * 4, w * 4, h, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    gives("no array", cudaMemcpy2DToArray(nullptr, 0, 0, host, w * 4, w * 4, h, cudaMemcpyHostToDevice), cudaErrorInvalidResourceHandle);
    CHECK(cudaFreeHost(host));
    CHECK(cudaFree(there));
    CHECK(cudaFreeArray(a));
    CHECK(cudaFreeArray(b));
}

/* ---- runs of elements that continue in the next row: cudaMemcpyToArray, of older programs ---- */
static void runs()
{
    const int w = 50, h = 12, n = w * h;
    std::vector<float> data = ramp(n, 3), got(n), want(n);
    cudaArray_t a = made(w, h);
    CHECK(cudaMemcpyToArray(a, 0, 0, data.data(), n * 4, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpyFromArray(got.data(), a, 0, 0, n * 4, cudaMemcpyDeviceToHost));
    is("whole", near(got, data, 0));
    CHECK(cudaMemcpyToArray(a, 20 * 4, 2, data.data(), 100 * 4, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpyFromArray(got.data(), a, 0, 0, n * 4, cudaMemcpyDeviceToHost));
    want = data;
    memcpy(&want[2 * w + 20], data.data(), 100 * 4);
    is("from within a row", near(got, want, 0));
    CHECK(cudaFreeArray(a));
}

/* ---- boxes: cudaMemcpy3D; rows longer than what moves at once ---- */
static cudaMemcpy3DParms box(size_t w, size_t h, size_t d)
{
    cudaMemcpy3DParms p = {};
    p.extent = make_cudaExtent(w, h, d);
    p.kind = cudaMemcpyDefault;
    return p;
}
static void boxes()
{
    const int w = 40, h = 25, d = 9;
    std::vector<float> data = ramp(w * h * d, 5), got(w * h * d), want;
    cudaArray_t a = made(w, h, d), b = made(w, h, d);
    cudaPitchedPtr there;
    CHECK(cudaMalloc3D(&there, make_cudaExtent(w * 4, h, d)));
    cudaMemcpy3DParms p = box(w, h, d);
    p.srcPtr = make_cudaPitchedPtr(data.data(), w * 4, w, h);
    p.dstArray = a;
    CHECK(cudaMemcpy3D(&p));
    p = box(w, h, d);
    p.srcArray = a;
    p.dstArray = b;
    CHECK(cudaMemcpy3D(&p));
    p = box(w, h, d);
    p.srcArray = b;
    p.dstPtr = there;
    CHECK(cudaMemcpy3D(&p));
    p = box(20, 10, 4); /* from pitched device memory into the middle of an array */
    p.srcPtr = there;
    p.srcPos = make_cudaPos(8, 3, 2); /* in elements of the array, of memory too */
    p.dstArray = b;
    p.dstPos = make_cudaPos(16, 12, 5);
    CHECK(cudaMemcpy3D(&p));
    p = box(w, h, d);
    p.srcArray = b;
    p.dstPtr = make_cudaPitchedPtr(got.data(), w * 4, w, h);
    CHECK(cudaMemcpy3D(&p));
    print_sum("through arrays", got);
    want = data;
    for (int i = 0; i < 20 * 10 * 4; i++) {
        int cx = i % 20, cy = i / 20 % 10, cz = i / 200;
        want[((cz + 5) * h + cy + 12) * w + cx + 16] = data[((cz + 2) * h + cy + 3) * w + cx + 8];
    }
    is("through arrays", near(got, want, 0));
    CHECK(cudaFreeArray(a));
    CHECK(cudaFreeArray(b));
    CHECK(cudaFree(there.ptr));
    const int wide = 30000, rows = 50; /* rows of 120000 bytes, 6 MB in all */
    data = ramp(wide * rows, 8);
    got.assign(wide * rows, 0);
    a = made(wide, rows);
    CHECK(cudaMemcpy2DToArray(a, 0, 0, data.data(), wide * 4, wide * 4, rows, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy2DFromArray(got.data(), wide * 4, a, 0, 0, wide * 4, rows, cudaMemcpyDeviceToHost));
    is("long rows", near(got, data, 0));
    CHECK(cudaFreeArray(a));
}

/* ---- one row: cuMemcpyHtoA and its like ---- */
static void rows()
{
    const size_t n = 1000, at = 100;
    std::vector<float> data = ramp(n, 2), got(n), want(n);
    CUarray a, b;
    CUDA_ARRAY_DESCRIPTOR d = { n, 0, CU_AD_FORMAT_FLOAT, 1 }, told = {};
    CUDA_ARRAY3D_DESCRIPTOR deep = {};
    float *there = on_device<float>(n), *host = pinned<float>(n);
    cudaStream_t s;
    CHECK(cudaStreamCreate(&s));
    driver("cuArrayCreate", &a, (const CUDA_ARRAY_DESCRIPTOR *)&d);
    driver("cuArrayCreate", &b, (const CUDA_ARRAY_DESCRIPTOR *)&d);
    driver("cuArrayGetDescriptor", &told, a);
    driver("cuArray3DGetDescriptor", &deep, a);
    printf("%zu x %zu, format %d, channels %u; %zu x %zu x %zu, flags %u\n", told.Width, told.Height, told.Format,
           told.NumChannels, deep.Width, deep.Height, deep.Depth, deep.Flags);
    driver("cuMemcpyHtoA", a, (size_t)0, (const void *)data.data(), n * 4);
    driver("cuMemcpyAtoA", b, at * 4, a, (size_t)0, (n - at) * 4);
    driver("cuMemcpyAtoA", b, (size_t)0, a, (n - at) * 4, at * 4);
    driver("cuMemcpyAtoD", (CUdeviceptr)there, b, (size_t)0, n * 4);
    for (size_t i = 0; i < n; i++)
        want[(i + at) % n] = data[i];
    is("round about", near(back(there, n), want, 0));
    CHECK(cudaMemset(there, 0, n * 4));
    driver("cuMemcpyDtoA", b, at * 4, (CUdeviceptr)there, at * 4);
    driver("cuMemcpyAtoH", (void *)got.data(), b, (size_t)0, n * 4);
    std::fill(want.begin() + at, want.begin() + 2 * at, 0.0f);
    is("zeroed in part", near(got, want, 0));
    memcpy(host, data.data(), n * 4);
    driver("cuMemcpyHtoAAsync", a, (size_t)0, (const void *)host, n * 4, s);
    driver("cuMemcpyAtoHAsync", (void *)got.data(), a, at * 4, (n - at) * 4, s);
    CHECK(cudaStreamSynchronize(s));
    got.resize(n - at);
    is("on a stream", near(got, std::vector<float>(data.begin() + at, data.end()), 0));
    printf("beyond the array: %d\n", (int)ask("cuMemcpyHtoA", a, at * 4, (const void *)host, n * 4));
    driver("cuArrayDestroy", a);
    driver("cuArrayDestroy", b);
    d.NumChannels = 3;
    printf("three channels: %d\n", (int)ask("cuArrayCreate", &a, (const CUDA_ARRAY_DESCRIPTOR *)&d));
    d.NumChannels = 1;
    d.Width = 0;
    printf("no width: %d\n", (int)ask("cuArrayCreate", &a, (const CUDA_ARRAY_DESCRIPTOR *)&d));
    CHECK(cudaFree(there));
    CHECK(cudaFreeHost(host));
}

/* ---- rectangles by the driver's own functions: simpleTextureDrv ---- */
static CUDA_MEMCPY2D rectangle(size_t width, size_t height)
{
    CUDA_MEMCPY2D p = {};
    p.WidthInBytes = width;
    p.Height = height;
    return p;
}
static void flat()
{
    const int w = 33, h = 21;
    std::vector<float> data = ramp(w * h, 14), got(w * h), part;
    CUDA_ARRAY_DESCRIPTOR d = { (size_t)w, (size_t)h, CU_AD_FORMAT_FLOAT, 1 };
    float *there = on_device<float>(w * h);
    cudaStream_t s;
    CUarray a, b;
    CHECK(cudaStreamCreate(&s));
    driver("cuArrayCreate", &a, (const CUDA_ARRAY_DESCRIPTOR *)&d);
    driver("cuArrayCreate", &b, (const CUDA_ARRAY_DESCRIPTOR *)&d);
    CUDA_MEMCPY2D p = rectangle(w * 4, h);
    p.srcMemoryType = CU_MEMORYTYPE_HOST;
    p.srcHost = data.data();
    p.srcPitch = w * 4;
    p.dstMemoryType = CU_MEMORYTYPE_ARRAY;
    p.dstArray = a;
    driver("cuMemcpy2D", (const CUDA_MEMCPY2D *)&p);
    p = rectangle(20 * 4, 10);
    p.srcMemoryType = p.dstMemoryType = CU_MEMORYTYPE_ARRAY;
    p.srcArray = a;
    p.srcXInBytes = 3 * 4;
    p.srcY = 4;
    p.dstArray = b;
    p.dstXInBytes = 11 * 4;
    p.dstY = 9;
    driver("cuMemcpy2DUnaligned", (const CUDA_MEMCPY2D *)&p);
    p.srcArray = b;
    p.srcXInBytes = 11 * 4;
    p.srcY = 9;
    p.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    p.dstDevice = (CUdeviceptr)there;
    p.dstPitch = w * 4;
    p.dstXInBytes = p.dstY = 0;
    CHECK(cudaMemset(there, 0, w * h * 4));
    driver("cuMemcpy2DAsync", (const CUDA_MEMCPY2D *)&p, s);
    CHECK(cudaStreamSynchronize(s));
    for (int i = 0; i < w * h; i++)
        part.push_back(i % w < 20 && i / w < 10 ? data[(i / w + 4) * w + i % w + 3] : 0);
    is("a part by way of two arrays", near(back(there, w * h), part, 0));
    p = rectangle(w * 4, h);
    p.srcMemoryType = CU_MEMORYTYPE_ARRAY;
    p.srcArray = a;
    p.dstMemoryType = CU_MEMORYTYPE_HOST;
    p.dstHost = got.data();
    p.dstPitch = w * 4;
    driver("cuMemcpy2DUnaligned", (const CUDA_MEMCPY2D *)&p);
    is("back", near(got, data, 0));
    p.Height = h + 1;
    printf("beyond the array: %d\n", (int)ask("cuMemcpy2DUnaligned", (const CUDA_MEMCPY2D *)&p));
    driver("cuArrayDestroy", a);
    driver("cuArrayDestroy", b);
    CHECK(cudaFree(there));
}

/* ---- batches ---- */
static void batch()
{
    const size_t n = 3000;
    std::vector<float> data = ramp(n, 4), got(n), small(10, 7.0f);
    float *a = on_device<float>(n), *b = on_device<float>(n), *host = pinned<float>(n);
    cudaStream_t s;
    CHECK(cudaStreamCreate(&s));
    memcpy(host, data.data(), n * 4);
    void *dsts[3] = { a, a + 1000, b };
    const void *srcs[3] = { host, data.data() + 1000, small.data() };
    size_t sizes[3] = { 4000, 8000, 40 }, from[2] = { 0, 2 };
    cudaMemcpyAttributes attrs[2] = {};
    attrs[0].srcAccessOrder = cudaMemcpySrcAccessOrderStream;
    attrs[1].srcAccessOrder = cudaMemcpySrcAccessOrderDuringApiCall;
    CHECK(cudaMemcpyBatchAsync(dsts, srcs, sizes, 3, attrs, from, 2, s));
    small.assign(10, 0);
    CHECK(cudaStreamSynchronize(s));
    is("three copies", near(back(a, n), data, 0) && near(back(b, 10), std::vector<float>(10, 7.0f), 0));
    const void *down[2] = { a, b };
    void *up[2] = { got.data(), host };
    size_t bytes[2] = { n * 4, 40 };
    CHECK(cudaMemcpyBatchAsync(up, down, bytes, 2, attrs, from, 1, s));
    CHECK(cudaStreamSynchronize(s));
    is("back", near(got, data, 0) && host[9] == 7.0f);
    from[0] = 1;
    gives("attributes from the second on", cudaMemcpyBatchAsync(up, down, bytes, 2, attrs, from, 1, s), cudaErrorInvalidValue);
    from[0] = 0;
    attrs[0].srcAccessOrder = (cudaMemcpySrcAccessOrder)0;
    gives("no order", cudaMemcpyBatchAsync(up, down, bytes, 2, attrs, from, 1, s), cudaErrorInvalidValue);
    attrs[0].srcAccessOrder = cudaMemcpySrcAccessOrderStream;
    gives("the legacy stream", cudaMemcpyBatchAsync(up, down, bytes, 2, attrs, from, 1, cudaStreamLegacy), cudaErrorInvalidValue);
    CHECK(cudaFree(a));
    CHECK(cudaFree(b));
    CHECK(cudaFreeHost(host));
}
static cudaMemcpy3DOperand of_memory(void *p, size_t row = 0, size_t layer = 0)
{
    cudaMemcpy3DOperand o = {};
    o.type = cudaMemcpyOperandTypePointer;
    o.op.ptr.ptr = p;
    o.op.ptr.rowLength = row;
    o.op.ptr.layerHeight = layer;
    return o;
}
static cudaMemcpy3DOperand of_array(cudaArray_t a, size_t x = 0, size_t y = 0, size_t z = 0)
{
    cudaMemcpy3DOperand o = {};
    o.type = cudaMemcpyOperandTypeArray;
    o.op.array.array = a;
    o.op.array.offset = { x, y, z };
    return o;
}
static void batch3d()
{
    const int w = 24, h = 18, d = 6, n = w * h * d;
    std::vector<float> data = ramp(n, 6), got(n), want(n);
    cudaArray_t a = made(w, h, d);
    float *there = on_device<float>(n);
    cudaStream_t s;
    CHECK(cudaStreamCreate(&s));
    cudaMemcpy3DBatchOp ops[2] = {};
    ops[0].src = of_memory(data.data());
    ops[0].dst = of_array(a);
    ops[0].extent = make_cudaExtent(w, h, d / 2);
    ops[1].src = of_memory(data.data() + n / 2, w, h);
    ops[1].dst = of_array(a, 0, 0, d / 2);
    ops[1].extent = make_cudaExtent(w, h, d / 2);
    ops[0].srcAccessOrder = ops[1].srcAccessOrder = cudaMemcpySrcAccessOrderStream;
    CHECK(cudaMemcpy3DBatchAsync(2, ops, 0, s));
    ops[0].src = of_array(a, 4, 2, 1);
    ops[0].dst = of_memory(there, w, h);
    ops[0].extent = make_cudaExtent(w - 4, h - 2, d - 1);
    CHECK(cudaMemset(there, 0, n * 4));
    CHECK(cudaMemcpy3DBatchAsync(1, ops, 0, s));
    CHECK(cudaStreamSynchronize(s));
    for (int z = 0; z < d - 1; z++)
        for (int y = 0; y < h - 2; y++)
            memcpy(&want[(z * h + y) * w], &data[((z + 1) * h + y + 2) * w + 4], (w - 4) * 4);
    is("memory, array, memory", near(back(there, n), want, 0));
    ops[0].src = of_memory(there);
    ops[0].dst = of_memory(got.data());
    ops[0].extent = make_cudaExtent(w * 4, h, d); /* between memory in bytes */
    CHECK(cudaMemcpy3DBatchAsync(1, ops, 0, s));
    CHECK(cudaStreamSynchronize(s));
    is("between memory", near(got, want, 0));
    ops[0].extent.depth = 0;
    gives("no depth", cudaMemcpy3DBatchAsync(1, ops, 0, s), cudaErrorInvalidValue);
    CHECK(cudaFreeArray(a));
    CHECK(cudaFree(there));
}

/* ---- graphs ---- */
__global__ void add_one(cudaSurfaceObject_t s)
{
    float v;
    surf2Dread(&v, s, threadIdx.x * 4, blockIdx.x);
    surf2Dwrite(v + 1, s, threadIdx.x * 4, blockIdx.x);
}
/* The node's parameters name the array, and may name another, filled from ordinary memory by a node of its own. */
static void another_array(cudaGraph_t graph, cudaGraphNode_t last, float *there, cudaStream_t s)
{
    cudaMemcpy3DParms p = {}, fill;
    cudaGraphExec_t exec;
    cudaGraphNode_t first;
    CHECK(cudaGraphMemcpyNodeGetParams(last, &p));
    size_t w = p.extent.width, h = p.extent.height;
    std::vector<float> data = ramp(w * h, 77);
    cudaArray_t a = p.srcArray, b = made(w, h);
    is("extent of the node", w == 32 && h == 16 && p.extent.depth == 1 && p.dstPtr.ptr == there);
    p.srcArray = b;
    CHECK(cudaGraphMemcpyNodeSetParams(last, &p));
    fill = box(w, h, 1);
    fill.srcPtr = make_cudaPitchedPtr(data.data(), w * 4, w, h);
    fill.dstArray = b;
    fill.kind = cudaMemcpyHostToDevice;
    CHECK(cudaGraphAddMemcpyNode(&first, graph, nullptr, 0, &fill));
    CHECK(cudaGraphAddDependencies(graph, &first, &last, nullptr, 1));
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    CHECK(cudaGraphLaunch(exec, s));
    CHECK(cudaStreamSynchronize(s));
    is("from another array", a != b && near(back(there, w * h), data, 0));
    CHECK(cudaGraphExecDestroy(exec));
    CHECK(cudaFreeArray(b));
}
static void graphs()
{
    const int w = 32, h = 16;
    std::vector<float> data = ramp(w * h, 12), want(w * h);
    float *host = pinned<float>(w * h), *there = on_device<float>(w * h);
    cudaArray_t a = made(w, h, 0, cudaArraySurfaceLoadStore);
    cudaSurfaceObject_t on = surface(a);
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaGraphNode_t last;
    cudaStream_t s;
    size_t nodes = 0;
    CHECK(cudaStreamCreate(&s));
    memcpy(host, data.data(), w * h * 4);
    CHECK(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal));
    CHECK(cudaMemcpy2DToArrayAsync(a, 0, 0, host, w * 4, w * 4, h, cudaMemcpyHostToDevice, s));
    add_one<<<h, w, 0, s>>>(on);
    CHECK(cudaStreamEndCapture(s, &graph));
    CHECK(cudaGraphGetNodes(graph, nullptr, &nodes));
    cudaMemcpy3DParms p = box(w, h, 1);
    std::vector<cudaGraphNode_t> all(nodes);
    p.srcArray = a;
    p.dstPtr = make_cudaPitchedPtr(there, w * 4, w, h);
    p.kind = cudaMemcpyDeviceToDevice;
    CHECK(cudaGraphGetNodes(graph, all.data(), &nodes));
    CHECK(cudaGraphAddMemcpyNode(&last, graph, all.data(), nodes, &p));
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    for (int turn = 0; turn < 3; turn++) {
        for (int i = 0; i < w * h; i++) {
            host[i] = data[i] + 10 * turn;
            want[i] = host[i] + 1;
        }
        CHECK(cudaGraphLaunch(exec, s));
        CHECK(cudaStreamSynchronize(s));
        is("a turn", near(back(there, w * h), want, 0));
    }
    printf("nodes %zu\n", nodes);
    CHECK(cudaGraphExecDestroy(exec));
    another_array(graph, last, there, s);
    CHECK(cudaGraphDestroy(graph));
    CHECK(cudaDestroySurfaceObject(on));
    CHECK(cudaFreeArray(a));
    CHECK(cudaFree(there));
    CHECK(cudaFreeHost(host));
}

/* ---- texture references, of older modules ---- */
static const char reader[] = R"(.version 7.0
.target sm_52
.address_size 64
.global .texref ref;
.visible .entry read(.param .u64 out)
{
    .reg .b32 %r<2>;
    .reg .f32 %f<6>;
    .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [out];
    cvta.to.global.u64 %rd2, %rd1;
    mov.u32 %r1, %tid.x;
    cvt.rn.f32.u32 %f1, %r1;
    tex.1d.v4.f32.f32 {%f2, %f3, %f4, %f5}, [ref, {%f1}];
    mul.wide.u32 %rd3, %r1, 4;
    add.s64 %rd2, %rd2, %rd3;
    st.global.f32 [%rd2], %f2;
    ret;
}
)";
static void references()
{
    const size_t n = 64;
    std::vector<float> data = ramp(n, 21);
    CUDA_ARRAY_DESCRIPTOR d = { n, 0, CU_AD_FORMAT_FLOAT, 1 };
    CUmodule module = nullptr;
    CUfunction read = nullptr;
    CUtexref ref = nullptr, again = nullptr;
    CUarray a = nullptr, told = nullptr;
    CUaddress_mode mode = (CUaddress_mode)9;
    CUfilter_mode filter = (CUfilter_mode)9;
    CUarray_format format = (CUarray_format)0;
    int channels = 0;
    unsigned flags = 99;
    size_t offset = 99;
    float *out = on_device<float>(n), *line = on_device<float>(n);
    void *args[1] = { &out };
    printf("module: %d\n", (int)ask("cuModuleLoadData", &module, (const void *)reader));
    printf("reference: %d, %d", (int)ask("cuModuleGetTexRef", &ref, module, "ref"), (int)ask("cuModuleGetTexRef", &again, module, "ref"));
    printf(", the same: %d; absent: %d\n", ref == again, (int)ask("cuModuleGetTexRef", &again, module, "absent"));
    printf("function: %d\n", (int)ask("cuModuleGetFunction", &read, module, "read"));
    driver("cuArrayCreate", &a, (const CUDA_ARRAY_DESCRIPTOR *)&d);
    driver("cuMemcpyHtoA", a, (size_t)0, (const void *)data.data(), n * 4);
    printf("format: %d\n", (int)ask("cuTexRefSetFormat", ref, CU_AD_FORMAT_FLOAT, 1));
    printf("array: %d\n", (int)ask("cuTexRefSetArray", ref, a, (unsigned)CU_TRSA_OVERRIDE_FORMAT));
    printf("mode: %d\n", (int)ask("cuTexRefSetAddressMode", ref, 0, CU_TR_ADDRESS_MODE_CLAMP));
    printf("filter: %d\n", (int)ask("cuTexRefSetFilterMode", ref, CU_TR_FILTER_MODE_POINT));
    printf("launch: %d\n", (int)ask("cuLaunchKernel", read, 1u, 1u, 1u, 64u, 1u, 1u, 0u, (CUstream)0, (void **)args, (void **)nullptr));
    is("by a reference", near(back(out, n), data, 0));
    printf("told: %d %d %d %d %d", (int)ask("cuTexRefGetArray", &told, ref), (int)ask("cuTexRefGetAddressMode", &mode, ref, 0),
           (int)ask("cuTexRefGetFilterMode", &filter, ref), (int)ask("cuTexRefGetFormat", &format, &channels, ref),
           (int)ask("cuTexRefGetFlags", &flags, ref));
    printf(": array %d, mode %d, filter %d, format %d x %d, flags %u\n", told == a, mode, filter, format, channels, flags);
    CHECK(cudaMemset(line, 0, n * 4));
    printf("address: %d", (int)ask("cuTexRefSetAddress", &offset, ref, (CUdeviceptr)line, n * 4));
    printf(", offset %zu\n", offset);
    driver("cuArrayDestroy", a);
    driver("cuModuleUnload", module);
    CHECK(cudaFree(out));
    CHECK(cudaFree(line));
}

/* ---- what the simulated card lacks: only equal answers are asked for ---- */
static void maps()
{
    alignas(64) CUtensorMap m[1] = {};
    std::vector<uint64_t> bytes(16);
    void *at = (void *)0x10000000;
    const cuuint64_t size[4] = { 64, 32, 32, 8 }, stride[3] = { 128, 4096, 131072 };
    const cuuint32_t tile[4] = { 64, 8, 4, 1 }, step[4] = { 1, 1, 1, 1 };
    const int lower[2] = { -1, -1 }, upper[2] = { -1, -1 };
    auto print = [&](const char *what, CUresult r) {
        memcpy(bytes.data(), m, sizeof(m));
        printf("%s: %d\n", what, (int)r);
        print_sum(what, bytes);
    };
    auto tiled = [&](cuuint32_t rank, const cuuint32_t *of) {
        return ask("cuTensorMapEncodeTiled", (CUtensorMap *)m, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, rank, at, size, stride, of, step,
                   CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                   CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    };
    CHECK(cudaFree(nullptr));
    print("tiled", tiled(4, tile));
    print("another address", ask("cuTensorMapReplaceAddress", (CUtensorMap *)m, (void *)0x20000000));
    print("im2col", ask("cuTensorMapEncodeIm2col", (CUtensorMap *)m, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, (cuuint32_t)4, at, size, stride,
                        lower, upper, (cuuint32_t)64, (cuuint32_t)128, step, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                        CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA));
    print("im2col, wide", ask("cuTensorMapEncodeIm2colWide", (CUtensorMap *)m, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, (cuuint32_t)4, at, size,
                              stride, -1, -1, (cuuint32_t)64, (cuuint32_t)128, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
                              CU_TENSOR_MAP_IM2COL_WIDE_MODE_W, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_NONE,
                              CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
    const cuuint32_t large[4] = { 300, 1, 1, 1 };
    printf("too large a tile: %d\n", (int)tiled(4, large));
    printf("rank 6: %d\n", (int)tiled(6, tile));
}

static void planes()
{
    CUDA_ARRAY3D_DESCRIPTOR d = { 64, 32, 0, CU_AD_FORMAT_NV12, 3, 0 }, of = {};
    std::vector<unsigned char> luma(64 * 32), got(64 * 32);
    CUarray a = nullptr, plane = nullptr, again = nullptr;
    CHECK(cudaFree(nullptr));
    printf("array: %d\n", (int)ask("cuArray3DCreate", &a, (const CUDA_ARRAY3D_DESCRIPTOR *)&d));
    for (unsigned i = 0; i < 3; i++) {
        printf("plane: %d", (int)ask("cuArrayGetPlane", &plane, a, i));
        printf(", %d", (int)ask("cuArray3DGetDescriptor", &of, plane));
        printf(", %zu x %zu of format %d x %u\n", of.Width, of.Height, of.Format, of.NumChannels);
    }
    printf("the first: %d %d", (int)ask("cuArrayGetPlane", &plane, a, 0u), (int)ask("cuArrayGetPlane", &again, a, 0u));
    printf(", the same %d\n", plane == again);
    for (size_t i = 0; i < luma.size(); i++)
        luma[i] = (unsigned char)(i * 7);
    printf("into it: %s\n", cudaGetErrorName(cudaMemcpy2DToArray((cudaArray_t)plane, 0, 0, luma.data(), 64, 64, 32, cudaMemcpyHostToDevice)));
    printf("out of it: %s\n", cudaGetErrorName(cudaMemcpy2DFromArray(got.data(), 64, (cudaArray_t)plane, 0, 0, 64, 32, cudaMemcpyDeviceToHost)));
    print_sum("luma", got);
    printf("destroy: %d\n", (int)ask("cuArrayDestroy", a));
}

static void sparse()
{
    CUDA_ARRAY3D_DESCRIPTOR d = { 1024, 1024, 0, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_SURFACE_LDST };
    CUDA_ARRAY_SPARSE_PROPERTIES tiles = {};
    CUDA_ARRAY_MEMORY_REQUIREMENTS needs = {};
    CUmemAllocationProp prop = {};
    CUmemGenericAllocationHandle memory = 0;
    CUarrayMapInfo map = {};
    CUarray a = nullptr;
    cudaStream_t s;
    size_t grain = 0;
    CHECK(cudaStreamCreate(&s));
    printf("array: %d\n", (int)ask("cuArray3DCreate", &a, (const CUDA_ARRAY3D_DESCRIPTOR *)&d));
    if (!a)
        return; /* a card without sparse arrays */
    printf("properties: %d", (int)ask("cuArrayGetSparseProperties", &tiles, a));
    printf(", tile %u x %u x %u\n", tiles.tileExtent.width, tiles.tileExtent.height, tiles.tileExtent.depth);
    prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    prop.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    prop.allocFlags.usage = CU_MEM_CREATE_USAGE_TILE_POOL;
    printf("grain: %d", (int)ask("cuMemGetAllocationGranularity", &grain, (const CUmemAllocationProp *)&prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
    printf(", %zu\n", grain);
    printf("memory: %d\n", (int)ask("cuMemCreate", &memory, grain, (const CUmemAllocationProp *)&prop, 0ull));
    map.resourceType = CU_RESOURCE_TYPE_ARRAY;
    map.resource.array = a;
    map.subresourceType = CU_ARRAY_SPARSE_SUBRESOURCE_TYPE_SPARSE_LEVEL;
    map.subresource.sparseLevel.extentWidth = tiles.tileExtent.width;
    map.subresource.sparseLevel.extentHeight = tiles.tileExtent.height;
    map.subresource.sparseLevel.extentDepth = 1;
    map.memOperationType = CU_MEM_OPERATION_TYPE_MAP;
    map.memHandleType = CU_MEM_HANDLE_TYPE_GENERIC;
    map.memHandle.memHandle = memory;
    map.deviceBitMask = 1;
    printf("map: %d\n", (int)ask("cuMemMapArrayAsync", &map, 1u, s));
    printf("done: %s\n", cudaGetErrorName(cudaStreamSynchronize(s)));
    const size_t w = tiles.tileExtent.width, h = tiles.tileExtent.height;
    std::vector<float> data = ramp(w * h), got(w * h);
    printf("into the tile: %s\n", cudaGetErrorName(cudaMemcpy2DToArray((cudaArray_t)a, 0, 0, data.data(), w * 4, w * 4, h, cudaMemcpyHostToDevice)));
    printf("out of it: %s\n", cudaGetErrorName(cudaMemcpy2DFromArray(got.data(), w * 4, (cudaArray_t)a, 0, 0, w * 4, h, cudaMemcpyDeviceToHost)));
    is("the tile", near(got, data, 0));
    map.memOperationType = CU_MEM_OPERATION_TYPE_UNMAP;
    map.memHandle.memHandle = 0;
    printf("unmap: %d\n", (int)ask("cuMemMapArrayAsync", &map, 1u, s));
    CHECK(cudaStreamSynchronize(s));
    printf("release: %d\n", (int)ask("cuMemRelease", memory));
    printf("destroy: %d\n", (int)ask("cuArrayDestroy", a));
    d.Flags = CUDA_ARRAY3D_DEFERRED_MAPPING;
    printf("array to be mapped: %d\n", (int)ask("cuArray3DCreate", &a, (const CUDA_ARRAY3D_DESCRIPTOR *)&d));
    printf("needs: %d", (int)ask("cuArrayGetMemoryRequirements", &needs, a, 0));
    printf(", %zu bytes, aligned to %zu\n", needs.size, needs.alignment);
    printf("destroy: %d\n", (int)ask("cuArrayDestroy", a));
}

int main(int argc, char **argv)
{
    const body all[] = {
        { "rectangles", rectangles }, { "runs", runs }, { "boxes", boxes }, { "rows", rows }, { "flat", flat },
        { "batch", batch }, { "batch3d", batch3d }, { "graphs", graphs }, { "references", references },
        { "maps", maps }, { "planes", planes }, { "sparse", sparse },
    };
    return run_named(all, argc, argv);
}
