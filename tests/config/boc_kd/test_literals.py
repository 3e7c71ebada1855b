"""Files of literals: read from the syntax tree, never run."""

from pathlib import Path

import pytest

from codistill.config.boc_kd.literals import Entry, read_literals
from codistill.errors import InputError


def refusal(content: str | bytes, folder: Path) -> str:
    file = folder / "c.py"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        read_literals(file)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(file), "c.py")


def test_literals_arrive_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "c.py"
    file.write_text(
        '"""Text."""\n# A comment.\na = -2.5\nb = dict(\n    c=[1, (2,)],  # more\n    d={"e": None},\n)\n'
    )

    assert read_literals(file) == {
        "a": Entry(-2.5, 3),
        "b": Entry({"c": Entry([1, [2]], 5), "d": Entry({"e": Entry(None, 6)}, 6)}, 4),
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "import os",
            "c.py line 1: only NAME = value may stand here, since the file is read, not run: import os",
        ),
        ("\nprint(1)", "c.py line 2: only NAME = value may stand here"),
        ("if True:\n    a = 1", "c.py line 1: only NAME = value may stand here"),
        ("a: int = 1", "c.py line 1: only NAME = value may stand here"),
        (
            "a = open('x')",
            "c.py line 1: is no number, text, True, False, None, list or dict(...), and the file",
        ),
        ("a = dict(\n  b=__import__('os').getcwd())", "c.py line 2: is no number"),
        ("a = [x for x in (1,)]", "c.py line 1: is no number"),
        ("a = f'{1}'", "c.py line 1: is no number"),
        ("a = b'x'", "c.py line 1: is no number"),
        ("a = 2 * 3", "c.py line 1: is no number"),
        ("a = -True", "c.py line 1: is no number"),
        ("a = lambda: 1", "c.py line 1: is no number"),
        ("a = dict([('b', 1)])", "c.py line 1: is no number"),
        ("a = dict(**{'b': 1})", "c.py line 1: a dict must be written as name=value"),
        ("a = {1: 2}", "c.py line 1: a dict must be written as name=value"),
        ("a = {'b': 1,\n'b': 2}", "c.py line 2: b stands here a second time: 2"),
        ("a = 1\na = 2", "c.py line 2: a is assigned a second time: a = 2"),
        ("a = b = 1", "c.py line 1: a value must be assigned to one plain name"),
        ("a, b = 1, 2", "c.py line 1: a value must be assigned to one plain name"),
        ("a.b = 1", "c.py line 1: a value must be assigned to one plain name"),
        ("a = dict(b=1\nc=2)", "c.py line 1: is no Python: "),  # Five of the authors' files lack a comma.
        ("a = (", "c.py line 1: is no Python: "),
        ("a = '\0'", "c.py: is no Python: source code string cannot contain null bytes"),
        (b"a = '\xff'", "c.py: is no text in UTF-8"),
        ("a = " + "[" * 25 + "]" * 25, "c.py line 1: values are nested too deep"),
        ("a = " + "[" * 5000 + "]" * 5000, "c.py line 1: is no Python: too many nested parentheses"),
        ("a = " + "-" * 90_000 + "1", "c.py: is no Python that can be read"),
        ("a = 1" + "+1" * 45_000, "c.py: is no Python that can be read"),
        ("a = " + "9" * 5000, "c.py line 1: is no Python: Exceeds the limit"),
        ("#" * 100_001, "c.py: is 100,001 bytes long, which no config file is"),
    ],
)
def test_what_is_no_literal_is_refused_with_its_line(
    content: str | bytes, message: str, tmp_path: Path
) -> None:
    assert refusal(content, tmp_path).startswith(message)


def test_a_missing_file_or_a_folder_is_said_to_be_one(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.py", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(InputError, match=f"cannot be read: {reason}"):
            read_literals(path)
