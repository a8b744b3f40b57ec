# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""The part of JSON Schema that docs/results.schema.json uses, checked with the standard library."""

import re

KINDS = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
KNOWN = {
    "$ref", "type", "const", "enum", "minimum", "minLength", "pattern", "items", "properties", "required",
    "additionalProperties", "minProperties", "oneOf", "$schema", "$defs", "title", "description",
}  # fmt: skip


def faults(value, schema, root=None, where="result"):
    """A line for each way in which value does not match schema."""
    root = root or schema
    unknown = set(schema) - KNOWN
    assert not unknown, f"the schema uses {unknown}, which this checker does not know"
    found = []
    if "$ref" in schema:
        found += faults(value, _resolve(schema["$ref"], root), root, where)
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(KINDS[kind](value) for kind in kinds):
        return found + [f"{where} is {value!r}, not {' or '.join(kinds)}"]
    if "const" in schema and value != schema["const"]:
        found.append(f"{where} is {value!r}, not {schema['const']!r}")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{where} is {value!r}, not one of {schema['enum']}")
    if "minimum" in schema and KINDS["number"](value) and value < schema["minimum"]:
        found.append(f"{where} is {value}, less than {schema['minimum']}")
    if isinstance(value, str):
        if len(value) < schema.get("minLength", 0):
            found.append(f"{where} is too short")
        if not re.search(schema.get("pattern", ""), value):
            found.append(f"{where} is {value!r}, which does not match {schema['pattern']}")
    if isinstance(value, list) and "items" in schema:
        for number, item in enumerate(value):
            found += faults(item, schema["items"], root, f"{where}[{number}]")
    if isinstance(value, dict):
        found += _object_faults(value, schema, root, where)
    if "oneOf" in schema:
        choices = [faults(value, choice, root, where) for choice in schema["oneOf"]]
        if sum(not choice for choice in choices) != 1:
            found += min(choices, key=len) or [f"{where} matches several kinds"]
    return found


def _object_faults(value, schema, root, where):
    properties = schema.get("properties", {})
    found = [f"{where} lacks {name}" for name in schema.get("required", []) if name not in value]
    if len(value) < schema.get("minProperties", 0):
        found.append(f"{where} has too few fields")
    for name, item in value.items():
        if name in properties:
            found += faults(item, properties[name], root, f"{where}.{name}")
        elif schema.get("additionalProperties") is False:
            found.append(f"{where} has {name}, which is not in the schema")
        elif isinstance(schema.get("additionalProperties"), dict):
            found += faults(item, schema["additionalProperties"], root, f"{where}.{name}")
    return found


def _resolve(reference, root):
    schema = root
    for name in reference.removeprefix("#/").split("/"):
        schema = schema[name]
    return schema
