"""The command line: what it understands, what it answers, how it leaves."""

import os
import subprocess
import sys

import made
import pytest

from hybridtwin import cli, grammar, outcomes
from hybridtwin.causal.contrast import contrast
from hybridtwin.errors import (
    AmbiguousDose,
    DeclarationError,
    HybridTwinError,
    InterventionError,
    UnitError,
    UnknownTarget,
)
from hybridtwin.physiology import REGISTRY

NOTICE = "Research use; not a medical device"
QUICK = ["--method", "laplace", "--draws", "200", "--quiet"]
KNOWN = ["--system", "OneCompartmentOral", "--units", "oral=mg,C=mg/L", "--time", "h", "--key", "0"]


pytestmark = pytest.mark.usefixtures("command_line")


def lived(name="oral"):
    return made.twin().world().inputs[name]


def amounts(regimen):
    return [(d.time, d.amount) for d in regimen]


# --------------------------------------------------------------------------------------------------------- grammar


def world(text):
    return made.twin().clock, grammar.enact(made.twin(), grammar.world(text)).world()


@pytest.mark.parametrize(("text", "expected"), [
    ("oral=shift(20 min)", [(8 + 1 / 3, 320), (16 + 1 / 3, 320)]),
    ("oral=shift(+1 h) @15:00..", [(8, 320), (17, 320)]),
    ("oral=*0.5", [(8, 160), (16, 160)]),
    ("oral = * 2 @ 15:00 .. 17:00", [(8, 320), (16, 640)]),
    ("oral=none", []),
    ("oral=none @..10:00", [(16, 320)]),
    ("oral=bolus(100 mg at 12:00)", [(12, 100)]),
    ("oral=bolus(0.1 g at 12:00) @15:00..17:00", [(8, 320), (12, 100)]),
    ("oral=+bolus(100 at 12:00)", [(8, 320), (12, 100), (16, 320)]),
    ("oral=shift(1 h), oral=*0.5", [(9, 160), (17, 160)]),
])
def test_worlds_of_doses(text, expected):
    _, found = world(text)
    assert [t for t, _ in amounts(found.inputs["oral"])] == pytest.approx([t for t, _ in expected])
    assert [a for _, a in amounts(found.inputs["oral"])] == pytest.approx([a for _, a in expected])


@pytest.mark.parametrize(("text", "kept"), [
    ("oral=*0.5 @..10:00", ["oral 320 mg at Tue 24 Mar 16:00"]),
    ("oral=*0.5 @..10:00, oral=bolus(320 mg at 16:00) @15:00..17:00", []),
    ("oral=*0.5 @..10:00, oral=+bolus(10 mg at 20:00)", ["oral 320 mg at Tue 24 Mar 16:00"]),
], ids=["left alone", "written down", "another one added"])
def test_a_dose_that_a_world_of_text_writes_down_is_no_decision_that_was_kept(text, kept):
    other = grammar.enact(made.twin(), grammar.world(text))
    assert list(contrast(other, made.twin(), outcomes.auc("C")).kept) == kept


def test_an_infusion_and_a_parameter():
    _, found = world("iv=infusion(500 mg at 09:00 over 1 h)")
    assert [(d.time, d.amount, d.duration) for d in found.inputs["iv"]] == [(9.0, 500.0, 1.0)]
    _, found = world("CL=*1.2")
    assert found.overrides[0].path == "CL" and found.overrides[0].change(2.0) == pytest.approx(2.4)
    _, found = world("CL=3")
    assert found.overrides[0].change == pytest.approx(3.0)
    _, found = world("CL=50 mL/min")
    assert found.overrides[0].change == pytest.approx(3.0)


def test_a_world_is_told_in_words():
    twin = grammar.enact(made.twin(), grammar.world("oral=shift(-20 min) @09:00..17:00, CL=3 L/h"))
    assert twin.label == "oral = 20 min earlier from 09:00 until 17:00; CL = 3 L/h"


@pytest.mark.parametrize("text", [
    "", "oral", "oral=", "=4", "oral=shift(20)", "oral=later", "oral=*x", "oral=*0.5 @07:00", "oral=bolus(6 mg)",
    "oral=__import__('os')", "oral=shift(-20 min"])
