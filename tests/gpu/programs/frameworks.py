# SPDX-License-Identifier: Apache-2.0
"""Bodies on PyTorch, CuPy and JAX: `frameworks.py NAME` prints results that must not depend on who executes them."""

from __future__ import annotations

import hashlib
import sys


def torch_matmul() -> None:
    """One matrix product, deterministic input."""
    import torch

    torch.manual_seed(0)
    a = torch.randn(512, 512, device="cuda")
    print("matmul", hashlib.sha256((a @ a).cpu().numpy().tobytes()).hexdigest()[:16], torch.cuda.device_count())


def torch_cnn() -> None:
    """Ten steps of the small CNN with deterministic algorithms: the losses."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic = True
    model = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1),
                          nn.ReLU(), nn.Flatten(), nn.Linear(64 * 32 * 32, 10)).cuda()
    x, y = torch.randn(64, 3, 32, 32).cuda(), torch.randint(0, 10, (64,)).cuda()
    opt = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for _ in range(10):
        opt.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        print(f"loss {loss.item():.9f}")


def torch_graph() -> None:
    """A captured graph replayed on new input."""
    import torch

    torch.manual_seed(0)
    x = torch.randn(64, 64, device="cuda")
    s = torch.cuda.Stream()
    with torch.cuda.stream(s):
        for _ in range(3):
            y = x @ x
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = x
        for _ in range(5):
            y = (y @ x).tanh()
    x.copy_(torch.randn(64, 64))
    graph.replay()
    print("graph", hashlib.sha256(y.cpu().numpy().tobytes()).hexdigest()[:16])


def torch_misc() -> None:
    """Pinned memory, streams, events, SVD, FFT."""
    import torch

    torch.manual_seed(0)
    h = torch.randn(1 << 20).pin_memory()
    d = h.to("cuda", non_blocking=True)
    torch.cuda.synchronize()
    print("pinned", h.is_pinned(), bool((d.cpu() == h).all()))
    m = torch.randn(64, 64, device="cuda")
    u, s, v = torch.linalg.svd(m)
    print("svd", bool(torch.allclose(u @ torch.diag(s) @ v, m, atol=1e-4)))
    print("fft", bool(torch.allclose(torch.fft.ifft(torch.fft.fft(m)).real, m, atol=1e-5)))
    free, total = torch.cuda.mem_get_info()
    print("memory", free <= total)


def cupy_basic() -> None:
    """Elementwise, reduction and a RawKernel."""
    import cupy as cp

    a = cp.arange(100000, dtype=cp.float32)
    print("cupy", float((a * 2 + 1).sum()), float(cp.sqrt(a).max()))
    k = cp.RawKernel('extern "C" __global__ void k(float *x) { x[threadIdx.x] += 1; }', "k")
    k((1,), (256,), (a,))
    print("raw", float(a[:256].sum()))


def jax_basic() -> None:
    """A jitted function and its gradient."""
    import jax
    import jax.numpy as jnp

    f = jax.jit(lambda x: jnp.sum(jnp.tanh(x @ x)))
    x = jnp.arange(64.0).reshape(8, 8) / 64
    print("jax", float(f(x)), float(jax.grad(lambda x: f(x))(x).sum()), jax.devices()[0].platform)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
