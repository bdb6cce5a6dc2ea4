"""What a notebook shows of findings and profiles: their words and numbers, escaped, and a curve that is the memory."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from torch import Tensor

from gradguard import Finding, Severity, Symptom
from gradguard.detect.html import COLOURS, curve_svg
from tests.detect.in_time import gate, profile

HOSTILE = "</code></div><script>alert(1)</script><img src=x onerror='alert(2)'>\"&amp;'é漢\u2028"
TAGS = {"div", "span", "b", "code", "p", "table", "tr", "th", "td", "ol", "li"}
DRAWN = {"svg", "line", "text", "polyline", "circle"}


class Page(HTMLParser):
    """The elements and the text of a piece of HTML, all elements of which are closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def finding(severity: Severity = Severity.CRITICAL, where: tuple[str, ...] = ("fc1", "fc2"), last: int = 9) -> Finding:
    evidence = {"factor per layer": 4.04625, "kind": "NaN", "sizes": {"fc1": 1e-7, "": 0.5}, "steps": 3}
    return Finding(Symptom.VANISHING_DEPTH, severity, where, "opt", 3, last, True, evidence, "It shrinks.")


def html_of(shown: object) -> str:
    return str(shown._repr_html_())  # type: ignore[attr-defined]


def numbers_of(sizes: Tensor, horizon: float = math.nan) -> list[list[tuple[float, float]]]:
    """Give the curves as lags and shares, read back from the pixels."""
    page = Page(curve_svg(sizes, "words", horizon))
    top, bottom = (float(page.all("line")[i]["y1"] or "") for i in (0, 2))
    left, right = (float(page.all("line")[0][end] or "") for end in ("x1", "x2"))
    curves = [[tuple(map(float, p.split(","))) for p in (c["points"] or "").split()] for c in page.all("polyline")]
    last = len(sizes) - 1
    return [
        [(last * (x - left) / (right - left), 10 ** (-6 * (y - top) / (bottom - top))) for x, y in c] for c in curves
    ]


def test_a_finding_is_said_with_numbers_and_advice() -> None:
    found = finding()
    page = Page(html_of(found))
    assert {tag for tag, _ in page.tags} <= TAGS
    lines = [line.strip() for line in page.text.splitlines() if line.strip()]
    assert lines[:5] == ["critical", "vanishing_depth", "in", "fc1, fc2", ": steps 3 to 9, ongoing"]
    assert "It shrinks." in lines
    cells = lines[lines.index("It shrinks.") + 1 : lines.index("Try first:")]
    assert cells == ["factor per layer", "4.05", "kind", "NaN", "sizes", "fc1: 1e-07, (root): 0.5", "steps", "3"]
    assert tuple(lines[lines.index("Try first:") + 1 :]) == found.advice
    assert len(page.all("li")) == len(found.advice) > 0


def test_the_steps_and_the_place_are_said_as_in_print() -> None:
    assert "step 3, ongoing" in Page(html_of(finding(last=3))).text
    assert "the whole model" in Page(html_of(finding(where=()))).text
    assert "a, b, c, d and 3 more" in Page(html_of(finding(where=tuple("abcdefg")))).text
    assert Page(html_of(Finding(Symptom.LOSS_SPIKE, Severity.INFO, (), "opt", 1, 2, False))).text.count("over") == 1


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("severity", Severity)
def test_the_severity_is_a_word_on_its_colour_that_can_be_read(severity: Severity) -> None:
    (badge,) = Page(html_of(finding(severity))).all("span")
    colour = COLOURS[severity.value]
    assert f"background:{colour};color:#000" in (badge["style"] or "")
    assert (luminance(colour) + 0.05) / 0.05 > 4.5  # black on it: WCAG AA


def test_no_text_but_the_badge_has_a_colour_of_its_own() -> None:
    """Else it would not be seen on dark, or not on light."""
    for shown in finding(), profile(0.8, gates=(gate("f", 0.5),)):
        for tag, attrs in Page(html_of(shown)).tags:
            colours = re.findall(r"(?<![-\w])color:([^;]+)", attrs.get("style") or "")
            assert set(colours) <= ({"#000"} if tag == "span" else {"inherit"})
            if tag == "text":
                assert attrs["fill"] == "currentColor"


