# SPDX-License-Identifier: Apache-2.0
"""Texture and surface objects, whose values are the driver's own; one line each."""

from orion_virt.spec.schema import *  # noqa: F403
from orion_virt.spec.types import *  # noqa: F403

CALLS = (
    call(810, "cuTexObjectCreate", out("pTexObject", TEX_OBJECT), buf("pResDesc", RESOURCE_DESC, 1),
        buf("pTexDesc", TEXTURE_DESC, 1), opt(buf("pResViewDesc", RESOURCE_VIEW_DESC, 1)), hand="executor", since=5000),
    call(811, "cuTexObjectDestroy", inp("texObject", TEX_OBJECT), hand="executor", blocks=True, since=5000),
    call(812, "cuTexObjectGetResourceDesc", buf("pResDesc", RESOURCE_DESC, 1, dir="out"), inp("texObject", TEX_OBJECT),
        hand="executor", since=5000),
    call(813, "cuTexObjectGetTextureDesc", buf("pTexDesc", TEXTURE_DESC, 1, dir="out"), inp("texObject", TEX_OBJECT),
        hand="executor", since=5000),
    call(814, "cuTexObjectGetResourceViewDesc", buf("pResViewDesc", RESOURCE_VIEW_DESC, 1, dir="out"),
        inp("texObject", TEX_OBJECT), hand="executor", since=5000),
    call(815, "cuSurfObjectCreate", out("pSurfObject", SURF_OBJECT), buf("pResDesc", RESOURCE_DESC, 1),
        hand="executor", since=5000),
    call(816, "cuSurfObjectDestroy", inp("surfObject", SURF_OBJECT), hand="executor", blocks=True, since=5000),
    call(817, "cuSurfObjectGetResourceDesc", buf("pResDesc", RESOURCE_DESC, 1, dir="out"),
        inp("surfObject", SURF_OBJECT), hand="executor", since=5000),
)
