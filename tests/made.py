"""A small real twin and a comparison on it, shared by the tests of what people see."""

import dataclasses
import functools

import numpy as np

from hybridtwin import grammar, outcomes, sensors
from hybridtwin.causal.contrast import contrast
from hybridtwin.clock import Clock
from hybridtwin.fit import Part, Verdict
from hybridtwin.inference.methods import Laplace
from hybridtwin.inference.personalize import personalize
from hybridtwin.model import Model
from hybridtwin.physiology import OneCompartmentOral
from hybridtwin.priors import lognormal
from hybridtwin.records import Person, Series
from hybridtwin.signals import Regimen

NAME = "anna <b>&$x$"


def person(name=NAME):
    """Two doses, nine readings (the last below its limit), with a clock."""
    clock = Clock("2026-03-24T00:00+01:00", "Europe/Rome", "h")
    times = np.array([8.5, 9, 10, 12, 14, 18, 22, 26, 31.0])
    values = np.array([3.1, 5.6, 6.4, 5.4, 4.4, 8.9, 6.0, 4.1, 2.0])
    censored = np.array([0] * 8 + [-1])
    limit = np.where(censored != 0, 2.0, np.nan)
    series = Series.of(times, values, "mg/L", censored=censored, limit=limit, order=np.arange(9))
    return Person.of(name, start=8.0, stop=32.0, time=clock, doses={"oral": Regimen.bolus(320, "mg", at=[8.0, 16.0])},
                     readings={"C": series})


@functools.cache
def twin():
    """Laplace on a one-compartment model: seconds."""
    model = Model(OneCompartmentOral(tlag=0.1), C=sensors.Combined2("C", add=lognormal(0.3, 0.7)))
    return personalize(model, person(), Laplace(draws=200), key=0, progress=False)


def verdict(level="OK"):
    """A verdict of one level."""
    parts = {name: Part() for name in ("computed", "fits", "informed", "supported")}
    if level != "OK":
        parts["fits"] = Part(level, ("residuals are 9.9 times <as large>",))
    return Verdict(parts)


def effect(level="OK"):
    """A comparison: half the second dose against the lived doses, under a verdict of one level."""
    return dataclasses.replace(_effect(), verdict=verdict(level), notes=("noted <i>",))


@functools.cache
def _effect():
    lived = twin()
    half = lived.do(start=15.0, oral=grammar.world("oral=*0.5")[0].value)
    return contrast(half, lived, outcomes.trough("C", better="higher"))
