"""How far long work has come, told while it runs: a bar in a terminal, a changing line in a notebook, else plain lines.

    with progress.bar("personalizing anna") as tell:
        tell(done, total, "3 diverging")

Everything goes to stderr, so that a result piped to a file stays clean.
"""

import contextlib
import sys
import threading
import time

_EVERY = 5.0  # seconds between plain lines
_FIRST = 1.5  # what is over sooner says nothing
_ENOUGH = 0.1  # share of the work that must be seen before a pace is told


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class _Pace:
    """Elapsed time and time left.

    The first call's work includes compilation, so the pace is taken from the first report on, not from the start.
    """

    def __init__(self):
        self.start = time.monotonic()
        self._first: tuple[float, float] | None = None

    def left(self, share: float) -> float | None:
        """Seconds left at a share done, None while nobody can tell."""
        now = time.monotonic()
        if self._first is None and share > 0:
            self._first = (now, share)
        if self._first is None or share < self._first[1] + _ENOUGH:
            return None
        return (now - self._first[0]) * (1 - share) / (share - self._first[1])

    def text(self, title: str, share: float, note: str) -> str:
        """One line: how far, what is notable, time used and left."""
        left = self.left(share)
        parts = [f"{100 * share:.0f} %"] + [note] * bool(note) + [f"{_clock(time.monotonic() - self.start)} so far"]
        if share == 0:
            parts.append("compiling or reading the cache")
        elif left is not None:
            parts.append(f"about {_clock(left)} left")
        return f"{title}: " + " · ".join(parts)


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"


class _Lines:
    """Plain lines on stderr, few of them."""

    def __init__(self, title):
        self._title, self._pace, self._next = title, _Pace(), time.monotonic() + _FIRST

    def tell(self, share, note):
        if time.monotonic() >= self._next:
            sys.stderr.write(self._pace.text(self._title, share, note) + "\n")
            sys.stderr.flush()
            self._next = time.monotonic() + _EVERY

    def close(self, finished):
        used = time.monotonic() - self._pace.start
        if used >= _FIRST:
            sys.stderr.write(f"{self._title}: {'done' if finished else 'stopped'} after {_clock(used)}\n")
            sys.stderr.flush()


class _Notebook:
    """One line in the cell's output that changes in place; needs no widgets."""

    def __init__(self, title):
        from IPython.display import display  # pyright: ignore[reportMissingImports]  # there is one where this runs

        self._title, self._pace, self._last = title, _Pace(), 0.0
        self._handle = display(self._bundle(self._pace.text(title, 0.0, "")), raw=True, display_id=True)

    @staticmethod
    def _bundle(text):
        return {"text/plain": text}

    def tell(self, share, note):
        if self._handle is not None and time.monotonic() - self._last > 0.2:
            self._handle.update(self._bundle(self._pace.text(self._title, share, note)), raw=True)
            self._last = time.monotonic()

    def close(self, finished):
        if self._handle is not None:
            text = f"{'done' if finished else 'stopped'} after {_clock(time.monotonic() - self._pace.start)}"
            self._handle.update(self._bundle(f"{self._title}: {text}"), raw=True)


class _Terminal:
    """A bar drawn by rich."""

    def __init__(self, title):
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._pace = _Pace()
        self._bar = Progress(SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=28),
                             TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn(),
                             TextColumn("{task.fields[note]}", markup=False),
                             console=Console(stderr=True))
        self._task = self._bar.add_task(escape(title), total=1.0, note="compiling or reading the cache")
        self._bar.start()

    def tell(self, share, note):
        left = self._pace.left(share)
        notes = [note] * bool(note) + ([f"about {_clock(left)} left"] if left is not None else [])
        self._bar.update(self._task, completed=share, note=" · ".join(notes))

    def close(self, finished):
        self._bar.update(self._task, **({"completed": 1.0, "note": "done"} if finished else {"note": "stopped"}))
        self._bar.stop()


@contextlib.contextmanager
def bar(title: str, *, enabled: bool = True):
    """A context that yields `tell(done, total, note)`; safe to call from several threads.

    With `enabled=False` nothing is shown and nothing else changes.
    """
    if not enabled:
        yield lambda done, total, note="": None
        return
    shown = _Notebook(title) if _in_notebook() else _Terminal(title) if sys.stderr.isatty() else _Lines(title)
    lock, finished, furthest = threading.Lock(), False, 0.0

    def tell(done: float, total: float, note: str = "") -> None:
        nonlocal furthest
        with lock:  # work may turn out to be longer than it looked: then the bar stands still, and never goes back
            furthest = max(furthest, min(done / total, 1.0)) if total else furthest
            shown.tell(furthest, note)

    try:
        yield tell
        finished = True
    finally:
        shown.close(finished)
