"""The flow of one world of a twin: from the state at one moment to the state at the next, for any rows of numbers.

A twin's day is cut at moments. Between two of them the flow map takes parameters, the state at the first, and what is given, and
returns the state at the second; a state at a moment is the one in front of whatever happens there. Everything that a row may
change is an argument of a compiled program, and all cuts of one day share it where their meshes fall into one bucket.

What rules of care remember over a moment is part of the state (`memory`). The path that process noise took, and the errors of
what care reads, belong to the draw: a row says which draw's they are. Of a path a row may also say how far it goes in a stretch;
what is left of it, a Brownian bridge, does not depend on that.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from hybridtwin.causal.memory import Remembered, care_of, remembered, told_of
from hybridtwin.engine import Lanes, double
from hybridtwin.errors import InterventionError, SolveError
from hybridtwin.interventions import Course
from hybridtwin.kernel import Data, Kernel
from hybridtwin.signals import Signal
from hybridtwin.simulate.course import course
from hybridtwin.simulate.layout import bucket, pad
from hybridtwin.simulate.mesh import lay
from hybridtwin.simulate.rules import FIRST, acts_of, stretch_of
from hybridtwin.simulate.run import solve_draws, tile
from hybridtwin.simulate.steppers import Repeated
from hybridtwin.worlds import kernel_of, overridden, readers, reading_keys, reading_times, settings, thinned, values_of

Rows = Mapping[str, np.ndarray]


@functools.lru_cache(maxsize=64)
def _program(kernel: Kernel, names: tuple[str, ...], begins: bool):
    """Compiled: (rows (n, ...), mesh, sub-steps) -> `Course` with leading axis n; `begins`: from the first row's own start."""

    def lane(row, data, substeps):
        system, extras = kernel.system_of(row["values"]), kernel.extras(row["values"], data, row["overrides"])
        extras = extras._replace(sets=row["sets"])
        mesh = data.mesh
        mesh = mesh._replace(signal=mesh.signal + row["signals"][None], covariate=mesh.covariate + row["covariates"][None])
        x0 = kernel.start_state(system, mesh, extras) if begins else kernel.model.spec.state(row["x0"])
        stepper = Repeated(kernel.stepper, substeps)
        reads = readers(kernel, row["values"], row["reading"]) if "reading" in row else None
        return course(system, kernel.layout, stepper, mesh, x0, extras, names, reads, row.get("care"))

    return Lanes(lane, (0, None, None))


@dataclasses.dataclass(frozen=True)
class Given:
    """One dose of the world, as a variable: its column, input, time, how long it may still be arriving, amount as recorded."""

    column: str
    input: str
    time: float
    until: float
    amount: float


@dataclasses.dataclass(frozen=True)
class Held:
    """A signal or covariate that holds still, as a variable: its column, input, and from when until when it holds."""

    column: str
    input: str
    start: float
    stop: float
    value: float


@dataclasses.dataclass(frozen=True)
class Push:
    """How far the process noise goes in a stretch, as a variable: W(end) - W(start) in standard deviations.

    `own` (N,): what it is in each draw.
    """

    column: str
    stretch: int
    place: int  # among the states with noise
    own: np.ndarray


BODY, NOISE = "body", "noise"  # which draw: of everything; of the noise alone, where parameters are drawn apart


