"""Which columns of a table hold the images and the classes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from codistill.config.data import DataConfig
from codistill.data.extras import needed
from codistill.data.parquet import Table, noted_features
from codistill.errors import InputError


class Columns(NamedTuple):
    """The columns to read, and the names of the classes where the table knows them."""

    image: str
    label: str
    classes: tuple[str, ...] | None


def chosen_columns(table: Table, config: DataConfig) -> Columns:
    """Return the columns that `config` names, or the only ones that can be meant.

    `InputError` lists the candidates where there are none or several.
    """
    types = needed("pyarrow", source="huggingface", extra="hub").types
    features = noted_features(table.schema)
    fields = {field.name: field.type for field in table.schema}
    images = [name for name in fields if _kind(features, name) == "Image"]
    # Files written by other programs do not say what is an image; pictures are stored the same way.
    images = images or [
        name for name, kind in fields.items() if types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    ]
    image = _choice(table, "image_column", config.image_column, images, list(fields), "images")
    if not (types.is_struct(fields[image]) and fields[image].get_field_index("bytes") >= 0):
        is_bytes = types.is_binary(fields[image]) or types.is_large_binary(fields[image])
        if not is_bytes:
            raise InputError(
                f"data.image_column: {image!r} of {table.where} holds {fields[image]}, not images"
            )
    labels = [name for name in fields if _kind(features, name) == "ClassLabel"]
    whole = [name for name, kind in fields.items() if types.is_integer(kind)]
    label = _choice(table, "label_column", config.label_column, labels, whole, "classes")
    if label not in whole:
        raise InputError(
            f"data.label_column: {label!r} of {table.where} holds {fields[label]}, not whole numbers"
        )
    names = features.get(label, {}).get("names") if label in labels else None
    return Columns(image, label, tuple(str(name) for name in names) if names is not None else None)


def _choice(
    table: Table,
    setting: str,
    named: str | None,
    candidates: Sequence[str],
    possible: Sequence[str],
    content: str,
) -> str:
    if named is not None:
        if named not in table.schema.names:
            raise InputError(
                f"data.{setting}: {named!r} is not a column of {table.where}; its columns are "
                f"{', '.join(table.schema.names)}"
            )
        return named
    if len(candidates) == 1:
        return candidates[0]
    several = f"several columns hold {content}: {', '.join(candidates)}"
    none = f"no column is declared to hold {content}; candidates are {', '.join(possible) or 'none'}"
    raise InputError(f"data.{setting}: name one of {table.where}: {several if candidates else none}")


def _kind(features: dict[str, dict[str, Any]], name: str) -> Any:
    return features.get(name, {}).get("_type")
