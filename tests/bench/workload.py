# SPDX-License-Identifier: Apache-2.0
"""Figures of whole PyTorch workloads through whatever libcuda.so.1 the loader finds: one JSON line a figure.

workload.py LABEL [launch,copy,cnn,resnet,transformer,graph,loader,alloc]; compare.py runs it natively and through a vGPU in turn:
python3 tests/bench/compare.py --driver nvidia -- python3 tests/bench/workload.py launch,copy,...
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

START = time.perf_counter()
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

IMPORT_SECONDS = time.perf_counter() - START
CARD = "cuda"


def say(name: str, value: float, unit: str) -> None:
    """One figure."""
    print(json.dumps({"label": sys.argv[1], "name": name, "value": round(value, 4), "unit": unit}), flush=True)


def seconds(work: Callable[[], object], runs: int = 5, warm: bool = True) -> float:
    """Median time of `work` to the end of what it started on the card."""
    if warm:
        work()
    times = []
    for _ in range(runs):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return sorted(times)[runs // 2]


def repeated(work: Callable[[], object], times: int) -> Callable[[], None]:
    def all_of_them() -> None:
        for _ in range(times):
            work()

    return all_of_them


def first() -> None:
    """What a process pays before its first result."""
    begin = time.perf_counter()
    x = torch.randn(256, 256, device=CARD)
    (x @ x).sum().item()
    say("first_matmul", time.perf_counter() - begin, "s")
    say("import", IMPORT_SECONDS, "s")


def launch() -> None:
    a = torch.zeros(32, device=CARD)
    say("eager_add_5000", seconds(repeated(lambda: a.add_(1), 5000)) / 5000 * 1e6, "us/op")
    say("item_round_trip", seconds(repeated(lambda: a[0].item(), 500)) / 500 * 1e6, "us")
    events = [torch.cuda.Event() for _ in range(100)]

    def record_and_query() -> None:
        for event in events:
            event.record()
        for event in events:
            event.query()

    say("event_record_query", seconds(repeated(record_and_query, 20), warm=False) / 2000 * 1e6, "us")


def copy() -> None:
    for kind in ("pinned", "pageable"):
        pinned = kind == "pinned"
        for kib in (4, 64, 1024, 16384, 262144):
            n_bytes, times = kib * 1024, max(2, min(200, 262144 // kib))
            host = torch.ones(n_bytes, dtype=torch.uint8, pin_memory=pinned)
            card = torch.empty(n_bytes, dtype=torch.uint8, device=CARD)
            for name, to, source in (("h2d", card, host), ("d2h", host, card)):
                work = repeated(lambda to=to, source=source, pinned=pinned: to.copy_(source, non_blocking=pinned), times)
                say(f"{name}_{kind}_{kib}k", n_bytes * times / seconds(work, 3) / 1e9, "GB/s")


def training(model: nn.Module, shape: tuple[int, ...], classes: int, steps: int) -> float:
    """Seconds of one step of SGD."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    x, y = torch.randn(*shape, device=CARD), torch.randint(0, classes, shape[:1], device=CARD)

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    repeated(step, 5)()
    step().item()
    return seconds(repeated(step, steps), 3, warm=False) / steps


def cnn() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1),
                          nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)).to(CARD)
    say("cnn_small_train_step", training(model, (128, 3, 32, 32), 10, 100) * 1e3, "ms")


def resnet() -> None:
    import torchvision

    model = torchvision.models.resnet50().to(CARD)
    say("resnet50_train_step_b32", training(model, (32, 3, 224, 224), 1000, 20) * 1e3, "ms")
    model.eval()
    with torch.no_grad():
        x = torch.randn(1, 3, 224, 224, device=CARD)
        say("resnet50_infer_b1", seconds(repeated(lambda: model(x), 50), 3) / 50 * 1e3, "ms")


def encoder(**options: object) -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(768, 12, 3072, batch_first=True, **options), 12).to(CARD)


def transformer() -> None:
    """Of the size of BERT-base."""
    model = encoder(activation="gelu").half().eval()
    with torch.no_grad():
        x = torch.randn(1, 128, 768, device=CARD).half()
        say("bert_base_infer_b1", seconds(repeated(lambda: model(x), 30), 3) / 30 * 1e3, "ms")
    model = encoder().train()
    x, optimizer = torch.randn(8, 128, 768, device=CARD), torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        model(x).pow(2).mean().backward()
        optimizer.step()

    repeated(step, 3)()
    say("bert_base_train_b8_adamw", seconds(repeated(step, 10), 3, warm=False) / 10 * 1e3, "ms")


def graph() -> None:
    stream, x = torch.cuda.Stream(), torch.randn(64, 64, device=CARD)
    with torch.cuda.stream(stream):
        repeated(lambda: x @ x, 3)()
    torch.cuda.synchronize()
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        y = x
        for _ in range(20):
            y = y @ x
    say("graph_replay_20", seconds(repeated(captured.replay, 500)) / 500 * 1e6, "us")


def loader() -> None:
    data = torch.utils.data.TensorDataset(torch.randn(4096, 3, 64, 64), torch.randint(0, 10, (4096,)))

    def epoch() -> None:
        for images, labels in torch.utils.data.DataLoader(data, 128, num_workers=0, pin_memory=True):
            images.to(CARD, non_blocking=True)
            labels.to(CARD, non_blocking=True)

    say("dataloader_epoch_pinned", seconds(epoch, 3) * 1e3, "ms")


def alloc() -> None:
    torch.cuda.empty_cache()

    def allocate() -> None:
        block = torch.empty(64 << 20, dtype=torch.uint8, device=CARD)
        del block
        torch.cuda.empty_cache()

    say("malloc_free_64MiB", seconds(repeated(allocate, 20), 3) / 20 * 1e6, "us")


SECTIONS = {f.__name__: f for f in (launch, copy, cnn, resnet, transformer, graph, loader, alloc)}


def main() -> None:
    """Entry point."""
    if len(sys.argv) < 2:
        raise SystemExit(f"usage: workload.py LABEL [{','.join(SECTIONS)}]")
    wanted = sys.argv[2].split(",") if len(sys.argv) > 2 else list(SECTIONS)
    if unknown := [name for name in wanted if name not in SECTIONS]:
        raise SystemExit(f"workload.py: unknown section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    first()
    for name in wanted:
        SECTIONS[name]()


if __name__ == "__main__":
    main()
