"""A network of timm, torchvision or a user as an architecture: narrowed by its graph, and checked.

Shapes: B batch, C channels, H height, W width, K classes.
"""

import copy
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn

from codistill.errors import InputError
from codistill.models import architecture
from codistill.models.architecture import BLOCKS
from codistill.models.branch import Branch, Cut, Taken, stem_of
from codistill.models.initial import rescale
from codistill.models.narrow import REMEDY, narrow
from codistill.models.narrow_checks import (
    outputs_of,
    refuse_broken,
    refuse_partly_narrow,
    refuse_unfit,
    taken_by,
)
from codistill.models.networks import build_network, takes_width, when_changed
from codistill.models.points import find_points
from codistill.models.slices import first_channels, sliced

UNIT = 10_000
"""A width of this kind of architecture is a number of such parts of the channels."""


@dataclass(frozen=True)
class Plan:
    """How the students of one width are made, as found out once.

    Args:
        keeps_stem: Whether the stem stays whole while the rest is narrowed.
        taken: Which of its channels they take.
        feature_channels: C of the three blocks' maps.
        template: The branch without weights.
    """

    keeps_stem: bool
    taken: Taken
    feature_channels: tuple[int, int, int]
    template: Branch


@dataclass(frozen=True)
class AnyModel:
    """A network of timm, torchvision or a user, cut at named modules.

    Its one width parameter is the share of its channels, in ten-thousandths.
    """

    name: str
    in_channels: int
    num_classes: int
    cut: Cut
    widths: tuple[int, ...] = (UNIT,)
    smallest_widths: tuple[int, ...] = (1,)
    stems: tuple[architecture.Stem, ...] = ("own",)

    @property
    def draws_random_numbers(self) -> bool:
        """Whether a student draws random numbers when it is trained, for dropout say."""
        return _draws(self)

    def narrowed_widths(self, width: Fraction, narrow_blocks: int) -> tuple[int, ...]:
        """Return this share, rounded up so that no whole channel is lost to rounding."""
        return (-(-UNIT * width.numerator // width.denominator),)

    def feature_channels(self, widths: Sequence[int]) -> tuple[int, int, int]:
        """Return C of the three blocks' maps at this width."""
        return _plan(self, *widths).feature_channels

    def build_stem(self, in_channels: int, stem: architecture.Stem) -> nn.Module:
        """Build images [B, C, H, W] → the stem's output."""
        if torch.get_default_device().type == "meta":
            return copy.deepcopy(_stem_template(self))
        return stem_of(self.wide(), self.cut)

    def build_branch(self, widths: Sequence[int], *, num_classes: int, compared_blocks: int) -> nn.Module:
        """Build the stem's output → logits [B, K] and maps, with weights drawn for its own fans."""
        plan = _plan(self, *widths)
        if torch.get_default_device().type == "meta":
            return copy.deepcopy(plan.template)
        wide = self.wide()
        network = self.narrowed(wide, widths[0], keeps_stem=plan.keeps_stem)
        rescale(network, wide)
        branch = self._branch(network, plan.taken, _channel_dims(self)[1])
        pairs = zip(branch.parameters(), plan.template.parameters(), strict=True)
        if any(own.shape != planned.shape for own, planned in pairs):
            raise InputError(f"{self.name} is not narrowed alike each time")
        return branch

    def branch_state(
        self,
        widths: Sequence[int],
        wide: Mapping[str, Tensor],
        narrow: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Return the weights of a branch as the slices of S1's that its graph keeps."""
        if takes_width(self.name):
            return sliced(wide, narrow, first_channels)
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            network = self.wide()
        state = network.state_dict()
        state.update({name.removeprefix("network."): tensor for name, tensor in wide.items()})
        network.load_state_dict(state)
        plan = _plan(self, *widths)
        narrowed = self.narrowed(network, widths[0], keeps_stem=plan.keeps_stem)
        return self._branch(narrowed, plan.taken, _channel_dims(self)[1]).state_dict()

    def wide(self, width: float = 1.0) -> nn.Module:
        """Build the whole network, drawn from torch's generator."""
        with torch.inference_mode(False):  # Its graph is traced through what autograd records.
            return build_network(
                self.name,
                in_channels=self.in_channels,
                num_classes=self.num_classes,
                image_size=self.cut.image_size,
                width=width,
            )

    def example(self) -> Tensor:
        """Return two images to try the network with."""
        generator = torch.Generator().manual_seed(0)
        with torch.device("cpu"), torch.inference_mode(False):
            return torch.randn(2, self.in_channels, *self.cut.image_size, generator=generator)

    def narrowed(self, wide: nn.Module, width: int, *, keeps_stem: bool, floor: bool = True) -> nn.Module:
        """Return the network with this share of its channels, and slices of its weights."""
        if width == UNIT:
            return copy.deepcopy(wide)
        if takes_width(self.name):
            return self.wide(width / UNIT)
        return narrow(
            wide,
            Fraction(width, UNIT),
            example=self.example(),
            keep=self.cut.stem if keeps_stem else (),
            min_channels=self.cut.min_channels if floor else 1,
        )

    def _branch(self, network: nn.Module, taken: Taken, channel_dims: Sequence[int]) -> Branch:
        return Branch(
            network,
            self.cut,
            in_channels=self.in_channels,
            taken=taken,
            channel_dims=channel_dims,
            compared_blocks=BLOCKS,
        )


def cut_of(
    name: str,
    *,
    in_channels: int,
    num_classes: int,
    image_size: tuple[int, int],
    stem_end: str | None = None,
    blocks: Sequence[str] | None = None,
    min_channels: int = 1,
) -> Cut:
    """Return where a network is cut: at the points that are named, or else found.

    Raises:
        InputError: The network cannot be built, takes no such images, or cannot be cut.
    """
    unknown = AnyModel(name, in_channels, num_classes, Cut(image_size, (), ()))
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = unknown.wide()
        example = unknown.example()
        refuse_unfit(name, network, example, num_classes)
        points = find_points(network, example, stem_end=stem_end, blocks=blocks)
    return Cut(image_size, points.stem, points.blocks, min_channels)


@functools.lru_cache(maxsize=64)
def _stem_template(model: AnyModel) -> nn.Module:
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        return stem_of(model.wide(), model.cut).to("meta")


@functools.lru_cache(maxsize=64)
def _draws(model: AnyModel) -> bool:
    with torch.device("cpu"), torch.random.fork_rng(devices=[]), torch.no_grad():
        network, example = model.wide().train(), model.example()
        before = torch.get_rng_state()
        network(example)
        return not torch.equal(before, torch.get_rng_state())


@functools.lru_cache(maxsize=64)
def _channel_dims(model: AnyModel) -> tuple[int, tuple[int, ...]]:
    """Return the dimension of the channels in the stem's and the three blocks' outputs: what narrows."""
    points = (model.cut.stem[-1], *model.cut.blocks)
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        wide, example = model.wide(), model.example()
        outputs = outputs_of(wide, points, example)
        narrow_outputs = []
        for keeps_stem in (False, True):
            try:
                network = model.narrowed(wide, UNIT // 2, keeps_stem=keeps_stem, floor=False)
            except InputError as error:
                problem = error
            else:
                narrow_outputs = outputs_of(network, points, example)
                break
        else:
            raise problem
    dims = []
    for name, whole, half in zip(points, outputs, narrow_outputs, strict=True):
        differing = [dim for dim in range(1, whole.ndim) if whole.shape[dim] != half.shape[dim]]
        if name == points[0]:
            dims.append(differing[0] if len(differing) == 1 else 1)
        elif len(differing) != 1 or whole.ndim not in (3, 4):
            raise InputError(f"{model.name} is narrowed only in part: {name!r} keeps its channels; {REMEDY}")
        else:
            dims.append(differing[0])
    return dims[0], tuple(dims[1:])


@functools.lru_cache(maxsize=64)
def _plan(model: AnyModel, width: int) -> Plan:
    """Find out how students of this width are made, and check that they are narrow and whole.

    The stem stays whole where that leaves the rest narrow, and is sliced where it is the residual stream.
    """
    stem_dim, dims = _channel_dims(model)
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        wide, example = model.wide(), model.example()
        stem_output = stem_of(copy.deepcopy(wide), model.cut).eval()(example).detach()
        choices = (False,) if width == UNIT or takes_width(model.name) else (True, False)
        for keeps_stem in choices:
            try:
                network = model.narrowed(wide, width, keeps_stem=keeps_stem, floor=False)
                refuse_partly_narrow(
                    model.name,
                    wide,
                    network,
                    model.cut,
                    share=width / UNIT,
                    channel_dims=dims,
                    example=example,
                )
                if model.cut.min_channels > 1:
                    network = model.narrowed(wide, width, keeps_stem=keeps_stem)
                break
            except InputError as error:
                problem = error
        else:
            raise problem
        sizes = [
            output.shape[dim]
            for output, dim in zip(outputs_of(network, model.cut.blocks, example), dims, strict=True)
        ]
        taken = taken_by(wide, network, model.cut, dim=stem_dim, example=example)
        branch = model._branch(network, taken, dims)
        refuse_broken(
            model.name,
            model.cut.stem[-1],
            branch,
            stem_output,
            whole_logits=wide.eval()(example) if width == UNIT else None,
        )
    first, second, third = sizes
    return Plan(keeps_stem, taken, (first, second, third), branch.to("meta"))


when_changed += [cached.cache_clear for cached in (_stem_template, _draws, _channel_dims, _plan)]
