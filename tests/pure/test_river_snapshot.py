"""Snapshots: what does not fit is refused by name before it is loaded, and nothing that a pickle can do is done."""

from __future__ import annotations

import ast
import collections
import io
import os
import pickle
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import datasets, forest, linear_model, tree

from millstream.adapters.models import river_snapshot
from millstream.adapters.models.river_model import OnlineScorer
from millstream.adapters.models.river_pipelines import CHAMPION_LOGIT, CHAMPION_SCORE, FILE, OnlineModel, declare, load
from millstream.adapters.models.river_snapshot import from_bytes, read_header, signing_key, to_bytes
from millstream.core.declaration import Service
from millstream.errors import Misconfigured, Refused
from millstream.stages.learn.learner import Learner
from online_models import FEATURES, KEY, declared, learner_of, pipeline, signed

DECLARED = declared()
LEARNER = learner_of(DECLARED)
SNAPSHOT = LEARNER.snapshot(KEY)


@settings(deadline=None, max_examples=60)
@given(at=st.integers(0, len(SNAPSHOT) - 1), bit=st.integers(0, 7))
def test_any_flipped_bit_is_refused_before_anything_is_loaded(at: int, bit: int) -> None:
    damaged = bytearray(SNAPSHOT)
    damaged[at] ^= 1 << bit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(river_snapshot, "from_bytes", lambda *_: pytest.fail("loaded"))
        with pytest.raises(Refused, match=r"tampered with|unsigned|format"):
            OnlineScorer.load(bytes(damaged), DECLARED, KEY)


