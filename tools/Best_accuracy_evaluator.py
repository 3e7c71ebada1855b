"""The evaluator of the paper's authors: how far a run's students came, and by how much they beat baselines.

cd tools && python3 Best_accuracy_evaluator.py --run_id 11_24_15_30
cd tools && python3 Best_accuracy_evaluator.py --run_id 11_24_15_30 --mode 2 --stu_run_id 11_25_09_00/11_26
"""

import sys
from pathlib import Path

try:
    from codistill.cli import run_and_exit
    from codistill.cli.original import best_accuracies
except ModuleNotFoundError as missing:
    print(
        f"{missing.name} is not installed: pip install -e {Path(__file__).resolve().parents[1]}",
        file=sys.stderr,
    )
    sys.exit(2)


if __name__ == "__main__":
    run_and_exit(lambda: best_accuracies(sys.argv[1:], Path(__file__).resolve().parents[1] / "Model_storage"))
