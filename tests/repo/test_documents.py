"""Documents and code hold together: every path, module and link that a document names exists."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from tests.repo.sources import ROOT, name_of, tracked

DOCUMENTS = [path for path in tracked() if path.suffix == ".md" and path.name != "CHANGELOG.md"]
TOPS = {path.relative_to(ROOT).parts[0] for path in tracked()}  # what tools leave in a checkout is none of them
PATHS = re.compile(r"`((?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:py|md|toml|yml|txt))`")
MODULES = re.compile(r"`(tidemill(?:_\w+)?(?:\.\w+)+)[\w().]*`")
PROPERTIES = {"tidemill.merge", "tidemill.transactions", "tidemill.version"}  # of Delta tables and MLflow's versions
LINKS = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(#[\w-]+)?\)")


def anchor_of(heading: str) -> str:
    """The anchor that a page's heading gets."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def missing_paths(document: Path, text: str) -> list[str]:
    """Paths in back ticks that do not exist: from the root, the document's folder or the staircase; a bare file name may be of any file."""
    homes = (ROOT, document.parent, ROOT / "shared" / "tidemill")
    named = {match for match in PATHS.findall(text) if ("/" in match and match.split("/")[0] in TOPS) or match.endswith(".py")}
    return sorted(path for path in named - {path.name for path in tracked()} if not any((home / path).exists() for home in homes))


def missing_modules(text: str) -> list[str]:
    """Dotted names in back ticks that are neither a module nor something in one."""
    return sorted({name for name in MODULES.findall(text) if name not in PROPERTIES and not found(name)})


def found(name: str) -> bool:
    """Whether a dotted name is a module, or a name that a module has."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            spec = importlib.util.find_spec(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        if spec is not None:
            return length == len(parts) or bool(spec.origin and re.search(rf"\b{parts[length]}\b", Path(spec.origin).read_text()))
    return False


def broken_links(document: Path, text: str) -> list[str]:
    """Links to files or headings of the project that do not exist."""
    broken = []
    for target, anchor in LINKS.findall(text):
        path = document.parent / target
        headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE) if anchor and path.suffix == ".md" and path.is_file() else []
        if "://" not in target and (not path.exists() or (anchor and anchor[1:] not in map(anchor_of, headings))):
            broken.append(target + anchor)
    return broken


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_what_a_document_names_exists(document: Path) -> None:
    """Paths and modules move; a document that names the old place is told here."""
    text = document.read_text()
    assert missing_paths(document, text) == []
    assert missing_modules(text) == []
    assert broken_links(document, text) == []


def test_what_does_not_exist_is_found() -> None:
    """The check can fail: a path, a module, a name in a module, a link and an anchor."""
    here = ROOT / "docs" / "x.md"
    assert missing_paths(here, "`shared/tidemill/nowhere.py` and `tests/nowhere/` and `nowhere.py` but `application/json`") == [
        "nowhere.py", "shared/tidemill/nowhere.py", "tests/nowhere/"
    ]  # fmt: skip
    assert missing_modules("`tidemill.nowhere`, `tidemill.clock.nowhere`, `tidemill.clock.now_ms()`") == [
        "tidemill.clock.nowhere",
        "tidemill.nowhere",
    ]
    assert broken_links(here, "[a](nowhere.md) [b](../README.md#no-such-heading) [c](../README.md)") == [
        "nowhere.md",
        "../README.md#no-such-heading",
    ]
