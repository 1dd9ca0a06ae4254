"""Systems composed of systems: what couples the parts is all that is new, and it does what it says."""

import numpy as np
import pytest

from hybridtwin.interventions import Do
from hybridtwin.physiology import REGISTRY
from hybridtwin.physiology.reference import lived
from hybridtwin.signals import Regimen, Signal
from hybridtwin.simulate.verb import simulate


@pytest.mark.heavy
def test_a_day_without_exercise_and_rhythm_is_the_minimal_model():
    day = lived(REGISTRY["T1DDay"])
    still = day.again(parameters={"swing": 0.0}, signals={"basal": Signal.constant(1.0, "[IU]/h")})
    minimal = lived(REGISTRY["T1DMinimal"]).again(doses=day.protocol.doses, stop=day.protocol.stop)
    np.testing.assert_allclose(still["G"], minimal["G"], rtol=1e-5)
    # and its clock is the clock alone, in hours
    clock = lived(REGISTRY["Forger99"]).again(
        signals={"light": Signal.steps([0.0, 7.0, 23.0], [0.0, 500.0, 0.0], "lux")}, stop=16.0
    )
    np.testing.assert_allclose(np.interp(day.time / 60.0, clock.time, clock["x"]), day["clock.x"], atol=1e-4)


@pytest.mark.heavy
def test_exercise_lowers_glucose_and_a_night_shift_moves_the_sensitivity():
    day = lived(REGISTRY["T1DDay"])
    record = day.protocol.person("min")
    calm = simulate(day.body, record, at=day.time, do=[Do({"intensity": 0.0})])
    before = day.time < 900.0
    np.testing.assert_allclose(calm["G"][0][before], day["G"][before], rtol=1e-6)
    assert calm["G"][0, -1] - day["G"][-1] > 2.0
    shifted = simulate(day.body, record, at=day.time, do=[Do({"light": Signal.steps([0.0, 420.0], [1000.0, 0.0], "lux")})])
    assert abs(shifted["sensitivity"][0, -1] / day["sensitivity"][-1] - 1.0) > 0.01


@pytest.mark.heavy
def test_the_dose_that_shrinks_the_tumor_is_limited_by_neutrophils():
    whole = lived(REGISTRY["Chemotherapy"])
    alone = lived(REGISTRY["Myelosuppression"]).again(doses=whole.protocol.doses, stop=whole.protocol.stop)
    np.testing.assert_allclose(whole["neutrophils"], np.interp(whole.time, alone.time, alone["neutrophils"]), rtol=2e-3)
    wild = whole.again(doses={})
    np.testing.assert_allclose(wild["size"], 80.0 * np.exp(6e-5 * wild.time), rtol=1e-6)
    half = whole.again(doses={"iv": Regimen.infusion(90.0, "mg", at=0.0, over=1.0).every("21 d", times=3)})
    assert whole["size"][-1] < half["size"][-1] < wild["size"][-1]
    assert whole["neutrophils"].min() < half["neutrophils"].min() < wild["neutrophils"].min()


def test_exercise_settles_where_uptake_wins():
    """At 40 % the liver adds 1.13 and muscles take 1.61 mg/kg/min: a1/a2 and a3/a4 times the effort, and insulin a5/a6."""
    found = lived(REGISTRY["Exercise"]).again(signals={"intensity": Signal.constant(40.0, "%")}, stop=600.0)
    last = [found[name][-1] for name in ("production", "uptake", "removal", "net")]
    expected = [0.00158 / 0.056 * 40.0, 0.00195 / 0.0485 * 40.0, 0.00125 / 0.075 * 40.0]
    np.testing.assert_allclose(last, [*expected, expected[1] - expected[0]], rtol=1e-6)
    steady = simulate(found.body, found.protocol.person("min"), at=[0.0, 60.0], start="steady")
    np.testing.assert_allclose(steady["net"], last[3], rtol=1e-6)
