"""Change: where, when and by how much the seasonal course of a pixel broke."""

from __future__ import annotations

from eoray.change.detect import detect_breaks, last_break_date, warm_up
from eoray.change.flags import ChangeFlag
from eoray.change.parameters import ChangeParameters, default_bands
from eoray.change.product import change_product
from eoray.change.stage import ChangeRow, ChangeWorker, check_lineage, plan_change

__all__ = [
    "ChangeFlag",
    "ChangeParameters",
    "ChangeRow",
    "ChangeWorker",
    "change_product",
    "check_lineage",
    "default_bands",
    "detect_breaks",
    "last_break_date",
    "plan_change",
    "warm_up",
]
