"""The report: one page that says how a run went, and opens offline."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import gradguard
from gradguard.errors import MissingPackageError
from gradguard.record import Run, read, replace_file
from gradguard.report.page_data import page_data

# In a script element nothing may look like its end; and two characters end a line of JavaScript, though not of JSON.
_ESCAPED = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def write_page(runs: Sequence[Run | str | Path], out: str | Path, names: Sequence[str] | None = None) -> Path:
    """Write the page of a run, or of two to compare: before and after a remedy.

    It is one file, in which everything is that it needs: it opens offline and asks nothing of the network. Its numbers
    stand in it as JSON, in the element ``gradguard-data``.

    Args:
        runs: one or two: records (:func:`gradguard.record.read`) or their folders.
        out: the file; the folders above it are made.
        names: what to call them; the names of their folders by default.

    Returns:
        The file's path.

    Raises:
        ValueError: no run, or more than two; other than one name for each.
        RecordError: a folder holds no record, or one of a newer GradGuard.
        MissingPackageError: jinja2 is not installed.
        OSError: the file can't be written.

    Host sync: none. Mutates: nothing.
    """
    if isinstance(runs, str | Path | Run) or not 1 <= len(runs) <= 2:
        raise ValueError("write_page needs a list of one run or two, each a record or the folder of one.")
    called = _names_of(runs) if names is None else list(names)
    if len(called) != len(runs):
        raise ValueError(f"write_page needs a name for each run, got {len(called)} for {len(runs)}.")
    read_runs = [run if isinstance(run, Run) else read(run) for run in runs]
    text = page_of(page_data(list(zip(called, read_runs, strict=True)), gradguard.__version__))
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, [text.encode("utf-8", "replace")])  # a folder's name need not be text
    return path


def page_of(data: dict[str, Any]) -> str:
    """Give the page as text, of what :func:`page_data` gives.

    Raises:
        MissingPackageError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise MissingPackageError(
            f"The report needs jinja2, which comes with torch and can't be imported ({error}): pip install jinja2."
        ) from error
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    assets = resources.files("gradguard.report") / "assets"

    scripts = sorted(one.name for one in assets.iterdir() if one.name.startswith("page") and one.name.endswith(".js"))

    def asset(name: str) -> Markup:
        return Markup((assets / name).read_text(encoding="utf-8"))

    text = json_of(data)
    return environment.from_string(str(asset("page.html.j2"))).render(
        title=" and ".join(run["name"] for run in data["runs"]),
        css=asset("page.css"),
        echarts=asset("echarts.min.js"),
        scripts=[asset(name) for name in scripts],
        data=Markup(text),
        nonce=hashlib.sha256(text.encode()).hexdigest()[:20],  # no name can know it: it depends on all of them
    )


def json_of(data: object) -> str:
    r"""Write JSON that may stand in a script element.

    >>> json_of("</script>")
    '"\\u003c/script\\u003e"'
    """
    return json.dumps(data, allow_nan=False, separators=(",", ":")).translate(_ESCAPED)


def _names_of(runs: Sequence[Run | str | Path]) -> list[str]:
    """Name runs after their folders; after those above them, too, where these are called alike."""
    paths = [None if isinstance(run, Run) else _folder_of(Path(run).resolve()) for run in runs]
    names = [f"run {i + 1}" if path is None else path.name for i, path in enumerate(paths)]
    if len(set(names)) < len(names):
        names = [
            name if path is None else f"{path.parent.name}/{name}" for name, path in zip(names, paths, strict=True)
        ]
    return names


def _folder_of(record: Path) -> Path:
    """Give the folder that a record is called after: in a Trainer's logs, that of the logs."""
    folder = record.parent if record.is_file() else record
    return folder.parent if re.fullmatch(r"gradguard(-\d+)?", folder.name) else folder
