// SPDX-License-Identifier: Apache-2.0
// Bodies on CUDA arrays, textures and surfaces, as the common samples use them: `textures NAME` checks itself and prints.
#include "arrays.h"

/* ---- an image turned about its centre: simpleTexture, simpleTextureDrv ---- */
__global__ void turn(float *out, int w, int h, float theta, cudaTextureObject_t t)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    float u = x / (float)w - 0.5f, v = y / (float)h - 0.5f;
    if (x < w && y < h)
        out[y * w + x] = tex2D<float>(t, u * cosf(theta) - v * sinf(theta) + 0.5f, v * cosf(theta) + u * sinf(theta) + 0.5f);
}
static float bilinear(const std::vector<float> &image, int w, int h, float u, float v)
{
    float x = u * w - 0.5f, y = v * h - 0.5f, fx = x - floorf(x), fy = y - floorf(y), sum = 0;
    for (int c = 0; c < 4; c++) {
        int i = ((int)floorf(x) + (c & 1) + 4 * w) % w, j = ((int)floorf(y) + (c >> 1) + 4 * h) % h;
        sum += (c & 1 ? fx : 1 - fx) * (c >> 1 ? fy : 1 - fy) * image[j * w + i];
    }
    return sum;
}
static void simple()
{
    const int w = 96, h = 64;
    const float theta = 0.5f;
    std::vector<float> image(w * h), want(w * h);
    cudaChannelFormatDesc format = cudaCreateChannelDesc(32, 0, 0, 0, cudaChannelFormatKindFloat), told;
    cudaExtent extent;
    unsigned flags;
    cudaArray_t a;
    for (int i = 0; i < w * h; i++) /* smooth, so that the filter's rounding matters little */
        image[i] = 100 + 50 * sinf(i % w * 6.2831853f / w) + 50 * cosf(i / w * 6.2831853f / h);
    CHECK(cudaMallocArray(&a, &format, w, h));
    CHECK(cudaArrayGetInfo(&told, &extent, &flags, a));
    printf("array %zu x %zu x %zu, %d bits, flags %u\n", extent.width, extent.height, extent.depth, told.x, flags);
    CHECK(cudaMemcpy2DToArray(a, 0, 0, image.data(), w * 4, w * 4, h, cudaMemcpyHostToDevice));
    cudaTextureObject_t t = texture(a, cudaAddressModeWrap, cudaFilterModeLinear, true);
    float *out = on_device<float>(w * h);
    turn<<<dim3((w + 15) / 16, (h + 15) / 16), dim3(16, 16)>>>(out, w, h, theta, t);
    std::vector<float> got = back(out, w * h);
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            float u = x / (float)w - 0.5f, v = y / (float)h - 0.5f;
            want[y * w + x] = bilinear(image, w, h, u * cosf(theta) - v * sinf(theta) + 0.5f,
                                       v * cosf(theta) + u * sinf(theta) + 0.5f);
        }
    is("turned", near(got, want, 0.1));
    print_sum("turned", got);
    cudaResourceDesc r;
    cudaTextureDesc d;
    CHECK(cudaGetTextureObjectResourceDesc(&r, t));
    CHECK(cudaGetTextureObjectTextureDesc(&d, t));
    is("descriptions", r.resType == cudaResourceTypeArray && r.res.array.array == a && d.normalizedCoords &&
                           d.filterMode == cudaFilterModeLinear && d.addressMode[0] == cudaAddressModeWrap);
    CHECK(cudaDestroyTextureObject(t));
    CHECK(cudaFreeArray(a));
    CHECK(cudaFree(out));
}

