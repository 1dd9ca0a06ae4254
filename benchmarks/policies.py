"""A rule of insulin at meals chosen on a twin and carried out in the simulator, whose equations the twin lacks, on new days.

Bodies are drawn from the adults of the UVA/Padova simulator (`UVAPadova`, 13 states); with `--published` they are its 21
patients of the shared data, with the ratio and factor that come with them. Each lives three days of usual care and is then
asked about new days. On all of them carbohydrates are counted wrong by 30 % (sd of the log; typical counts have a cv of 28
to 45 %: Shapira 2010, doi:10.1177/193229681000400418), sensitivity to insulin differs from day to day (sd .2 of the log),
and one bolus in ten is missed.

Usual care: 1 U per 500/TDD g (TDD: twice the basal insulin) with the meal, corrected by 1 U per 1800/TDD mg/dL over 120
where glucose is above 150. Everybody takes 15 g below 70 mg/dL, looked at every 15 minutes. Chosen: that ratio times .6 to
1.2, with the meal or 20 minutes before it, by the twin (`T1DMinimal` with a sensitivity a day, tempered by 3; counts
uncertain) on one day that nobody lived: most time in 70 to 180 mg/dL under P(more than 1 % of the day below 54) <= 5 %.
Usual care stays where nothing meets that, or the twin is DO NOT USE. Rules of care read glucose under the skin.

Claims: time in range and below 54 of chosen less usual care (percent points) with 95 % intervals over bodies (bootstrap)
and the least and most of one seed, the margin of .5 points and whether the upper end lies inside it, what the twin expected
of the gain; and the human anchors: usual care 20 minutes before the meal less at the meal, mean and peak of the 4 hours
after it (Cobry 2010, doi:10.1089/dia.2009.0112, n = 23: area 159.5 (sd 58.9) against 187.0 (43.1) mg/dL, a lower peak), and
mean glucose of chosen less usual care (Rossetti 2012, Diabetes Technol Ther 14:1043, PMC3482847, n = 12: a bolus by an
individual model left the area of 5 hours alike, 585 (127) against 689 (181) mg/dL h after 40 g, 752 against 760 after 100 g).

    python -m benchmarks.policies [--people 10] [--days 7] [--seeds 5] [--published] [--json]
"""

import csv
import dataclasses
import time

import jax
import numpy as np

import hybridtwin as ht
from benchmarks import measure
from benchmarks.counterfactuals import folder
from benchmarks.decisions import WEIGHT, body_of
from hybridtwin.engine import double
from hybridtwin.interventions import Do
from hybridtwin.physiology import T1DMinimal, UVAPadova
from hybridtwin.sensors import Seen

DAY, LIVED, MARGIN = 1440.0, 3, 0.5  # minutes; days; percent points of time below 54 mg/dL
USUAL, LEADS, RATIOS = "1 x, 0 min", ("0 min", "20 min"), (0.6, 0.7, 0.8, 0.9, 1.0, 1.2)
COUNT_SD, SENSITIVITY_SD, MISSED = 0.3, 0.2, 0.1
TIMES, SIZES = (420.0, 765.0, 1170.0), ((30, 70), (45, 90), (60, 100))  # of an adult; g
WINDOW = (360.0, 1800.0)  # min of a new day that are judged: 06:00 to 06:00
TIR = ht.outcomes.time_in_range("G", 70, 180, "mg/dL", *WINDOW)
VERY_LOW = ht.outcomes.time_below("G", 54, "mg/dL", *WINDOW)
OUTCOMES = {"tir": TIR, "below_54": VERY_LOW, "below_70": ht.outcomes.time_below("G", 70, "mg/dL", *WINDOW),
            "mean": ht.outcomes.mean("G", *WINDOW)}  # fmt: skip


