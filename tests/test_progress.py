"""Progress: lines where there is no terminal, nothing when told so, and the error that stopped the work."""

import pytest

from hybridtwin import progress


def test_lines_say_how_far_and_how_long(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.bar("personalizing anna") as tell:
        for second in range(0, 101, 2):
            now[0] = float(second)
            tell(second, 100, "3 diverging")
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and lines[-1] == "personalizing anna: done after 1:40"
    middle = next(line for line in lines if " 50 %" in line)
    assert middle == "personalizing anna: 50 % · 3 diverging · 0:50 so far · about 0:50 left"
    assert len(lines) <= 22


def test_short_work_says_nothing(capsys):
    with progress.bar("quick") as tell:
        tell(1, 1)
    assert capsys.readouterr() == ("", "")


def test_disabled_is_silent_and_errors_pass(capsys):
    with progress.bar("silent", enabled=False) as tell:
        tell(1, 2, "x")
    with pytest.raises(KeyError), progress.bar("fails") as tell:
        tell(1, 2)
        raise KeyError("x")
    assert capsys.readouterr().out == ""


def test_a_terminal_gets_a_bar(monkeypatch):
    import io

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with progress.bar("personalizing [anna]") as tell:
        tell(1, 2, "0 diverging")
    assert "personalizing [anna]" in screen.getvalue() and "done" in screen.getvalue()
