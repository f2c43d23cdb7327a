"""`held` and `bind` where the network changes inside the block: memory, parameters, what is trained; its checks."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from loops import by_hand, in_block, loss_of, net, plus_zero, same, sgd, some
from torch import distributed, nn
from torch.optim.swa_utils import AveragedModel

from sparsight import bind, dense, held, verify
from sparsight.model.layout import Hold
from sparsight.model.masks import density, share
from sparsight.numerics.select import keep_largest

# -- memory ----------------------------------------------------------------------------------------------------


def laid_out(format: torch.memory_format) -> Callable[[nn.Sequential], None]:
    return lambda model: model.to(memory_format=format) and None


def transposed(model: nn.Sequential) -> None:
    for layer in (model[4], model[6]):
        layer.weight.data = layer.weight.detach().t().contiguous().t()


def with_gaps(model: nn.Sequential) -> None:
    model[4].weight.data = torch.stack([model[4].weight.detach()] * 2, dim=-1)[..., 0]


def doubled(model: nn.Sequential) -> None:
    model.double()


def elsewhere(model: nn.Sequential) -> None:
    for p in model.parameters():
        p.data = p.detach().clone()


def swapped(model: nn.Sequential) -> None:
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        model.double()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


CHANGES = {
    "channels last": laid_out(torch.channels_last),
    "contiguous": laid_out(torch.contiguous_format),
    "transposed": transposed,
    "with gaps": with_gaps,
    "float64": doubled,
    "other memory": elsewhere,
    "swapped objects": swapped,
}


# Between gradients and step torch's own optimisers refuse a weight of another type than its gradient.
TYPES = ("float64", "swapped objects")


@pytest.mark.parametrize(
    ("change", "late"), [(c, late) for c in CHANGES for late in (False, True) if not (late and c in TYPES)]
)
def test_weights_may_change_their_memory_inside_the_block(change, late):
    one, other = net(), net()
    if change == "contiguous":
        one, other = one.to(memory_format=torch.channels_last), other.to(memory_format=torch.channels_last)
    masks, first, second = some(one), sgd(one), sgd(other)

    def at(model):
        def change_once(number: int) -> None:
            if number == 1:
                before = [p.detach().clone() for p in model.parameters()]
                CHANGES[change](model)
                for p, was in zip(model.parameters(), before, strict=True):
                    assert torch.equal(p.detach().to(was.dtype), was)

        return change_once

    def keep(number: int) -> None:
        pass

    in_block(one, masks, first, 4, keep if late else at(one), at(one) if late else keep)
    moved = at(other)
    by_hand(other, masks, second, 4, moved)
    assert all(
        torch.allclose(x, y, rtol=1e-5, atol=1e-7) for x, y in zip(one.parameters(), other.parameters(), strict=True)
    )
    for name, mask in masks.items():
        assert bool((dict(one.named_parameters())[name].detach()[mask] != 0).all()), name


def test_a_volume_s_memory_format():
    model = nn.Sequential(nn.Conv3d(2, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    masks, optimizer = some(model), sgd(model)
    with held(model, masks, optimizer):
        model.to(memory_format=torch.channels_last_3d)
        kept = model[0].weight.detach()[masks["0.weight"]]
        optimizer.zero_grad()
        model(torch.zeros(2, 2, 3, 3, 3)).sum().backward()  # no input: the convolution's gradient is 0
        optimizer.step()
        verify(model, masks)
        expected = kept - 0.1 * 0.01 * kept
        torch.testing.assert_close(model[0].weight.detach()[masks["0.weight"]], expected)


@pytest.mark.parametrize("change", CHANGES)
def test_bound_masks_follow_the_weights(change):
    model = net().to(memory_format=torch.channels_last) if change == "contiguous" else net()
    masks = some(model)
    bound = bind(model, masks)
    bound.apply_()
    CHANGES[change](model)
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(-1.0)
            p.grad = torch.full_like(p, float("nan"))
    bound.apply_()
    bound.mask_grads_()
    bound.check()
    for name, mask in masks.items():
        weight = dict(model.named_parameters())[name]
        assert torch.equal(weight.detach(), torch.where(mask, -1.0, 0.0).to(weight.dtype)), name
        assert torch.equal(weight.grad.isnan(), mask), name
        assert plus_zero(weight.grad[~mask])


# -- parameters that are replaced ------------------------------------------------------------------------------


def test_a_replaced_parameter_is_held_if_an_optimizer_steps_it():
    model = net()
    masks, optimizer = some(model), sgd(model)
    with held(model, masks, optimizer):
        model[4] = nn.Linear(16, 6)
        optimizer.param_groups[0]["params"] = list(model.parameters())
        for number in range(2):
            optimizer.zero_grad()
            loss_of(model).backward()
            assert plus_zero(model[4].weight.grad[~masks["4.weight"]]) == (number > 0)
            optimizer.step()
            verify(model, masks)
            assert model[4].weight.detach()[masks["4.weight"]].abs().min() > 0
    assert not model[4].weight._post_accumulate_grad_hooks


@pytest.mark.parametrize("how", ["parameter", "module", "assigned state"])
def test_a_replaced_parameter_that_no_optimizer_steps_is_refused(how):
    model = net()
    masks, optimizer = some(model), sgd(model)
    block = held(model, masks, optimizer)
    block.__enter__()
    if how == "parameter":
        model[4].weight = nn.Parameter(torch.ones(6, 16))
    elif how == "module":
        model[4] = nn.Linear(16, 6)
    else:
        model.load_state_dict(net(3).state_dict(), assign=True)
    loss_of(model).backward()
    with pytest.raises(ValueError, match=r"no given optimizer \(SGD\) trains .* '4.weight'.*requires_grad_"):
        optimizer.step()
    block.__exit__(None, None, None)
    verify(model, masks)
    assert not optimizer._optimizer_step_pre_hooks


@pytest.mark.parametrize("how", ["step", "end", "bound"])
def test_another_shape_or_a_lost_name_is_refused(how):
    model = net()
    masks, optimizer = some(model), sgd(model)
    if how == "bound":
        bound = bind(model, masks)
        del model[6]
        with pytest.raises(ValueError, match="no longer has a parameter '6.weight'"):
            bound.apply_()
        return
    words = r"'4.weight' now has shape \(6, 8\), but its mask has \(6, 16\)"
    block = held(model, masks, optimizer)
    block.__enter__()
    model[4].weight.data = torch.ones(6, 8)
    if how == "step":
        with pytest.raises(ValueError, match=words):
            optimizer.step()
    with pytest.raises(ValueError, match=words):
        block.__exit__(None, None, None)
    assert not optimizer._optimizer_step_pre_hooks


# -- which weights are trained, and by whom --------------------------------------------------------------------


def test_a_frozen_weight_may_be_unfrozen_inside_the_block():
    one, other = net(), net()
    masks = some(one)
    made = []
    for model in (one, other):
        model[0].requires_grad_(False)
        made.append(torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1, momentum=0.9))

    def thaw(model, optimizer):
        def at(number: int) -> None:
            if number == 2:
                model[0].requires_grad_(True)
                optimizer.add_param_group({"params": list(model[0].parameters())})

        return at

    before = one[0].weight.detach().clone()
    norms = []

    def look(number: int) -> None:
        if number == 1:
            assert torch.equal(one[0].weight.detach(), torch.where(masks["0.weight"], before, 0.0))
        if number >= 2:  # a clip in the loop sees masked gradients from the first one on
            norms.append(float(one[0].weight.grad.norm()))
            assert plus_zero(one[0].weight.grad[~masks["0.weight"]])

    in_block(one, masks, made[0], 5, thaw(one, made[0]), look)
    by_hand(other, masks, made[1], 5, thaw(other, made[1]))
    assert same(one, other)
    assert min(norms) > 0
    assert not torch.equal(one[0].weight.detach()[masks["0.weight"]], before[masks["0.weight"]])


def test_unfrozen_without_an_optimizer_is_refused_at_the_next_step():
    model = net()
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    with held(model, some(model), optimizer):
        loss_of(model).backward()
        optimizer.step()
        model[0].requires_grad_(True)
        with pytest.raises(ValueError, match="trains 1 of the 4 masked weights, '0.weight':"):
            optimizer.step()
        model[0].requires_grad_(False)


def test_adapters_on_a_frozen_pruned_base():
    base, adapter = net(), nn.Linear(3, 3)
    masks = some(base)
    base.requires_grad_(False)
    optimizer = torch.optim.Adam(adapter.parameters(), 0.1)
    expected = {name: torch.where(masks.get(name, torch.tensor(True)), p, 0.0) for name, p in base.named_parameters()}
    start = adapter.weight.detach().clone()
    with held(base, masks, optimizer):
        for _ in range(3):
            adapter(base(torch.ones(2, 3, 6, 6))).square().sum().backward()
            optimizer.step()
            verify(base, masks)
    assert all(torch.equal(p, expected[name]) for name, p in base.named_parameters())
    assert not torch.equal(adapter.weight, start)
    assert not any(p.requires_grad for p in base.parameters())


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")  # torch's own, in its Adagrad
@pytest.mark.parametrize("kind", ["SGD", "SparseAdam", "Adagrad"])
def test_sparse_gradients(kind):
    def made():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(30, 5, sparse=True), nn.Flatten(), nn.Linear(10, 2))
        rest = torch.optim.SGD(model[2].parameters(), 0.1)
        return model, getattr(torch.optim, kind)([model[0].weight], 0.1), rest

    words = torch.tensor([[1, 2], [2, 2], [7, 29]])
    model, optimizer, rest = made()
    masks = some(model, include="0.weight")
    with held(model, masks, [optimizer, rest]):
        for _ in range(3):
            model.zero_grad()
            for _ in range(2):  # accumulated: a sparse gradient of more entries
                model(words).square().sum().backward()
            grad = model[0].weight.grad
            assert grad.is_sparse
            assert plus_zero(grad.to_dense()[~masks["0.weight"]])
            optimizer.step(), rest.step()
            verify(model, masks)
    other, second, rest = made()
    with torch.no_grad():
        for name in masks:
            other.get_parameter(name).mul_(masks[name])
    for _ in range(3):
        other.zero_grad()
        for _ in range(2):
            other(words).square().sum().backward()
        rows = other[0].weight.grad.coalesce()
        other[0].weight.grad = torch.sparse_coo_tensor(
            rows.indices(), rows.values() * masks["0.weight"][rows.indices()[0]], rows.shape, check_invariants=True
        )
        other[2].weight.grad.mul_(masks["2.weight"])
        second.step(), rest.step()
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_gradient_in_which_one_value_stands_for_many():
    model = nn.Linear(4, 3)
    mask = torch.eye(4, dtype=torch.bool)[:3]
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    with held(model, {"weight": mask}, optimizer):
        before = model.weight.detach().clone()
        model.weight.grad = torch.ones(1, 1).expand(3, 4)
        optimizer.step()
        torch.testing.assert_close(model.weight.detach(), torch.where(mask, before - 0.5, 0.0))


def test_optimizers_that_train_other_weights_are_refused():
    model = net()
    masks, parts = some(model), list(model.parameters())
    wrong = {
        r"\(Adam\) trains 4 of the 4 masked weights, '0.weight', '2.weight', '4.weight', '6.weight'": torch.optim.Adam(
            copy.deepcopy(model).parameters()
        ),
        r"\(SGD\) trains 2 of the 4 masked weights, '4.weight', '6.weight'": torch.optim.SGD(parts[:4], 0.1),
        r"\(SGD, SGD\) trains 1 of the 4 masked weights, '6.weight'": [
            torch.optim.SGD(parts[:4], 0.1),
            torch.optim.SGD(parts[4:6], 0.1),
        ],
        r"\(none\) trains 4 of": [],
    }
    before = copy.deepcopy(model.state_dict())
    for words, optimizer in wrong.items():
        with pytest.raises(ValueError, match=words), held(model, masks, optimizer):
            pytest.fail("let in")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with held(model, masks, [torch.optim.SGD(parts[:4], 0.1), torch.optim.SGD(parts[4:], 0.1)]):
        pass
    with held(model, masks, (torch.optim.SGD([p], 0.1) for p in parts)):
        pass


def test_what_is_no_optimizer_is_refused():
    model = net()
    optimizer = sgd(model)
    for wrong, kind in (
        (torch.optim.lr_scheduler.StepLR(optimizer, 1), "StepLR"),
        (torch.amp.GradScaler("cpu"), "GradScaler"),
        (model, "Conv2d"),
        ("SGD", "str"),
        (None, "NoneType"),
        ([optimizer, 3], "int"),
    ):
        with (
            pytest.raises(TypeError, match=f"optimizer must be a torch.optim.Optimizer.*, got {kind}"),
            held(model, some(model), wrong),
        ):
            pytest.fail("let in")


# -- weights that are shared out ------------------------------------------------------------------------------


@pytest.fixture
def fsdp() -> Iterator[Callable[[nn.Module], nn.Module]]:
    """FSDP2 over one process."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield lambda model: fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    distributed.destroy_process_group()


