"""The engines: the parallel one against one backward pass through everything."""

from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from codistill.config import ObjectiveConfig
from codistill.models.ensemble import Ensemble, StudentOutput
from codistill.objectives.paper import PaperObjective
from codistill.training.step import EagerEngine, Engine, ParallelEngine, choose_engine, make_engine
from tiny import WIDTHS, tiny_batch, tiny_ensemble, with_statistics

NAMES = ("S1", "S2", "S3")
MakeEngine = Callable[..., Engine]


@pytest.fixture(autouse=True)
def one_thread(threads_as_they_were: None) -> None:
    del threads_as_they_were  # It gives the count back.
    torch.set_num_threads(1)


@pytest.fixture
def make() -> Iterator[MakeEngine]:
    """Make engines that are closed in the end."""
    made: list[Engine] = []

    def build(kind: str, ensemble: Ensemble, **options: Any) -> Engine:
        made.append(make_engine(kind, ensemble, threads=2, **options))  # type: ignore[arg-type]
        return made[-1]

    yield build
    for engine in made:
        engine.close()


def teaching(dtype: torch.dtype = torch.float32, **config: Any) -> PaperObjective:
    return PaperObjective(ObjectiveConfig(**config), WIDTHS).to(dtype)


def take(
    engine: Engine,
    ensemble: Ensemble,
    objective: nn.Module,
    batch: tuple[Tensor, Tensor],
    *,
    names: Collection[str] = NAMES,
    senders: Collection[str] = NAMES,
    scale: float = 1.0,
) -> tuple[dict[str, Tensor], dict[str, Tensor | None], dict[str, Tensor]]:
    """Take one step's gradients from zero; return terms, gradients and buffers."""
    ensemble.zero_grad()
    objective.zero_grad()
    terms = engine.gradients(*batch, objective=objective, names=names, senders=senders, scale=scale)
    gradients = {
        name: None if parameter.grad is None else parameter.grad.clone()
        for module in (ensemble, objective)
        for name, parameter in module.named_parameters()
    }
    return terms, gradients, {name: buffer.clone() for name, buffer in ensemble.named_buffers()}


def both(
    make: MakeEngine, *, dtype: torch.dtype = torch.float32, layout: torch.memory_format, **options: Any
) -> tuple[Any, Any]:
    results = []
    for kind in ("eager", "parallel"):
        ensemble = tiny_ensemble(dtype=dtype).to(memory_format=layout)
        images, labels = tiny_batch(6, dtype=dtype)
        batch = (images.to(memory_format=layout), labels)
        results.append(take(make(kind, ensemble), ensemble, teaching(dtype), batch, **options))
    return results[0], results[1]


LAYOUTS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])


@LAYOUTS
@pytest.mark.parametrize("senders", [NAMES, ("S1",), ("S2", "S3"), ()])
def test_students_adapters_losses_and_statistics_are_equal_bit_for_bit(
    make: MakeEngine, layout: torch.memory_format, senders: tuple[str, ...]
) -> None:
    eager, parallel = both(make, layout=layout, senders=senders)

    for one, other in zip(eager, parallel, strict=True):
        assert list(one) == list(other)
        for name, tensor in one.items():
            if tensor is None:
                assert other[name] is None, name
            elif not (name.startswith("stem") and name in eager[1]):
                assert torch.equal(tensor, other[name]), name


@LAYOUTS
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_the_stem_differs_by_the_rounding_of_a_sum(
    make: MakeEngine, layout: torch.memory_format, dtype: torch.dtype, tolerance: float
) -> None:
    eager, parallel = both(make, dtype=dtype, layout=layout)

    for name, gradient in eager[1].items():
        if name.startswith("stem"):
            largest = gradient.abs().max()
            assert largest > 1e-3
            assert (parallel[1][name] - gradient).abs().max() <= tolerance * largest


