"""Bolus calculators: doses by a ratio and corrections by a reading, against closed forms and the calculator by hand."""

import numpy as np
import pytest
from small import drip_twin
from test_twin import body, closed_form

import hybridtwin as ht
from hybridtwin.dosing import Correct, Ratio
from hybridtwin.errors import DeclarationError, InterventionError, UnknownTarget
from hybridtwin.interventions import Do
from hybridtwin.records import Person
from hybridtwin.signals import Regimen
from hybridtwin.system import Input, Scalar, State, System, constant, dose, output, state

AT = np.array([5.0, 8.5, 9.5, 14.0, 17.5, 23.5])


class Plate(System):
    """Food and insulin that leave independently: dF/dt = -k F, dA/dt = -k A, both in grams and units."""

    time = "h"

    class State(State):
        food: Scalar = state("g", "food")
        insulin: Scalar = state("[IU]", "insulin")

    class Input(Input):
        meal: Scalar = dose("g", "eaten", into="food", cmt=1)
        bolus: Scalar = dose("[IU]", "injected", into="insulin", cmt=2)

    k: Scalar = constant(0.5, "1/h", "loss")

    def rates(self, t, x, u):
        return self.State(food=-self.k * x.food, insulin=-self.k * x.insulin)

    def outputs(self, x, u):
        return {"food": output(x.food, "g"), "insulin": output(x.insulin, "[IU]")}


def day(meals=((0.0, 40.0), (5.0, 63.0), (11.0, 88.0)), boluses=((0.0, 9.0), (5.0, 9.0), (11.0, 9.0))):
    return Person.of(
        "eva", start=0.0, stop=14.0, time="h",
        doses={"meal": Regimen.bolus([a for _, a in meals], "g", at=[t for t, _ in meals]),
               "bolus": Regimen.bolus([a for _, a in boluses], "[IU]", at=[t for t, _ in boluses])},
    )  # fmt: skip


def insulin(given, at):
    """What is left of boluses (time, units) at `at`."""
    return sum(units * np.where(at >= t, np.exp(-0.5 * (at - t)), 0.0) for t, units in given)


def test_doses_follow_the_meals_of_the_window():
    """40, 63 and 88 g at 8 g a unit, halves up to .5 U; an early one is given when the day begins; outside nothing changes."""
    at, rule = np.array([0.0, 4.9, 5.5, 10.9, 12.0]), Ratio("meal", per=(8, "g"), give=(1, "[IU]"), before="15 min", step=0.5)
    every = ht.simulate(Plate(), day(), at=at, do=[Do({"bolus": rule})])["insulin"][0]
    np.testing.assert_allclose(every, insulin([(0.0, 5.0), (4.75, 8.0), (10.75, 11.0)], at), rtol=1e-9)
    noon = ht.simulate(Plate(), day(), at=at, do=[Do({"bolus": rule}, start=4.0, stop=10.0)])["insulin"][0]
    np.testing.assert_allclose(noon, insulin([(0.0, 9.0), (4.75, 8.0), (11.0, 9.0)], at), rtol=1e-9)
    most = Ratio("meal", per=(0.008, "kg"), give=(1, "[IU]"), most=6)
    both = ht.simulate(Plate(), day(), at=at, do=[Do({"bolus": most, "meal": lambda m: 0.5 * m})])["insulin"][0]
    np.testing.assert_allclose(both, insulin([(0.0, 2.5), (5.0, 3.9375), (11.0, 5.5)], at), rtol=1e-9)


def test_a_meal_that_nobody_counted_has_no_ratio():
    rule = Do({"bolus": Ratio("meal", per=(8, "g"), give=(1, "[IU]"))})
    unknown = Person.of("eva", start=0.0, stop=14.0, time="h", doses={"meal": Regimen.bolus([None, 40.0], "g", at=[2.0, 5.0])})
    with pytest.raises(InterventionError, match="nobody counted the meal at"):
        ht.simulate(Plate(), unknown, do=[rule])
    with pytest.raises(UnknownTarget, match="'meel' is no dose"):
        ht.simulate(Plate(), day(), do=[Do({"bolus": Ratio("meel", per=(8, "g"), give=(1, "[IU]"))})])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [({"per": 10}, r'per=\(10, "g"\)'), ({"per": (10, "g"), "give": (0, "[IU]")}, "above 0"),
     ({"per": (10, "g"), "step": -1}, "step"), ({"per": (10, "g"), "before": "-5 min"}, "negative")],
)  # fmt: skip
def test_wrong_ratios_say_what_to_write(wrong, told):
    with pytest.raises(DeclarationError, match=told):
        Ratio("meal", **{"give": (1, "[IU]"), **wrong})


