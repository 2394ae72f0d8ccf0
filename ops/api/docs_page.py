"""The page that documents the control API, from its OpenAPI document; without scripts. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h2 { border-bottom: 1px solid #ccc; margin-top: 2.5rem }
summary { cursor: pointer; padding: .2rem 0 }
code, pre { font-size: 13px; background: #f4f4f4; border-radius: 3px; padding: .1rem .3rem }
pre { padding: .6rem; overflow: auto }
td { padding: .1rem 1rem .1rem 0; vertical-align: top }
.method { display: inline-block; width: 4.5rem; font-weight: 600 }
"""


def page(document: Mapping[str, Any]) -> str:
    """Return an OpenAPI document as HTML."""
    info = document["info"]
    title = escape(f"{info['title']} {info['version']}: control API")
    return "".join(
        (
            f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>",
            f"<style>{STYLE}</style><h1>{title}</h1>",
            "<p>Every endpoint under /api/v1 requires a token in the header ",
            "<code>Authorization: Bearer TOKEN</code>. Errors have the shape ErrorShape. ",
            '<a href="openapi.json">openapi.json</a> has all of this for programs.</p>',
            *_sections(document["paths"]),
            "<h2>Shapes</h2>",
            *_shapes(document.get("components", {}).get("schemas", {})),
            "</html>",
        )
    )


def _sections(paths: Mapping[str, Any]) -> Iterator[str]:
    by_tag: dict[str, list[str]] = {}
    for path, operations in paths.items():
        for method, operation in operations.items():
            text = "".join(_operation(method, path, operation))
            by_tag.setdefault(operation.get("tags", ["others"])[0], []).append(text)
    for tag, operations in by_tag.items():
        yield f"<h2>{escape(tag)}</h2>"
        yield from operations


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    head = f"<span class=method>{method.upper()}</span> <code>{escape(path)}</code>"
    yield f"<details><summary>{head} {escape(operation.get('summary', ''))}</summary>"
    yield f"<p>{escape(operation.get('description', ''))}</p><table>"
    for parameter in operation.get("parameters", ()):
        name, where = escape(parameter["name"]), escape(parameter["in"])
        yield f"<tr><td><code>{name}</code><td>{where}<td>{_kind(parameter['schema'])}"
        yield f"<td>{escape(parameter.get('description', ''))}"
    yield "</table>"
    body = operation.get("requestBody", {}).get("content", {})
    for content in body.values():
        yield f"<p>Body: {_kind(content['schema'])}</p>"
    for status, response in operation["responses"].items():
        for content in response.get("content", {}).values():
            yield f"<p>{escape(str(status))}: {_kind(content.get('schema', {}))}</p>"
    yield "</details>"


def _shapes(schemas: Mapping[str, Any]) -> Iterator[str]:
    for name, schema in sorted(schemas.items()):
        text = escape(json.dumps(schema, indent=2))
        yield f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>'
        yield f"<pre>{text}</pre></details>"


def _kind(schema: Mapping[str, Any]) -> str:
    """Return a schema in words, or as a link if it has a name."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[-1])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_kind(option) for option in schema["anyOf"])
    words = [str(schema.get("type", "any"))]
    words += [f"{key} {schema[key]}" for key in ("pattern", "minimum", "maximum") if key in schema]
    return escape(", ".join(words))
