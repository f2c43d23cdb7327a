"""`python -m sparsight`: the command line."""

from sparsight.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
