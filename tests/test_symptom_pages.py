"""docs/symptoms has a page and a picture for each symptom, and they say what is so."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.symptoms import CASES
from gradguard.detect import ADVICE, Symptom, default_detectors

DOCS = Path(__file__).parent.parent / "docs"
PAGES = {symptom: DOCS / "symptoms" / f"{symptom.value}.md" for symptom in Symptom}
DETECTORS = {type(detector).__name__: type(detector) for detector in default_detectors(through_time=True)}
each_symptom = pytest.mark.parametrize("symptom", Symptom, ids=lambda symptom: symptom.value)


def blocks(text: str) -> Iterator[str]:
    """Give what is to be run of a page, in its order: fenced blocks, and code that stands alone below advice."""
    pattern = re.compile(r"^( *)```python\n(.*?)```|^   `([^`]+)`$", re.DOTALL | re.MULTILINE)
    for margin, fenced, alone in pattern.findall(text):
        yield alone or re.sub(f"^{margin}", "", fenced, flags=re.MULTILINE)


def flat(text: str) -> str:
    return " ".join(text.split())


def test_every_symptom_has_a_page_a_picture_a_case_and_a_line_in_the_index() -> None:
    assert {path.name for path in (DOCS / "symptoms").iterdir()} == {p.name for p in PAGES.values()} | {"README.md"}
    pictures = list((DOCS / "images" / "symptoms").iterdir())
    assert {path.name for path in pictures} == {f"{symptom.value}.png" for symptom in Symptom}
    assert max(path.stat().st_size for path in pictures) <= 40 * 1024
    assert CASES.keys() == set(Symptom)
    index = (DOCS / "symptoms" / "README.md").read_text()
    assert re.findall(r"^\| \[`(\w+)`\]\(\1\.md\)", index, re.MULTILINE) == [symptom.value for symptom in Symptom]


@pytest.mark.parametrize("path", [*PAGES.values(), DOCS / "symptoms" / "README.md"], ids=lambda path: path.stem)
def test_every_link_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text())
    assert len(links) >= 2
    assert [link for link in links if not (path.parent / link).exists()] == []


@each_symptom
def test_a_page_gives_all_advice_in_its_order(symptom: Symptom) -> None:
    steps = flat(PAGES[symptom].read_text().split("## What to do")[1])
    at = [steps.find(f"{i}. {sentence}") for i, sentence in enumerate(ADVICE[symptom], start=1)]
    assert -1 not in at
    assert at == sorted(at)
    assert f" {len(at) + 1}. " not in steps


@each_symptom
def test_a_page_names_the_defaults_of_its_detector(symptom: Symptom) -> None:
    name = "".join(word.capitalize() for word in symptom.value.split("_"))
    found = re.findall(r"Defaults of \[`(\w+)`\]\([^)]+\): `([^`]*)`", flat(PAGES[symptom].read_text()))
    assert [of for of, _ in found] == [name]
    (call,) = (node for node in ast.walk(ast.parse(f"f({found[0][1]})")) if isinstance(node, ast.Call))
    said = {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
    assert said == {key: one.default for key, one in inspect.signature(DETECTORS[name]).parameters.items()}
    rule = PAGES[symptom].read_text().split("## The rule")[1].split("Defaults of")[0]
    assert set(re.findall(r"`([a-z_]+)`", rule)) <= said.keys() | {"info"}


@each_symptom
def test_the_code_of_a_page_runs_and_provokes_its_symptom(symptom: Symptom, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    torch.manual_seed(0)
    code = list(blocks(PAGES[symptom].read_text()))
    for i, block in enumerate(code):
        exec(compile(block, PAGES[symptom].name, "exec"), names)
        names["guard"].close()  # each snippet stands for itself
        if i == 0:
            assert re.search(rf"^\[\w+\] {symptom.value} in ", capsys.readouterr().out, re.MULTILINE)
    assert len(code) > 2
    assert len(code[0].splitlines()) <= 24


def test_the_code_of_the_index_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for block in blocks((DOCS / "symptoms" / "README.md").read_text()):
        exec(compile(block, "README.md", "exec"), names)
    names["guard"].close()
    assert "Training was stopped by a critical finding" in capsys.readouterr().out
