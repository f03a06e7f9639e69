"""Checkpoints: back bit for bit, or refused in one line."""

from __future__ import annotations

import copy
import json
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings, strategies as st

from gptzoo import files
from gptzoo.errors import CheckpointError, GPTZooError, NoSpace
from gptzoo.runs import manifest as manifests
from gptzoo.runs.checkpoint import Checkpoint, _safetensors, read_checkpoint, read_model, write_checkpoint


def equal(one: object, two: object) -> bool:
    """Equal in type, dtype and every bit, all the way down."""
    if type(one) is not type(two):
        return False
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        same = one.dtype == two.dtype and one.shape == two.shape
        return (
            same and one.contiguous().numpy(force=True).tobytes() == two.numpy(force=True).tobytes()
            if (one.dtype not in (torch.bfloat16, torch.float8_e4m3fn))
            else same and equal(one.contiguous().view(torch.uint8), two.view(torch.uint8))
        )
    if isinstance(one, dict) and isinstance(two, dict):
        return list(one) == list(two) and all(equal(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(two, (list, tuple)):
        return len(one) == len(two) and all(equal(a, b) for a, b in zip(one, two, strict=True))
    return repr(one) == repr(two)  # tells nan from nothing else, and 0.0 from -0.0


def there_and_back(path: Path, optimizer: dict) -> dict:
    write_checkpoint(path, Checkpoint(0, {}, {}, optimizer, {}, {}))
    return read_checkpoint(path).optimizer


def refusal(folder: Path) -> str:
    """The message with which a checkpoint is refused, the folder left out."""
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(folder)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{folder}/")


def rewrite(folder: Path, name: str, data: bytes) -> None:
    """What a forger would do: change a file and make the manifest say so."""
    (folder / name).write_bytes(data)
    content = json.loads((folder / manifests.MANIFEST).read_bytes())
    content["files"][name] = {"size": len(data), "sha256": files.sha256_of(folder / name)}
    seal(folder, content)


def seal(folder: Path, content: dict) -> None:
    content.pop("sha256", None)
    content["sha256"] = manifests._digest_of(content)
    (folder / manifests.MANIFEST).write_bytes(manifests.canonical_bytes(content))


def test_a_checkpoint_comes_back_bit_for_bit(folder: Path, make: Callable[..., Checkpoint]) -> None:
    wanted, got = make(), read_checkpoint(folder)
    assert (got.step, got.aliases, got.state) == (wanted.step, wanted.aliases, wanted.state)
    assert equal({name: got.model[name] for name in wanted.model}, wanted.model)
    assert set(got.model) == set(wanted.model)
    assert equal(got.optimizer, wanted.optimizer)
    assert equal(got.rng, wanted.rng)


def test_the_model_alone_comes_back_too(folder: Path, make: Callable[..., Checkpoint]) -> None:
    model, aliases = read_model(folder)
    assert equal({name: model[name] for name in make().model}, make().model)
    assert aliases == {"lm_head.weight": "wte.weight"}


DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
]
DTYPES += [torch.uint8, torch.bool, torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2]


def test_every_dtype_and_shape_is_kept(tmp_path: Path) -> None:
    model = {}
    for dtype in DTYPES:
        values = torch.arange(6, dtype=torch.float32)
        model |= {f"{dtype}.matrix": values.reshape(2, 3).to(dtype), f"{dtype}.scalar": values[1].to(dtype)}
        model |= {
            f"{dtype}.empty": values[:0].reshape(0, 3).to(dtype),
            f"{dtype}.turned": values.reshape(2, 3).to(dtype).t(),
        }
        model[f"{dtype}.turned"] = model[f"{dtype}.turned"].clone(memory_format=torch.preserve_format)
    write_checkpoint(tmp_path / "a", Checkpoint(0, model, {}, {}, {}, {}))
    got = read_checkpoint(tmp_path / "a").model
    assert set(got) == set(model)
    for name, tensor in model.items():
        assert (got[name].dtype, got[name].shape) == (tensor.dtype, tensor.shape)
        bits = tensor.contiguous().reshape(-1).view(torch.uint8) if tensor.numel() else torch.empty(0)
        assert torch.equal(got[name].reshape(-1).view(torch.uint8) if tensor.numel() else torch.empty(0), bits)


def test_our_files_are_those_of_the_safetensors_library(tmp_path: Path) -> None:
    tensors = {"b": torch.randn(3, 5), "a": torch.ones(2, dtype=torch.int64), "c": torch.ones(3, dtype=torch.bool)}
    tensors["d"] = torch.randn(4, 3, dtype=torch.float64).t().contiguous()
    assert b"".join(_safetensors(tensors)) == safetensors.torch.save(tensors)


OPTIMIZERS = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.1),
    "momentum": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95)),
    "amsgrad": lambda groups: torch.optim.Adam(groups, lr=torch.tensor(1e-3), amsgrad=True),
    "adafactor": lambda groups: torch.optim.Adafactor(groups, lr=1e-2),
    "rprop": lambda groups: torch.optim.Rprop(groups),
    "asgd": lambda groups: torch.optim.ASGD(groups),
    "lbfgs": lambda groups: torch.optim.LBFGS([weight for group in groups for weight in group["params"]]),
}


