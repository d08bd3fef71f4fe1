"""How far predictions agree with targets: pure functions of float64 arrays."""

from loso.metrics.correlation import Correlation, plcc, srocc
from loso.metrics.error import rmse

__all__ = ["Correlation", "plcc", "rmse", "srocc"]
