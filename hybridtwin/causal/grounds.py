"""What an answer rests on: decisions kept as lived, ways out of what was seen, assumptions, and how a probability may be told."""

import dataclasses

import numpy as np

from hybridtwin.glycemia import cautions
from hybridtwin.inference.methods import FOCEI
from hybridtwin.measures import Ever, Nadir, Peak, Until
from hybridtwin.outcomes import GLUCOSE
from hybridtwin.units import plain
from hybridtwin.worlds import used

RESTS_ON_PRIOR = 0.9  # sd of the answer over sd of the prior's answer


def kept(twin, worlds, outcomes, trajectory) -> tuple[str, ...]:
    """Decisions after the first difference of these worlds that all of them keep as lived, before the last window ends."""
    spec, clock = twin.fits[0].model.spec, twin.clock
    end = max(o.window(trajectory)[1] if o.name else float(trajectory.time[-1]) for o in outcomes)
    lived = twin.days[0].world
    onsets = [w.onset for w in worlds if w.onset is not None]
    if not onsets:
        return ()
    found, decided = [], [window for w in worlds for window in w.decided]
    for name in spec.doses:
        given = [{(d.time, d.amount) for d in w.inputs[name].doses} for w in worlds]
        for dose in lived.inputs[name].doses:
            if any(name == n and start <= dose.time < stop for n, start, stop in decided):
                continue  # a treatment that was written down gives it, too
            if min(onsets) < dose.time < end and all((dose.time, dose.amount) in g for g in given):
                unknown = dose.latent is not None and dose.amount_sd
                amount = "of unknown amount" if unknown else f"{dose.amount:g} {spec.doses[name].unit}"
                found.append(f"{name} {amount} at {clock.label(dose.time)}")
    return tuple(found)


def as_it_was(twin) -> str:
    """What decisions are that nobody changed: "as lived", or "as planned" on a day that is still to come."""
    return "as lived" if twin.days[0].lived else "as planned"


def kept_reason(count: int, how: str) -> str:
    """Why decisions that were kept make an answer doubtful. `how`: see `as_it_was`."""
    many = count > 1
    return (
        f"{count} later decision{'s were' if many else ' was'} kept {how}, although what {'they' if many else 'it'} "
        "answered to may differ; a rule of care would react to it (respond=ht.Rescue(...))"
    )


def answered(judge, failed, values) -> None:
    """Tell `judge` of draws without an answer: `failed` (draws,) could not be solved, others may be NaN in one of `values` (label
    -> (draws,)), such as a turning point that lies outside its window.
    """
    judge.above(np.mean(failed), 0.01, 0.2, f"{100 * np.mean(failed):.0f} % of the draws could not be solved")
    for label, value in values.items():
        none = np.mean(~np.isfinite(value) & ~failed)
        told = f"{label}: {100 * none:.0f} % of the draws were solved and have no answer; told is that of the rest"
        judge.above(none, 0.01, 0.2, told)


def unseen(twin, worlds, which: int = 0) -> list[str]:
    """Ways in which these worlds of one structure leave what the record has seen: doses, signals, body and horizon."""
    spec, lived, found = twin.fits[which].model.spec, twin.fits[which].problem.lived, []
    known = {name for name in spec.doses if any(d.amount for d in lived.inputs[name].doses)}
    given = {name for name in spec.doses if any(d.amount for w in worlds for d in w.inputs[name].doses)}
    found += [f"the record holds no {name} to learn from" for name in spec.doses if name in given - known]
    for name, unit, (low, high), (least, most) in doses(twin, worlds, which):
        if high > 1.5 * most or low < least / 1.5:
            held = f"{plain(least, 6)} to {plain(most, 6)}"
            found.append(f"{name} from {plain(low, 6)} to {plain(high, 6)} {unit}; the record holds {held}")
    for name, field in {**spec.signals, **spec.covariates}.items():
        low, high = _range(lived.inputs[name], lived)
        least, most = np.transpose([_range(w.inputs[name], w) for w in worlds])
        slack = 0.5 * max(abs(low), abs(high))
        if min(least) < low - slack or max(most) > high + slack:
            given = f"{name} from {plain(min(least))} to {plain(max(most))}" + (f" {field.unit}" if field.unit != "1" else "")
            found.append(f"{given}; the record holds {plain(low)} to {plain(high)}")
    for path in dict.fromkeys(p for w in worlds for p in [*(o.path for o in w.overrides), *(s.state for s in w.sets)]):
        found.append(f"{path} is set, which no record has seen")
    for state in dict.fromkeys(e.state for w in worlds for e in w.edits):
        found.append(f"{state} has another equation, which no record has seen")
    for state in dict.fromkeys(c.state for w in worlds for c in w.clamps):
        found.append(f"{state} is held, which no record has seen")
    if spec.horizon is not None and worlds[0].stop - worlds[0].start > spec.horizon * (1 + 1e-9):
        found.append(f"the day is longer than {spec.name} was declared for")
    return found


