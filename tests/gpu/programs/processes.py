# SPDX-License-Identifier: Apache-2.0
"""Several processes on PyTorch: `processes.py NAME` prints results that must not depend on who executes them."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import time
from typing import Any

STEPS, BATCH = 8, 64


def digest(tensor: Any) -> str:
    return hashlib.sha256(tensor.cpu().numpy().tobytes()).hexdigest()[:16]


# ---- tensors handed to another process ----


def consume(there: Any, back: Any) -> None:
    """Changes what it gets in place, and makes one of its own."""
    import torch

    whole, part, event_handle = there.get()
    torch.cuda.Event.from_ipc_handle(torch.device("cuda", 0), event_handle).synchronize()
    whole.mul_(2)
    part.add_(1)
    own = torch.arange(1000, device="cuda")
    torch.cuda.synchronize()
    back.put((digest(whole), digest(part), own))
    assert there.get() == "end"
    del whole, part


def torch_shared() -> None:
    """torch.multiprocessing: a large tensor, a view into a small one, an event, and a tensor on its way back."""
    import torch
    import torch.multiprocessing as mp

    context = mp.get_context("spawn")
    there, back = context.Queue(), context.Queue()
    child = context.Process(target=consume, args=(there, back))
    child.start()
    torch.manual_seed(0)
    whole, small = torch.randn(3000000, device="cuda"), torch.randn(100, device="cuda")
    event = torch.cuda.Event(interprocess=True)
    event.record()
    there.put((whole, small[40:60], event.ipc_handle()))
    whole_there, part_there, own = back.get()
    print("whole", digest(whole) == whole_there, digest(whole))
    print("part", digest(small[40:60]) == part_there, digest(small))
    print("back", digest(own), int(own.sum()))
    there.put("end")
    del own
    child.join(60)
    print("child", child.exitcode)


# ---- NCCL: a rank for each vGPU ----


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def begin(rank: int, world: int, port: int) -> Any:
    import torch
    import torch.distributed as dist

    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world,
                            device_id=torch.device("cuda", rank))
    return dist


def rank_of_sum(rank: int, world: int, port: int) -> None:
    import torch

    dist = begin(rank, world, port)
    for size in (1, 1000, 1 << 20, 16 << 20):
        x = torch.full((size,), float(rank + 1), device="cuda")
        dist.all_reduce(x)
        torch.cuda.synchronize()
        begun = time.monotonic()
        y = torch.full((size,), float(rank + 1), device="cuda")
        dist.all_reduce(y)
        torch.cuda.synchronize()
        if rank == 0:
            wanted = world * (world + 1) / 2
            print(f"sum of {size}", bool((x == wanted).all() and (y == wanted).all()), flush=True)
            print(f"{size}: {(time.monotonic() - begun) * 1e3:.2f} ms", file=sys.stderr, flush=True)
    gathered = [torch.empty(3, device="cuda") for _ in range(world)]
    dist.all_gather(gathered, torch.arange(3.0, device="cuda") + 10 * rank)
    other = torch.full((5,), float(rank), device="cuda")
    dist.broadcast(other, src=world - 1)
    if rank == 0:
        print("gathered", [t.tolist() for t in gathered], "broadcast", other.tolist(), flush=True)
    dist.destroy_process_group()


def nccl_sum() -> None:
    """Sums over two ranks; the times go to standard error."""
    import torch.multiprocessing as mp

    mp.spawn(rank_of_sum, args=(2, free_port()), nprocs=2)
    print("end")


def model_and_data() -> tuple[Any, Any, Any]:
    import torch
    from torch import nn

    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = False
    model = nn.Sequential(nn.Linear(256, 512), nn.Tanh(), nn.Linear(512, 10))
    return model, torch.randn(STEPS, BATCH, 256), torch.randint(0, 10, (STEPS, BATCH))


def train(model: Any, x: Any, y: Any, reduce: Any) -> None:
    import torch

    opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(STEPS):
        opt.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(model(x[step]), y[step])
        loss.backward()
        opt.step()
        reduce(step, loss.detach())


def rank_of_ddp(rank: int, world: int, port: int) -> None:
    import torch
    from torch.nn.parallel import DistributedDataParallel

    dist = begin(rank, world, port)
    model, x, y = model_and_data()
    half = slice(rank * BATCH // world, (rank + 1) * BATCH // world)

    def mean(step: int, loss: torch.Tensor) -> None:
        dist.all_reduce(loss, op=dist.ReduceOp.AVG)
        if rank == 0:
            print(f"loss {step} {loss.item():.6f}", flush=True)

    train(DistributedDataParallel(model.cuda(), device_ids=[rank]), x[:, half].cuda(), y[:, half].cuda(), mean)
    dist.destroy_process_group()


def ddp() -> None:
    """A small model trained by two ranks, each on half of every batch: the mean losses."""
    import torch.multiprocessing as mp

    mp.spawn(rank_of_ddp, args=(2, free_port()), nprocs=2)


def alone() -> None:
    """The same model by one process on whole batches: the losses that `ddp` must come near."""
    model, x, y = model_and_data()
    train(model.cuda(), x.cuda(), y.cuda(), lambda step, loss: print(f"loss {step} {loss.item():.6f}"))


if __name__ == "__main__":
    os.environ.setdefault("NCCL_DEBUG", "WARN")
    globals()[sys.argv[1]]()
