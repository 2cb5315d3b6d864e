"""Pipelines that ONNX cannot serve, served by themselves: refused by default with a line that says so, and then the same bits as the pipeline."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder
from tests.demo_state import NOW_MS, saved
from tests.training.test_parity import INPUTS, MODEL, examples
from threadpoolctl import threadpool_limits

from tidemill.attribution.loading import load_explainer
from tidemill.declarations.project import load_project
from tidemill.errors import ArtifactError, TidemillError
from tidemill.models.artifact import Artifact, PythonEngine, inputs_of, load_artifact, save_artifact
from tidemill.models.engine import load_engine
from tidemill.training.dataset import Floats, TrainingSet
from tidemill.training.fitting import outputs
from tidemill.training.version import Version, make_version

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
NAMES = [item.name for item in INPUTS]
NUMBERS = [item.name for item in INPUTS if not item.is_category]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As many threads as a worker has: with others the last bits of a sum may be others."""
    with threadpool_limits(1):
        yield


def clipped(rows: Any) -> Any:
    """A function of a project."""
    return np.clip(np.asarray(rows, np.float64), -1.0, 1.0)


class BatchCentred(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A step whose answer to a row depends on the rows beside it, as no served model may."""

    def fit(self, rows: Any, labels: Any = None) -> BatchCentred:
        """Learns nothing."""
        return self

    def transform(self, rows: Any) -> Any:
        """Less the mean of what it was given."""
        return rows - rows.mean(axis=0)


def neighbours() -> Any:
    """A step that has no ONNX form, and a function of one's own."""
    return make_pipeline(KNNImputer(n_neighbors=3), FunctionTransformer(clipped), LogisticRegression())


def by_name() -> Any:
    """Columns by name, texts among them, and threads."""
    return make_pipeline(
        make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["payment"]), (KNNImputer(), NUMBERS)),
        RandomForestClassifier(4, n_jobs=2, random_state=0),
    )


def version_of(pipeline: Any, data: TrainingSet | None = None, engine: Any = "python", notes: list[str] | None = None) -> Version:
    """A version as training makes it."""
    model = dataclasses.replace(MODEL, pipeline=pipeline, engine=engine)
    return make_version(model, examples(120, 0.05) if data is None else data, NOW_MS, (notes if notes is not None else []).append)


def expected(version: Version, rows: Floats) -> Floats:
    """What the pipeline answers to rows one by one."""
    fitted = version.fitted
    ask = [outputs(fitted.pipeline, fitted.given(row.reshape(1, -1)), probability=fitted.probability) for row in rows]
    return np.concatenate(ask)


def nasty() -> Floats:
    """Rows of a request: all missing, texts never seen, numbers at the ends of float32."""
    rows = np.repeat(examples(40, 0.3).matrix, 2, axis=0)
    rows[0] = np.nan
    rows[1, NAMES.index("payment")] = 3  # of a data frame the text that was not there
    rows[2:4, NAMES.index("distance")] = [1e30, -1e30]
    return rows


@pytest.mark.parametrize("pipeline", [neighbours, by_name])
def test_a_worker_answers_what_its_pipeline_answers(tmp_path: Path, pipeline: Any) -> None:
    """Stored, loaded again and asked: each bit, row by row, by whatever way rows are asked for."""
    notes: list[str] = []
    version = version_of(pipeline, notes=notes)
    assert "python engine is slower" in " ".join(notes)
    record = saved(str(tmp_path), version.artifact)
    artifact = load_artifact(str(tmp_path), record.artifact, record.sha256)
    assert artifact == version.artifact
    engine, rows = load_engine(artifact), nasty()
    if pipeline is neighbours:
        rows = np.where(rows == 3, np.float32(1), rows)
    wanted = expected(version, rows)
    assert [engine.predict(row) for row in rows] == wanted.tolist()
    assert engine.each(rows).tolist() == wanted.tolist()
    manifest = artifact.manifest
    assert manifest.own_pipeline is not None
    assert manifest.own_pipeline.packages.keys() >= {"numpy", "scikit-learn"}
    assert manifest.own_pipeline.frame is (pipeline is by_name)
    assert msgspec.json.decode(msgspec.json.encode(manifest), type=type(manifest)) == manifest


@pytest.mark.parametrize(
    ("pipeline", "step", "mend"),
    [(neighbours, "FunctionTransformer", "leave this step out"), (by_name, "KNNImputer", "use a SimpleImputer")],
)
def test_what_onnx_cannot_serve_names_the_other_engine(pipeline: Any, step: str, mend: str) -> None:
    """It is never chosen silently: the mend of the step comes first, then the setting."""
    with pytest.raises(TidemillError) as caught:
        version_of(pipeline, engine="onnx")
    assert step in caught.value.message
    assert caught.value.mend.startswith(mend)
    assert caught.value.mend.endswith('; or let the pipeline serve itself, slower: tm.Model(..., engine="python")')


def refused(pipeline: Any) -> TidemillError:
    """The refusal of a pipeline that was to serve itself."""
    with pytest.raises(TidemillError) as caught:
        version_of(pipeline)
    return caught.value


