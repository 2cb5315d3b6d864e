"""The model's pipeline."""

from typing import Any


def make_pipeline() -> Any:
    """Words and pairs of words, weighed, beside the numbers. scikit-learn is imported here, since only training needs it."""
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    numbers = make_pipeline(SimpleImputer(strategy="constant", fill_value=0.0), StandardScaler())
    columns = ColumnTransformer([("words", words, "text"), ("numbers", numbers, ["senders__count_7d"])])
    return make_pipeline(columns, LogisticRegression(C=10.0, max_iter=500))