class Body:
    """A body of the simulator and its usual care: basal [IU/h], ratio [g/IU], factor [mg/dL/IU], size of meals."""

    def __init__(self, name, system, weight, basal, ratio, factor, size=1.0):
        self.name, self.system, self.weight, self.basal = name, system, weight, basal
        self.ratio, self.factor, self.size = ratio, factor, size

    def on_a_day(self, sensitivity):
        """The body with its sensitivity to insulin of a day; where it rests does not move."""
        return {"Vmx": float(self.system.Vmx) * sensitivity, "kp3": float(self.system.kp3) * sensitivity}

    def rule(self, times=1.0, before="0 min"):
        """Insulin for meals, `times` the usual ratio."""
        return ht.Ratio("meal", per=(round(times * self.ratio, 1), "g"), give=(1, "[IU]"), before=before, step=0.1)

    def correction(self, reads):
        """Insulin for a high reading, with each bolus."""
        per = (round(self.factor), "mg/dL")
        return ht.Correct(reads, "bolus", above=(150, "mg/dL"), to=120, per=per, give=(1, "[IU]"), step=0.1)


def rescue(reads):
    """What everybody does about a low."""
    return ht.Rescue(reads, 70, "mg/dL", "meal", 15, "g", every="15 min", wait="30 min")


def drawn(rng, count, name):
    """Bodies from the priors of the simulator, with the rules of 500 and 1800; `name` tells those of several seeds apart."""
    for i in range(count):
        system, basal = body_of(rng)
        total = 48 * basal
        yield Body(f"drawn{name}{i}", system, WEIGHT, basal, 500 / total, 1800 / total)


def published():
    """The simulator's own patients, with their own ratio and factor."""
    spec = UVAPadova.spec
    names = [*spec.parameters, *spec.constants]
    with open(folder() / "patient_parameters.csv") as file:
        for row in csv.DictReader(file):
            weight, size = float(row["BW"]), 0.5 if row["Name"].startswith("child") else 1.0
            basal = round(60 * float(row["u2ss"]) * weight / 6000, 3)
            system = UVAPadova(**{p: float(row[p]) for p in names})
            yield Body(row["Name"], system, weight, basal, float(row["CR"]), float(row["CF"]), size)


def meals_of(rng, size, days):
    """Each day's meals: [(time within it, g eaten, g counted, bolus missed?)]."""
    return [[(at + rng.uniform(-30, 30), size * (g := rng.uniform(*s)), round(size * g * np.exp(COUNT_SD * rng.normal())),
              rng.uniform() < MISSED) for at, s in zip(TIMES, SIZES, strict=True)] for _ in range(days)]  # fmt: skip


def record(body, meals, boluses, stop, readings=None, known=None):
    """A record of these inputs: (time, amount) each. `known`: carbohydrate out of a packet; the meals are then only counted."""
    eaten, sweets = (ht.Regimen.bolus([g for _, g in given], "g", at=[t for t, _ in given]) for given in (meals, known or ()))
    if known is not None:
        eaten = dataclasses.replace(eaten, doses=tuple(dataclasses.replace(d, amount_sd=COUNT_SD) for d in eaten.doses)) + sweets
    bolus = ht.Regimen.bolus([u for _, u in boluses], "[IU]", at=[t for t, _ in boluses])
    return ht.Person.of(
        body.name, time="min", start=0.0, stop=stop, readings=readings or {}, doses={"meal": eaten, "bolus": bolus},
        signals={"basal": ht.Signal.constant(body.basal, "[IU]/h")}, covariates={"weight": (body.weight, "kg")},
    )  # fmt: skip


def boluses_of(rule, meals):
    """What a rule gives for counted meals (time, eaten, counted, missed), but for those that are missed."""
    early = float(rule.before.split()[0])
    return [(t - early, rule.amount(counted)) for t, _, counted, missed in meals if not missed]


