"""Systems ready to personalize, each with equations, units, priors and sources in its docstring.

`REGISTRY` holds them by name (the names of the command line); a system of your own needs no entry.
"""

from hybridtwin.physiology.bergman import BergmanMinimal
from hybridtwin.physiology.glucose import T1DMinimal, T1DTwoPool
from hybridtwin.physiology.pharmacokinetics import (
    OneCompartment,
    OneCompartmentOral,
    TwoCompartment,
    TwoCompartmentOral,
)
from hybridtwin.physiology.uva_padova import UVAPadova
from hybridtwin.physiology.warfarin import Warfarin

__all__ = [
    "REGISTRY",
    "BergmanMinimal",
    "OneCompartment",
    "OneCompartmentOral",
    "T1DMinimal",
    "T1DTwoPool",
    "TwoCompartment",
    "TwoCompartmentOral",
    "UVAPadova",
    "Warfarin",
]

REGISTRY = {
    system.__name__: system
    for system in (
        T1DMinimal,
        T1DTwoPool,
        UVAPadova,
        BergmanMinimal,
        OneCompartment,
        OneCompartmentOral,
        TwoCompartment,
        TwoCompartmentOral,
        Warfarin,
    )
}
