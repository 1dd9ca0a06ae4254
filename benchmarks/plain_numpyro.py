"""The glucose problem of the embedded person as a competent user writes it by hand: NumPyro + diffrax, no hybridtwin.

Structure A of type 1 diabetes (one glucose pool, a gut of stomach and five parts, subcutaneous insulin in two steps with personal
rates, interstitial lag, correlated sensor error), its published priors with the wide one on glucose effectiveness,
and the likelihood at full strength, on the three days of `hybridtwin.datasets.virtual_adult`. Prints the seconds
of compilation + warm-up + sampling and the minimum bulk effective sample size; `--json FILE` writes them.

    python benchmarks/plain_numpyro.py --warmup 500 --draws 500

The best of what plain NumPyro offers was taken: forward-mode gradients (18 parameters; `--gradient reverse` for the
checkpointed adjoint), a scalar Kalman filter in place of a dense covariance, medians as the start, a dense mass
matrix, steps clipped at the jumps of the inputs, and failed solves that reject instead of ending the run.
"""

import argparse
import csv
import json
import os
import time
from datetime import datetime
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent.parent / "hybridtwin" / "datasets"
VG, VI = 1.6, 0.12  # dL/kg, L/kg
EAT_RATE = 5.0  # g/min
PRIORS = {  # median and sd of the logarithm
    "SI": (9e-4, 0.6), "p2": (0.015, 0.4), "Gb": (130.0, 0.2), "SG": (0.0055, 0.7), "f": (0.9, 0.08),
    "kemp": (0.14, 0.71), "kt": (0.025, 0.3), "ka": (0.015, 0.7), "r2": (1.0, 0.5), "r3": (1.0, 0.5), "r4": (1.0, 0.5),
    "kd": (0.030, 0.62), "ka2": (0.0137, 0.43), "ke": (0.135, 0.25),
    "tis": (8.0, 0.4), "s_w": (3.0, 0.6), "s_ou": (10.0, 0.6), "tau": (40.0, 0.6),
}  # fmt: skip


def read_person(thin):
    """Minutes from the first row: readings (mg/dL, every `thin`-th), meals (g), boluses (IU), basal rates (IU/h)."""
    facts = json.loads((FOLDER / "virtual_adult.json").read_text())
    start = datetime.fromisoformat(facts["start"])
    columns = {"cgm": [], "meal": [], "bolus": [], "basal": []}
    with open(FOLDER / "virtual_adult.csv", newline="") as file:
        for row in csv.DictReader(file):
            minute = (datetime.fromisoformat(row["time"]) - start).total_seconds() / 60
            for name, values in columns.items():
                if row[name]:
                    values.append((minute, float(row[name])))
    tables = {name: np.array(values) for name, values in columns.items()}
    tables["cgm"] = tables["cgm"][::thin]
    return tables, facts["covariates"]["weight"][0]


def input_table(tables, weight):
    """Piecewise constant inputs: their knots (min), glucose eaten (mg/dL/min at f = 1), insulin given (mU/L/min)."""
    meals, boluses, basal = tables["meal"], tables["bolus"], tables["basal"]
    ends = meals[:, 0] + meals[:, 1] / EAT_RATE
    knots = np.unique(np.concatenate([[0.0], meals[:, 0], ends, boluses[:, 0], boluses[:, 0] + 1.0, basal[:, 0]]))
    eaten, given = np.zeros(len(knots)), np.zeros(len(knots))
    for begin, end in zip(meals[:, 0], ends):
        eaten[(knots >= begin) & (knots < end)] += EAT_RATE * 1000 / (VG * weight)
    for begin, rate in basal:
        given[knots >= begin] = rate * 1000 / 60 / (VI * weight)
    for begin, units in boluses:
        given[(knots >= begin) & (knots < begin + 1)] += units * 1000 / (VI * weight)
    return knots, eaten, given


