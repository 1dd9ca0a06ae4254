"""Levels of glucose in both of its units: rules and outcomes mean the same, and what no body has is refused."""

import functools

import numpy as np
import pytest

import hybridtwin as ht
from hybridtwin import Scalar
from hybridtwin.errors import DeclarationError, UnitError

PER = 18.0156  # mg/dL of glucose in a mmol/L: its molar mass, 180.156 g/mol


class Sugar(ht.System):
    """Glucose that falls from 160 mg/dL, and what raises it.    dG/dt = -k G,  a meal enters by 1/V."""

    time = "h"

    class State(ht.State):
        pool: Scalar = ht.state("mg", "glucose")

    class Input(ht.Input):
        meal: Scalar = ht.dose("mg", into="pool", cmt=1)

    k: Scalar = ht.parameter(ht.typical(0.2, cv=0.2), "1/h", "fall")
    V: Scalar = ht.constant(100.0, "dL")

    def rates(self, t, x, u):
        return self.State(pool=-self.k * x.pool)

    def outputs(self, x, u):
        return {"G": ht.output(x.pool / self.V, "mg/dL")}

    def initial(self, u):
        return self.State(pool=ht.const(16000.0, "mg"))


@functools.cache
def twin():
    times = np.array([0.5, 2.0, 4.0, 7.0])
    person = ht.Person.of("s", time="h", start=0, stop=12, doses={"meal": ht.Regimen.bolus(1000, "mg", at=[1, 8])},
                          readings={"meter": (times, 165 * np.exp(-0.17 * times), "mg/dL")})  # fmt: skip
    model = ht.Model(Sugar(), meter=ht.sensors.Gaussian("G", sd=8.0))
    return ht.personalize(model, person, ht.Laplace(draws=40, starts=2), key=0, progress=False)


RULES = {
    "rescue": lambda x, u: ht.Rescue("G", x(70.0), u, "meal", 1500, "mg", every="20 min"),
    "rescue by a meter": lambda x, u: ht.Rescue("meter", x(70.0), u, "meal", 1500, "mg", every="20 min"),
    "when": lambda x, u: ht.When("G", below=(x(70.0), u), give=("meal", 1500, "mg"), until=(x(80.0), u), at_most=40),
    "titrate": lambda x, u: ht.Titrate("G", "meal", below=(x(90.0), u), up=2.0, above=(x(150.0), u), down=0.5, every="2 h"),
    "correct": lambda x, u: ht.Correct("G", "meal", above=(x(90), u), to=x(80), per=(x(10), u), give=(50, "mg"), every="3 h"),
}


@pytest.mark.parametrize("rule", [pytest.param(n, marks=[pytest.mark.heavy] * (n in ("when", "rescue"))) for n in RULES])
def test_a_rule_in_mmol_is_the_rule_in_mg(rule):
    milligram = twin().do(respond=RULES[rule](lambda x: x, "mg/dL"), start=1.5)
    molar = twin().do(respond=RULES[rule](lambda x: x / PER, "mmol/L"), start=1.5)
    a, b, lived = (world.simulate()["G"] for world in (milligram, molar, twin()))
    assert np.mean(np.abs(a - b) > 0.02) < 2e-3, "but for looks that fall between the moments of a jump"
    assert np.abs(a - lived).max() > 2, "the rule acted"
    assert "mmol/L" in molar.label and "mmol/L" not in milligram.label


@pytest.mark.parametrize("rule", [
    ht.Rescue("G", 4, "mg/dL", "meal", 1500, "mg"),
    ht.When("G", below=(70, "mmol/L"), give=("meal", 1500, "mg")),
    ht.Titrate("meter", "meal", above=(20, "g/L"), every="2 h"),
])  # fmt: skip
def test_a_level_that_no_body_has_is_refused_in_a_rule(rule):
    with pytest.raises(DeclarationError, match="what a living body has"):
        twin().do(respond=rule)


@pytest.mark.parametrize("outcome", [
    ht.outcomes.time_in_range("G", 4, 10, "mg/dL"),
    ht.outcomes.time_below("G", 70, "mmol/L"),
    ht.outcomes.ever_below("G", 3.9, "mg/dL"),
    ht.outcomes.area_above("G", 180, "mmol/L"),
])  # fmt: skip
def test_a_level_that_no_body_has_is_refused_in_an_outcome(outcome):
    with pytest.raises(DeclarationError, match=r"what a living body has\. Is it .* m"):
        ht.contrast(twin().do(k=0.1), twin(), outcome)


def test_levels_of_a_choice_are_looked_at_too():
    lived = twin()
    ask = functools.partial(ht.optimize, lived, {"half": lived.do(meal=lambda d: 0.5 * d)}, accept="nobody is treated")
    with pytest.raises(DeclarationError, match="Is it 4 mmol/L"):
        ask(target=ht.outcomes.time_in_range("G", 70, 180, "mg/dL"), limits=ht.Chance(ht.outcomes.nadir("G"), below=(4, "mg/dL")))
    with pytest.raises(DeclarationError, match="Is it 10 mmol/L"):
        ask(target=ht.outcomes.within(ht.outcomes.peak("G"), None, 10, "mg/dL"))
    assert "mmol/L" in ask(target=ht.outcomes.within(ht.outcomes.peak("G"), None, 10, "mmol/L")).text


def test_what_is_no_glucose_has_no_such_levels():
    tablet = ht.Rescue("pool", 5, "mg", "meal", 10, "mg", every="1 h")
    assert twin().do(respond=tablet).rules == (tablet,)
    with pytest.raises(UnitError):
        twin().do(respond=ht.Rescue("pool", 5, "mmol/L", "meal", 10, "mg"))
    assert ht.outcomes.time_in_range("G", 0, 180, "mg/dL").of(twin().simulate()).shape == (40,)
