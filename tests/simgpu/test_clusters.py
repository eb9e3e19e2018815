# SPDX-License-Identifier: Apache-2.0
"""Clusters of thread blocks: their numbers, barrier, shared memory of the others, launches and limits, interpreted and translated."""

from __future__ import annotations

import ctypes
import re

import numpy as np
import pytest
from conftest import LIBRARY, compile_ptx
from device import Device, DeviceError, parameters

SOURCE = r"""
typedef unsigned long long u64; typedef unsigned u32;
#define ASM(...) asm volatile(__VA_ARGS__ : "memory")
#define REGISTER(name) [] { u32 v; asm volatile("mov.u32 %0, %%" name ";" : "=r"(v)); return v; }()
__device__ u32 at(const void *p) { return (u32)__cvta_generic_to_shared(p); }
__device__ u32 there(const void *p, u32 rank)
{
    u32 a;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(a) : "r"(at(p)), "r"(rank));
    return a;
}
template <class T> __device__ T *generic(T *p, u32 rank)
{
    u64 a;
    asm volatile("mapa.u64 %0, %1, %2;" : "=l"(a) : "l"(p), "r"(rank));
    return (T *)a;
}
__device__ void meet() { ASM("barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;" ::); }
__device__ void wait_for(u64 *barrier, u32 parity)
{
    u32 yes = 0;
    while (!yes)
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                     : "=r"(yes) : "r"(at(barrier)), "r"(parity) : "memory");
}
__device__ u32 block() { return blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z); }

extern "C" __global__ void numbers(u32 *out)
{
    const u32 v[16] = { REGISTER("cluster_ctarank"), REGISTER("cluster_nctarank"), REGISTER("cluster_ctaid.x"), REGISTER("cluster_ctaid.y"),
        REGISTER("cluster_ctaid.z"), REGISTER("cluster_nctaid.x"), REGISTER("cluster_nctaid.y"), REGISTER("cluster_nctaid.z"),
        REGISTER("clusterid.x"), REGISTER("clusterid.y"), REGISTER("clusterid.z"), REGISTER("nclusterid.x"), REGISTER("nclusterid.y"),
        REGISTER("nclusterid.z"), blockIdx.x | blockIdx.y << 8 | blockIdx.z << 16, 7 };
    for (int k = threadIdx.x; k < 16; k += blockDim.x) out[block() * 16 + k] = v[k];
}
// Bins of a histogram lie in the shared memory of two blocks.
extern "C" __global__ void __cluster_dims__(2) histogram(u32 *out, const u32 *in, u64 n)
{
    __shared__ u32 bins[64];
    for (int k = threadIdx.x; k < 64; k += blockDim.x) bins[k] = 0;
    meet();
    for (u64 k = threadIdx.x + blockIdx.x * blockDim.x; k < n; k += blockDim.x * gridDim.x)
        if (k & 1) atomicAdd(generic(bins, in[k] >> 6) + (in[k] & 63), 1);
        else ASM("red.relaxed.cluster.shared::cluster.add.u32 [%0], 1;" :: "r"(there(&bins[in[k] & 63], in[k] >> 6)));
    meet();
    for (int k = threadIdx.x; k < 64; k += blockDim.x) atomicAdd(out + 64 * REGISTER("cluster_ctarank") + k, bins[k]);
}
// Values travel round the cluster `turns` times; some threads end before, and barriers are also arrived at long before the wait.
extern "C" __global__ void ring(u32 *out, u64 turns)
{
    extern __shared__ u32 value[];
    const u32 rank = REGISTER("cluster_ctarank"), nr = REGISTER("cluster_nctarank");
    if (threadIdx.x % 5 == 4) return;
    value[threadIdx.x] = block() * 1000 + threadIdx.x;
    for (u32 t = 0; t < turns; t++) {
        u32 got;
        ASM("barrier.cluster.arrive;" ::);
        for (u32 k = 0; k < 50 * rank; k++) asm volatile("nanosleep.u32 10;");
        ASM("barrier.cluster.wait;" ::);
        asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(got) : "r"(there(&value[threadIdx.x], (rank + 1) % nr)) : "memory");
        ASM("barrier.cluster.arrive.relaxed;" ::);
        ASM("barrier.cluster.wait;" ::);
        value[threadIdx.x] = got + 1;
    }
    meet();
    out[block() * blockDim.x + threadIdx.x] = value[threadIdx.x];
}
// Each block gets of every block 8 words by st.async, a sum by red.async, an arrival, and rank 0's `in` by multicast.
extern "C" __global__ void __cluster_dims__(4, 1, 1) exchange(u32 *out, const u32 *in)
{
    __shared__ __align__(16) u32 words[4][8], tile[64];
    __shared__ u32 sum;
    __shared__ u64 full, told;
    const u32 rank = REGISTER("cluster_ctarank");
    if (threadIdx.x == 0) {
        sum = 100;
        ASM("mbarrier.init.shared::cta.b64 [%0], 1;" :: "r"(at(&full)));
        ASM("mbarrier.init.shared::cta.b64 [%0], 4;" :: "r"(at(&told)));
        ASM("mbarrier.arrive.expect_tx.release.cluster.shared::cta.b64 _, [%0], %1;" :: "r"(at(&full)), "r"(4 * 36 + 256));
    }
    meet();
    if (threadIdx.x < 4) {
        const u32 to = threadIdx.x, b = there(&full, to);
        for (u32 k = 0; k < 4; k += 4)
            ASM("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.u32 [%0 + 0], {%1, %2, %3, %4}, [%5];"
                :: "r"(there(&words[rank][k], to)), "r"(rank * 8 + k), "r"(rank * 8 + k + 1), "r"(rank * 8 + k + 2), "r"(rank * 8 + k + 3), "r"(b));
        for (u32 k = 4; k < 8; k += 2)
            ASM("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.u64 [%0], %1, [%2];"
                :: "r"(there(&words[rank][k], to)), "l"((u64)(rank * 8 + k + 1) << 32 | (rank * 8 + k)), "r"(b));
        ASM("red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.add.u32 [%0], %1, [%2];"
            :: "r"(there(&sum, to)), "r"(rank * 10 + to), "r"(b));
        ASM("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" :: "r"(there(&told, to)));
        if (rank == 0 && threadIdx.x == 0)
            ASM("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, [%3], %4;"
                :: "r"(at(tile)), "l"(in), "r"(256), "r"(at(&full)), "h"((unsigned short)15));
    }
    wait_for(&full, 0);
    wait_for(&told, 0);
    u32 *mine = out + block() * 128;
    for (u32 k = threadIdx.x; k < 32; k += blockDim.x) mine[k] = words[k / 8][k % 8];
    for (u32 k = threadIdx.x; k < 64; k += blockDim.x) mine[32 + k] = tile[k];
    if (threadIdx.x == 0) mine[96] = sum;
    meet();
}
// Which addresses are shared memory of the own block, and of the cluster; whose they are.
extern "C" __global__ void __cluster_dims__(2) whose(u32 *out)
{
    __shared__ u32 here;
    const u32 rank = REGISTER("cluster_ctarank");
    u32 *p[3] = { &here, generic(&here, rank), generic(&here, rank ^ 1) }, cta, cluster, owner;
    for (int k = 0; k < 3; k++) {
        asm("{ .reg .pred p; isspacep.shared::cta p, %1; selp.u32 %0, 1, 0, p; }" : "=r"(cta) : "l"(p[k]));
        asm("{ .reg .pred p; isspacep.shared::cluster p, %1; selp.u32 %0, 1, 0, p; }" : "=r"(cluster) : "l"(p[k]));
        asm("getctarank.u64 %0, %1;" : "=r"(owner) : "l"(p[k]));
        if (threadIdx.x == 0) out[rank * 4 + k] = cta | cluster << 1 | owner << 2;
    }
    asm("getctarank.shared::cluster.u32 %0, %1;" : "=r"(owner) : "r"(there(&here, 1)));
    if (threadIdx.x == 0) out[rank * 4 + 3] = owner;
    meet();
}
extern "C" __global__ void __cluster_dims__(2) bad(u64 how)
{
    __shared__ u32 word[4];
    const u32 rank = REGISTER("cluster_ctarank");
    word[threadIdx.x & 3] = 1;
    meet();
    if (how == 0 && rank == 0) *generic(word + 1, 2) = 5;                       // there is no third block
    if (how == 1 && rank == 1) *(volatile u32 *)generic(word + 4, 0) = 5;       // behind its end
    if (how == 1) meet();
    if (how == 2 && rank == 1) for (int k = 0; k < 100000; k++) *(volatile u32 *)generic(word, 0) = k; // the other ends meanwhile
    if (how == 3 && rank == 1) meet();                                          // the other never comes: it goes round and waits for itself
    if (how == 3 && rank == 0) asm volatile("bar.sync 1, 64;");
}
extern "C" __global__ void __cluster_dims__() told_at_launch(u32 *out) { if (threadIdx.x == 0) out[block()] = REGISTER("cluster_nctarank"); }
// All blocks of the grid wait for each other, though clusters are run one behind the other where they need not.
extern "C" __global__ void grid_of_clusters(u32 *out, u32 *arrived)
{
    extern __shared__ u32 value[];
    value[0] = block();
    meet();
    if (threadIdx.x == 0) {
        atomicAdd(arrived, 1);
        while (*(volatile u32 *)arrived < gridDim.x) { }
        out[block()] = *generic(value, REGISTER("cluster_ctarank") ^ 1);
    }
    meet();
}
"""
CLUSTER, COOPERATIVE = 4, 2  # CUlaunchAttributeID
INVALID_CLUSTER_SIZE = 912