/* ---- layers: simpleLayeredTexture ---- */
__global__ void from_layer(float *out, int w, int layer, cudaTextureObject_t t)
{
    int x = threadIdx.x, y = blockIdx.x;
    out[(layer * w + y) * w + x] = -tex2DLayered<float>(t, (x + 0.5f) / w, (y + 0.5f) / w, layer) + layer;
}
static void layered()
{
    const int w = 32, layers = 5;
    std::vector<float> data = ramp(w * w * layers), want(data.size());
    cudaChannelFormatDesc format = cudaCreateChannelDesc<float>();
    cudaMemcpy3DParms copy = {};
    cudaArray_t a;
    CHECK(cudaMalloc3DArray(&a, &format, make_cudaExtent(w, w, layers), cudaArrayLayered));
    copy.srcPtr = make_cudaPitchedPtr(data.data(), w * 4, w, w);
    copy.dstArray = a;
    copy.extent = make_cudaExtent(w, w, layers);
    copy.kind = cudaMemcpyHostToDevice;
    CHECK(cudaMemcpy3D(&copy));
    cudaTextureObject_t t = texture(a, cudaAddressModeWrap, cudaFilterModeLinear, true);
    float *out = on_device<float>(data.size());
    for (int l = 0; l < layers; l++)
        from_layer<<<w, w>>>(out, w, l, t);
    for (size_t i = 0; i < data.size(); i++)
        want[i] = -data[i] + (float)(i / (w * w));
    is("layers", near(back(out, data.size()), want, 0));
    CHECK(cudaDestroyTextureObject(t));
    CHECK(cudaFreeArray(a));
    CHECK(cudaFree(out));
}

/* ---- a cube: simpleCubemapTexture ---- */
__global__ void from_cube(float *out, int w, cudaTextureObject_t t)
{
    int x = threadIdx.x, y = blockIdx.x;
    float u = (x + 0.5f) / w * 2 - 1, v = (y + 0.5f) / w * 2 - 1;
    const float3 to[6] = { make_float3(1, -v, -u), make_float3(-1, -v, u), make_float3(u, 1, v),
                           make_float3(u, -1, -v), make_float3(u, -v, 1), make_float3(-u, -v, -1) };
    for (int face = 0; face < 6; face++)
        out[(face * w + y) * w + x] = -texCubemap<float>(t, to[face].x, to[face].y, to[face].z);
}
static void cubemap()
{
    const int w = 32;
    std::vector<float> data = ramp(w * w * 6, 3), want(data.size());
    cudaChannelFormatDesc format = cudaCreateChannelDesc<float>();
    cudaMemcpy3DParms copy = {};
    cudaArray_t a;
    CHECK(cudaMalloc3DArray(&a, &format, make_cudaExtent(w, w, 6), cudaArrayCubemap));
    copy.srcPtr = make_cudaPitchedPtr(data.data(), w * 4, w, w);
    copy.dstArray = a;
    copy.extent = make_cudaExtent(w, w, 6);
    copy.kind = cudaMemcpyHostToDevice;
    CHECK(cudaMemcpy3D(&copy));
    cudaTextureObject_t t = texture(a, cudaAddressModeWrap, cudaFilterModePoint, true);
    float *out = on_device<float>(data.size());
    from_cube<<<w, w>>>(out, w, t);
    for (size_t i = 0; i < data.size(); i++)
        want[i] = -data[i];
    is("faces", near(back(out, data.size()), want, 0));
    CHECK(cudaDestroyTextureObject(t));
    CHECK(cudaFreeArray(a));
    CHECK(cudaFree(out));
}

