"""Load a run file, name it by a key, write it back, describe it as a JSON schema."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from eoray.config.compose import compose_file, compose_text, escape_variables
from eoray.config.fields import is_url, resolve_path
from eoray.config.models import LATER_KEYS, OUTSIDE_KEY, RunConfig
from eoray.config.problems import describe_problems, section_of
from eoray.config.text import write_yaml
from eoray.errors import ConfigError

_BESIDE_MODEL = ("include", "vars")
"""Keys of the file that are worked off before the sections are checked."""

_PATHS = (
    "aoi",
    "source.catalog",
    "source.fallback[].catalog",
    "store",
    "cube.dem",
    "cube.mask.weights[].path",
    "fit.labels",
    "predict.model",
    "assess.reference",
)
"""Keys whose texts are paths or URLs; ``[]``: in each of a list."""


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> RunConfig:
    """Read a run file: includes, overrides, variables, then every value checked.

    Paths stay as written; they start at the run file's folder (:func:`resolve_path`), also those
    that come from an included file.

    Args:
        path: The run file.
        overrides: ``key=value`` with dots between keys, values in YAML; they win over the file.

    Raises:
        ConfigError: With one line for each problem: key, what stands there, what is expected.
    """
    return _validate(compose_file(Path(path), overrides), str(path))


def parse_config(text: str, folder: str | Path = ".", overrides: Iterable[str] = ()) -> RunConfig:
    """As :func:`load_config`, from the text of a run file.

    Args:
        text: YAML, or JSON, which is YAML too.
        folder: Where ``include`` looks for files.
        overrides: As for :func:`load_config`.
    """
    return _validate(compose_text(text, Path(folder), overrides), "run file")


def dump_config(config: RunConfig) -> str:
    """Write all values, defaults too, as YAML that loads to an equal config."""
    return write_yaml(escape_variables(config.model_dump(mode="json")))


def config_key(config: RunConfig) -> str:
    """Name a run by what decides its results: ``NAME-`` and 8 hex digits.

    What never changes results is left out: the sections of ``OUTSIDE_KEY`` and
    ``source.fallback``. Paths count as they are written, so that a
    folder with its run file may move without becoming another run.
    """
    content = config.model_dump(
        mode="json", exclude={**dict.fromkeys(OUTSIDE_KEY, True), "source": {"fallback"}}
    )
    _drop_later_defaults(content)
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return f"{config.name}-{hashlib.sha256(canonical.encode()).hexdigest()[:8]}"


def _drop_later_defaults(content: dict[str, Any]) -> None:
    """Leave out keys that came later and hold their default: older runs keep their name."""
    for path in LATER_KEYS:
        first, *sections, key = path.split(".")
        here = content[first]
        there = RunConfig.model_fields[first].get_default().model_dump(mode="json")
        for section in sections:
            here, there = here[section], there[section]
        if here[key] == there[key]:
            del here[key]


def local_paths(config: RunConfig, folder: str | Path) -> dict[str, str]:
    """Absolute paths of this machine that the run names, by their key; URLs are left out."""
    found: dict[str, str] = {}

    def note(key: str, path: str) -> str:
        if not is_url(path):
            found[key] = resolve_path(path, folder)
        return path

    _change_paths(config, note)
    return found


def with_absolute_paths(config: RunConfig, folder: str | Path) -> RunConfig:
    """The same run for a file in another folder: no path starts at the run file's any more."""
    return _change_paths(config, lambda _, path: resolve_path(path, folder))


def _change_paths(config: RunConfig, change: Callable[[str, str], str]) -> RunConfig:
    """Replace each path and URL by what ``change`` makes of its key and itself."""
    for key in _PATHS:
        config = _change_at(config, key.split("."), "", change)
    return config


def _change_at(
    part: Any, steps: Sequence[str], above: str, change: Callable[[str, str], str]
) -> Any:
    if not steps:
        return change(above, part) if isinstance(part, str) else part
    name, rest = steps[0].removesuffix("[]"), steps[1:]
    old, key = getattr(part, name), f"{above}.{name}".removeprefix(".")
    if steps[0].endswith("[]"):
        parts = enumerate(old)
        new = tuple(_change_at(one, rest, f"{key}[{i}]", change) for i, one in parts)
    else:
        new = _change_at(old, rest, key, change)
    return part if new == old else part.model_copy(update={name: new})


def run_file_schema() -> dict[str, Any]:
    """Describe the run file as JSON Schema (draft 2020-12)."""
    schema = RunConfig.model_json_schema(by_alias=True)
    path = {"type": "string"}
    schema["properties"]["include"] = {
        "anyOf": [path, {"type": "array", "items": path}],
        "description": "Run files that this one builds on; what stands here wins.",
    }
    schema["properties"]["vars"] = {
        "type": "object",
        "description": "Values that ${name} puts into texts; ${env:NAME} takes the environment's.",
    }
    for described in (schema, *schema["$defs"].values()):
        _allow_empty_sections(described)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "eoray"}


def _allow_empty_sections(described: dict[str, Any]) -> None:
    for name, field in described["properties"].items():
        if "$ref" in field and name not in described.get("required", ()):
            rest = {key: value for key, value in field.items() if key != "$ref"}
            either = [{"$ref": field["$ref"]}, {"type": "null"}]
            described["properties"][name] = {"anyOf": either, **rest}


def _validate(content: dict[str, Any], origin: str) -> RunConfig:
    try:
        # JSON mode takes lists for tuples and stays strict about everything else.
        return RunConfig.model_validate_json(json.dumps(_fill_empty(content, RunConfig)))
    except ValidationError as error:
        lines = describe_problems(error, RunConfig, _BESIDE_MODEL)
        raise ConfigError("\n".join(f"{origin}: {line}" for line in lines)) from error


def _fill_empty(content: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Take a section without content (``fit:``) for one with all defaults."""
    filled = dict(content)
    for name, field in model.model_fields.items():
        section = section_of(field.annotation)
        value = content.get(name)
        if section is None or name not in content:
            continue
        filled[name] = {} if value is None else value
        if isinstance(value, dict):
            filled[name] = _fill_empty(value, section)
    return filled
