"""Feast imported quickly checks the types of arguments as Feast does that is imported alone."""

import subprocess
import sys

import pytest

_CALLS = """
import inspect
import json
import feast, feast.batch_feature_view, feast.stream_feature_view
import typeguard

def refused(call):
    try:
        call()
    except Exception as error:
        return [type(error).__name__, str(error)]

entity = feast.Entity(name="customer", join_keys=["customer_id"])
view = feast.FeatureView(name="amounts", entities=[entity], source=feast.FileSource(path="x.parquet"))
kinds = [
    feast.Entity, feast.Field, feast.FeatureView, feast.FeatureService, feast.FileSource, feast.KafkaSource,
    feast.OnDemandFeatureView, feast.RequestSource, feast.StreamFeatureView, feast.batch_feature_view.BatchFeatureView,
]
print(json.dumps({
    "constructor": refused(lambda: feast.Entity(name=1)),
    "again": refused(lambda: feast.Entity(name="x", join_keys=[1])),
    "class method": refused(lambda: feast.Entity.from_proto("not a message")),
    "method": refused(lambda: view.with_name(1)),
    "property": view.entity_columns == [] and view.join_keys == [],
    "signatures": [str(inspect.signature(kind)) for kind in kinds],
    "names": [f"{name} {type(value).__name__}" for kind in kinds for name, value in vars(kind).items()],
    "restored": typeguard.typechecked.__module__,
}))
"""


def _answers(first: str) -> str:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", first + _CALLS], stdout=subprocess.PIPE, check=True)
    return done.stdout.decode()


@pytest.fixture(scope="module")
def plainly() -> str:
    return _answers("import feast")


def test_every_check_is_there(plainly: str) -> None:
    quickly = _answers("from millstream.adapters.feast.importing import import_feast; import_feast()")
    assert plainly == quickly
    assert plainly.count("TypeCheckError") == 3, "Feast no longer checks the types of arguments: this shows nothing"


def test_functions_that_nobody_called_are_not_compiled_with_checks() -> None:
    counted = """
import typeguard
at_once, compiled = typeguard.typechecked, []
def counting(target, **options):
    compiled.append(target.__qualname__)
    return at_once(target, **options)
typeguard.typechecked = counting
from millstream.adapters.feast.importing import import_feast
import_feast()
import feast
before = len(compiled)
for _ in range(2):
    feast.RequestSource(name="asked", schema=[])
print(before, compiled.count("RequestSource.__init__"))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", counted], stdout=subprocess.PIPE, check=True)
    before, after = map(int, done.stdout.split())
    assert before < 20
    assert after == 1
