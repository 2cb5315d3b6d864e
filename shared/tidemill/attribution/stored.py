"""What explains a version, as a file of its artifact: `explanation.npz` beside `model.onnx`."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from tidemill.attribution.links import Link, Scale
from tidemill.attribution.trees import TreeNodes
from tidemill.errors import ArtifactError

FILE = "explanation.npz"
FORM = 1

Method = Literal["trees", "additive", "sampled"]
"""Exact by the leaves of trees; exact since the margin is a sum of one term for each input (linear models and their like); by sampling."""


@dataclass(frozen=True)
class Recipe:
    """How the answers of a version are explained. `background`: rows of inputs; `front`: an ONNX file from the inputs to the columns of the
    trees, or to the margin (b"": the inputs are the columns); `pools`: for a
    content, whose column of the background has places, the contents of these places, by the input's place; `column`: of the margin; `owners`: the input of each column of the trees, -1 for one that never changes."""

    method: Method
    link: Link
    background: npt.NDArray[np.float32]
    front: bytes = b""
    column: int = 0
    owners: npt.NDArray[np.int64] | None = None
    nodes: TreeNodes | None = None
    pools: Mapping[int, Sequence[str]] = field(default_factory=dict)


class _Head(msgspec.Struct):
    form: int
    method: str
    scale: str
    slope: float
    offset: float
    column: int
    pools: dict[int, list[str]] | msgspec.UnsetType = msgspec.UNSET


def packed(recipe: Recipe) -> bytes:
    """The file of a recipe: the same bytes for the same recipe."""
    pools = {place: list(pool) for place, pool in recipe.pools.items()}
    head = _Head(FORM, recipe.method, *recipe.link, recipe.column, pools or msgspec.UNSET)
    arrays: dict[str, Any] = {"background": recipe.background, "front": np.frombuffer(recipe.front, np.uint8)}
    if recipe.nodes is not None and recipe.owners is not None:
        arrays |= {f"node_{name}": value for name, value in dataclasses.asdict(recipe.nodes).items()} | {"owners": recipe.owners}
    made = io.BytesIO()
    np.savez_compressed(made, allow_pickle=False, head=np.frombuffer(msgspec.json.encode(head), np.uint8), **arrays)
    return made.getvalue()


def unpacked(label: str, content: bytes) -> Recipe:
    """The recipe of a file. `label`: the version in errors. Raises ArtifactError when it is damaged, or of a newer tidemill."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            head = msgspec.json.decode(file["head"].tobytes(), type=_Head)
            if head.form != FORM or head.method not in get_args(Method) or head.scale not in get_args(Scale):
                raise ArtifactError(
                    f"{FILE} of {label} has a form that is not known here", mend="explain it with the tidemill that made it"
                )
            nodes = {name[5:]: file[name] for name in file.files if name.startswith("node_")}
            return Recipe(
                head.method,  # type: ignore[arg-type]
                Link(head.scale, head.slope, head.offset),  # type: ignore[arg-type]
                file["background"],
                file["front"].tobytes(),
                head.column,
                file["owners"] if nodes else None,
                TreeNodes(**nodes | {"start": float(nodes["start"])}) if nodes else None,
                {} if isinstance(head.pools, msgspec.UnsetType) else head.pools,
            )
    except (ValueError, KeyError, OSError, TypeError, EOFError, zipfile.BadZipFile, msgspec.MsgspecError) as error:
        raise ArtifactError(f"{FILE} of {label} is damaged: {error}", mend="restore the file, or make the version again") from error
