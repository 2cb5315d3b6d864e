"""The model's pipeline."""

from typing import Any


def make_pipeline() -> Any:
    """A linear model of the pixels, each between 0 (paper) and 1 (ink). scikit-learn is imported here, since only training needs it.

    For larger pictures train a network elsewhere, and bring its ONNX file: `tidemill models import`.
    """
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=1.0, max_iter=300)
