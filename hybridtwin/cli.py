"""The command line: personalize a record, compare treatments, choose among them, list the systems, look at the installation.

Heavy parts load inside the commands, so that `hybridtwin --help` answers at once. Exit codes: 0 done, 1 a mistake in
what was asked (told on stderr, without a traceback), 2 a mistake in the command line, 3 DO NOT USE, or CAUTION on a choice
without an accepted risk (no numbers are printed), 130 interrupted, 141 the reader of the answer has gone.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from hybridtwin.errors import HybridTwinError, NotTrustworthy

NOTICE = "Research use; not a medical device"
_EPILOG = """examples:
  hybridtwin systems
  hybridtwin twin anna.csv --system T1D --units "cgm=mg/dL,meal=g,bolus=[IU],basal=[IU]/h" \\
      --tz Europe/Rome --set weight=70kg --key 0 --report anna.html
  hybridtwin optimize anna.csv --system T1D --units "cgm=mg/dL,meal=g,bolus=[IU],basal=[IU]/h" \\
      --tz Europe/Rome --set weight=70kg --key 0 --dose "bolus: 2..8 [IU] step 0.5 at 12:10 @12:00..13:00" \\
      --target "time_in_range(G, 70-180 mg/dL)" --limit "nadir(G) < 54 mg/dL at most 1 %" --report choice.html
  hybridtwin compare anna.csv --system T1D --units "cgm=mg/dL,meal=g,bolus=[IU],basal=[IU]/h" \\
      --tz Europe/Rome --set weight=70kg --key 0 \\
      --do "bolus=shift(-20 min)" --do "meal=*0.5 @07:00..12:00" --report compare.html

exit codes: 0 done; 1 a mistake in the record or the question; 2 a mistake in the command line;
            3 DO NOT USE, or CAUTION on a choice without --accept-risk (no numbers are printed); 130 interrupted
""" + NOTICE + "."
_RECORD = """The record is a table (.csv, .tsv, .gz) with a column of times and one column per quantity,
or with columns time, variable, value; an empty cell is nothing, "?" an event of unknown amount,
LOW and HIGH are censored readings. A table with a column AMT is read as NONMEM's."""
_DO = ('one world; repeat it for more. A comma combines changes in one world, @07:00..12:00 is the window of lived '
       'time: "bolus=shift(-20 min)", "meal=*0.5", "bolus=none @06:00..12:00", "bolus=bolus(6 [IU] at 12:10)" (in '
       'place of the doses of the window; +bolus(...) adds it), "basal=0.8 [IU]/h", "SI=*1.2"')


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser("hybridtwin", formatter_class=raw, epilog=_EPILOG, description=(
        "Personalize a physiological model to a person's record, and ask what another treatment would have done."))
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    twin = commands.add_parser("twin", help="personalize a model to a record", formatter_class=raw,
                               description="Personalize a model to a record.\n\n" + _RECORD, epilog=_EPILOG)
    compare = commands.add_parser("compare", help="personalize, then compare other treatments with the lived one",
                                  formatter_class=raw, epilog=_EPILOG, description=(
                                      "Personalize a model to a record, then compare other treatments of the same days "
                                      "with the lived one.\n\n" + _RECORD))
    optimize = commands.add_parser("optimize", help="personalize, then choose among treatments that can be delivered",
                                   formatter_class=raw, epilog=_EPILOG, description=(
                                       "Personalize a model to a record, then lay every treatment that is offered on the "
                                       "posterior: all of them in one table, harm beside benefit.\n\n" + _RECORD))
    for command in (twin, compare, optimize):
        _add_record(command)
    _add_choice(optimize)
    compare.add_argument("--do", action="append", required=True, metavar="WORLD", help=_DO)
    compare.add_argument("--outcome", action="append", metavar="OUTCOME", help=(
        'what is compared: "peak(G)", "time_in_range(G, 70-180 mg/dL)" or "auc(C) @08:00..20:00"; repeat it for more. '
        "Default: what the system suggests, with the harm beside the benefit"))
    compare.add_argument("--window", metavar="FROM..TO", help=(
        "window of the outcomes: 07:00..12:00. Default: from the first difference between the worlds to the end"))
    systems = commands.add_parser("systems", help="list the systems, or show one")
    systems.add_argument("name", nargs="?", metavar="NAME", help="show this system: equations, parameters, sources")
    systems.add_argument("--names", action="store_true", help="names only, one a line")
    systems.add_argument("--evidence", action="store_true",
                         help="with NAME: simulate a typical body and hold it against what was published")
    glycemia = commands.add_parser("glycemia", help="glycemic measures of a recording", formatter_class=raw, description=(
        "Time in ranges, variability, risk indices and episodes of a record's glucose, as the international consensus "
        "defines them.\n\n" + _RECORD))
    _add_table(glycemia)
    glycemia.add_argument("--readings", default="cgm", metavar="NAME", help="the column of glucose (default cgm)")
    glycemia.add_argument("--show", choices=("mg/dL", "mmol/L"), help="unit of the answer; by default the record's own")
    glycemia.add_argument("--window", metavar="FROM..TO", help="part of the record: 2026-03-01..2026-03-15")
    glycemia.add_argument("--episodes", action="store_true", help="list every episode")
    commands.add_parser("doctor", help="versions, devices, precision, cache")
    return top


