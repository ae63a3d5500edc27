"""What runs on the test cluster stand on: an archive behind HTTP, S3, a namespace with the chart.

All of it is on this machine: servers listen on the address by which pods see the host.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from eoray.testing import ArchiveOptions, write_archive
from eoray.testing.http import ArchiveServer, archive_server
from eoray.testing.s3 import s3_server
from tests.cluster.cluster import Cluster
from tests.cluster.environment import EORAY_IMAGE

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "helm" / "eoray"
BUCKET = "s3://maps"
NAME = "small"
SECRET = "storage"
TRIED = "tried"
"""Store of the run file with which the chart is installed, for `helm test`."""

ARCHIVE = ArchiveOptions(
    size_px=128,
    years=(2020, 2021),
    dates_per_year=10,
    southern=False,
    neighbour_zone=False,
    block_px=128,
)
"""One tile, twenty dates: 6 MB in 13 s."""

RUN: dict[str, Any] = {
    "version": 1,
    "time": "2020-01-01/2021-12-31",
    "task": "land-cover-change",
    "cube": {"composite": {"method": "geomedian", "period": "P6M", "min_obs": 2}},
    "fit": {
        "time": "2020-01-01/2020-12-31",
        "encoder": "tu-mobilenetv3_small_050",
        "steps": 8,
        "batch_size": 4,
        "checkpoint_every": 2,
        "workers": 2,
    },
    "predict": {"time": "2021-01-01/2021-12-31"},
    "change": {"resolution_m": 20, "allow_mixed": True},
    "publish": {"license": "CC0-1.0", "keywords": ["synthetic"]},
}

CLUSTER: dict[str, Any] = {
    "image": EORAY_IMAGE,
    "secrets": [SECRET],
    "head": {"cpu": 0.5, "memory_gi": 3},
    "workers": [{"name": "readers", "cpu": 0.5, "memory_gi": 2.5, "max": 2}],
    "autoscale": False,
    "deadline_minutes": 25,
    "start_minutes": 10,
    "keep_seconds": 5,
}


@dataclass(frozen=True, slots=True)
class Site:
    """Servers, a namespace with the chart in it, and `eoray` as its user."""

    cluster: Cluster
    namespace: str
    folder: Path
    """For run files."""
    archive: ArchiveServer
    """Serves the archive, and does wrong what a test says."""
    storage: Mapping[str, str]
    """Environment by which libraries find the object store."""
    failures: list[str] = field(default_factory=list)

    @property
    def catalog(self) -> str:
        """Address of the archive."""
        return self.archive.url

    def run_file(self, where: str, /, **sections: Any) -> Path:
        """Write a run file; sections replace or, as mappings, extend the common ones.

        Args:
            where: Name of its store, which no other run has. The run's own name is always the
                same: products carry it.
            sections: What differs from the common run.
        """
        content = {
            **RUN,
            "name": NAME,
            "aoi": f"{self.catalog}/aoi.geojson",
            "source": {
                "catalog": f"{self.catalog}/catalog.json",
                "collection": "sentinel-2-c1-l2a",
                "lineage": {"baseline_min": "02.00", "mixed": True},
            },
            "store": f"{BUCKET}/{where}",
            "cluster": {**CLUSTER, "namespace": self.namespace},
        }
        content["fit"] = {**RUN["fit"], "labels": f"{self.catalog}/labels.geojson"}
        for key, value in sections.items():
            both = isinstance(value, dict) and isinstance(content.get(key), dict)
            content[key] = {**content[key], **value} if both else value
        path = self.folder / f"{where}.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    def eoray(
        self, *words: str | Path, exits: int | None = 0, timeout_s: float = 1500
    ) -> subprocess.CompletedProcess[str]:
        """Run `eoray` as a user of the cluster does.

        Args:
            words: Verb and options.
            exits: The exit code that is right; None takes any.
            timeout_s: Then it is killed.
        """
        done = subprocess.run(
            self.command(*words),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if exits is not None and done.returncode != exits:
            said = f"{done.stdout}\n{done.stderr}"[-4000:]
            raise AssertionError(f"eoray {' '.join(map(str, words))}: {done.returncode}\n{said}")
        return done

    def ask(self, *words: str | Path, exits: int | None = 0) -> dict[str, Any]:
        """Run `eoray ... --json` and give its answer."""
        done = self.eoray(*words, "--json", exits=exits)
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    def command(self, *words: str | Path) -> list[str]:
        """`eoray` of this checkout."""
        return [sys.executable, "-c", "from eoray.cli import main; main()", *map(str, words)]

    @property
    def environment(self) -> dict[str, str]:
        """Of `eoray`: the cluster, the namespace, the object store."""
        kept = {n: v for n, v in os.environ.items() if "proxy" not in n.lower()}
        return {
            **kept,
            **self.storage,
            "KUBECONFIG": str(self.cluster.kubeconfig),
            "EORAY_NAMESPACE": self.namespace,
            "PYTHONPATH": str(REPOSITORY),
        }

    def helm(self, *words: str | Path) -> str:
        """Run helm in the namespace."""
        return self.cluster.helm(self.namespace, *words)

    def pods(self, **labels: str) -> list[dict[str, Any]]:
        """Pods with some labels."""
        chosen = ",".join(f"{key}={value}" for key, value in labels.items())
        options = ("--namespace", self.namespace, "--selector", chosen, "--output", "json")
        found: list[dict[str, Any]] = json.loads(self.cluster.kubectl("get", "pods", *options))[
            "items"
        ]
        return found


@contextmanager
def open_site(cluster: Cluster, folder: Path) -> Iterator[Site]:
    """Serve an archive and an object store to pods, and install the chart in a namespace.

    Args:
        cluster: Runs, with the images imported and an operator.
        folder: For the archive and run files.
    """
    host = cluster.slot.host_ip
    archive = folder / "archive"
    if not (archive / "catalog.json").exists():
        write_archive(archive, ARCHIVE, workers=2)
    namespace = f"maps-{uuid.uuid4().hex[:6]}"
    with ExitStack() as stack:
        s3 = stack.enter_context(s3_server(host))
        http = stack.enter_context(archive_server(archive, host=host))
        site = Site(cluster, namespace, folder, http, s3.environment)
        _make_namespace(site)
        stack.callback(cluster.kubectl, "delete", "namespace", namespace, "--wait=false")
        repository, tag = EORAY_IMAGE.rsplit(":", 1)
        images = [f"image.{part}{key}={value}" for part in ("", "submit.")
                  for key, value in (("repository", repository), ("tag", tag))]  # fmt: skip
        values = [word for value in images for word in ("--set-string", value)]
        values += ["--set", "ray.autoscaling=false"]
        values += ["--set-file", f"test.runFile={site.run_file(TRIED)}"]
        site.helm("install", "eoray", CHART, *values)
        yield site


def _make_namespace(site: Site) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    site.cluster.kubectl.apply(
        {"apiVersion": "v1", "kind": "Namespace",
         "metadata": {"name": site.namespace, "labels": labels}},
        {"apiVersion": "v1", "kind": "Secret", "stringData": dict(site.storage),
         "metadata": {"name": SECRET, "namespace": site.namespace}},
    )  # fmt: skip
