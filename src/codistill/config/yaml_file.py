"""Settings as they stand in a YAML file or a mapping, each with its place."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from codistill.errors import InputError, one_line


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, for which 1e-5 is a number too, as in YAML 1.2."""


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which sets text such as 1e5 in quotes."""


for _resolver in (_Loader, _Dumper):
    _resolver.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
        list("-+.0123456789"),
    )


@dataclass(frozen=True)
class Setting:
    """One setting as the user wrote it: where, its dotted name and its value."""

    where: str
    name: str
    value: Any


def read_yaml(file: Path) -> tuple[str, list[Setting]]:
    """Return a YAML file's text and its settings with their lines, or raise if it holds none."""
    try:
        text = file.read_text(encoding="utf-8")
        # A value that stands for another can hold itself, or a million copies of it.
        aliases = [event for event in yaml.parse(text) if isinstance(event, yaml.AliasEvent)]
        root = None if aliases else yaml.compose(text, Loader=_Loader)
        content = None if aliases else yaml.load(text, Loader=_Loader)
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: is no YAML file: {one_line(error)}") from None
    if aliases:
        mark = aliases[0].start_mark
        where = f"{file} line {mark.line + 1}" if mark else str(file)
        raise InputError(f"{where}: *{aliases[0].anchor} is an alias; every value must be written out")
    if not isinstance(root, yaml.MappingNode) or not isinstance(content, dict):
        raise InputError(f"{file}: must hold settings such as 'training: {{epochs: 10}}'")
    try:
        return text, list(_settings_of(root, file, "", set()))
    except RecursionError as error:
        raise InputError(f"{file}: is no YAML file: {one_line(error)}") from None


def _settings_of(node: yaml.MappingNode, file: Path, prefix: str, seen: set[str]) -> Iterator[Setting]:
    for key, value in node.value:
        name = f"{prefix}{getattr(key, 'value', '?')}"
        where = f"{file} line {key.start_mark.line + 1}"
        if name in seen:
            raise InputError(f"{where}: {name} stands here a second time")
        seen.add(name)
        if isinstance(value, yaml.MappingNode) and value.value:
            yield from _settings_of(value, file, f"{name}.", seen)
        else:
            yield Setting(where, name, _Loader("").construct_object(value, deep=True))


def dump_yaml(mapping: dict[str, Any]) -> str:
    """Return the YAML of a mapping, in its order, from which `read_yaml` gives the same values."""
    return yaml.dump(mapping, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def parse_value(text: str) -> Any:
    """Return the value that a text on the command line stands for; text that is no YAML stands for itself."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text


def nested(settings: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return settings as a nested mapping, from their dotted names; later ones win."""
    mapping: dict[str, Any] = {}
    for name, value in settings:
        *sections, last = name.split(".")
        place = mapping
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return mapping


def leaves(mapping: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every setting of a nested mapping, by its dotted name."""
    for key, value in mapping.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
