"""A decision in plain language. No sentence of it tells anybody what to do."""

import numpy as np

from hybridtwin.causal import grounds
from hybridtwin.units import plain

_SHOWN = 5
_SURE = ("With these draws", "Told apart:", "Regret", "Prior alone")  # how lines begin that tell how sure an answer is


def text(found) -> str:
    """See `Decision.text`."""
    lines = [f"{len(found)} candidates for {found.twin.id}, compared with: {found.reference.label}."]
    lines += _verdict(found)
    lines.append(f"Target: {found.aim}. Loss: {found.aim.loss_text}. Risk: {found.risk}.")
    lines += [f"Limit: {found.short(limit)} at most {100 * limit.at_most:g} %." for limit in found.limits]
    lines += _answer(found)
    if found.left_out:
        more = f"; and {len(found.left_out) - 3} more" if len(found.left_out) > 3 else ""
        lines.append(f"Left out, not deliverable: {'; '.join(found.left_out[:3])}{more}.")
    lines.append("Held fixed: " + "; ".join(held(found)) + ".")
    lines += [f"Note: {note}." for note in found.notes]
    lines.append(f"Monte Carlo: {int(found.good.sum())} draws, worth {found.worth:.0f} independent ones.")
    lines.append("Rests on: " + "; ".join(found.assumptions) + ".")
    lines.append("Numbers for a treating clinician to weigh; nothing here is an order. Research use; not a medical device.")
    return "\n".join(lines)


def _verdict(found):
    taken = f", taken on record: {found.accepted}" if found.accepted else ""
    lines = [f"Verdict: {found.verdict.headline}{taken}."]
    return lines + [f"  {name}: {reason}." for name, part in found.verdict.parts.items() for reason in part.reasons]


def _answer(found):
    count, here = int(found.feasible.sum()), found.reference
    without = (f"{here.label[:1].upper()}{here.label[1:]}: {_shares(found, here)}, {found.risk} "
               f"{plain(found.risk.of(here.loss))}{_harm(found, here)}.")  # fmt: skip
    if found.limits and not count:
        none = f"None of the {len(found)} candidates meets every limit. Nearest to them:"
        return [none, f"  {_line(found, nearest(found))}", without]
    unsure = int((found.feasible & ~found.sure).sum())
    by_estimate = f" ({unsure} of them by the estimate alone)" * bool(unsure)
    meet = f"{count} of {len(found)} candidates meet{'s' if count == 1 else ''} every limit{by_estimate}."
    lines = [meet] if found.limits else []
    lines.append(f"Lowest {found.risk}" + (" among them" if found.limits else "") + ":")
    lines += [f"  {_line(found, int(i))}" for i in found.order[:_SHOWN]]
    lines += _distinct(found)
    lowest = int(found.order[0])
    lines.append(
        f"Regret of {found.options[lowest].label}: {plain(found.regret[lowest])} in expected loss, what whoever knew this body "
        "exactly and chose for it would save."
    )
    lines.append(without)
    prior = found.options[int(found.prior_order[0])].label
    same = prior == found.options[lowest].label
    lines.append(
        f"Prior alone (a person like this one, limits not counted) has its lowest {found.risk} at: {prior}"
        + (". The same as with the readings." if same else ".")
    )
    return lines


def _distinct(found):
    lowest = int(found.order[0])
    ties = [found.options[i].label for i in np.flatnonzero(found.tied) if i != lowest]
    if ties:
        shown = "; ".join(ties[:6]) + (f"; and {len(ties) - 6} more" if len(ties) > 6 else "")
        return [f"With these draws {found.options[lowest].label} is not told from: {shown}."]
    if len(found.order) > 1:
        second = int(found.order[1])
        gap = found.risks[second] - found.risks[lowest]
        names = f"{found.options[lowest].label} and the next, {found.options[second].label}"
        return [f"Told apart: {names}, by {plain(gap)} in {found.risk}, more than 2 Monte Carlo errors of the paired difference."]
    return []


def day(found) -> str:
    """The day that the candidates are about: "06:00 to 12:00"."""
    clock, twin = found.twin.clock, found.twin
    return f"{clock.label(twin.start)} to {clock.label(twin.stop)}"


def findings(found) -> list[str]:
    """What was found: how many meet the limits, the lowest, and what stands without any of them."""
    lines = [line.strip() for line in _answer(found) if not line.startswith(_SURE)]
    if found.order.size:  # the lowest alone; the others stand in the table
        lead, first = lines[: 1 + bool(found.limits)], lines[1 + bool(found.limits)]
        lines = [*lead[:-1], f"{lead[-1]} {first}", lines[-1]]
    lines.append(f"Candidates are ordered by {found.risk}; the loss is {found.aim.loss_text}.")
    return lines


def sureness(found) -> list[str]:
    """How sure it is: ties, chances at their limit, draws, what full knowledge would save, and the prior's own answer."""
    lines = [line for line in _answer(found) if line.startswith(_SURE)]
    if found.order.size and not found.sure[found.order[0]]:
        lines.append(f"Whether {found.lowest.label} meets every limit these draws cannot tell for sure.")
    lines.append(f"{int(found.good.sum())} draws of the body, worth {found.worth:.0f} independent ones.")
    worlds = [option.world.world() for option in found.options]
    for name, unit, (low, high), (least, most) in grounds.doses(found.twin, worlds):
        if low < least or high > most:
            held = f"the record holds {plain(least)} to {plain(most)}"
            lines.append(f"{name}: candidates have {plain(low)} to {plain(high)} {unit}, {held}; the rest is the model's word.")
    if found.twin.days[0].lived:
        lines.append("The day was lived and its readings are known, later ones, too: this is hindsight, and no forecast.")
    return [*lines, "All of this is inside the model; that the model may be wrong is what the verdict speaks of."]


