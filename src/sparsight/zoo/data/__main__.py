"""`python -m sparsight.zoo.data`: download Fashion-MNIST if necessary, and print its folder."""

from __future__ import annotations

import sys

from sparsight.zoo.data.mnist_family import DataNotFound, fashion_mnist, find_fashion_mnist


def main() -> int:
    if find_fashion_mnist() is None:
        try:
            fashion_mnist()
        except DataNotFound as error:
            sys.stderr.write(f"{error}\n")
            return 1
    sys.stdout.write(f"Fashion-MNIST: {find_fashion_mnist()}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
