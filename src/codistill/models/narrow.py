"""Any network with a share of its channels: the first ones of every layer, by its dependency graph.

torch-pruning finds which layers must lose the same channels (Fang et al. 2023, "DepGraph"); which are kept
is ours: the first of each layer, or of each group, attention head or concatenated part of one. So a narrow
network's weights are slices of the wide one's.

Shapes: B batch, C channels, H height, W width, K classes.
"""

import copy
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from codistill.errors import InputError, one_line

INSTALL = "pip install 'codistill[models]'"
REMEDY = (
    "name other points as model.stem_end and model.blocks, or give a function of your own that takes width"
    " and returns the narrow network, module:function"
)
Network = TypeVar("Network", bound=nn.Module)


def narrow(
    model: Network,
    width: float | Fraction,
    *,
    example: Tensor,
    keep: Iterable[nn.Module | str] = (),
    min_channels: int = 1,
) -> Network:
    """Return a copy of a network with ⌊width · C⌋ of the C channels of every layer, the first ones.

    The copy keeps depth, the layers that give the logits, and weights: slices of the network's own. Heads of
    attention keep their number and lose dimensions, groups of a convolution likewise.

    Args:
        model: Images [B, C, H, W] → logits [B, K]. It is not changed.
        width: Share of the channels, above 0 and at most 1.
        example: Two images or more that it takes, to trace it with.
        keep: Modules, or their names, whose outputs keep all channels.
        min_channels: Fewest channels that a layer is left with; one that has fewer keeps them all.

    Raises:
        InputError: torch-pruning is missing, or the network cannot be traced or narrowed so.
    """
    width = Fraction(width).limit_denominator(10**6)
    if not 0 < width <= 1:
        raise InputError(f"width must be above 0 and at most 1, not {float(width):g}")
    # Whatever the caller's mode: the graph is read from what autograd records.
    with torch.inference_mode(False), torch.enable_grad():
        narrowed = copy.deepcopy(model)
        if width < 1:
            _narrow(narrowed, model, width, example=example[:2], keep=keep, min_channels=min_channels)
    return narrowed


def _narrow(
    narrowed: nn.Module,
    model: nn.Module,
    width: Fraction,
    *,
    example: Tensor,
    keep: Iterable[nn.Module | str],
    min_channels: int,
) -> None:
    """Narrow the copy of a network."""
    modules = dict(narrowed.named_modules())
    names = {module: name for name, module in model.named_modules()}
    kept = [modules[part if isinstance(part, str) else names[part]] for part in keep]
    pruning = _torch_pruning()
    was_training = narrowed.training
    narrowed.eval()
    frozen = [parameter for parameter in narrowed.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _prune(pruning, narrowed, width, example, kept, min_channels)
            narrowed(example)
    except Exception as error:  # Whatever a stranger's network, or its tracing, may raise.
        raise InputError(
            f"{type(model).__name__} cannot be narrowed by its dependency graph:"
            f" {type(error).__name__}: {one_line(error)}; {REMEDY}"
        ) from None
    for parameter in frozen:
        parameter.requires_grad_(False)
    narrowed.zero_grad()
    narrowed.train(was_training)


def _prune(
    pruning: Any,
    model: nn.Module,
    width: Fraction,
    example: Tensor,
    keep: Iterable[nn.Module],
    min_channels: int,
) -> None:
    """Take the last channels of every group of coupled layers away."""
    heads = dict(_joint_projections(model))
    together = {
        module: module.num_heads for module in model.modules() if isinstance(module, nn.MultiheadAttention)
    }
    with torch.no_grad():
        logits = model(example)
    ignored = [*keep, *classifiers(model, logits)]
    # Its defaults for the three mappings are shared by all calls.
    pruner = pruning.pruner.BasePruner(
        model,
        example,
        importance=pruning.importance.RandomImportance(),
        ignored_layers=ignored,
        num_heads=heads,
        out_channel_groups=together,
        in_channel_groups={},
    )
    graph = pruner.DG
    for group in list(graph.get_all_groups(ignored_layers=pruner.ignored_layers)):
        if pruner._is_atten_group(group)[0]:
            group = pruner._downstream_node_as_root_if_attention(group)
            if group is None:
                continue
        parts = pruner._get_channel_groups(group)
        size, remainder = divmod(len(group[0].idxs), parts)
        if remainder:
            raise ValueError(f"{len(group[0].idxs)} channels are no {parts} equal groups")
        left = min(size, max(1, math.ceil(min_channels / parts), int(size * width)))
        lost = [part * size + channel for part in range(parts) for channel in range(left, size)]
        dependency = group[0].dep
        group = graph.get_pruning_group(dependency.target.module, dependency.handler, lost)
        if lost and graph.check_pruning_group(group):
            group.prune()
    _follow(model, heads)


def _joint_projections(model: nn.Module) -> Iterator[tuple[nn.Module, int]]:
    """Yield timm's layers that give queries, keys and values at once, and their heads."""
    for module in model.modules():
        if isinstance(getattr(module, "qkv", None), nn.Linear) and isinstance(
            getattr(module, "num_heads", None), int
        ):
            yield module.qkv, module.num_heads  # type: ignore[misc]


def _follow(model: nn.Module, heads: Mapping[nn.Module, int]) -> None:
    """Set what transformers have noted of their sizes when they were built."""
    for module in model.modules():
        attention: Any = module
        projection = getattr(module, "qkv", None)
        if isinstance(projection, nn.Linear) and projection in heads:
            attention.head_dim = projection.out_features // (3 * heads[projection])
            attention.scale = attention.head_dim**-0.5
            if hasattr(attention, "attn_dim"):
                attention.attn_dim = attention.head_dim * heads[projection]
    embedding = getattr(model, "conv_proj", None)  # torchvision's vision transformer.
    if isinstance(embedding, nn.Conv2d) and hasattr(model, "hidden_dim"):
        transformer: Any = model
        transformer.hidden_dim = embedding.out_channels


def classifiers(model: nn.Module, logits: Tensor) -> list[nn.Module]:
    """Return the layers from which the logits come: their outputs are classes, not channels."""
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise ValueError("it must give logits [B, K]")
    found: list[nn.Module] = [
        module
        for module in model.modules()
        if (isinstance(module, nn.Linear) and module.out_features == logits.shape[1])
        or (isinstance(module, nn.Conv2d) and module.out_channels == logits.shape[1])
    ]
    return found[-2:]  # Two where a distilled transformer has two heads.


def _torch_pruning() -> Any:
    try:
        import torch_pruning
    except ImportError:
        raise InputError(
            f"narrowing a network that is not in the catalog needs torch-pruning: {INSTALL}"
        ) from None
    return torch_pruning
