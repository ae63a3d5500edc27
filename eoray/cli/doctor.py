"""``eoray doctor``: what a cluster serves, allows and lacks; whether a run's data is reached."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eoray.cli.options import AsJson, Context, Debug, Namespace, Overrides
from eoray.cli.outcome import Result, run_verb
from eoray.errors import ConfigError

if TYPE_CHECKING:
    from eoray.config import ClusterSection, RunConfig
    from eoray.k8s.doctor import Finding


def doctor(
    run_file: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN_FILE]",
            help="Try its store, catalogue and scenes too, from where this is asked.",
            show_default=False,
        ),
    ] = None,
    overrides: Overrides = None,
    *,
    namespace: Namespace = None,
    context: Context = None,
    service_account: Annotated[
        str | None,
        typer.Option(help="Account of Ray's pods; the run file's, or eoray-ray."),
    ] = None,
    in_cluster: Annotated[
        bool, typer.Option("--in-cluster", help="From within a pod, with its own account.")
    ] = False,
    access: Annotated[
        bool,
        typer.Option(
            "--access", help="Only what the run file names: for pods that may not ask the cluster."
        ),
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say what a Kubernetes cluster serves, allows and lacks for runs, with remedies.

    With a run file, also whether its store, catalogue and scenes are reached from here.
    """

    def action() -> Result:
        from dataclasses import asdict

        from eoray.cli.options import cluster_section
        from eoray.k8s.client import connect
        from eoray.k8s.doctor import examine

        config = None if run_file is None else _read(run_file, overrides or [])
        if access and config is None:
            raise ConfigError("--access tries what a run file names, and none is given; name one")
        given = cluster_section(namespace, context)
        section = given if config is None else _over(config.cluster, given)
        result: dict[str, object] = {}
        findings: list[Finding] = []
        if not access:
            cluster = connect(section, in_cluster=in_cluster)
            result["namespace"] = cluster.namespace
            account = service_account or section.service_account
            findings += examine(cluster, service_account=account)
        if config is not None:
            findings += _access(config, run_file or "")
        return {
            **result,
            "ok": all(finding.verdict != "bad" for finding in findings),
            "findings": [asdict(finding) for finding in findings],
            "lines": [finding.line() for finding in findings],
        }

    run_verb(
        action,
        text=lambda result: "\n".join(result["lines"]),
        as_json=as_json,
        debug=debug,
        failed=lambda result: not result["ok"],
    )


def _read(run_file: str, overrides: list[str]) -> RunConfig:
    from eoray.cli.execute import text_of
    from eoray.config import load_config, parse_config

    text = text_of(run_file)
    return load_config(run_file, overrides) if text is None else parse_config(text, ".", overrides)


def _over(section: ClusterSection, given: ClusterSection) -> ClusterSection:
    """The run file's cluster, with what the options name."""
    named = {"namespace": given.namespace, "context": given.context}
    return section.model_copy(update={key: value for key, value in named.items() if value})


def _access(config: RunConfig, run_file: str) -> list[Finding]:
    """What the run file names, as far as this installation can ask for it."""
    from eoray.k8s.doctor import Finding

    folder = Path.cwd() if run_file.startswith("env:") else Path(run_file).resolve().parent
    try:
        from eoray.run.access import examine_access

        return examine_access(config, folder)
    except ModuleNotFoundError as error:
        return [
            Finding(
                "store", "unknown", f"{error.name} is not installed here",
                "ask in an image of runs, as `helm test` does with test.runFile",
            )
        ]  # fmt: skip