def train(weights: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer, steps: int) -> None:
    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.stack([(weight.sin() ** 2).sum() for weight in weights]).sum()
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_goes_on_as_if_never_stopped(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(4, 3)) for _ in range(3)]

    def groups(of: list[torch.nn.Parameter]) -> list[dict]:
        return [{"params": of[:2], "weight_decay": 0.1}, {"params": of[2:], "weight_decay": 0.0}]

    optimizer = OPTIMIZERS[name](groups(weights))
    train(weights, optimizer, 3)
    write_checkpoint(tmp_path / "a", Checkpoint(3, {}, {}, optimizer.state_dict(), {}, {}))
    resumed = copy.deepcopy(weights)
    other = OPTIMIZERS[name](groups(resumed))
    state = read_checkpoint(tmp_path / "a").optimizer
    assert equal(state, optimizer.state_dict())
    other.load_state_dict(state)
    train(weights, optimizer, 3)
    train(resumed, other, 3)
    assert all(torch.equal(one, two) for one, two in zip(weights, resumed, strict=True))
    assert equal(other.state_dict(), optimizer.state_dict())


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
TENSORS = st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool]).flatmap(
    lambda dtype: st.lists(st.integers(0, 1), max_size=3).map(lambda values: torch.tensor(values, dtype=dtype))
)
KEYS = st.integers() | st.text(max_size=4)
NESTED = st.recursive(
    LEAVES | TENSORS,
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


@settings(deadline=None, max_examples=80)
@given(value=st.dictionaries(KEYS, NESTED, max_size=4))
def test_any_nested_state_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, value: dict) -> None:
    assert equal(there_and_back(tmp_path_factory.mktemp("a") / "a", value), value)


def test_names_that_collide_when_flattened_stay_apart(tmp_path: Path) -> None:
    state = {"a": {"b": torch.tensor(1)}, "a.b": torch.tensor(2), "a.b'": torch.tensor(3)}
    assert equal(there_and_back(tmp_path / "a", state), state)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ({"state": {0: {"f": object()}}}, "optimizer.state.0.f is a object: it cannot be stored."),
        ({"a": {1.5: 0}}, "optimizer.a has a key of type float: it cannot be stored."),
        (
            {"a": torch.ones(1, dtype=torch.complex128)},
            "tensor 'optimizer.a' is of dtype torch.complex128: it cannot be stored.",
        ),
        ({"a": torch.ones(2, device="meta")}, "tensor 'optimizer.a' is meta: it cannot be stored."),
        ({"a": torch.ones(2).to_sparse()}, "tensor 'optimizer.a' is torch.sparse_coo: it cannot be stored."),
    ],
)
def test_what_cannot_be_stored_is_named_and_nothing_is_left(tmp_path: Path, optimizer: dict, message: str) -> None:
    with pytest.raises(GPTZooError) as caught:
        there_and_back(tmp_path / "a", optimizer)
    assert str(caught.value) == message
    assert os.listdir(tmp_path) == []


def test_an_undeclared_tie_is_refused(tmp_path: Path) -> None:
    weight = torch.ones(2, 2)
    with pytest.raises(GPTZooError) as caught:
        write_checkpoint(tmp_path / "a", Checkpoint(0, {"wte": weight, "head": weight}, {}, {}, {}, {}))
    assert str(caught.value) == "weights 'wte' and 'head' are one tensor: name one of them an alias."