def make_model(args, tables, weight):
    import diffrax
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    knots, eaten, given = map(jnp.asarray, input_table(tables, weight))
    times, readings = jnp.asarray(tables["cgm"][:, 0]), jnp.asarray(tables["cgm"][:, 1])
    basal = given[0]
    adjoint = diffrax.ForwardMode() if args.gradient == "forward" else diffrax.RecursiveCheckpointAdjoint()
    controller = diffrax.ClipStepSizeController(
        diffrax.PIDController(rtol=1e-5, atol=1e-6), jump_ts=knots[1:], store_rejected_steps=None
    )

    def rates(t, y, p):
        q1, q2, p1, p2, p3, p4, p5, s1, s2, insulin, action, glucose, tissue = y
        a1 = p["ka"]
        a2 = p["r2"] * a1
        a3 = p["r3"] * a2
        a4 = p["r4"] * a3
        i = jnp.searchsorted(knots, t, side="right") - 1
        return (
            p["f"] * eaten[i] - p["kemp"] * q1,
            p["kemp"] * (q1 - q2),
            p["kemp"] * q2 - (p["kt"] + a1) * p1,
            p["kt"] * p1 - (p["kt"] + a2) * p2,
            p["kt"] * p2 - (p["kt"] + a3) * p3,
            p["kt"] * p3 - (p["kt"] + a4) * p4,
            p["kt"] * (p4 - p5),
            given[i] - p["kd"] * s1,
            p["kd"] * s1 - p["ka2"] * s2,
            p["ka2"] * s2 - p["ke"] * insulin,
            -p["p2"] * (action - p["SI"] * (insulin - basal / p["ke"])),
            -p["SG"] * (glucose - p["Gb"]) - action * glucose
            + a1 * p1 + a2 * p2 + a3 * p3 + a4 * p4 + p["kt"] * p5,
            (glucose - tissue) / p["tis"],
        )

    def solve(p):
        zero = jnp.zeros(())
        rest = (*(zero,) * 7, basal / p["kd"], basal / p["ka2"], basal / p["ke"], zero, p["Gb"], p["Gb"])
        return diffrax.diffeqsolve(
            diffrax.ODETerm(rates), diffrax.Tsit5(), 0.0, times[-1] + 1.0, 0.5, rest, args=p, adjoint=adjoint,
            saveat=diffrax.SaveAt(ts=times, fn=lambda t, y, _: y[12]), stepsize_controller=controller,
            max_steps=8192, throw=False,
        )  # fmt: skip

    def log_likelihood(residuals, p):
        """Ornstein-Uhlenbeck plus white error, by the scalar Kalman filter."""
        keep = jnp.exp(-jnp.diff(times, prepend=times[0]) / p["tau"])

        def step(carry, item):
            mean, variance = carry
            residual, decay = item
            mean, variance = decay * mean, decay**2 * variance + (1 - decay**2) * p["s_ou"] ** 2
            total = variance + p["s_w"] ** 2
            gain, surprise = variance / total, residual - mean
            return (mean + gain * surprise, (1 - gain) * variance), -0.5 * (
                surprise**2 / total + jnp.log(2 * jnp.pi * total)
            )

        return jax.lax.scan(step, (jnp.zeros(()), p["s_ou"] ** 2), (residuals, keep))[1].sum()

    def model():
        p = {name: numpyro.sample(name, dist.LogNormal(np.log(median), sd)) for name, (median, sd) in PRIORS.items()}
        solution = solve(p)
        ok = solution.result == diffrax.RESULTS.successful
        tissue = jnp.where(ok & jnp.isfinite(solution.ys), solution.ys, 0.0)
        numpyro.factor("cgm", jnp.where(ok, log_likelihood(readings - tissue, p), -jnp.inf))

    return model, list(PRIORS)


def sample(args):
    """Run the chains; returns what was measured."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax
    import numpyro

    numpyro.enable_x64()
    numpyro.set_host_device_count(args.chains if args.chain_method == "parallel" else 1)
    from numpyro.infer import MCMC, NUTS, init_to_median

    tables, weight = read_person(args.thin)
    model, names = make_model(args, tables, weight)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compiled.append(seconds) if "/jax/core/compile" in event else None
    )
    begin = time.perf_counter()
    kernel = NUTS(
        model, target_accept_prob=0.8, dense_mass=True, init_strategy=init_to_median,
        forward_mode_differentiation=args.gradient == "forward", max_tree_depth=10,
    )  # fmt: skip
    chains = MCMC(
        kernel, num_warmup=args.warmup, num_samples=args.draws, num_chains=args.chains, chain_method=args.chain_method,
        progress_bar=False,
    )  # fmt: skip
    chains.warmup(jax.random.PRNGKey(args.seed))
    jax.block_until_ready(chains.last_state)
    warm, compile_warm = time.perf_counter(), sum(compiled)
    chains.run(jax.random.PRNGKey(args.seed + 1), extra_fields=("num_steps", "diverging"))
    draws = {name: np.asarray(chains.get_samples(group_by_chain=True)[name]) for name in names}
    done, ended = time.perf_counter(), time.time()
    seconds = done - begin
    import arviz  # what judges the draws is nobody's time

    extra = chains.get_extra_fields(group_by_chain=True)
    ess = {name: float(arviz.ess(values, method="bulk")) for name, values in draws.items()}
    rhat = {name: float(arviz.rhat(values)) for name, values in draws.items()}
    return {
        "what": "plain NumPyro + diffrax, structure A, temper 1",
        "seconds": seconds,
        "ended": ended,
        "warmup_seconds": warm - begin - compile_warm,
        "draw_seconds": done - warm - (sum(compiled) - compile_warm),
        "compile_seconds": sum(compiled),
        "min_bulk_ess": min(ess.values()),
        "seconds_per_ess": seconds / min(ess.values()),
        "max_rhat": max(rhat.values()),
        "divergences": int(np.sum(extra["diverging"])),
        "leapfrogs_per_draw": float(np.mean(extra["num_steps"])),
        "readings": len(tables["cgm"]),
        "ess": ess,
        "rhat": rhat,
        "median": {name: float(np.median(values)) for name, values in draws.items()},
        "sd_log": {name: float(np.std(np.log(values))) for name, values in draws.items()},
        "settings": vars(args),
    }


def parse(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--warmup", type=int, default=500)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument(
        "--thin", type=int, default=3, help="keep every n-th reading of the 5-minute record (3: 15 min)"
    )
    parser.add_argument("--gradient", choices=["forward", "reverse"], default="forward")
    parser.add_argument("--chain-method", choices=["parallel", "vectorized", "sequential"], default="parallel")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", metavar="FILE", help="write the result here too")
    return parser.parse_args(argv)


def main():
    args = parse()
    result = sample(args)
    print(
        f"plain NumPyro + diffrax: {result['seconds']:.1f} s (compile + warm-up + {args.chains} x {args.draws} draws), "
        f"min bulk ESS {result['min_bulk_ess']:.0f}, {result['seconds_per_ess']:.2f} s per effective draw, "
        f"{result['leapfrogs_per_draw']:.0f} leapfrogs a draw, max R-hat {result['max_rhat']:.3f}, "
        f"{result['divergences']} divergences"
    )
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
