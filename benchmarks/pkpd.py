"""Drug studies against what other programs found: theophylline, warfarin, simulated people.

Theophylline: all twelve personalized from eleven samples, then from the first six; how many samples lie inside the predictive
bands, with the published population as prior, and with the one that the other eleven people give (`FOCEI`). Warfarin: posterior
modes beside Monolix's and beside the published one of subject 1, and the population beside Monolix and NONMEM. Simulated
people (ACoP 2016): how often 90 % intervals hold the true parameters, by mouth (one compartment) and by infusion (two).
Single patients of other programs are in patients.py.

    python benchmarks/pkpd.py [--only theophylline|warfarin|population|simulated] [--method nuts|laplace] [--json out.json]
"""

import argparse
import csv
import dataclasses
import gzip
import json
import math
import os
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import hybridtwin as ht
from hybridtwin.coordinates import to_coordinate
from hybridtwin.engine import double
from hybridtwin.physiology import OneCompartmentOral, TwoCompartment, Warfarin

LEVELS = (0.5, 0.9, 0.95)


def folder() -> Path:
    """The shared data."""
    for place in (os.environ.get("HYBRIDTWIN_DATA"), Path(__file__).parents[2] / "shared" / "data"):
        if place and (Path(place) / "pkpd").exists():
            return Path(place) / "pkpd"
    raise SystemExit("the folder pkpd was not found: set HYBRIDTWIN_DATA")