def test_state_that_json_would_change_is_our_own_bug(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="plain JSON"):
        write_checkpoint(tmp_path / "a", Checkpoint(0, {}, {}, {}, {}, {"pair": (1, 2)}))


def test_too_much_json_is_refused_on_writing_not_on_reading(tmp_path: Path) -> None:
    with pytest.raises(GPTZooError) as caught:
        write_checkpoint(tmp_path / "a", Checkpoint(0, {}, {}, {}, {}, {"text": "x" * 3_000_000}))
    assert (
        str(caught.value) == "the optimizer's options and the trainer's state take 3.0 MB of JSON, at most 2.1 MB fit."
    )


def test_every_flipped_byte_is_detected(folder: Path, make: Callable[..., Checkpoint]) -> None:
    cases = 0
    for name in (*manifests.FILES, manifests.MANIFEST):
        data = (folder / name).read_bytes()
        for index in range(len(data)):
            flipped = bytearray(data)
            flipped[index] ^= 1 << (index % 8)
            (folder / name).write_bytes(flipped)
            with pytest.raises(CheckpointError) as caught:
                read_checkpoint(folder)
            assert str(caught.value).startswith(f"{folder}/{name}: ")
            cases += 1
        (folder / name).write_bytes(data)
    assert cases > 2000
    assert read_checkpoint(folder).state == make().state