def test_what_is_no_world_is_refused_with_the_forms_there_are(text):
    with pytest.raises(InterventionError, match=r"Write "):
        grammar.world(text)


def test_mistakes_in_a_world_name_their_remedy():
    with pytest.raises(AmbiguousDose, match=r"oral=bolus\(4 mg at"):
        grammar.enact(made.twin(), grammar.world("oral=4 mg"))
    with pytest.raises(UnknownTarget, match="oral"):
        grammar.enact(made.twin(), grammar.world("orall=*2"))
    with pytest.raises(UnitError):
        grammar.enact(made.twin(), grammar.world("CL=3 kg"))
    for text in ("CL=bolus(3 mg at 12:00)", "CL=shift(1 h)", "CL=none"):
        with pytest.raises(InterventionError, match=r"CL=\*1.2"):
            grammar.enact(made.twin(), grammar.world(text))


def test_a_window_outside_the_record_is_told_before_the_fit(tmp_path, capsys):
    rows = ["time,oral,C", "2026-03-09 00:00,320,", *(f"2026-03-09 {h:02d}:00,,{9 - 0.3 * h:.2f}" for h in range(1, 11))]
    (tmp_path / "short.csv").write_text("\n".join(rows) + "\n")
    common = ["compare", str(tmp_path / "short.csv"), *KNOWN[:4], "--tz", "UTC", "--key", "0", *QUICK]
    for asked in (["--do", "oral=*0.5 @06:00..12:00"], ["--do", "oral=*0.5", "--window", "06:00..12:00"],
                  ["--do", "oral=*0.5", "--outcome", "peak(C) @09:00..12:00"]):  # fmt: skip
        assert cli.main([*common, *asked]) == 1
        told = capsys.readouterr()
        assert "12:00" in told.err and "no day of the record" in told.err and "verdict" not in told.out + told.err


def test_outcomes_in_words():
    assert grammar.outcome("peak(G)", "07:00", "12:00").start == "07:00"
    found = grammar.outcome("time_below(G, 70 mg/dL) @06:00..09:00", "07:00", "12:00")
    assert (found.start, found.stop, found.unit) == ("06:00", "09:00", "%")
    assert grammar.outcome("time_in_range(G, 3.9-10 mmol/L)").measure.high == 10.0
    assert grammar.outcome("at(C, 12)").start == 12.0 and grammar.outcome("at(C, 12:00)").start == "12:00"
    for text in ("peak", "peak()", "highest(G)", "time_below(G)", "time_below(G, 70)", "at(C)", "peak(G, 70)"):
        with pytest.raises(DeclarationError, match="Write"):
            grammar.outcome(text)


def test_units_sensors_and_systems_in_words():
    assert grammar.pairs("cgm=mg/dL, bolus=[IU]", "--units") == {"cgm": "mg/dL", "bolus": "[IU]"}
    assert grammar.quantity("70kg", "--set") == (70.0, "kg")
    for text in ("cgm", "=mg", "cgm="):
        with pytest.raises(UnitError):
            grammar.pairs(text, "--units")
    with pytest.raises(UnitError, match="70 kg"):
        grammar.quantity("70", "--set weight")
    assert grammar.sensor("Combined2:C,prop=0.1", 5.0).prop == 0.1
    assert grammar.sensor("CGM:G_isf", 120.0).of == "G_isf"
    for text in ("CGM", "CMG:G", "CGM:", "Combined2:C,prop=x", "Combined2:C,nothing=1"):
        with pytest.raises(HybridTwinError):
            grammar.sensor(text, 1.0)
    assert [s.__name__ for s in grammar.systems("T1D", REGISTRY)] == ["T1DMinimal", "T1DTwoPool"]
    with pytest.raises(UnknownTarget, match="OneCompartment"):
        grammar.systems("OneCompartmen", REGISTRY)


# -------------------------------------------------------------------------------------------------------- commands