def _add_table(command) -> None:
    """How a table is read."""
    add = command.add_argument
    add("record", metavar="RECORD", help="the person's table")
    add("--units", required=True, metavar="LIST", help=(
        'unit of every quantity: "cgm=mg/dL,meal=g,bolus=[IU],basal=[IU]/h"'))
    add("--tz", metavar="ZONE", help="time zone of times without offset, such as Europe/Rome")
    add("--time", metavar="UNIT", help="unit of a time column of numbers, such as h")
    add("--id", metavar="ID", help="the person to read, where the table has an id column")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="a covariate with its unit: weight=70kg")
    add("--covariates", choices=("LOCF", "NOCB"), help="how a covariate that changes holds between its rows")


def _add_choice(command) -> None:
    """What may be chosen, and for what."""
    add = command.add_argument
    add("--dose", action="append", default=[], metavar="OFFER", help=(
        'deliverable doses of one input: "bolus: 2..8 [IU] step 0.5 at 07:00, 07:20 @07:00..10:00" (in place of the doses of '
        'that window), "iv: 500, 750, 1000 mg at 22:00 every 8 h, 12 h max 1 g/h", or a ratio, "bolus: 1 [IU] per 6..12 g of '
        'meal step 1 before 0 min, 20 min"; repeat it to combine inputs'))
    add("--do", action="append", default=[], metavar="WORLD", help="a candidate more, as in compare; repeat it for more")
    add("--target", required=True, metavar="AIM", help=(
        '"auc(C) within 400-600 mg*h/L", "peak(G) at most 180 mg/dL", or an outcome that says which way is better, such as '
        '"time_in_range(G, 70-180 mg/dL)"'))
    add("--limit", action="append", default=[], metavar="CHANCE", help=(
        'a chance that must stay small, "nadir(G) < 54 mg/dL at most 1 %%"; repeat it for more'))
    add("--also", action="append", default=[], metavar="OUTCOME", help="a further harm to show beside the target")
    add("--window", metavar="FROM..TO", help="window of target, limits and harm; default: from the first difference to the end")
    add("--until", metavar="WHEN", help='choose for the time to come instead of the lived days: "24 h", or a time')
    add("--plan", action="append", default=[], metavar="INPUT", help=(
        'with --until: what else will be given, "meal=bolus(60 g at 07:30)"; a signal that is not said goes on, a dose is none'))
    add("--worst", type=float, metavar="SHARE", help="judge by the mean of this worst share of the losses, 0.1; default: by all")
    add("--accept-risk", metavar="REASON", help=(
        "why an answer under CAUTION is wanted all the same, in words; it then stands in every output"))


def _add_record(command) -> None:
    """A table, and how a person is learned from it."""
    _add_table(command)
    add = command.add_argument
    add("--system", required=True, metavar="NAME", help=(
        "a system of `hybridtwin systems`; T1D is both structures of type 1 diabetes, NAME+NAME pools several"))
    add("--key", type=int, required=True, metavar="N", help="seed of all chance: the same number gives the same answer")
    add("--sensor", action="append", default=[], metavar="NAME=KIND:OUTPUT", help=(
        "how a column of readings is read: cgm=CGM:G_isf, C=Combined2:C,prop=0.1. Default: CGM of G_isf for cgm (type "
        "1 diabetes), else combined error 2 of the output that has the column's name"))
    add("--method", choices=("auto", "importance", "nuts", "laplace"), default="auto",
        help="auto goes as far as a person needs (default); the others are its stages alone, laplace a quick look")
    add("--draws", type=int, metavar="N", help="posterior draws in all (default 1000)")
    add("--temper", type=float, metavar="T", help=(
        "the likelihood counts to the power 1/T: above 1 the model is known to be wrong. Default: 3 where several "
        "structures are pooled, else 1"))
    add("--report", metavar="FILE", help="write an HTML report here")
    add("--quiet", action="store_true", help="no progress")


