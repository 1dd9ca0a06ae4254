"""Any table as named columns of cells with row numbers: a path, a pandas or polars frame, or a dict of columns.

Nothing is interpreted here but the frame of the file (compression, byte order mark, delimiter, decimal comma) and,
cell by cell, what is a number, a blank, or a mark of something that could not be measured.
"""

import csv
import gzip
import io
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from difflib import get_close_matches
from numbers import Real
from pathlib import Path
from typing import Any

from hybridtwin.errors import EmptyRecord, MissingColumn, MissingValue, NotANumber, RecordError, SplitId
from hybridtwin.records import Note

BLANK = {"", ".", "na", "n/a", "null", "none"}
_CENSORED = re.compile(r"^\s*([<>≤≥])=?\s*(.+)$")
_LOW, _HIGH = {"low", "lo"}, {"high", "hi"}


@dataclass(frozen=True)
class Cells:
    """How cells are to be read.

    rename: column of the table -> name. categories: column -> {text: number}.
    below, above: column -> the device's limits (in the column's unit); a value at or past one is censored.
    missing: name -> (median, log-sd), the prior of an amount that nobody wrote down (in the column's unit).
    """

    rename: Mapping[str, str] = field(default_factory=dict)
    categories: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    below: Mapping[str, float] = field(default_factory=dict)
    above: Mapping[str, float] = field(default_factory=dict)
    missing: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, **options) -> "Cells":
        known = list(cls.__dataclass_fields__)
        for name in options:
            if name not in known:
                raise TypeError(f"a reader has no option {name!r}{nearest(name, known)} It has {', '.join(known)}.")
        return cls(**{name: value for name, value in options.items() if value is not None})


@dataclass(frozen=True)
class Table:
    """Columns of equal length; `rows` numbers the data rows from 1; `comma`: decimal commas are read."""

    columns: Mapping[str, list]
    rows: list[int]
    comma: bool = False
    notes: tuple[Note, ...] = ()

    def named(self, *names: str) -> str | None:
        """The first column that is called one of `names`, in any case."""
        lower = {c.lower(): c for c in reversed(list(self.columns))}
        return next((lower[n.lower()] for n in names if n.lower() in lower), None)

    def need(self, name: str, remedy: str = "") -> str:
        found = self.named(name)
        if found is None:
            raise MissingColumn(f"there is no column {name!r} among {', '.join(self.columns)}", column=name,
                                remedy=remedy or f'Add it, or rename another: rename={{"...": {name!r}}}')
        return found


def nearest(name: str, known: Iterable[str]) -> str:
    """". Did you mean 'x'?" or "."."""
    lower = {k.lower(): k for k in known}
    near = get_close_matches(name.lower(), list(lower), n=1)
    return f". Did you mean {lower[near[0]]!r}?" if near else "."


def read(table: Any, cells: Cells) -> Table:
    """The table with its columns renamed. Blank rows are listed in `notes`, never silently skipped.

    Errors: RecordError (no such file, not text, ragged row, a name twice), EmptyRecord, MissingColumn (in rename).
    """
    if isinstance(table, (str, Path)):
        found = _from_path(Path(table).expanduser())
    elif type(table).__module__.split(".")[0] in ("pandas", "polars"):
        found = _from_columns({str(c): list(table[c]) for c in table.columns})
    elif isinstance(table, Mapping):
        found = _from_columns({str(name): list(values) for name, values in table.items()})
    else:
        raise RecordError(f"cannot read a table from {type(table).__name__}",
                          remedy="Give a path, a pandas or polars frame, or a dict of columns")
    if not found.rows:
        raise EmptyRecord("the table has no rows", remedy="Give at least one row below the header")
    for old in cells.rename:
        if old not in found.columns:
            raise MissingColumn(f"rename names a column that is not in the table{nearest(old, found.columns)[:-1]}",
                                column=old, remedy=f"It has {', '.join(found.columns)}")
    names = [cells.rename.get(c, c) for c in found.columns]
    if twice := {n for n in names if names.count(n) > 1}:
        raise RecordError("two columns have one name", column=twice.pop(), remedy="Rename one")
    columns = dict(zip(names, found.columns.values(), strict=True))
    return Table(columns, found.rows, found.comma, found.notes)


def _from_path(path: Path) -> Table:
    if not path.is_file():
        raise RecordError(f"there is no file {str(path)!r}", remedy="Check the path")
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as stream:
            text = stream.read().decode("utf-8-sig")
    except (UnicodeDecodeError, gzip.BadGzipFile) as error:
        raise RecordError(f"{path.name} is no UTF-8 text ({error})", remedy="Export it as CSV (UTF-8)") from error
    lines = text.splitlines()
    if not lines:
        raise EmptyRecord(f"{path.name} is empty", remedy="Give a header line and rows")
    delimiter = max(",;\t|", key=lambda mark: (lines[0].count(mark), mark == ","))
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
    header = [name.strip().lstrip("#").strip() for name in next(reader)]
    if twice := {n for n in header if header.count(n) > 1}:
        raise RecordError("two columns have one name", column=twice.pop(), remedy="Rename one in the file")
    width, columns, rows, notes = len(header), [[] for _ in header], [], []
    for row, found in enumerate(reader, start=1):
        if not any(cell.strip() for cell in found):
            notes.append(Note("rejected", "a blank row", row, remedy="Delete it"))
            continue
        if len(found) != width:
            raise RecordError(f"{len(found)} cells under {width} columns", row=row,
                              remedy=f"Check the delimiter (read as {delimiter!r}) and quotes of this row")
        rows.append(row)
        for column, cell in zip(columns, found, strict=True):
            column.append(cell.strip())
    return Table(dict(zip(header, columns, strict=True)), rows, delimiter != ",", tuple(notes))


