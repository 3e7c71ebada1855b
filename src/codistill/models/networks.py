"""Networks that are not in the catalog, by name: of timm, of torchvision, or a user's own.

A user's own is called only if this process was given it: `admit` takes it from Python, `import_network` from
a config that the user runs. Nothing that is read from a folder is ever imported.
"""

import copy
import difflib
import importlib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from codistill.config.model import LIBRARIES
from codistill.errors import InputError, one_line
from codistill.models.initial import shuffled

INSTALL_TIMM = "pip install 'codistill[models]'"

OwnNetwork = Callable[..., nn.Module] | nn.Module
"""What a user gives from Python: a network, or what builds it."""

when_changed: list[Callable[[], None]] = []
"""Called when a name stands for another network than before: what was found out of it is forgotten."""

_trained: dict[str, Mapping[str, Tensor]] = {}
_own: dict[str, Callable[..., nn.Module]] = {}


def admit(network: OwnNetwork, name: str | None = None) -> str:
    """Make a user's own network known to this process, and return the name that configs and folders give it.

    Args:
        network: What builds it, or the network itself, as freshly built: each student then starts from its
            weights in another order. A callable is given those of num_classes, in_channels, image_size and
            width that it takes; with `width`, a share, it builds the narrow students too.
        name: module:function; none: the callable's own.
    """
    if name is None:
        named: Any = type(network) if isinstance(network, nn.Module) else network
        name = f"{named.__module__}:{getattr(named, '__qualname__', type(named).__name__)}".replace("<", "_")
        name = name.replace(">", "_")
    if _own.get(name) is not network:
        for forget in when_changed:
            forget()
    _trained.pop(name, None)
    if isinstance(network, nn.Module):
        _trained[name] = copy.deepcopy(network.state_dict())
    _own[name] = _copies(network) if isinstance(network, nn.Module) else network
    return name


def refuse_unknown(name: str) -> None:
    """Raise `InputError` unless this process was given a user's own network of this name."""
    if name not in _own:
        raise InputError(
            f"network {name!r} is code of a user's own, which is never imported because a folder names it:"
            f" pass it again, as model=… in Python or --model {name} on the command line"
        )


def import_network(name: str) -> None:
    """Import module:function, from the working directory too; for a config that the user runs.

    Raises:
        InputError: There is no such module or function, or it raises when imported.
    """
    module_name, _, attribute = name.partition(":")
    if module_name in LIBRARIES or not attribute or name in _own:
        return
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # Whatever the user's module raises.
        raise InputError(
            f"model.name {name!r} cannot be imported: {type(error).__name__}: {one_line(error)}"
        ) from None
    if not callable(found):
        raise InputError(f"model.name {name!r} must be a function or class that builds a network")
    admit(found, name)


def takes_width(name: str) -> bool:
    """Whether a user's own callable builds narrow networks itself."""
    return name in _own and "width" in inspect.signature(_own[name]).parameters


def build_network(
    name: str,
    *,
    in_channels: int,
    num_classes: int,
    image_size: tuple[int, int],
    width: float = 1.0,
) -> nn.Module:
    """Build a network with freshly drawn weights: images [B, C, H, W] → logits [B, K].

    Args:
        name: timm:NAME, torchvision:NAME, or the name of an admitted callable.
        in_channels: C.
        num_classes: K.
        image_size: H and W, for networks that must know it.
        width: Share of the channels, for a callable that takes it.

    Raises:
        InputError: There is no such network, it is not admitted, or it cannot be built so.
    """
    library, _, network = name.partition(":")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # A library's own remarks on its own networks.
        if library == "timm":
            return _build_timm(network, in_channels, num_classes, image_size)
        if library == "torchvision":
            return _build_torchvision(network, in_channels, num_classes, image_size)
        refuse_unknown(name)
        offered = {
            "in_channels": in_channels,
            "num_classes": num_classes,
            "image_size": image_size,
            "width": width,
        }
        taken = inspect.signature(_own[name]).parameters
        try:
            built = _own[name](**{key: value for key, value in offered.items() if key in taken})
        except Exception as error:  # Whatever the user's code raises.
            raise InputError(f"{name} cannot be built: {type(error).__name__}: {one_line(error)}") from None
        if not isinstance(built, nn.Module):
            raise InputError(f"{name} must return an nn.Module, not {type(built).__name__}")
        return built