def rows(path):
    """Rows of a CSV file, plain or gzipped."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as file:
        return list(csv.DictReader(file))


# --------------------------------------------------------------------------------------------- theophylline

# Population estimates for these twelve people, published before hybridtwin; nothing is chosen by coverage.
# Body: nlmixr2 SAEM, log means and CV. Additive error: its .696, with the 95 % interval of nlme (.596 to .780).
# Combined error: Monolix, a .4333 (se .124), b .0543 (se .0237) (demo theophylline_project, as read by monolix2rx).
BODY = {"ka": (0.464, 0.711), "CL": (1.01, 0.274), "V": (3.46, 0.131)}
ERRORS = {
    "additive": lambda: ht.sensors.Gaussian("C", sd=ht.lognormal(0.696, math.log(0.780 / 0.596) / 3.92)),
    "combined": lambda: ht.sensors.Combined1(
        "C", add=ht.lognormal(0.43328, 0.124 / 0.43328), prop=ht.lognormal(0.05426, 0.0237 / 0.05426)
    ),
}


def theophylline_model(error="additive"):
    """One compartment by mouth without lag, as in the published fits."""
    priors = {name: ht.typical(math.exp(mean), cv=cv) for name, (mean, cv) in BODY.items()}
    return ht.Model(OneCompartmentOral(tlag=0.0, **priors), C=ERRORS[error]())


def first_samples(person, count=6):
    """The record with only the first readings; doses and span stay."""
    times = np.sort(person.series["C"].time)
    return person.between(None, float(times[count]), readings_only=True)


def inside(twin, record, skip=0):
    """How many readings of `record`, the first `skip` left out, lie inside each central predictive band; and how many are."""
    predicted = dataclasses.replace(twin, draws=1000).on(record).predict()["C"]
    at = np.searchsorted(predicted.time, predicted.observed_time)[skip:]
    seen, draws = predicted.observed_value[skip:], predicted.readings[:, at]
    bands = {level: np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0) for level in LEVELS}
    return {level: int(((seen >= low) & (seen <= high)).sum()) for level, (low, high) in bands.items()}, len(seen)


def theophylline(method, error="additive"):
    """Verdicts, and the share of samples inside predictive bands: all eleven learned, and the last five from the first six."""
    model, cohort = theophylline_model(error), ht.datasets.theophylline()
    early = ht.Cohort([first_samples(person) for person in cohort.values()])
    found = {}
    for name, record, skip in (("all", cohort, 0), ("ahead", early, 6)):
        twins = ht.personalize(model, record, method, key=len(name), progress=False)
        counts = [inside(twin, cohort[i], skip) for i, twin in twins.items()]
        found[name] = {
            "verdicts": {i: twin.verdict.headline for i, twin in twins.items()},
            "reasons": {i: [r for p in twin.verdict.parts.values() for r in p.reasons] for i, twin in twins.items()},
            "inside": {level: sum(c[level] for c, _ in counts) for level in LEVELS},
            "samples": sum(n for _, n in counts),
        }
    return found


UNKNOWN = {
    "additive": lambda: ht.sensors.Gaussian("C", sd=ht.lognormal(0.7, 1.0)),
    "combined": lambda: ht.sensors.Combined1("C", add=ht.lognormal(0.5, 1.0), prop=ht.lognormal(0.1, 1.0)),
    "absorbing": lambda: ht.sensors.Absorbing(
        "C", add=ht.lognormal(0.5, 1.0), early=ht.lognormal(0.5, 1.0), follows="ka"
    ),
}


def from_the_others(method, error="combined"):
    """The last five samples from the first six, nothing published used: the population is that of the eleven other people.

    FOCEI maximizes their likelihood, error model included; the centers below only say where it starts.
    """
    priors = {name: ht.lognormal(math.exp(mean), 0.5) for name, (mean, _) in BODY.items()}
    model = ht.Model(OneCompartmentOral(tlag=0.0, **priors), C=UNKNOWN[error](), pooling=ht.Pooling())
    cohort, counts, verdicts, reasons = ht.datasets.theophylline(), [], {}, {}
    for name, person in cohort.items():
        others = ht.Cohort([other for other in cohort.values() if other is not person])
        population = ht.personalize(model, others, ht.FOCEI(), key=0, progress=False).population
        twin = ht.personalize(population.person(), first_samples(person), method, key=1, progress=False)
        counts.append(inside(twin, person, 6))
        verdicts[name] = twin.verdict.headline
        reasons[name] = [r for p in twin.verdict.parts.values() for r in p.reasons]
    total = {level: sum(c[level] for c, _ in counts) for level in LEVELS}
    return {"verdicts": verdicts, "reasons": reasons, "inside": total, "samples": sum(n for _, n in counts)}


def chance(count=200, bodies=20_000):
    """How many of the 60 later samples lie inside each band when twelve people *are* of the published population.

    (replicates, levels): people simulated from the additive model at the real times and doses, each conditioned on its first
    six samples by weighting draws of the prior on the closed form. Samples of one person miss together, so the counts spread
    more than those of sixty independent samples.
    """
    rng, cohort = np.random.default_rng(0), ht.datasets.theophylline()
    spread = math.log(0.780 / 0.596) / 3.92

    def draw(n):
        z = rng.standard_normal((4, n))
        logs = [mean + math.sqrt(math.log1p(cv**2)) * z[i] for i, (mean, cv) in enumerate(BODY.values())]
        return *np.exp(logs), 0.696 * np.exp(spread * z[3])

    def curve(body, time, dose):
        ka, clearance, volume = (a[:, None] for a in body)
        k = clearance / volume
        return dose * ka / volume / (ka - k) * (np.exp(-k * time) - np.exp(-ka * time))

    *bodies_, sd = draw(bodies)
    found = np.zeros((count, len(LEVELS)), int)
    for person in cohort.values():
        time = np.sort(person.series["C"].time)
        dose = next(d for r in person.regimens.values() for d in r.doses).amount
        modelled = curve(bodies_, time, dose)
        *true, noise = draw(count)
        seen = curve(true, time, dose) + noise[:, None] * rng.standard_normal((count, len(time)))
        for r in range(count):
            log_weight = -0.5 * np.sum(((seen[r, :6] - modelled[:, :6]) / sd[:, None]) ** 2, axis=1) - 6 * np.log(sd)
            weight = np.exp(log_weight - log_weight.max())
            at = rng.choice(bodies, 1000, p=weight / weight.sum())
            later = modelled[at, 6:] + sd[at, None] * rng.standard_normal((1000, len(time) - 6))
            for i, level in enumerate(LEVELS):
                low, high = np.quantile(later, [(1 - level) / 2, (1 + level) / 2], axis=0)
                found[r, i] += int(((seen[r, 6:] >= low) & (seen[r, 6:] <= high)).sum())
    return found


# ------------------------------------------------------------------------------------------------- warfarin

MONOLIX = {"ktr": "ktr", "ka": "ka", "CL": "cl", "V": "v", "emax": "emax", "ec50": "ec50", "kout": "kout", "E0": "e0"}


def warfarin_model():
    """The population model of Monolix: `Warfarin`'s own priors, combined error 2 for cp, additive for pca."""
    cp = ht.sensors.Combined2("cp", add=0.533445, prop=0.0985775)
    return ht.Model(Warfarin(), cp=cp, pca=ht.sensors.Gaussian("pca", sd=3.789603))