@pytest.mark.parametrize("name", [*manifests.FILES, manifests.MANIFEST])
def test_every_truncation_extension_and_zeroed_page_is_detected(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    size = len(data)
    header = 8 + int.from_bytes(data[:8], "little") if name.endswith("safetensors") else 0
    for length in {0, 1, 7, 8, 9, header, size // 4, size // 2, 3 * size // 4, size - 1} - {size}:
        (folder / name).write_bytes(data[:length])
        assert refusal(folder).startswith(f"{name}: ")
    for changed in (data + b"\0", data + b"\n", bytes(size), data[:8] + bytes(size - 8)):
        (folder / name).write_bytes(changed)
        assert refusal(folder).startswith(f"{name}: ")
    (folder / name).unlink()
    assert refusal(folder) == f"{name}: is missing."


def test_messages_name_file_reason_and_bytes(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    assert refusal(folder) == f"model.safetensors: has {len(data) - 1} bytes, the manifest says {len(data)}."
    path.write_bytes(bytes(len(data)))
    wanted = f"model.safetensors: is damaged: the sha256 of its {len(data)} bytes is not the manifest's."
    assert refusal(folder) == wanted
    (folder / "MANIFEST.json").write_bytes(b"{}")
    assert refusal(folder) == "MANIFEST.json: is not the JSON that was written."
    (folder / "MANIFEST.json").write_bytes(b"{}\n")
    assert refusal(folder) == "MANIFEST.json: does not match its own sha256."
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(folder.parent / "step-000009")
    assert str(caught.value) == f"{folder.parent}/step-000009: is missing."


def test_files_swapped_between_steps_are_detected(folder: Path, make: Callable[..., Checkpoint]) -> None:
    other = folder.with_name("step-000006")
    write_checkpoint(other, make(6, seed=1))
    for name in (*manifests.FILES, manifests.MANIFEST):
        if name == manifests.RNG:
            continue  # told apart below: the same size and other bytes
        one, two = (folder / name).read_bytes(), (other / name).read_bytes()
        (folder / name).write_bytes(two)
        refusal(folder)
        (folder / name).write_bytes(one)
    read_checkpoint(folder)
    target = folder.with_name("step-000007")
    folder.rename(target)
    assert refusal(target) == "MANIFEST.json: is of step 5, the folder is called step-000007."


def test_a_newer_format_is_refused_by_number(folder: Path) -> None:
    seal(folder, json.loads((folder / manifests.MANIFEST).read_bytes()) | {"format": 2})
    wanted = "is of checkpoint format 2, this GPTZoo reads 1. Use the GPTZoo that wrote it, or upgrade."
    assert refusal(folder) == f"MANIFEST.json: {wanted}"


def link(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def subfolder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", [*manifests.FILES, manifests.MANIFEST])
@pytest.mark.parametrize("change", [link, pipe, subfolder])
def test_links_pipes_and_folders_are_not_followed(folder: Path, name: str, change: Callable[[Path], None]) -> None:
    change(folder / name)
    assert refusal(folder) == f"{name}: is not a regular file."


def test_a_linked_checkpoint_is_refused(folder: Path) -> None:
    other = folder.with_name("step-000005b")
    other.symlink_to(folder)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(other)
    assert str(caught.value) == f"{other}: is not a folder."


def test_foreign_files_are_refused(folder: Path) -> None:
    (folder / "data\n.pkl").write_bytes(b"")
    assert refusal(folder) == "data\\n.pkl: does not belong to a checkpoint."


@pytest.mark.parametrize(
    "change",
    [
        {"files": {"../../etc/passwd": {"size": 1, "sha256": "0"}}},
        {"files": []},
        {"files": dict.fromkeys(manifests.FILES, 3)},
        {"files": {name: {"size": -1, "sha256": "0"} for name in manifests.FILES}},
        {"files": {name: {"size": True, "sha256": "0"} for name in manifests.FILES}},
        {"step": -1},
        {"step": "5"},
        {"step": True},
        {"aliases": []},
        {"aliases": {"a": 3}},
        {"extra": 1},
    ],
)
def test_a_forged_manifest_is_refused(folder: Path, change: dict) -> None:
    seal(folder, json.loads((folder / manifests.MANIFEST).read_bytes()) | change)
    assert refusal(folder) == "MANIFEST.json: does not have the fields of a manifest."


@pytest.mark.parametrize("aliases", [{"head": "nowhere"}, {"wte.weight": "layers.0.o"}])
def test_forged_aliases_are_refused(folder: Path, aliases: dict) -> None:
    seal(folder, json.loads((folder / manifests.MANIFEST).read_bytes()) | {"aliases": aliases})
    ((alias, name),) = aliases.items()
    wanted = f"MANIFEST.json: has an alias {alias!r} for {name!r} that does not fit the weights."
    assert refusal(folder) == wanted
    with pytest.raises(CheckpointError):
        read_model(folder)


def bomb(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


FORGED = {
    "pickle": b"\x80\x04cos\nsystem\n.",
    "zip": b"PK\x03\x04" + bytes(100),
    "empty": b"",
    "header of 2^63": bomb(b"{}", length=2**63),
    "header of 2^40": bomb(b"{}", length=2**40),
    "shape of 2^40": bomb({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]}}, bytes(4)),
    "shape overflow": bomb({"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}}),
    "overlap": bomb({k: {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]} for k in "ab"}, bytes(4)),
    "hole": bomb({"a": {"dtype": "U8", "shape": [4], "data_offsets": [4, 8]}}, bytes(8)),
    "unknown dtype": bomb({"a": {"dtype": "Q9", "shape": [4], "data_offsets": [0, 4]}}, bytes(4)),
    "complex": bomb({"a": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}, bytes(8)),
    "repeated key": bomb(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},' * 2 + b'"b":1}', bytes(1)),
    "repeated key, valid": bomb(
        b'{"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        bytes(1),
    ),
    "metadata": bomb({"__metadata__": {"a": "b"}}),
    "nested": bomb(b"[" * 100000),
    "zero sized": bomb({"a": {"dtype": "F32", "shape": [0, 2**63], "data_offsets": [0, 0]}}),
}


@pytest.mark.parametrize("name", [manifests.MODEL, manifests.OPTIMIZER, manifests.RNG])
@pytest.mark.parametrize("kind", FORGED)
def test_forged_tensors_with_a_true_hash_are_refused(folder: Path, name: str, kind: str) -> None:
    rewrite(folder, name, FORGED[kind])
    assert refusal(folder).startswith(f"{name}: ")


def test_a_generator_state_of_another_dtype_is_refused(folder: Path) -> None:
    rewrite(folder, manifests.RNG, b"".join(_safetensors({"torch": torch.zeros(4)})))
    assert refusal(folder) == "rng.safetensors: holds something other than generator states."


@pytest.mark.parametrize(
    "structure",
    [
        [],
        3,
        {"dict": 3},
        {"dict": [[1]]},
        {"dict": [[[], 1]]},
        {"dict": [[None, 1]]},
        {"dict": [["a", {"tensor": "nowhere"}]]},
        {"dict": [["a", {"tensor": []}]]},
        {"dict": [["a", {"float": "1e5"}]]},
        {"dict": [["a", {"class": "os.system"}]]},
        {"dict": [["a", {}]]},
        {"dict": [["a", {"tuple": [], "dict": []}]]},
        {"dict": []},
    ],
)
def test_a_forged_optimizer_is_refused(folder: Path, structure: object) -> None:
    rewrite(folder, manifests.STATE, manifests.canonical_bytes({"optimizer": structure, "state": {}}))
    assert refusal(folder) == "state.json: does not describe the optimizer's state."


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"optimizer":1,"state":[]}\n', "does not hold 'optimizer' and 'state'."),
        (b'{"optimizer":1}\n', "does not hold 'optimizer' and 'state'."),
        (b'{"state":{}, "optimizer":1}\n', "is not the JSON that was written."),
        (b'{"optimizer":1,"optimizer":1,"state":{}}\n', "is not the JSON that was written."),
        (b'{"optimizer":1,"state":{"a":NaN}}\n', "is not the JSON that was written."),
        (b'{"optimizer":1,"state":' + b"[" * 100000, "is not the JSON that was written."),
        (b"[" * 3_000_000, "has 3000000 bytes, at most 2097152 are read."),
        (b'{"optimizer":' + b"9" * 5000 + b',"state":{}}\n', "is not the JSON that was written."),
    ],
)
def test_a_forged_state_is_refused(folder: Path, data: bytes, reason: str) -> None:
    rewrite(folder, manifests.STATE, data)
    assert refusal(folder) == f"state.json: {reason}"


