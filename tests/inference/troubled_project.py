"""A pipeline for the tests' models that hangs, ends, or gives no number, as the distance of a request says."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

HANGS, ENDS, NO_NUMBER, FAILS = 1001.0, 1002.0, 1003.0, 1004.0
DISTANCE = -3  # the place of the distance among the inputs


class Distant(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """The larger the distance, the more probable."""

    def fit(self, rows: Any, labels: Any) -> Distant:
        """Learns nothing."""
        self.classes_ = np.array([False, True])
        self.n_features_in_ = rows.shape[1]
        return self

    def predict_proba(self, rows: Any) -> Any:
        """Of each row."""
        distance = np.nan_to_num(np.asarray(rows, np.float64)[:, DISTANCE])
        if HANGS in distance:
            time.sleep(3600)
        if ENDS in distance:
            os._exit(3)
        if FAILS in distance:
            raise ValueError("too far")
        true = np.where(distance == NO_NUMBER, np.nan, 1 / (1 + np.exp(-distance / 10)))
        return np.column_stack([1 - true, true])

    def predict(self, rows: Any) -> Any:
        """The more probable."""
        return self.predict_proba(rows)[:, 1] > 0.5
