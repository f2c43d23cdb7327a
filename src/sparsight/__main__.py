"""`python -m sparsight`: the command line."""

from sparsight.cli.entry import main

if __name__ == "__main__":
    raise SystemExit(main())
