"""`make run`: the main job, end to end, on the embedded person or on a file of one's own."""

import argparse
import dataclasses
import sys
import time
from pathlib import Path

import numpy as np

from hybridtwin import cli, datasets, outcomes
from hybridtwin.causal.contrast import contrast
from hybridtwin.inference.methods import Auto
from hybridtwin.inference.personalize import personalize
from hybridtwin.model import Model
from hybridtwin.physiology import T1DMinimal, T1DTwoPool
from hybridtwin.sensors import CGM

WINDOW = ("2026-03-11 06:00", "2026-03-11 16:00")  # breakfast and lunch of the embedded person's third day


def models():
    """The two structures, pooled."""
    sensor = CGM("G_isf")  # pyright: ignore[reportCallIssue] its fields are gathered by a metaclass
    return [Model(T1DMinimal(), cgm=sensor), Model(T1DTwoPool(), cgm=sensor)]


def changed(twin, fact):
    """The twin under one intervention of `virtual_adult_facts`."""
    by, times = fact["shift_min"], fact["times"]
    return twin.do(start=fact["start"], stop=fact["stop"], **{fact["target"]: lambda lived: lived.shift(by, "min") * times})


def truth_of(name, measure) -> float:
    """The simulator's own difference between a world and the lived day, inside the window of the demo."""
    truth = datasets.virtual_adult_truth()
    twin_clock = datasets.virtual_adult().clock
    inside = (truth["time"] >= twin_clock.at(WINDOW[0])) & (truth["time"] <= twin_clock.at(WINDOW[1]))
    return float(measure(truth[name][inside]) - measure(truth["lived"][inside]))


def _in_range(glucose) -> float:
    """Percent of equally spaced values between 70 and 180 mg/dL."""
    return 100 * np.mean((glucose >= 70) & (glucose <= 180))


def _embedded(report: Path) -> int:
    started = time.monotonic()
    cli.prepare()
    person = datasets.virtual_adult()
    sys.stdout.write(f"{person!r}\n\n")
    twin = personalize(models(), person, Auto(draws=400, starts=4), key=0, temper=3)
    twin = dataclasses.replace(twin, draws=120)  # of each structure in the simulations below: enough for a look
    sys.stdout.write(f"{twin.verdict!r}\n\n")
    asked = [
        ("mean", outcomes.mean("G", *WINDOW), np.mean),
        ("peak", outcomes.peak("G", *WINDOW), np.max),
        ("nadir", outcomes.nadir("G", *WINDOW), np.min),
        ("% 70-180", outcomes.time_in_range("G", 70, 180, "mg/dL", *WINDOW), _in_range),
    ]
    effects = []
    sys.stdout.write(f"glucose on {WINDOW[0]} to {WINDOW[1][-5:]}, difference from the lived day (mg/dL, or % of the time)\n")
    sys.stdout.write(f"{'':<12} {'twin (90 % interval)':>26} {'simulator':>10}\n")
    for fact in datasets.virtual_adult_facts()["interventions"]:
        effect = contrast(changed(twin, fact), twin, *[outcome for _, outcome, _ in asked])
        effects.append(effect)
        sys.stdout.write(f"{fact['doc']}\n")
        for (word, _, measure), row in zip(asked, effect.rows, strict=False):
            answer = (
                "DO NOT USE"
                if effect.verdict.headline == "DO NOT USE"
                else f"{row.median:+.0f} ({row.low:+.0f} to {row.high:+.0f})"
            )
            sys.stdout.write(f"  {word:<10} {answer:>26} {truth_of(fact['name'], measure):>+10.0f}\n")
    path = twin.report(report, effects)
    sys.stdout.write(f"\nreport: {path}   ({time.monotonic() - started:.0f} s)\nResearch use; not a medical device.\n")
    return 0


def main(argv=None) -> int:
    """Entry of `python -m hybridtwin.demo`."""
    parser = argparse.ArgumentParser(prog="make run", description=__doc__)
    for name, text in (
        ("--record", "a table of your own (CSV)"),
        ("--system", "system, as in `hybridtwin systems`"),
        ("--units", "cgm=mg/dL,meal=g,..."),
        ("--tz", "time zone of naive timestamps"),
    ):
        parser.add_argument(name, help=text)
    parser.add_argument("--report", default="hybridtwin-report.html")
    given, more = parser.parse_known_args(argv)
    if given.record is None:
        return _embedded(Path(given.report))
    words = ["twin", given.record, "--report", given.report, "--key", "0"]
    for name in ("system", "units", "tz"):
        if getattr(given, name):
            words += [f"--{name}", getattr(given, name)]
    return cli.main(words + more)


if __name__ == "__main__":
    sys.exit(main())
