"""A checkpoint of transformers and labelled texts, and out comes a classifier with a tenth of its weights.

python examples/transformers_classifier.py CHECKPOINT TEXTS.csv OUT

CHECKPOINT is a folder or a name on the hub; TEXTS.csv has the columns `text` and `label` (`scipy_texts.py` makes one).
One text in five is held out. The classifier is trained dense first, then pruned while it trains on. OUT gets it, its
masks and `packed.safetensors`.
"""

from __future__ import annotations

import csv
import random
import sys
from collections import Counter
from pathlib import Path

from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments, set_seed

from sparsight import save_masks
from sparsight.checkpoint import pack
from sparsight.deploy import ledger
from sparsight.integrations import Gradual
from sparsight.integrations.transformers import FILE, PruningCallback
from sparsight.report.ledger import sentence


def main(checkpoint: str, texts: str, out: str, epochs: tuple[float, float] = (3, 24), rate: float = 4e-4) -> None:
    with open(texts, newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    random.Random(0).shuffle(table)
    labels = sorted({row["label"] for row in table})
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    rows = [
        {**tokenizer(row["text"], truncation=True, max_length=128), "labels": labels.index(row["label"])}
        for row in table
    ]
    held_out, train = rows[: len(rows) // 5], rows[len(rows) // 5 :]

    set_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=len(labels))
    model.config.id2label = dict(enumerate(labels))
    model.get_input_embeddings().requires_grad_(False)  # they stay dense, and cost half of the time
    pruning = PruningCallback(Gradual(density=0.1, end=0.6))

    def trained(epochs: float, *callbacks: PruningCallback) -> float:
        args = TrainingArguments(
            out, num_train_epochs=epochs, learning_rate=rate, per_device_train_batch_size=16, save_strategy="no",
            logging_steps=50, report_to=[],
        )  # fmt: skip
        trainer = Trainer(
            model, args, train_dataset=train, eval_dataset=held_out, processing_class=tokenizer, callbacks=[*callbacks],
            compute_metrics=lambda found: {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())},
        )  # fmt: skip
        trainer.train()
        trainer.save_model(out)
        return trainer.evaluate()["eval_accuracy"]

    dense, sparse = trained(epochs[0]), trained(epochs[1], pruning)
    guess = Counter(row["labels"] for row in held_out).most_common(1)[0][1] / len(held_out)
    print(f"accuracy on {len(held_out)} held-out texts: dense {dense:.1%}, sparse {sparse:.1%}; always the most "
          f"frequent label: {guess:.1%}")  # fmt: skip

    save_masks(pruning.masks, Path(out) / FILE)
    packed = Path(out) / "packed.safetensors"
    pack(model, packed)
    example = tokenizer(table[0]["text"], return_tensors="pt")["input_ids"].to(model.device)
    print(sentence(ledger(packed, (example,), model=model)))


if __name__ == "__main__":
    main(*sys.argv[1:])
