"""Pickled and deep copies of the callbacks: for another fit, which begins afresh."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning import Callback, Trainer

from gradguard.lightning import GradGuard, GradientMonitor
from tests.lightning.loops import Plain, loader, trainer


def twin_of(callback: Callback, way: str) -> Callback:
    return copy.deepcopy(callback) if way == "deepcopy" else pickle.loads(pickle.dumps(callback))


class Copies(Callback):
    def __init__(self, way: str) -> None:
        self.way, self.made = way, []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 5:
            self.made = [twin_of(callback, self.way) for callback in trainer.callbacks[:2]]


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_copies_are_for_another_fit(way: str) -> None:
    """Made before, in the middle of, and after a fit, in which the copied callback goes on undisturbed."""

    def run(callbacks: list[Any], *more: Callback) -> tuple[dict[str, Any], dict[str, int]]:
        trainer([*callbacks, *more], max_epochs=1).fit(Plain(), loader())
        assert callbacks[0].guard is callbacks[1].guard
        history = {key: [column.tolist() for column in points] for key, points in callbacks[0].guard.history.items()}
        return history, callbacks[0].guard.steps

    callbacks = [GradientMonitor(every_n_steps=4), GradGuard(every_n_steps=4, strict=True)]
    before = [twin_of(callback, way) for callback in callbacks]
    copies = Copies(way)
    expected = run([GradientMonitor(every_n_steps=4), GradGuard(every_n_steps=4, strict=True)])
    assert expected[1] == {"optimizer": 12}
    assert run(callbacks, copies) == expected
    after = [twin_of(callback, way) for callback in callbacks]
    for made in (before, copies.made, after):
        for twin, callback in zip(made, callbacks, strict=True):
            assert twin.guard is None
            assert twin.settings().strict is callback.settings().strict
            assert twin.state_key == callback.state_key
            assert twin.state_dict() == {}
        assert run(made) == expected


def test_a_copy_takes_along_what_a_checkpoint_brought(tmp_path: Path) -> None:
    first = GradGuard(every_n_steps=4)
    fitted = trainer([first], max_epochs=1, default_root_dir=tmp_path)
    fitted.fit(Plain(), loader())
    state = fitted._checkpoint_connector.dump_checkpoint()["callbacks"][first.state_key]
    callback = GradGuard(every_n_steps=4)
    callback.load_state_dict(state)
    for way in ("deepcopy", "pickle"):
        assert repr(twin_of(callback, way).state_dict()) == repr(state)
