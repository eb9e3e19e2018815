# SPDX-License-Identifier: Apache-2.0
"""Bulk copies between global and shared memory, and barriers that count the bytes of them, interpreted and translated."""

from __future__ import annotations

import re

import numpy as np
import pytest
from conftest import LIBRARY, compile_ptx
from device import Device, DeviceError

SOURCE = r"""
typedef unsigned long long u64; typedef unsigned u32;
#define ASM(...) asm volatile(__VA_ARGS__ : "memory")
__device__ u32 at(const void *p) { return (u32)__cvta_generic_to_shared(p); }
__device__ bool done(u32 barrier, u32 parity)
{
    u32 yes;
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                 : "=r"(yes) : "r"(barrier), "r"(parity) : "memory");
    return yes;
}
// Tiles of `in` pass through two buffers: thread 0 copies and the others wait; the sums go back in bulk.
extern "C" __global__ void pipeline(const int *in, int *out, u64 tiles)
{
    __shared__ __align__(16) int tile[2][256], sum[256];
    __shared__ u64 full[2];
    const u32 bytes = sizeof(tile[0]);
    if (threadIdx.x == 0) {
        for (int k = 0; k < 2; k++) ASM("mbarrier.init.shared::cta.b64 [%0], 1;" :: "r"(at(&full[k])));
        ASM("fence.mbarrier_init.release.cluster;" ::);
    }
    __syncthreads();
    int mine = 0;
    for (u32 t = 0; t < tiles + 1; t++) {
        if (threadIdx.x == 0 && t < tiles) {
            u32 b = at(&full[t & 1]);
            u64 state;
            if (t % 3) { // the bytes may come before they are expected
                ASM("mbarrier.arrive.expect_tx.shared::cta.b64 %0, [%1], %2;" : "=l"(state) : "r"(b), "r"(bytes));
                ASM("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                    :: "r"(at(tile[t & 1])), "l"(in + t * 256), "r"(bytes), "r"(b));
            } else {
                ASM("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                    :: "r"(at(tile[t & 1])), "l"(in + t * 256), "r"(bytes), "r"(b));
                ASM("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" :: "r"(b), "r"(bytes));
                ASM("mbarrier.arrive.shared::cta.b64 %0, [%1];" : "=l"(state) : "r"(b));
            }
        }
        if (t) {
            while (!done(at(&full[(t - 1) & 1]), (t - 1) >> 1 & 1)) { }
            mine += tile[(t - 1) & 1][threadIdx.x] * (int)t;
        }
        __syncthreads();
    }
    sum[threadIdx.x] = mine;
    ASM("fence.proxy.async.shared::cta;" ::);
    __syncthreads();
    if (threadIdx.x == 0) {
        ASM("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" :: "l"(out), "r"(at(sum)), "r"(bytes));
        ASM("cp.async.bulk.commit_group;" ::);
        ASM("cp.async.bulk.wait_group.read 0;" ::);
    }
}
// What each phase of a barrier with two arrivals says: bit 0 done, above it the arrivals that the token says are missing.
extern "C" __global__ void phases(int *out)
{
    __shared__ u64 b;
    u64 state;
    u32 a = at(&b), n, at_ = 0, count;
    ASM("mbarrier.init.shared.b64 [%0], 2;" :: "r"(a));
#define SAY(parity) out[at_++] = done(a, parity);
    for (u32 phase = 0; phase < 20; phase++) { // more than are told apart
        ASM("mbarrier.arrive.expect_tx.shared.b64 %0, [%1], 48;" : "=l"(state) : "r"(a));
        ASM("mbarrier.pending_count.b64 %0, %1;" : "=r"(count) : "l"(state));
        out[at_++] = count;
        SAY(phase & 1)
        ASM("mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%0], 32;" :: "r"(a));
        ASM("mbarrier.arrive.shared.b64 %0, [%1];" : "=l"(state) : "r"(a));
        SAY(phase & 1)
        asm volatile("{ .reg .pred p; mbarrier.test_wait.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }" : "=r"(n) : "r"(a), "l"(state) : "memory");
        out[at_++] = n;
        ASM("mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%0], 16;" :: "r"(a));
        SAY(phase & 1)
        asm volatile("{ .reg .pred p; mbarrier.test_wait.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }" : "=r"(n) : "r"(a), "l"(state) : "memory");
        out[at_++] = n;
    }
}
extern "C" __global__ void odd(int *in, u64 bytes, u64 shift)
{
    __shared__ __align__(16) int tile[256];
    __shared__ u64 b;
    ASM("mbarrier.init.shared.b64 [%0], 1;" :: "r"(at(&b)));
    if (shift < 16) ASM("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" :: "r"(at(&b)), "r"((u32)bytes));
    ASM("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
        :: "r"(at(tile)), "l"((char *)in + shift), "r"((u32)bytes), "r"(at(&b)));
}
"""


