"""Systems ready to personalize, each with equations, units, priors and sources in its docstring, and held against what
was published of it (`evidence`).

`REGISTRY` holds them by name (the names of the command line) and loads each when it is first asked for. A new system is
a file and a line here; a system of your own needs no entry.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module as _import

_HOME = {
    "T1DMinimal": "glucose.t1d",
    "T1DTwoPool": "glucose.t1d",
    "UVAPadova": "glucose.uva_padova",
    "InsulinProducts": "glucose.insulin",
    "BergmanMinimal": "glucose.bergman",
    "OralMinimal": "glucose.bergman",
    "DallaMan2007": "glucose.dalla_man",
    "Hovorka2004": "glucose.hovorka",
    "Exercise": "glucose.exercise",
    "Breton2008": "glucose.exercise",
    "OneCompartment": "drugs.pharmacokinetics",
    "OneCompartmentOral": "drugs.pharmacokinetics",
    "TwoCompartment": "drugs.pharmacokinetics",
    "TwoCompartmentOral": "drugs.pharmacokinetics",
    "ThreeCompartment": "drugs.pharmacokinetics",
    "OneCompartmentZeroOrder": "drugs.absorption",
    "OneCompartmentTransit": "drugs.absorption",
    "TwoCompartmentTransit": "drugs.absorption",
    "ThreeCompartmentOral": "drugs.absorption",
    "OneCompartmentMM": "drugs.saturable",
    "TwoCompartmentMM": "drugs.saturable",
    "Remifentanil": "drugs.remifentanil",
    "EffectCompartment": "drugs.responses",
    "IndirectResponse": "drugs.responses",
    "Warfarin": "drugs.warfarin",
    "Myelosuppression": "drugs.myelosuppression",
    "TargetMediated": "drugs.target_mediated",
    "Smith2004": "circulation.smith",
    "Zenker2007": "circulation.zenker",
    "Windkessel2": "circulation.windkessel",
    "Windkessel3": "circulation.windkessel",
    "Windkessel4": "circulation.windkessel",
    "Respiration": "lung",
    "Vancomycin": "kidney",
    "Kidney": "kidney",
    "Bangsgaard2017": "hormones.hpa",
    "CruzLoya2022": "hormones.thyroid",
    "Shrestha2010": "hormones.calcium",
    "T1DDay": "composed",
    "Chemotherapy": "composed",
    "HIV": "viral",
    "Geng2017": "tumor",
    "Geng2017Daily": "tumor",
    "Claret2009": "tumor",
    "Simeoni2004": "tumor",
    "Forger99": "circadian.pacemaker",
    "Jewett99": "circadian.pacemaker",
    "Hilaire07": "circadian.pacemaker",
    "Breslow13": "circadian.melatonin",
    "Breslow13Stepped": "circadian.melatonin",
    "Hannay19": "circadian.hannay",
    "Hannay19TP": "circadian.hannay",
    "Skeldon23": "circadian.sleep",
    "Skeldon23Stepped": "circadian.sleep",
    "TwoProcess": "circadian.sleep",
    "Hall2011": "weight",
    "Banister": "training",
}
_EVIDENCE = {"Protocol": "reference", "Reference": "reference", "evidence": "reference", "balance": "balance"}

__all__ = sorted([*_HOME, *_EVIDENCE, "REGISTRY"])


class _Registry(Mapping):
    """System classes by name; a class is imported, and its units checked, when it is looked up."""

    def __getitem__(self, name: str):
        return getattr(_import(f"{__name__}.{_HOME[name]}"), name)

    def __iter__(self) -> Iterator[str]:
        return iter(_HOME)

    def __len__(self) -> int:
        return len(_HOME)

    def __repr__(self):
        return f"REGISTRY: {', '.join(_HOME)}"


REGISTRY = _Registry()


def __getattr__(name):
    if name in _HOME:
        found = REGISTRY[name]
    elif name in _EVIDENCE:
        found = getattr(_import(f"{__name__}.{_EVIDENCE[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Systems: {', '.join(_HOME)}")
    globals()[name] = found
    return found


def __dir__():
    return __all__
