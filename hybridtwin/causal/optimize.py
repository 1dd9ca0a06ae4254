"""Choose among treatments that can be delivered, under a risk measure; the table of all candidates is the answer.

    plan = twin.forecast("24 h")
    grid = ht.Regimen.grid(range(500, 2001, 250), "mg", first=58, every=["8 h", "12 h", "24 h"], max_rate="1 g/h")
    auc = ht.outcomes.auc("C", 58, 82)
    ht.optimize(plan, {"iv": grid}, target=ht.outcomes.within(auc, 400, 600, "mg*h/L"),
                limits=[ht.Chance(auc, above=(600, "mg*h/L"), at_most=0.1)])

Every candidate is simulated with the same draws of the same body and the same noise, on one compiled program; draws that could
not be solved in one candidate are left out of all. A number in the table is an estimate from draws: differences are judged by
their paired Monte Carlo error, and what the draws cannot tell apart is named.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hybridtwin.aims import AbstractRisk, Aim, Chance, Expected, as_aim
from hybridtwin.causal import grounds
from hybridtwin.causal.candidates import Candidates, gathered
from hybridtwin.errors import DeclarationError, NotTrustworthy, SolveError, UnrelatedTwins
from hybridtwin.finding import Finding
from hybridtwin.fit import Judgment, Part, Verdict
from hybridtwin.outcomes import Outcome, as_outcome, harm_of
from hybridtwin.simulate.mesh import layout_of
from hybridtwin.twin import Twin, simulate_worlds

_NUMBERS = 2.5e7  # numbers of one output in all worlds that are simulated together
_RESOLVED = 4.0  # draws for each of the inverse of the smallest chance asked about
_TOLD = 2.0  # standard errors of a paired difference above which two candidates are told apart


@dataclasses.dataclass(frozen=True, eq=False)
class Option:
    """One candidate: its world and, draw by draw, what was asked of it.

    `value` and `loss` (n,); `harms`, `chances`: one (n,) for each outcome of harm and each limit (1 where it happens);
    `prior_value` (m,): the target's outcome of the prior's draws; `acts`: mean number of times that a rule of care acted.
    """

    label: str
    world: Twin
    numbers: Mapping[str, Any]
    value: np.ndarray
    loss: np.ndarray
    harms: tuple[np.ndarray, ...]
    chances: tuple[np.ndarray, ...]
    prior_value: np.ndarray
    prior_loss: np.ndarray
    acts: float
    verdict: Verdict


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Decision(Finding):
    """All candidates with their chances, losses and harms. Made by `optimize`; nothing in it is an instruction.

    `options`: the candidates in the order given; `reference`: the twin as it is (as lived, or as planned), for comparison
    only; `good` (draws,): which draws could be solved everywhere; `worth`: independent draws that these are worth.
    """

    twin: Twin
    options: tuple[Option, ...]
    reference: Option
    aim: Aim
    risk: AbstractRisk
    limits: tuple[Chance, ...]
    harms: tuple[Outcome, ...]
    verdict: Verdict
    accepted: str | None
    good: np.ndarray
    worth: float
    left_out: tuple[str, ...]
    kept: tuple[str, ...]
    notes: tuple[str, ...]
    assumptions: tuple[str, ...]
    window: str  # of the target's outcome, as its label tells it

    # ------------------------------------------------------------------------------------------- what was found

    def short(self, thing) -> str:
        """The name of an outcome or limit, without the window where that is the target's."""
        name = thing.label if isinstance(thing, Outcome) else str(thing)
        return name.replace(self.window, "") if self.window else name

    def __len__(self) -> int:
        return len(self.options)

    def __getitem__(self, label: str) -> Option:
        found = {option.label: option for option in self.options}
        if label not in found:
            raise DeclarationError(f"no candidate is called {label!r}. Candidates: {'; '.join(list(found)[:8])}.")
        return found[label]

    @functools.cached_property
    def losses(self) -> np.ndarray:
        """(candidates, draws) loss of every candidate in every draw."""
        return np.stack([option.loss for option in self.options])

    @functools.cached_property
    def risks(self) -> np.ndarray:
        """(candidates,) the risk of each."""
        return self.risk.of_all(self.losses)

    @functools.cached_property
    def _parts(self) -> np.ndarray:
        return np.stack([self.risk.parts(loss) for loss in self.losses])

    def _error(self, parts) -> np.ndarray:
        """Monte Carlo standard error of the mean of influence values (..., draws)."""
        return np.std(parts, axis=-1) / np.sqrt(self.worth)

    @functools.cached_property
    def errors(self) -> np.ndarray:
        """(candidates,) Monte Carlo standard error of each risk."""
        return self._error(self._parts)

    @functools.cached_property
    def chances(self) -> np.ndarray:
        """(candidates, limits) probability of what each limit is about."""
        found = [[float(np.mean(c)) for c in option.chances] for option in self.options]
        return np.array(found).reshape(len(self), len(self.limits))

    @functools.cached_property
    def bounds(self) -> np.ndarray:
        """(candidates, limits) upper 95 % bounds of these probabilities, for what the draws are worth."""
        return np.vectorize(lambda p: grounds.upper(p * self.worth, self.worth), otypes=[float])(self.chances)

    @functools.cached_property
    def feasible(self) -> np.ndarray:
        """(candidates,) does it meet every limit, by the estimate?"""
        return np.all(self.chances <= np.array([limit.at_most for limit in self.limits]), axis=1)

    @functools.cached_property
    def sure(self) -> np.ndarray:
        """(candidates,) does it meet every limit, whatever the Monte Carlo error?"""
        return np.all(self.bounds <= np.array([limit.at_most for limit in self.limits]), axis=1)

    @functools.cached_property
    def order(self) -> np.ndarray:
        """Places of the candidates that meet every limit, lowest risk first."""
        places = np.flatnonzero(self.feasible)
        return places[np.argsort(self.risks[places], kind="stable")]

    @property
    def lowest(self) -> Option | None:
        """The candidate of the lowest risk among those that meet every limit; None where none does."""
        return self.options[self.order[0]] if self.order.size else None

    @functools.cached_property
    def tied(self) -> np.ndarray:
        """(candidates,) is it among those that these draws do not tell from the lowest (which is one of them)?"""
        if not self.order.size:
            return np.zeros(len(self), bool)
        apart = self._parts - self._parts[self.order[0]]
        return self.feasible & (np.mean(apart, axis=1) <= _TOLD * self._error(apart))

    @functools.cached_property
    def regret(self) -> np.ndarray:
        """(candidates,) expected loss beyond that of whoever knew the body and chose among those that meet every limit."""
        among = self.losses[self.order] if self.order.size else self.losses
        return np.mean(self.losses - among.min(axis=0), axis=1)

    @functools.cached_property
    def prior_order(self) -> np.ndarray:
        """Places of all candidates by the risk that the prior's draws alone give them."""
        return np.argsort([self.risk.of(o.prior_loss) for o in self.options], kind="stable")

    # ------------------------------------------------------------------------------------------------ told

    @functools.cached_property
    def table(self):
        """One row a candidate, all of them: chances, target, risk with its Monte Carlo error, regret, harm, limits, prior.

        p_below, p_in, p_above: of the target's range, as counted in draws that are worth `draws` independent ones (no chance is
        known nearer to 0 or 1 than three of these); `regret`: see `Decision.regret`; `meets`: "yes", "no", or "by the estimate"
        where the draws leave room for no; `tied`: not told from the lowest. Units stand in `attrs["units"]`.
        """
        import pandas as pd

        frame = pd.DataFrame([self._row(i) for i in range(len(self))])
        frame.attrs["units"] = {"target": self.aim.unit, **{self.short(h): h.unit for h in self.harms}}
        frame.attrs["accepted"] = self.accepted
        return frame

    def _row(self, i) -> dict[str, Any]:
        option, aim = self.options[i], self.aim
        below, inside, above = aim.shares(option.value)
        low, middle, high = np.quantile(option.value, [0.05, 0.5, 0.95])
        row: dict[str, Any] = {"candidate": option.label, **option.numbers}
        row |= {"p_below": below, "p_in": inside, "p_above": above, "draws": self.worth}
        row |= {"target": middle, "target_q05": low, "target_q95": high}
        row |= {"risk": self.risks[i], "risk_error": self.errors[i], "regret": self.regret[i]}
        for harm, values in zip(self.harms, option.harms, strict=True):
            low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
            name = self.short(harm)
            row |= {name: middle, f"{name}, q05": low, f"{name}, q95": high}
        for limit, p, bound in zip(self.limits, self.chances[i], self.bounds[i], strict=True):
            row |= {self.short(limit): p, f"{self.short(limit)}, upper": bound}
        row |= {"meets": "no" if not self.feasible[i] else "yes" if self.sure[i] else "by the estimate"}
        row |= {"lowest": option is self.lowest, "tied": bool(self.tied[i])}
        if any(o.world.rules for o in self.options):
            row["acts"] = option.acts
        row |= {"prior_p_in": aim.shares(option.prior_value)[1], "prior_risk": self.risk.of(option.prior_loss)}
        return row | {"verdict": option.verdict.headline, "accepted": self.accepted or ""}

    @property
    def text(self) -> str:
        """The answer in plain language: verdict first, then what was found, harm beside it, and what it rests on."""
        from hybridtwin.causal.decision_text import text

        return text(self)

    def plot(self):
        """Chances of every candidate, its risk with Monte Carlo error, and its harm; a matplotlib figure."""
        from hybridtwin.plots import decisions

        return decisions.decision(self)

    def next_reading(self, readings, *, key=None, draws: int = 200):
        """Which further reading would change this decision most; see `ht.next_reading`."""
        from hybridtwin.causal.information import next_reading

        return next_reading(self, readings, key=key, draws=draws)


