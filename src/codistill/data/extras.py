"""Libraries that only some sources need."""

from importlib import import_module
from types import ModuleType

from codistill.errors import InputError


def needed(name: str, *, source: str, extra: str) -> ModuleType:
    """Import a module of an extra; `InputError` says which source needs it and how to install it."""
    try:
        return import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise InputError(
            f"data.source: {source} needs the package {package}: pip install 'codistill[{extra}]'"
        ) from None
