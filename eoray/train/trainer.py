"""Fit a plan in this process or with Ray Train, and package the result."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eoray.buckets import known_buckets, use_buckets
from eoray.chips.dataset import ChipReader, LabelStatistics, measure_labels, polygons_of
from eoray.errors import ClusterError, ConfigError, ModelError
from eoray.models.package import PackageMeta, load_package, save_package
from eoray.storage import is_local, join, local_path, read_json, write_json
from eoray.train.notice import notice_of
from eoray.train.plan import FitPlan
from eoray.train.resume import latest_step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from eoray.buckets import Bucket
    from eoray.train.loop import Progress, Team, Trained


THROUGHPUT = "throughput.json"
"""Beside the checkpoints: clock times never enter the package."""

_CHECK_S = 1.0
"""Between two looks at whether a fit may go on, while Ray trains."""

_END_S = 15.0
"""To end a training in order; it takes two seconds."""


@dataclass(frozen=True, slots=True)
class FitResult:
    """What a fit left behind."""

    path: str
    """Folder of the package: ``model.safetensors`` and ``item.json``."""
    metrics: dict[str, Any]
    """Validation score, with ``nearest_mean`` beside it."""
    seconds: float
    steps: int
    chips_per_second: float
    """Of the steps of this run, over all workers, reading included."""
    resumed_from: int
    """Steps found in a checkpoint; equal to ``steps`` where the finished package was there."""


def fit(
    plan: FitPlan,
    *,
    out: str | Path,
    workers: int = 1,
    executor: str = "inline",
    progress: Progress | None = None,
    use_gpu: bool = False,
    check: Callable[[], None] = lambda: None,
) -> FitResult:
    """Train by a plan and write the package. Run it again after any interruption.

    Args:
        plan: From ``plan_fit``.
        out: Folder or object-store prefix of the model; checkpoints lie below it. All workers
            must see it.
        workers: Training processes; more than one needs ``executor="ray"``.
        executor: ``inline`` (this process) or ``ray`` (Ray must be started).
        progress: Called with steps done, steps in all, loss, chips per second; inline only.
        use_gpu: Train on GPUs, one per worker.
        check: Called at each step, or each second while Ray trains; what it raises ends the
            training on all workers.

    Returns:
        Where the package lies, and its scores. A finished package of the same plan is kept.

    Raises:
        ConfigError: ``executor`` and ``workers`` do not go together.
        ClusterError: Ray Train gave up.
    """
    began = time.perf_counter()
    out = str(out)
    _check_workers(plan, workers, executor)
    key = f"{plan.key}-{workers}"
    done = _finished(out, key)
    if done is not None:
        steps = plan.options.steps
        return FitResult(out, dict(done), time.perf_counter() - began, steps, 0.0, steps)
    checkpoints = join(out, "checkpoint", key)
    resumed_from = latest_step(checkpoints) or 0
    statistics = _measure(plan)
    job = _Job(plan, statistics, out, key, use_gpu=use_gpu)
    if executor == "inline":
        metrics = _run_inline(job, progress, check)
    else:
        metrics = _run_ray(job, workers, check)
    seconds, rate = time.perf_counter() - began, read_json(join(checkpoints, THROUGHPUT))
    return FitResult(
        out, metrics, seconds, plan.options.steps, rate["chips_per_second"], resumed_from
    )


def _check_workers(plan: FitPlan, workers: int, executor: str) -> None:
    if executor not in ("inline", "ray"):
        raise ConfigError(f"fit cannot run on executor {executor!r}; take 'inline' or 'ray'")
    if workers < 1 or (executor == "inline" and workers > 1):
        raise ConfigError(
            f"fit was asked for {workers} workers on executor {executor!r}; one process holds one "
            "worker, so take executor 'ray' for more"
        )
    if plan.options.batch_size % workers:
        raise ConfigError(
            f"fit.batch_size {plan.options.batch_size} cannot be divided among {workers} workers; "
            "take a multiple"
        )


def _finished(out: str, key: str) -> dict[str, Any] | None:
    """Scores of a package that this very plan made, else None."""
    try:
        package = load_package(out)
    except ModelError:
        # None there, or killed between weights and item: fit writes both again
        return None
    if package.meta.training.get("key") != key:
        return None
    return dict(package.meta.metrics)


def _measure(plan: FitPlan) -> LabelStatistics:
    reader = ChipReader(
        plan.source,
        plan.recipe,
        plan.seasons,
        polygons_of(plan.labels.polygons, plan.split, "training"),
        border_m=plan.options.border_m,
    )
    return measure_labels(
        reader,
        plan.training,
        plan.labels.class_of,
        n_classes=len(plan.labels.legend.names),
        seed=plan.options.seed,
    )


@dataclass(frozen=True, slots=True)
class _Job:
    """What every worker gets."""

    plan: FitPlan
    statistics: LabelStatistics
    out: str
    key: str
    use_gpu: bool

    def run(self, team: Team | None, progress: Progress | None) -> Trained:
        """Train, and package on the first worker."""
        from eoray.train.loop import train

        checkpoints = join(self.out, "checkpoint", self.key)
        trained = train(self.plan, self.statistics, checkpoints, team, progress=progress)
        if team is None or team.rank == 0:
            rate = {"chips_per_second": round(trained.chips_per_second, 2)}
            write_json(join(checkpoints, THROUGHPUT), rate)
            save_package(self.out, trained.model, self._meta(trained))
        return trained

    def _meta(self, trained: Trained) -> PackageMeta:
        from importlib.metadata import version

        plan = self.plan
        options = asdict(plan.options)
        options["labels"] = Path(plan.options.labels).name
        return PackageMeta(
            name=plan.name,
            spec=plan.spec,
            recipe=plan.recipe,
            normal=self.statistics.normalisation(),
            legend=plan.labels.legend,
            seasons=tuple(season.key for season in plan.seasons),
            bbox=_bbox(plan),
            chip_px=plan.options.chip_px,
            metrics=trained.metrics,
            training={
                "key": self.key,
                "options": options,
                "seed": plan.options.seed,
                "labels_hash": plan.labels_hash,
                "input_digest": plan.input_digest,
                "code_version": version("eoray"),
                "torch_version": _torch_version(),
                "plan": plan.to_dict(),
            },
        )


def _torch_version() -> str:
    import torch

    return str(torch.__version__)


def _bbox(plan: FitPlan) -> tuple[float, float, float, float]:
    """Lon/lat box of the tiles, rounded outward to 1e-6 degrees."""
    import math

    from pyproj import Transformer

    boxes = [
        Transformer.from_crs(t.epsg, 4326, always_xy=True).transform_bounds(*t.bounds)
        for t in plan.tiles
    ]
    west, south, east, north = zip(*boxes, strict=True)
    low = (math.floor(min(west) * 1e6) / 1e6, math.floor(min(south) * 1e6) / 1e6)
    return (*low, math.ceil(max(east) * 1e6) / 1e6, math.ceil(max(north) * 1e6) / 1e6)


def _run_inline(job: _Job, progress: Progress | None, check: Callable[[], None]) -> dict[str, Any]:
    device = "cuda" if job.use_gpu else "cpu"
    from eoray.train.loop import Team

    team = Team(device=device, notice=notice_of(os.environ), check=check)
    return job.run(team, progress).metrics


def _run_ray(job: _Job, workers: int, check: Callable[[], None]) -> dict[str, Any]:
    """Train in a task beside this process, which looks on: Ray Train's own wait ends for nobody."""
    import shutil
    from tempfile import mkdtemp

    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # one call for each process: Ray Train leaves its handler of SIGINT behind
    task = ray.remote(num_cpus=0, max_retries=0, max_calls=1)(_train)
    # Ray Train's own notes, of no use later; no checkpoint goes through it, so where the model lies
    # in an object store a folder that only the controller sees (it runs beside this) is enough
    folder = (local_path(job.out) / "ray").resolve() if is_local(job.out) else Path(mkdtemp())
    training = task.options(scheduling_strategy=here).remote(
        job, workers, str(folder), known_buckets()
    )
    try:
        while not ray.wait([training], timeout=_CHECK_S)[0]:
            check()
        failure = ray.get(training)
    except BaseException:
        _end(training)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if failure is not None:
        raise ClusterError(
            f"Ray Train gave up on {job.plan.name!r} after 3 restarts: {failure}; mend the "
            "cause and run fit again, it goes on from the last checkpoint"
        ) from failure
    return dict(load_package(job.out).meta.metrics)