def _from_columns(columns: dict[str, list]) -> Table:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise RecordError(f"columns of unequal length: {lengths}", remedy="Give every column one cell a row")
    clean = {name: [_plain(v) for v in values] for name, values in columns.items()}
    return Table(clean, list(range(1, 1 + max(lengths.values(), default=0))))


def _plain(cell):
    """A cell of a frame; its own mark of a missing cell (NaN, NaT, NA) is None."""
    if isinstance(cell, (str, datetime)):
        return None if cell != cell else cell.strip() if isinstance(cell, str) else cell
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return None
    if hasattr(cell, "item"):
        cell = cell.item()
    return None if isinstance(cell, float) and math.isnan(cell) else cell


# ---------------------------------------------------------------------------------------------- cells


def blank(cell) -> bool:
    """Whether nothing was written."""
    return cell is None or (isinstance(cell, str) and cell.strip().lower() in BLANK)


def number(cell, comma: bool = False, **place) -> float | None:
    """The number of a cell, None if blank. Errors: NotANumber, MissingValue for "NaN"."""
    if blank(cell):
        return None
    if isinstance(cell, Real):
        value = float(cell)
    else:
        text = str(cell).strip()
        if comma and text.count(",") == 1 and "." not in text:
            text = text.replace(",", ".")
        try:
            value = float(text)
        except ValueError as error:
            raise NotANumber(f"{cell!r} is not a number", remedy="Write a plain number such as 5.4, or leave the cell "
                             "empty", **place) from error
    if math.isnan(value):
        raise MissingValue("the cell says NaN", remedy='Leave it empty if nothing was measured, or write "?" if an '
                           "amount was given but is not known", **place)
    if math.isinf(value):
        raise NotANumber("the cell is infinite", remedy="Correct it, or leave it empty", **place)
    return value


def needed(cell, comma: bool = False, **place) -> float:
    """The number of a cell that may not be blank."""
    found = number(cell, comma, **place)
    if found is None:
        raise MissingValue("a number is missing", remedy="Give it, or delete the row", **place)
    return found


def is_number(cell, comma: bool = False) -> bool:
    """Whether a cell reads as a number or as the mark of a censored or unknown one."""
    if blank(cell):
        return False
    try:
        number(cell, comma)
    except (NotANumber, MissingValue):
        return isinstance(cell, str) and bool(_CENSORED.match(cell))
    return True


def measured(cell, cells: Cells, name: str, comma: bool, **place) -> tuple[float, int, float] | None:
    """(value, censored, limit) of a cell, or None if blank; value NaN for "?".

    "<0.1", ">400", "LOW" and "HIGH" are censored, as is a number at or past `cells.below` / `cells.above`.
    """
    if blank(cell):
        return None
    low, high = cells.below.get(name), cells.above.get(name)
    text = cell.strip() if isinstance(cell, str) else ""
    if text == "?":
        return math.nan, 0, math.nan
    if name in cells.categories:
        known = cells.categories[name]
        if str(cell) not in known:
            raise NotANumber(f"{cell!r} is none of the categories {', '.join(known)}",
                             remedy=f"Add it to categories={{{name!r}: ...}}", **place)
        return float(known[str(cell)]), 0, math.nan
    if text.lower() in _LOW | _HIGH:
        sign, limit = (-1, low) if text.lower() in _LOW else (1, high)
        if limit is None:
            option = "below" if sign < 0 else "above"
            raise NotANumber(f"{text!r} says {option} which limit?",
                             remedy=f"Say {option}={{{name!r}: ...}}, the limit of the device", **place)
        return float(limit), sign, float(limit)
    if found := _CENSORED.match(text):
        limit = needed(found[2], comma, **place)
        return limit, (-1 if found[1] in "<≤" else 1), limit
    value = needed(cell, comma, **place)
    if low is not None and value <= low:
        return float(low), -1, float(low)
    if high is not None and value >= high:
        return float(high), 1, float(high)
    return value, 0, math.nan


def identity(cell, **place) -> str:
    """An id as text: 1, 1.0 and "1" are one person."""
    if blank(cell):
        raise MissingValue("the id is empty", remedy="Give every row an id", **place)
    text = str(cell).strip()
    try:
        value = float(text)
    except ValueError:
        return text
    return str(int(value)) if value.is_integer() and "e" not in text.lower() else text


def blocks(table: Table, column: str) -> list[tuple[str, list[int]]]:
    """(id, positions of its rows), in order. SplitId where an id comes back after another one."""
    found: dict[str, list[int]] = {}
    last = None
    for k, (cell, row) in enumerate(zip(table.columns[column], table.rows, strict=True)):
        person = identity(cell, row=row, column=column)
        if person != last and person in found:
            raise SplitId(f"the id comes back after rows of {last!r}", person=person, row=row, column=column,
                          remedy="Bring its rows together, or give two people two ids")
        found.setdefault(person, []).append(k)
        last = person
    return list(found.items())


def moment(cell: Any, **place) -> datetime:
    """The timestamp of a cell (naive or aware). Day-first dates are refused, not guessed."""
    if hasattr(cell, "to_pydatetime"):
        return cell.to_pydatetime(warn=False)
    if isinstance(cell, datetime):
        return cell
    if isinstance(cell, date):
        return datetime(cell.year, cell.month, cell.day)
    try:
        return datetime.fromisoformat(str(cell).strip())
    except ValueError:
        raise NotANumber(f"{cell!r} is neither a number nor a timestamp", remedy='Write "2026-03-24 11:30", with an '
                         'offset such as +01:00 or with tz="Europe/Rome"', **place) from None