def weights_of(
    name: str, *, in_channels: int, num_classes: int, image_size: tuple[int, int] | None
) -> Mapping[str, Tensor]:
    """Return a library's pretrained weights by name, or those that a user's own network comes with.

    Libraries download them, unless they have them from before.

    Raises:
        InputError: There are none, or they cannot be had.
    """
    library, _, network = name.partition(":")
    try:
        if library == "timm":
            import timm

            return timm.create_model(network, pretrained=True, in_chans=in_channels).state_dict()
        if library == "torchvision":
            from torchvision import models

            weights: Mapping[str, Tensor] = models.get_model_weights(network).DEFAULT.get_state_dict(
                progress=False, check_hash=True
            )
            return weights
    except ImportError:
        raise InputError(f"model.weights {name} needs timm: {INSTALL_TIMM}") from None
    except Exception as error:  # No such name, no such weights, no network: each library has its own.
        raise InputError(
            f"model.weights {name} cannot be had: {type(error).__name__}: {one_line(error)[:200]}; a file"
            " can be given instead"
        ) from None
    if name in _trained:
        return _trained[name]
    assert image_size is not None
    return build_network(
        name, in_channels=in_channels, num_classes=num_classes, image_size=image_size
    ).state_dict()


def _copies(network: nn.Module) -> Callable[[], nn.Module]:
    original = copy.deepcopy(network)
    return lambda: shuffled(copy.deepcopy(original))


def _build_timm(name: str, in_channels: int, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise InputError(f"timm:{name} needs timm: {INSTALL_TIMM}") from None
    if not timm.is_model(name):
        raise InputError(f"timm has no network {name!r}{_closest(name, timm.list_models())}")
    arguments: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_channels, "pretrained": False}
    try:
        try:
            model: nn.Module = timm.create_model(name, **arguments, img_size=image_size)
        except TypeError:  # Most networks take images of any size.
            model = timm.create_model(name, **arguments)
    except Exception as error:
        raise InputError(
            f"timm:{name} cannot be built for images of {image_size[0]}×{image_size[1]} pixels:"
            f" {type(error).__name__}: {one_line(error)}"
        ) from None
    return model


def _build_torchvision(
    name: str, in_channels: int, num_classes: int, image_size: tuple[int, int]
) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise InputError(f"torchvision has no classifier {name!r}{_closest(name, known)}")
    arguments: dict[str, Any] = {"weights": None, "num_classes": num_classes}
    if name.startswith("vit_"):
        arguments["image_size"] = image_size[0]
    elif name.startswith("maxvit"):
        arguments["input_size"] = image_size
    elif name in ("googlenet", "inception_v3"):
        arguments |= {"aux_logits": False, "init_weights": True}
    try:
        model: nn.Module = models.get_model(name, **arguments)
    except Exception as error:
        raise InputError(
            f"torchvision:{name} cannot be built for images of {image_size[0]}×{image_size[1]} pixels:"
            f" {type(error).__name__}: {one_line(error)}"
        ) from None
    return model if in_channels == 3 else _with_channels(model, in_channels)


def _with_channels(model: nn.Module, in_channels: int) -> nn.Module:
    """Replace the first convolution by one that takes images of so many channels."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            parent = model.get_submodule(name.rpartition(".")[0])
            first = nn.Conv2d(
                in_channels,
                module.out_channels,
                module.kernel_size,  # type: ignore[arg-type]
                module.stride,  # type: ignore[arg-type]
                module.padding,  # type: ignore[arg-type]
                bias=module.bias is not None,
            )
            with torch.no_grad():
                first.weight.normal_(0, module.weight.std().item() * (3 / in_channels) ** 0.5)
            setattr(parent, name.rpartition(".")[2], first)
            return model
    raise InputError(f"{type(model).__name__} has no convolution that could take {in_channels} channels")


def _closest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