@pytest.mark.parametrize(
    ("snapshot", "reason"),
    [
        (b"", "unsigned"),
        (pickle.dumps({"": pipeline()}), "unsigned, or no snapshot at all"),
        (SNAPSHOT[:-1], "tampered with"),
        (SNAPSHOT[:5] + bytes(32) + SNAPSHOT[37:], "tampered with, or signed with another key"),
        (LEARNER.snapshot(b"some other key entirely"), "MILLSTREAM_SNAPSHOT_KEY"),
        (SNAPSHOT[:4] + b"\x02" + SNAPSHOT[5:], "format 2, this version reads 1"),
    ],
)
def test_unsigned_is_refused(snapshot: bytes, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        read_header(snapshot, KEY)
    before = LEARNER.examples, LEARNER.scorer()
    with pytest.raises(Refused, match=reason):
        LEARNER.restore(snapshot, KEY)
    assert before[0] == LEARNER.examples


@pytest.mark.parametrize(
    ("declared", "reason"),
    [
        (
            declare("fraud", pipeline(), ("a", "c", CHAMPION_SCORE)),
            r"another feature set \(only in the snapshot: b; only declared: c\)",
        ),
        (declare("fraud", pipeline(), ("b", "a", CHAMPION_SCORE)), "another feature set"),
        (declare("fraud", pipeline(0.02), FEATURES), "another declared pipeline"),
        (declare("fraud", linear_model.Perceptron(), FEATURES), "another declared pipeline"),
        (declare("churn", pipeline(), FEATURES), "it is of online model 'fraud', wanted is 'churn'"),
        (replace(DECLARED, segment="country", max_segments=3), "declared are 3 of country"),
    ],
)
def test_what_was_made_by_another_declaration_is_refused(declared: OnlineModel, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        OnlineScorer.load(SNAPSHOT, declared, KEY)


def test_another_river_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _: "9.9.9")
    with pytest.raises(Refused, match=r"made by river 0\.\d+\.\d+, here is 9\.9\.9.*learns again"):
        OnlineScorer.load(SNAPSHOT, DECLARED, KEY)


class Call:
    """Pickles as a call."""

    def __init__(self, what: Callable[..., Any], *args: Any) -> None:
        self.what, self.args = what, args

    def __reduce__(self) -> Any:
        return self.what, self.args


@pytest.mark.parametrize(
    ("held", "name"),
    [
        (Call(os.system, "touch pwned"), "posix.system"),
        (Call(getattr, os, "system"), "builtins.getattr"),
        (Call(eval, "1"), "builtins.eval"),
        (Call(__import__, "os"), "builtins.__import__"),
        (datasets.Phishing(), "river.datasets"),
        (tree.HoeffdingTreeClassifier(), "river.tree"),
        (collections.ChainMap(), "collections.ChainMap"),
        (np.zeros(3), "numpy"),
    ],
)
def test_a_class_outside_the_list_is_refused_even_when_signed(
    held: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = io.BytesIO()
    try:
        pickle.Pickler(file, 5).dump({"": held})
    except TypeError:  # a module is no pickle; its name will do
        file = io.BytesIO(pickle.dumps({"": Call(getattr, 1, "real")}))
    with pytest.raises(Refused, match=f"{name}.* is no part of the declared pipeline"):
        OnlineScorer.load(signed(SNAPSHOT, file.getvalue()), DECLARED, KEY)
    assert not list(tmp_path.iterdir())


def test_calls_by_reference_are_held_to_the_list_as_well() -> None:
    class Forger(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return obj.args if isinstance(obj, Call) else None

    def forged(*pid: Any) -> bytes:
        file = io.BytesIO()
        Forger(file, 5).dump({"": Call(print, *pid)})
        return file.getvalue()

    for pid, reason in (
        (("function", "os", "system"), "os.system is no part"),
        (("partial", "text", (), {}), "which no River model does"),
        (("method", "text", "upper"), "which no River model does"),
        (("method", {}, "__init__"), "which no River model does"),
        (("module", "os"), "which no River model does"),
        ("os", "which no River model does"),
    ):
        data = forged(*pid) if isinstance(pid, tuple) else forged(pid)
        with pytest.raises(Refused, match=reason):
            from_bytes(data, DECLARED.allowed)


@pytest.mark.parametrize("body", [b"", b"garbage", pickle.dumps(7), pickle.dumps({"": 1.0}), pickle.dumps([])])
def test_a_signed_body_that_is_no_model_is_refused(body: bytes) -> None:
    with pytest.raises(Refused, match="its body is no"):
        OnlineScorer.load(signed(SNAPSHOT, body), DECLARED, KEY)


@pytest.mark.parametrize("make", [lambda: forest.ARFClassifier(n_models=2, seed=1), linear_model.PAClassifier])
def test_neither_partial_nor_getattr_is_ever_on_the_list(make: Callable[[], Any]) -> None:
    """An adaptive forest holds ``functools.partial``, a passive-aggressive model a bound method."""
    declared = declare("fraud", make(), FEATURES)
    assert all(isinstance(thing, type) for thing in declared.allowed.values())
    assert not {("functools", "partial"), ("builtins", "getattr")} & declared.allowed.keys()
    again = Learner(declared)
    again.restore(learner_of(declared).snapshot(KEY), KEY)
    assert again.examples == 30


def test_trees_may_grow_deep_and_what_cannot_be_stored_is_refused() -> None:
    def nested(depth: int) -> list[Any]:
        made: list[Any] = []
        for _ in range(depth):
            made = [made]
        return made

    found, depth = from_bytes(to_bytes(nested(2_000), {}), {}), 0
    while found:
        (found,), depth = found, depth + 1
    assert depth == 2_000
    with pytest.raises(Refused, match="nested too deep"):
        to_bytes(nested(200_000), {})


def test_a_snapshot_says_what_it_is_without_being_loaded() -> None:
    header = read_header(SNAPSHOT, KEY)
    assert (header.examples, header.offsets, header.features) == (30, {"examples[0]": 30}, FEATURES)


def test_a_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    key = signing_key(None, tmp_path / "state")
    path = tmp_path / "state" / "snapshot.key"
    assert signing_key(None, tmp_path / "state") == key == path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["snapshot.key"]
    path.chmod(0o644)
    with pytest.raises(Misconfigured, match="can be read by others"):
        signing_key(None, tmp_path / "state")
    path.chmod(0o600)
    path.write_bytes(b"")
    with pytest.raises(Misconfigured, match="damaged"):
        signing_key(None, tmp_path / "state")
    with pytest.raises(Misconfigured, match="MILLSTREAM_SNAPSHOT_KEY is shorter"):
        signing_key("short", tmp_path)


SERVICE = Service("fraud", (("v__a", "float64"), ("v__city", "string"), ("v__n", "int64")), "0.0", 0.5, {})


def test_a_declaring_file_is_ordinary_river_with_functions_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / FILE
    text = (
        "from river import compose, linear_model, preprocessing\n\n"
        "def doubled(x):\n    return {name: 2 * value for name, value in x.items()}\n\n"
        "scaled = compose.FuncTransformer(doubled) | preprocessing.StandardScaler()\n"
        "model = scaled | linear_model.LogisticRegression()\n"
    )
    path.write_text(text)
    declared = load(path, SERVICE)
    assert declared.features == ("v__a", "v__n", CHAMPION_LOGIT)
    snapshot = learner_of(declared).snapshot(KEY)
    assert OnlineScorer.load(snapshot, load(path, SERVICE), KEY).version == 30
    path.write_text(text.replace("2 * value", "3 * value"))
    with pytest.raises(Refused, match="another declared pipeline"):
        OnlineScorer.load(snapshot, load(path, SERVICE), KEY)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "defines no `model`"),
        ("\nmodel = 1 / 0", "line 2: ZeroDivisionError"),
        ("features = ['v__city']\nmodel = None", "numbers that feature service 'fraud' serves are v__a, v__n"),
        ("model = None", "NoneType is no River model"),
    ],
)
def test_a_declaring_file_that_is_wrong_is_told_where(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(Misconfigured, match=reason):
        load(tmp_path / FILE, SERVICE)
    with pytest.raises(Misconfigured, match="is not there"):
        load(tmp_path / "other.py", SERVICE)


def test_pickle_is_for_signed_snapshots_and_for_what_a_worker_itself_compiled() -> None:
    loaders = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "_pickle"}
    package = Path(river_snapshot.__file__).parents[2]
    importing = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if loaders & {name.split(".")[0] for name in names}:
                importing.add(path.relative_to(package).as_posix())
    # The second reads a file of the state directory, next to the signing key: whoever writes there is the worker.
    assert importing == {"adapters/models/river_snapshot.py", "adapters/feast/compiled_repo.py"}
