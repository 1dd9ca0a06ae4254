"""Explanations against what is known: closed forms of sensitivities, worlds made by `do`, games and Gaussians with answers."""

import dataclasses
import functools
import importlib.util
import re

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtr
from small import CLOCK, DRIP, drip_person, drip_twin, mesh_person, mesh_twin, oral_person

import hybridtwin as ht
from hybridtwin import datasets, outcomes, sensors
from hybridtwin.errors import DeclarationError, InterventionError, NotTrustworthy
from hybridtwin.explain.distill import Formula, Tree, distill
from hybridtwin.explain.explanation import explain
from hybridtwin.explain.indices import by_salib, correlated, independent
from hybridtwin.explain.influence import _gaussian, influence
from hybridtwin.explain.players import players_of
from hybridtwin.explain.sensitivity import sensitivity
from hybridtwin.explain.shapley import shapley, shares, worth_of
from hybridtwin.explain.variance import variance
from hybridtwin.inference.methods import Laplace
from hybridtwin.inference.personalize import personalize
from hybridtwin.model import Model
from hybridtwin.physiology import OneCompartmentOral, T1DMinimal
from hybridtwin.records import Person, Series
from hybridtwin.signals import Regimen, Signal
from hybridtwin.simulate.run import solve_draws
from hybridtwin.twin import simulate_worlds
from hybridtwin.worlds import thinned

AUC = outcomes.auc("C")


@functools.cache
def whole_area():
    """One compartment by mouth, followed for twenty half-lives, so that the area to the end is that to infinity."""
    model = Model(OneCompartmentOral(tlag=0.1), C=sensors.LogNormal("C", sd=0.15))
    person = dataclasses.replace(oral_person(), clock=dataclasses.replace(oral_person().clock, stop=150.0))
    return personalize(model, person, Laplace(draws=100, starts=2), key=0, progress=False)


def by_worlds(twin, outcome, up, down, step):
    """The derivative as nobody would compute it twice: a difference of two worlds."""
    a, b = simulate_worlds([up, down])
    return (outcome.of(a) - outcome.of(b)) / step


# ------------------------------------------------------------------------------------------------- sensitivity


def test_the_area_under_one_compartment_follows_dose_and_clearance_alone():
    """AUC = dose / CL: d AUC / d CL = -AUC / CL, d AUC / d dose = AUC / dose; ka, V and the lag have no say."""
    s = sensitivity(whole_area(), AUC)
    CL = whole_area().fits[0].values["CL"]
    wanted = -320.0 / CL**2
    np.testing.assert_allclose(s["CL"].draws, wanted, rtol=5e-3)  # straight lines between readings of a grid
    np.testing.assert_allclose(s["CL"].elasticity, -1.0, rtol=5e-3)
    np.testing.assert_allclose(s["oral at 0 h"].draws, 1.0 / CL, rtol=5e-3)
    np.testing.assert_allclose(s["oral at 0 h"].elasticity, 1.0, rtol=1e-6)
    for name in ("V", "ka", "tlag"):
        assert np.nanmax(np.abs(s[name].elasticity)) < 5e-3
    assert s["CL"].unit == "mg*h/L per L/h" and s["oral at 0 h"].unit == "mg*h/L per mg"
    assert s["tlag"].spread == 0.0 < s["CL"].spread


def test_times_amounts_and_levels_in_closed_form():
    """A bolus at s, read at t: C = 120/V exp(-k (t - s)); a pump: its steady level by what it has come to."""
    twin, t = drip_twin(), 20.0
    CL, V = (twin.fits[0].values[n] for n in ("CL", "V"))
    k = CL / V
    s = sensitivity(twin, outcomes.at("C", "20:00"))
    for clock, at in (("01:00", 1.0), ("09:00", 9.0), ("17:00", 17.0)):
        left = np.exp(-k * (t - at)) / V
        np.testing.assert_allclose(s[f"iv at Tue 24 Mar {clock}"].draws, left, rtol=1e-5)  # read between nodes of a grid
        np.testing.assert_allclose(s[f"time of iv at Tue 24 Mar {clock}"].draws, 120.0 * k * left, rtol=1e-5)
    start = 1.0 / CL  # it begins at `initial`, zero, so what a level adds is CL^-1 (1 - exp(-k t))
    np.testing.assert_allclose(s["push"].draws, start * (1 - np.exp(-k * t)), rtol=1e-5)
    np.testing.assert_allclose(s["weight"].draws, s["CL"].draws * CL / 70.0, rtol=1e-9)


def test_a_bolus_that_moves_takes_its_jump_along():
    """The area to the end of the day loses what the bolus leaves behind then, exactly, though the curve jumps at the dose."""
    twin = drip_twin()
    CL, V = (twin.fits[0].values[n] for n in ("CL", "V"))
    s = sensitivity(twin, AUC)
    np.testing.assert_allclose(s["time of iv at Tue 24 Mar 17:00"].draws, -120.0 / V * np.exp(-CL / V * 7.0), rtol=2e-4)


