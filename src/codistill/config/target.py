"""A size that a student shall have, as a person writes it: '10 % of the parameters', '50 MMACs'."""

import re
from dataclasses import dataclass
from typing import Literal

from codistill.errors import InputError

_PREFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_SHARE = re.compile(r"([0-9.]+) ?% (?:of )?(?:the )?(parameters|params|macs)", re.IGNORECASE)
_AMOUNT = re.compile(r"([0-9.]+) ?([kmg]?) ?(parameters|params|macs)", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """A number of parameters or multiply-accumulates of a student that stands alone.

    Args:
        amount: How many, or the share of S1's, 0 to 1.
        unit: Of what.
        is_share: Whether the amount is a share.
    """

    amount: float
    unit: Literal["parameters", "macs"]
    is_share: bool

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Read such a text; raises `InputError` if it is none."""
        plain = " ".join(text.split())
        share, amount = _SHARE.fullmatch(plain), _AMOUNT.fullmatch(plain)
        found = share or amount
        try:
            number = float(found[1]) if found else -1.0
        except ValueError:
            number = -1.0
        if found is None or number <= 0 or (share and number > 100):
            raise InputError(
                "must be sizes as '10 % of the parameters', '20 % of the MACs', '50 MMACs' or"
                f" '200 k parameters', not {text!r}"
            )
        word = found[found.lastindex or 0].lower()
        unit: Literal["parameters", "macs"] = "macs" if word == "macs" else "parameters"
        if share:
            return cls(number / 100, unit, is_share=True)
        return cls(number * _PREFIXES[found[2].lower()], unit, is_share=False)

    def __str__(self) -> str:
        unit = "MACs" if self.unit == "macs" else "parameters"
        return f"{100 * self.amount:g} % of the {unit}" if self.is_share else f"{self.amount:,.0f} {unit}"