def lived(body, rng):
    """Three days of usual care in the simulator, and what the twin is told of them."""
    days, sensitivity = meals_of(rng, body.size, LIVED), np.exp(SENSITIVITY_SD * rng.normal(size=LIVED))
    meals = [(k * DAY + t, *rest) for k, day in enumerate(days) for t, *rest in day]
    boluses, stop = boluses_of(body.rule(), meals), LIVED * DAY
    change = [Do(body.on_a_day(s), k * DAY, (k + 1) * DAY) for k, s in enumerate(sensitivity)]
    eaten, times = record(body, [(t, g) for t, g, *_ in meals], boluses, stop), np.arange(0.0, stop + 1, 15.0)
    course = ht.simulate(body.system, eaten, at=times, do=[*change, body.correction("G_isf"), rescue("G_isf")])
    more = {name: list(zip(rows["time"], rows["amount"], strict=True)) for name, rows in course.acted().groupby("name")}
    sensor, n = ht.sensors.CGM("G_isf", white=2.0, drift=7.0, tau=45.0), len(times)
    with double():
        seen = Seen(np.zeros(n), times, np.ones(n, bool), np.zeros(n, np.int32), np.zeros(n, np.int32))
        values = np.asarray(sensor.sample(jax.random.key(int(rng.integers(2**31))), course["G_isf"][0], seen))
    readings = {"cgm": (times, np.clip(values, 40.0, 400.0), "mg/dL")}
    given = sorted(boluses + more.get("bolus", []))
    return record(body, [(t, counted) for t, _, counted, _ in meals], given, stop, readings, known=more.get("meal", []))


def chosen(body, twin, day):
    """(rule, decision or None, label) of the policy for a body."""
    if twin.verdict.headline == "DO NOT USE":
        return body.rule(), None, USUAL
    plan = twin.on(day, start="steady").do(respond=[body.correction("G_isf"), rescue("G_isf")])
    rules = {f"{times:g} x, {before}": body.rule(times, before) for before in LEADS for times in RATIOS}
    found = ht.optimize(plan, ht.candidates(plan, bolus=rules), target=TIR, draws=100,
                        limits=ht.Chance(VERY_LOW, above=(1.0, "%"), at_most=0.05),
                        accept="bodies of a simulator, nobody is treated")  # fmt: skip
    label = USUAL if found.lowest is None else found.lowest.label
    return rules[label], found, label


def carried_out(body, rule, days, sensitivity):
    """Outcomes of each new day in the simulator under a policy: word -> (days,)."""
    found = {word: [] for word in (*OUTCOMES, "after", "peak", "rescue")}
    care = [body.correction("G_isf"), rescue("G_isf")]
    for meals, factor in zip(days, sensitivity, strict=True):
        person = record(body, [(t, g) for t, g, *_ in meals], boluses_of(rule, meals), WINDOW[1])
        system = body.system.with_values(body.on_a_day(factor))
        course = ht.simulate(system, person, at=np.arange(0.0, WINDOW[1] + 1, 5.0), do=care)
        for word, outcome in OUTCOMES.items():
            found[word].append(float(outcome.of(course)[0]))
        after = [course["G"][0][(course.time >= t) & (course.time <= t + 240)] for t, *_, missed in meals if not missed]
        found["after"].append(np.mean([a.mean() for a in after]) if after else np.nan)
        found["peak"].append(np.mean([a.max() for a in after]) if after else np.nan)
        found["rescue"].append(float(course.acts[-1].total(-np.inf, np.inf)[0]))
    return {word: np.array(values) for word, values in found.items()}


def interval(values, rng):
    """Mean over bodies with a bootstrap interval of 95 %: (mean, low, high)."""
    values = np.asarray(values)
    again = values[rng.integers(len(values), size=(4000, len(values)))].mean(axis=1)
    return float(values.mean()), *(float(q) for q in np.quantile(again, [0.025, 0.975]))


def judged(job):
    """Choose for one body and carry out: a row of numbers."""
    body, twin, plan, days, sensitivity = job
    started = time.perf_counter()
    rule, found, label = chosen(body, twin, plan)
    seconds = time.perf_counter() - started
    arms = {"usual": body.rule(), "early": body.rule(before="20 min"), "chosen": rule}
    came = {arm: carried_out(body, rule, days, sensitivity) for arm, rule in arms.items()}
    row = {"person": body.name, "verdict": twin.verdict.headline, "policy": label,
           "feasible": -1 if found is None else int(found.feasible.sum())}  # fmt: skip
    row["twin_gain"] = 0.0 if found is None else float(np.mean(found[label].value) - np.mean(found[USUAL].value))
    row |= {f"{arm}_{word}": float(np.nanmean(v)) for arm, words in came.items() for word, v in words.items()}
    return row | {"choosing": seconds, "all": time.perf_counter() - started}