class Attribute(ctypes.Structure):
    _fields_ = [("id", ctypes.c_int), ("pad", ctypes.c_char * 4), ("value", ctypes.c_uint * 16)]


class Config(ctypes.Structure):
    _fields_ = [("shape", ctypes.c_uint * 7), ("stream", ctypes.c_void_p), ("attributes", ctypes.POINTER(Attribute)), ("nr", ctypes.c_uint)]


def config(grid, block, cluster=None, cooperative=False, shared=0) -> Config:
    given = [Attribute(CLUSTER, b"", (ctypes.c_uint * 16)(*cluster))] if cluster else []
    given += [Attribute(COOPERATIVE, b"", (ctypes.c_uint * 16)(1))] if cooperative else []
    return Config((ctypes.c_uint * 7)(*grid, block, 1, 1, shared), None, (Attribute * max(len(given), 1))(*given), len(given))


def launch(device: Device, f, how: Config, *args: int) -> None:
    values, pointers = parameters(*args)
    device.call("cuLaunchKernelEx", ctypes.byref(how), f, pointers, None)
    device.call("cuCtxSynchronize")


@pytest.fixture(scope="module")
def ptx():
    return compile_ptx(SOURCE, "90").rstrip(b"\0 ")


@pytest.fixture
def kernel(device, ptx):
    module = device.load(ptx)
    return lambda name: device.function(module, name)


