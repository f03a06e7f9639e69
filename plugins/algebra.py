"""Sums and differences to learn: every one true, none twice, and pairs of operands that training never sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np

import gptzoo

Operation = Literal["+", "-"]
Format = Literal["plain", "reversed", "reasoning"]

MOST_ROWS = 10_000_000
LARGEST = 10**9
MOST_DIGITS = 9
LETTERS = "abcdefghijklmnopqrstuvwxyz"
NARROW, WIDE = (0, 1000), (-100_000, 100_000)

_SORTED = 1 << 24  # up to so many pairs all are ordered at random, beyond that pairs are drawn one by one


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register the data."""
    zoo.data("algebra", Algebra)


class Algebra(gptzoo.Examples):
    """Sums and differences of two integers, `a + b = `, as plain digits, reversed, or worked out.

    A quarter of the rows each: +, - with operands in [0, 1000], and +, - with operands in [-100000, 100000] that are
    not both in [0, 1000]. Validation is on held-out pairs of operands; for + the pair (b, a) goes with (a, b). Which
    pairs are held out depends on the operands alone, never on the training's seed.

    With `train_digits` and `val_digits` validation asks longer operands than training, none below 0. The longer operand
    has each number of digits equally often, as far as there are so many pairs.

    Source: the reversed answer is Teaching Arithmetic to Small Transformers, arXiv:2307.03381, section 3; index hints
    are What Algorithms can Transformers Learn?, arXiv:2310.16028, there counted from the first digit of operands of
    equal length, here from the last.

    Args:
        rows: Examples, training and validation together.
        format: How answers are written: `plain`; `reversed`, the last digit first and the sign last; or `reasoning`,
            the derivation digit by digit and then the answer.
        loss_on: What is to be predicted: all of an example, or the answer alone.
        operations: Operations, in equal shares.
        low: The smallest operand, in place of the two ranges; `high` goes with it.
        high: The largest operand.
        held_out: Share of the rows that is kept for validation.
        generator_seed: Of the choice of rows.
        train_digits: Most digits of an operand in training.
        val_digits: Fewest and most digits of the longer operand in validation.
        hints: Put before each digit a letter for its place, `b4a5 + a7 = b5a2`, counted from a letter that differs from
            problem to problem, so that places are known that no training has.

    Raises:
        GPTZooError: There are not so many pairs of operands, or an option is out of range.
    """

    examples = (
        {"rows": 2000, "low": 0, "high": 99, "held_out": 0.1},
        {"rows": 2000, "train_digits": 2, "val_digits": [3, 4], "hints": True, "held_out": 0.1},
    )

    def __init__(
        self,
        tokenizer: gptzoo.Tokenizer,
        context_length: int,
        rows: int = 1_000_000,
        format: Format = "plain",
        loss_on: Literal["all", "answer"] = "answer",
        operations: tuple[Operation, ...] = ("+", "-"),
        low: int | None = None,
        high: int | None = None,
        held_out: float = 0.01,
        generator_seed: int = 0,
        train_digits: int | None = None,
        val_digits: tuple[int, int] | None = None,
        hints: bool = False,
    ) -> None:
        super().__init__(tokenizer, context_length, loss_on)
        if hints and format == "reasoning":
            raise gptzoo.GPTZooError("there are no hints in reasoning. Choose plain or reversed.", "data.hints")
        self.format: Format = format
        self.hints = hints
        self.table = Table(rows, tuple(operations), low, high, held_out, generator_seed, train_digits, val_digits)
        self.pack()

    def read_examples(self, split: str) -> Iterator[tuple[str, str]]:
        for a, operation, b in self.table.problems(split):
            if self.hints:
                yield hinted(a, operation, b, self.format)
            else:
                yield instruction(a, operation, b), answer(a, operation, b, self.format)

    @staticmethod
    def dataset(rows: int, seed: int) -> Table:
        """What `gptzoo data make algebra` writes."""
        return Table(rows, generator_seed=seed)


