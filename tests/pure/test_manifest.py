"""A model's manifest: JSON round trip, and mismatches with the running service named exactly."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes_models import a_declaration, a_manifest
from millstream.core.declaration import Service
from millstream.core.models.manifest import Manifest, ManifestError, define, mismatches
from millstream.core.profile import profile

SERVICE = Service("meters", (("load__mean_1h", "float64"), ("load__count_1h", "int64")), "0.0", 0.5, {})


def test_json_round_trip():
    manifest = a_manifest()
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert json.loads(manifest.to_json())["fingerprint"] == manifest.fingerprint


def test_a_metric_that_is_nan_is_null_in_json():
    text = replace(a_manifest(), metrics={"auc": math.nan}).to_json()
    assert json.loads(text)["metrics"] == {"auc": None}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[]", "format None"),
        ('{"format": 99}', "format 99"),
        ('{"format": 1, "model": "m"}', "lacks body_sha256"),
        (a_manifest().to_json().replace("float64", "float65"), "float65"),
        (a_manifest().to_json().replace('"as_of_ms"', '"as_of"'), "as_of"),
    ],
)
def test_what_is_wrong_with_a_text_is_said(text, says):
    with pytest.raises(ManifestError, match=says):
        Manifest.from_json(text)


def test_a_fitting_service_has_no_mismatch_in_any_order_of_features():
    manifest = a_manifest()
    assert mismatches(manifest, SERVICE, manifest.definitions) == []
    assert mismatches(manifest, replace(SERVICE, features=SERVICE.features[::-1])) == []
    assert mismatches(manifest, replace(SERVICE, features=(*SERVICE.features, ("new", "int64")))) == []


@pytest.mark.parametrize(
    ("service", "named"),
    [
        (replace(SERVICE, name="other"), ["'meters'", "'other'"]),
        (replace(SERVICE, features=SERVICE.features[:1]), ["load__count_1h", "not in the service"]),
        (replace(SERVICE, features=(("load__mean_1h", "float32"), SERVICE.features[1])), ["float64", "float32"]),
    ],
)
def test_each_difference_is_named(service, named):
    (sentence,) = mismatches(a_manifest(), service)
    assert all(word in sentence for word in named)


def test_a_feature_that_changed_its_meaning_is_named():
    declaration = a_declaration()
    now = define(declaration)
    (view,) = declaration.views
    longer = replace(view, aggregates=(replace(view.aggregates[0], window_ms=7_200_000), *view.aggregates[1:]))
    changed = define(replace(declaration, views=(longer,)))
    assert now == a_manifest().definitions
    (sentence,) = mismatches(a_manifest(), SERVICE, changed)
    assert "load__mean_1h" in sentence
    assert "7200000" in sentence
    assert replace(a_manifest(), definitions=changed).fingerprint != a_manifest().fingerprint


values = st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(math.nan), st.sampled_from([0.0, 1.0])), max_size=200)


@given(values)
def test_profile_accounts_for_every_value(drawn):
    column = np.array(drawn, dtype=np.float64)
    made = profile(column)
    nulls = np.isnan(column).sum()
    assert made.null_share == pytest.approx(nulls / max(len(column), 1))
    assert list(made.edges) == sorted(set(made.edges))
    assert len(made.shares) == len(made.edges) + 1
    if nulls == len(column):
        assert made.mean is None
        return
    assert sum(made.shares) == pytest.approx(1)
    assert all(share > 0 for share in made.shares)
    for edge, below in zip(made.edges, np.cumsum(made.shares), strict=False):
        assert (column[~np.isnan(column)] <= edge).mean() == pytest.approx(below)


def test_infinities_have_a_bin_but_no_part_in_the_mean():
    made = profile(np.array([1.0, 2.0, np.inf]))
    assert made.mean == 1.5
    assert sum(made.shares) == pytest.approx(1)
