"""One split of a table of images: local parquet files, read with pyarrow.

The files are read directly: `datasets` would first copy them to a folder of its own and takes seconds to
import. It is used where single rows must be found (images that do not fit in memory), and for the hub.
"""

import glob
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from codistill.data.extras import needed
from codistill.data.files import shown
from codistill.errors import InputError, one_line

ROWS_AT_A_TIME = 200
_SHARD = re.compile(r"-(\d+)-of-(\d+)")


@dataclass(frozen=True)
class Table:
    """One split: its schema (pyarrow), its length, and ways to its rows."""

    where: str
    schema: Any
    count: int
    identity: Any
    """What changes whenever the content does: JSON-like."""

    batches: Callable[[list[str]], Iterator[Any]]
    """Columns to pyarrow record batches of them, in order."""

    rows: Callable[[], Any]
    """The split as `datasets.Dataset`, for reading single rows."""


def datasets_library() -> ModuleType:
    """Import `datasets` without its progress bars, or raise `InputError`."""
    datasets = needed("datasets", source="huggingface", extra="hub")
    datasets.disable_progress_bars()
    return datasets


def parquet_table(root: str, split: str) -> Table:
    """Open the files of a split below a folder (or its folder data), or those a pattern names.

    A split's files are SPLIT.parquet, SPLIT-00000-of-00003.parquet and so on, or all in a folder SPLIT.
    """
    parquet = needed("pyarrow.parquet", source="huggingface", extra="hub")
    paths = _files_of(Path(root).expanduser(), split)
    where = f"split {split!r} of {shown(root)}"
    counts, schema = [], None
    for path in paths:
        try:
            with parquet.ParquetFile(path) as file:
                counts.append(file.metadata.num_rows)
                found = file.schema_arrow
        except Exception as error:  # pyarrow has errors of its own beside OSError.
            raise InputError(f"{shown(path)}: cannot be read as parquet: {one_line(error)}") from error
        same = schema is None or (found.equals(schema) and noted_features(found) == noted_features(schema))
        if not same:
            raise InputError(f"{shown(path)}: has other columns or classes than {shown(paths[0])}")
        schema = schema or found

    def batches(columns: list[str]) -> Iterator[Any]:
        for path in paths:
            try:
                with parquet.ParquetFile(path) as file:
                    yield from file.iter_batches(batch_size=ROWS_AT_A_TIME, columns=columns)
            except Exception as error:
                raise InputError(f"{shown(path)}: is damaged: {one_line(error)}") from error

    def rows() -> Any:
        names = [str(path) for path in paths]
        return datasets_library().load_dataset("parquet", data_files={split: names}, split=split)

    stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return Table(where, schema, sum(counts), stats, batches, rows)


def noted_features(schema: Any) -> dict[str, dict[str, Any]]:
    """Return what `datasets` notes of each column in a schema; nothing where another program wrote it."""
    try:
        noted = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return (
        {name: kind for name, kind in noted.items() if isinstance(kind, dict)}
        if isinstance(noted, dict)
        else {}
    )


def _files_of(root: Path, split: str) -> list[Path]:
    named = re.compile(rf"{re.escape(split)}(-\d.*)?\.parquet")
    if root.is_dir():
        for folder in (root, root / "data"):
            files = sorted(path for path in folder.glob("*.parquet") if named.fullmatch(path.name))
            files = files or sorted((folder / split).glob("*.parquet"))
            if files:
                return _complete(files)
        there = sorted(path.name for path in [*root.glob("*.parquet"), *root.glob("data/*.parquet")])
    else:
        matches = sorted(
            Path(name) for name in glob.glob(str(root), recursive=True) if name.endswith(".parquet")
        )
        files = [path for path in matches if named.fullmatch(path.name) or path.parent.name == split]
        if files:
            return files
        there = [path.name for path in matches]
    found = f"; found {', '.join(there[:10])}" if there else "; found no parquet files"
    raise InputError(
        f"data.root: {shown(root)} has no files for the split {split!r}: "
        f"{split}.parquet, {split}-00000-of-00001.parquet … or {split}/*.parquet{found}"
    )


def _complete(files: list[Path]) -> list[Path]:
    shards = [match for path in files if (match := _SHARD.search(path.name))]
    if shards and len(shards) == len(files):
        expected = int(shards[0][2])
        if {int(shard[1]) for shard in shards} != set(range(expected)) or len(files) != expected:
            raise InputError(
                f"{shown(files[0].parent)}: holds {len(files)} of the {expected} files of "
                f"{files[0].name.split('-')[0]!r}; a pattern as data.root chooses some of them"
            )
    return files
