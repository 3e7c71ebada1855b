"""From a YAML file and the command line to a checked config, and from mistakes to one line each.

jsonargparse knows the types and parses; where it refuses, this module finds every wrong setting, says in
which file and line it stands, what is allowed and what it resembles.
"""

import difflib
from argparse import RawDescriptionHelpFormatter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import fields, replace
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import (
    SUPPRESS,
    ArgumentError,
    ArgumentParser,
    DefaultHelpFormatter,
    Namespace,
    set_parsing_settings,
)

from codistill.config.boc_kd.translate import settings_of_original
from codistill.config.experiment import Config, check
from codistill.config.kinds import (
    admits,
    admits_null,
    allowed_values,
    mapping_settings,
    setting_types,
    shown,
)
from codistill.config.yaml_file import Setting, dump_yaml, leaves, nested, parse_value, read_yaml
from codistill.errors import InputError, one_line

set_parsing_settings(docstring_parse_attribute_docstrings=True)

FLAGS = ("-h", "--help", "--print_config")
REFUSALS = (
    ArgumentError,
    AttributeError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
    yaml.YAMLError,
)
"""What jsonargparse raises for settings that it cannot take."""
MAPPINGS = mapping_settings(Config)
"""Settings whose own settings are somebody else's, such as the arguments of an optimiser."""


class _Formatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """jsonargparse's, which keeps the lines of a description."""


def make_parser(command: str, description: str) -> ArgumentParser:
    """Return a parser of every setting of `Config`, whose help names them all.

    Args:
        command: Its name, or its whole usage.
        description: What stands above the settings.
    """
    usage = command if " " in command else f"{command} [CONFIG.yaml] [--section.key value …]"
    parser = ArgumentParser(
        prog=f"codistill {command.partition(' ')[0]}",
        usage=f"codistill {usage}",
        formatter_class=_Formatter,
        description=description,
        exit_on_error=False,
    )
    parser.add_class_arguments(Config, None)
    sections = {field.name for field in fields(Config)} - {"seed"}
    for action in parser._actions:
        if action.dest in sections:  # A section is given by its settings, not by a file of its own.
            action.help = SUPPRESS
    parser.add_argument("--config", action="config", help=SUPPRESS)  # CONFIG.yaml goes this way.
    return parser


def parse_config(
    arguments: Sequence[str], parser: ArgumentParser, given: Sequence[Setting] | None = None
) -> Config:
    """Return the checked config of `[CONFIG.yaml] [--section.key value …]`; later settings win.

    Args:
        arguments: The words. A file whose name ends in .py is one of the paper's authors.
        parser: As `make_parser` makes it.
        given: The settings of the file, where it has been read.

    Raises:
        InputError: A file or a setting cannot be used; the message names all that are wrong.
        SystemExit: Help or `--print_config` was asked for, and printed.
    """
    file, options = split_arguments(arguments)
    if any(name == "config" for name, _ in options):
        raise InputError("--config: is not an option; the config file is given by itself, CONFIG.yaml")
    if any(name in ("-h", "--help") for name, _ in options):
        parser.parse_args(["--help"])
    settings = [Setting("", name, value) for name, value in options if name not in FLAGS]
    if file is not None:
        # The text is handed on, not the path: a pipe can be read only once. The comment behind it keeps a
        # text such as "data.root:" from being taken for a path.
        text, settings_of_file = _read_file(Path(file)) if given is None else (_as_text(given), given)
        settings = [*settings_of_file, *settings]
        arguments = [f"--config={text}\n#", *without_file(arguments)]
    _refuse_unusable(settings, parser)
    try:
        with redirect_stderr(StringIO()):
            config = _instantiate(parser, parser.parse_args(list(arguments)), settings)
    except REFUSALS as error:
        problems = list(_wrong_settings(settings, parser))
        unexplained = f"{file}: {one_line(error)}" if file is not None else one_line(error)
        raise InputError("; ".join(problems) or unexplained) from None
    return _checked(config, settings)


def _read_file(file: Path) -> tuple[str, Sequence[Setting]]:
    if file.suffix != ".py":
        return read_yaml(file)
    settings = settings_of_original(file)
    return _as_text(settings), settings


def _as_text(settings: Sequence[Setting]) -> str:
    return dump_yaml(nested((setting.name, setting.value) for setting in settings))


def load_config(file: str | Path) -> Config:
    """Return the checked config of a YAML file, or of a .py file of the paper's authors, which is not run."""
    return parse_config([str(file)], make_parser("train", ""))


def config_from_mapping(mapping: dict[str, Any], where: str) -> Config:
    """Return the checked config of a nested mapping, as YAML or JSON holds it; `where` stands in errors."""
    parser = make_parser("train", "")
    settings = [Setting(where, name, value) for name, value in leaves(mapping)]
    _refuse_unusable(settings, parser)
    try:
        with redirect_stderr(StringIO()):
            config = _instantiate(parser, parser.parse_object(mapping), settings)
    except REFUSALS as error:
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


