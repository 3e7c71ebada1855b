"""How the sections report what is wrong with them: all at once, each by the name of its field."""

import math
from collections.abc import Iterator
from typing import Any

Problem = tuple[str, str]
"""The field and what is wrong with it, in words that follow the field's name."""


def in_range(
    section: Any,
    name: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
) -> Iterator[Problem]:
    """Yield a problem unless the field is `None` or finite, low ≤ value ≤ high and value > above.

    A whole number must also be below 2^63, since libraries count in 64 bits.
    """
    value = getattr(section, name)
    if value is None:
        return
    if isinstance(value, int) and abs(value) >= 2**63:
        yield name, "must be below 2^63"
        return
    good = (
        math.isfinite(value)
        and (low is None or value >= low)
        and (high is None or value <= high)
        and (above is None or value > above)
    )
    if not good:
        bounds = [
            text
            for bound, text in (
                (above, f"above {above}"),
                (low, f"at least {low}"),
                (high, f"at most {high}"),
            )
            if bound is not None
        ]
        yield name, f"must be {' and '.join(bounds) or 'finite'}, not {value}"
