"""The loss at each position of a trained cell, up to and beyond the length that it was trained at.

Written at the end of a cell, from its last checkpoint, over the rows of its evaluation. Beyond the context length the
rows are longer ones of the same split, and a model whose positions end is read as far as they go.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from gptzoo.ablation.ledger import POSITIONS
from gptzoo.building import Plan, build_data, build_model
from gptzoo.contracts import Data
from gptzoo.curves import Curve, by_position
from gptzoo.files import canonical_json, write_atomically
from gptzoo.model import Model
from gptzoo.runs import RunDirectory
from gptzoo.transfer import load_weights


def write_positions(folder: Path, made: Plan, data: Data, read_at: int) -> None:
    """Read a run that is done, and write `positions.json` beside it.

    Args:
        folder: Of the run.
        made: Its recipe, the size of its vocabulary known.
        data: Of the run.
        read_at: How far, in times the context length; 0 to read nothing.

    Raises:
        GPTZooError: The file cannot be written.
    """
    checkpoint = RunDirectory.at(folder, lock=False).latest()
    if checkpoint is None or not read_at:
        return
    model = build_model(made)
    load_weights(model, checkpoint.model, source=str(folder))
    model = model.to(made.device)
    asked = read_at * made.recipe.model.context_length
    curve, trouble = None, ""
    try:
        curve = _read(model, made, data)
        curve, trouble = _beyond(model, made, data, curve, asked)
    except Exception as error:  # a stranger's part may not do what it says; its run is done all the same
        trouble = " ".join(f"{type(error).__name__}: {error}".split())[:500]
    said = {"trained": made.recipe.model.context_length, "asked": asked, "trouble": trouble}
    if curve is not None:
        losses = [x if x is not None and math.isfinite(x) else None for x in curve.losses]
        said |= {"losses": losses, "targets": list(curve.targets)}
    write_atomically(folder / POSITIONS, f"{canonical_json(said)}\n".encode())


def _beyond(model: Model, made: Plan, data: Data, curve: Curve, asked: int) -> tuple[Curve, str]:
    """The curve as far as it can be read, and why not further."""
    limit = model.max_length
    length = asked if limit is None else min(asked, limit)
    trouble = "" if length == asked else f"its positions end at {limit}"
    if length <= curve.trained:
        return curve, trouble
    longer = replace(made.recipe, model=replace(made.recipe.model, context_length=length))
    try:
        return _read(model, made, build_data(replace(made, recipe=longer), data.tokenizer)), trouble
    except Exception as error:  # too little text, or a part that cannot: told, and what was read before stays
        return curve, " ".join(str(error).split())[:500] or type(error).__name__


def _read(model: Model, made: Plan, data: Data) -> Curve:
    train = made.recipe.train
    size = train.micro_batch_size or train.batch_size
    return by_position(model, data, sequences=train.eval_sequences, batch_size=size, precision=train.precision)