/* ---- textures on plain memory: simplePitchLinearTexture ---- */
__global__ void shifted(float *out, int w, int dx, int dy, cudaTextureObject_t t)
{
    int x = threadIdx.x, y = blockIdx.x;
    out[y * w + x] = tex2D<float>(t, (x + dx) / (float)w + 0.5f / w, (y + dy) / (float)gridDim.x + 0.5f / gridDim.x);
}
__global__ void fetched(float *out, cudaTextureObject_t t, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        out[i] = tex1Dfetch<float>(t, i - 1);
}
static void pitchlinear()
{
    const int w = 100, h = 40, dx = 7, dy = 31;
    std::vector<float> data = ramp(w * h, 5), want(w * h);
    cudaResourceDesc r = {};
    cudaTextureDesc d = {};
    cudaTextureObject_t t;
    size_t pitch;
    float *image, *out = on_device<float>(w * h + 2);
    CHECK(cudaMallocPitch(&image, &pitch, w * 4, h));
    CHECK(cudaMemcpy2D(image, pitch, data.data(), w * 4, w * 4, h, cudaMemcpyHostToDevice));
    r.resType = cudaResourceTypePitch2D;
    r.res.pitch2D = { image, cudaCreateChannelDesc<float>(), (size_t)w, (size_t)h, pitch };
    d.normalizedCoords = true;
    d.addressMode[0] = d.addressMode[1] = cudaAddressModeWrap;
    CHECK(cudaCreateTextureObject(&t, &r, &d, nullptr));
    shifted<<<h, w>>>(out, w, dx, dy, t);
    for (int i = 0; i < w * h; i++)
        want[i] = data[(i / w + dy) % h * w + (i % w + dx) % w];
    is("pitched memory", near(back(out, w * h), want, 0));
    CHECK(cudaDestroyTextureObject(t));
    r = {};
    r.resType = cudaResourceTypeLinear;
    float *line = on_device<float>(w * h);
    CHECK(cudaMemcpy(line, data.data(), w * h * 4, cudaMemcpyHostToDevice));
    r.res.linear = { line, cudaCreateChannelDesc<float>(), (size_t)w * h * 4 };
    CHECK(cudaCreateTextureObject(&t, &r, &(d = {}), nullptr));
    fetched<<<17, 256>>>(out, t, w * h + 2);
    want = data;
    want.insert(want.begin(), 0); /* outside is 0 */
    want.push_back(0);
    is("linear memory", near(back(out, w * h + 2), want, 0));
    CHECK(cudaDestroyTextureObject(t));
    r.res.linear.sizeInBytes = (size_t)1 << 40;
    is("too long a texture is refused", cudaCreateTextureObject(&t, &r, &d, nullptr) != cudaSuccess);
    cudaGetLastError();
    CHECK(cudaFree(image));
    CHECK(cudaFree(line));
    CHECK(cudaFree(out));
}

