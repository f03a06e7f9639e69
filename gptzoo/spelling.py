"""The text of a continuation as its tokens come: cut at a stop string, handed on once no later token can change it."""

from __future__ import annotations

from collections.abc import Sequence

from gptzoo.contracts import Tokenizer


class Spelling:
    """What the tokens of one continuation say.

    Args:
        tokenizer: Reads them; without one there is no text.
        stop: Texts that end the continuation, none of them empty.
    """

    def __init__(self, tokenizer: Tokenizer | None, stop: Sequence[str] = ()) -> None:
        self.tokenizer, self.stop = tokenizer, tuple(stop)
        self.cut: int | None = None  # where a stop string begins, once there is one
        self.told = 0  # characters that were handed on

    def stops(self, tokens: Sequence[int]) -> bool:
        """Whether a stop string is there; the first one cuts the text from then on."""
        if not self.stop:
            return False
        whole = self._whole(tokens)
        self.cut = min((at for each in self.stop if (at := whole.find(each)) >= 0), default=None)
        return self.cut is not None

    def text(self, tokens: Sequence[int]) -> str:
        """The text, without the stop string and what follows it."""
        return self._whole(tokens)[: self.cut]

    def kept(self, tokens: Sequence[int]) -> int:
        """How many of the tokens the text is made of."""
        if self.cut is None:
            return len(tokens)
        text = self.text(tokens)
        return next(count for count in range(len(tokens) + 1) if self._whole(tokens[:count]).startswith(text))

    def news(self, tokens: Sequence[int], done: bool) -> str:
        """What has become certain since the last call; all that is left once the continuation is done."""
        text = self.text(tokens)
        certain = text if done else self._certain(text)
        news, self.told = certain[self.told :], max(self.told, len(certain))
        return news

    def _certain(self, text: str) -> str:
        """Without a character that may lack bytes, and without what may be the beginning of a stop string."""
        text = text.rstrip("\N{REPLACEMENT CHARACTER}")
        begun = [size for each in self.stop for size in range(1, len(each)) if text.endswith(each[:size])]
        return text[: len(text) - max(begun, default=0)]

    def _whole(self, tokens: Sequence[int]) -> str:
        return "" if self.tokenizer is None else self.tokenizer.decode(tokens)