def claims_of(rows, rng):
    """The flat mapping of claims; a body that lives in several seeds counts once, by its mean over them."""
    claims, words = {}, ("tir", "below_54", "below_70", "mean", "after", "peak", "rescue")
    names, seeds = ({row[word]: None for row in rows} for word in ("person", "seed"))
    for arm in ("chosen", "early"):
        for word in words:
            gains = [(row["person"], row["seed"], row[f"{arm}_{word}"] - row[f"usual_{word}"]) for row in rows]
            mean, low, high = interval([np.mean([g for p, _, g in gains if p == name]) for name in names], rng)
            claims |= {f"{arm}_{word}_gain": mean, f"{arm}_{word}_gain_low": low, f"{arm}_{word}_gain_high": high}
            each = [np.mean([g for _, s, g in gains if s == seed]) for seed in seeds]
            claims |= {f"{arm}_{word}_gain_least": float(min(each)), f"{arm}_{word}_gain_most": float(max(each))}
    claims |= {f"{arm}_{word}": float(np.mean([row[f"{arm}_{word}"] for row in rows]))
               for arm in ("usual", "early", "chosen") for word in words}  # fmt: skip
    claims |= {"margin_54": MARGIN, "non_inferior_54": float(claims["chosen_below_54_gain_high"] <= MARGIN)}
    claims["twin_tir_gain"] = float(np.mean([row["twin_gain"] for row in rows]))
    claims["changed"] = float(sum(row["policy"] != USUAL for row in rows))
    claims["worse"] = float(sum(row["chosen_tir"] < row["usual_tir"] - 1 for row in rows))
    return claims | {"people": float(len(names)), "seeds": float(len(seeds)), "choices": float(len(rows))}


def one_seed(given, seed):
    """Rows of all bodies of a seed: which bodies (if drawn), what they live, and what they are asked about."""
    rng, started = np.random.default_rng(seed), time.perf_counter()
    bodies = list(published())[: given.people] if given.published else list(drawn(rng, given.people, f"{seed}-"))
    people = [lived(body, rng) for body in bodies]
    plans = [record(b, [(t, round(b.size * np.mean(s))) for t, s in zip(TIMES, SIZES, strict=True)], [], WINDOW[1], known=[])
             for b in bodies]  # fmt: skip
    model = ht.Model(T1DMinimal(), varies={"SI": ("day", SENSITIVITY_SD)}, cgm=ht.sensors.CGM("G_isf"))
    twins = ht.personalize(model, ht.Cohort(people), ht.Laplace(draws=100, starts=1), key=0, temper=3, progress=False)
    print(f"seed {seed}: personalized after {time.perf_counter() - started:.0f} s", flush=True)
    jobs = [(b, twins[b.name], plan, meals_of(rng, b.size, given.days), np.exp(SENSITIVITY_SD * rng.normal(size=given.days)))
            for b, plan in zip(bodies, plans, strict=True)]  # fmt: skip
    for job in jobs:
        row = {"seed": seed} | judged(job)
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
        yield row


def main():
    """See the module."""
    parser = measure.arguments(__doc__)
    parser.add_argument("--people", type=int, default=10)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--seed", type=int, default=20261130, help="the first")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--published", action="store_true", help="the simulator's own patients instead of drawn ones")
    given = parser.parse_args()
    measure.use(given.device)
    started = time.perf_counter()
    rows = [row for seed in range(given.seed, given.seed + given.seeds) for row in one_seed(given, seed)]
    claims = claims_of(rows, np.random.default_rng(0)) | {"seconds": time.perf_counter() - started}
    measure.report("policies", given, claims=claims, rows=rows)


if __name__ == "__main__":
    main()