def published_warfarin():
    """The population model of `map_subject_1` (nlmixr): three parameters without spread."""
    spread = {
        "ktr": (0.106, 1.024695),
        "ka": (-0.087, 0.9518403),
        "CL": (-2.03, 0.5300943),
        "ec50": (0.00724, 0.7204165),
    }
    priors = {name: ht.lognormal(math.exp(mean), math.sqrt(variance)) for name, (mean, variance) in spread.items()}
    emax = ht.logitnormal(1 / (1 + math.exp(-3.4)), math.sqrt(0.7134424))
    body = Warfarin(**priors, emax=emax, V=math.exp(2.07), kout=math.exp(-2.9), E0=math.exp(4.57))
    cp = ht.sensors.Combined2("cp", add=0.144, prop=0.15)
    return ht.Model(body, cp=cp, pca=ht.sensors.Gaussian("pca", sd=3.91))


def warfarin_population():
    """The 32 people fitted by FOCEI with everything unknown but the spread of emax (Monolix's).

    The maximum lies at emax = 1, where that spread has no effect: left free, it runs away.
    """
    cp = ht.sensors.Combined2("cp", add=ht.lognormal(0.5, 0.5), prop=ht.lognormal(0.1, 0.5))
    pca = ht.sensors.Gaussian("pca", sd=ht.lognormal(4.0, 0.5))
    model = ht.Model(Warfarin(), cp=cp, pca=pca, omega={"emax": 0.380353})
    return ht.personalize(model, ht.datasets.warfarin(), ht.FOCEI(draws=50), key=0, progress=False).population


def beside_published(population):
    """Name -> (ours, Monolix's, their difference in Monolix's standard errors), and the objective beside NONMEM's."""
    monolix, nonmem, _ = json.loads((folder() / "reference_estimates.json").read_text())["warfarin"]
    ours = population.estimates
    found = {n: (ours[n], monolix["fixed"][t], (ours[n] - monolix["fixed"][t]) / monolix["se"][t]) for n, t in MONOLIX.items()}
    return found, population.objective - nonmem["OFV_without_constant"]


def monolix_modes():
    """id -> Monolix's modes. Its ids count people from 1 to 32; those of the data leave out 11."""
    table = rows(folder() / "warfarin_monolix_ebe_mode.csv")
    modes = [{ours: float(row[f"{theirs}_mode"]) for ours, theirs in MONOLIX.items()} for row in table]
    return dict(zip(ht.datasets.warfarin(), modes, strict=True))


def modes(model, people):
    """Posterior modes, a data frame with one row a person."""
    cohort = ht.Cohort(people)
    return ht.personalize(model, cohort, ht.Laplace(draws=20), key=0, progress=False).modes()


