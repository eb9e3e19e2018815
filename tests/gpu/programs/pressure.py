# SPDX-License-Identifier: Apache-2.0
"""PyTorch under memory pressure, `pressure.py SECONDS [SEED]`: on every device products, convolutions and allocations until none is
left, half of which go again. Out of memory must be PyTorch's own error, and what is computed right. Prints a JSON object."""

from __future__ import annotations

import json
import random
import sys
import time
from typing import Any

import torch
from torch import nn

SECONDS = float(sys.argv[1])
DICE = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
MIB = 1 << 20
# Of cuBLAS, and of cuDNN when no algorithm gets its workspace or it gets no memory for itself.
IN_OTHER_WORDS = ("ALLOC_FAILED", "unable to find an engine", "CUDNN_STATUS_INTERNAL_ERROR")


class Load:
    """What one device is put to."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.held: list[torch.Tensor] = []
        self.done: dict[str, int] = {}
        self.convolution = nn.Conv2d(64, 64, 3, padding=1)

    def count(self, what: str) -> None:
        self.done[what] = self.done.get(what, 0) + 1

    def fill(self) -> None:
        """To the last piece: ever smaller ones."""
        for mib in (512, 128, 32, 8, 2):
            for _ in range(DICE.randrange(1, 400)):
                self.held.append(torch.empty(mib * MIB, dtype=torch.uint8, device=self.device))

    def product(self) -> None:
        kind = DICE.choice([torch.float32, torch.float16, torch.bfloat16, torch.float64])
        side = DICE.choice([64, 500, 1024, 2048])
        a = torch.ones(side, side, dtype=kind, device=self.device)
        assert (a @ a)[0, side - 1].item() == side, "a wrong product"

    def convolve(self) -> None:
        side, many = DICE.choice([16, 31, 64, 112]), DICE.choice([1, 7, 32])
        body = self.convolution.to(self.device)
        x = torch.ones(many, 64, side, side, device=self.device)
        body(x).sum().backward()
        assert body.weight.grad is not None and torch.isfinite(body.weight.grad).all().item(), "a wrong gradient"

    def sort(self) -> None:
        n = DICE.choice([1000, 1 << 20, 1 << 24])
        x = torch.arange(n, 0, -1, dtype=torch.int32, device=self.device)
        assert torch.sort(x).values[0].item() == 1, "a wrong order"

    def step(self) -> None:
        what = DICE.choice([self.fill, self.product, self.convolve, self.sort])
        try:
            what()
            self.count(what.__name__)
        except RuntimeError as error:  # of which PyTorch's out of memory is one; libraries say it in their own words
            if not isinstance(error, torch.OutOfMemoryError) and not any(words in str(error) for words in IN_OTHER_WORDS):
                raise
            self.count("out of memory")
            DICE.shuffle(self.held)
            del self.held[len(self.held) // 2 :]
            if DICE.random() < 0.3:
                torch.cuda.empty_cache()


def main() -> None:
    torch.backends.cudnn.benchmark = True  # tries all algorithms, each with its workspace
    loads = [Load(f"cuda:{i}") for i in range(torch.cuda.device_count())]
    for load in loads:
        torch.zeros(1, device=load.device)
    print("ready", flush=True)
    sys.stdin.readline()  # until others that share the ceiling have their contexts too
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        for load in loads:
            load.step()
    for load in loads:
        load.held.clear()
    torch.cuda.empty_cache()
    for load in loads:  # after all that there is room again
        load.product()
        load.convolve()
    found: dict[str, Any] = {load.device: load.done for load in loads}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
