"""`python -m codistill` does what the command `codistill` does."""

from codistill.cli import main

if __name__ == "__main__":
    main()