def test_hostile_names_are_text() -> None:
    evil = Finding(
        Symptom.NON_FINITE,
        Severity.WARNING,
        (HOSTILE,),
        HOSTILE,
        1,
        2,
        True,
        {HOSTILE: HOSTILE, "t": {HOSTILE: 1.0}},
        HOSTILE,
    )
    for shown, times in (evil, 5), (profile(0.8, layer=HOSTILE, gates=(gate(HOSTILE, 0.5),)), 2):
        html = html_of(shown)
        page = Page(html)
        assert {tag for tag, _ in page.tags} <= TAGS | DRAWN
        assert not any(name.startswith("on") or name in ("src", "href") for _, attrs in page.tags for name in attrs)
        assert page.text.count(HOSTILE) == times
        assert "<script" not in html
        assert "http" not in html


def test_a_profile_is_said_and_drawn() -> None:
    page = Page(html_of(profile(0.8, length=60, gates=(gate("f", 0.7, shut=0.25, open_=0.5), gate("i", 0.2)))))
    lines = [line.strip() for line in page.text.splitlines() if line.strip()]
    assert lines[:2] == ["rnn.l0", f": 1 % left after {math.log(100) / -math.log(0.8):.3g} of 60 steps"]
    assert lines[2] == "0.8-fold each step (r² 1.00)"
    assert lines[lines.index("gate") :] == [
        *("gate", "mean", "spread", "shut", "open"),
        *("f", "0.700", "0.000", "25.0%", "50.0%"),
        *("i", "0.200", "0.000", "0.0%", "0.0%"),
    ]
    assert len(page.all("svg")) == len(page.all("circle")) == 1
    assert page.all("svg")[0]["aria-label"] == lines[1].removeprefix(": ")
    assert page.all("table")
    assert not Page(html_of(profile(0.8))).all("table")


def test_the_curve_is_the_memory() -> None:
    sizes = 7.0 * 0.9 ** torch.arange(60, dtype=torch.float64)
    (curve,) = numbers_of(sizes)
    lags, shares = zip(*curve, strict=True)
    np.testing.assert_allclose(lags, np.arange(60), atol=0.01 * 59)
    np.testing.assert_allclose(np.log10(shares), np.log10(0.9) * np.arange(60), atol=0.005 * 6)
    page = Page(curve_svg(sizes, "words", 43.7))
    (dot,) = page.all("circle")
    line = page.all("line")[1]
    assert dot["cy"] == line["y1"] == line["y2"]  # of 1 %
    assert float(dot["cx"] or "") == pytest.approx(44 + (420 - 44 - 8) * 43.7 / 59, abs=0.06)


def test_a_curve_has_gaps_and_ends_at_its_floor() -> None:
    first, second = numbers_of(torch.tensor([1.0, 0.1, math.nan, 1e-3, 0.0, 0.0], dtype=torch.float64))
    np.testing.assert_allclose([x for x, _ in first], [0, 1], atol=0.02)
    np.testing.assert_allclose([x for x, _ in second], [3, 4], atol=0.02)
    np.testing.assert_allclose(np.log10([y for _, y in first]), [0, -1], atol=0.03)
    np.testing.assert_allclose(np.log10([y for _, y in second]), [-3, -6], atol=0.03)
    (dot,) = numbers_of(torch.tensor([1.0, math.nan, math.nan]))
    assert len(dot) == 2  # a line of one point would not be seen
    assert len(numbers_of(torch.tensor([1.0]))) == 1


def test_of_a_long_curve_no_extreme_is_lost() -> None:
    sizes = torch.full((20_000,), 0.1, dtype=torch.float64)
    sizes[7_777], sizes[13_131] = 1.0, 1e-4
    (curve,) = numbers_of(sizes)
    assert len(curve) <= 400
    assert {round(math.log10(share)) for _, share in curve} == {0, -1, -4}
    assert len(curve_svg(sizes, "words")) < 10_000


@pytest.mark.parametrize("sizes", [[], [0.0, 0.0], [math.nan], [1.0, math.inf]])
def test_what_is_no_curve_is_said_in_words_alone(sizes: list[float]) -> None:
    shown = profile(torch.tensor(sizes, dtype=torch.float64), layer="rnn.l0")
    page = Page(html_of(shown))
    assert not page.all("svg")
    assert ("grows inf-fold" if math.inf in sizes else "no gradient") in page.text
