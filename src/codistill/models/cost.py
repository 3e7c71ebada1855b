"""What a student costs: parameters, multiply-accumulates, memory for training, latency.

Shapes: B batch, C channels, H height, W width.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from codistill.config.model import TEACHER
from codistill.models.catalog import StudentDescription
from codistill.models.ensemble import Classifier, Ensemble
from codistill.models.recompute import recompute_units


def count_parameters(module: nn.Module) -> int:
    """Count the learned numbers; running statistics are none."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(module: nn.Module, image_shape_CHW: tuple[int, int, int]) -> int:
    """Count the multiply-accumulates of one image in convolutions and matrix products.

    The module runs on torch's meta device, so its size does not matter.
    """
    was_training = module.training
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        image = torch.zeros(1, *image_shape_CHW, device=next(module.parameters()).device)
        module.eval()(image)
    module.train(was_training)
    return counter.get_total_flops() // 2


def saved_bytes(forward: Callable[[], object], parameters: Iterable[Tensor]) -> int:
    """Return the bytes that a forward pass saves for its backward pass, parameters not counted."""
    saved: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        # By storage, since views share one; kept, so that none is freed and its place taken by another.
        saved[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        forward()
    own = {parameter.untyped_storage()._cdata for parameter in parameters}
    return sum(tensor.untyped_storage().nbytes() for key, tensor in saved.items() if key not in own)


def activation_bytes(
    descriptions: Mapping[str, StudentDescription],
    image_shape_CHW: tuple[int, int, int],
    *,
    checkpointing: bool = False,
) -> int:
    """Return the bytes that training these students on the stem holds for each image of a batch."""
    with torch.device("meta"):
        ensemble = Ensemble(descriptions)
        if checkpointing:
            recompute_units(ensemble.students)
        images = torch.empty(2, *image_shape_CHW)  # Batch norm refuses one image that has shrunk to a pixel.
        return saved_bytes(lambda: ensemble(images), ensemble.parameters()) // 2


@dataclass(frozen=True, kw_only=True)
class StudentCost:
    """What a student costs when it stands alone, stem included.

    Args:
        parameters: Learned numbers.
        relative_size_percent: Parameters as a share of the pseudo teacher's (paper, table 1).
        macs: Multiply-accumulates of one image.
    """

    parameters: int
    relative_size_percent: float
    macs: int


def student_costs(
    descriptions: Mapping[str, StudentDescription],
    pseudo_teacher: StudentDescription,
    image_shape_CHW: tuple[int, int, int],
) -> dict[str, StudentCost]:
    """Return the cost of every student and, where there are several, of the ensemble teacher.

    Args:
        descriptions: The students by name.
        pseudo_teacher: S1, whether or not it is among them.
        image_shape_CHW: Channels, height and width in pixels.
    """
    with torch.device("meta"):
        full_size = count_parameters(Ensemble({"S1": pseudo_teacher}))
        groups = {name: Ensemble({name: description}) for name, description in descriptions.items()}
        if len(groups) > 1:
            groups[TEACHER] = Ensemble(descriptions)
    costs = {}
    for name, members in groups.items():
        parameters = count_parameters(members)
        costs[name] = StudentCost(
            parameters=parameters,
            relative_size_percent=100 * parameters / full_size,
            macs=count_macs(Classifier(members), image_shape_CHW),
        )
    return costs


def measure_latency(
    module: nn.Module, images: torch.Tensor, *, rounds: int = 30, seconds: float = 1.0
) -> tuple[float, float]:
    """Return the median and 90th percentile of one forward pass, in seconds.

    Args:
        module: The model, on the images' device.
        images: Input [B, C, H, W].
        rounds: Passes measured after warming up.
        seconds: Time after which no further pass is begun, once three are measured.
    """
    module.eval()
    times: list[float] = []
    started = time.perf_counter()
    with torch.inference_mode():
        for attempt in range(rounds + 3):
            begin = time.perf_counter()
            module(images)
            if images.is_cuda:
                torch.cuda.synchronize(images.device)
            if attempt >= 3:
                times.append(time.perf_counter() - begin)
            if len(times) >= 3 and time.perf_counter() - started > seconds:
                break
    return statistics.median(times), sorted(times)[min(len(times) - 1, int(0.9 * len(times)))]
