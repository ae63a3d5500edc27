"""``eoray doctor``: what a cluster serves, allows and lacks."""

from __future__ import annotations

from typing import Annotated

import typer

from eoray.cli.options import AsJson, Context, Debug, Namespace
from eoray.cli.outcome import Result, run_verb


def doctor(
    *,
    namespace: Namespace = None,
    context: Context = None,
    service_account: Annotated[str, typer.Option(help="Account of Ray's pods.")] = "eoray-ray",
    in_cluster: Annotated[
        bool, typer.Option("--in-cluster", help="From within a pod, with its own account.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say what a Kubernetes cluster serves, allows and lacks for runs, with remedies."""

    def action() -> Result:
        from dataclasses import asdict

        from eoray.cli.options import cluster_section
        from eoray.k8s.client import connect
        from eoray.k8s.doctor import examine

        cluster = connect(cluster_section(namespace, context), in_cluster=in_cluster)
        findings = examine(cluster, service_account=service_account)
        return {
            "namespace": cluster.namespace,
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
