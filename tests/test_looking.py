"""What a rule of care sees where a dose is due at that very moment, whatever else stands there."""

import jax
import numpy as np
import pytest
from test_events import lane, world_of

from hybridtwin.dosing import Correct
from hybridtwin.interventions import Rescue, Titrate, When
from hybridtwin.physiology import OneCompartment
from hybridtwin.records import Person
from hybridtwin.signals import Regimen
from hybridtwin.simulate.mesh import lay, layout_of
from hybridtwin.simulate.rules import FIRST, LAST
from hybridtwin.simulate.steppers import Exact

CL, V = 4.0, 30.0
VEIN, DOSE = OneCompartment(CL=CL, V=V), 100.0 / 30.0
AT, LEFT = np.array([0.5, 8.5, 16.5]), np.exp(-CL / V)  # hours; what is left of a concentration after one
FRONT = {"no reading": [], "two in front": [0.0, 8.0], "all in front": [0.0, 8.0, 16.0]}


def given(first, second, third):
    """Levels half an hour after each of three doses that add so much to the concentration."""
    two = first * LEFT**8 + second
    return np.array([first, two, two * LEFT**8 + third]) * LEFT**0.5


PASSED = np.log(DOSE / 1.4) / (CL / V)  # when 3.33 mg/L has fallen to 1.4; with 60 mg more it is above 1.4 for the next 8 h
RULES = {  # 100 mg at 0, 8 and 16 h: troughs of 1.15 and 1.54 mg/L, peaks of 3.33, 4.48 and 4.88
    # behind a dose it would see peaks and halve what follows
    "titrate": (Titrate("C", "iv", below=(0.1, "mg/L"), above=(3.0, "mg/L"), every="8 h", up=2.0, down=0.5),
                given(DOSE, DOSE, DOSE)),
    # it begins behind the first dose, else it would find nothing; then it sees 1.15 and, after what it gave, 1.88 mg/L
    "rescue": (Rescue("C", 1.5, "mg/L", "iv", 30.0, "mg", every="8 h", wait="1 h"), given(DOSE, DOSE + 1.0, DOSE)),
    # above 3.4 mg/L it is only behind the doses at 8 and 16 h
    "correct": (Correct("C", "iv", above=(3.4, "mg/L"), per=(0.01, "mg/L"), give=(1.0, "mg"), every="8 h"),
                given(DOSE, DOSE, DOSE)),
    # between a reading and the first dose nothing would be there
    "when": (When("C", below=(1.4, "mg/L"), give=("iv", 60.0, "mg"), wait="3 h", at_most=1),
             given(DOSE, DOSE + 2.0 * LEFT ** (8.0 - PASSED), DOSE)),
}  # fmt: skip


@pytest.mark.parametrize("front", FRONT)
@pytest.mark.parametrize("name", RULES)
def test_a_reading_in_front_of_a_dose_changes_nothing_of_what_a_rule_does(name, front):
    rule, wanted = RULES[name]
    person = Person.of("p", start=0.0, stop=24.0, doses={"iv": Regimen.bolus(100.0, "mg", at=0.0).every("8 h", times=3)})
    world = world_of(VEIN.spec, person, rule)
    layout = layout_of([world], VEIN.spec)
    reads = [*((t, LAST) for t in AT), *((t, FIRST) for t in FRONT[front])]
    mesh = lay([world], VEIN.spec, layout, reads, max_step=0.5)[0]
    with jax.enable_x64(True):
        seen, _ = lane(VEIN, layout, Exact(), mesh)({})
    np.testing.assert_allclose(np.asarray(seen)[:3, 0], wanted, rtol=1e-6)
