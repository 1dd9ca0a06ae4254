"""The kidney and what it clears, and HIV under treatment: rest, balance, closed forms, interventions."""

import numpy as np
import pytest

from hybridtwin.interventions import Do
from hybridtwin.physiology import REGISTRY
from hybridtwin.physiology.reference import lived
from hybridtwin.simulate.verb import simulate


def test_creatinine_rests_where_it_is_made_as_fast_as_it_is_filtered():
    kidney = lived(REGISTRY["Kidney"]).again(signals={})
    made = 100.0 * 70.0 / 7200.0  # mg/min: Cockcroft and Gault at 40 years and 70 kg
    assert kidney["C"] == pytest.approx(made / 100.0 * 100.0, rel=1e-12)  # 100 mL/min, mg/mL to mg/dL
    # CKD-EPI 2021, written apart: a man of 40 with this creatinine
    expected = 142.0 * (made / 0.9) ** -1.2 * 0.9938**40
    assert kidney["eGFR"][0] == pytest.approx(expected, rel=1e-12)
    woman = kidney.again(covariates={"weight": (55.0, "kg"), "age": (70.0, "yr"), "female": (1.0, "1")})
    C = 70.0 * 55.0 * 0.85 / 7200.0
    assert woman["C"][0] == pytest.approx(C) and C < 0.7
    assert woman["eGFR"][0] == pytest.approx(142.0 * (C / 0.7) ** -0.241 * 0.9938**70 * 1.012, rel=1e-12)


def test_after_an_injury_the_laboratory_is_late():
    """do(function=0.25): creatinine goes to four times its rest along one exponential; the estimate lags behind the truth."""
    kidney = lived(REGISTRY["Kidney"])
    day = kidney.protocol.person("h")
    found = simulate(kidney.body, day, at=kidney.time, do=[Do({"function": 0.25}, start=24.0)])
    C, t = found["C"][0], found.time
    rest, rate = C[0], 0.25 * 6.0 / 42.0  # L/h over L of water
    after = np.clip(t - 24.0, 0.0, None)
    np.testing.assert_allclose(C, 4.0 * rest - 3.0 * rest * np.exp(-rate * after), rtol=1e-10)
    assert found["eGFR"][0][np.searchsorted(t, 30.0)] > 2.0 * 25.0  # six hours later


def test_the_drug_waits_for_the_kidney():
    """What is lost of filtration is lost for both: areas go as filtration to the power .8, and doses balance clearance."""
    well = lived(REGISTRY["Vancomycin"])
    ill = well.again(parameters={"kidney.GFR": 25.0}, stop=24.0 * 40)
    dose = 6000.0
    for twin, GFR in ((well.again(stop=24.0 * 40), 100.0), (ill, 25.0)):
        CL = 4.5 * (GFR / 120.0) ** 0.8
        assert np.trapezoid(twin["C"], twin.time) == pytest.approx(dose / CL, rel=0.01)
    assert ill["creatinine"][0] == pytest.approx(4.0 * well["creatinine"][0])


@pytest.mark.heavy
def test_an_untreated_person_rests_at_the_set_point_and_drugs_are_told_apart():
    body = lived(REGISTRY["HIV"])
    alone = body.again(signals={})
    for name in ("T", "P", "L", "V"):
        np.testing.assert_allclose(alone[name], alone[name][0], rtol=1e-9)
    np.testing.assert_allclose(alone["rna"], 1e5, rtol=1e-9)
    # A protease inhibitor leaves virus that is not infectious; a reverse transcriptase inhibitor leaves none of it.
    treated = body["W"] / np.maximum(body["rna"], 1e-300)
    assert treated[4] > 0.9 and body["T"][-1] > 1.5 * body["T"][0]
    # Without new infections both kinds of producers decay alone: P and L are exponentials.
    pure = body.again(signals={"rt": body.protocol.signals["rt"].constant(1.0, "1")})
    made = 23.0 * 1e5
    np.testing.assert_allclose(pure["P"], 0.986 * made * np.exp(-0.48 * pure.time), rtol=1e-4, atol=1e-6 * made)
    np.testing.assert_allclose(pure["L"], 0.014 * made * np.exp(-0.039 * pure.time), rtol=1e-4)