def test_a_row_that_depends_on_others_is_refused() -> None:
    """Served row by row it would answer otherwise than it was measured."""
    error = refused(lambda: make_pipeline(SimpleImputer(), BatchCentred(), LogisticRegression()))
    assert "otherwise one by one than all together" in error.message
    assert error.mend.startswith("let the answer to a row depend on that row alone")


def test_what_cannot_be_pickled_is_refused() -> None:
    """A function without a name."""
    error = refused(lambda: make_pipeline(SimpleImputer(), FunctionTransformer(lambda rows: rows), LogisticRegression()))
    assert "its pipeline cannot be pickled" in error.message
    assert error.mend == "define functions and classes of a pipeline by name, in the project's file or beside it"


def test_missing_values_must_have_an_answer() -> None:
    """As with ONNX: requests of new entities look like this."""
    assert "contains NaN" in str(refused(lambda: make_pipeline(FunctionTransformer(clipped), Ridge())))


PROJECT = """
import numpy as np
import tidemill as tm
from steps import halved
asked = tm.Event("asked", {"at": int, "id": str, "size": float}, time="at", id="id")
late = tm.Event("late", {"at": int, "id": str, "days": float}, time="at", id="id")

def clipped(rows):
    return np.clip(np.nan_to_num(rows), -1, 1)

def pipeline():
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer
    return make_pipeline(FunctionTransformer(clipped), FunctionTransformer(halved), Ridge())

days = tm.Model("days", asked, "at", "id", [tm.Request("size")], tm.Outcome(late, "days", subject="id"), pipeline, engine="python")
"""


def test_code_of_the_project_is_found_wherever_the_project_is(tmp_path: Path) -> None:
    """A function of the project's file, and one of a file beside it; also when the project lies in another folder where it is served."""
    folder = tmp_path / "at_home"
    folder.mkdir()
    (folder / "project.py").write_text(PROJECT)
    (folder / "steps.py").write_text("def halved(rows):\n    return rows / 2\n")
    model = load_project(folder).models["days"]
    sizes = np.linspace(-3, 3, 60)
    data = TrainingSet(sizes.reshape(-1, 1), 2 * sizes, np.arange(60), [str(i) for i in range(60)], inputs_of(model.plan, {}))
    version = make_version(model, data, NOW_MS, lambda _: None)
    own = version.artifact.manifest.own_pipeline
    assert own is not None
    assert own.module == "tidemill_project_at_home_project"
    rows = data.matrix[:5]
    assert load_engine(version.artifact).each(rows).tolist() == expected(version, rows).tolist()


def test_another_pickle_is_not_loaded(tmp_path: Path) -> None:
    """Its digest is that of the manifest, whose digest is that of the deployment: nothing is run before both hold."""
    version = version_of(lambda: make_pipeline(SimpleImputer(), LogisticRegression()))
    record = saved(str(tmp_path), version.artifact)
    (tmp_path / record.artifact / "model.pickle").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ArtifactError, match=r"model\.pickle is not the one that was trained; restore the file"):
        load_artifact(str(tmp_path), record.artifact, record.sha256)
    with pytest.raises(ArtifactError, match=r"is for another model\.pickle"):
        save_artifact(str(tmp_path / "other"), version.artifact.manifest, b"other")
    with pytest.raises(ArtifactError, match="has no ONNX file: its own pipeline serves it"):
        version.artifact.onnx  # noqa: B018 - it raises


def with_packages(artifact: Artifact, golden: bool, **packages: str) -> Artifact:
    """A version that was pickled with other packages; perhaps its golden rows are not those that it gives."""
    manifest = artifact.manifest
    own = manifest.own_pipeline
    assert isinstance(own, PythonEngine)
    rows = manifest.golden if golden else [msgspec.structs.replace(row, output=row.output + 1e-6) for row in manifest.golden]
    return Artifact(msgspec.structs.replace(manifest, engine=msgspec.structs.replace(own, packages=packages), golden=rows), artifact.file)


def test_other_packages_may_serve_if_they_give_the_same_bits(tmp_path: Path) -> None:
    """Golden rows decide: what parity would bear is no more borne when the packages are others. Explanations are sampled, and add up."""
    version = version_of(lambda: make_pipeline(SimpleImputer(), LogisticRegression()))
    load_engine(with_packages(version.artifact, True, numpy="1.0"))
    load_engine(with_packages(version.artifact, False, numpy=np.__version__))
    with pytest.raises(
        ArtifactError, match=r"when it was made, with other packages: numpy .* in the place of 1\.0; run: pip install numpy==1\.0"
    ):
        load_engine(with_packages(version.artifact, False, numpy="1.0"))
    save_artifact(str(tmp_path), *version.artifact, version.beside)
    explainer = load_explainer(str(tmp_path), version.artifact)
    found = explainer.explain(examples(20).matrix[3])
    assert found.method == "sampled"
    assert found.answer - found.base == pytest.approx(sum(found.contributions.values()))
