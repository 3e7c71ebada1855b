import pytest

from codistill.results import formatting
from codistill.results.spread import Spread


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (formatting.count(272474), "272,474"),
        (formatting.count(None), "—"),
        (formatting.macs(41_130_000), "41.13 M"),
        (formatting.macs(4_120_000_000), "4.12 G"),
        (formatting.macs(None), "—"),
        (formatting.percent(3.948), "3.95"),
        (formatting.signed(0.8), "+0.80"),
        (formatting.signed(-0.8), "-0.80"),
        (formatting.signed(-1e-14), "0.00"),
        (formatting.spread(Spread(mean=91.2, deviation=0.126, n=3)), "91.20 ± 0.13"),
        (formatting.spread(Spread(mean=1, deviation=None, n=1), sign=True), "+1.00"),
        (formatting.spread(None), "—"),
        (formatting.listing([0]), "0"),
        (formatting.listing([0, 1]), "0 and 1"),
        (formatting.listing([0, 1, 2]), "0, 1 and 2"),
    ],
)
def test_numbers_read_alike_everywhere(text: str, expected: str) -> None:
    assert text == expected
