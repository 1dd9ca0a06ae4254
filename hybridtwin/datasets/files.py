"""Where the public recordings are: `$HYBRIDTWIN_DATA`, then `../shared/data`, then the source they were taken from."""

import csv
import gzip
import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from hybridtwin.errors import RecordError

Rows = list[dict[str, str]]

_PACKAGE = Path(__file__).resolve().parent


def roots() -> tuple[Path, ...]:
    """The folders that are searched, in order; `$HYBRIDTWIN_DATA` alone decides where it is set."""
    if os.environ.get("HYBRIDTWIN_DATA"):
        return (Path(os.environ["HYBRIDTWIN_DATA"]),)
    beside = (_PACKAGE.parent.parent.parent, Path.cwd().parent)
    return tuple(dict.fromkeys(folder / "shared" / "data" for folder in beside))


def local(name: str) -> Path | None:
    """The local copy of `name` ("pkpd/theophylline.csv"), or None."""
    return next((root / name for root in roots() if (root / name).is_file()), None)


def read(path: Path) -> Rows:
    """The rows of a comma-separated file with a header, plain or gzipped; all cells are text."""
    with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else open(path, newline="") as file:
        return list(csv.DictReader(file))


def rows(name: str, fetch: Callable[[], Rows]) -> Rows:
    """The rows of a local file, or what `fetch` gets from its public source."""
    path = local(name)
    return read(path) if path else fetch()


def download(repository: str, commit: str, path: str, sha256: str | None = None) -> Path:
    """A file of a public GitHub repository at one commit, kept in pooch's cache.

    sha256: of the file; where only its content was checked (see `checked`), None.
    Errors: RecordError if it cannot be had or is not the file that was checked.
    """
    import pooch

    url = f"https://raw.githubusercontent.com/{repository}/{commit}/{path}"
    name = f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{Path(path).name}"
    try:
        return Path(
            pooch.retrieve(
                url,
                known_hash=f"sha256:{sha256}" if sha256 else None,
                fname=name,
                path=pooch.os_cache("hybridtwin"),
                progressbar=False,
            )
        )
    except (OSError, ValueError) as error:  # requests' errors are OSErrors; a wrong checksum is a ValueError
        raise absent(f"{url} cannot be had ({error})", path) from error


def absent(reason: str, name: str) -> RecordError:
    """The error for a data set that is neither here nor to be fetched."""
    return RecordError(
        reason,
        remedy=f"Put {name} under a folder and name the folder in HYBRIDTWIN_DATA, or under "
        + " or ".join(map(str, roots())),
    )


def checked(table: Rows, columns: Iterable[str], digest: str, source: str) -> Rows:
    """`table`, if its `columns` say what the copy said that the loaders were tested on.

    The sources keep the same recording in several layouts, so it is the content that is checked: sha256 of the
    cells, numbers with three decimals.
    """
    found = content(table, columns)
    if found != digest:
        raise RecordError(
            f"the content of {source} is not what was checked (sha256 {found[:12]}, not {digest[:12]})",
            remedy="Take a copy that was checked: name its folder in HYBRIDTWIN_DATA",
        )
    return table


def content(table: Rows, columns: Iterable[str]) -> str:
    """sha256 of some columns of a table, whatever the way its numbers are written."""

    def plain(cell):
        try:
            return f"{float(cell):.3f}"
        except ValueError:
            return cell.strip()

    columns = tuple(columns)
    lines = sorted(",".join(plain(row.get(name) or "") for name in columns) for row in table)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
