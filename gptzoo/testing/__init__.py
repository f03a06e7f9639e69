"""The laws that every registered part must obey, as a command, and as pieces for the tests of a plugin.

    @pytest.mark.parametrize("law", laws_of("attention"), ids=str)
    def test_it_obeys(law):
        obey("my_attention", law, plugins=["my_attention.py"])

A law is a sentence with a search for a case in which it is false. What a component does not disclaim, it claims: by
`abilities` (`Abilities(cached=False)`), or by a class attribute that is False:

    order_free               an attention: without positions, the past has no order
    shift_invariant          an attention or position: a row that starts later gives the same
    window_alone             an attention with an option window: so many tokens are seen, and no others
    unit_scores              an attention with projections q, k, v, o: softmax of scores of unit variance
    norm_preserving          a position: rotation keeps norms
    scale_invariant          a norm: large vectors and small ones come out alike
    eps_inside_root          a norm with an option eps: it is added under the root
    identity_when_silent     a block: with o and down at zero it changes nothing
    continuous               a schedule: no step down of more than a twentieth
    starts_by_guessing       an init: the first loss is that of guessing
    predicts_the_next_token  data: a target is the next token of its row
    any_text                 a tokenizer: no text is refused
    keeps_blanks             a tokenizer: whitespace comes back as it was
    uses_input               an MLP: what it is given matters, so that no norm before it is idle

`options_beside_results = ("streaming",)` names options that change how, and not what.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

_HOMES = {
    "gptzoo.testing.checking": "Report check obey said",
    "gptzoo.testing.law": "LAWS Law Outcome law laws_of try_law",
    "gptzoo.testing.subject": "Around Sizes Subject subjects",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME_OF)  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:  # the same at run time through __getattr__: the command line needs no torch for --help
    from gptzoo.testing.checking import Report as Report, check as check, obey as obey, said as said
    from gptzoo.testing.law import (
        LAWS as LAWS,
        Law as Law,
        Outcome as Outcome,
        law as law,
        laws_of as laws_of,
        try_law as try_law,
    )
    from gptzoo.testing.subject import (
        Around as Around,
        Sizes as Sizes,
        Subject as Subject,
        subjects as subjects,
    )


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'gptzoo.testing' has no attribute {name!r}")
    importlib.import_module("gptzoo.testing.checking")  # which declares all laws
    return getattr(importlib.import_module(_HOME_OF[name]), name)
