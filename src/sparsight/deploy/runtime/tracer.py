"""The state of tracing: what each node of torch's graph was translated to."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, fx

from sparsight.deploy.runtime.graph import Conv, Graph, Sum, Value
from sparsight.deploy.runtime.weight import Weight
from sparsight.deploy.torch_graph import name_of


class NotTraced(ValueError):
    """The runtime's graph lacks an operation; the message names it."""


Made = Value | list[Value] | Conv | Sum
"""What a node became: values in the graph, or an operation not yet in it, into which the next may be fused."""


def pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


@dataclass
class Tracer:
    """Adds operations to a graph as late as possible, to fuse the next ones into them."""

    constants: Mapping[str, Tensor | Weight]
    handlers: Mapping[str, Callable[[Tracer, fx.Node], Made]]
    graph: Graph = field(default_factory=Graph)
    found: dict[fx.Node, Made] = field(default_factory=dict)

    def run(self, graph: fx.Graph) -> Graph:
        for node in graph.nodes:
            if node.op == "placeholder" and node.name not in self.constants:
                channels, rows, cols = (*(int(n) for n in node.meta["val"].shape[1:]), 1, 1)[:3]
                self.found[node] = self.graph.input((channels, rows, cols))
            elif node.op == "call_function":
                self.call(node)
            elif node.op == "output":
                outputs: Any = node.args[0]
                self.graph.outputs = [self.value(out) for out in outputs]
                self.graph.ranks = [out.meta["val"].dim() for out in outputs]
        return self.graph

    def call(self, node: fx.Node) -> None:
        if not isinstance(node.meta.get("val"), Tensor | tuple | list):
            return  # a size: shapes are known without it
        if node.target is operator.getitem:
            several, number = node.args
            found = self.found.get(several)  # type: ignore[arg-type]
            if not isinstance(found, list):
                raise NotTraced(f"{several} is not several activations")
            self.found[node] = found[number]  # type: ignore[index]
            return
        name, in_place = name_of(node)
        handler = self.handlers.get(name)
        if handler is None:
            raise NotTraced(f"the runtime has no operation {node.target}")
        self.found[node] = handler(self, node)
        if in_place:  # later readers of the argument read the result
            self.found[node.all_input_nodes[0]] = self.found[node]

    def value(self, node: Any) -> Value:
        """The value of a node, added to the graph if it is not there yet."""
        found = self.found.get(node)
        if found is None:
            raise NotTraced(f"{node} is no activation")
        if isinstance(found, Conv | Sum):
            self.found[node] = found = self.graph.add(found)
        if isinstance(found, list):
            raise NotTraced(f"{node} is several activations")
        return found

    def constant(self, node: Any, default: np.ndarray | None = None) -> np.ndarray:
        if node is None and default is not None:
            return default
        found = self._known(node)
        if isinstance(found, Weight):
            raise NotTraced(f"{node} is used as anything but a weight")
        return found.double().numpy()

    def weight(self, node: Any) -> Weight:
        found = self._known(node)
        return found if isinstance(found, Weight) else Weight.of(found)

    def _known(self, node: Any) -> Tensor | Weight:
        if not isinstance(node, fx.Node) or node.name not in self.constants:
            raise NotTraced(f"{node} is computed, and the runtime takes weights as they are")
        return self.constants[node.name]

    def alone(self, node: Any) -> Conv | Sum | None:
        """The operation of a node, if it is waiting and nothing else reads it."""
        found = self.found.get(node)
        return found if isinstance(found, Conv | Sum) and len(node.users) == 1 else None