ASKED = {"auc": AUC, "cmax": outcomes.cmax("C"), "above": outcomes.time_above("C", 8.0, "mg/L")}


@pytest.mark.parametrize("outcome", ASKED.values(), ids=ASKED)
def test_a_system_on_the_mesh_agrees_with_differences_of_worlds(outcome):
    twin = mesh_twin()
    s = sensitivity(twin, outcome)
    worlds = {
        "VM": [twin.do(VM=lambda v, k=k: v * (1 + k)) for k in (1e-4, -1e-4)],
        "V": [twin.do(V=lambda v, k=k: v * (1 + k)) for k in (1e-4, -1e-4)],
    }
    for name, (up, down) in worlds.items():
        size = 2e-4 * twin.fits[0].values[name]
        found = by_worlds(twin, outcome, up, down, size)
        np.testing.assert_allclose(s[name].draws, found, rtol=2e-3, atol=1e-3 * np.max(np.abs(found)))
    up, down = (
        twin.do(iv=lambda d, k=k: dataclasses.replace(d, doses=tuple(_more(x, k) for x in d.doses))) for k in (0.03, -0.03)
    )
    found = by_worlds(twin, outcome, up, down, 0.06)
    np.testing.assert_allclose(s["iv at 6 h"].draws, found, rtol=2e-3, atol=1e-3 * np.max(np.abs(found)))


def _more(dose, by):
    return dataclasses.replace(dose, amount=dose.amount + by * (dose.time == 6.0))


def test_what_was_done_to_a_parameter_is_differentiated_too():
    """do(CL = 2 CL) over the day: the outcome follows CL through what was done."""
    twin = drip_twin().do(CL=lambda v: 2.0 * v)
    plain = dataclasses.replace(drip_twin())
    a = sensitivity(twin, AUC, inputs=())["CL"].draws
    up, down = (plain.do(CL=lambda v, k=k: 2.0 * v + k) for k in (2e-4, -2e-4))
    np.testing.assert_allclose(a, by_worlds(plain, AUC, up, down, 2e-4), rtol=1e-4)


def test_an_outcome_of_ones_own_and_what_is_refused():
    own = outcomes.custom(lambda x: x["C"][:, -1] ** 2, label="square", unit="mg^2/L^2", better=None)
    last = outcomes.trough("C")
    twin = drip_twin()
    a, b = sensitivity(twin, own, inputs=()), sensitivity(twin, last, inputs=())
    np.testing.assert_allclose(a["CL"].draws, 2.0 * b.value * b["CL"].draws, rtol=1e-6)
    with pytest.raises(DeclarationError, match="a bare function"):
        sensitivity(twin, lambda x: x["C"][:, 0])
    with pytest.raises(KeyError, match="There are: CL, V"):
        a["Cl"]


# ------------------------------------------------------------------------------------------------------ shares


def test_shares_of_a_linear_system_are_what_each_input_does_alone():
    """Linear: the share of a bolus is its own area, draw by draw, whatever else is given; and shares sum to the total exactly."""
    twin = drip_twin()
    CL, V = (twin.fits[0].values[n] for n in ("CL", "V"))
    s = shares(twin, outcomes.at("C", "20:00"), baseline={"push": (0.0, "mg/h")}, windows=[12.0])
    np.testing.assert_allclose(s.draws.sum(axis=0), s.total, rtol=1e-12)
    own = {p.label: d for p, d in zip(s.players, s.draws, strict=True)}
    k = CL / V
    np.testing.assert_allclose(
        own["iv 120 mg Tue 24 Mar 12:00 to 20:00"], 120.0 / V * np.exp(-3.0 * k), rtol=1e-5
    )
    pump = 16.0 / CL * (1 - np.exp(-8.0 * k))
    np.testing.assert_allclose(own["push Tue 24 Mar 12:00 to 20:00"], pump, rtol=1e-5)
    np.testing.assert_allclose(s.nothing, 0.0, atol=1e-12)
    assert s.exact and np.all(s.error == 0.0) and s.baseline == {"push": 0.0}


def test_shares_where_inputs_interact_sum_to_the_total_and_have_intervals():
    twin = mesh_twin()
    s = shares(twin, AUC)
    np.testing.assert_allclose(s.draws.sum(axis=0), s.total, rtol=1e-12)
    first, both, second, none = (
        AUC.of(x)
        for x in simulate_worlds(
            [
                twin.do(iv=lambda d: d.only(0.0, 3.0)),
                twin,
                twin.do(iv=lambda d: d.only(3.0, 9.0)),
                twin.do(iv=Regimen.none("mg")),
            ]
        )
    )
    np.testing.assert_allclose(s.draws[0], (first - none + both - second) / 2.0, rtol=1e-10)
    assert np.std(s.draws[0]) > 0 and not np.allclose(s.draws[0], first - none, rtol=1e-3), "they do interact"
    assert set(s.table.columns) >= {"player", "share", "q05", "q95", "unit", "p_positive", "standard_error"}


