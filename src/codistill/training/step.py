"""One training step's gradients, computed by an engine that an objective knows nothing of.

All that couples the students is their outputs, so the parallel engine cuts the graph there: the objective
works on detached outputs, and each student's backward pass runs by itself from the gradients of its own.

Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from threading import Barrier
from typing import Literal, Protocol

import torch
from torch import Tensor

from codistill.errors import InputError
from codistill.models.ensemble import Ensemble, StudentOutput
from codistill.randomness import derive_seed

Objective = Callable[[Mapping[str, StudentOutput], Tensor], dict[str, Tensor]]
Autocast = Callable[[], AbstractContextManager[object]]


class Engine(Protocol):
    """Computes a step. Every engine gives the same numbers within the tolerance it states."""

    def outputs(self, images: Tensor, names: Collection[str]) -> dict[str, StudentOutput]:
        """Return the named students' outputs for images [B, C, H, W], without gradients."""

    def gradients(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        objective: Objective,
        names: Collection[str],
        senders: Collection[str],
        scale: float = 1.0,
        draw_seed: int = 0,
    ) -> dict[str, Tensor]:
        """Add the gradients of `scale` · loss to every parameter's and return the objective's terms.

        Args:
            images: Normalised, [B, C, H, W].
            labels: Classes, int64 [B].
            objective: From outputs and labels to named losses.
            names: The students that take part.
            senders: Those whose gradient reaches the stem; none leaves it as it is.
            scale: Factor on the gradients, not on the terms that are returned.
            draw_seed: The step's seed, from which each student that draws random numbers gets its own.
        """

    def close(self) -> None:
        """Release threads."""


class EagerEngine:
    """Students one after another, one backward pass through everything: the numbers others must meet."""

    def __init__(self, ensemble: Ensemble, autocast: Autocast = nullcontext) -> None:
        self.ensemble = ensemble
        self.autocast = autocast

    def outputs(self, images: Tensor, names: Collection[str]) -> dict[str, StudentOutput]:
        """Return the named students' outputs for images [B, C, H, W], without gradients."""
        with torch.no_grad(), self.autocast():
            stem_output = self.ensemble.stem(images)
            return {name: StudentOutput(*self.ensemble.students[name](stem_output)) for name in names}

    def gradients(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        objective: Objective,
        names: Collection[str],
        senders: Collection[str],
        scale: float = 1.0,
        draw_seed: int = 0,
    ) -> dict[str, Tensor]:
        """Add the gradients of `scale` · loss to every parameter's and return the objective's terms."""
        with self.autocast():
            with torch.set_grad_enabled(bool(senders)):
                stem_output = self.ensemble.stem(images)
            outputs = {
                name: self._student_output(
                    name, stem_output if name in senders else stem_output.detach(), draw_seed
                )
                for name in names
            }
            result = objective(outputs, labels)
        (scale * result["loss"]).backward()
        return result

    def _student_output(self, name: str, stem_output: Tensor, draw_seed: int) -> StudentOutput:
        student = self.ensemble.students[name]
        if not self.ensemble.descriptions[name].draws_random_numbers:
            return StudentOutput(*student(stem_output))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(draw_seed, "draws", name))
            return StudentOutput(*student(stem_output))

    def close(self) -> None:
        """Release nothing."""


