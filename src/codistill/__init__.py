"""Train one image classifier once and get several, each smaller than the last, that taught each other.

Names are imported when they are used, so that `import codistill` does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codistill.config import Config, baseline
    from codistill.config.parsing import load_config
    from codistill.errors import DivergedError, InputError, Interrupted
    from codistill.models.ensemble import Ensemble
    from codistill.models.narrow import narrow
    from codistill.results.compare import compare
    from codistill.training.delivered import evaluate, load_student
    from codistill.training.experiment import resume, train

__all__ = [
    "Config",
    "DivergedError",
    "Ensemble",
    "InputError",
    "Interrupted",
    "baseline",
    "compare",
    "evaluate",
    "load_config",
    "load_student",
    "narrow",
    "resume",
    "train",
]

_MODULES = {
    "Config": "codistill.config",
    "DivergedError": "codistill.errors",
    "Ensemble": "codistill.models.ensemble",
    "InputError": "codistill.errors",
    "Interrupted": "codistill.errors",
    "baseline": "codistill.config",
    "compare": "codistill.results.compare",
    "evaluate": "codistill.training.delivered",
    "load_config": "codistill.config.parsing",
    "load_student": "codistill.training.delivered",
    "narrow": "codistill.models.narrow",
    "resume": "codistill.training.experiment",
    "train": "codistill.training.experiment",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module 'codistill' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
