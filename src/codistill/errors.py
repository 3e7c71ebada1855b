"""What ends a run: a user's mistake, a request to stop, or losses that are no longer numbers."""

import os
import sys
from pathlib import Path


class InputError(ValueError):
    """What the user gave cannot be used: a config, file, image, label, checkpoint or argument.

    The message is one line that names the thing, where it is and what is allowed. The command line prints
    it and exits with status 2.
    """


class Notice(UserWarning):
    """What a user asked for is done, but otherwise than they may expect; one line says how."""


class DivergedError(RuntimeError):
    """A loss is not finite; the message names the step, the term and the student."""


class Interrupted(Exception):  # noqa: N818 - a request, not an error
    """The run was asked to stop, finished its step and saved.

    Args:
        run: Folder to resume, or what else is unfinished.
        signal_number: What asked for it, SIGINT or SIGTERM.
        command: What goes on with it; none: resume.
    """

    def __init__(self, run: Path, signal_number: int, command: str | None = None) -> None:
        super().__init__(f"stopped; continue with: codistill {command or f'resume {run}'}")
        self.run = run
        self.signal_number = signal_number


def tell(text: str) -> None:
    """Print a line to standard error, where results do not go."""
    # Where several processes train one run, the first speaks for all.
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(text, file=sys.stderr, flush=True)


def one_line(error: BaseException, limit: int = 300) -> str:
    """Return an error's message without line breaks, cut to a length that fits a terminal."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