# ------------------------------------------------------------------------------------------------------- the verb

_EXPECTED = Expected()


def optimize(
    twin: Twin,
    candidates,
    *,
    target,
    risk: AbstractRisk = _EXPECTED,
    limits: Chance | Sequence[Chance] = (),
    also: Outcome | Sequence[Outcome] = (),
    draws: int | None = None,
    accept: str | None = None,
) -> Decision:
    """Every candidate on the posterior of one twin, under a risk measure; returns all of them, not one winner.

    **Arguments:**

    - `candidates`: `ht.candidates(...)`; target -> `ht.Regimen.grid(...)`; label -> a world (`twin.do(...)`), do-arguments or
      rules of care; or a list of worlds or do-arguments.
    - `target`: an aim, `ht.outcomes.within(outcome, low, high, unit, loss=...)`, or an outcome that says which way is better.
    - `risk`: of the loss: `ht.Expected()` (default: with the default loss the probability to miss the range) or `ht.CVaR(0.1)`.
    - `limits`: `ht.Chance(...)` values that a candidate must meet.
    - `also`: further outcomes of harm to show; needed where none is known for the target.
    - `draws`: of each structure; default the twin's own, or as many as the smallest chance needs (4 over it) where there are.
    - `accept`: why an answer under a verdict that is not OK is wanted all the same; shown in every output.

    **Raises:** NotTrustworthy unless every part of the verdict is OK or `accept` gives a reason; DeclarationError,
    UnrelatedTwins, PastHorizon, SolveError.
    """
    aim, limits = as_aim(target), (limits,) if isinstance(limits, Chance) else tuple(limits)
    also = [as_outcome(o) for o in ([also] if isinstance(also, Outcome) else also)]
    _check(twin, risk, limits, accept)
    chosen = gathered(twin, candidates)
    for label, world in chosen.items():
        if world.root != twin.root:
            raise UnrelatedTwins(f"the candidate {label!r} is no world of this twin on this day. Make it with twin.do(...).")
    worlds = [world.world() for world in chosen.values()]
    verdict = twin.verdict.join(_seen(twin, worlds))
    _refuse(verdict, accept)  # before minutes are spent on what may not be told
    return _Question(twin, chosen, aim, risk, limits, also, accept).answer(verdict, draws)


