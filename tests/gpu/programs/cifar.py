# SPDX-License-Identifier: Apache-2.0
"""Trains a CNN on CIFAR-10-shaped data over several devices: `cifar.py [--devices cuda:0,cuda:1] [--steps N]`.

Each device holds a replica and takes its share of every batch; gradients are averaged on the first device and sent back,
as data-parallel training with variables on the GPU does. What it prints does not depend on where the replicas lie.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import nn

BATCH = 256
CLASSES = 10


class Images:
    """Noise around one fixed picture for each class: 3 x 32 x 32, learnable within a few dozen steps."""

    def __init__(self) -> None:
        self._random = torch.Generator().manual_seed(7)
        self._pictures = torch.randn(CLASSES, 3, 32, 32, generator=self._random)

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """One batch in pinned memory: images, labels."""
        labels = torch.randint(0, CLASSES, (BATCH,), generator=self._random)
        noise = torch.randn(BATCH, 3, 32, 32, generator=self._random)
        return (self._pictures[labels] + 1.5 * noise).pin_memory(), labels.pin_memory()


def network() -> nn.Module:
    """Three strided convolutions with batch norm and one linear layer; pooling would add atomics, hence no fixed order."""
    layers: list[nn.Module] = []
    for wide, out in ((3, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(wide, out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 4 * 4, CLASSES))


def step(replicas: list[nn.Module], devices: list[str], images: torch.Tensor, labels: torch.Tensor, rate: float) -> torch.Tensor:
    """One step of plain gradient descent over all replicas; the mean loss, on the first device."""
    losses = []
    for replica, device, x, y in zip(replicas, devices, images.chunk(len(devices)), labels.chunk(len(devices))):
        replica.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(replica(x.to(device, non_blocking=True)), y.to(device, non_blocking=True))
        loss.backward()
        losses.append(loss.detach())
    with torch.no_grad():
        for of_each in zip(*(replica.parameters() for replica in replicas)):
            mean = sum(p.grad.to(devices[0]) for p in of_each) / len(devices)
            for p, device in zip(of_each, devices):
                p -= rate * mean.to(device)
    return sum(loss.to(devices[0]) for loss in losses) / len(devices)


def accuracy(replica: nn.Module, device: str, images: Images) -> float:
    """Share of a fresh batch that the replica classifies rightly."""
    x, y = images.batch()
    replica.eval()
    with torch.no_grad():
        return float((replica(x.to(device)).argmax(1).cpu() == y).float().mean())


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", default="cuda:0,cuda:1")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--memory", action="store_true", help="print each device's name and memory, MiB")
    args = parser.parse_args()
    devices = args.devices.split(",")
    if args.memory:
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            print(f"device {index}: {properties.name}, {properties.total_memory >> 20} MiB", flush=True)
    torch.manual_seed(0)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    images, first = Images(), network()
    replicas = [network().to(device) for device in devices]
    for replica in replicas:
        replica.load_state_dict(first.state_dict())
    begin = time.monotonic()
    for number in range(args.steps):
        loss = step(replicas, devices, *images.batch(), rate=0.1)
        if number % 10 == 0 or number == args.steps - 1:
            print(f"step {number} loss {loss.item():.7f}", flush=True)
    took = time.monotonic() - begin
    same = all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(replicas[0].parameters(), replicas[-1].parameters()))
    print(f"replicas equal: {same}")
    print(f"accuracy {accuracy(replicas[-1], devices[-1], images):.4f}", flush=True)
    if args.memory:
        print(f"{args.steps * BATCH / took:.0f} images a second")


if __name__ == "__main__":
    main()