@dataclass(frozen=True)
class Table:
    """The rows: a pure function of the arguments, which are those of `Algebra`.

    Raises:
        GPTZooError: There are not so many pairs of operands, or an option is out of range.
    """

    rows: int = 1_000_000
    operations: tuple[Operation, ...] = ("+", "-")
    low: int | None = None
    high: int | None = None
    held_out: float = 0.01
    generator_seed: int = 0
    train_digits: int | None = None
    val_digits: tuple[int, int] | None = None

    license: ClassVar[str] = "mit"
    title: ClassVar[str] = "Simple algebra"
    columns: ClassVar[dict[str, str]] = {
        "instruction": "the problem, such as `-205 - 157 = `",
        "answer": "the result as text",
        "reasoning": "the derivation digit by digit: lines that are true equations, the last one with the answer",
    }

    def __post_init__(self) -> None:
        self._check_options()
        short = [f"{share} has {share.size} pairs, not {count}" for share, count in self.shares if share.size < count]
        if short:
            raise gptzoo.GPTZooError(f"{'; '.join(short)}. Ask for fewer rows, or a wider range.", "data.rows")
        if not 0 < self._held_out_rows < self.rows:
            what = f"{self.held_out} of {self.rows} rows leaves training or validation without any."
            raise gptzoo.GPTZooError(f"{what} Choose a share between 0 and 1, or more rows.", "data.held_out")

    @property
    def shares(self) -> list[tuple[Share, int]]:
        """What the rows are drawn from, in equal shares, with the number of rows of each."""
        if self.train_digits is not None and self.val_digits is not None:
            train = _filled_up(self._by_digits(1, self.train_digits), self.rows - self._held_out_rows)
            return train + _filled_up(self._by_digits(*self.val_digits), self._held_out_rows)
        if self.low is not None and self.high is not None:
            shares = [Share(each, self.low, self.high) for each in self.operations]
        else:
            shares = [Share(each, *NARROW) for each in self.operations]
            shares += [Share(each, *WIDE, without=NARROW) for each in self.operations]
        counts = [(self.rows + index) // len(shares) for index in reversed(range(len(shares)))]
        return list(zip(shares, counts, strict=True))

    def count(self, split: str) -> int:
        """Rows of a split: `train`, and `val` or `test` for the held-out ones."""
        return self._held_out_rows if split != "train" else self.rows - self._held_out_rows

    def problems(self, split: str) -> Iterator[tuple[int, Operation, int]]:
        """The problems of a split, in random order."""
        pairs, share = self._drawn
        chosen = self._is_held_out == (split != "train")
        operations = [each.operation for each, _ in self.shares]
        for (a, b), number in zip(pairs[chosen].tolist(), share[chosen].tolist(), strict=True):
            yield a, operations[number], b

    def records(self, split: str) -> Iterator[dict[str, str]]:
        """The rows of a split by column, as a data set holds them."""
        for a, operation, b in self.problems(split):
            yield {
                "instruction": instruction(a, operation, b),
                "answer": str(result(a, operation, b)),
                "reasoning": reasoning(a, operation, b),
            }

    def description(self) -> str:
        """How it was made, in Markdown."""
        counts = "\n".join(f"- {count:,} problems: {share}" for share, count in self.shares)
        chosen = "by a hash of the operands" if self.val_digits is None else "by their numbers of digits"
        return (
            f"Problems of arithmetic with two integers, none twice:\n\n{counts}\n\n"
            f"The test split holds exactly {self._held_out_rows:,} rows. Its pairs of operands are not in the training "
            f"split; for sums the pair (b, a) goes with (a, b). Which pairs are held out is decided {chosen}."
        )

    @cached_property
    def _drawn(self) -> tuple[np.ndarray, np.ndarray]:
        """int64 (rows, 2) operands in random order, and for each row the number of its share."""
        pairs = np.concatenate([share.pairs(count, self.generator_seed) for share, count in self.shares])
        number = np.repeat(np.arange(len(self.shares)), [count for _, count in self.shares])
        bits = np.random.Philox(key=gptzoo.stable_seed("algebra", "order", self.generator_seed))
        order = np.argsort(bits.random_raw(len(pairs)), kind="stable")
        return pairs[order], number[order]

    @cached_property
    def _is_held_out(self) -> np.ndarray:
        """bool (rows,): the groups of rows that must stay together, by rising hash, as far as they are wanted."""
        pairs, share = self._drawn
        if self.train_digits is not None:
            return share >= self.train_digits * len(self.operations)
        plus = np.array([each.operation == "+" for each, _ in self.shares])[share]
        ordered = np.where(plus[:, None], np.sort(pairs, axis=1), pairs)
        _, group, sizes = np.unique(_hashes(plus, *ordered.T), return_inverse=True, return_counts=True)
        taken = np.cumsum(sizes) <= self._held_out_rows
        missing = self._held_out_rows - sizes[taken].sum()
        taken[np.flatnonzero(~taken & (sizes == 1))[:missing]] = True  # where a pair and its mirror image are too many
        return taken[group]

    @property
    def _held_out_rows(self) -> int:
        return round(self.held_out * self.rows)

    def _check_options(self) -> None:
        if not self.operations or len(set(self.operations)) < len(self.operations):
            raise gptzoo.GPTZooError("name + or - or both, each once.", "data.operations")
        if (self.low is None) != (self.high is None):
            raise gptzoo.GPTZooError("low and high go together. Give both or neither.", "data.low")
        if (self.train_digits is None) != (self.val_digits is None):
            raise gptzoo.GPTZooError(
                "train_digits and val_digits go together. Give both or neither.", "data.val_digits"
            )
        if self.train_digits is not None and self.val_digits is not None:
            self._check_digits(self.train_digits, *self.val_digits)
        if self.low is not None and self.high is not None and not -LARGEST <= self.low <= self.high <= LARGEST:
            what = f"{self.low} to {self.high} is no range of operands within {-LARGEST:,} and {LARGEST:,}."
            raise gptzoo.GPTZooError(what, "data.low")
        if not len(self.shares) <= self.rows <= MOST_ROWS:
            what = f"{self.rows} is not between {len(self.shares)} and {MOST_ROWS:,}."
            raise gptzoo.GPTZooError(what, "data.rows")

    def _check_digits(self, train: int, fewest: int, most: int) -> None:
        if self.low is not None:
            raise gptzoo.GPTZooError("low and train_digits each give a range. Leave one out.", "data.low")
        if not 1 <= train < fewest <= most <= MOST_DIGITS:
            what = f"{train} digits, then {fewest} to {most}, is not a rising order within 1 and {MOST_DIGITS}."
            raise gptzoo.GPTZooError(what, "data.val_digits")

    def _by_digits(self, fewest: int, most: int) -> list[Share]:
        """Pairs of which the longer operand has so many digits, by this number and the operation."""
        return [
            Share(each, 0, 10**digits - 1, without=(0, 10 ** (digits - 1) - 1) if digits > 1 else None)
            for digits in range(fewest, most + 1)
            for each in self.operations
        ]


@dataclass(frozen=True)
class Share:
    """An operation on all pairs of operands of a range.

    Args:
        operation: + or -.
        low: The smallest operand.
        high: The largest operand.
        without: A range within; pairs of which both operands are in it do not count.
    """

    operation: Operation
    low: int
    high: int
    without: tuple[int, int] | None = None

    @property
    def size(self) -> int:
        """How many pairs there are."""
        less = 0 if self.without is None else (self.without[1] - self.without[0] + 1) ** 2
        return (self.high - self.low + 1) ** 2 - less

    def pairs(self, count: int, seed: int) -> np.ndarray:
        """int64 (count, 2): distinct pairs at random. Fewer are the first of more."""
        width = self.high - self.low + 1
        bits = np.random.Philox(key=gptzoo.stable_seed("algebra", self.operation, self.low, self.high, seed))
        if width**2 <= _SORTED:
            return self._admitted(np.argsort(bits.random_raw(width**2), kind="stable"))[:count]
        drawn = np.zeros(0, np.uint64)
        pairs = np.zeros((0, 2), np.int64)
        while len(pairs) < count:
            drawn = np.concatenate([drawn, bits.random_raw(count) % np.uint64(width**2)])
            _, first = np.unique(drawn, return_index=True)
            pairs = self._admitted(drawn[np.sort(first)].astype(np.int64))
        return pairs[:count]

    def _admitted(self, numbers: np.ndarray) -> np.ndarray:
        """The pairs with these numbers, but for those that do not count."""
        pairs = self.low + np.stack(np.divmod(numbers, self.high - self.low + 1), axis=1)
        if self.without is None:
            return pairs
        return pairs[~((pairs >= self.without[0]) & (pairs <= self.without[1])).all(1)]

    def __str__(self) -> str:
        but = "" if self.without is None else f", not both in [{self.without[0]:,}, {self.without[1]:,}]"
        return f"a {self.operation} b with operands in [{self.low:,}, {self.high:,}]{but}"


def _filled_up(shares: list[Share], count: int) -> list[tuple[Share, int]]:
    """So many rows in equal shares; what is more than a share has pairs goes to the later ones, which are larger."""
    counts: list[int] = []
    for index, share in enumerate(shares):
        equal = (count - sum(counts)) // (len(shares) - index)
        counts.append(min(share.size, equal) if index < len(shares) - 1 else equal)
    return list(zip(shares, counts, strict=True))


def _hashes(*columns: np.ndarray) -> np.ndarray:
    """uint64 (rows,): a hash of each row of integers, by the finisher of splitmix64 after each column."""
    state = np.full(len(columns[0]), 0x9E3779B97F4A7C15, np.uint64)
    for column in columns:
        state ^= column.astype(np.int64).view(np.uint64)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return state


def instruction(a: int, operation: Operation, b: int) -> str:
    """`a + b = `."""
    return f"{a} {operation} {b} = "


def result(a: int, operation: Operation, b: int) -> int:
    """What it comes to."""
    return a + b if operation == "+" else a - b


def answer(a: int, operation: Operation, b: int, format: Format) -> str:
    """The result in a format."""
    plain = str(result(a, operation, b))
    if format == "reasoning":
        return f"{reasoning(a, operation, b)}\n{plain}"
    return plain if format == "plain" else plain[::-1]


def hinted(a: int, operation: Operation, b: int, format: Format) -> tuple[str, str]:
    """The problem and its result with a letter before each digit, which is the same for equal places."""
    value = result(a, operation, b)
    places = max(len(str(abs(number))) for number in (a, b, value))
    first = gptzoo.stable_seed("hints", a, operation, b) % (len(LETTERS) - places + 1)
    letters = LETTERS[first:]
    prompt = f"{_with_letters(a, letters)} {operation} {_with_letters(b, letters)} = "
    return prompt, _with_letters(value, letters, backwards=format == "reversed")


def _with_letters(number: int, letters: str, backwards: bool = False) -> str:
    sign = "-" if number < 0 else ""
    digits = [letter + digit for letter, digit in zip(letters, reversed(str(abs(number))), strict=False)]
    return "".join(digits) + sign if backwards else sign + "".join(reversed(digits))


def reasoning(a: int, operation: Operation, b: int) -> str:
    """How to find the result: without signs, then digit by digit with carries. Each line is a true equation."""
    problem = f"{a} {operation} {b}"
    x, sign, y, negative = _without_signs(a, b if operation == "+" else -b)
    bare = f"{x} {sign} {y}"
    rewritten = f"-({bare})" if negative else bare
    lines = [] if rewritten == problem else [f"{problem} = {rewritten}"]
    lines += _columns(x, sign, y) if max(x, y) > 9 else []
    lines.append(f"{bare} = {result(x, sign, y)}")
    lines += [] if rewritten == problem else [f"{problem} = {result(a, operation, b)}"]
    return "\n".join(lines)


def _without_signs(a: int, b: int) -> tuple[int, Operation, int, bool]:
    """a + b as a sum or a difference of x >= y >= 0, and whether it is the negative of that."""
    if a >= 0 and b >= 0:
        return a, "+", b, False
    if a < 0 and b <= 0:
        return -a, "+", -b, True
    more, less = max(a, b), -min(a, b)
    return (more, "-", less, False) if more >= less else (less, "-", more, True)


def _columns(x: int, sign: Operation, y: int) -> Iterator[str]:
    """The digits' equations from the last one on. A carry or borrow is a 1 in the next equation."""
    carry = False
    for place in range(len(str(max(x, y)))):
        p, q = x // 10**place % 10, y // 10**place % 10
        if sign == "-" and p < q + carry:
            p += 10
        value = result(p, sign, q + carry)
        yield f"{p} {sign} {q}{f' {sign} 1' * carry} = {value}"
        carry = value > 9 if sign == "+" else p > 9