def test_a_game_is_solved_exactly_and_by_sampling():
    """v(S) = (sum of S)^2: the share of i is x_i times the sum of all. Thirteen players are sampled; shares sum to the total."""
    x = np.linspace(-1.0, 2.0, 13)

    def square(n):
        return lambda coalitions: (coalitions @ x[:n]) ** 2

    found, error, everything, nothing = shapley(square(6), 6)
    np.testing.assert_allclose(found, x[:6] * x[:6].sum(), atol=1e-12)
    assert everything == pytest.approx(x[:6].sum() ** 2) and nothing == 0 and not error.any()
    found, error, everything, nothing = shapley(square(13), 13, key=0, turns=64)
    np.testing.assert_allclose(found.sum(), everything - nothing, rtol=1e-12)
    assert np.all(np.abs(found - x * x.sum()) <= 5.0 * error + 1e-12)
    with pytest.raises(InterventionError, match="Give key=0"):
        shapley(square(13), 13)


def test_windows_group_inputs_by_modality_and_time_or_all_together():
    twin = drip_twin()
    s = shares(twin, AUC, windows="12 h")
    assert [p.label.split(" Tue")[0] for p in s.players] == ["iv 240 mg", "iv 120 mg", "push", "push"]
    whole = shares(twin, AUC, windows="12 h", together=True)
    assert [p.label for p in whole.players] == [
        "all inputs Tue 24 Mar 00:00 to 12:00",
        "all inputs Tue 24 Mar 12:00 to Wed 25 Mar 00:00",
    ]
    np.testing.assert_allclose(whole.draws[0], s.draws[0] + s.draws[2], rtol=1e-8)  # a linear system
    with pytest.raises(InterventionError, match="no signal"):
        shares(twin, AUC, baseline={"weight": 70.0})
    with pytest.raises(InterventionError, match="no dose, and no signal"):
        shares(twin, AUC, inputs=())


# --------------------------------------------------------------------------------------------------- variance


def test_indices_of_a_twin_over_its_prior():
    """CL and V of one compartment: log C just after a bolus is -log V + ..., so all of its variance is V's."""
    twin = drip_twin()
    first = outcomes.custom(
        lambda x: np.log(x["C"][:, np.searchsorted(x.time, 1.0, side="right") - 1] * 1.0), label="log C", unit="1", better=None
    )
    for salib in (False, None):
        found = variance(twin.do(push=(0.0, "mg/h")), first, prior=True, salib=salib, key=1)
        by = dict(zip(found.factors, found.found.total[:, 0], strict=True))
        assert by["V"] == pytest.approx(1.0, abs=0.05) and by["CL"] == pytest.approx(0.0, abs=0.02)
    assert "alone" in found.text and "prior" in found.text


def test_indices_over_a_posterior_share_what_correlated_parameters_tell():
    found = variance(drip_twin(), AUC, key=0)
    effects = found.found.shapley
    assert effects[:, 0].sum() == pytest.approx(1.0, abs=1e-9)
    assert np.all(found.found.first[:, 0] < found.found.total[:, 0]), "correlated, and what one adds the other takes back"
    assert "correlated" in found.text and found.between == 0.0
    draws = AUC.of(drip_twin().simulate())
    assert found.found.variance == pytest.approx(np.var(draws), rel=0.3)


# --------------------------------------------------------------------------------------------------- influence


@pytest.fixture(scope="module")
def gaussian():
    """A rate of a linear pump, read with Gaussian error: C = push / CL' ... in which the posterior of C's level is Gaussian."""
    twin = personalize(LEVEL, level_person(), Laplace(draws=4000, starts=1), key=0, progress=False)
    return dataclasses.replace(twin, draws=4000)


def level_person(without=()):
    times = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    keep = np.array([i for i in range(5) if i not in without])
    values = np.array([10.4, 9.1, 10.9, 9.6, 12.5])
    return Person.of("dora", start=0.0, stop=6.0, readings={"y": (times[keep], values[keep], "mg/L")})


def _level():
    import hybridtwin.system as ht

    class Level(ht.System):
        """dx/dt = 0, y = x, x(0) = m."""

        time = "h"

        class State(ht.State):
            x: ht.Scalar = ht.state("mg/L")

        m: ht.Scalar = ht.parameter(ht.normal(10.0, 2.0), "mg/L", "level")

        def rates(self, t, x, u):
            return self.State(x=0.0 * x.x / ht.const(1.0, "h"))

        def initial(self, u):
            return self.State(x=self.m)

        def outputs(self, x, u):
            return {"y": ht.output(x.x, "mg/L", "level")}

    return Model(Level(), y=sensors.Gaussian("y", sd=1.5))


LEVEL = _level()


