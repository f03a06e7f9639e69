"""Parts that read files get some to read: examples for the laws, in a folder of their own."""

from __future__ import annotations

import tempfile
from pathlib import Path

from gptzoo.registry import Zoo

POEM = "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer\n"


def with_text(zoo: Zoo) -> Zoo:
    """The zoo, with a path in the examples of what needs one."""
    folder = Path(tempfile.mkdtemp(prefix="gptzoo-laws-"))
    (folder / "poem.txt").write_text("".join(f"{i}. {POEM}" for i in range(400)))
    rows = "".join(f'{{"text": "{i}. To be, or not to be, that is the question."}}\n' for i in range(400))
    (folder / "rows").mkdir()
    (folder / "rows" / "train.jsonl").write_text(rows)
    _tokenizer(folder / "tokenizer.json")
    for slot, name, options in (
        ("data", "text", ({"path": str(folder / "poem.txt")}, {"path": str(folder / "poem.txt"), "documents": True})),
        ("data", "huggingface", ({"path": str(folder / "rows")},)),
        ("tokenizer", "tokenizer_json", ({"path": str(folder / "tokenizer.json")},)),
    ):
        if name in zoo.names(slot):
            zoo.get(slot, name).factory.examples = options  # type: ignore[attr-defined]
    return zoo


def _tokenizer(path: Path) -> None:
    """A byte-level BPE with an end token, as transformers would save it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator([POEM], trainer)
    tokenizer.save(str(path))