/* ---- surfaces: simpleSurfaceWrite, and of other shapes and sizes ---- */
__global__ void into_surface(cudaSurfaceObject_t s, const float *in, int w)
{
    int x = threadIdx.x, y = blockIdx.x;
    surf2Dwrite(in[y * w + x], s, x * 4, y, cudaBoundaryModeTrap);
    surf2Dwrite(-1.0f, s, (x + w) * 4, y, cudaBoundaryModeZero); /* outside: nothing happens */
}
__global__ void within_volume(cudaSurfaceObject_t s, int w)
{
    int x = threadIdx.x, y = blockIdx.x, z = blockIdx.y;
    short2 v;
    surf3Dread(&v, s, x * 4, y, z, cudaBoundaryModeClamp);
    v.x = (short)(v.x + v.y);
    surf3Dwrite(v, s, x * 4, y, z);
}
static void volume(int w, int h, int d)
{
    std::vector<short2> data(w * h * d), got(w * h * d);
    cudaChannelFormatDesc format = cudaCreateChannelDesc<short2>();
    cudaMemcpy3DParms copy = {};
    cudaArray_t a;
    bool right = true;
    for (size_t i = 0; i < data.size(); i++)
        data[i] = make_short2((short)i, (short)(i * 3 - 700));
    CHECK(cudaMalloc3DArray(&a, &format, make_cudaExtent(w, h, d), cudaArraySurfaceLoadStore));
    copy.srcPtr = make_cudaPitchedPtr(data.data(), w * 4, w, h);
    copy.dstArray = a;
    copy.extent = make_cudaExtent(w, h, d);
    copy.kind = cudaMemcpyHostToDevice;
    CHECK(cudaMemcpy3D(&copy));
    cudaSurfaceObject_t s = surface(a);
    within_volume<<<dim3(h, d), w>>>(s, w);
    copy = {};
    copy.srcArray = a;
    copy.dstPtr = make_cudaPitchedPtr(got.data(), w * 4, w, h);
    copy.extent = make_cudaExtent(w, h, d);
    copy.kind = cudaMemcpyDeviceToHost;
    CHECK(cudaMemcpy3D(&copy));
    for (size_t i = 0; i < data.size(); i++)
        right = right && got[i].x == (short)(data[i].x + data[i].y) && got[i].y == data[i].y;
    is("volume", right);
    CHECK(cudaDestroySurfaceObject(s));
    CHECK(cudaFreeArray(a));
}
static void surfaces()
{
    const int w = 64, h = 48;
    std::vector<float> data = ramp(w * h, 9), got(w * h);
    cudaChannelFormatDesc format = cudaCreateChannelDesc<float>();
    float *in = on_device<float>(w * h);
    cudaArray_t a;
    CHECK(cudaMemcpy(in, data.data(), w * h * 4, cudaMemcpyHostToDevice));
    CHECK(cudaMallocArray(&a, &format, w, h, cudaArraySurfaceLoadStore));
    cudaSurfaceObject_t s = surface(a);
    cudaResourceDesc r;
    CHECK(cudaGetSurfaceObjectResourceDesc(&r, s));
    is("description", r.resType == cudaResourceTypeArray && r.res.array.array == a);
    into_surface<<<h, w>>>(s, in, w);
    CHECK(cudaGetLastError());
    CHECK(cudaMemcpy2DFromArray(got.data(), w * 4, a, 0, 0, w * 4, h, cudaMemcpyDeviceToHost));
    is("written", near(got, data, 0));
    CHECK(cudaDestroySurfaceObject(s));
    CHECK(cudaFreeArray(a));
    CHECK(cudaFree(in));
    volume(32, 20, 7);
}

