"""What a system is held against: a typical day, and quantities that were published, each with our value and a light.

Every system of the library carries both. A reader sees at once what the equations were checked for and how far they
are off; tests and `docs/physiology/` come from the same table. BioGears keeps such tables beside its engine; here the
value is computed by the shipped system whenever the table is asked for.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hybridtwin.errors import DeclarationError
from hybridtwin.records import Person
from hybridtwin.signals import Regimen, Signal
from hybridtwin.simulate.trajectory import Trajectory
from hybridtwin.simulate.verb import simulate
from hybridtwin.system import System
from hybridtwin.units import bracketed, factor, parse

GOOD, FAIR = 0.1, 0.3  # BioGears' limits: within 10 % of the reference good, within 30 % some deviation, beyond poor
LIGHTS = ("good", "some deviation", "poor")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What a typical person goes through: the day on which a system is shown and tested.

    `stop`: its length in the system's unit of time, from 0. `doc`: what is done, and which published figure it is.
    `doses`, `signals` and `covariates` as in `Person.of`. `shows`: the outputs worth a picture; all by default.
    `parameters`: path -> number, for a day of another drug than that of the priors; a system with leaves of its own keeps them.
    `tol`: the n/2n error allowed, larger where valves or switches make it fall slowly. `undrawn`: why the picture shows no
    published value, where it shows none.
    """

    stop: float
    doc: str
    doses: Mapping[str, Regimen] = dataclasses.field(default_factory=dict)
    signals: Mapping[str, Signal] = dataclasses.field(default_factory=dict)
    covariates: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    parameters: Mapping[str, float] = dataclasses.field(default_factory=dict)
    shows: tuple[str, ...] = ()
    tol: float = 1e-5
    undrawn: str = ""

    def person(self, time: str, id: str = "typical") -> Person:
        """The record of this day, in the unit of time of a system."""
        return Person.of(id, start=0.0, stop=self.stop, time=time, doses=self.doses, signals=self.signals,
                         covariates=self.covariates)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Since:
    """In `Reference.drawn`: the published value is itself a time, counted from this moment [the system's unit of time]. It is
    drawn on our curve, where the published moment falls.
    """

    moment: float = 0.0


@dataclasses.dataclass(frozen=True)
class Reference:
    """A quantity that was published, and how to read ours off a typical body.

    `expected`: a number, or (low, high) of a range. `source`: who says so (DOI). `ours`: a function of a `Lived`. `why`: why ours
    is far off, where it is and the equations are those of the paper all the same. `drawn`: (output, time) where the published
    value belongs in the picture of the typical day; without a time (None) it is a level, such as that of a peak or of rest;
    with `Since(moment)` it is a time.
    """

    quantity: str
    unit: str
    expected: float | tuple[float, float]
    source: str
    ours: Callable[["Lived"], Any]
    why: str = ""
    drawn: tuple[str, float | Since | None] | None = None

    def __post_init__(self):
        parse(self.unit)
        if not self.source:
            raise DeclarationError(f"the reference {self.quantity!r} has no source. Say who published it")

    def deviation(self, value: float) -> float:
        """How far a value lies from the reference, relative to it; 0 inside a range."""
        low, high = self.expected if isinstance(self.expected, tuple) else (self.expected, self.expected)
        edge = min(max(value, low), high)
        # A reference of 0 has no size of its own: the range's width, or 1 unit, stands for it.
        return abs(value - edge) / (abs(edge) or (high - low) or 1.0)


def curve(quantity: str, unit: str, output: str, points: Mapping[float, float], source: str, *, time: str = "min",
          why: Mapping[float, str] | None = None) -> tuple[Reference, ...]:  # fmt: skip
    """A published curve: a reference for each of its points (time -> value), drawn over `output` in the picture.

    `time`: the system's unit of time, for the name of the row; `why`: time -> why that point is far off.
    """
    return tuple(
        Reference(f"{quantity}, {t:g} {time}", unit, value, source, lambda lived, t=t: lived.at(output, t),
                  (why or {}).get(t, ""), (output, t))
        for t, value in points.items()
    )  # fmt: skip