@pytest.mark.parametrize("kind", ["eager", "parallel"])
class TestBothEngines:
    def test_the_stem_gets_the_senders_gradient_alone(self, kind: str, make: MakeEngine) -> None:
        """Oracle: the stem's gradient of L as a function of S1's outputs, all others held fixed."""
        ensemble, objective, batch = tiny_ensemble(dtype=torch.float64), teaching(torch.float64), tiny_batch()
        batch = (batch[0].double(), batch[1])
        _, gradients, _ = take(make(kind, ensemble), ensemble, objective, batch, senders=("S1",))

        fresh = tiny_ensemble(dtype=torch.float64)
        stem_output = fresh.stem(batch[0])
        outputs = {
            name: StudentOutput(*student(stem_output if name == "S1" else stem_output.detach()))
            for name, student in fresh.students.items()
        }
        fixed = {
            name: output
            if name == "S1"
            else StudentOutput(output.logits.detach(), tuple(map_.detach() for map_ in output.features))
            for name, output in outputs.items()
        }
        objective(fixed, batch[1])["loss"].backward()

        for name, parameter in fresh.stem.named_parameters():
            torch.testing.assert_close(gradients[f"stem.{name}"], parameter.grad, rtol=1e-12, atol=1e-15)

    def test_the_parts_that_senders_bring_add_up(self, kind: str, make: MakeEngine) -> None:
        def stem_gradient(senders: tuple[str, ...]) -> Tensor:
            ensemble = tiny_ensemble(dtype=torch.float64)
            images, labels = tiny_batch(dtype=torch.float64)
            _, gradients, _ = take(
                make(kind, ensemble), ensemble, teaching(torch.float64), (images, labels), senders=senders
            )
            gradient = gradients["stem.0.weight"]
            assert gradient is not None
            return gradient

        total = sum(stem_gradient((name,)) for name in NAMES)

        torch.testing.assert_close(stem_gradient(NAMES), total, rtol=1e-10, atol=1e-14)

    def test_what_students_learn_does_not_depend_on_who_sends(self, kind: str, make: MakeEngine) -> None:
        results = []
        for senders in (NAMES, ()):
            ensemble = tiny_ensemble()
            engine = make(kind, ensemble)
            results.append(take(engine, ensemble, teaching(), tiny_batch(), senders=senders)[1])

        for name, gradient in results[0].items():
            if not name.startswith("stem"):
                assert torch.equal(gradient, results[1][name]), name

    def test_without_senders_the_stem_has_no_gradient(self, kind: str, make: MakeEngine) -> None:
        ensemble = tiny_ensemble()

        _, gradients, _ = take(make(kind, ensemble), ensemble, teaching(), tiny_batch(), senders=())

        assert {name for name, gradient in gradients.items() if gradient is None} == {
            f"stem.{name}" for name, _ in ensemble.stem.named_parameters()
        }

    def test_students_that_do_not_take_part_are_left_alone(self, kind: str, make: MakeEngine) -> None:
        ensemble, alone = tiny_ensemble(), tiny_ensemble(("S1",))
        before = {name: buffer.clone() for name, buffer in ensemble.named_buffers()}
        objective = PaperObjective(ObjectiveConfig(), {"S1": WIDTHS["S1"]})

        terms, gradients, buffers = take(
            make(kind, ensemble), ensemble, objective, tiny_batch(), names=("S1",), senders=("S1",)
        )
        expected = take(make("eager", alone), alone, objective, tiny_batch(), names=("S1",), senders=("S1",))

        assert terms == expected[0]
        for name, gradient in gradients.items():
            if "S1" in name or name.startswith("stem"):
                assert torch.equal(gradient, expected[1][name])  # type: ignore[arg-type]
            else:
                assert gradient is None
        for name, buffer in buffers.items():
            if "S2" in name or "S3" in name:
                assert torch.equal(buffer, before[name])

    def test_scale_is_a_factor_on_gradients_not_on_terms(self, kind: str, make: MakeEngine) -> None:
        results = []
        for scale in (1.0, 0.25):  # A power of two scales without rounding.
            ensemble = tiny_ensemble()
            results.append(take(make(kind, ensemble), ensemble, teaching(), tiny_batch(), scale=scale))

        assert results[0][0] == results[1][0]
        for name, gradient in results[0][1].items():
            torch.testing.assert_close(results[1][1][name], gradient * 0.25, rtol=1e-6, atol=1e-9)

    def test_gradients_are_added_to_those_that_are_there(self, kind: str, make: MakeEngine) -> None:
        ensemble, objective = tiny_ensemble(), teaching()
        engine = make(kind, ensemble)
        _, once, _ = take(engine, ensemble, objective, tiny_batch())
        engine.gradients(*tiny_batch(), objective=objective, names=NAMES, senders=NAMES)

        for name, parameter in ensemble.named_parameters():
            torch.testing.assert_close(parameter.grad, 2 * once[name])  # type: ignore[operator]

    def test_labels_reach_the_objective(self, kind: str, make: MakeEngine) -> None:
        ensemble = tiny_ensemble()
        images, labels = tiny_batch()
        engine = make(kind, ensemble)

        one = take(engine, ensemble, teaching(), (images, labels))[0]
        other = take(engine, ensemble, teaching(), (images, (labels + 1) % 4))[0]

        assert one["label/S1"] != other["label/S1"]
        assert one["distillation/S1"] == other["distillation/S1"]

    def test_outputs_are_the_ensembles_without_a_graph(self, kind: str, make: MakeEngine) -> None:
        ensemble = with_statistics(tiny_ensemble()).eval()
        images, _ = tiny_batch()

        outputs = make(kind, ensemble).outputs(images, ("S3", "S1"))
        expected = ensemble(images)

        assert list(outputs) == ["S3", "S1"]
        for name, output in outputs.items():
            assert torch.equal(output.logits, expected[name].logits)
            for own, other in zip(output.features, expected[name].features, strict=True):
                assert torch.equal(own, other)
                assert not own.requires_grad
            assert not output.logits.requires_grad

    def test_two_runs_are_equal_bit_for_bit(self, kind: str, make: MakeEngine) -> None:
        finals = []
        for _ in range(2):
            ensemble, objective = tiny_ensemble(), teaching()
            engine = make(kind, ensemble)
            optimizer = torch.optim.SGD([*ensemble.parameters(), *objective.parameters()], 0.1, momentum=0.9)
            for step in range(4):
                images, labels = tiny_batch(seed=step)
                engine.gradients(images, labels, objective=objective, names=NAMES, senders=NAMES)
                optimizer.step()
                optimizer.zero_grad()
            finals.append(ensemble.state_dict() | objective.state_dict())

        assert all(torch.equal(tensor, finals[1][name]) for name, tensor in finals[0].items())
        assert not torch.equal(finals[0]["stem.0.weight"], tiny_ensemble().state_dict()["stem.0.weight"])

    def test_an_exception_in_a_student_surfaces(self, kind: str, make: MakeEngine) -> None:
        class Failing(nn.Module):
            def forward(self, stem_output: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
                raise RuntimeError("S2 has failed")

        ensemble = tiny_ensemble()
        ensemble.students["S2"] = Failing()
        engine = make(kind, ensemble)
        images, labels = tiny_batch()

        with pytest.raises(RuntimeError, match="S2 has failed"):
            engine.gradients(images, labels, objective=teaching(), names=NAMES, senders=NAMES)
        with pytest.raises(RuntimeError, match="S2 has failed"):
            engine.outputs(images, NAMES)

    def test_an_exception_in_a_students_backward_surfaces(self, kind: str, make: MakeEngine) -> None:
        ensemble = tiny_ensemble()

        def fail(gradient: Tensor) -> Tensor:
            raise RuntimeError("S3 has failed")

        ensemble.students["S3"].head.weight.register_hook(fail)  # type: ignore[union-attr, operator]
        images, labels = tiny_batch()

        with pytest.raises(RuntimeError, match="S3 has failed"):
            make(kind, ensemble).gradients(images, labels, objective=teaching(), names=NAMES, senders=NAMES)

    def test_an_objective_may_leave_a_student_out(self, kind: str, make: MakeEngine) -> None:
        def only_s1(outputs: Mapping[str, StudentOutput], labels: Tensor) -> dict[str, Tensor]:
            return {"loss": nn.functional.cross_entropy(outputs["S1"].logits, labels)}

        ensemble = tiny_ensemble()
        images, labels = tiny_batch()

        make(kind, ensemble).gradients(images, labels, objective=only_s1, names=NAMES, senders=NAMES)

        learned = {
            name.split(".")[1] for name, p in ensemble.students.named_parameters("x") if p.grad is not None
        }
        assert learned == {"S1"}
        assert ensemble.stem[0].weight.grad.abs().max() > 0  # type: ignore[index, union-attr]

    def test_students_compute_in_the_precision_of_autocast(self, kind: str, make: MakeEngine) -> None:
        def autocast() -> AbstractContextManager[object]:
            return torch.autocast("cpu", dtype=torch.bfloat16)

        ensemble = tiny_ensemble()
        engine = make(kind, ensemble, autocast=autocast)
        images, labels = tiny_batch()

        outputs = engine.outputs(images, NAMES)
        terms = engine.gradients(images, labels, objective=teaching(), names=NAMES, senders=NAMES)

        assert {output.logits.dtype for output in outputs.values()} == {torch.bfloat16}
        assert {parameter.grad.dtype for parameter in ensemble.parameters()} == {torch.float32}  # type: ignore[union-attr]
        exact = take(make("eager", tiny_ensemble()), ensemble, teaching(), (images, labels))[0]
        assert terms["loss"].item() == pytest.approx(exact["loss"].item(), rel=0.1)


@pytest.mark.parametrize("own", [1, 2])
def test_a_parallel_engine_leaves_the_callers_thread_count_alone(own: int) -> None:
    torch.set_num_threads(own)
    ensemble = tiny_ensemble()

    engine = ParallelEngine(ensemble, 3)
    try:
        counts = list(engine.pool.map(lambda _: torch.get_num_threads(), range(12)))
        engine.gradients(*tiny_batch(), objective=teaching(), names=NAMES, senders=NAMES)
        with ThreadPoolExecutor(1) as later:
            counts_later = list(later.map(lambda _: torch.get_num_threads(), range(1)))
        assert set(counts) == {1}
        assert torch.get_num_threads() == own
        assert counts_later == [own]
    finally:
        engine.close()
    assert torch.get_num_threads() == own


@pytest.mark.parametrize(
    ("asked", "device", "students", "threads", "chosen"),
    [
        ("auto", "cpu", 5, 2, "parallel"),
        ("auto", "cpu", 1, 2, "eager"),
        ("auto", "cpu", 5, 1, "eager"),
        ("auto", "cuda", 5, 8, "eager"),
        ("parallel", "cpu", 1, 1, "parallel"),
        ("eager", "cpu", 5, 8, "eager"),
    ],
)
def test_the_engine_that_is_chosen(asked: Any, device: str, students: int, threads: int, chosen: str) -> None:
    assert choose_engine(asked, device=torch.device(device), students=students, threads=threads) == chosen


def test_an_engine_has_no_more_threads_than_students() -> None:
    engine = make_engine("parallel", tiny_ensemble(("S1", "S2")), threads=64)
    try:
        assert isinstance(engine, ParallelEngine)
        assert len(engine.pool._threads) == 2
    finally:
        engine.close()
    assert isinstance(make_engine("eager", tiny_ensemble(), threads=2), EagerEngine)