@pytest.fixture(scope="module")
def ptx():
    return compile_ptx(SOURCE, "90").rstrip(b"\0 ")


def test_tiles_pass_through_two_buffers(device, ptx):
    tiles = np.random.default_rng(7).integers(-1000, 1000, (9, 256)).astype(np.int32)
    out = device.put(np.zeros(256, np.int32))
    device.launch(device.function(device.load(ptx), "pipeline"), 1, 256, device.put(tiles), out, len(tiles))
    want = (tiles * np.arange(1, 10, dtype=np.int32)[:, None]).sum(axis=0)
    assert (device.get(out, np.zeros(256, np.int32)) == want).all()


def test_a_phase_ends_with_its_last_arrival_and_byte(device, ptx):
    out = device.put(np.zeros(120, np.int32))
    device.launch(device.function(device.load(ptx), "phases"), 1, 1, out)
    assert device.get(out, np.zeros((20, 6), np.int32)).tolist() == [[2, 0, 0, 0, 1, 1]] * 20


@pytest.mark.parametrize("bytes_,shift,code,report", [
    (1024, 8, 716, r"access of 16 bytes at address 0x[0-9a-f]+, which is not a multiple of 16"),
    (24, 0, 715, "cp.async.bulk of 24 bytes, which is not a multiple of 16"),
    (1040, 16, 700, r"invalid access of 16 bytes at address 0x[0-9a-f]+, which is not device memory: 0 bytes behind the end"),
    (1 << 20, 0, 715, "a phase of an mbarrier that expects 1048576 bytes, of 1048575 at most")],
    ids=["misaligned", "no multiple", "outside", "too many bytes"])
def test_a_bad_copy_is_reported(device, ptx, capfd, bytes_, shift, code, report):
    with pytest.raises(DeviceError) as e:
        device.launch(device.function(device.load(ptx), "odd"), 1, 1, device.put(np.zeros(256, np.int32)), bytes_, shift)
    said = capfd.readouterr().err
    assert e.value.code == code and re.search(rf"kernel odd, .*, PTX line \d+: {report}", said), said


@pytest.mark.parametrize("text", [
    "cp.async.bulk.tensor.1d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r0], [%rd0, {%r1}], [%r2];",
    "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%r0], [%rd0], %r1, [%r2];",
    "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes.multicast::cluster [%r0], [%r1], %r1, [%r2], %rs0;",
    "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.u32 [%r0], %r1;",
    "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.u32 [%rd0], [%r0], %r1;",
    "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r0], [%rd0], %r1;",
    "wgmma.commit_group.sync.aligned;", "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%r0];"])
def test_a_form_that_is_none_is_refused_by_name_and_line(text):
    body = f".version 8.4\n.target sm_90\n.address_size 64\n.visible .entry k() {{\n.reg .b16 %rs<2>; .reg .b32 %r<4>; .reg .b64 %rd<2>;\n{text}\nret; }}"
    with pytest.raises(DeviceError) as e:
        Device(str(LIBRARY)).load(body)
    name = text.split()[0].rstrip(";")
    assert e.value.code == 218 and f"PTX line 6, kernel k: instruction '{name}' is not supported" in str(e.value), e.value