def attribute(device, f, number: int) -> int:
    value = ctypes.c_int()
    device.call("cuFuncGetAttribute", ctypes.byref(value), number, f)
    return value.value


@pytest.mark.parametrize("grid,cluster", [((4, 1, 1), None), ((8, 1, 1), (4, 1, 1)), ((4, 6, 4), (2, 3, 1)), ((4, 2, 6), (2, 2, 2)), ((2, 8, 3), (1, 8, 1))])
def test_every_block_knows_its_place(device, kernel, grid, cluster):
    blocks = grid[0] * grid[1] * grid[2]
    out = device.put(np.zeros((blocks, 16), np.uint32))
    launch(device, kernel("numbers"), config(grid, 32, cluster), out)
    want, (cx, cy, cz) = [], cluster or (1, 1, 1)
    for z in range(grid[2]):
        for y in range(grid[1]):
            for x in range(grid[0]):
                rank = x % cx + cx * (y % cy + cy * (z % cz))
                want.append([rank, cx * cy * cz, x % cx, y % cy, z % cz, cx, cy, cz, x // cx, y // cy, z // cz,
                             grid[0] // cx, grid[1] // cy, grid[2] // cz, x | y << 8 | z << 16, 7])
    assert device.get(out, np.zeros((blocks, 16), np.uint32)).tolist() == want


def test_bins_in_the_shared_memory_of_two_blocks(device, kernel):
    values = np.random.default_rng(3).integers(0, 128, 20000).astype(np.uint32)
    out = device.put(np.zeros(128, np.uint32))
    device.launch(kernel("histogram"), 6, 96, out, device.put(values), len(values))
    assert (device.get(out, np.zeros(128, np.uint32)) == np.bincount(values, minlength=128)).all()


@pytest.mark.parametrize("grid,cluster,turns", [((6, 1, 1), (2, 1, 1), 5), ((8, 1, 1), (8, 1, 1), 9), ((2, 4, 2), (2, 2, 2), 3), ((3, 1, 1), (1, 1, 1), 2)])
def test_values_travel_round_the_cluster(device, kernel, grid, cluster, turns):
    threads, blocks = 70, grid[0] * grid[1] * grid[2]
    out = device.put(np.zeros((blocks, threads), np.uint32))
    launch(device, kernel("ring"), config(grid, threads, cluster, shared=4 * threads), out, turns)
    want, (cx, cy, cz) = np.zeros((blocks, threads), np.uint32), cluster
    for b in range(blocks):
        x, y, z = b % grid[0], b // grid[0] % grid[1], b // grid[0] // grid[1]
        rank = x % cx + cx * (y % cy + cy * (z % cz))
        r = (rank + turns) % (cx * cy * cz)
        sx, sy, sz = x // cx * cx + r % cx, y // cy * cy + r // cx % cy, z // cz * cz + r // cx // cy
        source = sx + grid[0] * (sy + grid[1] * sz)
        want[b] = [source * 1000 + t + turns if t % 5 != 4 else 0 for t in range(threads)]
    assert (device.get(out, want) == want).all()


def test_asynchronous_stores_and_arrivals_reach_the_other_blocks(device, kernel):
    tile = np.random.default_rng(5).integers(0, 1 << 31, 64).astype(np.uint32)
    out = device.put(np.zeros((8, 128), np.uint32))
    device.launch(kernel("exchange"), 8, 32, out, device.put(tile))
    got = device.get(out, np.zeros((8, 128), np.uint32))
    for b in range(8):
        assert got[b, :32].tolist() == list(range(32)) and (got[b, 32:96] == tile).all()
        assert got[b, 96] == 100 + sum(rank * 10 + b % 4 for rank in range(4))


def test_whose_an_address_is(device, kernel):
    out = device.put(np.zeros(8, np.uint32))
    device.launch(kernel("whose"), 2, 32, out)
    assert device.get(out, np.zeros((2, 4), np.uint32)).tolist() == [[3 | 0 << 2, 3 | 0 << 2, 2 | 1 << 2, 1], [3 | 1 << 2, 3 | 1 << 2, 2 | 0 << 2, 1]]


@pytest.mark.parametrize("how,code,report", [
    (0, 700, r"block \(0,0,0\), .*: write of 4 bytes in the shared memory of a block beyond the 2 of the cluster"),
    (1, 700, r"block \(1,0,0\), .*: invalid write of 4 bytes at shared memory address 0x10: outside its 16 bytes"),
    (2, 700, r"block \(1,0,0\), .*: write of 4 bytes in the shared memory of block 0 of the cluster, which has ended"),
    (3, 719, "threads wait at a barrier that the others never reach")],
    ids=["no such block", "behind the end", "ended", "nobody comes"])
def test_a_bad_access_is_reported(device, kernel, capfd, how, code, report):
    with pytest.raises(DeviceError) as e:
        device.launch(kernel("bad"), 2, 32, how)
    said = capfd.readouterr().err
    assert e.value.code == code and re.search(f"kernel bad, .*{report}", said), said


def test_a_launch_that_no_cluster_fits_is_refused_with_the_reason(device, kernel, capfd):
    out = device.put(np.zeros(64, np.uint32))
    for name, how, why in [
        ("numbers", config((9, 1, 1), 32, (2, 1, 1)), "the grid is no multiple of the cluster"),
        ("numbers", config((9, 1, 1), 32, (3, 1, 0)), "the grid is no multiple of the cluster"),
        ("numbers", config((16, 1, 1), 32, (16, 1, 1)), "at most 8 blocks unless CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED is set"),
        ("histogram", config((3, 1, 1), 32), "the grid is no multiple of the cluster"),
        ("histogram", config((4, 1, 1), 32, (4, 1, 1)), "the kernel was compiled for clusters of another size"),
        ("told_at_launch", config((4, 1, 1), 32), "the launch names no size")]:
        with pytest.raises(DeviceError) as e:
            launch(device, kernel(name), how, out, out, 0)
        said = capfd.readouterr().err
        assert e.value.code == INVALID_CLUSTER_SIZE and f"launch of kernel {name} with a grid of" in said and why in said, (name, said)
    launch(device, kernel("told_at_launch"), config((4, 1, 1), 32, (2, 1, 1)), out)
    assert device.get(out, np.zeros(4, np.uint32)).tolist() == [2] * 4


def test_what_a_function_says_and_is_told(device, kernel):
    fixed, told, free = kernel("exchange"), kernel("told_at_launch"), kernel("numbers")
    assert [[attribute(device, f, n) for n in range(10, 16)] for f in (fixed, told, free)] == [[1, 4, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0], [0] * 6]
    with pytest.raises(DeviceError, match="error 800"):
        device.call("cuFuncSetAttribute", fixed, 11, 2)
    for number, value in ((11, 1), (12, 16), (13, 1), (14, 1)):
        device.call("cuFuncSetAttribute", free, number, value)
    out = device.put(np.zeros((16, 16), np.uint32))
    launch(device, free, config((1, 16, 1), 32), out)
    got = device.get(out, np.zeros((16, 16), np.uint32))
    assert got[:, 0].tolist() == list(range(16)) and set(got[:, 1].tolist()) == {16}
    number = ctypes.c_int()
    device.call("cuOccupancyMaxPotentialClusterSize", ctypes.byref(number), free, ctypes.byref(config((1, 16, 1), 32)))
    assert number.value == 16
    device.call("cuOccupancyMaxActiveClusters", ctypes.byref(number), fixed, ctypes.byref(config((4, 1, 1), 1024, (4, 1, 1))))
    assert number.value == device.attribute(16) * 2 // 4
    assert device.attribute(120) == 1


def test_a_graph_keeps_the_size(device, kernel):
    """Of a captured launch, and of a node whose attribute was set; new parameters leave it."""
    out = device.put(np.zeros((8, 16), np.uint32))
    graph, node, run = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
    device.call("cuGraphCreate", ctypes.byref(graph), 0)
    value = (ctypes.c_uint64 * 1)(out)
    pointer = (ctypes.c_void_p * 1)(ctypes.addressof(value))

    class Node(ctypes.Structure):
        _fields_ = [("f", ctypes.c_void_p), ("shape", ctypes.c_uint * 7), ("params", ctypes.c_void_p), ("extra", ctypes.c_void_p),
                    ("kernel", ctypes.c_void_p), ("context", ctypes.c_void_p)]

    given = Node(kernel("numbers"), (ctypes.c_uint * 7)(8, 1, 1, 32, 1, 1, 0), ctypes.addressof(pointer), None, None, None)
    device.call("cuGraphAddKernelNode_v2", ctypes.byref(node), graph, None, ctypes.c_size_t(0), ctypes.byref(given))
    device.call("cuGraphKernelNodeSetAttribute", node, CLUSTER, (ctypes.c_uint * 16)(4, 1, 1))
    device.call("cuGraphKernelNodeSetParams_v2", node, ctypes.byref(given))
    back = (ctypes.c_uint * 16)()
    device.call("cuGraphKernelNodeGetAttribute", node, CLUSTER, back)
    assert list(back)[:3] == [4, 1, 1]
    device.call("cuGraphInstantiateWithFlags", ctypes.byref(run), graph, ctypes.c_ulonglong(0))
    device.call("cuGraphLaunch", run, None)
    device.call("cuCtxSynchronize")
    assert device.get(out, np.zeros((8, 16), np.uint32))[:, 0].tolist() == [0, 1, 2, 3] * 2


def test_clusters_of_a_cooperative_grid(device, kernel):
    out, arrived = device.put(np.zeros(8, np.uint32)), device.put(np.zeros(1, np.uint32))
    launch(device, kernel("grid_of_clusters"), config((8, 1, 1), 64, (2, 1, 1), cooperative=True, shared=16), out, arrived)
    assert device.get(out, np.zeros(8, np.uint32)).tolist() == [k ^ 1 for k in range(8)]


def test_a_directive_that_would_change_the_grid_is_refused():
    body = ".version 8.7\n.target sm_90\n.address_size 64\n.visible .entry k() .blocksareclusters {\nret; }"
    with pytest.raises(DeviceError) as e:
        Device(str(LIBRARY)).load(body)
    assert e.value.code == 218 and "'.blocksareclusters' is not supported" in str(e.value), e.value