def doses(twin, worlds, which: int = 0) -> list[tuple[str, str, tuple[float, float], tuple[float, float]]]:
    """Of each dose of these worlds that the record holds, too: (name, unit, least and largest here, least and largest there)."""
    lived, found = twin.fits[which].problem.lived, []
    for name, field in twin.fits[which].model.spec.doses.items():
        known = [d.amount for d in lived.inputs[name].doses if d.amount]
        given = [d.amount for w in worlds for d in w.inputs[name].doses if d.amount]
        if known and given:
            found.append((name, field.unit, (min(given), max(given)), (min(known), max(known))))
    return found


def _range(signal, world) -> tuple[float, float]:
    """Least and largest value of a signal over the day of a world."""
    at = np.array([world.start, *(t for t in signal.knots if world.start < t < world.stop), world.stop])
    inner = (at[1:] + at[:-1]) / 2
    values = np.concatenate([np.asarray(signal(at[:-1])), np.asarray(signal(inner))])
    return float(values.min()), float(values.max())


def different(one, two, spec) -> list[str]:
    """Nodes of the graph that two worlds set differently."""
    found = [f"u.{n}" for n in spec.doses if one.inputs[n].doses != two.inputs[n].doses]
    for n in (*spec.signals, *spec.covariates):
        mine, other = one.inputs[n], two.inputs[n]
        same = mine.starts == other.starts and np.array_equal(mine.left, other.left) and np.array_equal(mine.right, other.right)
        found += [] if same else [f"u.{n}"]
    found += [o.path for o in (*one.overrides, *two.overrides) if (o in one.overrides) != (o in two.overrides)]
    parts = [(c.state, c in one.clamps, c in two.clamps) for c in (*one.clamps, *two.clamps)]
    parts += [(s.state, s in one.sets, s in two.sets) for s in (*one.sets, *two.sets)]
    parts += [(e.state, e in one.edits, e in two.edits) for e in (*one.edits, *two.edits)]
    found += [f"x.{state}" for state, here, there in parts if here != there]
    return list(dict.fromkeys(found))


def lacking(twin, outcomes, trajectory) -> list[str]:
    """What glycemic indices among the outcomes would need of the days and readings."""
    lived = twin.days[0].lived
    sensors = {name: sensor for name, sensor in twin.fits[0].model.sensors.items() if not sensor.decides}
    names = [name for name, sensor in sensors.items() if sensor.of in GLUCOSE] if lived else []
    return cautions(outcomes, trajectory, twin.record, names)


def never(outcomes, trajectories) -> list[str]:
    """Of times until something happens: how often it does not, and what stands for it then."""
    found = []
    for outcome in outcomes:
        m = outcome.measure
        if not isinstance(m, Until):
            continue
        event = dataclasses.replace(outcome, measure=Ever(m.level, m.below, m.unit))
        shares = [float(np.nanmean(event.of(t) == 0)) for t in trajectories]
        if any(shares):
            of = [f"in {100 * p:.0f} % of the draws of '{t.label}'" for p, t in zip(shares, trajectories, strict=True)]
            told = " and ".join(of)
            found.append(f"{outcome.label}: it never happens in this window {told}; the window's length stands for it there")
    return found


def at_the_end(outcomes, trajectories) -> list[str]:
    """Of highest and lowest values: in how many draws they stand at the end of the window, from where the curve may go on."""
    found = []
    for outcome in outcomes:
        if not isinstance(outcome.measure, Peak | Nadir):
            continue
        sign, what = (1.0, "highest") if isinstance(outcome.measure, Peak) else (-1.0, "lowest")
        last = dataclasses.replace(outcome, measure=lambda p, s=sign: (np.argmax(s * p.value, axis=1) == len(p.time) - 1) * 1.0)
        for t in trajectories:
            share = float(np.nanmean(last.of(t)))
            if share > 0.1:
                told = f"in {100 * share:.0f} % of the draws of '{t.label}' the {what} value stands at the end of the window"
                found.append(f"{outcome.label}: {told}; what comes after it is not counted")
    return found


def assumptions(twin, error: float) -> tuple[str, ...]:
    """What every answer of a twin takes for granted; `error`: of the integration, relative to each output."""
    names = " and ".join(f.model.name for f in twin.fits)
    found = [
        f"the structure of {names}" + (", pooled with equal weight" if len(twin.fits) > 1 else ""),
        "the priors named in the report",
        "the inputs as recorded, and no others",
        "the same body parameters and the same uncertain events in both worlds",
    ]
    if isinstance(twin.method, FOCEI):
        found.append("the population held at its estimate, whose own uncertainty is in no interval")
    if any(f.model.spec.noise for f in twin.fits):
        hers = twin.days[0].lived and all(f.model.driven for f in twin.fits if f.model.spec.noise)
        drawn = "the same drawn path of the body's own noise in both worlds"
        found.append("the path that the body's own noise took that day" if hers else drawn)
    policies = {name: sensor for f in twin.fits for name, sensor in f.model.sensors.items() if sensor.decides}
    found += [f"recorded {s.decides} was decided as the policy {name!r} says" for name, s in policies.items()]
    if twin.temper != 1:
        found.append(f"a likelihood tempered by {twin.temper:g}, because no model is right")
    if not twin.days[0].lived:
        found.append("a new day: a person with this body, not a day that was lived")
    return (*found, f"an integration error of at most {max(error, 1e-12):.0e} of each output")