def harm(found) -> list[str]:
    """Harm of the lowest (or of the one nearest to the limits) beside that without any candidate."""
    i = int(found.order[0]) if found.order.size else nearest(found)
    here, lines = found.options[i], []
    for name, values, other in zip(found.harms, here.harms, found.reference.harms, strict=True):
        told, before = (_spread(v, name.unit) for v in (values, other))
        lines.append(f"{found.short(name)}: {told} under {here.label}; {before} {found.reference.label}.")
    for limit, p, bound in zip(found.limits, found.chances[i], found.bounds[i], strict=True):
        lines.append(f"{found.short(limit)}: {percent(p)} under {here.label}, up to {percent(bound)} by the draws; "
                     f"the limit asked for is {100 * limit.at_most:g} %.")  # fmt: skip
    return lines


def held(found) -> list[str]:
    """What no candidate changes: inputs of the day, rules that all share, and decisions that were kept as lived."""
    clock, unit = found.twin.clock, {n: f.unit for n, f in found.twin.fits[0].model.spec.doses.items()}
    base, worlds = found.reference.world.world(), [option.world.world() for option in found.options]
    lines = []
    for name, given in base.inputs.items():
        if name in unit:
            common = set.intersection(*({(d.time, d.amount) for d in world.inputs[name].doses} for world in worlds))
            inside = [d for d in given.doses if (d.time, d.amount) in common and found.twin.start <= d.time <= found.twin.stop]
            told = [f"{d.amount:g} {unit[name]} at {clock.label(d.time)}" + (" (uncertain)" if d.latent is not None else "")
                    for d in inside[:4]]  # fmt: skip
            lines += [f"{name}: {', '.join(told)}" + (f" and {len(inside) - 4} more" if len(inside) > 4 else "")] if told else []
        elif all(world.inputs[name] is given or world.inputs[name] == given for world in worlds):
            lines.append(f"{name} as in the day itself")
    shared = [str(rule) for rule in worlds[0].rules if all(rule in world.rules for world in worlds)]
    lines += [f"care in every candidate: {rule}" for rule in shared]
    lines += [f"kept {grounds.as_it_was(found.twin)}: {each}" for each in found.kept]
    return lines or ["no dose or signal of the day: candidates differ in all of them"]


def never(found) -> list[str]:
    """What must not be done with a decision."""
    tied, bounded = int(found.tied.sum()) > 1, bool(found.limits)
    return [
        "to carry a line of the table out as an order: it is for a treating clinician to weigh who knows the person;",
        f"to use it for another day, plan or person: it holds for {day(found)} with what was held fixed, and no longer once a "
        "meal, a dose or a reading turns out otherwise;",
        "to use it for what stands between or beyond the candidates: nothing else was looked at;",
        *(["to rank those that the draws do not tell apart;"] if tied else []),
        *(["to take a candidate that meets a limit by the estimate, or not at all, for one that keeps it;"] if bounded else []),
        "to quote it without the harm that stands beside it.",
    ]


def bounded(p: float, n: float) -> str:
    """A probability in percent that stands alone, told no finer than n draws allow: "> 99 %"."""
    told = grounds.chance(p, n)
    return f"{told[0]} {100 * float(told[2:]):.0f} %" if told[0] in "<>" else percent(p)


def percent(p: float) -> str:
    """An estimate in percent that has its bound beside it, two digits."""
    return f"{100 * p:.0f} %" if 100 * p >= 9.95 else f"{plain(100 * p, 2)} %"


def nearest(found) -> int:
    """The candidate nearest to meeting every limit."""
    return int(np.argmin(np.max(found.chances / np.array([limit.at_most for limit in found.limits]), axis=1)))


def _spread(values, unit) -> str:
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    return f"{plain(middle)}{f' {unit}' if unit not in (None, '1') else ''} (90 % {plain(low)} to {plain(high)})"


def _shares(found, option) -> str:
    below, inside, above = found.aim.shares(option.value)
    value = _spread(option.value, found.aim.unit)
    if not found.aim.ranged:
        return value
    n = found.worth
    return f"{value}, P(in) {grounds.chance(inside, n)}, P(below) {grounds.chance(below, n)}, P(above) {grounds.chance(above, n)}"


def _harm(found, option) -> str:
    told = []
    for harm, values in zip(found.harms, option.harms, strict=True):
        told.append(f"{found.short(harm)} {_spread(values, harm.unit)}")
    return "; watched for harm: " + "; ".join(told) if told else ""


def _limits(found, i) -> str:
    told = [
        f"{found.short(limit)} {percent(p)}, up to {percent(bound)} by the draws"
        for limit, p, bound in zip(found.limits, found.chances[i], found.bounds[i], strict=True)
    ]
    return "; ".join(told)


def _line(found, i) -> str:
    option = found.options[i]
    risk = f"{found.risk} {plain(found.risks[i])} (Monte Carlo error {plain(found.errors[i], 1)})"
    limits = f"; {_limits(found, i)}" if found.limits else ""
    unsure = "" if found.sure[i] or not found.feasible[i] else "; whether it meets every limit these draws cannot tell for sure"
    acts = f"; rules act {plain(option.acts, 2)} times on average" if option.world.rules else ""
    return f"{option.label}: {_shares(found, option)}, {risk}{_harm(found, option)}{limits}{unsure}{acts}."
