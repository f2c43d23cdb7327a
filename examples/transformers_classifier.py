"""A checkpoint of transformers and labelled texts, and out comes a classifier with a tenth of its weights.

python examples/transformers_classifier.py CHECKPOINT TEXTS.csv OUT

CHECKPOINT is a folder or a name on the hub; TEXTS.csv has the columns `text` and `label`. One text in five is held out.
OUT gets the classifier, its masks and `packed.safetensors`.
"""

from __future__ import annotations

import csv
import random
import sys
from collections import Counter
from pathlib import Path

from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

from sparsight import save_masks
from sparsight.checkpoint import pack
from sparsight.deploy import ledger
from sparsight.integrations import Gradual
from sparsight.integrations.transformers import FILE, PruningCallback
from sparsight.report.ledger import sentence


def main(checkpoint: str, texts: str, out: str, epochs: float = 3, rate: float = 3e-4) -> None:
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

    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=len(labels))
    model.config.id2label = dict(enumerate(labels))
    pruning = PruningCallback(Gradual(density=0.1))
    args = TrainingArguments(
        out, num_train_epochs=epochs, learning_rate=rate, per_device_train_batch_size=16, save_strategy="epoch",
        logging_steps=50, report_to=[],
    )  # fmt: skip
    trainer = Trainer(
        model, args, train_dataset=train, eval_dataset=held_out, processing_class=tokenizer, callbacks=[pruning],
        compute_metrics=lambda found: {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())},
    )  # fmt: skip
    trainer.train()
    guess = Counter(row["labels"] for row in held_out).most_common(1)[0][1] / len(held_out)
    accuracy = trainer.evaluate()["eval_accuracy"]
    print(f"accuracy on {len(held_out)} held-out texts: {accuracy:.1%}; of the most frequent label: {guess:.1%}")

    trainer.save_model(out)
    save_masks(pruning.masks, Path(out) / FILE)
    packed = Path(out) / "packed.safetensors"
    pack(model, packed)
    example = tokenizer(table[0]["text"], return_tensors="pt")["input_ids"].to(model.device)
    print(sentence(ledger(packed, (example,), model=model)))


if __name__ == "__main__":
    main(*sys.argv[1:])