class Flow:
    """The world of one structure of a twin, cut at moments (clock times or numbers; the day's start is always the first).

    `rows`: what a row holds beside states: parameters, amounts of doses, levels of signals, pushes of the noise, and `root`, the
    draw whose noise it has (None where nothing is drawn); their values, (N,) each, in the posterior draws (the prior's where
    asked) that simulations of the twin use. `rules`: what the rules of care are called.

    **Raises:** InterventionError where the world remembers what no number of a row can hold; it says what to do instead.
    """

    def __init__(self, twin, moments: Sequence, *, structure: int = 0, prior: bool = False, tol: float = 1e-7, rules=()):
        self.fit, self.day, self.world = twin.fits[structure], twin.days[structure], twin.world(structure)
        self.spec, self.tol = self.fit.model.spec, tol
        self._refuse()
        clock, start, stop = self.day.bound.clock, self.day.bound.start, self.day.bound.stop
        cuts = sorted({start, *(float(clock.asked(t)) for t in moments)})
        if cuts[0] < start or cuts[-1] > stop or len(cuts) < 2:
            raise InterventionError(
                f"moments must lie inside the day ({clock.label(start)} to {clock.label(stop)}), one after its start at least."
            )
        self.moments = tuple(cuts)
        with double():
            self._build(twin, structure, prior)
            self.memory: tuple[Remembered, ...] = remembered(self.world, self.kernel.layout, self.spec, rules)

    def _refuse(self):
        reasons = {
            "the record is reset (EVID 3 or 4), back to a start that no state holds; ask the part behind the reset, "
            "person.between(...)": self.world.resets,
            "a state follows its course in another world, the whole of which would have to be a number; contrast these worlds "
            "with ht.contrast": [c for c in self.world.clamps if isinstance(c.signal, Course)],
        }
        found = [why for why, has in reasons.items() if has]
        if found:
            raise InterventionError(f"{self.spec.name}: this world cannot be cut into stretches: {'; '.join(found)}.")

    def _build(self, twin, structure, prior):
        fit, day = self.fit, self.day
        kernel, self.choice = kernel_of(fit, day, [self.world])
        if kernel.layout.noise:
            raise InterventionError(
                f"{self.spec.name}: the path of the noise of a day that was not lived is as rough as it is drawn, and a solution "
                "meets it to a hundredth only: cut into stretches it would be another path. Ask the lived day, whose path was "
                "inferred: ht.scm(twin.do(...), ...)."
            )
        source = fit.prior_values if prior else fit.values
        total = len(next(iter(source.values()), np.zeros(1)))
        count = twin.draws_of(structure)
        index = thinned(total, max(count // 2, 1) if prior else count)
        values = values_of(fit, day, kernel, index, prior, twin.key)
        self.count = len(index)
        self._number(values)
        doses = len(self.doses)
        self.kernel = dataclasses.replace(kernel, layout=dataclasses.replace(kernel.layout, latents=doses), amounts=doses)
        read = {rule.reads for rule in self.world.rules if getattr(rule, "reads", None)}
        self.errors = {name: self.kernel.sites_of(name) for name in read}  # what decides the errors of what care reads
        asked = {name for names in self.errors.values() for name in names}
        kinds = ("system", "deviation", "spread", "time")
        self.sites = {s.name: s for s in self.kernel.sites if s.kind in kinds or s.name in asked}
        self.parameters = {}
        for name, site in self.sites.items():
            for i in range(site.size):
                self.parameters[name if site.size == 1 else f"{name}[{i}]"] = (name, i)
        self._hold()
        self.rows = {c: values[s].reshape(self.count, -1)[:, i] for c, (s, i) in self.parameters.items()}
        self.rows |= {g.column: self._amounts[:, e] for e, g in enumerate(self.doses)}
        self.rows |= {h.column: np.full(self.count, h.value) for h in self.held}
        self._draw(values, twin.key, BODY if not prior else NOISE)
        self.begins = isinstance(day.start, str)
        self.x0 = {} if self.begins else {p: np.broadcast_to(np.atleast_1d(v), (self.count,)) for p, v in day.start.items()}

    def _draw(self, values, key, root):
        """What belongs to a draw: the paths of its noise, and the errors of what care reads in it."""
        self._keys = reading_keys(key, self.count) if self.errors else None
        self.pushes: tuple[Push, ...] = ()
        if self.kernel.layout.stretches:
            self._knots = np.array(self.choice.drive, float)
            paths = [values[f"noise of {p}"].reshape(self.count, -1) for p, _ in self.spec.noise]
            self._paths = np.stack(paths, axis=1)  # (N, D, G) increments, in standard deviations
            for k, (start, stop) in enumerate(zip(self.moments[:-1], self.moments[1:], strict=True)):
                inside = np.diff(np.clip(self._knots, start, stop))
                went = self._paths / np.sqrt(np.diff(self._knots)) @ inside / np.sqrt(stop - start)
                self.pushes += tuple(Push(f"noise of {p}[{k}]", k, d, went[:, d]) for d, (p, _) in enumerate(self.spec.noise))
            self.rows |= {push.column: push.own for push in self.pushes}
        self.root = root if self.errors or self.pushes else None
        if self.root:
            self.rows[self.root] = np.arange(self.count, dtype=float)

    def _number(self, values):
        """Give every dose of the world a number: its amount then is a factor that each row has."""
        inputs, found, amounts, sds, places = dict(self.world.inputs), [], [], [], []
        latent, times = self.day.bound.latent, 0
        at = {}
        for e, event in enumerate(latent):
            at[e] = times if event.time_sd else -1
            times += bool(event.time_sd)
        sure = np.cumsum([bool(e.amount_sd) for e in latent]) - 1
        z = np.asarray(values["amounts"]).reshape(self.count, -1) if "amounts" in values else None
        for name in self.spec.doses:
            numbered = []
            for dose in sorted(inputs[name].doses, key=lambda d: (d.time, d.order)):
                event = None if dose.latent is None else latent[dose.latent]
                recorded = float(dose.amount) if dose.amount is not None else float(dose.prior[0])
                nominal = recorded if recorded > 0 else 1.0
                factor = np.ones(self.count)
                if event is not None and event.amount_sd and z is not None:
                    factor = np.exp(event.amount_sd * z[:, sure[dose.latent]])
                amounts.append(recorded * factor)
                sds.append(event.time_sd if event is not None else 0.0)
                places.append(at[dose.latent] if event is not None else -1)
                moving = name in self.spec.moving or dose.modelled or sds[-1] or (dose.rate and "dosing" in self.spec.defines)
                spread = self.spec.spread(name) or 0.0
                lasts = float(dose.duration or 0.0) or (recorded / spread if spread else 0.0)
                lasts = recorded / float(dose.rate) if dose.rate and not lasts else lasts
                n = len(numbered) + 1
                found.append(Given(f"{name} #{n}", name, float(dose.time), np.inf if moving else dose.time + lasts, nominal))
                numbered.append(dataclasses.replace(dose, latent=len(found) - 1, amount=nominal, amount_sd=1.0))
            inputs[name] = dataclasses.replace(inputs[name], doses=tuple(numbered))
        self.doses, self._inputs = tuple(found), inputs
        self._amounts = np.array(amounts).reshape(len(found), self.count).T
        self._time_sd, self._time_at = np.array(sds, float), np.array(places, np.int32)

    def _hold(self):
        """Signals and covariates that hold still over the day, or over each stretch, are variables too."""
        self.held: tuple[Held, ...] = ()
        for name in (*self.spec.signals, *self.spec.covariates):
            signal: Signal = self.world.inputs[name]
            knots = [t for t in signal.knots if self.moments[0] < t < self.moments[-1]]
            first, last = self.moments[0], self.moments[-1]
            if signal.stepwise and not knots:
                self.held += (Held(name, name, first, last, float(signal(first))),)
            elif signal.stepwise and set(knots) <= set(self.moments):
                pairs = zip(self.moments[:-1], self.moments[1:], strict=True)
                self.held += tuple(Held(f"{name}[{k}]", name, a, b, float(signal(a))) for k, (a, b) in enumerate(pairs))

    def given(self, k: int) -> list[Given]:
        """Doses that can act in the stretch from moment k on."""
        start, stop = self.moments[k], self.moments[k + 1]
        return [g for g in self.doses if g.time < stop and (g.time >= start or g.until > start)]

    def holding(self, k: int) -> list[Held]:
        """Signals and covariates, as variables, that hold in the stretch from moment k on (at the last moment: up to it)."""
        start = self.moments[min(k, len(self.moments) - 2)]
        return [h for h in self.held if h.start <= start < h.stop]

    def carried(self, k: int) -> list[str]:
        """What is carried over moment k: states, and what rules of care remember."""
        return [*self.spec.states, *(one.column for one in self.memory if k and one.at(self.moments[k]))]

    def at(self, rows: Rows, x: Rows | None, k: int, names) -> np.ndarray:
        """Outputs or states (N, len(names)) at moment k, in front of whatever happens there; `x` as in `course`."""
        return self._solve(rows, x, k, [(self.moments[k], FIRST)], tuple(names), stop=self.moments[k])[0].values[0, :, 0]

    def onward(self, rows: Rows, x: Rows, k: int) -> np.ndarray:
        """What is carried over moment k + 1 (N, len(carried(k + 1))), from what was at moment k."""
        stop, wanted = self.moments[k + 1], self.carried(k + 1)
        solved = self._solve(rows, x, k, [(stop, FIRST)], tuple(self.spec.states))[0]
        found = dict(zip(self.spec.states, solved.values[0, :, 0].T, strict=True))
        if self.memory:
            told = told_of(self.memory, _first(solved.acts).memory, stop)
            found |= {n: np.where(solved.failed, np.nan, v) for n, v in told.items()}
        return np.stack([found[name] for name in wanted], axis=1)

    def course(self, rows: Rows, x: Rows, k: int, names, reads):
        """Outputs or states (N, T, len(names)) in the stretch from moment k on, and what rules of care did in it.

        **Arguments:** `rows`: columns -> (N,); `x`: what is carried over moment k -> (N,); `reads`: (time, rank) pairs.
        """
        solved, time = self._solve(rows, x, k, list(reads), tuple(names))
        units = {name: field.unit for name, field in self.spec.doses.items()}
        return solved.values[0], acts_of(self.world, self.kernel.layout, _first(solved.acts), time, units)

    def _solve(self, rows, x, k, reads, names, stop=None):
        """`Solved` rows in the stretch from moment k on, up to `stop` (default the next moment), and the times of its nodes."""
        start, stop = self.moments[k], self.moments[min(k + 1, len(self.moments) - 1)] if stop is None else stop
        inside = {n: dataclasses.replace(r, doses=tuple(d for d in r.doses if d.time < stop))
                  for n, r in self._inputs.items() if n in self.spec.doses}  # fmt: skip
        world = dataclasses.replace(self.world, inputs=self._inputs | inside, start=start, stop=stop,
                                    sets=tuple(s for s in self.world.sets if start <= s.time < stop),
                                    attended=stretch_of(self.world, self.spec.time, start, stop))  # fmt: skip
        with double():
            solved, time = self._solved(world, rows, x, k, reads, names)
        if solved.failed.all():
            raise SolveError(f"{self.spec.name}: no row could be solved from {self.day.bound.clock.label(start)} on.")
        return solved, time

    def _solved(self, world, rows, x, k, reads, names):
        count = len(next(iter(rows.values())))
        kernel, bound = self.kernel, self.day.bound
        edges = {g: np.asarray(bound.occasion_edges(g), float) for _, g in kernel.model.varying}
        knots = [t for t in (*self.choice.knots, *self.choice.drive) if world.start < t < world.stop]
        # Care that looks at the time of a dose looks in front of it, as it does wherever a day is read on both sides of doses.
        every = [*reads, *((t, FIRST) for t in sorted({g.time for g in self.doses}) if world.start <= t < world.stop)]
        mesh = lay([world], self.spec, kernel.layout, every, max_step=self.choice.step, occasions=edges, knots=knots)[0]
        time = mesh.t
        mesh = pad(mesh, bucket(len(mesh.t)), bucket(len(every)), len(mesh.moving.time))
        mesh = mesh._replace(drive=np.array(self.choice.drive, float))
        doses = len(self.doses)
        data = Data(mesh, {}, {}, np.ones(doses), np.arange(doses, dtype=np.int32), self._time_sd, self._time_at)
        lanes = {"values": self._values(rows, k, count), **self._shifts(rows, k, count)}
        lanes["overrides"] = overridden([world], kernel, lanes["values"])[:, 0]
        lanes["sets"] = settings([world], kernel.layout, count)[0]
        lanes["x0"] = {} if x is None else {p: np.asarray(x[p], float) for p in self.spec.states}
        if kernel.layout.rules:
            lanes["care"] = care_of(self.memory, kernel.layout, x or {}, self.moments[k], count)
        if self._keys is not None:
            lanes["reading"] = self._keys[self._which(rows)]
        program, refine = _program(kernel, names, x is None), kernel.stepper.refines
        solved = solve_draws(program, [lanes], [data], refine=refine, tol=self.tol, width=tile(len(self.spec.states)))
        return solved._replace(values=solved.values[:, :, : len(reads)]), time

    def _which(self, rows):
        """(N,) which draw's noise each row has."""
        return np.clip(np.round(rows[self.root]).astype(int), 0, self.count - 1)

    def _values(self, rows, k, count):
        """Values of the sites of the kernel, (N, ...) each."""
        values = {name: np.stack([rows[c] for c, (s, _) in self.parameters.items() if s == name], axis=1)
                  for name in self.sites}  # fmt: skip
        values = {name: v[:, 0] if self.sites[name].size == 1 else v for name, v in values.items()}
        if self.doses:
            with np.errstate(divide="ignore"):
                values["amounts"] = np.log(np.stack([rows[g.column] / g.amount for g in self.doses], axis=1))
        if self.pushes:
            which = self._which(rows)
            paths, long = self._paths[which], np.diff(self._knots)
            for push in (push for push in self.pushes if push.stretch == k):
                span = self.moments[k + 1] - self.moments[k]
                paths[:, push.place] += ((rows[push.column] - push.own[which]) / np.sqrt(span))[:, None] * np.sqrt(long)
            one = len(long) == 1
            values |= {f"noise of {p}": paths[:, d, 0] if one else paths[:, d] for d, (p, _) in enumerate(self.spec.noise)}
        return values

    def _shifts(self, rows, k, count):
        """How far signals and covariates are from what they are in this world: (N, S) and (N, C)."""
        found = {kind: np.zeros((count, len(getattr(self.spec, kind)))) for kind in ("signals", "covariates")}
        for held in self.holding(k):
            kind = "signals" if held.input in self.spec.signals else "covariates"
            found[kind][:, list(getattr(self.spec, kind)).index(held.input)] = rows[held.column] - held.value
        return found

    @property
    def inputs(self):
        """Doses of the day as they were decided: input -> regimen, in the order of `doses`."""
        return {name: self._inputs[name] for name in self.spec.doses}

    def reads(self) -> list[tuple[float, int]]:
        """(time, rank) at which the twin's day is read by default, and the moments."""
        bound = self.day.bound
        found = reading_times([self.world], self.spec, (bound.start, bound.stop))
        return sorted({*found, *((t, FIRST) for t in self.moments)})


def _first(acts):
    """Of one world, from the acts of one world (1, N, ...)."""
    return jax.tree.map(lambda a: a[0], acts)
