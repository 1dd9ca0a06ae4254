"""The twin: what `do` does, against closed forms on every draw; other days, forecasts, updates and rules of care."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from small import CLOCK, DRIP, drip_person, drip_twin, mesh_twin, oral_person

from hybridtwin import outcomes, sensors
from hybridtwin.causal.contrast import contrast
from hybridtwin.errors import (
    AmbiguousDose,
    InterventionError,
    ParameterError,
    PastHorizon,
    UnitError,
    UnknownTarget,
)
from hybridtwin.fit import unit_of
from hybridtwin.inference.check import check
from hybridtwin.inference.methods import Laplace
from hybridtwin.inference.personalize import personalize, update
from hybridtwin.interventions import Rescue
from hybridtwin.model import Model
from hybridtwin.physiology import OneCompartmentOral
from hybridtwin.records import Cohort, Person
from hybridtwin.signals import Regimen, Signal

AT = np.array([0.5, 1.0, 4.0, 8.0, 8.5, 9.0, 11.9, 14.0, 17.0, 23.5])
BOLUSES = [(1.0, 120.0), (9.0, 120.0), (17.0, 120.0)]
PUSH = [(0.0, 10.0), (12.0, 16.0)]


def closed_form(
    CL, V, at=AT, *, boluses=BOLUSES, push=PUSH, weight=((0.0, 70.0),), faster=(0.0, 0.0, 1.0), start=0.0, at_start=0.0
):
    """Concentration draw by draw, (draws, N): exact between the events; `faster` is (from, until, factor of CL)."""
    CL, V = np.asarray(CL)[:, None], np.asarray(V)[:, None]
    events = {t for t, _ in boluses} | {t for t, _ in push} | {t for t, _ in weight} | {faster[0], faster[1]} | set(at)
    times = sorted(t for t in events | {start} if t >= start)
    amount, found = np.broadcast_to(at_start, CL.shape).astype(float), {}
    for now, after in zip(times, [*times[1:], times[-1]], strict=True):
        amount = amount + sum(a for t, a in boluses if t == now)
        found[now] = (amount / V)[:, 0]
        rate = [r for t, r in push if t <= now][-1]
        k = (
            CL
            * ([w for t, w in weight if t <= now][-1] / 70.0)
            * (faster[2] if faster[0] <= now < faster[1] else 1.0)
            / V
        )
        amount = rate / k + (amount - rate / k) * np.exp(-k * (after - now))
    return np.stack([found[t] for t in at], axis=1)


def body(twin):
    return {name: twin.fits[0].values[name] for name in ("CL", "V")}


def assert_exact(twin, at=AT, **change):
    values = body(twin) | {k: change.pop(k) for k in ("CL", "V") if k in change}
    np.testing.assert_allclose(twin.simulate(at=at)["C"], closed_form(**values, at=at, **change), rtol=1e-8)


def test_the_lived_day():
    assert_exact(drip_twin())


HALF = [(1.0, 120.0), (9.0, 60.0), (17.0, 60.0)]
TARGETS = {
    "dose by a function": (lambda t: t.do(iv=lambda b: 0.5 * b, start="08:00"), {"boluses": HALF}),
    "dose by a regimen": (
        lambda t: t.do(iv=Regimen.bolus(0.06, "g", at=["09:00", "17:00"]), start=8.0),
        {"boluses": HALF},
    ),
    "dose moved": (
        lambda t: t.do(iv=lambda b: b.shift(-30, "min"), start=8.0, stop=12.0),
        {"boluses": [(1.0, 120.0), (8.5, 120.0), (17.0, 120.0)]},
    ),
    "no dose": (lambda t: t.do(iv=Regimen.none("mg"), start=8.0), {"boluses": BOLUSES[:1]}),
    "pump by a number": (
        lambda t: t.do(push=4.0, start=8.0, stop=14.0),
        {"push": [(0.0, 10.0), (8.0, 4.0), (14.0, 16.0)]},
    ),
    "pump in other units": (lambda t: t.do(push=(0.1, "mg/min"), start=8.0), {"push": [(0.0, 10.0), (8.0, 6.0)]}),
    "pump by a function": (lambda t: t.do(push=lambda s: 2.0 * s), {"push": [(0.0, 20.0), (12.0, 32.0)]}),
    "pump by a signal": (
        lambda t: t.do(push=Signal.steps([0.0, 14.0], [1.0, 3.0], "mg/h"), start=8.0),
        {"push": [(0.0, 10.0), (8.0, 1.0), (14.0, 3.0)]},
    ),
    "covariate": (lambda t: t.do(weight=(140_000.0, "g"), start=8.0), {"weight": ((0.0, 70.0), (8.0, 140.0))}),
    "parameter by a number": (lambda t: t.do(CL=(50.0, "mL/min")), {"CL": np.full(100, 3.0)}),
    "parameter by a function": (lambda t: t.do(CL=lambda v: 1.5 * v), {"faster": (0.0, 99.0, 1.5)}),
    "parameter in a window": (
        lambda t: t.do(CL=lambda v: 3 * v, start=8.0, stop="14:00"),
        {"faster": (8.0, 14.0, 3.0)},
    ),
    "two at once": (
        lambda t: t.do(iv=lambda b: 0.5 * b, push=4.0, start=8.0),
        {"boluses": HALF, "push": [(0.0, 10.0), (8.0, 4.0)]},
    ),
    "one after the other": (
        lambda t: t.do(iv=lambda b: 2 * b, start=8.0).do(iv=lambda b: 0.25 * b, start=8.0),
        {"boluses": HALF},
    ),
}


@pytest.mark.parametrize("target", TARGETS)
def test_do_of_every_kind_of_target(target):
    act, change = TARGETS[target]
    lived = drip_twin()
    other = act(lived)
    assert_exact(other, **dict(change))
    assert other.label != "as lived" and lived.label == "as lived" and lived.dos == (), "a twin does not change"


def test_a_clamped_state_is_held_and_then_let_go():
    found = drip_twin().do(amount=(0.2, "g"), start=8.0, stop=11.0).simulate(at=[7.9, 8.0, 9.5, 10.9, 14.0])
    V = drip_twin().fits[0].values["V"][:, None]
    np.testing.assert_allclose(found["C"][:, 1:4], np.repeat(200.0 / V, 3, axis=1), rtol=1e-6)
    np.testing.assert_allclose(found["C"][:, 0], closed_form(**body(drip_twin()), at=[7.9])[:, 0], rtol=1e-4)
    after = closed_form(
        **body(drip_twin()), at=[14.0], boluses=[], push=[(11.0, 10.0), (12.0, 16.0)], start=11.0, at_start=200.0
    )
    np.testing.assert_allclose(found["C"][:, 4], after[:, 0], rtol=1e-4)


MISTAKES = {
    "a bare number for a dose": (AmbiguousDose, "when", lambda t: t.do(iv=100.0)),
    "an unknown target": (UnknownTarget, "Did you mean push", lambda t: t.do(pusch=1.0)),
    "nothing like it": (UnknownTarget, "Known targets: iv, push", lambda t: t.do(zzz=1.0)),
    "a window outside": (PastHorizon, "outside the record", lambda t: t.do(push=1.0, start=30.0)),
    "a dose after the end": (
        PastHorizon,
        "after the record ends",
        lambda t: t.do(iv=Regimen.bolus(1.0, "mg", at=25.0)),
    ),
    "a dose moved past the end": (PastHorizon, "after the record ends", lambda t: t.do(iv=lambda b: b.shift(8, "h"))),
    "a window that ends first": (InterventionError, "Swap", lambda t: t.do(push=1.0, start=9.0, stop=8.0)),
    "no regimen": (InterventionError, "must become a Regimen", lambda t: t.do(iv=lambda b: None)),
    "a word for a number": (InterventionError, "a pair", lambda t: t.do(CL="high")),
    "another dimension": (UnitError, "mg/h", lambda t: t.do(push=(1.0, "mg/L"))),
    "a rule about nothing": (
        UnknownTarget,
        "no output",
        lambda t: t.do(respond=Rescue("Q", 1.0, "mg/L", "iv", 5.0, "mg")),
    ),
    "a rule that gives nothing": (
        UnknownTarget,
        "no dose",
        lambda t: t.do(respond=Rescue("C", 1.0, "mg/L", "oral", 5.0, "mg")),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_do_refuses(mistake):
    error, told, attempt = MISTAKES[mistake]
    with pytest.raises(error, match=told):
        attempt(drip_twin())


# ------------------------------------------------------------------------------------------------ other days


def next_day(**kwargs):
    given = {
        "doses": {"iv": Regimen.bolus(90.0, "mg", at=30.0)},
        "signals": {"push": Signal.constant(12.0, "mg/h")},
    } | kwargs
    return Person.of("bruno", start=24.0, stop=48.0, time=CLOCK.spanning(24.0, 48.0), **given)


DAY = np.array([24.0, 26.0, 30.0, 36.0, 48.0])


def on_next_day(twin, **change):
    return closed_form(**body(twin), at=DAY, boluses=[(30.0, 90.0)], push=[(24.0, 12.0)], start=24.0, **change)


def test_another_day_starts_at_rest():
    lived = drip_twin()
    rest = (12.0 * lived.fits[0].values["V"] / lived.fits[0].values["CL"])[:, None]
    np.testing.assert_allclose(lived.on(next_day()).simulate(at=DAY)["C"], on_next_day(lived, at_start=rest), rtol=1e-8)


def test_the_next_day_goes_on_from_the_lived_state():
    lived = drip_twin()
    last = lived.last_state()["amount"]
    np.testing.assert_allclose(last / lived.fits[0].values["V"], lived.simulate(at=[24.0])["C"][:, 0], rtol=1e-12)
    after = lived.on(next_day(), start="lived")
    np.testing.assert_allclose(after.simulate(at=DAY)["C"], on_next_day(lived, at_start=last[:, None]), rtol=1e-8)
    np.testing.assert_array_equal(after.simulate(at=[24.0])["C"][:, 0], lived.simulate(at=[24.0])["C"][:, 0])


def test_two_halves_of_a_day_are_the_day():
    """The lived day cut at 11:00 and continued is the lived day: nothing is lost on the way."""
    whole, at = drip_twin(), np.array([11.0, 13.0, 17.5, 23.0])
    halved = whole.on(drip_person().between(11.0), start={"amount": 1.0})
    start = whole.simulate(at=[11.0])["C"][:, 0] * whole.fits[0].values["V"]
    halved = whole.on(drip_person().between(11.0), start={"amount": start})
    np.testing.assert_allclose(halved.simulate(at=at)["C"], whole.simulate(at=at)["C"], rtol=1e-10)


def test_what_another_day_refuses_and_keeps():
    lived = drip_twin()
    with pytest.raises(InterventionError, match="lacks the states amount"):
        lived.on(next_day(), start={})
    with pytest.raises(InterventionError, match='"steady"'):
        lived.on(next_day(), start="now")
    heavy = personalize(DRIP, drip_person(), Laplace(draws=20, starts=1), key=0, progress=False)
    day = heavy.on(next_day(covariates={"weight": (140.0, "kg")}))
    k = 2 * heavy.fits[0].values["CL"]
    np.testing.assert_allclose(day.simulate(at=[24.0])["C"][:, 0], 12.0 / k, rtol=1e-10)
    np.testing.assert_allclose(heavy.on(next_day()).simulate(at=[24.0])["C"][:, 0], 24.0 / k, rtol=1e-10)


def test_a_forecast_goes_on_with_what_is_usual():
    """No dose unless it is given; the pump stays as it was; the start is where the day ended."""
    lived = drip_twin()
    last = lived.last_state()["amount"][:, None]
    at = np.array([24.0, 25.0, 28.0, 30.0])
    usual = closed_form(**body(lived), at=at, boluses=[], push=[(24.0, 16.0)], start=24.0, at_start=last)
    ahead = lived.forecast("6 h")
    np.testing.assert_allclose(ahead.simulate(at=at)["C"], usual, rtol=1e-8)
    assert (ahead.start, ahead.stop) == (24.0, 30.0)
    given = lived.forecast("6 h", iv=Regimen.bolus(50.0, "mg", at=26.0), push=(0.1, "mg/min"))
    wanted = closed_form(**body(lived), at=at, boluses=[(26.0, 50.0)], push=[(24.0, 6.0)], start=24.0, at_start=last)
    np.testing.assert_allclose(given.simulate(at=at)["C"], wanted, rtol=1e-8)
    with pytest.raises(InterventionError, match="no dose or signal"):
        lived.forecast("6 h", CL=3.0)
    with pytest.raises(InterventionError, match="before the forecast begins at 24 h"):
        lived.forecast("6 h", push=Signal.steps([2.0, 3.0], [0.1, 0.0], "mg/min"))  # counted from the start of the forecast?
    with pytest.raises(PastHorizon, match="after the forecast ends"):
        lived.forecast("6 h", iv=Regimen.bolus(50.0, "mg", at=31.0))  # until now it was in no world, without a word
    assert lived.forecast("6 h", iv=Regimen.bolus(50.0, "mg", at=30.0)).stop == 30.0
    with pytest.raises(InterventionError, match="'push' is a signal in mg/h, not Regimen"):
        lived.forecast("6 h", push=Regimen.bolus(50.0, "mg", at=26.0))
    with pytest.raises(AmbiguousDose, match="how much but not when"):
        lived.do(iv=(4.0, "mg"))
    kept = lived.forecast("6 h", push=lived.record.signals["push"])  # a course of the record knows its unit, and may be over
    np.testing.assert_allclose(kept.simulate(at=at)["C"], usual, rtol=1e-8)


def test_a_forecast_is_of_the_world_the_twin_is_in():
    """What was done counts for the state in which the forecast begins."""
    lived = drip_twin()
    other = lived.do(iv=Regimen.none("mg"))
    a, b = (t.forecast("2 h").simulate(at=[24.0])["C"][:, 0] for t in (lived, other))
    np.testing.assert_allclose(b, closed_form(**body(lived), at=[24.0], boluses=[])[:, 0], rtol=1e-8)
    assert np.all(a > b)


# ------------------------------------------------------------------------------------------------ update and care


def test_update_is_the_posterior_of_all_readings():
    morning = drip_person().between(None, 12.0)
    early = personalize(DRIP, morning, Laplace(draws=100, starts=2), key=0, progress=False)
    later = update(early, drip_person(), key=0, progress=False)
    np.testing.assert_array_equal(later.fits[0].z, drip_twin().fits[0].z)
    assert later.fits[0].z.std(axis=1)[0, 0] < early.fits[0].z.std(axis=1)[0, 0]
    with pytest.raises(ParameterError, match="ends before"):
        update(later, morning, key=0)
    with pytest.raises(ParameterError, match="anna"):
        update(later, oral_person(), key=0)


def test_a_rule_of_care_answers_within_each_draw():
    lived = mesh_twin()
    rule = Rescue("C", 4.0, "mg/L", "iv", 60.0, "mg", every="30 min", wait="1 h")
    none = lived.do(iv=Regimen.none("mg"), start=5.0)
    cared = lived.do(iv=Regimen.none("mg"), start=5.0, respond=rule)
    low = none.simulate()["C"][:, -1]
    helped = cared.simulate()
    assert np.all(helped["C"][:, -1] > low) and np.median(helped["C"][:, -1]) > 3.0
    assert any("60" in n or "rescue" in n for n in helped.notes) and "when C < 4 mg/L" in cared.label
    a, b = contrast(cared, none, outcomes.nadir("C", better="higher")).trajectories
    first = a.time < 4.0
    assert np.array_equal(a["C"][:, first], b["C"][:, first]) or np.any(a["C"][:, first] < 4.2), (
        "care acts only below its threshold"
    )


# ------------------------------------------------------------------------------------------------ what people see


def test_every_result_shows_itself():
    twin = drip_twin()
    twins = personalize(DRIP, Cohort([drip_person()]), Laplace(draws=20, starts=1), key=0, progress=False)
    effect = contrast(twin.do(iv=lambda b: 0.5 * b, start=8.0), twin, outcomes.cmax("C"))
    day = twin.simulate()
    for result, told in (
        (twin, "Twin of bruno: Drip, 14 of 14 C readings"),
        (twins, "Twins of 1 people"),
        (effect, "highest C"),
        (day, "100 of 100 draws solved"),
        (twin.verdict, "verdict: OK"),
        (check(DRIP, drip_person(), key=0), "Check of bruno"),
    ):
        assert told in repr(result) and "object at 0x" not in repr(result) and len(repr(result).splitlines()) < 40
    assert set(twin.to_dataframe().columns) >= {"parameter", "unit", "prior_q50", "q05", "q50", "q95", "sd_ratio"}
    assert list(twins.summary()["person"]) == ["bruno", "bruno"]
    frame = day.to_dataframe()
    assert list(frame.columns) == ["time", "C", "C_q05", "C_q95"] and np.all(frame["C_q05"] <= frame["C_q95"])
    assert len(effect.to_dataframe()) == len(effect.rows) == 2
    assert day.to_xarray().sizes == {"draw": 100, "time": len(day.time)}
    for figure in (twin.plot(), day.plot(), effect.plot()):
        assert figure.axes
        plt.close(figure)


def test_a_prediction_covers_what_was_read():
    predicted = drip_twin().predict()["C"]
    assert 0.75 <= predicted.coverage(0.95) <= 1.0 and predicted.coverage(0.02) < 0.4
    assert predicted.readings.std(axis=0).mean() > predicted.expectation.std(axis=0).mean()
    np.testing.assert_array_equal(predicted.observed_value, drip_person().series["C"].value)


@pytest.mark.parametrize("sensor, units", [
    (sensors.Gaussian("C", sd=1.0), {"sd": "mg/L"}),
    (sensors.LogNormal("C", sd=0.1), {"sd": "1"}),
    (sensors.Combined2("C", add=1.0), {"add": "mg/L", "prop": "1"}),
    (sensors.Absorbing("C", add=1.0, early=1.0), {"add": "mg/L", "early": "mg/L", "fades": "min"}),
])  # fmt: skip
def test_what_is_told_of_a_sensor_has_its_own_unit(sensor, units):
    """The spread of a logarithm is a number, that of a level has the unit of the level."""
    model = Model(OneCompartmentOral(), C=sensor)
    assert {path: unit_of(model, f"C.{path}") for path in units} == units


def test_a_sensor_is_told_in_words():
    sensor = sensors.Combined2("C", add=0.1, prop=sensors.lognormal(0.1, 0.3))
    assert repr(sensor) == "Combined2 of C, add = 0.1, prop log-normal 0.1 (0.0611 to 0.164)"
    assert "  C: Combined2 of C [mg/L], add = 0.1 mg/L, prop log-normal" in repr(Model(OneCompartmentOral(), C=sensor))
