"""Turns a graph into steps on buffers: chooses each activation's layout and where to convert it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from sparsight.deploy.runtime.graph import Concat, Conv, Flatten, Graph, Input, Mean, Part, Pool, Resample, Sum, Value
from sparsight.deploy.runtime.layout import IMAGES, Layout, Pair, covering, for_window
from sparsight.numerics.kernels.llvm import LANES

_FLAT = (1, 1)  # the image size of plain features


@dataclass(eq=False)
class Buffer:
    """Memory of an activation: planes of a layout, torch's rows (`rows`), or one number per channel."""

    channels: int
    size: Pair
    layout: Layout | None = None
    rows: int | None = None  # its number, if it is an input or output
    home: Buffer | None = None  # the buffer that contains it, from channel `offset` on
    offset: int = 0

    @property
    def whole(self) -> Buffer:
        return self.home.whole if self.home is not None else self

    @property
    def first(self) -> int:
        """Its first channel in `whole`."""
        return self.offset + (self.home.first if self.home is not None else 0)

    @property
    def in_planes(self) -> bool:
        return self.whole.rows is None and self.whole.layout is not None

    @property
    def planes(self) -> Layout:
        layout = self.whole.layout
        assert layout is not None
        return layout

    def widen(self, halo: int) -> bool:
        """Widen the halo to at least this; returns whether the layout allows it."""
        layout = self.planes
        if halo <= layout.halo:
            return True
        if layout.grid != IMAGES and halo > min(layout.block):
            return False
        self.whole.layout = replace(layout, halo=halo)
        return True


@dataclass(eq=False)
class Step:
    """One kernel: its operation (None: a conversion of layouts), inputs and output."""

    operation: Conv | Pool | Mean | Sum | Resample | None
    x: Buffer
    out: Buffer
    add: Buffer | None = None


