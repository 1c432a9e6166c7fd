"""Runs and sweeps on one page: `medjax report DIR ... --out FILE`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medjax.lab.report import page, runs, svg, sweeps
from medjax.lab.report.page import Section
from medjax.lab.settings import cli
from medjax.lab.storage import results

_DESCRIPTION = """\
Put runs and sweeps, in any mix, on one page: their settings, versions, figures and curves, the runs
in comparison. The page is one file that needs no other, and no network.

What isn't finished is shown as far as it is."""
# So far into a file: what it is must have been said.
_BEGINNING = 500


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out the command; return its exit code. A mistake exits with 2."""
    parser = cli.Parser("medjax report", _DESCRIPTION)
    parser.add_argument(
        "folders", metavar="DIR", nargs="+", type=Path, help="the folder of a run or of a sweep"
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        default=Path("report.html"),
        help="the page, .html; a page that this command wrote is replaced (default: report.html)",
    )
    arguments = parser.parse_args(argv)
    try:
        _check_out(arguments.out)
        with svg.page_style():
            sections = _sections(arguments.folders)
        text = page.render(_title(sections), sections)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    try:
        results.write_text(arguments.out, text)
    except OSError as error:  # its file has a temporary name, which says nothing
        parser.error(f"--out {arguments.out} can't be written: {error.strerror or error}")
    print(f"page in {arguments.out}")
    return 0


def _check_out(path: Path) -> None:
    if path.suffix != ".html":
        raise ValueError(f"--out {path}: the name must end in .html")
    if path.exists():
        with open(path, encoding="utf-8", errors="replace") as file:
            if page.MARK not in file.read(_BEGINNING):
                raise ValueError(f"--out {path} is there, and isn't a page of this command")


def _sections(folders: Sequence[Path]) -> list[Section]:
    """Runs first, then sweeps, each in the order that they are given.

    Raises:
        ValueError: if a folder is neither a run's nor a sweep's, or given twice.
    """
    found: list[runs.Run] = []
    others: list[Section] = []
    there: set[Path] = set()
    for folder in folders:
        if folder.resolve() in there:
            raise ValueError(f"{str(folder)!r} is there twice")
        there.add(folder.resolve())
        record = _record(folder)
        try:
            if "config" in record:
                found.append(runs.read(folder, record))
            else:
                others.append(sweeps.section(f"sweep-{len(others)}", folder, record))
        except (KeyError, TypeError, AttributeError) as error:
            what = f"{results.CONFIG} isn't that of a run or a sweep"
            raise ValueError(f"{str(folder)!r} can't be read: {what} ({error})") from None
    return [*runs.sections(found), *others] if found else others


def _record(folder: Path) -> dict[str, Any]:
    """The configuration of a run or a sweep."""
    if not folder.is_dir():
        raise ValueError(f"{str(folder)!r} isn't a folder")
    record = results.read_config(folder)
    if not record.keys() & {"config", "grid"}:
        what = f"its {results.CONFIG} is of neither" if record else f"it has no {results.CONFIG}"
        if any(folder.glob(f"*/{results.CONFIG}")):
            what += f", but folders in it have: name those, as in {folder / '*'}"
        raise ValueError(f"{str(folder)!r} doesn't hold a run or a sweep: {what}")
    return record


def _title(sections: Sequence[Section]) -> str:
    if len(sections) == 1:
        return sections[0].title
    count = [sum(x.id.startswith(kind) for x in sections) for kind in ("run-", "sweep-")]
    parts = [
        f"{k} {kind}{'s' * (k != 1)}" for k, kind in zip(count, ("run", "sweep"), strict=True) if k
    ]
    return " and ".join(parts)
