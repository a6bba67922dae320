"""Files of examples as rows: JSON lines, CSV, TSV, Parquet; what is wrong is told by its place."""

from __future__ import annotations

import codecs
import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

from jdna_cli.errors import RequestError
from jdna_cli.tasks.task import Row

_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16",
}  # fmt: skip


def text_of(file: Path) -> str:
    """The text of a UTF-8 file, without a mark at its beginning.

    Raises:
        RequestError: it cannot be read, or is in another encoding; says at which byte.
    """
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise RequestError(f"{file} cannot be read: {error.strerror}") from None
    for mark, name in _MARKS.items():
        if raw.startswith(mark):
            raise RequestError(f"{file} is in {name}: save it as UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        within = error.start - (raw.rfind(b"\n", 0, error.start) + 1) + 1
        raise RequestError(
            f"{file}, line {line}: byte {within} (0x{raw[error.start]:02x}) is not UTF-8: "
            "save the file as UTF-8"
        ) from None


def json_lines(file: Path) -> list[Row]:
    """One JSON object to a line.

    Raises:
        RequestError: names the line that is none.
    """
    rows: list[Row] = []
    # Lines end where JSON's do: other separators may stand within texts.
    for number, line in enumerate(text_of(file).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"{file}, line {number}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise RequestError(f"{file}, line {number}: not a JSON object")
        if "\\ud" in line.lower() and (half := _half_character(row)):
            raise RequestError(
                f"{file}, line {number}: {half} is half of a character: a text was cut within it"
            )
        rows.append(row)
    return rows


def _half_character(row: Row) -> str:
    """The first surrogate without its other half, as JSON writes it; else nothing."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        return f"\\u{ord(error.object[error.start]):04x}"
    return ""


def comma_separated(file: Path) -> list[Row]:
    """CSV whose first line names the columns.

    Raises:
        RequestError: names the line with quotes that do not match, or the row of another length.
    """
    text = text_of(file)
    return _rows(file, text, quoted=True)


def tab_separated(file: Path) -> list[Row]:
    """TSV whose first line names the columns.

    A quotation mark is one, as in GLUE's own files, unless all of them pair up around fields and
    no field runs over a line.

    Raises:
        RequestError: names the row that has another number of values than the first line.
    """
    text = text_of(file)
    try:
        rows = _rows(file, text, quoted=True)
        if not any("\n" in str(value) for row in rows for value in row.values()):
            return rows
    except RequestError:
        pass
    return _rows(file, text, quoted=False)


def _rows(file: Path, text: str, *, quoted: bool) -> list[Row]:
    csv.field_size_limit(sys.maxsize)
    delimiter = "\t" if file.suffix == ".tsv" else ","
    # Lines as they end in files; other separators may stand within texts.
    lines = [f"{line}\n" for line in text.replace("\r\n", "\n").split("\n")]
    if quoted:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
    else:
        reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    rows: list[Row] = []
    names: list[str] | None = None
    try:
        for values in reader:
            if not values:
                continue
            if names is None:
                names = values
                continue
            if len(values) != len(names):
                raise RequestError(
                    f"{file}, line {reader.line_num}: not as many values as the first line has "
                    f"({len(values)}, {len(names)})"
                )
            rows.append(dict(zip(names, values, strict=True)))
    except csv.Error as error:
        raise RequestError(f"{file}, line {reader.line_num}: {error}") from None
    return rows


def parquet(file: Path) -> list[Row]:
    """Parquet.

    Raises:
        RequestError: it is damaged.
    """
    import pyarrow as arrow
    from pyarrow import parquet as library

    try:
        rows: list[Row] = library.read_table(file).to_pylist()
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{file}: no Parquet file ({str(error).splitlines()[0]})") from None
    return rows


READERS: dict[str, Callable[[Path], list[Row]]] = {
    ".jsonl": json_lines, ".csv": comma_separated, ".tsv": tab_separated, ".parquet": parquet,
}  # fmt: skip