def effective(twin) -> float:
    """How many independent draws what a twin simulates is worth, all structures together."""
    total = 0.0
    for i, fit in enumerate(twin.fits):
        count = len(used(fit, twin.days[i], twin.draws_of(i)))
        known = [float(np.min(fit.stats[name])) for name in ("ess_bulk", "ess_tail", "ess") if name in fit.stats]
        total += max(min([float(count), *(k for k in known if np.isfinite(k))]), 1.0)
    return total


def better(effect, way, same: float = 0.0) -> float:
    """Share of an effect's draws (n,) that are better than `same` (lower, where neither way is better); ties count half."""
    apart = (1.0 if way == "higher" else -1.0) * (effect[np.isfinite(effect)] - same)
    return float(np.mean(apart > 0) + 0.5 * np.mean(apart == 0)) if apart.size else float("nan")


def apart(a, b, least: float = 0.0) -> np.ndarray:
    """A - b, draw by draw, and zero where no more than rounding lies between (1e-11 of the largest value, which is at least
    `least`): equal worlds that were summed in another order are equal, and neither is better.
    """
    size = max(float(np.max(np.abs(x[np.isfinite(x)]), initial=least)) for x in (a, b))
    difference = a - b
    return np.where(np.abs(difference) <= 1e-11 * size, 0.0, difference)


def alike(one, two) -> bool:
    """Are two samples one distribution, as far as an answer goes? Their distribution functions lie nowhere apart by more than
    those of two normals a quarter of a standard deviation apart (0.1), beside what chance does: medians alone say nothing of an
    effect that is zero in most draws.
    """
    one, two = (np.sort(x[np.isfinite(x)]) for x in (one, two))
    if not (len(one) and len(two)):
        return False
    at = np.concatenate([one, two])
    gap = np.abs(np.searchsorted(one, at, "right") / len(one) - np.searchsorted(two, at, "right") / len(two)).max()
    return bool(gap < 0.1 + 0.83 * np.sqrt(1 / len(one) + 1 / len(two)))  # 0.83: the median of Kolmogorov's law


def edge(n: float) -> float:
    """How near to 0 or 1 a probability may be told from n draws: what none of them shows may be 3 in n (95 %)."""
    return min(max(0.01, 3.0 / max(n, 1.0)), 0.5)


def bounded(p: float, n: float) -> float:
    """A probability for a table, no nearer to 0 or 1 than n draws can support."""
    return float(np.clip(p, edge(n), 1.0 - edge(n)))


def chance(p: float, n: float) -> str:
    """A probability for a reader, bounded by what n draws can support: "0.42", "> 0.99", "< 0.01"."""
    if not np.isfinite(p):
        return "unknown"
    least = edge(n)
    return f"> {1 - least:.2f}" if p > 1 - least else f"< {least:.2f}" if p < least else f"{p:.2f}"


def step(unit: str) -> str:
    """The unit of a difference, to stand after its number: one of percents is one of points."""
    return {"": "", "1": "", "%": " points"}.get(unit, f" {unit}")


def either_way(effect, n: float, same: float = 0.0) -> str:
    """The chances of an effect's draws (m,), worth n, to lie on either side of `same`, for a reader: "P(lower) = 0.94", and where
    some draws differ in nothing, "P(higher) = 0.12, else the same".
    """
    d = effect[np.isfinite(effect)] - same
    if not d.size:
        return "unknown"
    shares = {"higher": float(np.mean(d > 0)), "lower": float(np.mean(d < 0))}
    ways = sorted((way for way in shares if shares[way]), key=lambda way: -shares[way])
    tied = float(np.mean(d == 0)) >= 0.01
    if not ways:
        return "no difference"
    said = []
    for way in ways[: 2 if tied else 1]:
        told = chance(shares[way], n)
        said.append(f"P({way}) {told if told[0] in '<>' else f'= {told}'}")
    return ", ".join(said) + ", else the same" * tied


def upper(count: float, n: float, level: float = 0.95) -> float:
    """Upper confidence bound of a probability, `count` events in n draws: Clopper and Pearson 1934,
    doi:10.1093/biomet/26.4.404.
    """
    from scipy.special import betaincinv

    return 1.0 if count >= n else float(betaincinv(count + 1.0, n - count, level))
