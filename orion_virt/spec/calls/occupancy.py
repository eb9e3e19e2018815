# SPDX-License-Identifier: Apache-2.0
"""The driver's occupancy functions, one line each."""

from orion_virt.spec.schema import *  # noqa: F403
from orion_virt.spec.types import *  # noqa: F403

CALLS = (
    local("cuOccupancyMaxActiveBlocksPerMultiprocessor", out("numBlocks", INT), inp("func", FUNCTION), inp("blockSize",
        INT), inp("dynamicSMemSize", SIZE), since=6050),
    local("cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags", out("numBlocks", INT), inp("func", FUNCTION),
        inp("blockSize", INT), inp("dynamicSMemSize", SIZE), inp("flags", UINT), since=7000),
    local("cuOccupancyAvailableDynamicSMemPerBlock", out("dynamicSmemSize", SIZE), inp("func", FUNCTION),
        inp("numBlocks", INT), inp("blockSize", INT), since=10020),
    local("cuOccupancyMaxPotentialBlockSize", out("minGridSize", INT), out("blockSize", INT), inp("func", FUNCTION),
        inp("blockSizeToDynamicSMemSize", BLOCK_TO_SMEM), inp("dynamicSMemSize", SIZE), inp("blockSizeLimit", INT),
        since=6050),
    local("cuOccupancyMaxPotentialBlockSizeWithFlags", out("minGridSize", INT), out("blockSize", INT),
        inp("func", FUNCTION), inp("blockSizeToDynamicSMemSize", BLOCK_TO_SMEM), inp("dynamicSMemSize", SIZE),
        inp("blockSizeLimit", INT), inp("flags", UINT), since=7000),
    local("cuOccupancyMaxPotentialClusterSize", out("clusterSize", INT), inp("func", FUNCTION),
        buf("config", LAUNCH_CONFIG, 1), since=11070),
    local("cuOccupancyMaxActiveClusters", out("numClusters", INT), inp("func", FUNCTION),
        buf("config", LAUNCH_CONFIG, 1), since=11070),
)