def test_an_equal_checkpoint_is_kept(folder: Path, make: Callable[..., Checkpoint]) -> None:
    before = folder.stat().st_ino
    write_checkpoint(folder, make())
    assert folder.stat().st_ino == before
    assert os.listdir(folder.parent) == [folder.name]


def test_another_or_a_damaged_checkpoint_of_the_step_is_replaced(folder: Path, make: Callable[..., Checkpoint]) -> None:
    write_checkpoint(folder, make(val_loss=2.5))
    assert read_checkpoint(folder).state["val_loss"] == 2.5
    (folder / manifests.MODEL).write_bytes(b"")
    write_checkpoint(folder, make())
    assert read_checkpoint(folder).state == make().state
    assert os.listdir(folder.parent) == [folder.name]


def test_a_file_or_link_in_the_way_is_replaced_and_its_target_left(
    tmp_path: Path, make: Callable[..., Checkpoint]
) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "step-000005").symlink_to(tmp_path / "precious")
    write_checkpoint(tmp_path / "step-000005", make())
    read_checkpoint(tmp_path / "step-000005")
    assert sorted(os.listdir(tmp_path)) == ["precious", "step-000005"]


def test_the_manifest_is_written_last_and_everything_is_synced_before_the_rename(
    tmp_path: Path, make: Callable[..., Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def record_sync(descriptor: int) -> None:
        events.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name.partition(".tmp-")[0])
        fsync(descriptor)

    def record_rename(path: Path, target: Path) -> Path:
        events.append(f"rename to {target.name}")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(Path, "rename", record_rename)
    write_checkpoint(tmp_path / "step-000005", make())
    expected = [*manifests.FILES, manifests.MANIFEST, "step-000005", "rename to step-000005", tmp_path.name]
    assert events == expected


@pytest.mark.parametrize("limit", [0, 1, 100, 300, 700, 4000])
def test_no_space_leaves_the_previous_checkpoint_and_no_temporary(
    folder: Path, make: Callable[..., Checkpoint], fork: Callable[..., int], limit: int
) -> None:
    target = folder.with_name("step-000006")

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        with pytest.raises(NoSpace, match=rf"^{target}: no space: need [0-9.]+ kB, have "):
            write_checkpoint(target, checkpoint)

    checkpoint = make(6)
    checkpoint.model["large"] = torch.zeros(1000)
    assert fork(work) == 0
    assert os.listdir(folder.parent) == [folder.name]
    read_checkpoint(folder)
    write_checkpoint(target, checkpoint)


def test_space_is_checked_before_the_first_byte(
    tmp_path: Path, make: Callable[..., Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 2000

    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: Usage)
    monkeypatch.setattr(files, "failpoint", lambda name: pytest.fail("a byte was written"))
    with pytest.raises(NoSpace) as caught:
        write_checkpoint(tmp_path / "step-000005", make())
    assert str(caught.value).startswith(f"{tmp_path}: no space: need 6")
    assert str(caught.value).endswith(" kB, have 2.0 kB")