def without_file(arguments: Sequence[str]) -> list[str]:
    """Return the arguments without the word that is no option."""
    file, _ = split_arguments(arguments)
    kept, value_follows, removed = [], False, False
    for word in arguments:
        if not removed and not value_follows and word == file:
            removed = True
            continue
        value_follows = word.startswith("--") and "=" not in word and word not in FLAGS and not value_follows
        kept.append(word)
    return kept


def _instantiate(parser: ArgumentParser, namespace: Namespace, settings: Sequence[Setting]) -> Config:
    values = parser.instantiate(namespace)
    config = Config(**{field.name: values[field.name] for field in fields(Config)})
    # jsonargparse takes text for numbers here, since it knows no types: '0.9' would become 0.9.
    for name in MAPPINGS:
        section, _, field = name.partition(".")
        given = _mapping(name, settings)
        config = replace(config, **{section: replace(getattr(config, section), **{field: given})})
    return config


def _mapping(name: str, settings: Sequence[Setting]) -> Any:
    """Return what a setting that holds settings is given, all at once or one by one; later ones win."""
    found: Any = None
    for setting in settings:
        value = setting.value if setting.where else parse_value(str(setting.value))
        if setting.name == name:
            found = value
        elif setting.name.startswith(f"{name}."):
            found = {**(found or {}), setting.name.removeprefix(f"{name}."): value}
    return found


def _mapping_of(name: str) -> str | None:
    """Return the setting that holds settings of which this dotted name is one."""
    return next((mapping for mapping in MAPPINGS if name.startswith(f"{mapping}.")), None)


def _checked(config: Config, settings: Sequence[Setting]) -> Config:
    places = {setting.name: setting.where for setting in settings}
    problems = [(places.get(name, ""), f"{name} {message}") for name, message in config.problems()]
    if problems:
        raise InputError("; ".join(f"{place}: {text}" if place else text for place, text in problems))
    return check(config)


def _refuse_unusable(settings: Sequence[Setting], parser: ArgumentParser) -> None:
    """Raise if a setting must not reach jsonargparse, which would take it.

    That is a name that is not a setting's in full (an abbreviation, a whole section as text, `class_path`,
    for which it imports any module), and null for a setting that admits none.
    """
    types_by_name = dict(setting_types(Config))
    sections = _sections(types_by_name)
    for setting in settings:
        if setting.name in MAPPINGS or _mapping_of(setting.name):
            usable = _accepted_in_mapping(setting)
        elif setting.name in types_by_name:
            usable = setting.value is not None or admits_null(types_by_name[setting.name])
        else:
            usable = setting.name in sections and setting.value == {}
        if not usable:
            raise InputError("; ".join(_wrong_settings(settings, parser)))


def _sections(names: Iterable[str]) -> set[str]:
    return {name.partition(".")[0] for name in names if "." in name}


def _wrong_settings(settings: Sequence[Setting], parser: ArgumentParser) -> Iterator[str]:
    types_by_name = dict(setting_types(Config))
    sections = _sections(types_by_name)
    for setting in settings:
        place = f"{setting.where}: " if setting.where else ""
        option = setting.name if setting.where else f"--{setting.name}"
        if setting.name in sections:
            if setting.value != {}:
                example = next(name for name in types_by_name if name.startswith(f"{setting.name}."))
                yield f"{place}{option} must hold settings such as {example}, not {shown(setting.value)}"
        elif mapping := _mapping_of(setting.name):
            if not _accepted_in_mapping(setting):
                yield f"{place}{option} must be a plain value, as {mapping} are, not {shown(setting.value)}"
        elif setting.name not in types_by_name:
            near = difflib.get_close_matches(setting.name, types_by_name, n=1, cutoff=0.6)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield f"{place}{option} is no setting{hint}"
        elif not _accepted(setting, types_by_name[setting.name], parser):
            allowed = allowed_values(types_by_name[setting.name])
            yield f"{place}{option} must be {allowed}, not {shown(setting.value)}"


def _accepted_in_mapping(setting: Setting) -> bool:
    """Say whether a setting that holds settings, or one of those, has a value that it may have."""
    value = setting.value if setting.where else parse_value(str(setting.value))
    if setting.name in MAPPINGS:
        return value is None or admits(dict[str, Any], value)
    mapping = _mapping_of(setting.name)
    assert mapping is not None
    key = setting.name.removeprefix(f"{mapping}.")
    return key.isidentifier() and admits(dict[str, Any], {key: value})


def _accepted(setting: Setting, kind: Any, parser: ArgumentParser) -> bool:
    if setting.name in MAPPINGS:
        return _accepted_in_mapping(setting)
    if setting.value is None:
        return admits_null(kind)
    nested: Any = setting.value
    for part in reversed(setting.name.split(".")):
        nested = {part: nested}
    try:
        with redirect_stderr(StringIO()):
            if setting.where:
                parser.parse_object(nested)
            else:
                parser.parse_args([f"--{setting.name}={setting.value}"])
    except REFUSALS:
        return False
    return True