/* ---- levels: bindlessTexture's mipmaps ---- */
__global__ void from_levels(float *out, cudaTextureObject_t t, float lod, int w)
{
    int x = threadIdx.x, y = blockIdx.x;
    out[y * w + x] = tex2DLod<float>(t, (x + 0.5f) / w, (y + 0.5f) / w, lod);
}
__global__ void halve(cudaTextureObject_t from, cudaSurfaceObject_t to, int w)
{
    int x = threadIdx.x, y = blockIdx.x;
    surf2Dwrite(0.25f * (tex2D<float>(from, 2 * x + 0.5f, 2 * y + 0.5f) + tex2D<float>(from, 2 * x + 1.5f, 2 * y + 0.5f) +
                         tex2D<float>(from, 2 * x + 0.5f, 2 * y + 1.5f) + tex2D<float>(from, 2 * x + 1.5f, 2 * y + 1.5f)),
                to, x * 4, y);
}
static cudaTextureObject_t of_levels(cudaMipmappedArray_t m, cudaTextureFilterMode between)
{
    cudaResourceDesc r = {};
    cudaTextureDesc d = {};
    cudaTextureObject_t t;
    r.resType = cudaResourceTypeMipmappedArray;
    r.res.mipmap.mipmap = m;
    d.normalizedCoords = true;
    d.addressMode[0] = d.addressMode[1] = cudaAddressModeClamp;
    d.mipmapFilterMode = between;
    d.maxMipmapLevelClamp = 100;
    CHECK(cudaCreateTextureObject(&t, &r, &d, nullptr));
    return t;
}
static void mipmap()
{
    const int w = 64;
    std::vector<float> level = ramp(w * w, 11), want, got;
    cudaChannelFormatDesc format = cudaCreateChannelDesc<float>();
    cudaMipmappedArray_t m;
    cudaArray_t a, next, again;
    float *out = on_device<float>(w * w);
    CHECK(cudaMallocMipmappedArray(&m, &format, make_cudaExtent(w, w, 0), 7, cudaArraySurfaceLoadStore));
    CHECK(cudaGetMipmappedArrayLevel(&a, m, 0));
    CHECK(cudaGetMipmappedArrayLevel(&again, m, 0));
    is("a level is one array", a == again);
    CHECK(cudaMemcpy2DToArray(a, 0, 0, level.data(), w * 4, w * 4, w, cudaMemcpyHostToDevice));
    for (int size = w / 2, i = 1; size >= 1; size /= 2, i++, a = next) {
        CHECK(cudaGetMipmappedArrayLevel(&next, m, i));
        cudaTextureObject_t t = texture(a, cudaAddressModeClamp, cudaFilterModePoint, false);
        cudaSurfaceObject_t s = surface(next);
        halve<<<size, size>>>(t, s, size);
        CHECK(cudaDeviceSynchronize());
        CHECK(cudaDestroyTextureObject(t));
        CHECK(cudaDestroySurfaceObject(s));
    }
    cudaTextureObject_t t = of_levels(m, cudaFilterModePoint), blend = of_levels(m, cudaFilterModeLinear);
    for (int i = 0, size = w; size >= 16; i++, size /= 2) {
        from_levels<<<size, size>>>(out, t, (float)i, size);
        got = back(out, size * size);
        is("level", near(got, level, 0));
        want.assign(size * size / 4, 0);
        for (int p = 0; p < size * size; p++)
            want[p / size / 2 * (size / 2) + p % size / 2] += level[p] * 0.25f;
        level = want;
    }
    from_levels<<<w, w>>>(out, blend, 0.5f, w);
    got = back(out, w * w);
    from_levels<<<w, w>>>(out, t, 0, w);
    level = back(out, w * w);
    from_levels<<<w, w>>>(out, t, 1, w);
    want = back(out, w * w);
    for (int i = 0; i < w * w; i++)
        want[i] = (want[i] + level[i]) / 2;
    is("between levels", near(got, want, 4)); /* 8 bits of weight on values up to 1023 */
    gives("no such level", cudaGetMipmappedArrayLevel(&a, m, 7), cudaErrorInvalidValue);
    CHECK(cudaDestroyTextureObject(t));
    CHECK(cudaDestroyTextureObject(blend));
    CHECK(cudaFreeMipmappedArray(m));
    CHECK(cudaFree(out));
}