class Lived:
    """A typical body and what it went through. `lived.body`: the system with numbers; `lived["G"]`: an output over
    `lived.time`; `lived.at("G", 60.0)`: one moment. `lived.again(...)` is the same body on another day, or another body.
    """

    def __init__(self, body: System, protocol: Protocol):
        self.body, self.protocol = body, protocol

    @functools.cached_property
    def course(self) -> Trajectory:
        """The day, simulated."""
        return simulate(self.body, self.protocol.person(self.body.spec.time), tol=self.protocol.tol)

    @property
    def time(self) -> np.ndarray:
        """Times of the course, in the system's unit."""
        return self.course.time

    def __getitem__(self, name: str) -> np.ndarray:
        return self.course[name][0]

    def at(self, name: str, time: float) -> float:
        """An output at a time, on the straight line between two times of the course."""
        return float(np.interp(time, self.time, self[name]))

    def resting(self, name: str) -> float:
        """A state at rest (`steady`) under the inputs of the first moment."""
        day = dataclasses.replace(self.protocol, doses={}).person(self.body.spec.time)
        return float(simulate(self.body, day, at=[0.0], start="steady")[name][0, 0])

    def again(self, *, parameters: Mapping[str, float] | None = None, **changes) -> "Lived":
        """With some numbers of the body changed, and some parts of the protocol (`stop`, `doses`, `signals`, ...)."""
        body = self.body.with_values(parameters) if parameters else self.body
        return Lived(body, dataclasses.replace(self.protocol, **changes))


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table: what was published, what this system gives, and the light."""

    reference: Reference
    value: float

    @property
    def light(self) -> str:
        """Good (within 10 %), some deviation (within 30 %), or poor."""
        off = self.reference.deviation(self.value)
        return LIGHTS[2 if not off <= FAIR else 1 if off > GOOD else 0]

    @property
    def said(self) -> str:
        """The light, and why where the author knows."""
        return f"{self.light}: {self.reference.why}" if self.reference.why else self.light

    @property
    def expected(self) -> str:
        """The reference as text."""
        said = self.reference.expected
        return f"{said[0]:g} to {said[1]:g}" if isinstance(said, tuple) else f"{said:.6g}"


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The table of a system: quantity, unit, reference, our value, deviation, light, source."""

    name: str
    rows: tuple[Row, ...]
    lived: Lived

    def to_dataframe(self):
        """One row a quantity."""
        import pandas as pd

        return pd.DataFrame([
            {"quantity": r.reference.quantity, "unit": r.reference.unit, "reference": r.expected, "ours": r.value,
             "deviation": r.reference.deviation(r.value), "light": r.light, "source": r.reference.source}
            for r in self.rows
        ])  # fmt: skip

    def markdown(self) -> str:
        """The table as Markdown."""
        lines = ["| quantity | unit | reference | ours | light | source |", "|---|---|---|---|---|---|"]
        lines += [f"| {r.reference.quantity} | {r.reference.unit} | {r.expected} | {r.value:.5g} | {r.said} | "
                  f"{r.reference.source} |" for r in self.rows]  # fmt: skip
        return "\n".join(lines)

    def plot(self):
        """The outputs of the typical day, and what was published of it where a reference says when."""
        from hybridtwin.plots import published

        course, names = self.lived.course, self.lived.protocol.shows or tuple(self.lived.body.spec.outputs)
        marks = [self._mark(r, *r.drawn) for r in (row.reference for row in self.rows) if r.drawn]
        return published.over(course.plot(*names), course, names, marks)

    @property
    def day(self) -> str:
        """What the typical body goes through; and its numbers, where the protocol has others than the priors' medians."""
        body, numbers = self.lived.body, self.lived.protocol.parameters
        told = [f"{p} {float(v):.6g} {'' if f.unit == '1' else f.unit}".strip() for p, f, v in body.fields() if p in numbers]
        return self.lived.protocol.doc + (f"; {', '.join(told)}" if told else "")

    def _mark(self, r: Reference, output: str, time):
        """(output, time, value) of a published value, in the units of the course; without a value it is a time on our curve."""
        expected = np.array(r.expected, float)
        if isinstance(time, Since):
            return output, time.moment + expected * factor(r.unit, self.lived.body.spec.time), None
        return output, time, expected * factor(r.unit, self.lived.course.units[output])

    def __repr__(self):
        told = [(f"{r.reference.quantity} {bracketed(r.reference.unit)}", r.expected, f"{r.value:.5g}", r.said,
                 r.reference.source) for r in self.rows]  # fmt: skip
        head = ("quantity", "reference", "ours", "light", "source")
        wide = [max(len(row[i]) for row in (head, *told)) for i in range(4)]
        lines = ["  ".join([*(c.ljust(w) for c, w in zip(row, wide, strict=False)), row[4]]) for row in (head, *told)]
        return "\n".join([f"{self.name}, {self.day}", *lines])


def half_life(lived: Lived, name: str, start: float, stop: float) -> float:
    """Half-life of an output between two times: ln 2 over the slope of its logarithm."""
    return float(np.log(2.0) * (stop - start) / np.log(lived.at(name, start) / lived.at(name, stop)))


def area(lived: Lived, name: str, start: float = 0.0, stop: float | None = None, slope_from: float | None = None) -> float:
    """Area under an output (trapezoids); with `slope_from`, carried on to infinity by the slope since that time."""
    inside = (lived.time >= start) & (lived.time <= (np.inf if stop is None else stop))
    found = float(np.trapezoid(lived[name][inside], lived.time[inside]))
    if slope_from is None:
        return found
    return found + float(lived[name][-1]) * half_life(lived, name, slope_from, float(lived.time[-1])) / np.log(2.0)


def lived(system) -> Lived:
    """The typical body of a system (class or instance) on its typical day. **Raises:** DeclarationError without one."""
    system = system() if isinstance(system, type) else system
    if system.protocol is None:
        raise DeclarationError(f"{type(system).__name__} has no typical day. Give it protocol = Protocol(...)")
    numbers, body = system.protocol.parameters, system.typical()
    if numbers:  # a drug's numbers belong together: one leaf of the caller's own, and none of them is put in its place
        usual = {p: leaf for p, _, leaf in type(system)().fields()}
        if all(usual.get(p) is leaf for p, _, leaf in system.fields()):
            body = body.with_values(numbers)
    return Lived(body, system.protocol)


def evidence(system) -> Evidence:
    """A system (class or instance) against what was published of it: simulates, so it takes some seconds."""
    typical = lived(system)
    rows = tuple(Row(r, float(np.asarray(r.ours(typical)))) for r in typical.body.references)
    return Evidence(typical.body.spec.name, rows, typical)
