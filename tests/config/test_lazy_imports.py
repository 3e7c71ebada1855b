"""Configuration, help and mistakes never import torch, nor what else takes seconds to import."""

import subprocess
import sys

import pytest

SLOW = ("torch", "torchvision", "numpy", "sklearn", "lightning_fabric", "safetensors", "datasets")


@pytest.mark.parametrize(
    ("statement", "status"),
    [
        ("import codistill", 0),
        ("import codistill; codistill.Config(); codistill.load_config", 0),
        ("import codistill.config, codistill.config.parsing, codistill.config.grid", 0),
        ("from codistill.cli import main; main(['--help'])", 0),
        ("from codistill.cli import main; main(['train', '--help'])", 0),
        ("from codistill.cli import main; main(['train', '--print_config'])", 0),
        ("from codistill.cli import main; main(['train', '--seeed', '1'])", 2),
        ("from codistill.cli import main; main(['trian'])", 2),
        ("from codistill.cli import main; main(['sweep', '--optimizer.lr', '0,-1'])", 2),
        ("from codistill.cli import main; main(['resume', '/nowhere'])", 2),
    ],
)
def test_no_slow_import(statement: str, status: int) -> None:
    code = f"""
import sys
try:
    {statement}
except SystemExit as stop:
    assert stop.code == {status}, stop.code
else:
    assert {status} == 0
slow = [name for name in {SLOW!r} if name in sys.modules]
assert not slow, slow
"""
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60
    )

    assert answer.returncode == 0, answer.stderr
    assert len(answer.stderr.splitlines()) == (1 if status == 2 else 0)


def test_public_names_are_all_there() -> None:
    import codistill

    assert {name: getattr(codistill, name).__name__ for name in codistill.__all__} == {
        name: name for name in codistill.__all__
    }
    assert set(dir(codistill)) == set(codistill.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        codistill.nothing  # noqa: B018
