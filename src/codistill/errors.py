"""The one exception a user's mistake raises."""


class InputError(ValueError):
    """What the user gave cannot be used: a config, file, image, label, checkpoint or argument.

    The message is one line that names the thing, where it is and what is allowed. The command line prints
    it and exits with status 2.
    """
