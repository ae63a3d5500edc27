"""The run file: what a user asks for, checked before anything is read or written."""

from __future__ import annotations

from eoray.config.cluster import ClusterSection, WorkerGroup
from eoray.config.fields import resolve_path
from eoray.config.load import (
    config_key,
    dump_config,
    load_config,
    local_paths,
    parse_config,
    run_file_schema,
    with_absolute_paths,
)
from eoray.config.models import STAGES, FallbackSection, MaskSection, RunConfig
from eoray.config.template import write_template

__all__ = [
    "STAGES",
    "ClusterSection",
    "FallbackSection",
    "MaskSection",
    "RunConfig",
    "WorkerGroup",
    "config_key",
    "dump_config",
    "load_config",
    "local_paths",
    "parse_config",
    "resolve_path",
    "run_file_schema",
    "with_absolute_paths",
    "write_template",
]