def shortfall(model, person, better, other):
    """By how much the log posterior (eta scale) at the values `other` lies below that at `better`."""
    with double():
        problem = model.bind(person)
        data = jax.tree.map(jnp.asarray, problem.data)

        def at(values):
            z = jnp.array([to_coordinate(site.prior, values[site.name]) for site in problem.kernel.sites])
            return float(problem.kernel.log_density(z, data, problem.kernel.untempered()))

        return at(better) - at(other)


def warfarin():
    """Largest and median relative difference from Monolix by parameter, and of subject 1 from the published mode."""
    people, theirs = ht.datasets.warfarin(), monolix_modes()
    model = warfarin_model()
    ours = modes(model, people.values())
    short = np.array([shortfall(model, p, ours.loc[i], theirs[i]) for i, p in people.items()])
    apart = {n: np.array([abs(ours.loc[i, n] / theirs[i][n] - 1) for i in people]) for n in MONOLIX}
    reference = json.loads((folder() / "reference_estimates.json").read_text())["warfarin"][2]["map"]
    first = modes(published_warfarin(), [people["1"]]).loc["1"]
    return {
        "monolix": {n: {"max": float(a.max()), "median": float(np.median(a))} for n, a in apart.items()},
        "shortfall": {"median": float(np.median(short)), "max": float(short.max()), "higher": int(np.sum(short > 0))},
        "subject 1": {n: float(first[n] / reference[MONOLIX[n]] - 1) for n in first.index},
    }


# ----------------------------------------------------------------------------------------- simulated people


# Each study's own population: ka 1, CL 4, V 70, Q 4, V2 50, spread 30 %; error 20 % of the concentration (README of the data).
def _spread(value):
    return ht.typical(value, cv=0.3)


STUDIES = {  # name -> (file, our parameter -> its column, the body)
    "oral": ("acop_sim_oral_1cpt", {"ka": "ka", "CL": "cl", "V": "v"},
             lambda: OneCompartmentOral(ka=_spread(1.0), CL=_spread(4.0), V=_spread(70.0), tlag=0.0)),
    "infusion": ("acop_sim_infusion_2cpt", {"CL": "cl", "Vc": "v", "Q": "q", "Vp": "v2"},
                 lambda: TwoCompartment(CL=_spread(4.0), Vc=_spread(70.0), Q=_spread(4.0), Vp=_spread(50.0))),
}  # fmt: skip


def simulated_people(study="oral", count=40):
    """(cohort, id -> true parameters) of a simulated study, spread over its four dose levels."""
    file, truth_of, _ = STUDIES[study]
    table = rows(folder() / f"{file}.csv.gz")
    for row in table:
        row["ss"] = row["ss"].replace("99", "0")  # 99 is the data set's own mark of the parts without a steady state
    truth = {row["id"]: {ours: float(row[theirs]) for ours, theirs in truth_of.items()} for row in table}
    known = ("id", "time", "dv", "mdv", "amt", "rate", "evid", "ss", "ii", "cmt")
    columns = {name: [row[name] for row in table] for name in known if name in table[0]}
    cohort = ht.Cohort.from_nonmem(columns, units={"TIME": "h", "AMT": "ug", "DV": "ng/mL"}, readings="C")
    chosen = [list(cohort)[i] for i in np.unique(np.linspace(0, len(cohort) - 1, count).round().astype(int))]
    return cohort.subset(chosen), {i: truth[i] for i in chosen}


def simulated(method, study="oral", count=40):
    """How far posterior medians lie from the truth, and how often 90 % intervals hold it."""
    cohort, truth = simulated_people(study, count)
    model = ht.Model(STUDIES[study][2](), C=ht.sensors.Combined1("C", add=0.0, prop=ht.lognormal(0.2, 0.3)))
    twins = ht.personalize(model, cohort, method, key=0, progress=False)
    found = {"verdicts": [twin.verdict.headline for twin in twins.values()]}
    for name in STUDIES[study][1]:
        values = {i: twin.fits[0].values[name] for i, twin in twins.items()}
        true = np.array([truth[i][name] for i in twins])
        low, middle, high = np.array([np.quantile(values[i], [0.05, 0.5, 0.95]) for i in twins]).T
        found[name] = {"inside": int(((true >= low) & (true <= high)).sum()), "people": len(true),
                       "median error": float(np.median(np.abs(middle / true - 1)))}  # fmt: skip
    return found


