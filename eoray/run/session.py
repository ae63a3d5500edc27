"""A run: load its file, say what it would do, do it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eoray import storage
from eoray.buckets import use_buckets
from eoray.cube import store
from eoray.errors import ConfigError
from eoray.execute import Executor, cluster_ray, local_ray, resolve_address, resolve_executor
from eoray.log import get_logger
from eoray.run.driver import Driver, Wave, fence_store
from eoray.run.estimate import PlanReport, scenes_of
from eoray.run.heal import STAGES as HEALING
from eoray.run.heal import HoleFilter
from eoray.run.lease import Watch, hold_store
from eoray.run.probe import probe_store
from eoray.run.record import RunPaths, RunReport, merge_record, read_record, versions
from eoray.run.stages import Manner

if TYPE_CHECKING:
    from eoray.config import RunConfig
    from eoray.run.heal import Holes
    from eoray.run.planning import CubePlan
    from eoray.run.scale import ClusterSize, Scale

Progress = Callable[[str, int, int], None]


def load_run(path: str | Path, overrides: Sequence[str] = ()) -> Run:
    """Read a run file.

    Args:
        path: YAML file; relative paths in it start at its folder.
        overrides: Dotted settings, such as ``cube.bands=[B04, B08]``.

    Raises:
        ConfigError: The file cannot be used; the key and a remedy are named.
    """
    from eoray.config import load_config

    return _run_of(load_config(path, overrides), Path(path).resolve().parent)


def run_from_text(text: str, folder: Path, overrides: Sequence[str] = ()) -> Run:
    """Read a resolved run file from text; relative paths start at ``folder``."""
    from eoray.config import parse_config

    return _run_of(parse_config(text, folder, overrides), folder)


def _run_of(config: RunConfig, folder: Path) -> Run:
    use_buckets({url: section.bucket() for url, section in config.storage.items()})
    return Run(config, folder)


@dataclass(frozen=True, slots=True)
class Run:
    """A run file and the folder it stands in."""

    config: RunConfig
    folder: Path

    @property
    def paths(self) -> RunPaths:
        """Where the run keeps things."""
        from eoray.config import config_key

        return RunPaths(self.resolve(self.config.store), self.config.name, config_key(self.config))

    def resolve(self, path: str) -> str:
        """A path of the run file as an absolute one; URLs pass."""
        from eoray.config import resolve_path

        return resolve_path(path, self.folder)

    def plan(
        self,
        stages: Sequence[str] | None = None,
        *,
        probe: int = 0,
        audit: bool = False,
        also: Sequence[str] = (),
        nodes: Sequence[int] | None = None,
    ) -> PlanReport:
        """Say what the run would do, without reading a pixel or writing anything.

        Args:
            stages: Some of the run's stages; None for all.
            probe: Items whose headers are read, which say how many bytes their pixels take;
                0 asks no server but the catalogue.
            audit: Ask the catalogue, without the run's filters, for the passes that are missing.
            also: Further collections of the catalogue to ask for them.
            nodes: Sizes of a cluster to reckon hours and cost for; None: some, where the run file
                has a section ``cluster``.

        Raises:
            EorayError: What would stop the run before it begins.
        """
        from eoray.run.forecast import forecast_cube
        from eoray.run.planning import audit_elsewhere
        from eoray.run.scale import cluster_lines

        chosen = self.resolve_stages(stages)
        cube = self.plan_cube(freeze=False)
        lacking, asked = (
            audit_elsewhere(self, cube, also) if audit or also else (cube.audit, list[str]())
        )
        workers = self.config.run.workers
        cpus = workers if isinstance(workers, int) else os.cpu_count() or 1
        forecast, minutes = forecast_cube(cube, probe, cpus)
        sizes = self._on_cluster(minutes * cpus / 60, nodes)
        return PlanReport(
            scenes=len(scenes_of(cube.rows)),
            dates=len({entry.key for entries in cube.entries.values() for entry in entries}),
            tiles=cube.rows.n_tiles,
            tasks=len(cube.rows),
            requests=forecast.requests,
            bytes=forecast.bytes,
            minutes=minutes,
            details={
                "based_on": forecast.based_on,
                "stages": list(chosen),
                "lineage": cube.lineage.to_dict(),
                "audit": lacking.to_dict(),
                "skipped": [
                    {"item": skipped.item_id, "reason": skipped.reason}
                    for skipped in cube.resolution.skipped
                ],
                "cluster": [size.to_dict() for size in sizes],
                "notes": [
                    *cube.lineage.lines(),
                    *lacking.lines(),
                    *asked,
                    *cube.resolution.notes,
                    f"stages    {', '.join(chosen)}",
                    f"based on  {forecast.based_on}",
                    *cluster_lines(sizes),
                ],
            },
        )

    def size_up(self, nodes: Sequence[int] | None = None) -> Scale:
        """Say what the cube of the run's place needs, from the orbits alone.

        No catalogue is asked, so the place may be a country or all land.

        Args:
            nodes: Sizes of a cluster to reckon hours and cost for; None: some.

        Raises:
            ConfigError: The place or the bands cannot be used.
        """
        from eoray.run.aoi import resolve_aoi
        from eoray.run.scale import NODES, size_up
        from eoray.sentinel2 import resolve_bands

        config = self.config
        aoi = resolve_aoi(config.aoi, self.folder, config.cube.own_grid)
        scale = size_up(aoi.tiles, resolve_bands(config.cube.bands), *config.days.bounds)
        return replace(scale, cluster=tuple(self._on_cluster(scale.core_hours, nodes or NODES)))

    def _on_cluster(self, core_hours: float, nodes: Sequence[int] | None) -> list[ClusterSize]:
        """Sizes to reckon; none where nobody asks for a cluster."""
        from eoray.run.scale import NODES, on_cluster

        if nodes is None and "cluster" not in self.config.model_fields_set:
            return []
        return on_cluster(core_hours, self.config.cluster, nodes or NODES)

    def explain(self, tile: str, day: str) -> list[dict[str, Any]]:
        """Say what one tile of one day reads: items, files, windows, internal tiles, bytes.

        Headers are read, no pixels.

        Args:
            tile: Id, such as ``z32r0457c048``.
            day: UTC day, or the key of a datatake.

        Returns:
            A row for each datatake: ``entry, time, tile, files``.

        Raises:
            ConfigError: The run reads nothing there on that day; what is near is named.
        """
        from eoray.run.explain import explain_reads

        cube = self.plan_cube(freeze=False)
        return explain_reads(cube.rows, cube.recipe.bands, tile, day)

    def plan_cube(self, *, freeze: bool) -> CubePlan:
        """Resolve the scenes and tasks of the cube stage."""
        from eoray.run.planning import plan_cube

        return plan_cube(self, freeze=freeze)

    def resolve_stages(self, stages: Sequence[str] | None) -> tuple[str, ...]:
        """Stages to run, in order.

        Raises:
            ConfigError: A stage is unknown.
        """
        from eoray.run.stages import STAGES

        own = self.config.stages()
        if stages is None:
            return tuple(s for s in STAGES if s in (*own, "report"))
        unknown = [s for s in stages if s not in STAGES]
        if unknown:
            raise ConfigError(f"stage {unknown[0]!r} is unknown; stages are {', '.join(STAGES)}")
        return tuple(s for s in STAGES if s in stages)

    def execute(
        self,
        stages: Sequence[str] | None = None,
        *,
        address: str | None = None,
        executor: str | None = None,
        attempt: str = "",
        errors: str | None = None,
        progress: Progress | None = None,
    ) -> RunReport:
        """Run the stages; what is done already is found in the ledger and skipped.

        Args:
            stages: Some of the run's stages; None for all.
            address: None runs here, with the executor chosen by the plan's size and a fresh
                local Ray where Ray is used; ``auto`` uses the Ray cluster that this process
                runs in, or that RAY_ADDRESS names; ``ray://host:port`` runs on that cluster and
                follows it.
            executor: ``inline``, ``threads`` or ``ray``; None takes the run file's.
            attempt: Name of the attempt on a cluster that this process works for.
            errors: ``raise`` ends the run at the first read that fails, ``record`` leaves a
                recorded hole; None does as the run file says, which is ``record`` by default.
            progress: Called with (stage, done, total).

        Raises:
            EorayError: The first thing that stopped the run; the last commit stands.
        """
        manner = Manner(_checked_errors(errors))
        return self._execute(stages, address, executor, attempt, progress, manner)

    def heal(
        self,
        stages: Sequence[str] | None = None,
        *,
        holes: HoleFilter | None = None,
        address: str | None = None,
        executor: str | None = None,
        attempt: str = "",
        progress: Progress | None = None,
    ) -> RunReport:
        """Read again what could not be read, and remake what was made of it.

        Only tiles with holes are made again, each whole, so that a healed cube is the one that a
        run without failures makes. What fails again stays recorded, with all its attempts.

        Args:
            stages: Some of the run's stages; None for the cube and those after it that were run,
                except for ``fit`` and ``assess``.
            holes: Which of them; None for all.
            address: As in :meth:`execute`.
            executor: As in :meth:`execute`.
            attempt: As in :meth:`execute`.
            progress: Called with (stage, done, total).

        Returns:
            ``stages["cube"]["holes"]`` counts what is left, and is missing where nothing is.

        Raises:
            EorayError: The first thing that stopped the run; the last commit stands.
        """
        wanted = holes or HoleFilter()
        return self._execute(stages, address, executor, attempt, progress, Manner("record", wanted))

    def find_holes(self, holes: HoleFilter | None = None) -> Holes:
        """List the failed reads of the run, and the rows that :meth:`heal` would read again.

        Args:
            holes: Which of them; None for all.

        Raises:
            StoreError: The cube stage never ran.
        """
        from eoray.cube.read import CubeReader, CubeSource
        from eoray.run.heal import find_holes

        reader = CubeReader(CubeSource(self.paths.repository))
        return find_holes(reader, self.plan_cube(freeze=False).rows, holes or HoleFilter())

    def _execute(
        self,
        stages: Sequence[str] | None,
        address: str | None,
        executor: str | None,
        attempt: str,
        progress: Progress | None,
        manner: Manner,
    ) -> RunReport:
        address = resolve_address(address or self.config.run.address)
        if address is not None and address.startswith("ray://"):
            return self._execute_remote(address, stages, progress, manner)
        if manner.heal is None:
            chosen = self.resolve_stages(stages)
        elif not self.find_holes(manner.heal).rows:
            return RunReport(self.paths.name, self.paths.key)
        else:
            chosen = self._healing_stages(stages)
        return self._execute_here(chosen, address, executor, attempt, progress, manner)

    def _healing_stages(self, stages: Sequence[str] | None) -> tuple[str, ...]:
        """The cube, and what was made of it already."""
        if stages is not None:
            return self.resolve_stages(("cube", *stages))
        made = {"cube", *read_record(self.paths).get("stages", {})}
        return tuple(stage for stage in HEALING if stage in made)

    def _execute_here(
        self,
        stages: Sequence[str],
        address: str | None,
        executor: str | None,
        attempt: str,
        progress: Progress | None,
        manner: Manner,
    ) -> RunReport:
        from eoray.run.checks import check_stages
        from eoray.run.runners import RUNNERS
        from eoray.run.stages import StageContext

        begun = time.monotonic()
        paths = self.paths
        report = RunReport(paths.name, paths.key)
        probe_store(paths.store)
        lease, watch = self.config.run.lease, Watch()
        fence = partial(fence_store, paths.repository)
        with hold_store(
            paths.store, paths.key, attempt=attempt, manner=lease, fence=fence, watch=watch
        ) as holder:
            context = StageContext(self, paths, stages, manner=manner)
            check_stages(context, stages)
            pool = self._executor(context, executor, address)
            self._write_run_file(paths)
            with self._ray(pool, address):
                repository = store.open_repository(paths.repository, create=True)
                wave = Wave(self.config.run.wave_shards, self.config.run.wave_seconds)
                context.driver = Driver(repository, holder, pool, wave, progress, watch)
                for stage in stages:
                    watch.check()
                    get_logger().info("stage", stage=stage, run=paths.key)
                    started = time.monotonic()
                    outcome = RUNNERS[stage](context)
                    outcome["seconds"] = round(time.monotonic() - started, 2)
                    report.stages[stage] = outcome
                    merge_record(paths, stages={stage: outcome})
        report.seconds = time.monotonic() - begun
        merge_record(paths, versions=versions(), name=paths.name)
        return report

    def _executor(self, context: Any, executor: str | None, address: str | None) -> Executor:
        settings = self.config.run
        return resolve_executor(
            executor or settings.executor,
            settings.workers if isinstance(settings.workers, int) else None,
            context.n_tasks(),
            address,
            os.cpu_count() or 1,
        )

    def _ray(self, pool: Executor, address: str | None) -> AbstractContextManager[None]:
        if pool.name != "ray":
            return nullcontext()
        if address is not None:
            return cluster_ray(address)
        # all workers of a fit run at once: with fewer CPUs Ray would wait for them for ever
        fit = self.config.fit
        return local_ray(max(pool.workers, fit.workers * fit.threads))

    def _write_run_file(self, paths: RunPaths) -> None:
        from eoray.config import dump_config

        storage.write_bytes(paths.run_file, dump_config(self.config).encode())

    def _execute_remote(
        self,
        address: str,
        stages: Sequence[str] | None,
        progress: Progress | None,
        manner: Manner,
    ) -> RunReport:
        from eoray.config import dump_config
        from eoray.run.client import execute_remote

        paths = self.paths
        here = self.config.model_copy(
            update={"run": self.config.run.model_copy(update={"address": None})}
        )
        result = execute_remote(
            address,
            # never taken for the run itself, if that goes on
            key=paths.key if manner.heal is None else f"{paths.key}-heal",
            run_file=dump_config(here),
            folder=str(self.folder),
            local_paths=self._local_paths(),
            stages=None if stages is None else list(stages),
            manner=manner,
            progress=progress,
        )
        return RunReport(result["name"], result["key"], result["stages"], result["seconds"])

    def _local_paths(self) -> dict[str, str]:
        """Everything local that the run file names, to be checked on the cluster."""
        from eoray.config import local_paths

        if storage.is_local(self.paths.store):
            Path(self.paths.store).mkdir(parents=True, exist_ok=True)
        return local_paths(self.config, self.folder)


def _checked_errors(errors: str | None) -> str | None:
    if errors not in (None, "record", "raise"):
        raise ConfigError(f"errors {errors!r} is unknown; say 'record' or 'raise'")
    return errors


def with_config(run: Run, **updates: Any) -> Run:
    """A run with some top-level sections replaced."""
    return replace(run, config=run.config.model_copy(update=updates))
