"""From a YAML file and the command line to a checked config, and from mistakes to one line each.

jsonargparse knows the types and parses; where it refuses, this module finds every wrong setting, says in
which file and line it stands, what is allowed and what it resembles.
"""

import difflib
import types
import typing
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, fields, is_dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import SUPPRESS, ArgumentError, ArgumentParser, Namespace, set_parsing_settings

from codistill.config.experiment import Config, check
from codistill.errors import InputError, one_line

set_parsing_settings(docstring_parse_attribute_docstrings=True)

FLAGS = ("-h", "--help", "--print_config")


@dataclass(frozen=True)
class Setting:
    """One setting as the user wrote it: where, its dotted name and its value."""

    where: str
    name: str
    value: Any


def make_parser(command: str, description: str) -> ArgumentParser:
    """Return a parser of every setting of `Config`, whose help names them all."""
    parser = ArgumentParser(
        prog=f"codistill {command}",
        usage=f"codistill {command} [CONFIG.yaml] [--section.key value …]",
        description=description,
        exit_on_error=False,
    )
    parser.add_class_arguments(Config, None)
    parser.add_argument("--config", action="config", help=SUPPRESS)  # CONFIG.yaml goes this way.
    return parser


def parse_config(arguments: Sequence[str], parser: ArgumentParser) -> Config:
    """Return the checked config of `[CONFIG.yaml] [--section.key value …]`; later settings win.

    Raises:
        InputError: A file or a setting cannot be used; the message names all that are wrong.
        SystemExit: Help or `--print_config` was asked for, and printed.
    """
    file, options = split_arguments(arguments)
    if any(name == "config" for name, _ in options):
        raise InputError("--config: is not an option; the config file is given by itself, CONFIG.yaml")
    settings = [Setting("", name, value) for name, value in options if name not in FLAGS]
    if file is not None:
        settings = [*_read_yaml(Path(file)), *settings]
        arguments = ["--config", file, *_without_positional(arguments)]
    try:
        with redirect_stderr(StringIO()):
            config = _instantiate(parser, parser.parse_args(list(arguments)))
    except (ArgumentError, TypeError, ValueError, yaml.YAMLError) as error:
        problems = list(_wrong_settings(settings, parser)) or [one_line(error)]
        raise InputError("; ".join(problems)) from None
    return _checked(config, settings)


def load_config(file: str | Path) -> Config:
    """Return the checked config of a YAML file."""
    return parse_config([str(file)], make_parser("train", ""))


def config_from_mapping(mapping: dict[str, Any], where: str) -> Config:
    """Return the checked config of a nested mapping, as YAML or JSON holds it; `where` stands in errors."""
    parser = make_parser("train", "")
    settings = [Setting(where, name, value) for name, value in _leaves(mapping)]
    try:
        with redirect_stderr(StringIO()):
            config = _instantiate(parser, parser.parse_object(mapping))
    except (ArgumentError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            "; ".join(_wrong_settings(settings, parser)) or f"{where}: {one_line(error)}"
        ) from None
    return _checked(config, settings)


def split_arguments(arguments: Sequence[str]) -> tuple[str | None, list[tuple[str, str]]]:
    """Return the word that is no option, if there is one, and the options with their values.

    Raises:
        InputError: There is a second such word, or an option has no value.
    """
    file: str | None = None
    options = []
    words = iter(arguments)
    for word in words:
        if word in FLAGS or word.startswith("--print_config="):
            options.append((word.partition("=")[0], ""))
        elif word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            if not equals:
                following = next(words, None)
                if following is None or following.startswith("--"):
                    raise InputError(f"--{name}: needs a value")
                value = following
            options.append((name, value))
        elif file is None:
            file = word
        else:
            raise InputError(f"{word}: unexpected after {file}; settings are given as --section.key value")
    return file, options


def _without_positional(arguments: Sequence[str]) -> list[str]:
    file, _ = split_arguments(arguments)
    kept, value_follows, removed = [], False, False
    for word in arguments:
        if not removed and not value_follows and word == file:
            removed = True
            continue
        value_follows = word.startswith("--") and "=" not in word and word not in FLAGS and not value_follows
        kept.append(word)
    return kept


def _instantiate(parser: ArgumentParser, namespace: Namespace) -> Config:
    values = parser.instantiate(namespace)
    return Config(**{field.name: values[field.name] for field in fields(Config)})


def _checked(config: Config, settings: Sequence[Setting]) -> Config:
    places = {setting.name: setting.where for setting in settings}
    problems = [(places.get(name, ""), f"{name} {message}") for name, message in config.problems()]
    if problems:
        raise InputError("; ".join(f"{place}: {text}" if place else text for place, text in problems))
    return check(config)


def _read_yaml(file: Path) -> list[Setting]:
    """Return the settings of a YAML file with their lines, or raise if it holds none."""
    try:
        text = file.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: is no YAML file: {one_line(error)}") from None
    if not isinstance(root, yaml.MappingNode) or not isinstance(content, dict):
        raise InputError(f"{file}: must hold settings such as 'training: {{epochs: 10}}'")
    return list(_settings_of(root, file, ""))


def _settings_of(node: yaml.MappingNode, file: Path, prefix: str) -> Iterator[Setting]:
    seen: set[str] = set()
    for key, value in node.value:
        name = f"{prefix}{getattr(key, 'value', '?')}"
        where = f"{file} line {key.start_mark.line + 1}"
        if name in seen:
            raise InputError(f"{where}: {name} stands here a second time")
        seen.add(name)
        if isinstance(value, yaml.MappingNode) and value.value:
            yield from _settings_of(value, file, f"{name}.")
        else:
            yield Setting(where, name, yaml.safe_load(yaml.serialize(value)))


def _leaves(mapping: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in mapping.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _wrong_settings(settings: Sequence[Setting], parser: ArgumentParser) -> Iterator[str]:
    types_by_name = dict(_setting_types(Config))
    sections = {name.partition(".")[0] for name in types_by_name if "." in name}
    for setting in settings:
        place = f"{setting.where}: " if setting.where else ""
        option = setting.name if setting.where else f"--{setting.name}"
        if setting.name in sections:
            if setting.value is not None:
                yield f"{place}{option} must hold settings such as {setting.name}.…, not {setting.value!r}"
        elif setting.name not in types_by_name:
            near = difflib.get_close_matches(setting.name, types_by_name, n=1, cutoff=0.6)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield f"{place}{option} is no setting{hint}"
        elif not _accepted(setting, parser):
            yield f"{place}{option} must be {_allowed(types_by_name[setting.name])}, not {setting.value!r}"


def _accepted(setting: Setting, parser: ArgumentParser) -> bool:
    nested: Any = setting.value
    for part in reversed(setting.name.split(".")):
        nested = {part: nested}
    try:
        with redirect_stderr(StringIO()):
            if setting.where:
                parser.parse_object(nested)
            else:
                parser.parse_args([f"--{setting.name}={setting.value}"])
    except (ArgumentError, TypeError, ValueError):
        return False
    return True


def _setting_types(section: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, kind in get_type_hints(section).items():
        if is_dataclass(kind):
            yield from _setting_types(typing.cast(type, kind), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", kind


def _allowed(kind: Any) -> str:
    """Say in words what values a type admits."""
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    if kind in words:
        return words[kind]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(str(argument) for argument in arguments)}"
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_allowed(argument) for argument in arguments)
    if origin is tuple:
        count = "" if arguments[-1] is Ellipsis else f" of {len(arguments)} values"
        return f"a list{count}, each {_allowed(arguments[0])}"
    return str(kind)
