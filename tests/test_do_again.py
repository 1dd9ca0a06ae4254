"""What `do` makes of what was done before and of values that vary, and what it refuses: against the same thing said plainly."""

import numpy as np
import pytest
from small import DRIP, drip_person, drip_twin, mesh_twin

import hybridtwin as ht
from hybridtwin.errors import (
    DeclarationError,
    InterventionError,
    MissingValue,
    NotIdentified,
    ParameterError,
    PastHorizon,
    UnknownTarget,
)
from hybridtwin.interventions import Do
from hybridtwin.physiology import OneCompartment, T1DMinimal, Vancomycin

AUC = ht.outcomes.auc("C")


def level(twin):
    return twin.simulate()["C"]


def contrasted(one, other):
    """Both worlds on one union of nodes."""
    a, b = ht.contrast(one, other, AUC).trajectories
    return np.abs(a["C"] - b["C"]).max()


# ------------------------------------------------------------------------------------------------ units of time


@pytest.mark.parametrize("unit, hour", [("h", 1.0), ("min", 60.0), ("d", 1 / 24), ("s", 3600.0)])
def test_bare_times_of_a_question_count_as_the_record_does(unit, hour):
    """A system of hours: its doses, windows and outcomes in the record's minutes, days or seconds, against the closed form."""
    body, k = OneCompartment(CL=3.0, V=30.0), 0.1
    person = ht.Person.of("p", time=unit, start=0, stop=24 * hour, doses={"iv": ht.Regimen.bolus(100.0, "mg", at=0)})
    more = ht.Regimen.bolus(60.0, "mg", at=5 * hour)
    faster = Do({"CL": lambda v: 3 * v}, 8 * hour, 10 * hour)
    spent = lambda t: k * t + 2 * k * np.clip(t - 8.0, 0.0, 2.0)  # the exponent
    found = [
        ht.simulate(body, person, at=np.array([4.0, 9.0, 20.0]) * hour, do=[Do({"iv": given}), faster])
        for given in (ht.Regimen.bolus([100.0, 60.0], "mg", at=[0, 5 * hour]), lambda b: b + more, lambda b: more + b)
    ]
    t = np.array([4.0, 9.0, 20.0])
    wanted = (100 * np.exp(-spent(t)) + np.where(t > 5, 60 * np.exp(spent(5.0) - spent(t)), 0.0)) / 30
    for one in found:
        np.testing.assert_allclose(one["C"][0], wanted, rtol=1e-12)
    day = ht.simulate(body, person)
    area = 100 / 30 / k * (np.exp(-k * 2) - np.exp(-k * 10))
    np.testing.assert_allclose(ht.outcomes.auc("C", 2 * hour, 10 * hour).of(day), area, rtol=1e-4)
    steps = ht.Signal.steps([0, 8 * hour, 10 * hour], [3.0, 9.0, 3.0], "L/h")  # of a parameter
    held = ht.simulate(body, person, at=[20.0 * hour], do=[Do({"CL": steps})])
    np.testing.assert_allclose(held["C"][0], 100 * np.exp(-spent(20.0)) / 30, rtol=1e-12)


