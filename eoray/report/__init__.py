"""The report of a run: one self-contained page, and the same content as JSON."""

from __future__ import annotations

from eoray.report.data import (
    ArchiveAudit,
    CadenceRow,
    ChangeSummary,
    FalseAlarms,
    InputSummary,
    LineageRow,
    ReportData,
    ReportView,
    SkippedRow,
    StageRow,
    ValidationScore,
)
from eoray.report.page import write_report
from eoray.report.views import ViewRequest, Views, read_views

__all__ = [
    "ArchiveAudit",
    "CadenceRow",
    "ChangeSummary",
    "FalseAlarms",
    "InputSummary",
    "LineageRow",
    "ReportData",
    "ReportView",
    "SkippedRow",
    "StageRow",
    "ValidationScore",
    "ViewRequest",
    "Views",
    "read_views",
    "write_report",
]
