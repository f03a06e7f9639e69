"""How fast one prompt is continued: cached and anew, compiled and eager, integer weights and others.

`python -m tests.benchmarks.generation` prints it in about a minute. All ways take turns in every round; a ratio is the
median of the ratios of each round, so that a busy machine slows both of its sides.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

import gptzoo

SIZES = {"n_layer": 2, "n_head": 8, "n_embd": 512, "context_length": 256, "vocab_size": 16384}
PROMPT, TOKENS, ROUNDS = 64, 17, 3

Way = Callable[[int], object]
"""Writes so many tokens."""


def ways() -> dict[str, Way]:
    """What is compared, by name."""
    model = gptzoo.build({"model": SIZES, "data": {"tokenizer": "byte"}}).eval()
    low, prompt = gptzoo.quantized(model), [[token % 251 for token in range(PROMPT)]]

    def way(model: gptzoo.Model, **options: bool | str) -> Way:
        return lambda tokens: gptzoo.generate(model, prompt, tokens=tokens, greedy=True, **options)  # type: ignore[arg-type]

    return {
        "cached": way(model),
        "anew": way(model, cache=False),
        "compiled": way(model, compile=True),
        "bf16": way(model, precision="bf16"),
        "int8": way(low, precision="bf16"),
    }


def seconds_per_token(write: Way) -> float:
    """Of all tokens but the first, which pays for the prompt."""
    taken = []
    for tokens in (1, TOKENS):
        start = time.perf_counter()
        write(tokens)
        taken.append(time.perf_counter() - start)
    return (taken[1] - taken[0]) / (TOKENS - 1)


def measured(ways: dict[str, Way], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Seconds per token of each way in each round, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, write in ways.items():
            taken = seconds_per_token(write)
            if number:
                times[name].append(taken)
    return times


def ratio(slow: Sequence[float], fast: Sequence[float]) -> tuple[float, float, float]:
    """Median, lowest and highest of the ratios by round."""
    ratios = [s / f for s, f in zip(slow, fast, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def divergence() -> float:
    """Mean KL divergence of the integer model from the other one, nats per token; its weights are not trained."""
    model = gptzoo.build({"model": SIZES, "data": {"tokenizer": "byte"}}).eval()
    tokens = torch.randint(SIZES["vocab_size"], (2, 128), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        log_p, log_q = (m(tokens).double().log_softmax(-1) for m in (model, gptzoo.quantized(model)))
    return float((log_p.exp() * (log_p - log_q)).sum(-1).mean())


def main() -> None:
    """Print the table."""
    times = measured(ways())
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch 1, {PROMPT} tokens of prompt, {SIZES}")
    for name, taken in times.items():
        print(f"{name:9} {1 / statistics.median(taken):8.1f} tokens/s  (median of {len(taken)} rounds)")
    for slow, fast in (("anew", "cached"), ("cached", "compiled"), ("cached", "int8"), ("bf16", "int8")):
        middle, low, high = ratio(times[slow], times[fast])
        print(f"{fast} is {middle:.2f}x as fast as {slow}  [{low:.2f} {high:.2f}]")
    print(f"int8 diverges by {divergence():.1e} nats per token (weights not trained)")


if __name__ == "__main__":
    main()
