"""The track record of the embedded virtual adult: how long it takes, and whether cuts that were updated say what refits say.

Eleven meals of three days, followed for four hours each, by the method of the twin (`T1DMinimal`, temper 3). Told are seconds on
the wall and of all cores, how many cuts were updated by weights, coverage and error. With `--check N` the first N cuts that
were updated are personalized anew: `apart` is the largest difference of a posterior mean, in its Monte Carlo errors (of both),
`spread` the largest ratio of two standard deviations, of all unknowns of these cuts.

    python -m benchmarks.track [--laplace] [--check N] [--json]
"""

import time

import numpy as np

import hybridtwin as ht
from benchmarks import measure
from hybridtwin.inference.cuts import refits
from hybridtwin.keys import folded
from hybridtwin.physiology import T1DMinimal
from hybridtwin.units import time_factor


def checked(twin, record, wanted):
    """Updated cuts against refits: (largest difference of a mean in its errors, largest ratio of spreads, cuts compared)."""
    model, how = [twin.fits[0].model], {"key": folded(twin.key, 61), "temper": twin.temper}
    scale = time_factor(twin.fits[0].problem.bound.clock.unit, twin.record.clock.unit)
    cuts = [twin.record.between(None, event.start * scale, readings_only=True) for event in record.events]
    far, wide, done = 0.0, 1.0, 0
    for cut, past in zip(cuts, refits(model, cuts, twin.method, **how), strict=True):
        one = past.fits[0]
        if one.stage != "update" or done >= wanted:
            continue
        done += 1
        other = refits(model, [cut], twin.method, **how)[0].fits[0]
        a, b = (fit.z.reshape(-1, fit.z.shape[-1]) for fit in (one, other))
        count = float(np.min(other.stats["ess_bulk"])) if "ess_bulk" in other.stats else other.stats["ess"]
        error = b.std(axis=0) * np.sqrt(1 / one.stats["ess"] + 1 / count)
        far = max(far, float(np.max(np.abs(a.mean(axis=0) - b.mean(axis=0)) / error)))
        ratio = a.std(axis=0) / b.std(axis=0)
        wide = max(wide, float(np.max(np.maximum(ratio, 1 / ratio))))
    return far, wide, done


def main():
    """Personalize, follow, tell."""
    parser = measure.arguments(__doc__)
    parser.add_argument("--laplace", action="store_true")
    parser.add_argument("--check", type=int, default=0)
    given = parser.parse_args()
    model = ht.Model(T1DMinimal(), cgm=ht.sensors.CGM("G_isf"))
    method = ht.Laplace() if given.laplace else None
    twin = ht.personalize(model, ht.datasets.virtual_adult(), method, key=0, temper=3, progress=False)
    wall, cores = time.perf_counter(), time.process_time()
    record = twin.track_record(of="meal", ahead="4 h")
    wall, cores = time.perf_counter() - wall, time.process_time() - cores
    print(record)
    claims = {"seconds": wall, "core_seconds": cores, "coverage": record.coverage(),
              "error": float(np.sqrt(np.mean([e.error**2 for e in record.judged])))}  # fmt: skip
    if given.check:
        far, wide, done = checked(twin, record, given.check)
        claims |= {"apart": far, "spread": wide, "checked": float(done)}
    measure.report("track", given, claims=claims, notes=list(record.notes))


if __name__ == "__main__":
    main()