/* ---- element types ---- */
template <typename T> __global__ void plain(T *out, cudaTextureObject_t t, int w) { out[blockIdx.x * w + threadIdx.x] = tex2D<T>(t, threadIdx.x, blockIdx.x); }
__global__ void as_floats(float4 *out, cudaTextureObject_t t, int w) { out[blockIdx.x * w + threadIdx.x] = tex2D<float4>(t, threadIdx.x, blockIdx.x); }
template <typename T> static void type(const char *name, int wide)
{
    const int h = 9;
    std::vector<T> data(wide * h), got(wide * h);
    cudaChannelFormatDesc format = cudaCreateChannelDesc<T>();
    unsigned char *bytes = (unsigned char *)data.data();
    cudaArray_t a;
    for (size_t i = 0; i < data.size() * sizeof(T); i++)
        bytes[i] = (unsigned char)(i * 7 + i / 251);
    CHECK(cudaMallocArray(&a, &format, wide, h));
    CHECK(cudaMemcpy2DToArray(a, 0, 0, data.data(), wide * sizeof(T), wide * sizeof(T), h, cudaMemcpyDefault));
    cudaTextureObject_t t = texture(a, cudaAddressModeClamp, cudaFilterModePoint, false);
    T *out = on_device<T>(wide * h);
    plain<<<h, wide>>>(out, t, wide);
    got = back(out, wide * h);
    is(name, !memcmp(got.data(), data.data(), data.size() * sizeof(T)));
    CHECK(cudaDestroyTextureObject(t));
    CHECK(cudaFreeArray(a));
    CHECK(cudaFree(out));
}
static void formats()
{
    type<unsigned char>("unsigned char", 33);
    type<char2>("char2", 20);
    type<uchar4>("uchar4", 300);
    type<short>("short", 17);
    type<ushort4>("ushort4", 40);
    type<int>("int", 128);
    type<uint2>("uint2", 65);
    type<int4>("int4", 31);
    type<float2>("float2", 50);
    type<float4>("float4", 1000);
    const uchar4 pixels[2] = { make_uchar4(0, 255, 128, 51), make_uchar4(1, 2, 254, 85) };
    cudaChannelFormatDesc format = cudaCreateChannelDesc<uchar4>();
    float4 *out = on_device<float4>(2);
    cudaArray_t a;
    CHECK(cudaMallocArray(&a, &format, 2, 1));
    CHECK(cudaMemcpy2DToArray(a, 0, 0, pixels, 8, 8, 1, cudaMemcpyHostToDevice));
    cudaTextureObject_t t = texture(a, cudaAddressModeClamp, cudaFilterModePoint, false, cudaReadModeNormalizedFloat);
    as_floats<<<1, 2>>>(out, t, 2);
    std::vector<float4> got = back(out, 2);
    is("normalized", got[0].x == 0 && got[0].y == 1 && std::fabs(got[0].w - 0.2f) < 1e-6f && std::fabs(got[1].w - 1 / 3.0f) < 1e-6f);
    print_sum("normalized", got);
    CHECK(cudaDestroyTextureObject(t));
    CHECK(cudaFreeArray(a));
    CHECK(cudaFree(out));
}

/* ---- address modes, on both sides of the edges ---- */
__global__ void along(float *out, cudaTextureObject_t t, float from, float step) { out[threadIdx.x] = tex1D<float>(t, from + step * threadIdx.x); }
static void modes()
{
    const int n = 8, samples = 40;
    const cudaTextureAddressMode all[] = { cudaAddressModeWrap, cudaAddressModeClamp, cudaAddressModeMirror, cudaAddressModeBorder };
    std::vector<float> data = ramp(n, 17), want(samples);
    cudaChannelFormatDesc format = cudaCreateChannelDesc<float>();
    float *out = on_device<float>(samples);
    cudaArray_t a;
    CHECK(cudaMallocArray(&a, &format, n));
    CHECK(cudaMemcpy2DToArray(a, 0, 0, data.data(), n * 4, n * 4, 1, cudaMemcpyHostToDevice));
    for (int m = 0; m < 4; m++) {
        cudaTextureObject_t t = texture(a, all[m], cudaFilterModePoint, true);
        along<<<1, samples>>>(out, t, -2 + 0.5f / n, 1.0f / n);
        for (int i = 0; i < samples; i++) {
            int at = i - 2 * n, period = (at % (2 * n) + 2 * n) % (2 * n);
            int index = m == 0 ? (at % n + n) % n : m == 1 ? (at < 0 ? 0 : at >= n ? n - 1 : at) : period < n ? period : 2 * n - 1 - period;
            want[i] = m == 3 && (at < 0 || at >= n) ? 0 : data[m == 3 ? (at % n + n) % n : index];
        }
        is("address mode", near(back(out, samples), want, 0));
        CHECK(cudaDestroyTextureObject(t));
    }
    CHECK(cudaFreeArray(a));
    CHECK(cudaFree(out));
}

int main(int argc, char **argv)
{
    const body all[] = {
        { "simple", simple }, { "layered", layered }, { "cubemap", cubemap }, { "pitchlinear", pitchlinear },
        { "surfaces", surfaces }, { "mipmap", mipmap }, { "formats", formats }, { "modes", modes },
    };
    return run_named(all, argc, argv);
}
