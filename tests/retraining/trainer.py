"""Stands for a training: python -m tests.retraining.trainer PREPARED OFFLINE MODEL VERSION

It stores a prepared model under the version's name, and does before what the file `orders` beside it says, once.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec

from tidemill.models.artifact import Artifact, Manifest, save_artifact


def keep(folder: Path, artifact: Artifact) -> None:
    """Prepares a model."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_bytes(msgspec.json.encode(artifact.manifest))
    (folder / "model.onnx").write_bytes(artifact.onnx)


def main(prepared: str, offline: str, model: str, version: str) -> None:
    """Obey, and store."""
    folder = Path(prepared)
    orders = folder / "orders"
    order = orders.read_text() if orders.exists() else ""
    orders.unlink(missing_ok=True)
    print(f"training {model}", flush=True)
    if order == "memory":
        print(len([bytearray(64 * 1_048_576) for _ in range(64)]))
    if order == "sleep":
        time.sleep(3600)
    while order == "hold" and (folder / "hold").exists():
        time.sleep(0.1)
    if order == "nothing":
        return
    manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
    save_artifact(offline, msgspec.structs.replace(manifest, model=model, version=version), (folder / "model.onnx").read_bytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