def test_fully_sharded_weights(fsdp):
    one, other = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)), None
    other, masks = copy.deepcopy(one), some(one)

    def loss(model: nn.Module, number: int = 0) -> torch.Tensor:
        return model(torch.linspace(-1, 1, 20).reshape(4, 5) + number).square().sum()

    optimizer = torch.optim.Adam(fsdp(one).parameters(), 0.01)
    second = torch.optim.Adam(other.parameters(), 0.01)
    assert type(one[0].weight).__name__ == "DTensor"
    with held(one, masks, optimizer):
        for number in range(3):
            optimizer.zero_grad()
            loss(one, number).backward()
            grad = one[0].weight.grad.full_tensor()
            assert plus_zero(grad[~masks["0.weight"]])  # a clip in the loop sees masked gradients here too
            assert grad.any()
            optimizer.step()
            verify(one, masks)
    by_hand(other, masks, second, 3, loss_of=loss)
    assert all(torch.equal(x.full_tensor(), y) for x, y in zip(one.parameters(), other.parameters(), strict=True))
    with torch.no_grad():
        one[0].weight.to_local().fill_(1.0)
    with pytest.raises(ValueError, match="pruned weights of '0.weight' are not"):
        verify(one, masks)


def test_a_process_holds_its_own_rows():
    """Seven rows over three processes: torch deals 3, 3 and 1, and the second has rows 3 to 5."""
    from torch.distributed.tensor import DTensor, Shard, init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    distributed.init_process_group("fake", store=FakeStore(), rank=1, world_size=3)
    try:
        mesh = init_device_mesh("cpu", (3,))
        mask = torch.rand(7, 4, generator=torch.Generator().manual_seed(0)) < 0.5
        weight = DTensor.from_local(torch.ones(3, 4), mesh, [Shard(0)], shape=torch.Size((7, 4)), stride=(4, 1))
        assert torch.equal(share(mask, weight), mask[3:6])
        model = nn.Linear(4, 7, bias=False)
        model.weight = nn.Parameter(weight)
        bind(model, {"weight": mask}).apply_()
        assert torch.equal(model.weight.to_local(), mask[3:6].float())
    finally:
        distributed.destroy_process_group()