def test_a_signal_is_no_function_of_what_was():
    """It can be called, but with a time: a parameter follows its steps inside the window, in its unit, and no line."""
    body, k = OneCompartment(CL=3.0, V=30.0), 0.1
    person = ht.Person.of("p", time="h", start=0, stop=24, doses={"iv": ht.Regimen.bolus(100.0, "mg", at=0)})
    steps = ht.Signal.steps([0, 8], [100.0, 150.0], "mL/min")  # 6 and 9 L/h
    found = ht.simulate(body, person, at=[20.0], do=[Do({"CL": steps}, 4, 10)])["C"]
    np.testing.assert_allclose(found, [[100 / 30 * np.exp(-k * 4 - 2 * k * 4 - 3 * k * 2 - k * 10)]], rtol=1e-12)
    refused = [
        ({"CL": ht.Signal.linear([0, 24], [3.0, 9.0], "L/h")}, "cannot follow a line"),
        ({"CL": ht.Signal.constant(9.0, "mg")}, "dimensions differ"),
        ({"CL": ht.Signal.steps([0, 8], [3.0, -9.0], "L/h")}, "outside its range"),
        ({"iv": steps}, "must become a Regimen, not Signal"),
        ({"central": ht.once(steps)}, "cannot be set to Signal"),
    ]
    for targets, message in refused:
        with pytest.raises(ht.errors.HybridTwinError, match=message):
            ht.simulate(body, person, do=[Do(targets, 5, 5 if "central" in targets else None)])
    with pytest.raises(InterventionError, match="reading of C' cannot become Signal"):
        drip_twin().do(**{"reading of C": ht.Signal.constant(1.0, "mg/L")})


@pytest.mark.heavy
@pytest.mark.parametrize("unit, hour", [("min", 60.0), ("d", 1 / 24)])
def test_bare_times_of_a_twin_count_as_the_record_does(unit, hour):
    """The answers of a record in hours, to a forecast as well."""
    def asked(unit, hour):
        person = ht.Person.of("p", time=unit, start=0, stop=24 * hour, doses={"iv": ht.Regimen.bolus(100.0, "mg", at=0)},
                              readings={"C": (np.array([1.0, 4, 8, 12]) * hour, [3.0, 2.5, 1.6, 1.1], "mg/L")})  # fmt: skip
        model = ht.Model(OneCompartment(), C=ht.sensors.Combined2("C", add=0.1, prop=0.1))
        twin = ht.personalize(model, person, ht.Laplace(), key=0)
        other = twin.do(CL=lambda v: 2 * v, start=6 * hour, stop=9 * hour)
        ahead = twin.forecast(36 * hour, iv=ht.Regimen.bolus(50.0, "mg", at=30 * hour))
        effect = ht.contrast(other, twin, ht.outcomes.at("C", 20 * hour))[0]
        return np.r_[effect.difference, ahead.simulate()["C"][:, -1], ahead.stop]

    np.testing.assert_allclose(asked(unit, hour), asked("h", 1.0), rtol=1e-6)


def test_times_at_which_a_day_is_simulated():
    """Numbers of the system's time or clock text, inside the day."""
    twin = drip_twin()
    np.testing.assert_array_equal(twin.simulate(at=["06:00", 7.5])["C"], twin.simulate(at=[6.0, 7.5])["C"])
    for at, error, message in [
        ([], InterventionError, "names no time"),
        ([6.0, float("nan")], MissingValue, "NaN"),
        ([99.0], PastHorizon, "outside the day .*forecast"),
        ([-1.0], PastHorizon, "outside the day"),
    ]:
        with pytest.raises(error, match=message):
            twin.simulate(at=at)
    with pytest.raises(PastHorizon, match="window inf h to"):
        twin.do(CL=3.0, start=float("inf"))


# ------------------------------------------------------------------------------------------------ done again


@pytest.mark.parametrize("twin, name", [(drip_twin, "CL"), (mesh_twin, "VM")])
def test_a_function_is_of_what_the_parameter_was_in_that_world(twin, name):
    """As doses and signals: twice of a third is two thirds, in whatever windows and whatever the posterior says."""
    lived = twin()
    thrice, twice = (lambda v: v / 3), (lambda v: 2 * v)
    once, both = lived.do(**{name: 4.0}), lived.do(**{name: 4.0}).do(**{name: twice})
    assert contrasted(both, lived.do(**{name: 8.0})) == 0.0 and contrasted(both, once) > 0.1
    assert contrasted(lived.do(**{name: thrice}).do(**{name: twice}), lived.do(**{name: lambda v: 2 * v / 3})) < 1e-9
    early = lived.do(**{name: thrice}, start=3, stop=6)
    left = early.do(**{name: twice}, start=5, stop=8)
    plain = early.do(**{name: lambda v: 2 * (v / 3)}, start=5, stop=6)  # three pieces, each of them said by itself
    pieces = lived.do(**{name: thrice}, start=3, stop=5).do(**{name: lambda v: 2 * (v / 3)}, start=5, stop=6)
    pieces = pieces.do(**{name: twice}, start=6, stop=8)
    assert contrasted(left, pieces) < 1e-9 and contrasted(left, plain) > 1e-3


