"""Which function runs which stage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eoray.run.change_stage import run_change
from eoray.run.learn_stages import run_fit, run_predict
from eoray.run.product_stages import run_assess, run_publish, run_report
from eoray.run.stages import StageContext, run_cube

RUNNERS: dict[str, Callable[[StageContext], dict[str, Any]]] = {
    "cube": run_cube,
    "fit": run_fit,
    "predict": run_predict,
    "change": run_change,
    "assess": run_assess,
    "publish": run_publish,
    "report": run_report,
}
