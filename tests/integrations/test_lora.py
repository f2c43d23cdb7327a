"""Adapters on a pruned base: its zeros stay through training and merging, and what is dropped is told."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tasks import classifier, language_model, sentences
from torch import Tensor, nn
from torch.nn import functional as F

from sparsight import Magnitude, Shrink, apply_, dense, verify
from sparsight.model.loss import task_loss

peft = pytest.importorskip("peft")

from sparsight.integrations.lora import merge_masked  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::sparsight.model.left_out.LeftOutWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False"),
]


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


def pruned(model: nn.Module) -> dict[str, Tensor]:
    masks = dense(model)
    masks = dict(Shrink(0.5)(Magnitude()(model, masks), masks))
    apply_(model, masks)
    return masks


def adapted(model: nn.Module, **options: Any) -> Any:
    torch.manual_seed(0)
    options = {"r": 4, "lora_alpha": 8, "init_lora_weights": False, **options}
    return peft.get_peft_model(model, peft.LoraConfig(**options))


def image_batch() -> tuple[Tensor, Tensor]:
    return torch.randn(6, 1, 6, 6, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3


def test_training_adapters_keeps_the_zeros_of_the_base_and_merging_them_does_too():
    base = classifier()
    masks = pruned(base)
    model = adapted(base, target_modules=["query", "value"], init_lora_weights=True)
    before = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    for batch in list(sentences().train)[:10]:  # type: ignore[arg-type]
        optimizer.zero_grad()
        task_loss(model, batch).backward()
        optimizer.step()
    assert all(torch.equal(model.get_parameter(name), value) for name, value in before.items())
    layer = model.base_model.model.bert.encoder.layer[0].attention.self.query
    name = "bert.encoder.layer.0.attention.self.query.weight"
    delta = 2 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    expected = torch.where(masks[name], layer.base_layer.weight + delta, 0).detach()
    batch = next(iter(sentences().validation))  # type: ignore[call-overload]
    whole = task_loss(copy.deepcopy(model).eval(), batch).item()

    done = merge_masked(model, masks, batch=batch)
    assert type(done.model) is type(base)
    verify(done.model, masks)
    assert torch.allclose(done.model.get_parameter(name), expected, atol=1e-7)
    assert [one.name for one in done.layers] == [n for n in masks if "query" in n or "value" in n]
    one = next(layer for layer in done.layers if layer.name == name)
    assert one.change == pytest.approx(delta.norm().item(), rel=1e-4)
    assert one.dropped == pytest.approx(delta[~masks[name]].norm().item(), rel=1e-4)
    assert 0.2 < done.dropped < 0.8
    assert done.loss_before == pytest.approx(whole)
    assert done.loss_after == pytest.approx(task_loss(done.model.eval(), batch).item())
    said = f"adapters merged into 4 masked weights; {100 * done.dropped:.1f} % of the squared change was dropped; loss "
    assert str(done).startswith(said)


@pytest.mark.parametrize(
    "options",
    [
        {"use_dora": True, "target_modules": ["query"]},
        {"target_modules": ["query"], "modules_to_save": ["classifier"]},
        {"target_modules": ["query"], "use_rslora": True, "bias": "lora_only"},
        {"target_modules": "all-linear"},
    ],
    ids=str,
)
def test_kinds_of_adapters(options):
    base = classifier()
    masks = pruned(base)
    model = adapted(base, **options)
    if "modules_to_save" in options:
        with torch.no_grad():
            model.base_model.model.classifier.modules_to_save["default"].weight.add_(1.0)
    plain = copy.deepcopy(model).merge_and_unload()
    done = merge_masked(model, masks)
    for name, mask in masks.items():
        assert torch.equal(done.model.get_parameter(name), torch.where(mask, plain.get_parameter(name), 0))
    assert all(layer.change > layer.dropped > 0 for layer in done.layers)
    if "modules_to_save" in options:
        kept = masks["classifier.weight"]
        last = done.layers[-1]
        assert (last.name, last.change) == ("classifier.weight", pytest.approx(kept.numel() ** 0.5))
        assert last.dropped == pytest.approx(int((~kept).sum()) ** 0.5)


@pytest.mark.parametrize("kind", [language_model, convolutional])
def test_other_layers(kind):
    base = kind()
    masks = pruned(base)
    model = adapted(base, target_modules=["c_attn"] if kind is language_model else ["0", "3"])
    batch = image_batch() if kind is convolutional else None
    plain = copy.deepcopy(model).merge_and_unload()
    done = merge_masked(model, masks, batch=batch)
    for name, mask in masks.items():
        assert torch.equal(done.model.get_parameter(name), torch.where(mask, plain.get_parameter(name), 0))
    if batch is not None:
        assert done.loss_after == pytest.approx(F.cross_entropy(done.model(batch[0]), batch[1]).item())


def test_several_adapters_are_merged_together():
    base = classifier()
    masks = pruned(base)
    model = adapted(base, target_modules=["query"])
    model.add_adapter("second", peft.LoraConfig(r=2, target_modules=["query", "key"], init_lora_weights=False))
    model.base_model.set_adapter(["default", "second"])
    plain = copy.deepcopy(model).merge_and_unload()
    done = merge_masked(model, masks)
    for name, mask in masks.items():
        assert torch.equal(done.model.get_parameter(name), torch.where(mask, plain.get_parameter(name), 0))
    assert [layer.name.split(".")[-2] for layer in done.layers] == ["query", "key"] * 2


def test_adapters_that_do_nothing_cost_nothing():
    base = classifier()
    masks = pruned(base)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    done = merge_masked(adapted(base, target_modules=["query"], init_lora_weights=True), masks)
    assert done.dropped == 0
    assert all(torch.equal(value, before[name]) for name, value in done.model.state_dict().items())


def test_what_is_refused_loses_nothing():
    base = classifier()
    masks = pruned(base)
    with pytest.raises(TypeError, match="expected a PeftModel, a model with adapters, got a BertForSequence"):
        merge_masked(base, masks)  # type: ignore[arg-type]
    prompts = peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2)
    with pytest.raises(ValueError, match="PROMPT_TUNING adapters are no change of weights and cannot be merged"):
        merge_masked(peft.get_peft_model(classifier(), prompts), masks)
    model = adapted(base, target_modules=["query"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    name = next(iter(masks))
    with pytest.raises(ValueError, match="the base has no weight 'no.weight'"):
        merge_masked(model, {**masks, "no.weight": masks[name]})
    with pytest.raises(ValueError, match=f"mask of '{name}' has shape"):
        merge_masked(model, {**masks, name: masks[name][:1]})
    with pytest.raises(TypeError, match=f"mask of '{name}' must be of torch.bool"):
        merge_masked(model, {**masks, name: masks[name].float()})
    with pytest.raises(ValueError, match="the base is not pruned by these masks: .* are not [+]0.0"):
        merge_masked(model, {**masks, name: ~masks[name]})
    adapter = model.base_model.model.bert.encoder.layer[1].attention.self.query.lora_A["default"].weight
    with torch.no_grad():
        old = adapter[0, 0].item()
        adapter[0, 0] = float("nan")
        with pytest.raises(ValueError, match="lora_A.default.weight' holds values that are not finite"):
            merge_masked(model, masks)
        adapter[0, 0] = old
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.base_model.model.bert.encoder.layer[0].attention.self.query.base_layer.weight = nn.Parameter(
        torch.ones(32, 32, dtype=torch.int8), requires_grad=False
    )
    with pytest.raises(ValueError, match=r"the base is quantised \('bert.*query.weight' is torch.int8\)"):
        merge_masked(model, masks)