# -- checks ----------------------------------------------------------------------------------------------------


@contextmanager
def laid_out_wrongly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A fault as if masks lay in memory otherwise than they do: the order of the bytes is reversed."""
    with monkeypatch.context() as patch:
        place_of = Hold.place_of

        def wrong(self, x):
            place = place_of(self, x)
            if place is None:
                return None
            self._flipped = self.mask.contiguous().view(-1).flip(0)
            return place[0], self._flipped.data_ptr(), place[2]

        patch.setattr(Hold, "place_of", wrong)
        yield


def test_a_wrong_layout_is_found_before_a_weight_is_written(monkeypatch):
    model = net()
    masks, before = some(model), copy.deepcopy(model.state_dict())
    with laid_out_wrongly(monkeypatch):
        with (
            pytest.raises(RuntimeError, match="'0.weight' does not have the memory layout.*bug in sparsight"),
            held(model, masks, sgd(model)),
        ):
            pytest.fail("let in")
        with pytest.raises(RuntimeError, match="does not have the memory layout"):
            bind(model, masks)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_wrong_layout_is_found_where_a_weight_is_laid_out_again(monkeypatch):
    model = net()
    masks, optimizer = some(model), torch.optim.SGD(model.parameters(), 0.0)
    with held(model, masks, optimizer), laid_out_wrongly(monkeypatch):
        model.to(memory_format=torch.channels_last)
        before = model[0].weight.detach().clone()
        loss_of(model).backward()
        with pytest.raises(RuntimeError, match="'0.weight' does not have the memory layout"):
            optimizer.step()
        assert torch.equal(model[0].weight.detach(), before)


def test_the_end_is_checked_in_the_copies_too(monkeypatch):
    """A kernel that has gone wrong inside the block is found at its end, by other code."""
    model = net()
    masks, average = some(model), AveragedModel(model)
    block = held(model, masks, sgd(model), copies=[average])
    block.__enter__()
    with torch.no_grad():
        average.module[0].weight.fill_(1.0)
    monkeypatch.setattr("sparsight.model.hold.Bound.clear_", lambda *_: False)
    with pytest.raises(ValueError, match=r"pruned weights of '0.weight' are not \+0.0"):
        block.__exit__(None, None, None)


def test_an_error_of_the_loop_is_not_hidden_by_a_refusal():
    model = net()
    optimizer = sgd(model)

    def loop() -> None:
        with held(model, some(model), optimizer):
            model[4].weight.data = torch.ones(6, 8)
            raise KeyError

    with pytest.raises(KeyError):
        loop()
    assert not optimizer._optimizer_step_post_hooks
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())


def test_no_gradient_is_kept_alive():
    model = net()
    optimizer = sgd(model)
    with held(model, some(model), optimizer):
        loss_of(model).backward()
        optimizer.step()
        seen = [weakref.ref(p.grad) for p in model.parameters()]
        optimizer.zero_grad()
        assert [each() for each in seen] == [None] * len(seen)


class TestUpdate:
    """Pruning further inside the block."""

    def test_a_gradual_schedule(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
        ema = copy.deepcopy(model)
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        x, y = torch.randn(32, 8), torch.randint(0, 4, (32,))
        whole = dense(model)
        with held(model, whole, optimizer, copies=[ema]) as hold:
            for share in (0.9, 0.5, 0.2):
                scores = {name: p.detach().abs() for name, p in model.named_parameters() if name in whole}
                total = sum(mask.numel() for mask in whole.values())
                masks = keep_largest(scores, hold.masks, round(share * total))[0]
                hold.update(masks)
                verify(model, masks)
                verify(ema, masks)
                for _ in range(3):
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(model(x), y).backward()
                    optimizer.step()
                    verify(model, masks)
                for name, mask in masks.items():
                    moments = optimizer.state[dict(model.named_parameters())[name]]
                    assert not bool(moments["exp_avg"][~mask].any())
        verify(model, masks)
        assert density(masks) == pytest.approx(0.2, abs=0.005)

    def test_weights_that_come_back_begin_at_zero(self):
        model = nn.Linear(4, 4)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        mask = torch.eye(4, dtype=torch.bool)
        with held(model, {"weight": mask}, optimizer) as hold:
            model(torch.randn(3, 4)).square().sum().backward()
            optimizer.step()
            hold.update({"weight": torch.ones(4, 4, dtype=torch.bool)})
            assert not bool(model.weight.detach()[~mask].any())
            model(torch.randn(3, 4)).square().sum().backward()
            optimizer.step()
            assert bool(model.weight.detach()[~mask].any())

    def test_changing_the_masks_that_it_shows_changes_nothing(self):
        model = nn.Linear(4, 4)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        mask = torch.eye(4, dtype=torch.bool)
        with held(model, {"weight": mask}, optimizer) as hold:
            hold.masks["weight"].fill_(True)
            model(torch.randn(3, 4)).sum().backward()
            optimizer.step()
            assert torch.equal(hold.masks["weight"], mask)
            verify(model, {"weight": mask})

    def test_masks_that_do_not_fit_leave_those_before(self):
        model = nn.Linear(4, 4)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        mask = torch.eye(4, dtype=torch.bool)
        with held(model, {"weight": mask}, optimizer) as hold:
            with pytest.raises(ValueError, match="shape"):
                hold.update({"weight": torch.ones(3, 4, dtype=torch.bool)})
            model(torch.randn(3, 4)).sum().backward()
            optimizer.step()
            verify(model, {"weight": mask})
