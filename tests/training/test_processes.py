"""Two processes against one with the whole batch: through gloo (slow), and with the collective played."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from two_processes import STEPS

from codistill.config import ObjectiveConfig, TrainingConfig
from codistill.errors import InputError
from codistill.objectives.paper import PaperObjective
from codistill.training.processes import average, broadcast_state, launch, share_of
from codistill.training.step import EagerEngine
from tiny import CLASSES, WIDTHS, tiny_batch, tiny_ensemble, with_statistics

NAMES = list(WIDTHS)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    script = Path(__file__).with_name("two_processes.py")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    answer = subprocess.run(
        [sys.executable, str(script), str(folder)],
        capture_output=True,
        text=True,
        timeout=240,
        env=environment | {"OMP_NUM_THREADS": "1"},
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """The same steps in one process on whole batches."""
    ensemble = with_statistics(tiny_ensemble(seed=0, dtype=torch.float64)).eval()
    objective = PaperObjective(ObjectiveConfig(), WIDTHS, seed=0).double()
    optimizer = torch.optim.SGD([*ensemble.parameters(), *objective.parameters()], 0.1, momentum=0.9)
    seen = []
    for number, count in enumerate(STEPS):
        images, labels = tiny_batch(count, seed=number, dtype=torch.float64)
        terms = EagerEngine(ensemble).gradients(
            images, labels, objective=objective, names=NAMES, senders=NAMES
        )
        gradients = {
            name: parameter.grad.clone()
            for module in (ensemble, objective)
            for name, parameter in module.named_parameters()
            if parameter.grad is not None
        }
        seen.append({"terms": {name: term.item() for name, term in terms.items()}, "gradients": gradients})
        optimizer.step()
        optimizer.zero_grad()
    return {"seen": seen, "weights": ensemble.state_dict()}


@pytest.mark.slow
class TestTwoGlooProcesses:
    def test_gradients_are_those_of_the_whole_batch(
        self, ranks: list[dict[str, Any]], alone: dict[str, Any]
    ) -> None:
        for rank in ranks:
            for given, expected in zip(rank["seen"], alone["seen"], strict=True):
                assert given["gradients"].keys() == expected["gradients"].keys()
                largest = max(gradient.abs().max() for gradient in expected["gradients"].values())
                for name, gradient in expected["gradients"].items():
                    assert (given["gradients"][name] - gradient).abs().max() <= 1e-12 * max(1, largest), name

    def test_losses_are_those_of_the_whole_batch(
        self, ranks: list[dict[str, Any]], alone: dict[str, Any]
    ) -> None:
        for rank in ranks:
            for given, expected in zip(rank["seen"], alone["seen"], strict=True):
                assert given["terms"] == pytest.approx(expected["terms"], rel=1e-12)

    def test_weights_end_equal(self, ranks: list[dict[str, Any]], alone: dict[str, Any]) -> None:
        for name, tensor in alone["weights"].items():
            assert torch.equal(ranks[0]["weights"][name], ranks[1]["weights"][name])
            torch.testing.assert_close(ranks[0]["weights"][name], tensor, rtol=0, atol=1e-11)

    def test_all_know_of_a_stop_that_one_was_asked_for(self, ranks: list[dict[str, Any]]) -> None:
        assert [[step["stop"] for step in rank["seen"]] for rank in ranks] == [[0, 15, 0]] * 2

    def test_running_statistics_end_equal(self, ranks: list[dict[str, Any]]) -> None:
        for name, buffer in ranks[0]["after"].items():
            assert torch.equal(buffer, ranks[1]["after"][name])
            assert not torch.equal(buffer, ranks[0]["before"][name])
        # The stem's mean is linear in the images: the shares' mean is the whole batch's.
        ensemble = tiny_ensemble(dtype=torch.float64)
        ensemble.load_state_dict(ranks[0]["weights"] | ranks[0]["before"])
        ensemble.train()(tiny_batch(8, seed=9, dtype=torch.float64)[0])
        torch.testing.assert_close(ranks[0]["after"]["stem.1.running_mean"], ensemble.stem[1].running_mean)  # type: ignore[index]


@dataclass
class PlayedFabric:
    """Stands for Fabric in one of several threads, which meet in `all_reduce`."""

    world_size: int
    global_rank: int
    meeting: Barrier
    table: dict[int, Tensor] = field(default_factory=dict)

    def all_reduce(self, tensor: Tensor, reduce_op: str) -> Tensor:
        assert reduce_op == "mean"
        self.table[self.global_rank] = tensor
        self.meeting.wait(timeout=20)
        mean = torch.stack([self.table[rank] for rank in range(self.world_size)]).mean(dim=0)
        self.meeting.wait(timeout=20)
        return mean


@pytest.mark.parametrize(("world", "count"), [(2, 7), (3, 8), (2, 4)])
def test_uneven_shares_average_to_the_whole_batch(world: int, count: int) -> None:
    images, labels = tiny_batch(count, dtype=torch.float64)
    modules = [nn.Linear(64, CLASSES).double() for _ in range(world)]
    for module in modules[1:]:
        module.load_state_dict(modules[0].state_dict())
    meeting, table = Barrier(world), {}
    found: dict[int, tuple[dict[str, float], int]] = {}

    def loss_of(module: nn.Module, part: slice) -> Tensor:
        return nn.functional.cross_entropy(module(images[part].flatten(1)), labels[part])

    def work(rank: int) -> None:
        fabric: Any = PlayedFabric(world, rank, meeting, table)
        share = share_of(fabric)
        part = slice(share.rank, None, share.processes)
        weight = len(labels[part]) * world / count
        loss = loss_of(modules[rank], part)
        (weight * loss).backward()
        found[rank] = average(
            fabric, [modules[rank]], {"loss": loss.item()}, weight=weight, stop=2 if rank == 1 else 0
        )

    threads = [Thread(target=work, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    whole = nn.Linear(64, CLASSES).double()
    whole.load_state_dict(modules[0].state_dict())
    expected = loss_of(whole, slice(None))
    expected.backward()
    for rank, module in enumerate(modules):
        terms, stop = found[rank]
        assert stop == 2
        assert terms == pytest.approx({"loss": expected.item()}, rel=1e-12)
        for own, other in zip(module.parameters(), whole.parameters(), strict=True):
            torch.testing.assert_close(own.grad, other.grad, rtol=1e-12, atol=1e-14)


def test_one_process_is_left_as_it_is() -> None:
    fabric = launch(TrainingConfig(device="cpu"))
    ensemble = tiny_ensemble()
    before = {name: tensor.clone() for name, tensor in ensemble.state_dict().items()}

    broadcast_state(fabric, [ensemble])
    terms = {"loss": 0.1}

    assert average(fabric, [ensemble], terms, weight=1.0, stop=2) == (terms, 2)
    assert all(torch.equal(before[name], tensor) for name, tensor in ensemble.state_dict().items())
    assert (share_of(fabric).rank, share_of(fabric).processes) == (0, 1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_one_line() -> None:
    with pytest.raises(InputError, match=r"training\.device cuda: torch finds no CUDA device here"):
        launch(TrainingConfig(device="cuda"))


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is an Apple GPU")
def test_an_apple_gpu_that_is_not_there_is_one_line() -> None:
    with pytest.raises(InputError, match=r"training\.device mps: torch finds no Apple GPU here"):
        launch(TrainingConfig(device="mps"))
