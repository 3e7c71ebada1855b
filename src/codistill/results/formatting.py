"""How numbers look in tables, so that all tables look alike."""

from collections.abc import Iterable

from codistill.results.spread import Spread

NONE = "—"
WEIGHTED = "weighted: the paper's sum of j/N times the accuracy of Sj, j = 1 … N; no percentage."


def count(number: int | None) -> str:
    """Return a whole number with its thousands marked: 272,474."""
    return NONE if number is None else f"{number:,}"


def macs(number: int | None) -> str:
    """Return multiply-accumulates in millions or billions: 41.13 M, 4.12 G."""
    if number is None:
        return NONE
    return f"{number / 1e6:.2f} M" if number < 1e9 else f"{number / 1e9:.2f} G"


def percent(value: float | None) -> str:
    """Return a percentage, without its sign, to the hundredth that the paper prints."""
    return NONE if value is None else f"{value:.2f}"


def signed(value: float) -> str:
    """Return a difference to the hundredth, with its sign where it is not zero."""
    return f"{value:+.2f}" if round(value, 2) else "0.00"


def spread(value: Spread | None, *, sign: bool = False) -> str:
    """Return the mean ± the standard deviation, or the value alone where there is one."""
    if value is None:
        return NONE
    mean = signed(value.mean) if sign else percent(value.mean)
    return mean if value.deviation is None else f"{mean} ± {value.deviation:.2f}"


def listing(items: Iterable[object]) -> str:
    """Return the items in words: 0, 1 and 2."""
    words = [str(item) for item in items]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
