"""Podman and podman-compose with a store and settings of their own, on a machine without a Docker daemon.

Base images cannot be pulled everywhere, so stand-ins are made under their names: Debian's Python, and the Kafka and the Valkey of the local
stack. Grafana and Prometheus have none, and are not run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tidemill.errors import TidemillError
from tidemill.local import kafka, valkey

STAND_INS = Path(__file__).parent / "stand_ins"
PACKAGES = ("podman", "buildah", "runc", "netavark", "aardvark-dns", "containernetworking-plugins", "debootstrap")
STORAGE = '[storage]\ndriver = "overlay"\nrunroot = "{folder}/run"\ngraphroot = "{folder}/graph"\n'
SETTINGS = """\
[containers]
default_ulimits = ["nofile=8192:8192", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
[network]
network_backend = "netavark"
"""
CERTIFICATES = "/etc/ssl/certs"
PYTHON = "python:3.11-slim"


class Podman:
    """Runs both programs. `folder` holds images, containers and volumes; `root` is the checkout."""

    def __init__(self, folder: Path, root: Path) -> None:
        missing = [name for name in ("podman", "debootstrap", "runc") if shutil.which(name) is None]
        if missing or os.geteuid() != 0:
            raise TidemillError(
                "containers are run as root, by podman", mend=f"apt-get install --no-install-recommends {' '.join(PACKAGES)}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "storage.conf").write_text(STORAGE.format(folder=folder))
        (folder / "containers.conf").write_text(SETTINGS)
        self.folder, self._root = folder, root
        self._environment = {
            **os.environ, "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"), "CONTAINERS_CONF": str(folder / "containers.conf"),
        }  # fmt: skip
        self._compose = folder / "compose" / "bin" / "podman-compose"

    def run(self, *arguments: str | Path) -> str:
        """What `podman` prints. Raises TidemillError with what it said when it fails."""
        return self._run("podman", *arguments)

    def compose(self, *arguments: str) -> str:
        """What `podman-compose` prints, for the checkout's docker-compose.yml. Raises TidemillError."""
        if not self._compose.exists():
            self._run(sys.executable, "-m", "venv", self.folder / "compose")
            self._run(self.folder / "compose" / "bin" / "pip", "install", "--quiet", "podman-compose")
        build = f"--isolation=chroot --format=docker --volume={CERTIFICATES}:{CERTIFICATES}:ro"
        return self._run(
            self._compose, "--podman-build-args", build, "--in-pod", "false", "--parallel", "2", "--profile", "job", *arguments
        )

    def address(self, container: str) -> str:
        """The address of a running container on its network."""
        return self.run("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", container).strip()

    def make_bases(self) -> None:
        """The stand-ins for the base images, where they are not there yet."""
        images = self.run("images", "--format", "{{.Repository}}:{{.Tag}}")
        if f"localhost/{PYTHON}" not in images:
            self._make_python()
        for name, files in ((f"apache/kafka:{kafka.VERSION}", self._kafka_files()), ("valkey/valkey:9.1", self._valkey_files())):
            if f"localhost/{name}" not in images:
                self._make(name, files)

    def _make_python(self) -> None:
        place = self.folder / "python"
        shutil.rmtree(place, ignore_errors=True)
        extra = "--include=python3,python3-venv,python3-pip,ca-certificates"
        self._run("debootstrap", "--variant=minbase", extra, "bookworm", place)
        (place / "usr" / "bin" / "python").symlink_to("python3")
        for mark in (place / "usr" / "lib").glob("python3*/EXTERNALLY-MANAGED"):
            mark.unlink()
        self._run("tar", "-C", place, "-cf", place.with_suffix(".tar"), ".")
        self.run("import", place.with_suffix(".tar"), PYTHON)
        place.with_suffix(".tar").unlink()
        shutil.rmtree(place)

    def _kafka_files(self) -> dict[str, Path]:
        jars = [Path(pattern).parent for pattern in kafka.class_path().split(os.pathsep)]
        return {
            "java": Path(kafka.java()).parents[1],
            **{folder.name: folder for folder in jars},
            "Dockerfile": STAND_INS / "Kafka.dockerfile",
        }

    def _valkey_files(self) -> dict[str, Path]:
        return {"valkey-server": Path(valkey.binary()), "Dockerfile": STAND_INS / "Valkey.dockerfile"}

    def _make(self, name: str, files: dict[str, Path]) -> None:
        place = self.folder / "base"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(STAND_INS, place)
        for inside, source in files.items():
            copy = shutil.copytree if source.is_dir() else shutil.copy2
            copy(source, place / inside)
        self.run("build", "--isolation=chroot", "--format=docker", "-t", name, place)
        shutil.rmtree(place)

    def _run(self, *command: str | Path) -> str:
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, cwd=self._root, env=self._environment)
        if done.returncode:
            raise TidemillError(f"{' '.join(map(str, command))} fails:\n{(done.stdout + done.stderr)[-3000:]}")
        return done.stdout + done.stderr
