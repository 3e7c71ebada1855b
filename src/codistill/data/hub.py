"""One split of a table of images: a data set on the Hugging Face hub."""

from collections.abc import Iterator
from typing import Any

from codistill.data.parquet import ROWS_AT_A_TIME, Table, datasets_library
from codistill.errors import InputError, one_line


def hub_table(name: str, split: str) -> Table:
    """Open a split of a data set by its hub name; `InputError` if there is none or no way to it."""
    datasets = datasets_library()
    try:
        dataset = datasets.load_dataset(name, split=split)
    except Exception as error:  # Names, access, network and files each fail in their own way.
        raise InputError(
            f"data.hub_name: {name!r}, split {split!r}: cannot be loaded: {one_line(error)}"
        ) from error

    def batches(columns: list[str]) -> Iterator[Any]:
        table = dataset.with_format("arrow").select_columns(columns)
        for part in table.iter(batch_size=ROWS_AT_A_TIME):
            yield from part.to_batches()

    return Table(
        where=f"split {split!r} of {name!r}",
        schema=dataset.features.arrow_schema,
        count=len(dataset),
        # The fingerprint names the data set's files and everything done to them.
        identity=[name, split, dataset._fingerprint, len(dataset)],
        batches=batches,
        rows=lambda: dataset,
    )