class ParallelEngine:
    """Students beside each other on threads, one thread inside each operation.

    Gradients of students and adapters, losses and running statistics equal the eager engine's with one
    thread bit for bit; the stem's differ by the rounding of a sum over students, always in the order
    S1 … SN. Meant for a CPU.

    Args:
        ensemble: The students; none may draw random numbers in its forward pass.
        threads: Students that run at once.
        autocast: Context in which outputs are computed.

    Raises:
        ValueError: A student draws random numbers.
    """

    def __init__(self, ensemble: Ensemble, threads: int, autocast: Autocast = nullcontext) -> None:
        if ensemble.draws_random_numbers:
            raise ValueError("students that draw random numbers share a generator and cannot run at once")
        self.ensemble = ensemble
        self.autocast = autocast
        # A thread that has not computed yet takes over whatever count was set last, in any thread. So each
        # worker computes once and then sets its count, and only when all have done so does this thread
        # set its own again.
        own_threads = torch.get_num_threads()
        ready = Barrier(threads + 1)
        self.pool = ThreadPoolExecutor(
            threads, thread_name_prefix="student", initializer=_use_one_thread, initargs=(ready,)
        )
        for _ in range(threads):
            self.pool.submit(torch.get_num_threads)
        ready.wait()
        torch.set_num_threads(own_threads)

    def outputs(self, images: Tensor, names: Collection[str]) -> dict[str, StudentOutput]:
        """Return the named students' outputs for images [B, C, H, W], without gradients."""
        with torch.no_grad(), self.autocast():
            stem_output = self.ensemble.stem(images)

        def forward(name: str) -> StudentOutput:
            with torch.no_grad(), self.autocast():  # Both are a thread's own.
                return StudentOutput(*self.ensemble.students[name](stem_output))

        return dict(zip(names, self.pool.map(forward, names), strict=True))

    def gradients(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        objective: Objective,
        names: Collection[str],
        senders: Collection[str],
        scale: float = 1.0,
        draw_seed: int = 0,
    ) -> dict[str, Tensor]:
        """Add the gradients of `scale` · loss to every parameter's and return the objective's terms."""
        with self.autocast(), torch.set_grad_enabled(bool(senders)):
            stem_output = self.ensemble.stem(images)
        inputs = {name: stem_output.detach().requires_grad_(name in senders) for name in names}

        def forward(name: str) -> StudentOutput:
            with self.autocast():
                return StudentOutput(*self.ensemble.students[name](inputs[name]))

        outputs = dict(zip(names, self.pool.map(forward, names), strict=True))
        leaves = {
            name: StudentOutput(_leaf(output.logits), tuple(_leaf(map_) for map_ in output.features))
            for name, output in outputs.items()
        }
        with self.autocast():
            result = objective(leaves, labels)
        (scale * result["loss"]).backward()

        def backward(name: str) -> None:
            output = outputs.pop(name)  # The student's graph is freed as soon as it is done.
            leaf = leaves.pop(name)
            pairs = [
                (tensor, cut.grad)
                for tensor, cut in zip(
                    (output.logits, *output.features), (leaf.logits, *leaf.features), strict=True
                )
                if cut.grad is not None
            ]
            torch.autograd.backward([tensor for tensor, _ in pairs], [gradient for _, gradient in pairs])

        list(self.pool.map(backward, list(names)))
        arriving = [inputs[name].grad for name in names if name in senders]
        present = [gradient for gradient in arriving if gradient is not None]
        if present:
            stem_output.backward(_sum_in_order(present))
        return result

    def close(self) -> None:
        """Release the threads."""
        self.pool.shutdown()


def choose_engine(
    engine: Literal["auto", "eager", "parallel"],
    *,
    device: torch.device,
    students: int,
    threads: int,
    draws_random_numbers: bool = False,
) -> Literal["eager", "parallel"]:
    """Return the engine to use: parallel on a CPU that has threads for several students, else eager.

    Raises:
        InputError: The parallel engine is asked for, and the students draw random numbers: torch has one
            generator on a CPU, so that their order would decide what each of them draws.
    """
    if engine == "parallel" and draws_random_numbers:
        raise InputError(
            "training.engine must be eager or auto, not parallel: the students of this network draw random"
            " numbers, which needs them one after another"
        )
    if engine != "auto":
        return engine
    beside = device.type == "cpu" and students > 1 and threads > 1 and not draws_random_numbers
    return "parallel" if beside else "eager"


def make_engine(
    engine: Literal["eager", "parallel"],
    ensemble: Ensemble,
    *,
    threads: int,
    autocast: Autocast = nullcontext,
) -> Engine:
    """Return the engine of that name for an ensemble."""
    if engine == "parallel":
        return ParallelEngine(ensemble, min(threads, len(ensemble.students)), autocast)
    return EagerEngine(ensemble, autocast)


def _use_one_thread(ready: Barrier) -> None:
    torch.zeros(1_000_000).add_(1)  # Large enough to be computed in parallel.
    torch.set_num_threads(1)
    ready.wait()


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_()


def _sum_in_order(tensors: Sequence[Tensor]) -> Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total
