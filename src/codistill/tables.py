"""Tables in GitHub's Markdown that read as well as plain text."""

from collections.abc import Iterable, Sequence

from tabulate import tabulate


def markdown_table(
    rows: Iterable[Sequence[str]], headers: Sequence[str], text_columns: Iterable[int] = (0,)
) -> str:
    """Return a table whose text columns stand to the left and whose numbers stand to the right."""
    left = set(text_columns)
    align = ["left" if column in left else "right" for column in range(len(headers))]
    return tabulate(list(rows), headers, tablefmt="pipe", disable_numparse=True, colalign=align)
