"""What each dashboard's own reader finds on disk: scalars, histograms and texts by key and x."""

from __future__ import annotations

import csv
import json
import math
import struct
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Series = dict[str, list[tuple[int, float]]]


class Bars(NamedTuple):
    """A histogram as it was read back: C counts between C + 1 edges."""

    counts: np.ndarray[Any, Any]
    edges: np.ndarray[Any, Any]


class Found(NamedTuple):
    """Everything that a run has written, each series in the order of writing."""

    scalars: Series
    texts: dict[str, list[tuple[int, str]]]
    histograms: dict[str, list[tuple[int, Bars]]]


def empty() -> Found:
    return Found(defaultdict(list), defaultdict(list), defaultdict(list))


def csv_log(folder: str) -> Found:
    found = empty()
    with (Path(folder) / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            for key, value in row.items():
                if key != "step" and value:
                    found.scalars[key].append((int(row["step"]), float(value)))
    return found


def tensorboard(folder: str) -> Found:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(folder, size_guidance={"scalars": 0, "tensors": 0, "histograms": 0})
    events.Reload()
    tags, found = events.Tags(), empty()
    for key in tags["scalars"]:
        found.scalars[key] += [(event.step, event.value) for event in events.Scalars(key)]
    for key in (key for key in tags["tensors"] if key.endswith("/text_summary")):
        for event in events.Tensors(key):
            text = event.tensor_proto.string_val[0].decode()
            found.texts[key.removesuffix("/text_summary")].append((event.step, text))
    for key in tags["histograms"]:
        for event in events.Histograms(key):
            bars = event.histogram_value
            edges = np.array([bars.min, *bars.bucket_limit])
            found.histograms[key].append((event.step, Bars(np.array(bars.bucket), edges)))
    return found


def squares(folder: str) -> dict[int, float]:
    """Sum of the squares of all entries of TensorBoard's histograms, by x."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events, found = EventAccumulator(folder, size_guidance={"histograms": 0}), defaultdict[int, float](float)
    events.Reload()
    for key in events.Tags()["histograms"]:
        for event in events.Histograms(key):
            found[event.step] += event.histogram_value.sum_squares
    return found


def mlflow(logger: Any) -> Found:
    client, found = logger.experiment, empty()
    for key in client.get_run(logger.run_id).data.metrics:
        metrics = client.get_metric_history(logger.run_id, key)
        found.scalars[key] += [(metric.step, _inf(metric.value)) for metric in metrics]
    folder = Path(client.get_run(logger.run_id).info.artifact_uri.removeprefix("file:").removeprefix("//"))
    for file in sorted(folder.rglob("*.txt")):
        key, _, step = file.relative_to(folder).as_posix().removesuffix(".txt").rpartition("-")
        found.texts[key].append((int(step), file.read_text(encoding="utf-8")))
    return found


def _inf(value: float) -> float:
    """MLflow's tables have no infinity: it stores the largest number instead."""
    return math.copysign(math.inf, value) if abs(value) > 1.79e308 else value


def finish_wandb(logger: Any) -> Path:
    """End the run, wait for its file, and give it: ``finish()`` may return a little earlier."""
    file = Path(logger.experiment.settings.sync_file)  # after finish() nobody knows
    logger.experiment.finish()
    end = time.monotonic() + 60
    while not any(record.HasField("exit") for record in _records(file)):
        assert time.monotonic() < end, "the run was not finished"
        time.sleep(0.01)
    return file


def wandb(file: Path) -> Found:
    found = empty()
    for record in _records(file):
        if not record.HasField("history"):
            continue
        row: dict[str, Any] = {}
        for item in record.history.item:
            *outer, last = item.nested_key or [item.key]
            at = row
            for key in outer:
                at = at.setdefault(key, {})
            at[last] = json.loads(item.value_json)
        x = row.pop("trainer/global_step", -1)
        for key, value in row.items():
            if isinstance(value, int | float):
                found.scalars[key].append((x, float(value)))
            elif isinstance(value, str):  # JSON has no NaN and Infinity
                found.scalars[key].append((x, {"NaN": math.nan, "Infinity": math.inf}[value]))
            elif value["_type"] == "histogram":
                found.histograms[key].append((x, Bars(np.array(value["values"]), np.array(value["bins"]))))
            elif value["_type"] == "table-file":
                table = json.loads((file.parent / "files" / value["path"]).read_text(encoding="utf-8"))
                found.texts[key] += [(x, text) for step, text in table["data"] if step == x]
    return found


def wandb_pages(file: Path) -> dict[str, tuple[int, str]]:
    """Pages of HTML by key: x and text."""
    found: dict[str, tuple[int, str]] = {}
    for record in _records(file):
        row = {"/".join(item.nested_key or [item.key]): item.value_json for item in record.history.item}
        for key in [key.removesuffix("/_type") for key, value in row.items() if value == '"html-file"']:
            path = file.parent / "files" / json.loads(row[f"{key}/path"])
            found[key] = int(row["trainer/global_step"]), path.read_text(encoding="utf-8")
    return found


def wandb_alerts(file: Path) -> list[tuple[str, str, str]]:
    """Title, text and level of each alert."""
    return [(r.alert.title, r.alert.text, r.alert.level) for r in _records(file) if r.HasField("alert")]


def _records(file: Path) -> list[Any]:
    """W&B's offline file is LevelDB's log format behind a header of 7 bytes; each record is a protobuf ``Record``."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, part, records = file.read_bytes(), 7, b"", []
    assert data[:4] == b":W&B"
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:  # what is left of a block is padding
            position += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, position)  # CRC, length, 1 whole, 2 first, 3 middle, 4 last
        body = data[position + 7 : position + 7 + size]
        if len(body) < size:
            break
        part, position = (body if kind in (1, 2) else part + body), position + 7 + size
        if kind in (1, 4):
            records.append(Record.FromString(part))
    return records
