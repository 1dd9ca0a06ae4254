"""Rival explanations against closed forms: evidence, wider priors, readings left out, base rates, and none of these."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from scipy import stats
from test_methods import LINE, TIMES, VALUES, Shape, line_person

import hybridtwin.system as ht
from hybridtwin import sensors
from hybridtwin.engine import double
from hybridtwin.errors import DeclarationError, NotTrustworthy, ParameterError
from hybridtwin.fit import Part
from hybridtwin.inference.compare import NONE, UNDECIDED, _case, average, compare
from hybridtwin.inference.methods import NUTS, SMC, Laplace
from hybridtwin.model import Model

FLAT = Model(Shape(b=0.0, slope=0.0), name="flat", y=sensors.Gaussian("y", sd=0.8))
FAR = Model(Shape(b=0.0, slope=0.0, level=ht.normal(30.0, 0.1)), name="far", y=sensors.Gaussian("y", sd=0.8))
METHOD = SMC(particles=640, islands=8, starts=2)
LINES = {"line": LINE, "flat": FLAT}


def gaussian(design, mean, prior):
    """Log evidence, and log density of each reading given all others, of a linear model with Gaussian priors."""
    middle, covariance = design @ mean, design @ np.diag(prior) @ design.T + 0.64 * np.eye(6)
    evidence = stats.multivariate_normal(middle, covariance).logpdf(VALUES)
    precision = np.linalg.inv(covariance)
    var = 1 / np.diag(precision)
    left = stats.norm.logpdf(VALUES, VALUES - var * (precision @ (VALUES - middle)), np.sqrt(var))
    return evidence, left


def exact(name, wider=1.0):
    design = np.stack([np.ones(6), TIMES], axis=1)
    if name == "line":
        return gaussian(design, np.array([1.0, -0.5]), wider**2 * np.array([4.0, 0.49]))
    return gaussian(design[:, :1], np.array([1.0]), wider**2 * np.array([4.0]))


@functools.cache
def found():
    return compare(LINES, line_person(), METHOD, base_rates={"line": 0.02, "flat": 0.9}, key=0, progress=False)


def test_evidence_wider_priors_and_left_out_readings_are_the_closed_forms():
    for rival in found().rivals:
        evidence, left = exact(rival.name)
        assert abs(rival.log_evidence - evidence) < 4 * rival.error + 0.02 and rival.error < 0.25
        assert rival.wider - rival.log_evidence == pytest.approx(exact(rival.name, 2.0)[0] - evidence, abs=0.15)
        # two unknowns of six readings: the ends have leverage, which importance weights underrate
        assert rival.loo == pytest.approx(left.sum(), abs=0.6 if rival.name == "line" else 0.2)
    assert sum(r.stacking for r in found().rivals) == pytest.approx(1.0)


@pytest.mark.heavy
def test_after_another_method_the_evidence_is_an_importance_estimate():
    after = compare(LINES, line_person(), NUTS(draws=200, warmup=60, starts=2), key=0, progress=False)
    for rival in after.rivals:
        assert abs(rival.log_evidence - exact(rival.name)[0]) < 4 * rival.error + 1e-3 and rival.error < 0.05
        assert np.isnan(rival.probability) and "no probability is told" in after.text


def test_probabilities_need_base_rates_and_leave_room_for_none():
    a, b = exact("line")[0] + np.log(0.02), exact("flat")[0] + np.log(0.9)
    expected = 1 / (1 + np.exp(b - a))
    rival = found().rivals[0]
    assert rival.probability == pytest.approx(expected, abs=0.08)
    assert rival.interval[0] <= rival.probability <= rival.interval[1]
    assert found().left == pytest.approx(0.08) and "leave 0.08" in found().text
    table = found().table
    assert list(table["model"]) == ["line", "flat", NONE] and not table["candidate"].iloc[-1]
    assert "Research use" in repr(found()) and found().plot() is not None


def test_a_model_that_does_not_fit_is_no_candidate_whatever_its_evidence():
    only = compare({"line": LINE, "far": FAR}, line_person(), METHOD, key=0, progress=False)
    assert only.answer == "line" and not only.rivals[1].candidate and "does not fit" in only.rivals[1].reason
    farther = Model(Shape(b=0.0, slope=0.0, level=ht.normal(-30.0, 0.1)), name="farther", y=sensors.Gaussian("y", sd=0.8))
    none = compare([FAR, farther], line_person(), METHOD, key=0, progress=False)
    assert none.answer == NONE and none.table["candidate"].iloc[-1] and "none of these" in none.text
    with pytest.raises(NotTrustworthy, match="another model"):
        none.average()


def test_what_could_not_be_computed_is_not_ruled_out():
    """A rival whose evidence nobody knows leaves the question open, whether the others fit or not."""
    line, flat = found().rivals
    lost = dataclasses.replace(flat, reason="it was not computed (k-hat 1.19)", computed=False)
    out = dataclasses.replace(line, reason="it does not fit (residuals)")
    for first in (line, out):
        left = dataclasses.replace(found(), rivals=(first, lost))
        assert left.answer == UNDECIDED and "not ruled out: flat" in left.text
        assert not left.table["candidate"].iloc[-1]
    assert dataclasses.replace(found(), rivals=(line, dataclasses.replace(lost, computed=True))).answer == "line"
    # and the flag is set by what the fit itself says
    few = compare(LINES, line_person(), Laplace(draws=40, starts=2), key=0, progress=False)
    fit = few.twin.fits[1]
    red = dataclasses.replace(fit, parts={**fit.parts, "computed": Part("DO NOT USE", ("chains",))})
    with double():
        rival, _ = _case("flat", red, jax.random.key(0))
    assert not rival.computed and not rival.candidate


def test_other_base_rates_need_no_other_fit():
    other = found().under({"line": 0.5, "flat": 0.5})
    odds = np.exp(found().rivals[0].log_evidence - found().rivals[1].log_evidence)
    assert other.rivals[0].probability == pytest.approx(odds / (1 + odds)) and other.left == pytest.approx(0.0)
    assert other.twin is found().twin and found().left == pytest.approx(0.08)
    again = other.under({"line": 0.02, "flat": 0.9})
    assert again.rivals[0].interval == found().rivals[0].interval
    with pytest.raises(ParameterError, match="how frequent"):
        found().under({"line": 0.5})


def test_an_averaged_twin_has_draws_by_evidence():
    twin = average(LINES, line_person(), METHOD, key=0, progress=False)
    share = 1 / (1 + np.exp(exact("flat")[0] - exact("line")[0]))
    course = twin.simulate(at=[1.0, 3.0])
    names, counts = np.unique(course.structure, return_counts=True)
    assert dict(zip(names, counts / counts.sum(), strict=True))["Shape"] == pytest.approx(share, abs=0.08)
    assert sum(twin.shares) == pytest.approx(1.0) and twin.verdict.headline
    again = twin.do(level=2.0).simulate(at=[1.0, 3.0])
    assert np.array_equal(again.structure, course.structure)
    assert twin.predict()["y"].readings.shape[0] == counts.sum()


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(DeclarationError, match="mapping"):
        compare([LINE, LINE], line_person(), key=0)
    with pytest.raises(ParameterError, match="how frequent"):
        compare(LINES, line_person(), key=0, base_rates={"line": 0.7, "flat": 0.7})
    with pytest.raises(ParameterError, match="how frequent"):
        compare(LINES, line_person(), key=0, base_rates={"line": 0.7})
    with pytest.raises(ParameterError, match="how frequent"):
        compare(LINES, line_person(), key=0, base_rates={"line": np.nan, "flat": 0.3})
