# SPDX-License-Identifier: Apache-2.0
"""Bodies on PyTorch, `on_torch.py NAME [DEVICE]`: what they print must not depend on who executes them."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA starts: cuBLAS is deterministic with it
os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(prefix="inductor")  # each run compiles by itself

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

DEVICE = sys.argv[2] if len(sys.argv) > 2 else "cuda"


def settle() -> None:
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def digest(x: torch.Tensor) -> str:
    return hashlib.sha256(x.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()[:16]


class Cnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
            nn.Flatten(), nn.Linear(64 * 64, 128), nn.ReLU(), nn.Linear(128, 10),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class Transformer(nn.Module):
    """A small language model over 200 words."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(200, 128)
        layer = nn.TransformerEncoderLayer(128, 4, 256, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(128, 200)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device)
        return self.out(self.layers(self.words(x), mask=mask, is_causal=True)).flatten(0, 1)


def cnn_data() -> tuple[torch.Tensor, torch.Tensor]:
    """CIFAR-10's shape: each class has a colour and a place of its own."""
    y = torch.arange(64) % 10
    x = torch.randn(64, 3, 32, 32) * 0.5
    for i, c in enumerate(y.tolist()):
        x[i, c % 3, 3 * c : 3 * c + 4] += 2
    return x, y


def words_data() -> tuple[torch.Tensor, torch.Tensor]:
    x = (torch.arange(33).repeat(16, 1) * torch.arange(1, 17)[:, None] + 7) % 200
    return x[:, :-1].contiguous(), x[:, 1:].flatten()


KINDS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def train(model: nn.Module, data: tuple[torch.Tensor, torch.Tensor], kind: str, steps: int = 15) -> nn.Module:
    """Prints every loss with all its digits; fp16 with a GradScaler."""
    model, (x, y) = model.to(DEVICE), (part.to(DEVICE) for part in data)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    scaler = torch.amp.GradScaler(DEVICE, enabled=kind == "fp16" and DEVICE == "cuda")
    losses = []
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE, KINDS[kind], enabled=kind != "fp32"):
            loss = nn.functional.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    for loss in losses:
        print(f"{kind} {loss:.9f}")
    print("learns", losses[-1] < 0.7 * losses[0], "scale", scaler.get_scale())
    return model


def cnn(kind: str) -> None:
    settle()
    model = train(Cnn(), cnn_data(), kind)
    print("weights", digest(torch.cat([p.flatten() for p in model.parameters()])))


def transformer(kind: str) -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    settle()
    with sdpa_kernel(SDPBackend.MATH):
        model = train(Transformer(), words_data(), kind)
    print("weights", digest(torch.cat([p.flatten() for p in model.parameters()])))


def cnn_fp32() -> None:
    cnn("fp32")


def cnn_bf16() -> None:
    cnn("bf16")


def cnn_fp16() -> None:
    cnn("fp16")


def transformer_fp32() -> None:
    transformer("fp32")


def transformer_bf16() -> None:
    transformer("bf16")


def transformer_fp16() -> None:
    transformer("fp16")


