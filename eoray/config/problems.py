"""From pydantic's findings to lines that a user can act on: path, what stands there, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from eoray.config.agree import DisagreementError
from eoray.config.cluster import (
    GROUP_PATTERN,
    HOST_PATTERN,
    KEY_PATTERN,
    NAME_PATTERN,
    OBJECT_PATTERN,
    PATH_PATTERN,
    PROXY_PATTERN,
)
from eoray.config.fields import BASELINE_PATTERN, SLUG_PATTERN

_EXPECTED = {
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "dict_type": "keys and values",
    "finite_number": "a finite number",
    "float_type": "a number",
    "float_parsing": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "list_type": "a list",
    "tuple_type": "a list",
    "model_type": "keys and values",
    "model_attributes_type": "keys and values",
    "string_type": "text",
}

_PATTERNS = {
    SLUG_PATTERN: "1 to 40 lower-case letters, digits and dashes, beginning with a letter or digit",
    NAME_PATTERN: "1 to 63 lower-case letters, digits and dashes, beginning with a letter",
    GROUP_PATTERN: "1 to 20 lower-case letters, digits and dashes, beginning with a letter",
    PATH_PATTERN: "an absolute path without spaces",
    OBJECT_PATTERN: "the name of an object: lower-case letters, digits, dashes and dots",
    KEY_PATTERN: "a key: letters, digits, dots, dashes and underscores",
    PROXY_PATTERN: "a proxy like 'http://proxy.example:3128', without a password",
    HOST_PATTERN: "a host, a domain like '.example' or a network like '10.0.0.0/8'",
    BASELINE_PATTERN: 'a processing baseline in quotes, such as "05.00"',
}


def describe_problems(
    error: ValidationError, model: type[BaseModel], extra: Iterable[str]
) -> list[str]:
    """Write one line per problem: ``path: what stands there; what is expected``.

    Args:
        error: What pydantic found.
        model: The model that was filled.
        extra: Top-level keys that are valid beside those of the model.
    """
    lines: dict[str, list[str]] = {}
    findings = error.errors(include_url=False)
    for finding in findings:
        if finding["type"] == "too_short" and any(_is_inside(f, finding) for f in findings):
            continue  # an item that is wrong does not count as one
        cause = finding.get("ctx", {}).get("error")
        if isinstance(cause, DisagreementError):
            for problem in cause.problems:
                path, _, text = problem.partition(": ")
                lines.setdefault(path, []).append(text)
            continue
        owner, path = _locate(finding["loc"], model)
        text = _describe(finding, owner, extra if owner is model else ())
        if text not in lines.setdefault(path, []):
            lines[path].append(text)
    return [
        f"{path}: {_join([text.removeprefix(f'{path} ') for text in texts])}"
        for path, texts in lines.items()
    ]


def _is_inside(finding: Any, other: Any) -> bool:
    depth = len(other["loc"])
    return len(finding["loc"]) > depth and finding["loc"][:depth] == other["loc"]


def _join(texts: list[str]) -> str:
    """Make one line of the branches of a union, which fail together."""
    heads = {text.partition("; expected ")[0] for text in texts}
    if len(texts) == 1 or len(heads) > 1:
        return "; ".join(texts)
    return f"{heads.pop()}; expected {' or '.join(t.partition('; expected ')[2] for t in texts)}"


def _describe(finding: Any, owner: type[BaseModel], extra: Iterable[str]) -> str:
    kind, context = finding["type"], finding.get("ctx", {})
    if kind == "extra_forbidden":
        key = str(finding["loc"][-1])
        return f"unknown key{_nearest(key, [*owner.model_fields, *extra])}"
    if kind == "missing":
        return "missing; it has no default, so write it"
    if "error" in context:
        return str(context["error"])
    got = _shorten(finding["input"])
    return f"got {got}; expected {_expected(kind, context, finding['msg'])}"


def _expected(kind: str, context: dict[str, Any], message: str) -> str:
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    if kind == "literal_error":
        return str(context["expected"])
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(context["pattern"], f"text that matches {context['pattern']}")
    if kind == "too_short":
        return f"at least {context['min_length']} value(s)"
    message = message.removeprefix("Input should be ")
    return message[:1].lower() + message[1:]


def _nearest(key: str, valid: list[str]) -> str:
    near = difflib.get_close_matches(key.lower(), valid, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    if not valid:
        return "; this section has no keys"
    return f"; valid here: {', '.join(valid)}"


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _locate(loc: tuple[int | str, ...], model: type[BaseModel]) -> tuple[type[BaseModel], str]:
    """Walk to the section that owns the key; pydantic's names of union branches are left out."""
    owner, path = model, ""
    inside: type[BaseModel] | None = model
    member: type[BaseModel] | None = None
    for part in loc:
        if part == "[key]":
            continue  # pydantic's word for the key of a mapping, which is named already
        if isinstance(part, int) or member is not None:
            path += f"[{part}]" if isinstance(part, int) else f".{part}"
            inside, member = member, None
        elif inside is not None and not part.startswith("<"):
            owner = inside
            path += f".{part}" if path else part
            field = owner.model_fields.get(part)
            annotation = field.annotation if field is not None else None
            inside, member = section_of(annotation), _member_of(annotation)
    return owner, path or "run file"


def section_of(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a field holds or may hold, or None where it holds a value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) is Annotated:
        return section_of(get_args(annotation)[0])
    is_union = get_origin(annotation) in (Union, UnionType)
    return _first_section(annotation) if is_union else None


def _member_of(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a list or a mapping of sections holds many of."""
    return _first_section(annotation) if get_origin(annotation) in (tuple, list, dict) else None


def _first_section(annotation: Any) -> type[BaseModel] | None:
    return next((found for part in get_args(annotation) if (found := section_of(part))), None)