@dataclass
class Plan:
    """Steps in order. A plane of one pixel holds `wide` vectors of 16 images side by side."""

    images: int
    wide: int = 1
    steps: list[Step] = field(default_factory=list)
    made: dict[int, list[Buffer]] = field(default_factory=dict)  # of each value, in all its layouts
    inputs: list[Buffer] = field(default_factory=list)
    outputs: list[Buffer] = field(default_factory=list)

    @property
    def groups(self) -> int:
        return 1 if self.images == 1 else -(-self.images // (LANES * self.wide))

    def layout(self, size: Pair, stride: Pair = (1, 1), x: Layout | None = None) -> Layout | None:
        """The layout of an image computed from x; None: one number per channel."""
        if self.images > 1:
            return Layout(size, IMAGES, (1, self.wide) if self.wide > 1 else size)
        return None if size == _FLAT else for_window(size, stride, x)

    def buffer(self, value: Value, layout: Layout | None) -> Buffer:
        made = Buffer(value.shape[0], value.shape[1:], layout)
        self.made.setdefault(value.number, []).append(made)
        return made

    def any_of(self, value: Value) -> Layout | None:
        """An existing layout of a value with all pixels in blocks."""
        found = (b.planes for b in self.made[value.number] if b.in_planes)
        return next((layout for layout in found if layout.covers), None)

    def usual(self, value: Value) -> Layout | None:
        """Its existing layout, otherwise the default for its size."""
        return self.any_of(value) or self.layout(value.shape[1:])

    def take(self, value: Value, layout: Layout | None, halo: int = 0) -> Buffer:
        """A value in a layout with at least this halo, converted if necessary."""
        if self.images > 1 and layout is not None:
            layout = self.layout(value.shape[1:])
        for b in self.made[value.number]:
            if b.rows is not None:
                continue
            if layout is None and not b.in_planes:
                return b
            if layout is not None and b.in_planes:
                same = (b.planes.grid, b.planes.block) == (layout.grid, layout.block)
                if same and b.widen(halo):
                    return b
        wide = None if layout is None else Layout(value.shape[1:], layout.grid, layout.block, halo)
        out = self.buffer(value, wide)
        self.steps.append(Step(None, self.made[value.number][0], out))
        return out


def planned(graph: Graph, images: int) -> Plan:
    """The steps for this many images."""
    plan = Plan(images, min(4, -(-images // LANES)) if graph.flat and images > 1 else 1)
    for number, (operation, value) in enumerate(zip(graph.operations, graph.values, strict=True)):
        match operation:
            case Input():
                made = Buffer(value.shape[0], value.shape[1:], rows=len(plan.inputs))
                plan.inputs.append(made)
                plan.made[number] = [made]
            case Conv() | Pool():
                _windowed(plan, operation, value)
            case Flatten(x) | Mean(x) if x.shape[1:] == _FLAT:  # the mean of one pixel is the pixel
                plan.made[number] = plan.made[x.number]
            case Mean(x):
                source = plan.take(x, plan.usual(x))
                plan.steps.append(Step(operation, source, plan.buffer(value, plan.layout(_FLAT))))
            case Sum(x, add, _):
                layout = plan.usual(x)
                source, other = plan.take(x, layout), None if add is None else plan.take(add, layout)
                plan.steps.append(Step(operation, source, plan.buffer(value, _bare(layout)), other))
            case Concat(parts):
                _joined(plan, parts, value)
            case Part(x, first, count):
                source = plan.take(x, plan.usual(x))
                part = Buffer(count, value.shape[1:], home=source, offset=first)
                if source.whole.layout is None:  # vectors are aligned to cache lines
                    plan.steps.append(Step(None, part, plan.buffer(value, None)))
                else:
                    plan.made[number] = [part]
            case Resample(x, _, _):
                source = plan.take(x, plan.usual(x))
                plan.steps.append(Step(operation, source, plan.buffer(value, plan.layout(value.shape[1:]))))
            case Flatten(x):
                _flattened(plan, x, value)
    for i, value in enumerate(graph.outputs):
        out = Buffer(value.shape[0], value.shape[1:], rows=len(plan.inputs) + i)
        plan.steps.append(Step(None, _latest(plan, value), out))
        plan.outputs.append(out)
    return plan


def _bare(layout: Layout | None) -> Layout | None:
    return None if layout is None else layout.bare


def _latest(plan: Plan, value: Value) -> Buffer:
    """A value in the network's own layout, rather than torch's."""
    made = plan.made[value.number]
    there = (b for b in made if b.rows is None and (not b.in_planes or b.planes.covers))
    return next(there, made[0])


def _windowed(plan: Plan, operation: Conv | Pool, value: Value) -> None:
    x, kernel = operation.x, operation.weight.shape[2:] if isinstance(operation, Conv) else operation.kernel
    if plan.images == 1 and isinstance(operation, Conv) and x.shape[1:] == value.shape[1:] == kernel == _FLAT:
        source, layout = plan.take(x, None), None
    else:
        layout = plan.layout(value.shape[1:], operation.stride, plan.any_of(x))
        if layout is None:  # a window over the whole image leaves one pixel
            layout = covering(_FLAT, (16, 1))
        dilation = operation.dilation if isinstance(operation, Conv) else (operation.dilation,) * 2
        halo = 0
        for k, s, p, d in zip(kernel, operation.stride, operation.padding, dilation, strict=True):
            halo = max(halo, p, d * (k - 1) - p - s + 1)
        rows, cols = (n * s for n, s in zip(layout.block, operation.stride, strict=True))
        source = plan.take(x, Layout(x.shape[1:], layout.grid, (rows, cols)), halo)
    add = operation.add if isinstance(operation, Conv) else None
    other = None if add is None else plan.take(add, layout)
    plan.steps.append(Step(operation, source, plan.buffer(value, layout), other))


def _joined(plan: Plan, parts: tuple[Value, ...], value: Value) -> None:
    """Parts with a suitable layout become channels of the whole in place; others are copied."""
    layout = plan.usual(parts[0])
    out = plan.buffer(value, _bare(layout))
    offset = 0
    for part in parts:
        source = plan.take(part, layout)
        if layout is not None and source.home is None and out.widen(source.planes.halo):
            source.home, source.offset = out, offset
        else:
            room = Buffer(part.shape[0], part.shape[1:], home=out, offset=offset)
            plan.steps.append(Step(None, source, room))
        offset += part.shape[0]


def _flattened(plan: Plan, x: Value, value: Value) -> None:
    made = _latest(plan, x)
    out = Buffer(value.shape[0], _FLAT, None if plan.images == 1 else plan.layout(_FLAT))
    plan.made[value.number] = [out]
    plan.steps.append(Step(None, made, out))