def test_help_is_for_newcomers_and_loads_nothing_heavy():
    code = ("import sys; from hybridtwin.cli import main\n"
            "try:\n    main(['compare', '--help'])\nexcept SystemExit as left:\n    assert left.code == 0\n"
            "assert 'jax' not in sys.modules or 'hybridtwin.inference' not in sys.modules")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for word in ("examples:", "shift(-20 min)", "exit codes:", "--units", NOTICE):
        assert word in done.stdout


def test_usage_leaves_with_two(capsys):
    for arguments in ([], ["twin"], ["compare", "x.csv", "--system", "T1D"], ["nothing"]):
        with pytest.raises(SystemExit) as left:
            cli.main(arguments)
        assert left.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_systems_are_listed_and_shown(capsys):
    assert cli.main(["systems", "--names"]) == 0
    assert capsys.readouterr().out.split() == list(REGISTRY)
    assert cli.main(["systems"]) == 0
    text = capsys.readouterr().out
    assert NOTICE in text and "basal ([IU]/h)" in text and "T1D " in text
    assert cli.main(["systems", "T1DMinimal"]) == 0
    assert "dX/dt" in capsys.readouterr().out
    assert cli.main(["systems", "T1DMinimum"]) == 1
    assert "T1DMinimal" in capsys.readouterr().err


def test_glycemic_measures_of_a_table(tmp_path, capsys):
    path = tmp_path / "anna.csv"
    rows = ["time,cgm"] + [f"{5 * k},{60 if 20 <= k < 50 else 120}" for k in range(288)]
    path.write_text("\n".join(rows))
    told = ["glycemia", str(path), "--units", "cgm=mg/dL", "--time", "min"]
    assert cli.main([*told, "--episodes"]) == 0
    out = capsys.readouterr().out
    assert "Glycemic measures of anna" in out and "MAGE" in out and "CAUTION: 1 days" in out and NOTICE in out
    assert "  extended below 70" in out and "2.50 h" in out
    assert cli.main([*told, "--show", "mmol/L", "--window", "0..600"]) == 0
    out = capsys.readouterr().out
    assert "3.9 to 10.0 mmol/L" in out and "120 readings" in out
    assert cli.main([*told, "--readings", "glucose"]) == 1


def test_doctor_tells_versions_devices_precision_and_cache(capsys):
    assert cli.main(["doctor"]) == 0
    text = capsys.readouterr().out
    for word in ("jax", "numpyro", "devices", "float64", "cache", NOTICE):
        assert word in text


@pytest.mark.parametrize(("change", "told"), [
    ({"record": "nothing.csv"}, "there is no file"),
    ({"--system": "T1DMax"}, "there is no system"),
    ({"--units": "oral=mg"}, "'C'"),
    ({"--units": "oral=mg,C=U/L"}, "[IU]"),
    ({"--time": None}, "time="),
    ({"--set": "weight=70"}, "70 kg"),
    ({"--sensor": "dv=Combined2:C"}, "--sensor names 'dv'"),
    ({"--sensor": "C=Combined2:G"}, "'G'"),
])
def test_a_users_mistake_is_told_without_a_traceback(table, capsys, change, told):
    options = dict(zip(KNOWN[::2], KNOWN[1::2], strict=True)) | {k: v for k, v in change.items() if k != "record"}
    given = [part for key, value in options.items() if value is not None for part in (key, value)]
    assert cli.main(["twin", change.get("record", table), *given]) == 1
    out, err = capsys.readouterr()
    assert told in err and err.startswith("hybridtwin: ") and "Traceback" not in err + out


def test_a_slip_in_a_world_is_told_before_the_work(table, capsys):
    assert cli.main(["compare", table, *KNOWN, "--do", "oral=later"]) == 1
    out, err = capsys.readouterr()
    assert "shift(-20 min)" in err and "verdict" not in out


