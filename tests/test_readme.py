"""The Python of README.md runs as it stands there, with a shorter training."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


@pytest.mark.slow
def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert "TrainingConfig(epochs=10)" in example
    names: dict[str, object] = {}
    exec(example.replace("TrainingConfig(epochs=10)", "TrainingConfig(epochs=1, threads=1)"), names)
    probabilities = names["probabilities"]
    assert tuple(getattr(probabilities, "shape")) == (1, 10)  # noqa: B009 - of an object of no known type
    assert len(list((tmp_path / "runs").iterdir())) == 2


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:configs|docs)/[\w./]+)`", README.read_text(encoding="utf-8"))))
)
def test_files_it_names_exist(path: str) -> None:
    assert (README.parent / path).exists()