def daily():
    """Three days of a drug whose clearance is another on each, read often enough to tell."""
    rng, times = np.random.default_rng(5), np.array([h for d in (0, 24, 48) for h in (d + 1.0, d + 5, d + 10, d + 16, d + 23)])
    amount, seen, k = 0.0, [], (0.05, 0.15, 0.08)
    for t in np.arange(0, 73):
        amount += 500.0 * (t % 24 == 0)
        seen.append(amount / 30.0)
        amount *= np.exp(-k[min(int(t) // 24, 2)])
    values = np.array(seen)[times.astype(int)] * np.exp(0.05 * rng.normal(size=len(times)))
    person = ht.Person.of("d", time="h", start=0, stop=72, doses={"iv": ht.Regimen.bolus(500, "mg", at=[0, 24, 48])},
                          readings={"C": (times, values, "mg/L")})  # fmt: skip
    model = ht.Model(OneCompartment(V=30.0), C=ht.sensors.LogNormal("C", sd=0.05), varies={"CL": ("day", 0.6)})
    return ht.personalize(model, person, ht.Laplace(draws=60, starts=2), key=0, progress=False)


@pytest.mark.heavy
def test_a_function_is_of_the_value_that_a_parameter_has_on_that_day():
    """A body with another clearance each day: what is doubled is that day's, told by the slopes of the logarithm."""
    lived = daily()
    at = np.array([2.0, 20.0, 26.0, 44.0, 50.0, 68.0])

    def slopes(twin):
        found = np.log(twin.simulate(at=at)["C"])
        return (found[:, 0::2] - found[:, 1::2]) / 18.0

    own = slopes(lived)
    assert np.median(own[:, 1] / own[:, 0]) > 2, "the days differ"
    np.testing.assert_allclose(slopes(lived.do(CL=lambda v: v)), own, rtol=1e-9)
    np.testing.assert_allclose(slopes(lived.do(CL=lambda v: 2 * v)), 2 * own, rtol=1e-9)
    later = slopes(lived.do(CL=lambda v: 2 * v, start=24))
    np.testing.assert_allclose(later, own * [1, 2, 2], rtol=1e-9)
    np.testing.assert_allclose(slopes(lived.do(CL=3.0, start=24, stop=48))[:, 1], 0.1, rtol=1e-9)
    again = lived.do(CL=lambda v: 2 * v, start=30).do(CL=lambda v: 1.5 * v)  # what was done before, and the day, both
    np.testing.assert_allclose(slopes(again)[:, [0, 2]], own[:, [0, 2]] * [1.5, 3], rtol=1e-9)


class Daily(ht.System):
    """A drug in one volume, cleared at another rate each day."""

    time = "h"

    class State(ht.State):
        amount: ht.Scalar = ht.state("mg")

    class Input(ht.Input):
        iv: ht.Scalar = ht.dose("mg", into="amount")

    k: ht.Scalar = ht.parameter(ht.typical(0.1, cv=0.1), "1/h", varies="day", spread=0.5)

    def rates(self, t, x, u):
        return self.State(amount=-self.k * x.amount)


def test_bodies_drawn_from_a_prior_are_changed_by_the_value_of_the_day_too():
    person = ht.Person.of("d", time="h", start=0, stop=48, doses={"iv": ht.Regimen.bolus(500, "mg", at=[0, 24])})
    at, how = np.array([2.0, 20.0, 26.0, 44.0]), dict(draws=20, key=0)

    def slopes(*do):
        found = np.log(ht.simulate(Daily(), person, at=at, do=list(do), **how)["amount"])
        return (found[:, 0::2] - found[:, 1::2]) / 18.0

    own = slopes()
    assert np.abs(np.log(own[:, 1] / own[:, 0])).max() > 0.5, "the days differ"
    np.testing.assert_allclose(slopes(Do({"k": lambda v: 2 * v}, start=24)), own * [1, 2], rtol=1e-9)
    with pytest.raises(ParameterError, match="20 of 20 draws"):
        slopes(Do({"k": lambda v: v - 9.0}))


# -------------------------------------------------------------------------------------------------- refused


def test_a_dose_before_the_record_begins_is_refused_not_lost():
    """The first bolus of the record is at 1 h: two hours earlier it would be before the first row, and in no world."""
    lived = drip_twin()
    for wrong in (lambda d: d.shift(-2, "h"), ht.Regimen.bolus(50, "mg", at=-0.5)):
        with pytest.raises(PastHorizon, match="before the record begins"):
            lived.do(iv=wrong)
    assert lived.do(iv=lambda d: d.shift(-2, "h"), start=5).world().onset == 7.0
    assert len(lived.do(iv=lambda d: d.shift(-1, "h")).world().inputs["iv"].doses) == 3, "on the first row is in the record"
    ahead = lived.forecast("24 h")
    with pytest.raises(PastHorizon, match="before the record begins"):
        ahead.do(iv=ht.Regimen.bolus(50, "mg", at=10))
    with pytest.raises(InterventionError, match="before the forecast begins"):
        lived.forecast("24 h", iv=ht.Regimen.bolus(50, "mg", at=10))


def test_a_record_tells_of_doses_before_it_begins():
    early = ht.Person.of("e", time="h", start=0, stop=24, doses={"iv": ht.Regimen.bolus(100, "mg", at=[-3, 2])},
                         signals={"push": ht.Signal.constant(0, "mg/h")})  # fmt: skip
    notes = early.bind(DRIP.spec, {}).notes
    assert any("1 doses before the record begins (0 h)" in str(note) for note in notes), notes
    assert not any("before the record" in str(note) for note in drip_person().bind(DRIP.spec, {}).notes)


def test_what_a_parameter_or_state_cannot_be_is_refused():
    lived = drip_twin()
    for wrong in (-1.0, float("nan"), float("inf"), (-50, "mL/min")):
        with pytest.raises(ParameterError, match=r"CL = .* lies outside its range 0 to inf"):
            lived.do(CL=wrong)
    with pytest.raises(ParameterError, match="100 of 100 draws"):
        lived.do(CL=lambda v: v - 1e3).simulate()
    for wrong in (-1.0, (-0.1, "g"), ht.Signal.steps([0, 9], [5, -5], "mg")):
        with pytest.raises(InterventionError, match="declared as 0 or more"):
            lived.do(amount=wrong)
    with pytest.raises(InterventionError, match="declared as 0 or more"):
        lived.do(amount=ht.once(-5.0), start=3)


def test_what_no_living_body_has_is_refused_as_in_a_record():
    """Seven tons, also as one step of a signal, and a bolus of a thousand units; what a body can have is not."""
    man = {"weight": (70.0, "kg"), "age": (40.0, "yr"), "female": (0.0, "1")}
    doses = {"iv": ht.Regimen.infusion(1000.0, "mg", at=0.0, over="1 h")}
    person = ht.Person.of("p", time="h", start=0.0, stop=12.0, doses=doses, covariates=man)
    body = Vancomycin().typical()
    for weight in (7000.0, (7.0, "Mg"), ht.Signal.steps([0.0, 4.0], [70.0, 0.1], "kg"), lambda w: 100 * w):
        with pytest.raises(InterventionError, match=r"0[.]3 to 400 kg, what a living body has"):
            ht.simulate(body, person, do=Do({"weight": weight}))
    assert np.isfinite(ht.simulate(body, person, do=Do({"weight": 140.0}))["C"]).all()
    meal = ht.Person.of("p", time="min", start=0.0, stop=300.0, covariates={"weight": (70.0, "kg")})
    much = Do({"bolus": ht.Regimen.bolus(1000.0, "[IU]", at=10.0)})
    with pytest.raises(InterventionError, match=r"bolus would be 1000 \[IU\], outside 0 to 100"):
        ht.simulate(T1DMinimal().typical(), meal, do=much)


def test_an_unknown_output_and_the_ratio_of_an_event_are_refused():
    lived = drip_twin()
    half = lived.do(iv=lambda d: 0.5 * d)
    with pytest.raises(UnknownTarget, match="Outputs: C"):
        ht.contrast(half, lived, ht.outcomes.peak("Cx"))
    with pytest.raises(DeclarationError, match="is an event"):
        ht.contrast(half, lived, ht.outcomes.ever_above("C", 3, "mg/L"), scale="ratio")
    for wrong in ("push", "CL"):
        with pytest.raises(DeclarationError, match="An outcome is an output, a state or a reading"):
            ht.identify(DRIP, "iv", wrong)


@pytest.mark.heavy
def test_an_effect_that_was_identified_is_the_one_that_is_told():
    lived = drip_twin()
    event = ht.outcomes.ever_above("C", 3, "mg/L")
    half = ht.contrast(lived.do(iv=lambda d: 0.5 * d), lived, event)
    assert "identified without adjustment" in half.number_needed_to_treat(identified=ht.identify(DRIP, "iv", "C")).text
    with pytest.raises(NotIdentified, match="effect of push was identified, and these worlds differ in iv"):
        half.number_needed_to_treat(identified=ht.identify(DRIP, "push", "C"))
    with pytest.raises(NotIdentified, match="differ in iv, push"):
        both = ht.contrast(lived.do(iv=lambda d: 0.5 * d, push=3.0), lived, event)
        both.number_needed_to_treat(identified=ht.identify(DRIP, "iv", "C"))
    with pytest.raises(NotIdentified, match="identifies nothing"):
        half.number_needed_to_treat(identified=ht.identify(DRIP, "iv", "C", hidden={"illness": ["iv", "amount"]}))
    with pytest.raises(NotIdentified, match="does not say how"):
        half.number_needed_to_treat(randomized="yes")


# ------------------------------------------------------------------------------------------------ never seen


@pytest.mark.parametrize("change, told", [
    (dict(push=300.0), "push from 10 to 300 mg/h; the record holds 10 to 16"),
    (dict(weight=200.0), "weight from 70 to 200 kg; the record holds 70 to 70"),
    (dict(CL=lambda v: 2 * v), "CL is set, which no record has seen"),
    (dict(amount=10.0), "amount is held, which no record has seen"),
])  # fmt: skip
def test_a_contrast_says_what_no_record_has_seen_as_an_explanation_does(change, told):
    lived = drip_twin()
    other = lived.do(**change, start=18)
    effect = ht.contrast(other, lived, AUC)
    assert effect.verdict.parts["supported"].level == "CAUTION" and told in effect.text
    assert told not in ht.contrast(lived.do(push=lambda s: 1.2 * s), lived, AUC).text
    with pytest.raises(ht.NotTrustworthy, match=told.split(";")[0]):
        ht.optimize(lived, {"other": other}, target=ht.outcomes.within(AUC, 1, 1000, "mg*h/L"))


@pytest.mark.heavy
def test_an_outcome_that_nothing_moves_is_no_explanation():
    why = ht.explain(drip_twin(), ht.outcomes.time_above("C", 1e4, "mg/L"))
    assert why.verdict.parts["informed"].level == "CAUTION" and "nothing to explain" in why.text
    assert "does not move it" in why.text and "moves it, with no sure sign, by 0 " not in why.text
    assert "nothing to explain" not in ht.explain(drip_twin(), AUC).text
