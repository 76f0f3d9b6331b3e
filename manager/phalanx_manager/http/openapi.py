"""The description of the API, out of the same table and shapes that make it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from phalanx_manager.http.ask import Reply, Route
from phalanx_wire.api import DryRun, EventView, LogEvent, Problem

_REF: Final = "#/components/schemas/{name}"
_PATH_PARAM: Final = re.compile(r"\{(?P<name>[a-z]+)\}")
_MEDIA: Final[Mapping[str, str]] = {
    "tar": "application/x-tar",
    "text": "text/plain",
    "any": "application/json",
}


def document(routes: Sequence[Route], version: str) -> dict[str, Any]:
    """Describe the API as OpenAPI 3.1."""
    shapes: list[type] = [Problem, DryRun, EventView, LogEvent]
    for route in routes:
        shapes += [shape for shape in (route.body, route.reply) if isinstance(shape, type)]
    unique = list(dict.fromkeys(shapes))
    _schemas, components = msgspec.json.schema_components(unique, ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Phalanx", "version": version},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}{_camel(route.path)}",
        "summary": route.about,
        "parameters": _parameters(route),
        "responses": _responses(route),
        "security": [{"token": []}] if route.scope is not None else [],
    }
    if route.scope is not None:
        operation["description"] = f"Needs a token with the scope {route.scope}."
    if route.body is not None:
        operation["requestBody"] = {
            "required": not route.optional_body,
            "content": _tar() if route.body == "tar" else _json(route.body),
        }
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    text = {"type": "string"}
    found: list[dict[str, Any]] = [
        {"name": match["name"], "in": "path", "required": True, "schema": text}
        for match in _PATH_PARAM.finditer(route.path)
    ]
    for param in route.params:
        schema = {"type": "array", "items": param.schema} if param.many else param.schema
        found.append(
            {
                "name": param.name,
                "in": "query",
                "required": param.required,
                "description": param.about,
                "schema": schema,
            }
        )
    found += [
        {"name": name, "in": "header", "description": about, "schema": text}
        for name, about in route.headers.items()
    ]
    return found


def _responses(route: Route) -> dict[str, Any]:
    problem = {"schema": {"$ref": _REF.format(name="Problem")}}
    refused = {
        "description": "Refused, with the reason.",
        "content": {"application/problem+json": problem},
    }
    if route.reply == "socket":
        return {"101": {"description": "The WebSocket is open."}, "default": refused}
    good: dict[str, Any] = {"description": "Done."}
    if route.reply is not None:
        good["content"] = _content(route.reply)
    found = {str(route.status): good, "default": refused}
    if route.path == "/v1/sessions" and route.method == "POST":
        either = [_content(shape)["application/json"]["schema"] for shape in (route.reply, DryRun)]
        known = {"application/json": {"schema": {"oneOf": either}}}
        found["200"] = {"description": "It was there before, or a dry run.", "content": known}
    return found


def _content(reply: Reply | None) -> dict[str, Any]:
    if isinstance(reply, type):
        return _json(reply)
    if reply == "log-stream":
        return _events("LogEvent")
    if reply == "event-stream":
        event = {"$ref": _REF.format(name="EventView")}
        listed = {"application/json": {"schema": {"type": "array", "items": event}}}
        return _events("EventView") | listed
    return {_MEDIA[reply or "any"]: {"schema": {}}}


def _events(name: str) -> dict[str, Any]:
    """Describe a stream by one of its events, as OpenAPI 3.2 does; the last has its own data."""
    data = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"anyOf": [{"$ref": _REF.format(name=name)}, {"type": "object"}]},
    }
    text = {"type": "string"}
    event = {"type": "object", "properties": {"id": text, "event": text, "data": data}}
    return {"text/event-stream": {"schema": event}}


def _json(shape: type) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REF.format(name=shape.__name__)}}}


def _tar() -> dict[str, Any]:
    return {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}}


def _camel(path: str) -> str:
    return "".join(word.capitalize() for word in re.findall(r"[a-z0-9]+", path))
