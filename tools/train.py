"""The command of the paper's authors: train as a config file of theirs says, which is read and never run.

    cd tools && python3 train.py --cfg=configs/config_trial.py

The file's path is relative to the folder above this one, or absolute; the paths in it start from this one.
"""

import sys
from pathlib import Path

try:
    from codistill.cli import run_and_exit
    from codistill.cli.original import tools_train
except ModuleNotFoundError as missing:
    print(
        f"{missing.name} is not installed: pip install -e {Path(__file__).resolve().parents[1]}",
        file=sys.stderr,
    )
    sys.exit(2)


if __name__ == "__main__":
    run_and_exit(lambda: tools_train(sys.argv[1:], Path(__file__).resolve().parent))
