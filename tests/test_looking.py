"""What a rule of care sees where a dose is due at that very moment, whatever else stands there."""

import numpy as np
import pytest

from hybridtwin.dosing import Correct
from hybridtwin.interventions import Rescue, Titrate, When
from hybridtwin.physiology import OneCompartment
from hybridtwin.records import Person
from hybridtwin.signals import Regimen
from hybridtwin.simulate.verb import simulate

CL, V = 4.0, 30.0
VEIN = OneCompartment(CL=CL, V=V)
LEFT = np.exp(-CL / V)  # of a concentration, after an hour
EXTRA = {"none": [], "front": [0.0, 8.0], "many": [0.0, 4.0, 8.0, 8.0, 16.0]}


def world(rule, extra, *, every="8 h", at=(0.5, 8.5, 16.5)):
    """100 mg into a vein at 0, 8 and 16 h, readings of the record in front of some of the doses, and a rule."""
    doses = {"iv": Regimen.bolus(100.0, "mg", at=0.0).every(every, times=3)}
    seen = {"C": (np.array(EXTRA[extra]), np.ones(len(EXTRA[extra])), "mg/L")} if EXTRA[extra] else {}
    person = Person.of("p", start=0.0, stop=24.0, doses=doses, readings=seen)
    return simulate(VEIN, person, at=np.array(at), do=[rule], tol=1e-8)["C"][0]


@pytest.mark.parametrize("extra", EXTRA)
def test_titration_reads_the_trough(extra):
    # troughs of 100 mg every 8 h lie at 1.15 and 1.54 mg/L, peaks above 3.3: a look behind the dose would halve it
    rule = Titrate("C", "iv", below=(0.1, "mg/L"), above=(3.0, "mg/L"), every="8 h", up=2.0, down=0.5)
    first = 100 / V
    second = first * LEFT**8 + 100 / V
    third = second * LEFT**8 + 100 / V
    np.testing.assert_allclose(world(rule, extra), np.array([first, second, third]) * LEFT**0.5, rtol=1e-6)


@pytest.mark.parametrize("extra", EXTRA)
def test_a_rescue_looks_in_front_of_a_dose_and_first_finds_what_is_there(extra):
    # at 0 h it finds the first dose given; at 8 and 16 h it sees troughs of 1.15 and 1.88 mg/L
    rule = Rescue("C", 1.5, "mg/L", "iv", 30.0, "mg", every="8 h", wait="1 h")
    first = 100 / V
    second = first * LEFT**8 + (100 + 30) / V
    third = second * LEFT**8 + 100 / V
    np.testing.assert_allclose(world(rule, extra), np.array([first, second, third]) * LEFT**0.5, rtol=1e-6)


@pytest.mark.parametrize("extra", EXTRA)
def test_a_correction_at_intervals_looks_in_front_of_a_dose(extra):
    # above 3.4 mg/L only behind the doses at 8 and 16 h, where it does not look
    rule = Correct("C", "iv", above=(3.4, "mg/L"), per=(0.01, "mg/L"), give=(1.0, "mg"), every="8 h")
    first = 100 / V
    second = first * LEFT**8 + 100 / V
    third = second * LEFT**8 + 100 / V
    np.testing.assert_allclose(world(rule, extra), np.array([first, second, third]) * LEFT**0.5, rtol=1e-6)


@pytest.mark.parametrize("extra", EXTRA)
def test_what_acts_at_the_moment_itself_does_not_act_between_a_reading_and_a_dose(extra):
    # nothing is there in front of the first dose, and 3.33 mg/L behind it; 1.4 mg/L is next passed after 6.5 h
    rule = When("C", below=(1.4, "mg/L"), give=("iv", 60.0, "mg"), wait="3 h", at_most=20)
    when = np.log(100 / V / 1.4) / (CL / V)
    second = ((1.4 + 60 / V) * LEFT ** (8.0 - when) + 100 / V) * LEFT**0.5
    np.testing.assert_allclose(world(rule, extra, at=(0.5, 8.5)), [100 / V * LEFT**0.5, second], rtol=1e-6)