def _end(training: Any) -> None:
    """Let Ray Train do as at Ctrl-C: it ends its workers, and gives back what they held."""
    import ray

    ray.cancel(training)
    if not ray.wait([training], timeout=_END_S)[0]:
        # what it began ends with the process that owns it, but keeps its place until the job ends
        ray.cancel(training, force=True)


def _train(job: _Job, workers: int, folder: str, buckets: Mapping[str, Bucket]) -> Exception | None:
    """Train by Ray Train; gives what it gave up for."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    trainer = TorchTrainer(
        ray_worker(),
        train_loop_config={"job": job, "buckets": buckets},
        torch_config=TorchConfig(backend="nccl" if job.use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=job.use_gpu,
            resources_per_worker={
                "CPU": job.plan.options.torch_threads,
                **({"GPU": 1} if job.use_gpu else {}),
            },
        ),
        run_config=RunConfig(
            name=job.key, storage_path=folder, failure_config=FailureConfig(max_failures=3)
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        return error
    return None


def ray_worker() -> Callable[[dict[str, Any]], None]:
    """Give the function that Ray Train runs on each worker."""

    def work(config: dict[str, Any]) -> None:
        import ray.train
        import torch.distributed as dist
        from ray.train.torch import get_device, prepare_model

        from eoray.train.loop import Team

        context = ray.train.get_context()
        rank, world = context.get_world_rank(), context.get_world_size()

        def add(tensor: Any) -> Any:
            if world > 1:
                dist.all_reduce(tensor)
            return tensor

        def wrap(model: Any) -> Any:
            # decoders leave the deepest layers of some encoders without a gradient
            unused = {"find_unused_parameters": True}
            return prepare_model(model, parallel_strategy_kwargs=unused) if world > 1 else model

        def report(metrics: dict[str, Any]) -> None:
            ray.train.report(metrics)

        notice = notice_of(os.environ)
        team = Team(rank, world, str(get_device()), wrap, add, report, notice)
        use_buckets(config["buckets"])
        config["job"].run(team, None)

    return work