def test_a_slip_in_what_is_asked_is_told_before_the_work(table, capsys, monkeypatch):
    monkeypatch.setattr("hybridtwin.inference.personalize.personalize", lambda *_, **__: pytest.fail("it was personalized first"))
    assert cli.main(["compare", table, *KNOWN, "--do", "oral=*0.5", "--outcome", "auc(c)"]) == 1
    assert "'c' is no output" in (err := capsys.readouterr().err) and "Did you mean 'C'" in err
    offer = ["optimize", table, *KNOWN, "--dose", "oral: 160, 320 mg at 16:00 @15:00..17:00"]
    assert cli.main([*offer, "--target", "auc(C) 80-160 mg*h/L", "--limit", "cmax(B) > 9 mg/L at most 5 %"]) == 1
    assert "'B' is no output" in capsys.readouterr().err
    assert cli.main([*offer, "--target", "auc 80-160"]) == 1
    assert "within 400-600 mg*h/L" in capsys.readouterr().err, "the forms of a target, not those of an outcome"
    one, other = (grammar.aim(f"auc(C) {between}80-160 mg*h/L") for between in ("", "within "))
    assert (one.low, one.high, one.unit) == (other.low, other.high, other.unit)


def test_interrupted_work_leaves_with_130(monkeypatch, capsys):
    def stopped(args):
        raise KeyboardInterrupt

    monkeypatch.setitem(cli._COMMANDS, "doctor", stopped)
    assert cli.main(["doctor"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_twin_from_a_table_to_a_report(table, tmp_path, capsys):
    report = tmp_path / "theo.html"
    code = cli.main(["twin", table, *KNOWN, *QUICK, "--report", str(report)])
    out, err = capsys.readouterr()
    assert code == 0 and err == ""
    assert "verdict: " in out and "CL" in out and str(report) in out and out.rstrip().endswith(NOTICE + ".")
    assert NOTICE in report.read_text(encoding="utf-8")


def test_worlds_compared_on_a_table(table, tmp_path, capsys):
    report = tmp_path / "compare.html"
    code = cli.main(["compare", table, *KNOWN, *QUICK, "--do", "oral=*0.5", "--do", "oral=shift(2 h), CL=*1.2",
                     "--report", str(report)])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    assert "oral = 0.5 times as lived compared with as lived" in out
    assert "oral = 2 h later; CL = 1.2 times as lived compared with as lived" in out
    assert "AUC of C, 0 h to 24.37 h" in out and "mg*h/L (90 % credible interval" in out
    assert "Prior alone" in out and "Watched for harm" not in out.split("AUC")[0]
    assert out.count(NOTICE) == 3 and "Comparison 2 of 2" in report.read_text(encoding="utf-8")


def test_do_not_use_prints_no_number_and_leaves_with_three(table, tmp_path, capsys, monkeypatch):
    from hybridtwin.causal import contrast

    monkeypatch.setattr(contrast, "_judge", lambda *_: made.verdict("DO NOT USE"))
    report = tmp_path / "red.html"
    code = cli.main(["compare", table, *KNOWN, *QUICK, "--do", "oral=*0.5", "--outcome", "cmax(C)", "--window", "1..9",
                     "--report", str(report)])
    out, _ = capsys.readouterr()
    assert code == 3 and "DO NOT USE" in out and "residuals are 9.9" in out
    for shown in (out, report.read_text(encoding="utf-8")):
        assert "credible interval" not in shown and "P(lower)" not in shown and "P(higher)" not in shown


def test_a_window_outside_the_record_is_a_users_mistake(table, capsys):
    asked = ["--do", "oral=*0.5", "--outcome", "cmax(C)", "--window", "1..90"]
    assert cli.main(["compare", table, *KNOWN, *QUICK, *asked]) == 1
    assert "outside" in capsys.readouterr().err


def test_a_misspelled_target_is_refused_before_any_work():
    from hybridtwin import grammar
    from hybridtwin.errors import UnknownTarget
    from hybridtwin.physiology import T1DMinimal

    with pytest.raises(UnknownTarget, match="bolus"):
        grammar.suited(T1DMinimal().spec, grammar.world("bolos=*0.5"))


def test_a_reader_that_has_enough_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    code = "import sys; from hybridtwin.cli import main; sys.exit(main(['systems', '--names']))"
    done = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.returncode == 141 and not done.stderr
