"""Accuracy and area of a map from a probability sample; never from held-out labels.

A *validation score* comes from labels kept back while a model was fitted. An *accuracy or area
estimate* comes from a sample whose every pixel had a known chance to be drawn. The two are kept in
different types, different files and different tables; nothing here computes the first.
"""

from __future__ import annotations

from eoray.assess.area import AccuracyTable, Estimate, estimate_accuracy, estimate_from_counts
from eoray.assess.assessment import Assessment, assess_map, estimate_answers, mapped_areas
from eoray.assess.design import SampleDesign, SamplePlan, Stratum, allocate
from eoray.assess.reference import RasterReference
from eoray.assess.sample import MapTile, Sample, buffer_strata, draw_sample, read_sample

__all__ = [
    "AccuracyTable",
    "Assessment",
    "Estimate",
    "MapTile",
    "RasterReference",
    "Sample",
    "SampleDesign",
    "SamplePlan",
    "Stratum",
    "allocate",
    "assess_map",
    "buffer_strata",
    "draw_sample",
    "estimate_accuracy",
    "estimate_answers",
    "estimate_from_counts",
    "mapped_areas",
    "read_sample",
]