@pytest.mark.parametrize(
    ("wrong", "told"),
    [({"above": 8}, r'above=\(150'), ({"to": 9.0}, "lies above"), ({"delay": "10 min"}, "every="), ({"every": "0 h"}, "stretch")],
)
def test_wrong_corrections_say_what_to_write(wrong, told):
    with pytest.raises(DeclarationError, match=told):
        Correct("C", "iv", **{"above": (8.0, "mg/L"), "per": (1, "mg/L"), "give": (20, "mg"), **wrong})


def test_a_correction_is_the_excess_over_the_target_draw_by_draw():
    """Looked at with each bolus (1, 9 and 17 h) in front of it: 30 mg more for each mg/L over 4 where C is above 5."""
    lived = drip_twin()
    care = Correct("C", "iv", above=(5.0, "mg/L"), to=4.0, per=(1000.0, "ug/L"), give=(30.0, "mg"), wait="4 h")
    found = lived.do(respond=care, start=0).simulate(at=AT)
    extra, boluses = [], []
    for t in (1.0, 9.0, 17.0):
        before = closed_form(**body(lived), at=np.array([t - 1e-9]), boluses=boluses)[:, 0]
        more = np.where(before > 5.0, 30.0 * (before - 4.0), 0.0)
        extra.append(more)
        boluses.append((t, (120.0 + more)[:, None]))
    expected = closed_form(**body(lived), at=AT, boluses=boluses)
    np.testing.assert_allclose(found["C"], expected, rtol=1e-6)
    (act,) = found.acts
    assert act.does == "give" and 0 < np.mean(act.count) < 3
    np.testing.assert_allclose(act.total(0.0, 24.0), np.sum(extra, axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.given("iv", 0.0, 24.0), 360.0 + np.sum(extra, axis=0), rtol=1e-6)
    assert found.acted()["amount"].sum() == pytest.approx(np.sum(extra), rel=1e-6)
    assert f"{np.mean(np.sum(extra, axis=0)):.3g} mg on average" in " ".join(found.notes)


def test_a_correction_is_rounded_down_bounded_and_waits():
    lived = drip_twin()
    how = {"above": (1.0, "mg/L"), "to": 0.0, "per": (1.0, "mg/L"), "give": (20.0, "mg")}
    care = Correct("C", "iv", **how, every="3 h", wait="5 h", step=15.0, most=100.0)
    act = lived.do(respond=care, start=0).simulate(at=AT).acts[0]
    given = act.values[np.isfinite(act.values)]
    assert np.allclose(given / 15.0, np.round(given / 15.0)) or given.max() == 100.0
    assert set(np.round(given % 15.0, 6)) <= {0.0, 10.0} and given.max() <= 100.0
    assert np.nanmin(np.diff(act.times, axis=1)) >= 6.0 - 1e-9, "every 3 h, at least 5 h apart: every second look"


def test_policies_of_a_calculator_are_candidates():
    twin = drip_twin()
    ratios = Ratio.grid("iv", per=[1.0, 2.0], unit="mg", give=(1, "mg"), before=["0 min", "20 min"])
    offered = ht.candidates(twin, iv=ratios, respond={"no correction": None, "correction": Correct(
        "reading of C", "iv", above=(5.0, "mg/L"), per=(1.0, "mg/L"), give=(20.0, "mg"))})  # fmt: skip
    assert len(offered) == 8 and offered.numbers["1 mg per 2 mg of iv, 20 min before; correction"]["before"] == "20 min"
    found = ht.optimize(twin, offered, target=ht.outcomes.within(ht.outcomes.auc("C", 1, 24), 100, 200, "mg*h/L"),
                        accept="a phantom, nobody is treated")  # fmt: skip
    assert set(found.table["per"]) == {1.0, 2.0} and found.table["acts"].max() > 0
    assert "rule 1" in ht.graph(offered["1 mg per 1 mg of iv; correction"]).nodes
