"""The model's pipeline."""

from typing import Any


def make_pipeline() -> Any:
    """Boosted trees, with a column for each channel. scikit-learn is imported here, since only training needs it."""
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["channel"]),
        ("passthrough", make_column_selector(pattern="^(?!channel$)")),
        sparse_threshold=0,
    )
    return make_pipeline(columns, HistGradientBoostingClassifier(max_depth=3, max_iter=60, min_samples_leaf=10, random_state=0))
