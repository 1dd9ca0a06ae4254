"""What inference leaves behind for one model on one person, and the verdict on it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from hybridtwin.kernel import Kernel, Temper
from hybridtwin.model import Model, Problem
from hybridtwin.simulate.failures import Failures

LEVELS = ("OK", "CAUTION", "DO NOT USE")
PARTS = ("computed", "fits", "informed", "supported")


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of a verdict: a level of `LEVELS` and the reasons for it."""

    level: str = "OK"
    reasons: tuple[str, ...] = ()

    def join(self, other: "Part") -> "Part":
        """The worse of two levels, with all reasons."""
        level = max(self.level, other.level, key=LEVELS.index)
        return Part(level, tuple(dict.fromkeys(self.reasons + other.reasons)))


@dataclasses.dataclass(frozen=True)
class Verdict:
    """May this answer be used? Four parts; the worst is the headline.

    computed: did the computation converge? fits: does the model fit what was seen? informed: did the readings narrow what
    is asked? supported: does the question lie inside what was seen?
    """

    parts: Mapping[str, Part]

    @property
    def headline(self) -> str:
        """The worst level."""
        return max((p.level for p in self.parts.values()), key=LEVELS.index)

    def join(self, other: "Verdict") -> "Verdict":
        """Part by part the worse of two verdicts."""
        return Verdict({name: self.parts[name].join(other.parts[name]) for name in PARTS})

    def __repr__(self):
        lines = [f"verdict: {self.headline}"]
        for name, part in self.parts.items():
            lines.append(f"  {name:<9} {part.level}" + (f": {'; '.join(part.reasons)}" if part.reasons else ""))
        return "\n".join(lines)


class Judgment:
    """Collects findings into a part: `judge(value, caution, red, text)`."""

    def __init__(self):
        self._level, self._reasons = 0, []

    def say(self, level: str, reason: str):
        """Add a reason at a level."""
        self._level = max(self._level, LEVELS.index(level))
        if level != "OK":
            self._reasons.append(reason)

    def above(self, value, caution, red, text):
        """CAUTION above one bound, DO NOT USE above another; what is not a number is red."""
        if not np.isfinite(value) or value > red:
            self.say("DO NOT USE", text)
        elif value > caution:
            self.say("CAUTION", text)

    @property
    def part(self) -> Part:
        """What was found."""
        return Part(LEVELS[self._level], tuple(self._reasons))


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """Posterior draws of one model for one person.

    `values` and `prior_values`: site -> (n,) or (n, size); `z`: the same posterior draws as coordinates by chain (C, N, d);
    `stats`: name -> (d,) array or number (rhat, ess_bulk, ess_tail, divergent, bfmi, ...); `shares`: how much of the draws
    counts after the correction from n to 2n sub-steps; `peak`: coordinates (d,) of the highest mode under the steps that
    inference took (`Twin.mode` is the same mode under finer ones); `log_evidence`: the method's where `stats` holds its
    standard error `log_evidence_se`, else only that of the Laplace approximation (`ht.compare` estimates it from any draws);
    `failures`: draws that could not be solved at the readings.
    """

    problem: Problem
    values: Mapping[str, np.ndarray]
    prior_values: Mapping[str, np.ndarray]
    z: np.ndarray
    log_density: np.ndarray
    stats: Mapping[str, Any]
    method: Any
    strength: Temper
    log_evidence: float
    parts: Mapping[str, Part]
    peak: np.ndarray
    failures: Failures = dataclasses.field(default_factory=Failures)

    @property
    def model(self) -> Model:
        """The model that was fitted."""
        return self.problem.model

    @property
    def kernel(self) -> Kernel:
        """Its static structure."""
        return self.problem.kernel

    @property
    def stepper(self) -> str:
        """How the day was integrated, and why so (`Model(solver=...)` says otherwise)."""
        return self.problem.choice.told(self.model.spec.time)

    @property
    def stage(self) -> str:
        """Which stage answered, where the method is a cascade; else the method's name."""
        return str(self.stats.get("stage", type(self.method).__name__))

    def told(self) -> str:
        """How the draws were made, in a line: the stage that answered and why, modes and their shares, halved steps."""
        text = self.stage + (f" ({self.stats['why']})" if "why" in self.stats else "")
        if "mode_shares" in self.stats:
            text += ", modes hold " + " and ".join(f"{100 * share:.0f} %" for share in self.stats["mode_shares"])
        if "halved" in self.stats:
            text += f", steps halved {self.stats['halved']} times"
        return text

    @property
    def names(self) -> tuple[str, ...]:
        """One name a coordinate."""
        return self.kernel.names

    @property
    def temper(self) -> float:
        """The likelihood counted to the power 1 / temper."""
        return float(self.strength.power)

    @property
    def count(self) -> int:
        """Number of posterior draws."""
        return self.z.shape[0] * self.z.shape[1]

    def __repr__(self):
        lost = f", {len(self.failures)} of them failed" if self.failures else ""
        lines = [
            f"Fit of {self.problem.person.id}: {self.model.name}, {type(self.method).__name__}, {self.count} draws{lost}",
            f"  solved by {self.stepper}",
            *("  " + line for line in self.failures.told()),
            *("  " + line for line in repr(Verdict(self.parts)).splitlines()),
        ]
        return "\n".join(lines)

    def table(self) -> list[dict[str, Any]]:
        """One row a coordinate: prior and posterior quantiles, their ratio of standard deviations, diagnostics.

        Left out are increments of the paths of process noise, of which there are many; `values["noise of ..."]` has them.
        """
        rows, at = [], 0
        for site in self.kernel.sites:
            if site.kind == "path":
                at += site.size
                continue
            post, prior = (np.asarray(v[site.name]).reshape(-1, site.size) for v in (self.values, self.prior_values))
            for i in range(site.size):
                quantiles = [*np.quantile(prior[:, i], (0.05, 0.5, 0.95)), *np.quantile(post[:, i], (0.05, 0.5, 0.95))]
                row = {
                    "structure": self.model.name,
                    "parameter": self.names[at],
                    "unit": unit_of(self.model, site.name),
                }
                row |= dict(
                    zip(
                        ("prior_q05", "prior_q50", "prior_q95", "q05", "q50", "q95"), map(float, quantiles), strict=True
                    )
                )
                row["stage"] = self.stage
                row["sd_ratio"] = float(self.z[..., at].std() / self.stats["prior_sd"][at])
                row |= {
                    name: float(self.stats[name][at]) for name in ("rhat", "ess_bulk", "ess_tail") if name in self.stats
                }
                rows.append(row)
                at += 1
        return rows


def unit_of(model: Model, site: str) -> str:
    """Unit of a site's values."""
    field = model.spec.parameters.get(site)
    if field is not None:
        return field.unit
    name, _, path = site.partition(".")
    sensor = model.sensors.get(name)
    if sensor is None:
        return "1"
    unit = {p: f.unit for p, f, _ in sensor.fields()}[path]
    if sensor.decides and path in ("base", "spread"):
        return model.spec.doses[sensor.decides].unit
    return model.unit_of(sensor.of) if path in sensor.scaled else unit


def common_outputs(fits) -> tuple[str, ...]:
    """Outputs that every structure has in one unit; the states of a system that declares no outputs."""

    def seen(fit):
        return fit.model.spec.outputs or fit.model.spec.states

    shared = set.intersection(*[set(seen(f)) for f in fits])
    return tuple(n for n, o in seen(fits[0]).items() if n in shared and all(seen(f)[n].unit == o.unit for f in fits))
