"""From files to one mapping: includes merged, overrides set, variables filled in."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from eoray.config.text import read_yaml
from eoray.errors import ConfigError

_REFERENCE = re.compile(r"\$(\$)?\{([^{}]*)\}")


def compose_file(path: Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Read a run file with its includes, overrides and variables into plain values.

    Raises:
        ConfigError: A file that is missing or no YAML mapping, an include that includes itself,
            an override or variable that cannot be resolved.
    """
    return _finish(_read_with_includes(path, ()), overrides, str(path))


def compose_text(
    text: str, folder: Path, overrides: Iterable[str] = (), origin: str = "run file"
) -> dict[str, Any]:
    """As :func:`compose_file`, from text; includes start at ``folder``."""
    content = _merge_includes(_as_mapping(read_yaml(text, origin), origin), folder, origin, ())
    return _finish(content, overrides, origin)


def deep_merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay a mapping over another: mappings merge key by key, anything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[key] = deep_merge(old, value)
        else:
            merged[key] = value
    return merged


def escape_variables(value: Any) -> Any:
    """Double the ``$`` of ``${`` in all strings, so that loading gives them back unchanged."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, Mapping):
        return {key: escape_variables(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [escape_variables(part) for part in value]
    return value


def _finish(content: dict[str, Any], overrides: Iterable[str], origin: str) -> dict[str, Any]:
    for override in overrides:
        _set_override(content, override)
    variables = content.pop("vars", None)
    if variables is not None and not isinstance(variables, dict):
        raise ConfigError(f"{origin}: vars: {variables!r} is no mapping; write 'name: value' lines")
    resolver = _Variables(variables or {}, origin)
    return {key: resolver.fill(value, key) for key, value in content.items()}


def _read_with_includes(path: Path, parents: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in parents:
        chain = " -> ".join(p.name for p in (*parents, path))
        raise ConfigError(f"include goes round in a circle: {chain}; take one of them out")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(
            f"no file {str(path)!r}; check the path, or write one with `eoray init {path.name}`"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{str(path)!r} cannot be read ({error}); give a YAML file") from error
    content = _as_mapping(read_yaml(text, str(path)), str(path))
    return _merge_includes(content, path.parent, str(path), (*parents, path.resolve()))


def _as_mapping(content: Any, origin: str) -> dict[str, Any]:
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(
            f"{origin}: holds {type(content).__name__}, not keys and values; write 'name: ...', "
            "'aoi: ...' and so on"
        )
    return content


def _merge_includes(
    content: dict[str, Any], folder: Path, origin: str, parents: tuple[Path, ...]
) -> dict[str, Any]:
    names = content.pop("include", None) or []
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f"{origin}: include: {names!r} is no path; write a path or a list of them"
        )
    base: dict[str, Any] = {}
    for name in names:
        base = deep_merge(base, _read_with_includes(folder / name, parents))
    return deep_merge(base, content)


def _set_override(content: dict[str, Any], override: str) -> None:
    path, sign, text = override.partition("=")
    keys = path.strip().split(".")
    if not sign or not all(keys):
        raise ConfigError(
            f"override {override!r} cannot be read; write key=value with dots between keys, such "
            "as cube.bands=[B02,B03]"
        )
    level = content
    for depth, key in enumerate(keys[:-1]):
        inner = level.get(key)
        if inner is not None and not isinstance(inner, dict):
            raise ConfigError(
                f"override {override!r}: {'.'.join(keys[: depth + 1])} holds {inner!r}, which has "
                "no keys; name a section there"
            )
        level[key] = level = {} if inner is None else dict(inner)
    level[keys[-1]] = read_yaml(text, f"override {override!r}")


class _Variables:
    """Fills ``${name}`` from ``vars`` and ``${env:NAME}`` from the environment."""

    def __init__(self, variables: dict[str, Any], origin: str) -> None:
        self._variables = variables
        self._origin = origin

    def fill(self, value: Any, path: str, open_names: tuple[str, ...] = ()) -> Any:
        """Replace the references of all strings inside a value."""
        if isinstance(value, str):
            return self._fill_text(value, path, open_names)
        if isinstance(value, dict):
            return {k: self.fill(part, f"{path}.{k}", open_names) for k, part in value.items()}
        if isinstance(value, list):
            return [self.fill(v, f"{path}[{i}]", open_names) for i, v in enumerate(value)]
        return value

    def _fill_text(self, text: str, path: str, open_names: tuple[str, ...]) -> Any:
        whole = _REFERENCE.fullmatch(text)
        if whole and not whole[1]:
            # A reference alone keeps the type of the variable: `steps: ${steps}` is a number.
            return self._value(whole[2], path, open_names)

        def replace(match: re.Match[str]) -> str:
            if match[1]:
                return match[0][1:]
            value = self._value(match[2], path, open_names)
            if isinstance(value, (dict, list)):
                raise ConfigError(
                    f"{self._origin}: {path}: variable {match[2]!r} holds {value!r}, which cannot "
                    "stand inside a text; let the reference stand alone"
                )
            return str(value).lower() if isinstance(value, bool) else str(value)

        return _REFERENCE.sub(replace, text)

    def _value(self, name: str, path: str, open_names: tuple[str, ...]) -> Any:
        if name.startswith("env:"):
            return self._environment(name.removeprefix("env:"), path)
        if name in open_names:
            chain = " -> ".join((*open_names, name))
            raise ConfigError(
                f"{self._origin}: vars refer to each other: {chain}; break the circle"
            )
        if name not in self._variables:
            near = difflib.get_close_matches(name, list(self._variables), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"add '{name}: ...' under vars"
            raise ConfigError(f"{self._origin}: {path}: unknown variable {name!r}; {hint}")
        return self.fill(self._variables[name], f"vars.{name}", (*open_names, name))

    def _environment(self, name: str, path: str) -> str:
        if name not in os.environ:
            raise ConfigError(
                f"{self._origin}: {path}: environment variable {name!r} is not set; set it, or "
                "write the value"
            )
        return os.environ[name]