def attention() -> None:
    """Each implementation that this card has, forwards."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    settle()
    q, k, v = (torch.randn(2, 4, 128, 64).to(DEVICE, torch.float16) for _ in range(3))
    for backend in (SDPBackend.MATH, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
        try:
            with sdpa_kernel(backend):
                print(backend.name, digest(nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)))
        except RuntimeError as error:
            print(backend.name, "not here:", str(error).split(".")[0])


def compiled() -> None:
    """torch.compile: Inductor writes Triton kernels, in processes of its own."""
    settle()
    model = Cnn().to(DEVICE).eval()
    x = cnn_data()[0].to(DEVICE)
    fused = torch.compile(lambda a, b: (torch.sin(a) * b + a.sum(-1, keepdim=True)).relu() * 2)
    a, b = torch.randn(512, 512).to(DEVICE), torch.randn(512, 512).to(DEVICE)
    plain = (torch.sin(a) * b + a.sum(-1, keepdim=True)).relu() * 2
    print("fused", digest(fused(a, b)), bool(torch.allclose(fused(a, b), plain, atol=1e-3)))
    with torch.no_grad():
        print("model", digest(torch.compile(model)(x)), bool(torch.allclose(torch.compile(model)(x), model(x), atol=1e-4)))
    trained = torch.compile(nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 1)).to(DEVICE))
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.05)
    data = torch.randn(256, 64).to(DEVICE)
    for _ in range(5):
        optimizer.zero_grad()
        loss = (trained(data).squeeze() - data.sum(-1)).pow(2).mean()
        loss.backward()
        optimizer.step()
        print(f"compiled {loss.item():.9f}")


def graphs() -> None:
    """A whole training step as a graph, callables as graphs, two graphs in one pool, on ever new input."""
    settle()
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 1)).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, y = torch.zeros(32, 64, device="cuda"), torch.zeros(32, 1, device="cuda")

    def step() -> torch.Tensor:
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            optimizer.zero_grad(set_to_none=True)
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        loss = step()
    for _ in range(5):
        x.copy_(torch.randn(32, 64))
        y.copy_(x.cpu().sum(-1, keepdim=True))
        graph.replay()
        print(f"graphed {loss.item():.9f}")
    part = nn.Sequential(nn.Linear(64, 64), nn.Tanh()).cuda()
    called = torch.cuda.make_graphed_callables(part, (torch.randn(8, 64, device="cuda", requires_grad=True),))
    given = torch.randn(8, 64).cuda().requires_grad_()
    called(given).sum().backward()
    print("callable", digest(given.grad), digest(part[0].weight.grad))
    pool, made = torch.cuda.graph_pool_handle(), []
    for i in range(2):
        made.append(torch.cuda.CUDAGraph())
        with torch.cuda.graph(made[i], pool=pool):
            x.mul_(1.5).add_(i)
    for g in (made[0], made[1], made[0]):
        g.replay()
    print("pool", digest(x))


class Squares(Dataset):
    def __len__(self) -> int:
        return 256

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return torch.full((64, 64), float(i)), i * i


def loader() -> None:
    """Workers, pinned memory, copies that do not wait."""
    total, squares, pinned = 0.0, 0, True
    for _ in range(2):
        for x, y in DataLoader(Squares(), batch_size=32, num_workers=2, pin_memory=DEVICE == "cuda", persistent_workers=False):
            pinned = pinned and (x.is_pinned() or DEVICE != "cuda")
            there = x.to(DEVICE, non_blocking=True)
            total += (there * 2).sum().item()
            squares += int(y.to(DEVICE, non_blocking=True).sum())
    print("loader", total, squares, pinned)


def linalg() -> None:
    """Factorizations: what they give back is multiplied out and compared, and their values are printed in four digits."""
    settle()
    m = torch.randn(96, 96, dtype=torch.float64).to(DEVICE)
    s = m @ m.T + 96 * torch.eye(96, dtype=torch.float64, device=DEVICE)
    u, values, v = torch.linalg.svd(m)
    print("svd", bool(torch.allclose(u * values @ v, m)), [f"{x:.4e}" for x in values[:4].tolist()])
    values, vectors = torch.linalg.eigh(s)
    print("eigh", bool(torch.allclose(vectors * values @ vectors.T, s)), [f"{x:.4e}" for x in values[:4].tolist()])
    print("solve", bool(torch.allclose(s @ torch.linalg.solve(s, m), m)), f"{torch.linalg.slogdet(s)[1].item():.6f}")
    q, r = torch.linalg.qr(m)
    print("qr", bool(torch.allclose(q @ r, m)), bool(torch.allclose(q.T @ q, torch.eye(96, dtype=torch.float64, device=DEVICE))))
    low = torch.linalg.cholesky(s)
    print("cholesky", bool(torch.allclose(low @ low.T, s)), f"{low.diagonal().sum().item():.6f}")
    print("inverse", bool(torch.allclose(torch.linalg.inv(s) @ s, torch.eye(96, dtype=torch.float64, device=DEVICE), atol=1e-9)))
    print("batched", bool(torch.allclose(torch.bmm(m.view(4, 24, 96), s.expand(4, 96, 96)), (m @ s).view(4, 24, 96))))


def fft_and_sparse() -> None:
    settle()
    x = torch.randn(8, 1000).to(DEVICE)
    print("fft", bool(torch.allclose(torch.fft.ifft(torch.fft.fft(x)).real, x, atol=1e-5)))
    print("rfft", bool(torch.allclose(torch.fft.irfft(torch.fft.rfft(x), 1000), x, atol=1e-5)))
    print("fft2", bool(torch.allclose(torch.fft.ifft2(torch.fft.fft2(x)).real, x, atol=1e-5)))
    tone = torch.sin(torch.arange(1024) * 2 * torch.pi * 37 / 1024).to(DEVICE)
    print("tone", torch.fft.rfft(tone).abs().argmax().item())
    torch.use_deterministic_algorithms(False)
    dense = (torch.rand(300, 200) < 0.05) * torch.randn(300, 200)
    right = torch.randn(200, 50).to(DEVICE)
    for name, matrix in {"coo": dense.to(DEVICE).to_sparse(), "csr": dense.to(DEVICE).to_sparse_csr()}.items():
        print(name, matrix._nnz(), bool(torch.allclose(matrix @ right, dense.to(DEVICE) @ right, atol=1e-4)))
    order, kept = torch.sort(torch.randint(0, 1000, (100000,)).to(DEVICE), stable=True)
    print("sort", digest(order), digest(kept), torch.unique(order).numel(), digest(torch.topk(right.flatten(), 10).values))


def checkpoint() -> None:
    """Goes on from a file as if nothing had been."""
    settle()
    x, y = (part.to(DEVICE) for part in cnn_data())

    def steps(model: nn.Module, optimizer: torch.optim.Optimizer, n: int) -> list[float]:
        losses = []
        for _ in range(n):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    model = Cnn().to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    steps(model, optimizer, 3)
    path = os.path.join(tempfile.mkdtemp(), "checkpoint.pt")
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
    wanted = steps(model, optimizer, 3)
    again = Cnn().to(DEVICE)
    other = torch.optim.AdamW(again.parameters(), lr=1e-3)
    held = torch.load(path, map_location=DEVICE)
    again.load_state_dict(held["model"])
    other.load_state_dict(held["optimizer"])
    print("checkpoint", steps(again, other, 3) == wanted, [f"{loss:.9f}" for loss in wanted])


def profiler() -> None:
    """With CUPTI or without it, what is watched goes on."""
    from torch.profiler import ProfilerActivity, profile

    x = torch.ones(256, 256, device=DEVICE)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as watched:
        total = (x @ x).sum().item()
    print("profiled", total, any("mm" in event.key for event in watched.key_averages()))


def memory() -> None:
    """The caching allocator's figures, an out-of-memory error and life after it, expandable segments elsewhere."""
    torch.cuda.empty_cache()
    held = [torch.empty(8 << 20, dtype=torch.uint8, device="cuda") for _ in range(8)]
    print("allocated", torch.cuda.memory_allocated() >> 20, torch.cuda.max_memory_allocated() >> 20)
    del held[::2]
    print("after", torch.cuda.memory_allocated() >> 20, torch.cuda.memory_stats()["num_ooms"])
    try:
        torch.empty(1 << 50, dtype=torch.uint8, device="cuda")
    except torch.OutOfMemoryError:
        print("too much", torch.cuda.memory_stats()["num_ooms"])
    torch.cuda.empty_cache()
    print("lives", torch.ones(10, device="cuda").sum().item())


if __name__ == "__main__":
    globals()[sys.argv[1]]()
