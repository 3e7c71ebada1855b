"""Whether a network was narrowed as asked: a graph that is followed only in part gives no error.

Shapes: B batch, C channels, H height, W width, K classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from codistill.errors import InputError, one_line
from codistill.models.branch import Branch, Cut, Keep, Taken, stem_of
from codistill.models.narrow import REMEDY, classifiers


def refuse_unfit(name: str, network: nn.Module, example: Tensor, num_classes: int) -> None:
    """Raise unless the network classifies such images, when it is trained and when not."""
    shape = "×".join(map(str, example.shape[1:]))
    for training in (True, False):
        try:
            with torch.no_grad():
                logits = network.train(training)(example)
        except Exception as error:  # Whatever a stranger's network raises.
            raise InputError(
                f"{name} takes no images of {shape}: {type(error).__name__}: {one_line(error)}"
            ) from None
        if not isinstance(logits, Tensor) or logits.shape != (len(example), num_classes):
            found = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise InputError(
                f"{name} must give logits [B, {num_classes}] for images of {shape}, not {found}: it takes"
                " num_classes where its function has such an argument"
            )


def outputs_of(network: nn.Module, names: Sequence[str], example: Tensor) -> list[Tensor]:
    """Return what the named modules give in evaluation."""
    found: dict[int, Tensor] = {}
    handles = [
        network.get_submodule(name).register_forward_hook(Keep(found, number))
        for number, name in enumerate(names)
    ]
    with torch.no_grad():
        network.eval()(example)
    for handle in handles:
        handle.remove()
    return [found[number] for number in range(len(names))]


def refuse_partly_narrow(
    name: str,
    wide: nn.Module,
    network: nn.Module,
    cut: Cut,
    *,
    share: float,
    channel_dims: Sequence[int],
    example: Tensor,
) -> None:
    """Raise if a network has clearly more weights, arithmetic or feature channels than its width asks for.

    Layers that are narrow on one side alone, as depthwise convolutions, have w of the wide one's weights,
    all others w²: more than the mean of both is taken for a part that was not narrowed.
    """
    if share == 1:
        return
    bound = 0.5 * (share**2 + share) * 1.02
    for what, count in (("parameters", _body_parameters), ("MACs", _body_macs)):
        ratio = count(network, cut, example) / count(wide, cut, example)
        if ratio > bound:
            raise InputError(
                f"{name} is narrowed only in part: {100 * ratio:.0f} % of the {what} are left at a"
                f" width of {share:g}, {100 * share**2:.0f} % to {100 * bound:.0f} % were expected; {REMEDY}"
            )
    maps = zip(
        cut.blocks,
        channel_dims,
        outputs_of(wide, cut.blocks, example),
        outputs_of(network, cut.blocks, example),
        strict=True,
    )
    for block, dim, whole, part in maps:
        if part.shape[dim] > 1.25 * share * whole.shape[dim] + 2:
            raise InputError(
                f"{name} is narrowed only in part: {block!r} has {part.shape[dim]} of"
                f" {whole.shape[dim]} channels left at a width of {share:g}; {REMEDY}"
            )


def _body_parameters(network: nn.Module, cut: Cut, example: Tensor) -> int:
    """Count the weights between stem and classifier."""
    with torch.no_grad():
        ends = [*classifiers(network, network(example)), *map(network.get_submodule, cut.stem)]
    outside = {id(parameter) for module in ends for parameter in module.parameters()}
    return sum(parameter.numel() for parameter in network.parameters() if id(parameter) not in outside)


def _body_macs(network: nn.Module, cut: Cut, example: Tensor) -> int:
    """Count the multiply-accumulates behind the stem."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(example[:1])
    whole = counter.get_total_flops()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        stem_of(network, cut)(example[:1])
    return max(1, int(whole - counter.get_total_flops()))


def refuse_broken(
    name: str, end: str, branch: Branch, stem_output: Tensor, *, whole_logits: Tensor | None
) -> None:
    """Raise unless the branch runs forward and backward on the stem's output, as whole as the network."""
    try:
        if whole_logits is not None:
            with torch.no_grad():
                logits = branch.eval()(stem_output)[0]
            if not torch.allclose(whole_logits, logits, rtol=1e-4, atol=1e-5):
                raise InputError(
                    f"{name} cannot be cut behind {end!r}: stem and rest do not give the"
                    " whole network's logits; name another model.stem_end"
                )
        logits, maps = branch.train()(stem_output)
        (logits.square().sum() + sum(map_.square().sum() for map_ in maps)).backward()
        if any(parameter.grad is not None for parameter in branch.parameters()):
            branch.zero_grad()
            return
        problem = "no gradient arrives"
    except InputError:
        raise
    except Exception as error:  # Whatever a stranger's network raises.
        problem = f"{type(error).__name__}: {one_line(error)}"
    raise InputError(f"{name} does not run behind {end!r}: {problem}; {REMEDY}")


def taken_by(wide: nn.Module, network: nn.Module, cut: Cut, *, dim: int, example: Tensor) -> Taken:
    """Find which of the stem's channels the narrow network's own stem would give."""
    whole, part = (outputs_of(each, cut.stem[-1:], example)[0].shape[dim] for each in (wide, network))
    if whole == part:
        return Taken(dim)
    pairs = [
        (wide_weight.detach(), weight.detach())
        for name in cut.stem
        for wide_weight, weight in zip(
            wide.get_submodule(name).parameters(), network.get_submodule(name).parameters(), strict=True
        )
        if weight.ndim > 1 and (len(wide_weight), len(weight)) == (whole, part)
    ]
    if pairs:
        wide_weight, weight = pairs[-1]
        rows = wide_weight[(slice(None), *(slice(size) for size in weight.shape[1:]))].flatten(1)
        kept = torch.cdist(weight.flatten(1).double(), rows.double()).argmin(dim=1).tolist()
        for parts in (count for count in range(1, part + 1) if part % count == 0 and whole % count == 0):
            first, size = part // parts, whole // parts
            if kept == [index * size + channel for index in range(parts) for channel in range(first)]:
                return Taken(dim, parts, first)
    return Taken(dim, 1, part)