# ----------------------------------------------------------------------------------------------------- main


def told_theophylline(error, found):
    """A line each for what was learned from all samples, from six, and from six and eleven other people."""
    for name, part in found.items():
        counts = ", ".join(f"{100 * level:g} % band {part['inside'][level]}" for level in LEVELS)
        fine = sum(v == "OK" for v in part["verdicts"].values())
        told = f"{fine} of {len(part['verdicts'])} OK; of {part['samples']} samples {counts}"
        print(f"theophylline, {error} error, {name:<6}: {told}")
        for person, reasons in part["reasons"].items():
            for reason in reasons:
                print(f"    {person}: {part['verdicts'][person]}: {reason}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=["theophylline", "warfarin", "population", "simulated"])
    parser.add_argument("--method", choices=["nuts", "laplace"], default="nuts")
    parser.add_argument("--error", choices=list(ERRORS), help="theophylline: one error model only")
    parser.add_argument("--json")
    args = parser.parse_args()
    method = ht.NUTS() if args.method == "nuts" else ht.Laplace()
    began, found = time.time(), {}
    if args.only in (None, "theophylline"):
        for error in [args.error] if args.error else ERRORS:
            found[f"theophylline {error}"] = theophylline(method, error) | {"others": from_the_others(method, error)}
            told_theophylline(error, found[f"theophylline {error}"])
        found["theophylline absorbing"] = {"others": from_the_others(method, "absorbing")}
        told_theophylline("absorbing", found["theophylline absorbing"])
        low, middle, high = np.quantile(chance(), [0.05, 0.5, 0.95], axis=0)
        columns = zip(LEVELS, low, middle, high, strict=True)
        told = ", ".join(f"{100 * v:g} % band {m:.0f} ({a:.0f} to {b:.0f})" for v, a, m, b in columns)
        print(f"theophylline, ahead, of 60 if the published model held: {told}")
    if args.only in (None, "warfarin"):
        found["warfarin"] = warfarin()
        for name, apart in found["warfarin"]["monolix"].items():
            told = f"median {100 * apart['median']:.3f} %, most {100 * apart['max']:.2f} %"
            print(f"warfarin, {name:<5} of 32 beside Monolix: {told}")
        short = found["warfarin"]["shortfall"]
        print(f"warfarin: the log posterior of {short['higher']} of 32 is higher at our mode than at Monolix's, "
              f"by {short['median']:.3f} (median), {short['max']:.2f} at most")  # fmt: skip
        for name, apart in found["warfarin"]["subject 1"].items():
            print(f"warfarin, {name:<5} of subject 1 beside the published mode: {100 * apart:+.3f} %")
    if args.only in (None, "population"):
        fixed, objective = beside_published(warfarin_population())
        found["warfarin population"] = {"fixed": fixed, "objective": objective}
        for name, (ours, theirs, apart) in fixed.items():
            print(f"warfarin population, {name:<5} {ours:.4g}, Monolix {theirs:.4g} ({apart:+.2f} standard errors)")
        print(f"warfarin population, objective beside NONMEM's: {objective:+.3f}")
    if args.only in (None, "simulated"):
        for study, (_, truth_of, _) in STUDIES.items():
            found[f"simulated {study}"] = simulated(method, study)
            for name in truth_of:
                row = found[f"simulated {study}"][name]
                told = f"{row['inside']} of {row['people']} true values inside the 90 % interval"
                print(f"simulated, {study}, {name:<3}: {told}, median error {100 * row['median error']:.1f} %")
    print(f"{time.time() - began:.0f} s")
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
