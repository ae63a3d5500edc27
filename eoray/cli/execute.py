"""Run the stages of a run file: shared by ``run`` and the verb of each stage."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eoray.cli.outcome import Result, run_verb
from eoray.cli.progress import ProgressPrinter

if TYPE_CHECKING:
    from eoray.run import Run


def execute_stages(
    run_file: str,
    overrides: Sequence[str],
    stages: Sequence[str] | None,
    *,
    address: str | None,
    executor: str | None,
    errors: str | None = None,
    as_json: bool,
    debug: bool,
) -> None:
    """Load a run file, run some of its stages and print what they left.

    Args:
        run_file: Path of the run file.
        overrides: ``key=value`` settings.
        stages: Names, or None for all of the task.
        address: Ray cluster, or None for here.
        executor: Where tasks run, or None for the run file's choice.
        errors: What to do with reads that fail, or None for the run file's choice.
        as_json: End stdout with one JSON object.
        debug: Show tracebacks.
    """

    def action() -> Result:
        def work(progress: ProgressPrinter) -> Result:
            run = load(run_file, list(overrides))
            with attempt_of(run):
                report = run.execute(
                    stages,
                    address=address,
                    executor=executor,
                    attempt=os.environ.get("EORAY_ATTEMPT", ""),
                    errors=errors,
                    progress=progress,
                )
            return report.to_dict()

        return with_progress(work)

    run_verb(action, text=summarise_run, as_json=as_json, debug=debug)


def load(run_file: str, overrides: list[str]) -> Run:
    """The run of a file, or of the text in the environment that ``env:NAME`` means."""
    from eoray.run import load_run

    text = text_of(run_file)
    if text is None:
        return load_run(run_file, overrides)
    from eoray.run.session import run_from_text

    return run_from_text(text, Path.cwd(), overrides)


def text_of(run_file: str) -> str | None:
    """The text in the environment that ``env:NAME`` means; None where a file is named."""
    if not run_file.startswith("env:"):
        return None
    from eoray.errors import ConfigError

    name = run_file.removeprefix("env:")
    if name not in os.environ:
        raise ConfigError(f"{run_file!r}: the environment has no {name}; name a run file")
    return os.environ[name]


def attempt_of(run: Run) -> AbstractContextManager[None]:
    """Stop when asked; hold the attempt that the environment of a pod names."""
    from eoray.run.stop import stoppable

    name = os.environ.get("EORAY_ATTEMPT")
    if not name:
        return stoppable()
    from eoray.config import dump_config
    from eoray.masking import secrets_of
    from eoray.run.attempt import AttemptInfo, hold_attempt
    from eoray.run.pod import Pod

    seconds, folder = os.environ.get("EORAY_DEADLINE_S"), os.environ.get("EORAY_POD_FOLDER")
    attempt = AttemptInfo(
        name,
        ray_cluster=os.environ.get("EORAY_RAY_CLUSTER", ""),
        submission=os.environ.get("EORAY_SUBMISSION", ""),
        image=run.config.cluster.image or "",
        deadline_s=float(seconds) if seconds else None,
        pod=Pod(Path(folder)) if folder else None,
        told={
            package: os.environ[variable]
            for package, variable in (("eoray", "EORAY_SUBMITTER"), ("ray", "EORAY_RAY_VERSION"))
            if os.environ.get(variable)
        },
    )
    secrets = secrets_of(os.environ)
    return hold_attempt(run.paths, attempt, run_file=dump_config(run.config), secrets=secrets)


def with_progress(work: Callable[[ProgressPrinter], Result]) -> Result:
    """Do some work with progress on stderr, and leave its line whatever happens."""
    progress = ProgressPrinter()
    try:
        return work(progress)
    finally:
        progress.close()


def summarise_run(result: Result) -> str:
    """Write a run's report for a reader: a line per stage, then its outputs."""
    lines = []
    for stage, report in result["stages"].items():
        lines.append(f"{stage:<10} {_counts(report)}")
        lines += [f"{'':<10} {output}" for output in report.get("outputs", ())]
        if "holes" in report:
            lines.append(f"{'':<10} {_left(report['holes'])}")
    return "\n".join(lines) or "nothing to do: this task has none of these stages"


def _left(holes: Mapping[str, int]) -> str:
    return (
        f"{holes['reads']} failed reads left holes in {holes['tiles']} tiles of a date, recorded; "
        "`eoray heal` reads them again, `eoray heal --list` names them"
    )


def _counts(report: Mapping[str, Any]) -> str:
    parts = [f"{report.get('seconds', 0):.1f} s", f"{report.get('tasks', 0)} tasks"]
    if report.get("skipped"):
        parts.append(f"{report['skipped']} done before")
    if report.get("failed_reads"):
        parts.append(f"{report['failed_reads']} failed reads")
    return ", ".join(parts)
