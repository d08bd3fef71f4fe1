"""How far predictions agree with targets: pure functions of float64 arrays."""

from loso.metrics.agreement import (
    Agreement,
    PanelAgreement,
    SourceAgreement,
    measure_agreement,
    panel_agreement,
)
from loso.metrics.correlation import Correlation, krocc, plcc, srocc
from loso.metrics.error import ci95_of_votes, outlier_ratio, rmse, rmse_star
from loso.metrics.mapping import CubicMapping, map_in_sample, map_out_of_fold
from loso.metrics.resampling import (
    BySource,
    Resampled,
    beats,
    bootstrap,
    jackknife,
    plcc_by_source,
    rmse_by_source,
    rmse_gain_by_source,
    rows_by_source,
)

__all__ = [
    "Agreement",
    "BySource",
    "Correlation",
    "CubicMapping",
    "PanelAgreement",
    "Resampled",
    "SourceAgreement",
    "beats",
    "bootstrap",
    "ci95_of_votes",
    "jackknife",
    "krocc",
    "map_in_sample",
    "map_out_of_fold",
    "measure_agreement",
    "outlier_ratio",
    "panel_agreement",
    "plcc",
    "plcc_by_source",
    "rmse",
    "rmse_by_source",
    "rmse_gain_by_source",
    "rmse_star",
    "rows_by_source",
    "srocc",
]
