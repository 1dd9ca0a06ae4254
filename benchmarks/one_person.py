"""One person: time to 1,000 effective draws, from an empty cache, from a full one, and in a warm process, beside the
peers.

Two problems: T1DMinimal on the embedded person's three days, and the minimal model (Bergman) on an intravenous
glucose test. The peers are plain NumPyro + diffrax (`plain_numpyro.py`, `bergman_peers.py`) and Stan through PyStan
(`stan_t1d.py`, `bergman_peers.py`; with `--stan-python` naming a Python that has it; its build time is told apart).
Three days take Stan hours: there its gradient is timed, and it is given as many of them as the chains of plain NumPyro
needed. Everybody runs in a process of their own, in the same run.

Peers run at reduced size. What a chain needs for 1,000 effective draws is its warm-up plus its sampling, scaled by
its smallest bulk ESS over the unknowns; its compiling counts only in the cold figure. Ours: the time of the call,
scaled up only where it gave fewer than 1,000. Cold: from the start of the process to the draws, its imports and compiling
counted, no compilation cache on either side, the median of a few starts. "Effective" means for our chains the same;
importance draws are independent, and there it is Kish's effective number of the weighted draws, at most the number kept
(how many of those are distinct is told).

    python -m benchmarks.one_person --json [--problems bergman t1d] [--stan-python PATH]
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import bergman_peers as peer
from benchmarks import measure
from benchmarks.cohort import effective

GOAL = 1000
STARTS = {"bergman": 3, "t1d": 1}  # cold starts of a side, of which the median counts; three days take the peer long


def problem(name):
    """Model and person."""
    import hybridtwin as ht

    if name == "t1d":
        from hybridtwin.physiology import T1DMinimal

        return ht.Model(T1DMinimal(), cgm=ht.sensors.CGM("G_isf")), ht.datasets.virtual_adult()
    from hybridtwin.physiology.glucose.bergman import BergmanMinimal

    insulin = ht.Signal.linear(np.concatenate([[0.0], peer.TIMES]), np.concatenate([[peer.REST], peer.INSULIN]), "m[IU]/L")
    person = ht.Person.of(
        "ivgtt", time="min", start=0.0, stop=180.0, covariates={"weight": (peer.WEIGHT, "kg")}, signals={"insulin": insulin},
        doses={"glucose_iv": ht.Regimen.bolus(peer.DOSE, "g", at=0.0)}, readings={"G": (peer.TIMES, peer.readings(), "mg/dL")},
    )  # fmt: skip
    return ht.Model(BergmanMinimal(), G=ht.sensors.Gaussian("G", sd=ht.halfnormal(10.0))), person


def ours(name, rounds):
    """In this process: fits with keys 0, 1, ...; the first one compiles."""
    import jax

    if os.environ.get("BENCHMARK_CACHE"):
        jax.config.update("jax_compilation_cache_dir", os.environ["BENCHMARK_CACHE"])
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    compiled, found = [], []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compiled.append(seconds) if "/jax/core/compile" in event else None
    )
    import hybridtwin as ht

    model, person = problem(name)
    for key in range(rounds):
        compiled.clear()
        began = time.perf_counter()
        fit = ht.personalize(model, person, ht.Auto(draws=1200), key=key, progress=False).fits[0]
        seconds, ended = time.perf_counter() - began, time.time()
        ess, distinct = effective(fit)
        found.append(
            {
                "seconds": seconds,
                "compile_seconds": sum(compiled),
                "ess": ess,
                "distinct": distinct,
                "draws": fit.count,
                "stage": fit.told(),
                "computed": fit.parts["computed"].level,
                "medians": {k: float(np.median(v)) for k, v in fit.values.items()},
                "ended": ended,
            }
        )
    return found


def run(words, python=sys.executable, **env):
    """A process of its own: its last line as JSON, and when it was begun. It may keep bytecode, which installed packages have."""
    began, env = time.time(), {**os.environ, "PYTHONDONTWRITEBYTECODE": "", **env}
    done = subprocess.run([python, *words], capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1]), began


def typical(times, words, **env):
    """`run` several times: that of median length, for a start of a few seconds may take half as long again."""
    runs = [run(words, **env) for _ in range(times)]
    lengths = [(found[-1] if isinstance(found, list) else found)["ended"] - began for found, began in runs]
    return runs[int(np.argsort(lengths)[times // 2])]


def needed(fit):
    """Seconds to the goal, of one fit of ours."""
    return fit["seconds"] * max(1.0, GOAL / fit["ess"])


def measured(name, given):
    """Everybody on one problem."""
    os.environ[peer.GIVEN] = json.dumps(peer.readings().tolist())  # everybody's, made once
    me, starts = ["-m", "benchmarks.one_person", "--device", given.device, "--worker", name, "--rounds"], STARTS[name]
    with tempfile.TemporaryDirectory() as folder:
        (cold,), cold_began = typical(starts, [*me, "1"])
        run([*me, "1"], BENCHMARK_CACHE=folder)  # fills the cache
        (cached,), cached_began = typical(starts, [*me, "1"], BENCHMARK_CACHE=folder)
        many, _ = run([*me, str(1 + given.repeats)], BENCHMARK_CACHE=folder)
        sizes = ["--warmup", str(given.peer_warmup), "--draws", str(given.peer_draws), "--chains", str(given.peer_chains)]
        if name == "t1d":
            path = Path(folder) / "plain.json"
            words = ["-m", "benchmarks.plain_numpyro", *sizes, "--json", str(path)]
            plain_began = time.time()
            subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
            plain = json.loads(path.read_text())
            plain["ess"] = plain.pop("min_bulk_ess")
        else:
            plain, plain_began = typical(starts, ["-m", "benchmarks.bergman_peers", "plain", *sizes])
    warm = statistics.median(needed(fit) for fit in many[1:])
    sampling = plain["draw_seconds"] * GOAL / plain["ess"]
    plain_warm = plain["warmup_seconds"] + sampling
    spent = plain["warmup_seconds"] + plain["draw_seconds"]
    found = {
        "ours": {"cold": cold, "cached": cached, "warm": many[1:]},
        "cold_seconds": cold["ended"] - cold_began + needed(cold) - cold["seconds"],
        "cached_seconds": cached["ended"] - cached_began + needed(cached) - cached["seconds"],
        "warm_seconds": warm,
        "plain": plain,
        "plain_cold_seconds": plain["ended"] - plain_began - spent + plain_warm,
        "plain_warm_seconds": plain_warm,
    }
    if name == "bergman" and given.stan_python:
        script = str(Path(__file__).with_name("bergman_peers.py"))
        sizes = ["--warmup", str(given.stan_warmup), "--draws", str(given.stan_draws), "--chains", str(given.peer_chains)]
        stan, _ = run([script, "stan", *sizes], python=given.stan_python)
        import arviz

        stan["ess"] = min(float(arviz.ess(np.array(row), method="bulk")) for row in stan.pop("draws"))
        # PyStan does not tell warm-up from sampling: they cost alike a transition
        share = given.stan_draws / (given.stan_draws + given.stan_warmup)
        found["stan"] = stan
        found["stan_warm_seconds"] = stan["seconds"] * (1 - share) + stan["seconds"] * share * GOAL / stan["ess"]
    elif given.stan_python:
        stan, _ = run(["-m", "benchmarks.stan_t1d"], python=given.stan_python)
        gradient = plain["draw_seconds"] / (plain["leapfrogs_per_draw"] * given.peer_draws)
        found["stan"] = stan | {"ess": plain["ess"], "plain_gradient_seconds": gradient}
        found["stan_warm_seconds"] = plain_warm * stan["gradient_seconds"] / gradient
    return found


def main():
    """Run everybody and print the claims."""
    parser = measure.arguments(__doc__, repeats=3)
    parser.add_argument("--problems", nargs="*", choices=["bergman", "t1d"], default=["bergman", "t1d"])
    parser.add_argument("--peer-warmup", type=int, default=300)
    parser.add_argument("--peer-draws", type=int, default=200)
    parser.add_argument("--peer-chains", type=int, default=4)
    parser.add_argument("--stan-python", metavar="PATH", help="a Python that has PyStan; without it Stan is not run")
    parser.add_argument("--stan-warmup", type=int, default=500)
    parser.add_argument("--stan-draws", type=int, default=500)
    parser.add_argument("--worker", choices=["bergman", "t1d"], help="used by the script itself")
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    measure.use(given.device)
    if given.worker:
        print(json.dumps(ours(given.worker, given.rounds)))
        return
    found = {name: measured(name, given) for name in given.problems}
    rows = []
    for name, f in found.items():
        one, plain = f["ours"]["warm"][0], f["plain"]
        times = (f["cold_seconds"], f["cached_seconds"], f["warm_seconds"])
        rows.append((f"{name}: hybridtwin", *times, one["ess"], one["distinct"]))
        times = (f["plain_cold_seconds"], "", f["plain_warm_seconds"])
        rows.append((f"{name}: plain NumPyro + diffrax", *times, plain["ess"], ""))
        if "stan" in f:
            how = f"build {f['stan']['build_seconds']:.0f} s apart" + (", by its gradient" if name == "t1d" else "")
            rows.append((f"{name}: Stan ({how})", "", "", f["stan_warm_seconds"], f["stan"]["ess"], ""))
    print(f"seconds to {GOAL} effective draws; ess and distinct are those of the run itself")
    print(measure.table(rows, ("", "cold", "full cache", "warm", "ess", "distinct")))
    for name, f in found.items():
        print(f"{name} drawn by {f['ours']['warm'][0]['stage']}")
    claims = {
        "cold_ratio_numpyro": min(f["plain_cold_seconds"] / f["cold_seconds"] for f in found.values()),
        "warm_ratio_numpyro": min(f["plain_warm_seconds"] / f["warm_seconds"] for f in found.values()),
        "cold_seconds": max(f["cold_seconds"] for f in found.values()),
    }
    stan = [f["stan_warm_seconds"] / f["warm_seconds"] for f in found.values() if "stan" in f]
    if stan:
        claims["warm_ratio_stan"] = min(stan)
    else:
        print("Stan: not run (--stan-python)")
    measure.report("one_person", given, claims=claims, problems=found)


if __name__ == "__main__":
    main()
