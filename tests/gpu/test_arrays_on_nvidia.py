# SPDX-License-Identifier: Apache-2.0
"""CUDA arrays, textures, surfaces, tensor maps and their copies, natively and through a vGPU: equal outputs."""

from __future__ import annotations

from pathlib import Path

import host as hosts
import pytest
from programs import both, nvcc

pytestmark = pytest.mark.gpu
TEXTURES = ["simple", "layered", "cubemap", "pitchlinear", "surfaces", "mipmap", "formats", "modes"]
ARRAYS = ["rectangles", "runs", "boxes", "rows", "flat", "batch", "batch3d", "graphs", "references", "maps", "planes",
          "sparse"]


@pytest.fixture(scope="module")
def textures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvcc(tmp_path_factory.mktemp("textures"), "textures.cu", card="native")


@pytest.mark.parametrize("name", TEXTURES)
def test_textures(host: hosts.Host, textures: Path, name: str) -> None:
    both(host, [str(textures), name])


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvcc(tmp_path_factory.mktemp("arrays"), "arrays.cu", card="native")


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays(host: hosts.Host, arrays: Path, name: str) -> None:
    both(host, [str(arrays), name])
