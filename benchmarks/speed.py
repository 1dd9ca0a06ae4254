"""Time to the same minimum effective sample size: hybridtwin beside plain NumPyro + diffrax, in one run.

Both fit structure A of type 1 diabetes to the embedded person's three days at full likelihood, in a process of their own.
hybridtwin runs twice: cold (empty compilation cache, mode search and compilation counted) and warm (the same process, a
second key). The ratio is seconds per effective draw, minimum over the unknowns.

    python benchmarks/speed.py [--plain-warmup 300] [--plain-draws 200] [--json out.json]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def ours(draws):
    """Fit twice in this process; prints one JSON line."""
    import numpy as np

    import hybridtwin as ht
    from hybridtwin.physiology import T1DMinimal

    model = ht.Model(T1DMinimal(), cgm=ht.sensors.CGM("G_isf"))
    person, found = ht.datasets.virtual_adult(), {}
    for name, key in (("cold", 0), ("warm", 1)):
        started = time.monotonic()
        twin = ht.personalize(model, person, ht.NUTS(draws=draws), key=key, progress=False)
        stats = twin.fits[0].stats
        found[name] = {
            "seconds": time.monotonic() - started,
            "ess": float(np.min(stats["ess_bulk"])),
            "rhat": float(np.max(stats["rhat"])),
            "divergent": stats["divergent"],
        }
    sys.stdout.write(json.dumps(found) + "\n")


def run(words, timeout):
    """Standard output of a Python process."""
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=timeout, check=True).stdout


def main():
    """Run both and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ours", action="store_true", help="only this library's side (used by the benchmark itself)")
    parser.add_argument("--draws", type=int, default=250)
    parser.add_argument("--plain-warmup", type=int, default=300)
    parser.add_argument("--plain-draws", type=int, default=200)
    parser.add_argument("--plain-chains", type=int, default=4)
    parser.add_argument("--json")
    given = parser.parse_args()
    if given.ours:
        ours(given.draws)
        return
    mine = json.loads(run([__file__, "--ours", "--draws", str(given.draws)], 3600).splitlines()[-1])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plain.json"
        words = [str(HERE / "plain_numpyro.py"), "--chains", str(given.plain_chains), "--json", str(path)]
        run([*words, "--warmup", str(given.plain_warmup), "--draws", str(given.plain_draws)], 4 * 3600)
        plain = json.loads(path.read_text())
    print(f"{'':<26} seconds  min ESS  seconds per effective draw")
    seconds, ess = plain["seconds"], plain["min_bulk_ess"]
    rows = [("plain NumPyro + diffrax", seconds, ess), *((f"hybridtwin, {n}", r["seconds"], r["ess"]) for n, r in mine.items())]
    for name, s, e in rows:
        print(f"{name:<26} {s:7.0f}  {e:7.0f}  {s / e:.3f}")
    for name, r in mine.items():
        print(f"plain / hybridtwin {name}: {(seconds / ess) / (r['seconds'] / r['ess']):.0f} times")
    if given.json:
        Path(given.json).write_text(json.dumps({"plain": plain, "hybridtwin": mine}, indent=1))


if __name__ == "__main__":
    main()