def test_influence_on_a_gaussian_mean_in_closed_form(gaussian):
    """m ~ N(10, 4), y_i ~ N(m, 2.25): E[m | y] and what each reading does to it are ratios of precisions."""
    y, prior, noise = level_person().series["y"].value, 1 / 4.0, 1 / 2.25
    full = (10.0 * prior + y.sum() * noise) / (prior + 5 * noise)
    found = influence(gaussian, outcomes.at("y", 3.0), draws=4000)
    assert found.mean == pytest.approx(full, abs=0.03)
    sd = 1 / np.sqrt(prior + 5 * noise)
    assert found.sd == pytest.approx(sd, rel=0.03)
    for i, r in enumerate(found.readings):
        without = (10.0 * prior + (y.sum() - y[i]) * noise) / (prior + 4 * noise)
        assert r.trusted and r.shift == pytest.approx(full - without, abs=0.06)
        assert r.per_unit == pytest.approx(noise / (prior + 5 * noise), rel=0.06)
        assert r.gaussian == pytest.approx(full - without, abs=0.06)
        assert r.local == pytest.approx(sd**2 * noise * (y[i] - full), abs=0.05)
        assert r.spread == pytest.approx(sd * np.sqrt(prior + 4 * noise), abs=0.05)
        assert r.khat >= noise / (prior + 5 * noise) - 0.02, "never below its share of the precision"
    assert found.order[0] == 4, "the reading farthest out moves it most"


