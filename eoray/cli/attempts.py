"""Verbs for what was submitted: ``status, wait, logs, cancel, delete, list``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eoray.cli.options import AsJson, Context, Debug, Namespace, cluster_section
from eoray.cli.outcome import Detached, Exit, Result, run_verb
from eoray.cli.submit import end_of, goes_on, say
from eoray.cli.view import keep_view

if TYPE_CHECKING:
    from eoray.k8s.job import Job
    from eoray.run.history import PastAttempt

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="An attempt, or the key or name of its run.")
]


Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="Outputs of the runs: read the record there of what the cluster has forgotten.",
    ),
]


def status(
    name: Name,
    *,
    store: Store = None,
    namespace: Namespace = None,
    context: Context = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say the state of a run on Kubernetes, and why its pods wait."""

    def action() -> Result:
        past, unreached = _past(name, namespace, context, store)
        if past is not None:
            return {**past.summary(), "why": past.warnings, "unreached": unreached}
        job = _find(name, namespace, context)
        found, why = _summary(job), job.explain()
        keep_view(job, waits=bool(why))
        return {**found, "why": why}

    run_verb(
        action,
        text=lambda r: "\n".join([f"{r['name']}  {r['line']}", *(f"  {w}" for w in r["why"])]),
        as_json=as_json,
        debug=debug,
        ends=_end_of_record,
    )


def wait(
    name: Name,
    *,
    timeout: Annotated[float | None, typer.Option(help="Seconds; the run goes on.")] = None,
    namespace: Namespace = None,
    context: Context = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Wait for the end of a run on Kubernetes and leave with its exit code."""

    def action() -> Result:
        with _left_alone(name):
            job = _find(name, namespace, context)
            state = job.wait(timeout, tell=say)
        keep_view(job)
        return job.outcome(state)

    run_verb(action, text=_line, as_json=as_json, debug=debug, ends=end_of)


def logs(
    name: Name,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the run ends.")] = False,
    store: Store = None,
    namespace: Namespace = None,
    context: Context = None,
    debug: Debug = False,
) -> None:
    """Print what the driver of a run on Kubernetes says."""

    def action() -> Result:
        past, unreached = _past(name, namespace, context, store)
        if past is None:
            lines = _find(name, namespace, context).logs(follow=follow, tell=say)
        else:
            lines = past.log()
        with _left_alone(name) if follow else nullcontext():
            for line in lines:
                typer.echo(line)
        return {"unreached": unreached}

    run_verb(action, text=lambda _: None, as_json=False, debug=debug, ends=_end_of_record)


def cancel(
    name: Name,
    *,
    namespace: Namespace = None,
    context: Context = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """End a run on Kubernetes; what is committed stays, the next attempt goes on from there."""

    def action() -> Result:
        job = _find(name, namespace, context)
        return job.outcome(job.cancel(tell=say))

    run_verb(action, text=_line, as_json=as_json, debug=debug)


def delete(
    name: Name,
    *,
    namespace: Namespace = None,
    context: Context = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Delete a run's latest attempt and its pods; the record beside the outputs stays."""

    def action() -> Result:
        job = _find(name, namespace, context)
        keep_view(job)
        return {"name": job.name, "deleted": job.delete()}

    run_verb(action, text=lambda r: f"{r['name']}  deleted", as_json=as_json, debug=debug)


def list_attempts(
    *,
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Only what goes on.")] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Leave with 1 where there is any.")
    ] = False,
    store: Store = None,
    namespace: Namespace = None,
    context: Context = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List the runs on Kubernetes, oldest first."""

    def action() -> Result:
        from eoray.k8s.job import list_jobs
        from eoray.k8s.states import State

        rows = list_jobs(cluster_section(namespace, context))
        if store is not None:
            rows = [*_forgotten(store, {row["name"] for row in rows}), *rows]
        if unfinished:
            rows = [row for row in rows if not State(row["state"]).is_finished]
        return {"attempts": rows}

    def end(result: Result) -> Exit:
        return Exit.FAILED if exit_code and result["attempts"] else Exit.DONE

    run_verb(action, text=_table, as_json=as_json, debug=debug, ends=end)


VERBS = (status, wait, logs, cancel, delete, list_attempts)


def _find(name: str, namespace: str | None, context: str | None) -> Job:
    from eoray.k8s.job import find_job

    return find_job(cluster_section(namespace, context), name)


@contextmanager
def _left_alone(name: str) -> Iterator[None]:
    """Ctrl-C ends the following of a run, not the run."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise Detached(goes_on(name)) from error


def _past(
    name: str, namespace: str | None, context: str | None, store: str | None
) -> tuple[PastAttempt | None, str]:
    """The record of an attempt, where a store is named and the cluster tells nothing.

    Returns:
        None where the cluster knows the attempt; and why the cluster could not be asked, "" where
        it was.
    """
    from eoray.errors import ClusterError
    from eoray.k8s.refusals import AbsentError

    if store is None:
        return None, ""
    unreached = ""
    try:
        _find(name, namespace, context)
    except AbsentError:
        pass
    except ClusterError as error:
        unreached = str(error)
        say(f"what follows is the record alone, it may be older than the run: {unreached}")
    else:
        return None, ""
    from eoray.run.history import find_attempt

    return find_attempt(store, name), unreached


def _end_of_record(result: Result) -> Exit:
    """A record in place of a cluster that could not be asked is no success."""
    return Exit.UNREACHABLE if result.get("unreached") else Exit.DONE


def _forgotten(store: str, known: set[str]) -> list[dict[str, Any]]:
    """Attempts that have a record beside the outputs and no object in the cluster."""
    from eoray.run.history import list_attempts as list_records

    rows = [past.summary() for past in list_records(store)]
    return [row for row in rows if row["name"] not in known]


def _summary(job: Job) -> dict[str, Any]:
    from eoray.k8s.job import summary

    return summary(job.describe())


def _line(result: Result) -> str:
    return f"{result['name']}  {result['line']}"


def _table(result: Result) -> str:
    rows = [
        (row["name"], row["state"], row["reason"], row["created"]) for row in result["attempts"]
    ]
    return table(rows) if rows else "no runs"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
