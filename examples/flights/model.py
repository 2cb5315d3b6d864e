"""The model's pipeline."""

from typing import Any


def make_pipeline() -> Any:
    """Boosted trees, which take missing values as they are. scikit-learn is imported here, since only training needs it."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=100, max_leaf_nodes=24, learning_rate=0.12, min_samples_leaf=100, max_features=0.3, early_stopping=False, random_state=0
    )
