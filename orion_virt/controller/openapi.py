# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI 3.1 description of /v1/, from the table of calls."""

from __future__ import annotations

from typing import Any

from orion_virt import credential
from orion_virt.controller.calls import CALLS, Call

_TEXT, _WHOLE, _FLAT = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "number", "minimum": 0}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _some(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def _list(of: Any) -> dict[str, Any]:
    return {"type": "array", "items": of}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


_VGPU = _object(card=_WHOLE, slot=_WHOLE, memory_bytes=_WHOLE, booked_bytes=_WHOLE)
_ALLOCATION = {
    "uuid": _TEXT, "server": _TEXT, "state": {"enum": ["granted", "confirmed"]}, "since": _FLAT, "domain": _TEXT, "client": _TEXT,
    "process": _TEXT, "pid": _WHOLE, "group": _TEXT, "vgpus": _list(_VGPU),
}  # fmt: skip
_MEMORY = {"type": ["integer", "null"], "minimum": 1}
_GPU = _object(index=_WHOLE, name=_TEXT, total_bytes=_WHOLE, slots={"type": "integer", "minimum": 1})

_MAYBE = {"type": ["number", "null"], "minimum": 0}
_LOAD = {key: _WHOLE for key in ("used_bytes", "busy_percent", "calls_per_second", "bytes_per_second")}
_HISTORY = _object(seconds_ago=_list(_FLAT), busy_percent=_list(_WHOLE), used_bytes=_list(_WHOLE))
_SHOWN = {key: value for key, value in _ALLOCATION.items() if key not in ("uuid", "vgpus")} | {
    "vgpus": _list(_object(card=_WHOLE, slot=_WHOLE, memory_bytes=_WHOLE))}

SCHEMAS: dict[str, Any] = {
    "Nothing": _object(),
    "Error": _object(error=_TEXT, hint=_TEXT),
    "Info": _object(data_version=_TEXT, api_version=_TEXT),
    "Devices": _object(total=_WHOLE, free=_WHOLE, waiting=_WHOLE,
                       servers=_list(_object(server=_TEXT, port=_WHOLE, addresses=_list(_TEXT), gpus=_list(_GPU)))),
    "Allocation": _object(**_ALLOCATION),
    "Allocations": _object(allocations=_list(_ref("Allocation"))),
    "Granted": _object(**_ALLOCATION, address=_TEXT),
    "Released": _object(uuid=_TEXT),
    "Holder": _some(client=_TEXT, owner=_TEXT, domain=_TEXT, process=_TEXT, pid=_WHOLE),
    "Registration": _some(
        port=_WHOLE, boot=_TEXT, addresses=_list(_TEXT),
        gpus=_list(_some(index=_WHOLE, name=_TEXT, total_bytes=_WHOLE, slots=_WHOLE, base_bytes=_WHOLE)),
        domains=_list(_object(uuid=_TEXT, owner=_TEXT)), allocations=_list(_some(uuid=_TEXT, vgpus=_list(_VGPU))),
        opening=_list(_TEXT),
    ),  # fmt: skip
    "Wanted": {"type": "object", "properties": {"vgpus": {"type": "integer", "minimum": 1}, "memory_mib": _MEMORY},
               "required": ["vgpus"]},
    "Reservation": _object(domain=_TEXT, vgpus=_WHOLE, memory_mib=_MEMORY, taken=_WHOLE, server=_TEXT),
    "Reservations": _object(reservations=_list(_ref("Reservation"))),
    "Report": _object(
        gpus=_list(_object(index=_WHOLE, busy_percent=_WHOLE, used_bytes=_WHOLE, temperature_celsius=_MAYBE, power_watts=_MAYBE)),
        processes=_list(_object(allocation=_TEXT, pid=_WHOLE, comm=_TEXT, transport=_TEXT, **_LOAD)),
        names={"type": "object", "additionalProperties": _TEXT},
    ),
    "Overview": _object(
        now=_FLAT, total=_WHOLE, free=_WHOLE, waiting=_WHOLE,
        hosts=_list(_object(name=_TEXT, reports={"type": "boolean"}, gpus=_list(_object(
            index=_WHOLE, name=_TEXT, total_bytes=_WHOLE, slots=_WHOLE, used_slots=_WHOLE, granted_bytes=_WHOLE, busy_percent=_MAYBE,
            used_bytes=_MAYBE, temperature_celsius=_MAYBE, power_watts=_MAYBE, history=_HISTORY)))),
        domains=_list(_object(uuid=_TEXT, name=_TEXT, allocations=_WHOLE, vgpus=_WHOLE, reserved=_WHOLE, memory_bytes=_WHOLE,
                              **dict.fromkeys(_LOAD, _MAYBE))),
        allocations=_list(_object(id=_TEXT, domain_name=_TEXT, processes=_WHOLE, memory_bytes=_WHOLE, **_SHOWN,
                                  **dict.fromkeys(_LOAD, _MAYBE))),
    ),
}
_WHY = {400: "not understood", 403: "not allowed", 404: "not there", 409: "its state or a limit forbids it",
        503: "the store of the controller's state does not answer"}


def _answer(schema: str, description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _ref(schema)}}}


def _operation(call: Call) -> dict[str, Any]:
    found: dict[str, Any] = {
        "summary": call.summary,
        "operationId": call.answer.__name__.strip("_"),
        "parameters": [{"name": n, "in": "query", "description": text, "schema": _TEXT} for n, text in call.query.items()],
        "responses": {"200": _answer(call.schema, "done")} | {str(s): _answer("Error", _WHY[s]) for s in call.refusals},
    }
    if "{name}" in call.path:
        found["parameters"].append({"name": "name", "in": "path", "required": True, "schema": _TEXT})
    if call.body:
        found["requestBody"] = {"content": {"application/json": {"schema": _ref(call.body)}}}
    watchers: list[dict[str, list[str]]] = [{"watcher": []}] if call.watchers else []
    found["security"] = [{"server": []}, *watchers] if call.server_only else [{}, {"server": []}, {"token": []}]
    return found


def document() -> dict[str, Any]:
    """What /v1/openapi.json answers."""
    paths: dict[str, dict[str, Any]] = {}
    for call in CALLS:
        paths.setdefault(f"/v1{call.path}", {})[call.methods[0].lower()] = _operation(call)
    paths["/v1/openapi.json"] = {"get": {
        "summary": "This description", "operationId": "openapi", "security": [{}],
        "responses": {"200": {"description": "done", "content": {"application/json": {"schema": {"type": "object"}}}}},
    }}
    return {
        "openapi": "3.1.0",
        "info": {"title": "orion-controller", "version": "0.1", "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
                 "description": "Grants vGPUs. The same paths without /v1 answer text, as docs/reference.md tells."},
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "server": {"type": "apiKey", "in": "header", "name": credential.HEADER},
                "watcher": {"type": "http", "scheme": "bearer",
                            "description": "the monitoring token, which `orion-virt web` prints: sees everything, changes nothing"},
                "token": {"type": "http", "scheme": "bearer",
                          "description": "where the controller is reached through an address of the local network"},
            },
        },
    }