def test_the_tail_of_weights_is_read_off_the_curvature():
    """In a Gaussian the tail index of the weights of a deletion is the reading's share of the precision."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(400, 2)) @ np.array([[1.0, 0.3], [0.0, 0.5]])
    precision = np.linalg.inv(np.array([[1.0, 0.3], [0.0, 0.5]]).T @ np.array([[1.0, 0.3], [0.0, 0.5]]))
    shares = np.array([0.1, 0.9])
    said = np.stack([-0.5 * s * np.einsum("ni,ij,nj->n", z, precision, z) for s in shares], axis=1)
    own = z @ np.array([1.0, -2.0])
    leverage, shift = _gaussian(z, said, own)
    np.testing.assert_allclose(leverage, shares, rtol=0.15)
    pull = 0.3 * z[:, :1]  # what says nothing but which way: the mean follows by its covariance with it
    _, moved = _gaussian(z, pull, own)
    assert moved[0] == pytest.approx(0.3 * np.cov(z[:, 0], own)[0, 1], rel=0.02)
    assert np.abs(shift[0]) < 0.1 * np.std(own), "what only narrows moves no mean"


def test_influence_agrees_with_a_refit_and_tempering_halves_it(gaussian):
    """The posterior without the third and fourth reading, refitted, and by weights."""
    found = influence(gaussian, outcomes.at("y", 3.0), windows=[2.5, 4.5], draws=4000)
    refit = personalize(LEVEL, level_person(without=(2, 3)), Laplace(draws=4000, starts=1), key=1, progress=False)
    gone = np.mean(refit.fits[0].values["m"])
    middle = found.readings[1]
    assert middle.count == 2 and middle.trusted and found.mean - gone == pytest.approx(middle.shift, abs=0.06)
    tempered = personalize(LEVEL, level_person(), Laplace(draws=4000, starts=1), key=0, temper=4, progress=False)
    slow = influence(tempered, outcomes.at("y", 3.0), draws=4000)
    wanted = (1 / 9.0) / (1 / 4.0 + 5 / 9.0)
    assert slow[0].per_unit == pytest.approx(wanted, rel=0.06)


def test_influence_of_a_dose_curve_agrees_with_a_refit():
    """The reading of most influence on an area left out, and the twin personalized again."""
    twin = personalize(DRIP, drip_person(), Laplace(draws=4000, starts=2), key=0, progress=False)
    found = influence(twin, AUC, draws=4000)
    i = int(found.order[0])
    series = drip_person().series["C"]
    keep = np.arange(len(series.time)) != i
    fewer = Series.of(series.time[keep], series.value[keep], "mg/L")
    person = dataclasses.replace(drip_person(), series={"C": fewer})
    again = personalize(DRIP, person, Laplace(draws=4000, starts=2), key=0, progress=False)
    full, gone = (np.mean(AUC.of(dataclasses.replace(t, draws=4000).simulate())) for t in (twin, again))
    assert found[i].trusted and abs(found[i].shift) > 0.5 * found.sd, "a test that could not fail"
    assert full - gone == pytest.approx(found[i].shift, abs=0.1 * found.sd)
    assert np.sign(found[i].local) == np.sign(full - gone)


# ------------------------------------------------------------------------------------------------- distillation


@pytest.mark.parametrize("into", [Tree(depth=4), Formula(terms=3)], ids=["tree", "formula"])
def test_a_student_says_what_the_twin_says_and_how_well(into):
    """The area of one compartment over prior bodies: dose / CL, so the formula has the powers -1 and 1."""
    found = distill(whole_area(), AUC, into=into, prior=True, key=0)
    assert {"CL", "oral in all"} <= set(found.used) and f"R^2 {found.fidelity:.3f}" in found.text and "mg*h/L" in found.text
    table = pd.DataFrame({"ka": [1.5], "CL": [2.0], "V": [32.0], "oral in all": [320.0]})[list(found.features)]
    assert found.predict(table)[0] == pytest.approx(160.0, rel=0.35 if isinstance(into, Tree) else 0.03)
    if isinstance(into, Formula):
        assert found.fidelity > 0.98
        powers = dict(re.findall(r"\((CL|oral in all) / [^)]*\)\^(-?[0-9.]+)", found.text))
        assert float(powers["CL"]) == pytest.approx(-1.0, abs=0.03)
        assert float(powers["oral in all"]) == pytest.approx(1.0, abs=0.03)
    else:
        assert 0.7 < found.fidelity < 1.0 and found.text.count("at most") <= 2**4


def test_fidelity_is_measured_on_what_the_student_has_not_seen():
    """An outcome that is chance alone cannot be told, whatever the student says of its own rows."""
    rng = np.random.default_rng(0)
    noise = outcomes.custom(lambda x: rng.normal(size=len(x.failed)), label="chance", unit="1", better=None)
    assert distill(drip_twin(), noise, into=Tree(depth=6, least=0.001), key=0).fidelity < 0.1
    with pytest.raises(DeclarationError, match="no student"):
        distill(drip_twin(), AUC, into="tree", key=0)


# ------------------------------------------------------------------------------------------------- explanation


@pytest.fixture(scope="module")
def why():
    return explain(drip_twin(), outcomes.auc("C", better="lower"), windows="12 h")


def test_an_explanation_says_the_verdict_first_and_gives_no_orders(why):
    lines = why.text.splitlines()
    assert lines[1].startswith("Verdict: ") and lines[-1] == "Research use; not a medical device."
    assert "iv 240 mg Tue 24 Mar 00:00 to 12:00 raises it by +" in why.text and "mg*h/L" in why.text
    assert "clearance (CL, " in why.text and "a tenth more goes with -" in why.text
    assert "beside it, " in why.text, "harm stands beside what concerns a dose"
    for word in ("because", "should", "must ", "would have been", "Give ", "Take ", "give ", "reduce "):
        assert word not in why.text
    assert len(why.by_time(2).players) == 2
    assert set(why.table["kind"]) == {"input", "parameter", "amount", "time", "level", "reading", "stretch"}
    assert why.to_dataframe() is why.table


def test_no_number_is_shown_under_a_verdict_that_forbids_it(why):
    from made import verdict

    red = dataclasses.replace(why, verdict=verdict("DO NOT USE"))
    assert "No numbers are shown" in red.text and "mg*h/L" not in red.text
    assert red.table[["effect", "q05", "q95"]].isna().all(axis=None)


def test_what_the_record_has_not_seen_is_said():
    twin = drip_twin().do(iv=lambda b: 3.0 * b, CL=lambda v: 0.5 * v)
    found = explain(twin, AUC, windows=1)
    assert found.verdict.parts["supported"].level == "CAUTION"
    assert any("the record holds 120 to 120" in reason for reason in found.unseen)
    assert any(reason.startswith("CL is set") for reason in found.unseen)


def test_the_report_has_a_section_for_each_explanation_and_none_of_its_numbers_under_a_red_verdict(why, tmp_path):
    from made import verdict

    twin, red = drip_twin(), dataclasses.replace(why, verdict=verdict("DO NOT USE"))
    text = twin.report(tmp_path / "why.html", [why]).read_text(encoding="utf-8")
    for part in ('id="explanation-1"', "What drives it", "a tenth more", "the shares add up", "<svg"):
        assert part in text
    assert "iv 240 mg Tue 24 Mar 00:00 to 12:00 raises it by +" in text and text.count("Research use") >= 2
    told = twin.report(tmp_path / "red.html", red).read_text(encoding="utf-8")
    section = told[told.index('id="explanation-1"') : told.index('id="limits"')]
    assert "no numbers of this explanation are shown" in section and "mg*h/L" not in section and "<svg" not in section


def test_the_picture_shows_shares_parameters_and_readings(why):
    from made import verdict

    axes = why.plot().axes
    assert len(axes) == 3 and "shares add up" in axes[0].get_title("left") and "mg*h/L" in axes[0].get_xlabel()
    assert axes[0].get_yticklabels()[-1].get_text() == why.shares.players[why.shares.order[0]].label
    with pytest.raises(NotTrustworthy):
        dataclasses.replace(why, verdict=verdict("DO NOT USE")).plot()


def test_similar_days_are_those_with_like_inputs():
    """Three days with 100, 300 and 110 mg at eight: the first is like the third."""
    doses = Regimen.bolus([100.0, 300.0, 110.0], "mg", at=[8.0, 32.0, 56.0])
    read = [9.0, 15.0, 33.0, 39.0, 57.0, 63.0], [4.0, 3.1, 11.0, 6.9, 5.9, 4.1], "mg/L"
    person = Person.of("eva", start=0.0, stop=72.0, time=CLOCK, doses={"iv": doses}, readings={"C": read},
                       signals={"push": Signal.constant(5.0, "mg/h")}, covariates={"weight": (70.0, "kg")})  # fmt: skip
    twin = personalize(DRIP, person, Laplace(draws=100, starts=1), key=0, progress=False)
    found = explain(twin, outcomes.cmax("C", 55.0, 66.0), windows=1)
    assert [a.label.split(" to ")[0] for a in found.similar] == ["Tue 24 Mar 07:00", "Wed 25 Mar 07:00"]
    assert found.similar[0].inputs["iv"] == (100.0, 110.0) and found.similar[0].readings["C"] == pytest.approx(3.55)
    assert "iv 100 against 110 mg" in found.text


def test_a_bare_thing_is_refused():
    with pytest.raises(DeclarationError, match="asks of a twin"):
        explain("anna", AUC)
    assert mesh_person().id == "carla"


def test_of_many_doses_the_latest_stand_alone_and_the_older_ones_together():
    twin = drip_twin().do(iv=Regimen.bolus(20.0, "mg", at=[float(t) for t in range(1, 21)]))
    found = players_of(twin)
    assert len(found) == 7 and found[-1].label.startswith("push")
    assert [p.label for p in found[:2]] == ["iv 20 mg at Tue 24 Mar 16:00", "iv 20 mg at Tue 24 Mar 17:00"]
    assert found[5].label == "iv 300 mg Tue 24 Mar 00:00 to 16:00"
    s = shares(twin, AUC)
    np.testing.assert_allclose(s.draws.sum(axis=0), s.total, rtol=1e-12)


def test_coalitions_solved_in_several_calls_stand_on_the_same_nodes():
    """Worlds come in portions; one and the same coalition has the same bits in each of them."""
    twin = drip_twin()
    players = players_of(twin, windows="4 h")
    value = worth_of(twin, AUC, players, {"push": 13.0})
    some = np.random.default_rng(0).random((70, len(players))) < 0.5
    some[-1] = some[0]
    found = value(some)
    np.testing.assert_array_equal(found[0], found[-1])


def test_inputs_too_old_to_matter_are_kept_and_told():
    """A bolus three days ago is gone (half-life 8 h): it is not taken away, and that is said."""
    doses = Regimen.bolus(100.0, "mg", at=[2.0, 30.0, 80.0])
    person = Person.of("h", start=0.0, stop=96.0, time=CLOCK, doses={"iv": doses}, covariates={"weight": (70.0, "kg")},
                       signals={"push": Signal.constant(5.0, "mg/h")},
                       readings={"C": ([3.0, 9.0, 31.0, 40.0, 81.0, 90.0], [4.5, 3.1, 5.0, 3.5, 5.0, 3.6], "mg/L")})  # fmt: skip
    twin = personalize(DRIP, person, Laplace(draws=60, starts=1), key=0, progress=False)
    found = explain(twin, outcomes.cmax("C", 80.0, 96.0))
    assert [p.start for p in found.shares.players] == [30.0, 80.0]
    assert any("are kept as they were: without all of them it moves by" in note for note in found.notes)
    whole = explain(twin, outcomes.cmax("C", 80.0, 96.0), since=0.0)
    assert len(whole.shares.players) == 3
    assert np.median(np.abs(whole.shares.draws[0])) < 5e-3 * np.median(whole.value)


def test_where_weights_do_not_reach_the_posterior_is_drawn_anew():
    """One reading of sd 0.1 tells the level almost alone; without it the posterior is wide, and in closed form all the same."""
    model = Model(LEVEL.system, y=sensors.Gaussian("y", sd=1.5), z=sensors.Gaussian("y", sd=0.1))
    readings = {"y": ([1.0, 2.0, 4.0], [8.0, 9.0, 8.5], "mg/L"), "z": ([3.0], [11.5], "mg/L")}
    person = Person.of("i", start=0.0, stop=6.0, readings=readings)
    twin = personalize(model, person, Laplace(draws=1000, starts=1), key=0, progress=False)
    by_weights = influence(twin, outcomes.at("y", 3.0), anew=0)
    i = [r.sensor for r in by_weights.readings].index("z")
    assert not by_weights[i].trusted and "only a refit" in by_weights.text
    found = influence(twin, outcomes.at("y", 3.0))[i]
    without = (10.0 / 4 + 25.5 / 2.25) / (1 / 4 + 3 / 2.25)
    assert found.drawn and found.trusted
    assert by_weights.mean - found.shift == pytest.approx(without, abs=0.1)
    assert found.spread == pytest.approx(by_weights.sd * np.sqrt(1 / 4 + 3 / 2.25), rel=0.15)


@pytest.mark.parametrize("prior", [False, True], ids=["correlated", "independent"])
def test_indices_of_ishigami(prior):
    """sin x1 + 7 sin^2 x2 + 0.1 x3^4 sin x1, uniform on -pi to pi: indices and Shapley effects in closed form."""
    first, third = 0.5 * (1 + np.pi**4 / 50) ** 2, 0.01 * np.pi**8 * (1 / 18 - 1 / 50)
    whole = first + 49 / 8 + third
    main = np.array([first, 49 / 8, 0.0]) / whole
    total = np.array([first + third, 49 / 8, third]) / whole

    def ishigami(u):
        x = np.pi * (2.0 * u - 1.0)
        return np.sin(x[:, 0]) + 7.0 * np.sin(x[:, 1]) ** 2 + 0.1 * x[:, 2] ** 4 * np.sin(x[:, 0])

    groups = [[0], [1], [2]]
    if prior:
        ways = [independent] + ([by_salib] if importlib.util.find_spec("SALib") else [])
        found = [way(ishigami, groups, rows=2048, key=3) for way in ways]
    else:
        found = [correlated(lambda z: ishigami(ndtr(z)), np.eye(3), groups, rows=8192, key=3)]
        effects = found[0].shapley[:, 0]
        np.testing.assert_allclose(effects, (main + total) / 2, atol=0.03)
        assert effects.sum() == pytest.approx(1.0)
    for one in found:
        np.testing.assert_allclose(one.first[:, 0], main, atol=0.04)
        np.testing.assert_allclose(one.total[:, 0], total, atol=0.04)
        assert np.all(one.total[:, 1] <= one.total[:, 0]) and np.all(one.total[:, 0] <= one.total[:, 2])
        assert one.variance == pytest.approx(whole, rel=0.05)


def test_indices_of_correlated_normals_in_closed_form():
    """Y = 2 x1 + x2, correlation r: first and total indices and Shapley effects (Owen and Prieur 2017, arXiv:1610.02080)."""
    r = 0.6
    whole = 4 + 1 + 4 * r
    first = np.array([(2 + r) ** 2, (1 + 2 * r) ** 2]) / whole
    total = np.array([4 * (1 - r**2), 1 - r**2]) / whole
    found = correlated(lambda z: 2.0 * z[:, 0] + z[:, 1], np.array([[1.0, r], [r, 1.0]]), [[0], [1]], rows=8192, key=0)
    np.testing.assert_allclose(found.first[:, 0], first, atol=0.03)
    np.testing.assert_allclose(found.total[:, 0], total, atol=0.03)
    np.testing.assert_allclose(found.shapley[:, 0], (first + total) / 2, atol=0.03)
    assert np.all(found.first[:, 0] > found.total[:, 0]), "what they share is told by either"


def test_many_correlated_factors_are_met_by_permutations():
    """Nine factors of a sum: by permutations the effects still sum to one and find what matters."""
    weights = np.array([3.0, 2.0, 1.0, 0, 0, 0, 0, 0, 0])
    found = correlated(lambda z: z @ weights, np.eye(9), [[i] for i in range(9)], rows=2048, key=0)
    assert found.shapley[:, 0].sum() == pytest.approx(1.0) and "permutations" in found.estimator
    np.testing.assert_allclose(found.shapley[:, 0], weights**2 / 14.0, atol=0.05)


def test_shares_agree_with_the_shap_package():
    """The exact explainer of shap on the same game of worlds (extra `explain`)."""
    shap = pytest.importorskip("shap")
    twin = drip_twin()
    s = shares(twin, AUC, windows="12 h")
    value = worth_of(twin, AUC, s.players, s.baseline)
    explainer = shap.explainers.Exact(lambda x: value(np.asarray(x, bool))[:, 0], np.zeros((1, len(s.players))))
    found = explainer(np.ones((1, len(s.players))))
    np.testing.assert_allclose(found.values[0], s.draws[:, 0], rtol=1e-8)


@pytest.mark.heavy
def test_a_day_with_diabetes_is_explained_and_agrees_with_differences_of_worlds():
    """T1DMinimal on a day of the virtual adult: meals that last, a pump, a sensor with correlated error."""
    person = datasets.virtual_adult()
    person = person.between("2026-03-11 00:00", "2026-03-11 18:00")
    twin = personalize(Model(T1DMinimal(), cgm=sensors.CGM("G_isf")), person, Laplace(draws=100, starts=2), key=0, progress=False)
    twin = dataclasses.replace(twin, draws=24)
    mean = outcomes.mean("G", "2026-03-11 06:00", "2026-03-11 16:00")
    s = sensitivity(twin, mean)
    SI = np.asarray(twin.fits[0].values["SI"])[thinned(twin.fits[0].count, 24)]
    up, down = (twin.do(SI=lambda v, k=k: v * k) for k in (1.001, 0.999))
    found = by_worlds(twin, mean, up, down, 1.0)
    np.testing.assert_allclose(s["SI"].draws * SI * 0.002, found, rtol=0.02, atol=0.02 * np.max(np.abs(found)))
    meal = next(x for x in s.slopes if x.kind == "amount" and x.name == "meal")

    def changed(k=1.0, by=0.0):
        def change(regimen):
            own = [dataclasses.replace(d, amount=d.amount * k, time=d.time + by) if d.time == meal.start else d for d in regimen]
            return dataclasses.replace(regimen, doses=tuple(own))

        return twin.do(meal=change)

    found = by_worlds(twin, mean, changed(k=1.002), changed(k=0.998), 0.004 * meal.value)
    np.testing.assert_allclose(meal.draws, found, rtol=0.02, atol=0.02 * np.max(np.abs(found)))
    later = next(x for x in s.slopes if x.kind == "time" and x.start == meal.start and x.name == "meal")
    found = by_worlds(twin, mean, changed(by=0.5), twin, 0.5)
    np.testing.assert_allclose(later.draws, found, rtol=0.03, atol=0.03 * np.max(np.abs(found)))
    why = explain(twin, outcomes.peak("G", "2026-03-11 06:00", "2026-03-11 16:00"))
    np.testing.assert_allclose(why.shares.draws.sum(axis=0), why.shares.total, rtol=1e-9, atol=1e-9)
    assert "time of glucose below 70 mg/dL" in why.text and "insulin sensitivity" in why.text
    drivers = dict(zip([p.label for p in why.shares.players], np.median(why.shares.draws, axis=1), strict=True))
    assert all(share > 0 for label, share in drivers.items() if label.startswith("meal") and abs(share) > 1.0)
    assert all(share < 0 for label, share in drivers.items() if label.startswith("bolus") and abs(share) > 1.0)


class Late(ht.System):
    """dA/dt = -k A, seen at once; a bolus comes after a lag and in part."""

    time = "h"

    class State(ht.State):
        A: ht.Scalar = ht.state("mg")

    class Input(ht.Input):
        iv: ht.Scalar = ht.dose("mg", into="A")

    k: ht.Scalar = ht.parameter(ht.typical(0.3, cv=0.2), "1/h")
    lag: ht.Scalar = ht.parameter(ht.typical(0.5, cv=0.2), "h")
    share: ht.Scalar = ht.parameter(ht.logitnormal(0.8, 0.2), "1")

    def dosing(self, u):
        return {"iv": ht.route(lag=self.lag, fraction=self.share)}

    def rates(self, t, x, u):
        return self.State(A=-self.k * x.A)

    def outputs(self, x, u):
        return {"A": ht.output(x.A, "mg")}


def test_a_jump_at_a_time_of_each_draws_own_has_no_slope_and_says_so():
    """The area to the end moves by -share D exp(-k (T - s - lag)) an hour of lag; from the curve at given times alone it would
    seem to move by the whole dose more. What is read at a time, and all that does not move the jump, is told.
    """
    person = Person.of("late", time="h", start=0.0, stop=8.0, doses={"iv": Regimen.bolus(40.0, "mg", at=1.0)},
                       readings={"A": ([2.5, 4.0, 6.0], [22.0, 14.0, 8.0], "mg")})  # fmt: skip
    twin = personalize(Model(Late(), A=sensors.Gaussian("A", sd=1.0)), person, Laplace(draws=40, starts=1), key=0, progress=False)
    k, lag, share = (twin.fits[0].values[n] for n in ("k", "lag", "share"))
    area, late = sensitivity(twin, outcomes.auc("A")), sensitivity(twin, outcomes.auc("A", 3.0, 8.0))
    assert area.left_out == ("lag", "time of iv at 1 h") and "lag, time of iv at 1 h would do is not told" in area.text
    assert {s.label for s in area.slopes} == {"k", "share", "iv at 1 h"}
    np.testing.assert_allclose(area["share"].draws, 40.0 * (1 - np.exp(-k * (7.0 - lag))) / k, rtol=1e-2)
    assert late.left_out == (), "in this window nothing jumps"
    moved = share * 40.0 * (np.exp(-k * (2.0 - lag)) - np.exp(-k * (7.0 - lag)))
    np.testing.assert_allclose(late["lag"].draws, moved, rtol=1e-3)
    value = sensitivity(twin, outcomes.at("A", 5.0))
    np.testing.assert_allclose(value["lag"].draws, k * share * 40.0 * np.exp(-k * (4.0 - lag)), rtol=1e-4)
    assert any("is not told" in note for note in explain(twin, outcomes.cmax("A")).notes)


def test_slopes_that_do_not_settle_are_left_to_a_stable_method(monkeypatch):
    """It was a program without the worlds that it runs in, which ended with an error of Python; a heart under fluid met it."""
    twin = mesh_twin()
    usual = sensitivity(twin, outcomes.mean("C", 2, 10))

    def by_the_other(program, draws, worlds, *, instead, **how):
        stable, own = instead()
        return solve_draws(stable, [tree | {"size": np.ones((len(tree["at"]["values"]["VM"]), 1))} for tree in draws], own, **how)

    monkeypatch.setattr("hybridtwin.explain.tangents.solve_draws", by_the_other)
    other = sensitivity(twin, outcomes.mean("C", 2, 10))
    np.testing.assert_allclose(other["VM"].draws, usual["VM"].draws, rtol=1e-3)
    assert np.any(other["VM"].draws != usual["VM"].draws), "by another method"
