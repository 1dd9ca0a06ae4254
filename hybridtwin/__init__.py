"""A human body digital twin one can compute with: physiology with uncertain numbers, personalized, and asked what if."""

from importlib import import_module as _import
from typing import TYPE_CHECKING as _TYPING

__version__ = "0.1.0"

_HOME = {
    "errors": None, "outcomes": None, "sensors": None, "datasets": None, "physiology": None,
    "HybridTwinError": "errors", "NotTrustworthy": "errors",
    "System": "system", "State": "system", "Input": "system", "Scalar": "system", "state": "system", "dose": "system",
    "covariate": "system", "signal": "system", "parameter": "system", "constant": "system", "const": "system",
    "empirical": "system", "output": "system", "route": "system", "typical": "system", "normal": "system",
    "lognormal": "system", "logitnormal": "system", "halfnormal": "system",
    "switch": "system", "coupled": "system",
    "Signal": "signals", "Regimen": "signals", "Clock": "signals",
    "Person": "records", "Cohort": "records",
    "Ratio": "dosing", "Correct": "dosing",
    "Rescue": "interventions", "When": "interventions", "Titrate": "interventions",
    "once": "changes", "as_in": "changes", "equation": "changes",
    "RK4": "simulate.steppers", "Tsit5": "simulate.steppers", "Heun": "simulate.steppers", "Chebyshev": "simulate.steppers",
    "Exact": "simulate.steppers", "Adaptive": "simulate.steppers", "Rosenbrock": "simulate.stiff",
    "simulate": "simulate.verb", "glycemic": "glycemia",
    "Decisions": "policies", "Amounts": "policies",
    "Model": "model",
    "Twin": "twin", "Twins": "twin",
    "Pooling": "pooling", "block": "pooling", "drift": "varying", "Population": "inference.population",
    "FOCEI": "inference.methods", "HMC": "inference.methods",
    "NUTS": "inference.methods", "Laplace": "inference.methods", "SMC": "inference.methods", "ShortChains": "inference.methods",
    "Variational": "inference.methods",
    "Auto": "inference.methods", "Importance": "inference.methods", "personalize": "inference.personalize",
    "update": "inference.personalize", "check": "inference.check",
    "compare": "inference.compare", "average": "inference.compare", "Comparison": "inference.compare",
    "calibrate": "inference.calibrate", "Calibration": "inference.calibrate",
    "contrast": "causal.contrast", "Contrast": "causal.contrast",
    "graph": "causal.graph", "Graph": "causal.graph", "scm": "causal.scm", "SCM": "causal.scm",
    "identify": "causal.identify", "refute": "causal.refute", "Hidden": "causal.refute",
    "scenarios": "causal.scenarios", "Scenarios": "causal.scenarios", "care": "causal.scenarios",
    "explain": "explain.explanation", "Explanation": "explain.explanation",
    "distill": "explain.distill", "path_effect": "explain.paths",
    "candidates": "causal.candidates", "optimize": "causal.optimize", "Decision": "causal.optimize",
    "track_record": "causal.track", "TrackRecord": "causal.track", "next_reading": "causal.information",
    "Expected": "aims", "CVaR": "aims", "Chance": "aims", "Miss": "aims", "Distance": "aims", "Squared": "aims",
}  # fmt: skip

__all__ = sorted([*_HOME, "__version__"])

if _TYPING:  # what an editor sees; at run time names are loaded when first used
    from hybridtwin.aims import Chance as Chance
    from hybridtwin.aims import CVaR as CVaR
    from hybridtwin.aims import Expected as Expected
    from hybridtwin.causal.candidates import candidates as candidates
    from hybridtwin.causal.contrast import Contrast as Contrast
    from hybridtwin.causal.contrast import contrast as contrast
    from hybridtwin.causal.graph import Graph as Graph
    from hybridtwin.causal.graph import graph as graph
    from hybridtwin.causal.identify import identify as identify
    from hybridtwin.causal.information import next_reading as next_reading
    from hybridtwin.causal.optimize import Decision as Decision
    from hybridtwin.causal.optimize import optimize as optimize
    from hybridtwin.causal.refute import Hidden as Hidden
    from hybridtwin.causal.refute import refute as refute
    from hybridtwin.causal.scenarios import Scenarios as Scenarios
    from hybridtwin.causal.scenarios import care as care
    from hybridtwin.causal.scenarios import scenarios as scenarios
    from hybridtwin.causal.scm import SCM as SCM
    from hybridtwin.causal.scm import scm as scm
    from hybridtwin.causal.track import TrackRecord as TrackRecord
    from hybridtwin.causal.track import track_record as track_record
    from hybridtwin.changes import as_in as as_in
    from hybridtwin.changes import equation as equation
    from hybridtwin.changes import once as once
    from hybridtwin.explain.distill import distill as distill
    from hybridtwin.explain.explanation import Explanation as Explanation
    from hybridtwin.explain.explanation import explain as explain
    from hybridtwin.explain.paths import path_effect as path_effect
    from hybridtwin.glycemia import glycemic as glycemic
    from hybridtwin.inference.methods import FOCEI as FOCEI
    from hybridtwin.inference.methods import HMC as HMC
    from hybridtwin.inference.methods import NUTS as NUTS
    from hybridtwin.inference.methods import SMC as SMC
    from hybridtwin.inference.methods import Auto as Auto
    from hybridtwin.inference.methods import Importance as Importance
    from hybridtwin.inference.methods import Laplace as Laplace
    from hybridtwin.inference.methods import ShortChains as ShortChains
    from hybridtwin.inference.personalize import personalize as personalize
    from hybridtwin.inference.population import Population as Population
    from hybridtwin.model import Model as Model
    from hybridtwin.policies import Amounts as Amounts
    from hybridtwin.policies import Decisions as Decisions
    from hybridtwin.pooling import Pooling as Pooling
    from hybridtwin.pooling import block as block
    from hybridtwin.records import Cohort as Cohort
    from hybridtwin.records import Person as Person
    from hybridtwin.twin import Twin as Twin


def __getattr__(name):
    """Public names are loaded when first used, so that importing hybridtwin costs little more than importing JAX."""
    if name not in _HOME:
        raise AttributeError(f"module 'hybridtwin' has no attribute {name!r}")
    home = _HOME[name]
    found = _import(f"hybridtwin.{name}") if home is None else getattr(_import(f"hybridtwin.{home}"), name)
    globals()[name] = found
    return found


def __dir__():
    return __all__
