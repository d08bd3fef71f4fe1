"""Train small video-quality regressors, and judge them on sources they have never seen."""

from __future__ import annotations

__version__ = "0.1.0"