# ------------------------------------------------------------------------------------------------------ set-up


def cache_dir() -> Path:
    """Where compiled programs are kept between runs: $HYBRIDTWIN_CACHE, else the user's cache folder."""
    if given := os.environ.get("HYBRIDTWIN_CACHE"):
        return Path(given)
    if sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "hybridtwin" / "xla"


def prepare() -> None:
    """Keep compiled programs between runs; errors raised inside a compiled program would defeat that cache."""
    os.environ.setdefault("EQX_ON_ERROR", "nan")
    import jax

    from hybridtwin import engine

    engine.prepare()
    if _setting("jax_compilation_cache_dir") is None:
        try:
            cache_dir().mkdir(parents=True, exist_ok=True)
        except OSError:
            return  # a cache is a convenience: without it everything works, and compiles again
        jax.config.update("jax_compilation_cache_dir", str(cache_dir()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _setting(name: str):
    """A setting of JAX by name."""
    import jax

    return getattr(jax.config, name)


def _tell(text: str = "") -> None:
    print(text, flush=True)


# -------------------------------------------------------------------------------------------------- reading in


def _person(args):
    """The record, with the covariates that were set."""
    import dataclasses

    from hybridtwin import grammar
    from hybridtwin.records import Person
    from hybridtwin.signals import Signal

    units = grammar.pairs(args.units, "--units")
    options = {"units": units, "tz": args.tz, "id": args.id, "covariates": args.covariates}
    if _is_nonmem(args.record):
        person = Person.from_nonmem(args.record, **options)
    else:
        person = Person.from_csv(args.record, time=args.time, **options)
    fixed = dict(person.covariates)
    for text in args.set:
        for name, value in grammar.pairs(text, "--set").items():
            number, unit = grammar.quantity(value, f"--set {name}")
            fixed[name] = Signal.constant(number, unit).resolve(person.clock, person.clock.unit, unit)
    if args.id is None and person.id == "person":
        person = dataclasses.replace(person, id=Path(args.record).name.split(".")[0])
    return dataclasses.replace(person, covariates=fixed)


def _is_nonmem(path: str) -> bool:
    """Whether the header of a table has a column AMT."""
    from hybridtwin.io import tables

    return tables.read(path, tables.Cells()).named("amt") is not None


def _readings(person) -> dict[str, tuple[float, str]]:
    """Series of the record: name -> (median, unit)."""
    import numpy as np

    return {name: (float(np.nanmedian(s.value)), s.unit) for name, s in person.series.items() if not np.all(s.missing)}


def _models(args, person):
    from hybridtwin import grammar, units
    from hybridtwin.binding import substance
    from hybridtwin.errors import NoReadings
    from hybridtwin.model import Model
    from hybridtwin.physiology import REGISTRY

    said = {}
    for text in args.sensor:
        name, _, rest = text.partition("=")
        said[name.strip()] = rest.strip()
    found = []
    for cls in grammar.systems(args.system, REGISTRY):
        spec, chosen = cls.spec, {}
        for name, (median, unit) in _readings(person).items():
            text = said.get(name) or _default_sensor(name, spec)
            if text is not None:
                of = text.partition(":")[2].split(",")[0].strip()
                target = (spec.outputs.get(of) or spec.states.get(of))
                scale = units.convert(median, unit, target.unit, substance(name)) if target else median
                chosen[name] = grammar.sensor(text, abs(scale) or 1.0)
        if missing := set(said) - set(chosen):
            raise NoReadings(f"--sensor names {sorted(missing)[0]!r}, which the record does not have", person=person.id,
                             column=sorted(missing)[0], remedy=f"It has {', '.join(person.series)}")
        if not chosen:
            raise NoReadings(f"no column of the record is an output of {cls.__name__} ({', '.join(spec.outputs)})",
                             person=person.id, remedy="Say how a column is read, such as --sensor dv=Combined2:"
                             + next(iter(spec.outputs)))
        found.append(Model(cls(), **chosen))
    return found


def _default_sensor(name: str, spec) -> str | None:
    """How a column is read unless told otherwise: see --sensor."""
    if "G_isf" in spec.outputs and name.lower() == "cgm":
        return "CGM:G_isf"
    if "G" in spec.outputs and name.lower() in ("glucose", "bg", "smbg", "cbg"):
        return "Combined2:G"
    return f"Combined2:{name}" if name in spec.outputs else None


def _twin(args, worlds=(), windows=(), check=None) -> Any:
    """Read and personalize: a `Twin`. Worlds, windows and what `check` (of a system's spec) looks at are checked first."""
    prepare()
    from hybridtwin import grammar
    from hybridtwin.errors import PastHorizon
    from hybridtwin.inference.methods import NUTS, Auto, Importance, Laplace
    from hybridtwin.inference.personalize import personalize

    person = _person(args)
    _tell(repr(person))
    models = _models(args, person)
    for asked in worlds:
        windows = [*windows, *((each.start, each.stop) for each, _ in grammar.suited(models[0].spec, asked))]
    if check is not None:
        check(models[0].spec)
    for start, stop in windows:
        begins, ends = person.clock.window(start, stop, person.clock.start, person.clock.stop)
        if begins > person.clock.stop or ends < person.clock.start:
            raise PastHorizon(f"the window {start}..{stop} lies outside the record. Choose a time inside it.")
    temper = args.temper or (3.0 if len(models) > 1 else 1.0)
    draws = args.draws or 1000
    if args.method == "nuts":
        method = NUTS(draws=max(draws // 4, 20), chains=4)
    else:
        method = {"auto": Auto, "importance": Importance, "laplace": Laplace}[args.method](draws=max(draws, 80))
    return personalize(models if len(models) > 1 else models[0], person, method, key=args.key, temper=temper,
                       progress=not args.quiet)


# ---------------------------------------------------------------------------------------------------- commands


def _do_twin(args) -> int:
    twin = _twin(args)
    _tell("\n" + repr(twin))
    if args.report:
        _tell(f"\nreport: {twin.report(args.report)}")
    return 3 if twin.verdict.headline == "DO NOT USE" else 0


def _do_compare(args) -> int:
    from hybridtwin import grammar

    asked = [grammar.world(text) for text in args.do]  # a slip of the pen is told before minutes of work
    windows = [grammar.windowed(f"x @{args.window}")[1:]] if args.window else []
    named = [grammar.outcome(text) for text in args.outcome or ()]
    windows += [(each.start, each.stop) for each in named]
    lived = _twin(args, asked, windows, lambda spec: grammar.known_outputs(spec, named))
    from hybridtwin.causal.contrast import contrast

    _tell("\n" + repr(lived))
    twins = [grammar.enact(lived, each) for each in asked]
    wanted = _outcomes(args, lived, twins)
    effects, refused = [], False
    for text, twin in zip(args.do, twins, strict=True):
        effect = contrast(twin, lived, *wanted)
        effects.append(effect)
        _tell(f"\n{text}")
        if "DO NOT USE" in (effect.verdict.headline, lived.verdict.headline):
            refused = True
            _tell(f"{effect.verdict!r}\nDO NOT USE: no numbers of this comparison are printed.")
        else:
            _tell(str(effect.text))
    if args.report:
        _tell(f"\nreport: {lived.report(args.report, effects)}")
    return 3 if refused else 0


def _do_optimize(args) -> int:
    from hybridtwin import grammar
    from hybridtwin.aims import CVaR, Expected
    from hybridtwin.causal.optimize import optimize
    from hybridtwin.errors import DeclarationError

    if args.accept_risk is not None and len(args.accept_risk.strip()) < 8:
        raise DeclarationError(f"--accept-risk {args.accept_risk!r} is no reason. Write why this risk is taken, in words.")
    offers, worlds = [grammar.offer(text) for text in args.dose], {text: grammar.world(text) for text in args.do}
    if not offers and not worlds:
        raise DeclarationError('what may be chosen? Give --dose "bolus: 2..8 [IU] step 0.5 at 07:00", --do, or both.')
    planned = [each for text in args.plan for each in grammar.world(text)]
    if planned and not args.until:
        raise DeclarationError('--plan is for the time to come. Add --until "24 h", or change the lived day with --do.')
    for each in offers:
        if not args.until and each.start is None and each.stop is None:
            raise DeclarationError(f"which lived doses of {each.name} do these replace? Add a window, @07:00..10:00, or choose "
                                   'for the time to come with --until "24 h".')  # fmt: skip
    window = grammar.windowed(f"x @{args.window}")[1:] if args.window else (None, None)
    named = [grammar.aim(args.target).outcome, *(grammar.chance(text).outcome for text in args.limit),
             *(grammar.outcome(text) for text in args.also)]  # fmt: skip
    risk = Expected() if args.worst is None else CVaR(args.worst)
    windows = [] if args.until else [window, *((each.start, each.stop) for each in offers)]

    def check(spec):  # a slip of the pen is told before minutes of work
        grammar.known_doses(spec, offers, planned)
        grammar.known_outputs(spec, named)

    lived = _twin(args, [] if args.until else worlds.values(), windows, check)
    _tell("\n" + repr(lived))
    if lived.verdict.headline == "DO NOT USE":
        _tell("\nDO NOT USE: no treatment is shown.")
        _tell(f"\nreport: {lived.report(args.report)}" if args.report else "")
        return 3
    base = grammar.forecast(lived, args.until, planned) if args.until else lived
    chosen = grammar.candidates(base, offers, worlds)
    if window == (None, None):
        onsets = [w.onset for w in (twin.world() for twin in chosen.values()) if w.onset is not None]
        window = (min(onsets), None) if onsets and min(onsets) < base.stop else window
    asked = {"target": grammar.aim(args.target, *window), "limits": [grammar.chance(text, *window) for text in args.limit]}
    try:
        found = optimize(base, chosen, **asked, risk=risk, accept=args.accept_risk,
                         also=[grammar.outcome(text, *window) for text in args.also])  # fmt: skip
    except NotTrustworthy as error:
        raise NotTrustworthy(str(error).replace('accept="why"', '--accept-risk "why"')) from None
    refused = found.verdict.headline == "DO NOT USE"
    _tell(f"\n{found.verdict!r}\nDO NOT USE: no treatment is shown." if refused else f"\n{found.text}")
    if args.report:
        _tell(f"\nreport: {lived.report(args.report, found)}")
    return 3 if refused else 0


def _outcomes(args, lived, twins):
    """What is compared: what was asked, else what the system's outputs suggest."""
    from hybridtwin import grammar, outcomes, units

    start = stop = None
    if args.window:
        _, start, stop = grammar.windowed(f"x @{args.window}")
    elif onsets := [w.onset for w in (twin.world() for twin in twins) if w.onset is not None]:
        start = min(onsets) if min(onsets) < lived.stop else None
    if args.outcome:
        return [grammar.outcome(text, start, stop) for text in args.outcome]
    spec, found = lived.fits[0].model.spec, []
    if "G" in spec.outputs:
        molar = any(units.parse(s.unit).same_dimension(units.parse("mmol/L")) for s in lived.record.series.values())
        unit, low, high = ("mmol/L", 3.9, 10.0) if molar else ("mg/dL", outcomes.HYPO, outcomes.HYPER)
        return [outcomes.peak("G", start, stop, unit=unit), outcomes.mean("G", start, stop, unit=unit),
                outcomes.time_in_range("G", low, high, unit, start, stop)]
    for name in dict.fromkeys(s.of for s in lived.fits[0].model.sensors.values()):
        if name in spec.outputs and units.parse(spec.outputs[name].unit).same_dimension(units.parse("mg/L")):
            found += [kind(name, start, stop) for kind in (outcomes.auc, outcomes.cmax, outcomes.trough)]
        elif name in spec.outputs:
            found += [kind(name, start, stop) for kind in (outcomes.mean, outcomes.nadir, outcomes.peak)]
    return found


def _do_systems(args) -> int:
    import inspect

    from hybridtwin import drawing, grammar
    from hybridtwin.physiology import REGISTRY, evidence

    if args.name:
        for cls in grammar.systems(args.name, REGISTRY):
            _tell(f"{cls.__name__}\n\n{inspect.getdoc(cls)}\n\n{cls()!r}\n")
            if args.evidence:
                _tell(f"{evidence(cls)!r}\n")
    elif args.names:
        _tell("\n".join(REGISTRY))
        return 0
    else:
        wide = max(map(len, REGISTRY))
        for name, cls in REGISTRY.items():
            spec = cls.spec
            _tell(f"{name:<{wide}}  {(inspect.getdoc(cls) or '').splitlines()[0]}")
            groups = {"doses": spec.doses, "signals": spec.signals, "outputs": spec.outputs}
            told = [f"{group} " + ", ".join(f"{n} ({f.unit})" for n, f in fields.items())
                    for group, fields in groups.items() if fields]
            _tell(f"{'':<{wide}}  time in {spec.time}; {'; '.join(told)}")
            _tell(f"{'':<{wide}}  source: {drawing.source(cls())}")
        _tell(f"{'T1D':<{wide}}  T1DMinimal and T1DTwoPool, pooled\n\nOne of them in full: hybridtwin systems NAME")
    _tell(f"\n{NOTICE}.")
    return 0


def _do_glycemia(args) -> int:
    from hybridtwin import grammar
    from hybridtwin.glycemia import glycemic

    start, stop = grammar.windowed(f"x @{args.window}")[1:] if args.window else (None, None)
    found = glycemic(_person(args), args.readings, start, stop, unit=args.show)
    _tell(repr(found))
    for each in found.episodes if args.episodes else ():
        _tell(f"  {each.kind:<18} {each.start}, {each.hours:.2f} h{'' if each.ended else ', end not seen'}")
    return 0


def _do_doctor(args) -> int:
    prepare()
    import platform

    import jax
    import jax.numpy as jnp

    from hybridtwin import engine
    from hybridtwin.versions import versions

    _tell("\n".join([f"{'python':<12} {platform.python_version()} on {platform.platform()}",
                     *(f"{name:<12} {number}" for name, number in versions().items())]))
    devices = ", ".join(f"{d.device_kind} ({d.platform})" for d in jax.devices())
    _tell(f"{'devices':<12} {devices}; {os.cpu_count()} CPU cores; "
          f"loops {'fused' if engine.fast_loops() else 'as XLA has them'}")
    with engine.double():
        double = jnp.zeros(1).dtype == "float64"
    _tell(f"{'precision':<12} verbs compute in {'float64' if double else 'float32: something has switched x64 off'}; "
          f"global x64 is {'on' if _setting('jax_enable_x64') else 'off'}")
    folder = _setting("jax_compilation_cache_dir")
    if folder is None:
        _tell(f"{'cache':<12} none: {cache_dir()} cannot be written; name another in HYBRIDTWIN_CACHE")
    else:
        files = [f for f in Path(folder).glob("*") if f.is_file()]
        _tell(f"{'cache':<12} {folder}: {len(files)} files, {sum(f.stat().st_size for f in files) / 1e6:.1f} MB "
              "(safe to delete)")
    from hybridtwin.datasets import files as data

    roots = [str(root) for root in data.roots() if Path(root).is_dir()]
    _tell(f"{'data':<12} {', '.join(roots) or 'no local data sets; public ones are fetched when asked for'}")
    _tell(f"\n{NOTICE}.")
    return 0


_COMMANDS = {"twin": _do_twin, "compare": _do_compare, "optimize": _do_optimize, "systems": _do_systems, "glycemia": _do_glycemia,
             "doctor": _do_doctor}


def main(argv=None) -> int:
    """Run one command; returns the exit code (see the module). argparse leaves with 2 itself."""
    args = _parser().parse_args(argv)
    try:
        code = _COMMANDS[args.command](args)
        sys.stdout.flush()
    except NotTrustworthy as error:
        sys.stderr.write(f"hybridtwin: {error}\n")
        code = 3
    except BrokenPipeError:  # whoever read the answer (head, less) has enough: no error of ours, nor one when Python leaves
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (HybridTwinError, OSError) as error:
        sys.stderr.write(f"hybridtwin: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("hybridtwin: interrupted\n")
        return 130
    if args.command in ("twin", "compare", "optimize", "glycemia"):
        _tell(f"\n{NOTICE}.")
    return code


if __name__ == "__main__":
    sys.exit(main())