def _check(twin, risk, limits, accept):
    if not isinstance(twin, Twin):
        raise DeclarationError(
            'optimize needs a twin. Write ht.optimize(twin.forecast("24 h"), {"iv": ht.Regimen.grid(...)}, target=...).'
        )
    if not isinstance(risk, AbstractRisk):
        raise DeclarationError(f"risk={risk!r} is no risk measure. Write ht.Expected() or ht.CVaR(0.1).")
    if not all(isinstance(limit, Chance) for limit in limits):
        raise DeclarationError('limits are ht.Chance(outcome, below=(54, "mg/dL"), at_most=0.01) values.')
    if accept is not None and (not isinstance(accept, str) or len(accept.strip()) < 8):
        raise DeclarationError(f"accept={accept!r} is no reason. Write why this risk is taken, in words for the record.")


def _refuse(verdict: Verdict, accept):
    """**Raises:** NotTrustworthy."""
    if verdict.headline != "OK" and accept is None:
        bad = {name: part for name, part in verdict.parts.items() if part.level != "OK"}
        reasons = " | ".join(f"{name} {part.level}: {'; '.join(part.reasons)}" for name, part in bad.items())
        raise NotTrustworthy(
            f"no treatment is shown under this verdict ({reasons}). Mend what it names, leave out the candidates that it "
            'concerns, or take the risk on record: accept="why".'
        )


