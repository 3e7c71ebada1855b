"""The command line: parse, call, print. Nothing here imports torch before a command needs it."""

import contextlib
import difflib
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from codistill.cli.commands import COMMANDS, USAGE
from codistill.errors import DivergedError, InputError, Interrupted, Notice, one_line, tell

__all__ = ["COMMANDS", "main", "run_and_exit"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    run_and_exit(lambda: _run(words))


def run_and_exit(command: Callable[[], int]) -> NoReturn:
    """Call a command and exit: 0 done, 1 diverged, 2 a mistake in what was given, 130 or 143 stopped."""
    try:
        with _notices_told():
            status = command()
    except InputError as error:
        status = _complain(one_line(error, limit=4000), 2)
    except DivergedError as error:
        status = _complain(one_line(error), 1)
    except Interrupted as stop:
        tell(str(stop))
        status = 128 + stop.signal_number
    except KeyboardInterrupt:
        tell("stopped at once; what was saved before is kept")
        status = 130
    except BrokenPipeError:  # The reader of a table, such as head, has seen enough.
        with contextlib.suppress(OSError):
            sys.stdout.close()
        status = 0
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        status = _complain(f"{place}{error.strerror or one_line(error)}", 2)
    except (MemoryError, RuntimeError) as error:
        # torch has an OutOfMemoryError of its own for devices, and a plain error for the host's memory.
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        status = _complain(f"out of memory: a lower training.batch_size may help: {one_line(error, 120)}", 2)
    sys.exit(status)


def _complain(message: str, status: int) -> int:
    tell(f"codistill: error: {message}")
    return status


@contextlib.contextmanager
def _notices_told() -> Iterator[None]:
    """Print each `Notice` in a line, once; other warnings are shown as ever."""
    with warnings.catch_warnings():
        warnings.simplefilter("once", Notice)
        show = warnings.showwarning

        def tell_notice(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, Notice):
                tell(f"codistill: note: {message}")
            else:
                show(message, category, *place, **more)

        warnings.showwarning = tell_notice
        yield


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if words[0] == "--version":
        from importlib.metadata import version

        print(version("codistill"))
        return 0
    command = COMMANDS.get(words[0])
    if command is None:
        near = difflib.get_close_matches(words[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(COMMANDS)}"
        raise InputError(f"{words[0]} is no command; {hint}")
    return command(words[1:])
