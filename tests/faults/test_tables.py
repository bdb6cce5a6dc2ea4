"""Shares, intervals and tables from verdicts made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy.stats import binomtest

from benchmarks.faults import tables
from benchmarks.faults.corpus import Unit
from benchmarks.faults.tables import Rules, Verdict, wilson


def verdict(program: str, label: str | None = None, onset: int = 1, seed: int = 0, **said: int) -> Verdict:
    return Verdict(Unit(program, 0.01, seed), program.split("-")[0], label, onset, 600, {"us": said})


US = Rules("us", {"gone": frozenset({"vanishing_depth", "vanishing_time"})})


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),  # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson(hits: int, of: int, low: float, high: float) -> None:
    assert wilson(hits, of) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("of", [1, 7, 500])
def test_wilson_as_scipy_has_it(of: int) -> None:
    for hits in range(of + 1):
        known = binomtest(hits, of).proportion_ci(0.95, method="wilson")
        assert wilson(hits, of) == pytest.approx((known.low, known.high), abs=1e-12)


def test_wilson_of_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert tables.share(0, 0) == "-"


def test_share_is_written_with_its_counts() -> None:
    assert tables.share(5, 10) == "50.0 [23.7, 76.3] (5/10)"


def test_a_word_stands_for_symptoms() -> None:
    one = verdict("dense-a", "vanishing_time", gone=40, slow=10)
    assert US.named_at(one) == 40
    assert Rules("us").named_at(one) is None
    assert US.flags(one)


def test_what_is_said_before_the_onset_does_not_count() -> None:
    early = verdict("dense-a", "vanishing_time", onset=41, gone=40)
    assert US.named_at(early) is None
    assert not US.flags(early)
    assert US.named_at(early._replace(onset=40)) == 40


def test_words_can_be_left_out() -> None:
    one = verdict("dense-a", gone=40, slow=10)
    assert Rules("few", words=frozenset({"slow"}), of="us").said(one) == {"slow": 10}


VERDICTS = [
    verdict("dense-a"),
    verdict("dense-a", seed=1, slow=50),
    verdict("dense-a-deep", "vanishing_depth", gone=50),
    verdict("dense-a-deep", "vanishing_depth", seed=1, onset=100, gone=160),
    verdict("recurrent-b", "dead_units", slow=100),
    verdict("recurrent-b", "dead_units", seed=1, onset=200, slow=100),
]


def rows(text: str) -> dict[str, list[str]]:
    return {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ")[1:] for line in text.splitlines()[2:]}


def test_overall() -> None:
    assert rows(tables.overall(VERDICTS, [US]))["us"] == [
        tables.share(2, 4),  # named
        tables.share(3, 4),  # anything; of the last one too early
        tables.share(1, 2),
        tables.share(3, 5),
        "54 (9 %)",  # 49 and 60 steps
    ]


def test_by_family() -> None:
    assert list(rows(tables.by_family(VERDICTS, US))) == ["dense", "recurrent"]
    assert rows(tables.by_family(VERDICTS, US))["recurrent"][0] == tables.share(0, 2)


def test_by_label() -> None:
    found = rows(tables.by_label(VERDICTS, [US]))
    assert found == {
        "dead_units": [tables.share(0, 2), "-"],
        "vanishing_depth": [tables.share(2, 2), "54 (9 %)"],
    }


def test_by_word() -> None:
    assert rows(tables.by_word(VERDICTS, US)) == {
        "gone": [tables.share(2, 2), tables.share(2, 2)],
        "slow": [tables.share(0, 3), tables.share(2, 3)],
    }


def test_lists() -> None:
    (row,) = tables.missed(VERDICTS, US).splitlines()[2:]
    assert row == "| dead_units | recurrent-b | 0.01 | 2 | slow (1), slow, too early (1) |"
    (row,) = tables.false_alarms(VERDICTS, US).splitlines()[2:]
    assert row == "| dense-a | 0.01 | 1 | slow (1) |"
    assert rows(tables.confusion(VERDICTS, US))["nothing"] == ["2", "1", "slow (1)"]


def test_verdicts_come_back(tmp_path: Path) -> None:
    tables.save(VERDICTS, tmp_path / "verdicts.json")
    assert tables.load(tmp_path / "verdicts.json") == VERDICTS
