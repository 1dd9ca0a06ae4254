"""How much an outcome moves when something is a little more: parameters, amounts and times of doses, levels of signals.

    d AUC / d CL = -AUC / CL,   d AUC / d dose = AUC / dose,   d AUC / d V = 0     (one compartment, to infinity)

Derivatives are exact but for the integration error (`tangents`), draw by draw, so each has an interval. An elasticity is the
percent by which the outcome moves when the quantity is one percent more.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from hybridtwin.errors import InterventionError
from hybridtwin.explain.players import reach, settled
from hybridtwin.explain.tangents import Direction, Tangent, derivatives
from hybridtwin.finding import Finding
from hybridtwin.fit import unit_of
from hybridtwin.outcomes import Outcome, as_outcome, signed
from hybridtwin.signals import Signal
from hybridtwin.units import bracketed
from hybridtwin.worlds import thinned


@dataclasses.dataclass(frozen=True, eq=False)
class Slope:
    """The derivative of an outcome with respect to one quantity.

    `kind`: "parameter", "amount", "time", "level" (of a signal or covariate). `draws` (n,): derivative, in `unit`; `elasticity`
    (n,): percent per percent, NaN for a time; `spread`: standard deviation of the quantity among the draws (parameters only);
    `structure`: model of a parameter, "" where the draws are those of all structures.
    """

    kind: str
    name: str
    label: str
    unit: str
    value: float
    value_unit: str
    draws: np.ndarray
    elasticity: np.ndarray
    spread: float
    structure: str = ""
    start: float | None = None

    def quantile(self, q):
        """Quantile of the derivative among the draws."""
        return float(np.nanquantile(self.draws, q)) if np.isfinite(self.draws).any() else float("nan")

    @property
    def weight(self) -> float:
        """Size for ranking, in the unit of the outcome: what one standard deviation of a parameter moves, all of a dose or signal
        (linearly), or half an hour of a time.
        """
        reach = self.spread if self.kind == "parameter" else abs(self.value)
        return abs(self.quantile(0.5)) * reach if np.isfinite(reach) else 0.0

    @property
    def text(self) -> str:
        """One line with unit and interval."""
        per = f" {self.unit}" if self.unit not in ("", "1") else ""
        line = f"{self.label}: {signed(self.quantile(0.5))} ({signed(self.quantile(0.05))} to {signed(self.quantile(0.95))}){per}"
        if np.isfinite(self.elasticity).any():
            line += f"; {signed(float(np.nanmedian(self.elasticity)))} % per percent"
        return line


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Sensitivity(Finding):
    """Derivatives of one outcome, the parameters first, then doses and signals in the order of the day.

    `left_out`: labels of what moves a jump of the curve that lies at another time in each draw; its derivative is not known.
    """

    outcome: Outcome
    value: np.ndarray
    slopes: tuple[Slope, ...]
    left_out: tuple[str, ...] = ()

    def __getitem__(self, name) -> Slope:
        """The slope of a parameter or input by its label or name, or by place."""
        if isinstance(name, int):
            return self.slopes[name]
        for slope in self.slopes:
            if name in (slope.label, slope.name):
                return slope
        raise KeyError(f"no slope named {name!r}. There are: {', '.join(s.label for s in self.slopes)}.")

    @property
    def table(self):
        """One row a quantity, as a data frame: derivative and elasticity with 5 % and 95 % quantiles."""
        import pandas as pd

        def row(s):
            low, middle, high = (s.quantile(q) for q in (0.05, 0.5, 0.95))
            known = np.isfinite(s.elasticity).any()
            elastic = np.nanquantile(s.elasticity, [0.05, 0.5, 0.95]) if known else [np.nan] * 3
            return {
                "kind": s.kind, "name": s.name, "label": s.label, "structure": s.structure, "value": s.value,
                "value_unit": s.value_unit, "derivative": middle, "q05": low, "q95": high, "unit": s.unit,
                "elasticity": elastic[1], "elasticity_q05": elastic[0], "elasticity_q95": elastic[2], "spread": s.spread,
            }  # fmt: skip

        return pd.DataFrame([row(s) for s in self.slopes])

    @property
    def text(self) -> str:
        """Every derivative in a line."""
        head = f"How {self.outcome.label} moves when something is a little more:"
        return "\n".join([head, *("  " + s.text for s in self.slopes), *("  " + line for line in [self.torn] if line)])

    @property
    def torn(self) -> str:
        """What is left out and why, in words; "" where nothing is."""
        if not self.left_out:
            return ""
        what = f"what {', '.join(self.left_out)} would do is not told"
        return f"{what}: the curve jumps with a dose whose time is each draw's own, and has no slope there"


def sensitivity(
    twin, outcome: Outcome, *, inputs: Sequence[str] | None = None, since=None, draws: int | None = None
) -> Sensitivity:
    """Derivatives of an outcome with respect to parameters and inputs, in this world of the twin.

    **Arguments:** `inputs`: names of doses, signals and covariates (default all that the day has); `since`: doses before that are
    left out (default: those so old that all of them together move the outcome by less than half a percent); `draws`: of each
    structure (default those of the twin).

    The time of a dose is moved later; a value read at an instant is that just after. Under process noise times are left out.
    Where the outcome reads the very state into which a bolus with a lag (or an uncertain time) goes, what moves that bolus in
    time is left out (`left_out`), unless the outcome is a value at a time. A parameter that takes one value an occasion is moved
    in all of them. Doses after the end of the outcome's window are left out: they have no say.

    **Raises:** DeclarationError for a bare function, InterventionError, PastHorizon.
    """
    return sensitivities(twin, [outcome], inputs=inputs, since=since, draws=draws)[0]


def sensitivities(twin, outcomes: Sequence[Outcome], *, inputs=None, since=None, draws=None) -> list[Sensitivity]:
    """`sensitivity` of several outcomes from one solution."""
    outcomes = [as_outcome(o) for o in outcomes]
    known = [settled(twin, o) for o in outcomes]
    slopes: list[list[Slope]] = [[] for _ in outcomes]
    values: list[list[np.ndarray]] = [[] for _ in outcomes]
    shared: list[dict] = [{} for _ in outcomes]
    torn: list[dict[str, None]] = [{} for _ in outcomes]
    spans = [reach(twin, o, since) for o in outcomes]
    within = min(a for a, _ in spans), max(b for _, b in spans)
    for which, fit in enumerate(twin.fits):
        ways = [*_parameters(fit), *_inputs(twin, which, inputs, within)]
        if not ways:
            raise InterventionError(f"explain: {fit.model.name} has no parameter, and inputs={inputs!r} leave nothing to move.")
        name = fit.model.name if len(twin.fits) > 1 else ""
        for k, found in enumerate(derivatives(twin, which, outcomes, ways, draws or twin.draws_of(which))):
            values[k].append(found[0].outcome)
            for t in found:
                if t.torn:
                    torn[k][t.direction.label] = None
                elif t.direction.kind == "parameter":
                    slopes[k].append(_slope(t, known[k], name, *_drawn(fit, t)))
                else:
                    shared[k].setdefault((t.direction.kind, t.direction.label), []).append(t)
    for k, parts in enumerate(shared):
        for same in parts.values():
            joined = Tangent(same[0].direction, *(np.concatenate([getattr(p, n) for p in same]) for n in ("outcome", "slope")))
            slopes[k].append(_slope(joined, known[k], "", same[0].direction.value, float("nan")))
    rows = zip(known, values, slopes, torn, strict=True)
    return [Sensitivity(o, np.concatenate(v), tuple(found), tuple(gone)) for o, v, found, gone in rows]


def _drawn(fit, tangent):
    """Values of the parameter among the draws of a slope: (values, spread)."""
    name = tangent.direction.name
    if name not in fit.values:
        return float(fit.model.system.values()[name]), 0.0
    values = np.asarray(fit.values[name], float)
    values = values[thinned(len(values), len(tangent.slope))]
    return (values if len(values) == len(tangent.slope) else float(np.median(values))), float(np.std(fit.values[name]))


def _slope(tangent: Tangent, outcome: Outcome, structure, value, spread) -> Slope:
    d, unit = tangent.direction, outcome.unit or "1"
    with np.errstate(divide="ignore", invalid="ignore"):
        elastic = np.where(tangent.outcome != 0, tangent.slope * value / tangent.outcome, np.nan)
    if d.kind == "time":
        elastic = np.full(len(tangent.slope), np.nan)
    per = unit if d.unit in ("", "1") else f"{bracketed(unit)[1:-1]} per {d.unit}" if unit != "1" else f"per {d.unit}"
    middle = float(np.median(value))
    return Slope(d.kind, d.name, d.label, per, middle, d.unit, tangent.slope, elastic, spread, structure, d.start)


def _parameters(fit) -> list[Direction]:
    """Every parameter of the system that the model has: drawn or fixed."""
    spec = fit.model.spec
    drawn = {s.name for s in fit.kernel.sites if s.kind == "system"}
    fixed = {p for p in spec.parameters if p in fit.model.system.values()}
    found = [p for p in spec.parameters if p in drawn | fixed and not (p in fixed and p in dict(fit.model.varying))]
    return [Direction("parameter", p, p, unit_of(fit.model, p)) for p in found]


def _inputs(twin, which, names, within) -> list[Direction]:
    spec, world, clock = twin.fits[which].model.spec, twin.world(which), twin.days[which].bound.clock
    drawn = spec.noise and not (twin.days[which].lived and twin.fits[which].kernel.layout.stretches)
    found = []
    for name, field in spec.doses.items():
        if names is None or name in names:
            moved = _doses(name, field.unit, world.inputs[name], spec.time, clock, (world, *within))
            found += [d for d in moved if not (drawn and d.kind == "time")]  # a path that is drawn has no slope
    for name, field in {**spec.signals, **spec.covariates}.items():
        if names is None or name in names:
            signal = world.inputs[name]
            mean = signal.integral(world.start, world.stop) / max(world.stop - world.start, 1e-12)
            size = max(abs(mean), float(np.max(np.abs(signal.left))), 1e-3)
            found.append(Direction("level", name, name, field.unit, mean, None, _raised(name, field.unit), 1e-4 * size))
    return found


def _doses(name, unit, regimen, time, clock, within) -> list[Direction]:
    found, (world, since, end) = [], within
    for i, dose in enumerate(regimen.doses):
        if not max(world.start, since) <= dose.time <= min(world.stop, end):
            continue
        amount = dose.amount if dose.amount is not None else (dose.prior or (np.nan,))[0]
        label = f"{name} at {clock.label(dose.time)}"
        if amount and np.isfinite(amount):
            change = _scaled(name, i, 1.0 / amount)
            found.append(Direction("amount", name, label, unit, float(amount), dose.time, change, 1e-4 * float(amount)))
        later = 1e-5 * (world.stop - world.start)
        if dose.time + 2 * later < world.stop:
            found.append(Direction("time", name, f"time of {label}", time, float("nan"), dose.time, _later(name, i), later))
    return found


def _with_dose(world, name, i, change):
    regimen = world.inputs[name]
    doses = tuple(change(d) if k == i else d for k, d in enumerate(regimen.doses))
    doses = tuple(sorted(doses, key=lambda d: (d.time, d.order)))
    return dataclasses.replace(world, inputs={**world.inputs, name: dataclasses.replace(regimen, doses=doses)})


def _scaled(name, i, per):
    """More of one dose, by an amount: an infusion takes as long as before, one of a given rate longer."""

    def change(world, by):
        def more(d):
            k = 1.0 + by * per
            amount = None if d.amount is None else d.amount * k
            return dataclasses.replace(d, amount=amount, prior=None if d.prior is None else (d.prior[0] * k, d.prior[1]))

        return _with_dose(world, name, i, more)

    return change


def _later(name, i):
    def change(world, by):
        return _with_dose(world, name, i, lambda d: dataclasses.replace(d, time=d.time + by))

    return change


def _raised(name, unit):
    def change(world, by):
        raised = world.inputs[name] + Signal.constant(by, unit)
        return dataclasses.replace(world, inputs={**world.inputs, name: raised})

    return change