def _seen(twin, worlds) -> Verdict:
    judge = Judgment()
    for reason in grounds.unseen(twin, worlds):
        judge.say("CAUTION", reason)
    return Verdict({"computed": Part(), "fits": Part(), "informed": Part(), "supported": judge.part})


@dataclasses.dataclass(frozen=True, eq=False)
class _Question:
    """What `optimize` was asked, settled as far as it goes without a simulation."""

    twin: Twin
    chosen: Candidates
    aim: Aim
    risk: AbstractRisk
    limits: tuple[Chance, ...]
    also: list[Outcome]
    accept: str | None

    def answer(self, verdict: Verdict, draws) -> Decision:
        """Simulate, judge, and refuse if need be."""
        twin = dataclasses.replace(self.twin, draws=self._draws(draws))
        labels = [None, *self.chosen]
        worlds = [twin, *(dataclasses.replace(world, draws=twin.draws) for world in self.chosen.values())]
        harms = [*harm_of(self.aim.outcome), *self.also]
        if not harms and not self.limits:
            raise DeclarationError(
                f"no harm is known beside {self.aim.outcome.label}, and no dose is shown without one. Name it with also=."
            )
        wanted = [self.aim.outcome, *harms, *(limit.outcome for limit in self.limits)]
        names = tuple(dict.fromkeys(o.name for o in wanted)) if all(o.name for o in wanted) else None
        asked = self._ask(worlds, harms, names, prior=False)
        before = self._ask(worlds, (), names, prior=True)
        aim, limits, first = asked["aim"], asked["limits"], asked["first"]
        every = [[row["value"], row["loss"], *row["harms"], *row["chances"]] for row in asked["rows"]]
        good = np.isfinite(np.array(every)).all(axis=(0, 1))
        if good.sum() < 20:
            raise SolveError(f"only {int(good.sum())} draws could be solved under every candidate. Leave out extreme ones.")
        worth = grounds.effective(twin) * good.mean()
        outcomes = [aim.outcome, *(limit.outcome for limit in limits)]
        kept = self._kept(twin, outcomes, first)
        verdict = verdict.join(self._judged(good, kept, asked["rows"], before["rows"], aim))
        _refuse(verdict, self.accept)
        options = []
        for label, world, row, prior in zip(labels, worlds, asked["rows"], before["rows"], strict=True):
            fine = np.isfinite(prior["value"]) & np.isfinite(prior["loss"])
            own = twin.verdict.join(_seen(twin, [world.world()])) if label is not None else twin.verdict
            options.append(
                Option(
                    world.label if label is None else label, world, self.chosen.numbers.get(label or "", {}), row["value"][good],
                    row["loss"][good], tuple(h[good] for h in row["harms"]), tuple(c[good] for c in row["chances"]),
                    prior["value"][fine], prior["loss"][fine], row["acts"], own,
                )
            )  # fmt: skip
        smallest = min((limit.at_most for limit in limits), default=1.0)
        few = f"{worth:.0f} draws cannot show a chance as small as {100 * smallest:g} %; draw more, with "
        few += "dataclasses.replace(twin, draws=1000) before .forecast(...)"
        few = [few] if grounds.upper(0.0, worth) > smallest else []
        told = tuple(dict.fromkeys([*first.notes, *grounds.lacking(twin, outcomes, first), *few]))
        facts = (*grounds.assumptions(twin, asked["error"]), "each candidate carried out as it is written")
        harms, accepted = asked["harms"], self.accept.strip() if self.accept and verdict.headline != "OK" else None
        return Decision(
            twin, tuple(options[1:]), options[0], aim, self.risk, limits, harms, verdict, accepted, good, worth,
            self.chosen.left_out, kept, told, facts, aim.outcome.label.removeprefix(self.aim.outcome.label),
        )  # fmt: skip

    def _draws(self, draws) -> int:
        """Draws of each structure: enough to tell the smallest chance, where so many were drawn."""
        if draws is not None:
            return int(draws)
        wanted = max([self.twin.draws, *(int(np.ceil(_RESOLVED / limit.at_most)) for limit in self.limits)])
        return max(self.twin.draws, min(wanted, *(fit.count for fit in self.twin.fits)))

    def _ask(self, worlds, harms, names, prior) -> dict[str, Any]:
        """Outcomes, losses, harms and chances of every world, and of the first world its trajectory."""
        limits = () if prior else self.limits
        rows, first, error = [], None, 0.0
        aim, settled = self.aim, list(harms)
        for part in _portions(worlds, 1 if names is None else len(names), prior):
            for course in part(prior=prior, names=names):
                if first is None:
                    first, aim = course, self.aim.settled(course)
                    settled, limits = [h.settled(course) for h in harms], tuple(c.settled(course) for c in limits)
                error, value = max(error, course.error), aim.of(course)
                acts = float(np.mean(np.sum([act.count for act in course.acts], axis=0))) if course.acts else 0.0
                rows.append(
                    {"value": value, "loss": aim.losses(value), "harms": [h.of(course) for h in settled],
                     "chances": [c.happens(course) for c in limits], "acts": acts}
                )  # fmt: skip
        return {"rows": rows, "first": first, "aim": aim, "limits": limits, "harms": tuple(settled), "error": error}

    def _kept(self, twin, outcomes, trajectory) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for world in self.chosen.values():
            if not world.rules:
                found |= dict.fromkeys(grounds.kept(twin, [twin.world(), world.world()], outcomes, trajectory))
        return tuple(found)

    def _judged(self, good, kept, rows, before, aim) -> Verdict:
        """What this question adds to the verdict of the twin."""
        computed, informed, supported = Judgment(), Judgment(), Judgment()
        failed = 1.0 - good.mean()
        computed.above(failed, 0.01, 0.2, f"{100 * failed:.0f} % of the draws have no answer under every candidate")
        pairs = list(zip(rows, before, strict=True))[1:]
        spread = [np.std(row["value"][good]) / max(float(np.nanstd(prior["value"])), 1e-300) for row, prior in pairs]
        if np.median(spread) > grounds.RESTS_ON_PRIOR:
            informed.say("CAUTION", f"{aim.outcome.label}: the readings narrow this by less than a tenth; it rests on the prior")
        if kept:
            supported.say("CAUTION", grounds.kept_reason(len(kept), grounds.as_it_was(self.twin)))
        return Verdict({"computed": computed.part, "fits": Part(), "informed": informed.part, "supported": supported.part})


def _portions(worlds, outputs, prior):
    """Calls that simulate all worlds in their order, as many at once as fit into a bounded memory.

    With each portion goes one world of every kind, so that all portions run on one program.
    """
    size, spec = _together(worlds, outputs, prior), worlds[0].fits[0].model.spec
    if size >= len(worlds):
        return [functools.partial(simulate_worlds, worlds)]
    kinds = list({layout_of([world.world()], spec): world for world in worlds}.values())

    def some(at, **how):
        return simulate_worlds([*worlds[at : at + size], *kinds], **how)[: len(worlds[at : at + size])]

    return [functools.partial(some, at) for at in range(0, len(worlds), size)]


def _together(worlds, outputs, prior) -> int:
    """How many worlds may be simulated at once."""
    twin = worlds[0]
    spec = twin.fits[0].model.spec
    span = twin.stop - twin.start
    given = {d.time for w in worlds for name in spec.doses for d in w.world().inputs[name].doses}
    times = span / (spec.grid or spec.step or span / 400) + 2 * len(given)
    draws = sum(twin.draws_of(i) for i in range(len(twin.fits))) // (2 if prior else 1)
    return max(1, int(_NUMBERS / (times * max(draws, 1) * outputs)))
