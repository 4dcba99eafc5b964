"""Checkpoints of first weights: their bytes are those of the started model, however often the writing was stopped."""

import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, load_model
from torch import Tensor, nn
from torch.nn.utils import parametrizations, weight_norm

import wellposed as wp
from peers import peer
from wellposed.init.checkpoints import claims, contents
from wellposed.init.checkpoints.contents import runs
from wellposed.init.checkpoints.writing import byte_count

INDEX = "model.safetensors.index.json"
Build = Callable[[], nn.Module]


class Tied(nn.Module):
    """A head that is the embedding, and a mask that is a formula."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 8, padding_idx=3)
        self.head = nn.Linear(8, 12, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("mask", torch.ones(5, 5).tril())
        self.register_buffer("mean", torch.tensor([0.3, 0.5], device="cpu"))
        self.register_buffer("angles", torch.arange(3) / 3, persistent=False)


class Parametrized(nn.Module):
    """Weights that are computed from others, with estimates beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.normed = parametrizations.weight_norm(nn.Linear(6, 4))
        self.bounded = parametrizations.spectral_norm(nn.Linear(6, 4))


def old_weight_norm() -> nn.Module:
    with pytest.warns(FutureWarning, match="weight_norm"):
        return nn.Sequential(weight_norm(nn.Linear(6, 4)), nn.Tanh())


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 4, 3, groups=2), nn.PReLU()
    )


def llama() -> nn.Module:
    transformers = peer("transformers")
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
    )
    config.tie_word_embeddings = True
    model: nn.Module = transformers.LlamaForCausalLM(config)
    return model


MODELS: dict[str, Build] = {
    "linear layers": lambda: nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 3)),
    "packed attention": lambda: nn.TransformerEncoderLayer(16, 2, 24, batch_first=True),
    "recurrent": lambda: nn.LSTM(5, 7, num_layers=2),
    "convolutions": convolutions,
    "tied": Tied,
    "parametrized": Parametrized,
    "weight norm in its older form": old_weight_norm,
    "scalars": lambda: nn.ParameterDict({"bias": torch.zeros(()), "other_bias": torch.zeros(3)}),
    "llama": llama,
}
WAYS = (("auto", None), ("auto", torch.bfloat16), ("orthogonal", torch.float16), ("torch", torch.float64))


def started(build: Build, dtype: torch.dtype | None, **options: object) -> dict[str, Tensor]:
    model = build()
    if dtype is not None:
        model.to(dtype)
    wp.initialize(model, **options)  # type: ignore[arg-type]
    return model.state_dict()


def loaded(folder: Path) -> dict[str, Tensor]:
    """All tensors, found by the index, as other programs do."""
    told = json.loads((folder / INDEX).read_text())
    files = {name: load_file(folder / name) for name in set(told["weight_map"].values())}
    found = {name: files[file][name] for name, file in told["weight_map"].items()}
    assert sum(map(len, files.values())) == len(found)
    assert told["metadata"]["total_size"] == sum(t.nbytes for t in found.values())
    return found


def same_bytes(one: Tensor, other: Tensor) -> bool:
    flat = [tensor.detach().contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)]
    return (one.dtype, one.shape) == (other.dtype, other.shape) and torch.equal(*flat)


def digest(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "PIECE", 96)


@pytest.mark.parametrize(("scheme", "dtype"), WAYS, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_the_bytes_are_those_of_the_started_model(
    name: str, scheme: str, dtype: torch.dtype | None, tmp_path: Path
) -> None:
    build = MODELS[name]
    expected = started(build, dtype, scheme=scheme, seed=3)
    wp.init.write_checkpoint(build, tmp_path, scheme, seed=3, dtype=dtype, shard_size=700)
    found = loaded(tmp_path)
    for key, value in found.items():
        assert same_bytes(value, expected[key]), key
    tied = {id(v) for v in build().state_dict(keep_vars=True).values()}
    assert len(found) == len(tied)
    assert wp.init.verify_checkpoint(build, tmp_path, scheme, seed=3, dtype=dtype) == {}


def test_rules_count(tmp_path: Path) -> None:
    rules = {"0.weight": wp.init.Orthogonal(), "2.*": wp.init.Constant(0.5)}
    build = MODELS["linear layers"]
    wp.init.write_checkpoint(build, tmp_path, rules=rules)
    expected = started(build, None, rules=rules)
    assert all(same_bytes(value, expected[key]) for key, value in loaded(tmp_path).items())
    assert set(wp.init.verify_checkpoint(build, tmp_path)) == {"0.weight", "2.weight", "2.bias"}


@pytest.mark.parametrize("shape", [(), (0, 3), (3, 0), (7,), (5, 3), (2, 3, 5), (4, 1, 1, 9)])
@pytest.mark.parametrize("most", [1, 2, 7, 10, 1000])
def test_pieces_lie_side_by_side(shape: tuple[int, ...], most: int) -> None:
    whole = torch.arange(torch.Size(shape).numel()).reshape(shape)
    parts = [
        whole[tuple(slice(o, o + n) for o, n in zip(offset, size, strict=True))].reshape(-1)
        for offset, size in runs(shape, most)
    ]
    assert torch.equal(torch.cat(parts), whole.reshape(-1))
    assert max(part.numel() for part in parts) <= max(most, 1)


def test_transformers_reads_it(tmp_path: Path) -> None:
    transformers = peer("transformers")
    wp.init.write_checkpoint(llama, tmp_path, seed=1, dtype=torch.bfloat16, shard_size="2KB")
    config: Any = llama().config
    config.save_pretrained(tmp_path)
    model = transformers.LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    expected = started(llama, torch.bfloat16, seed=1)
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    assert all(same_bytes(value, expected[name]) for name, value in model.state_dict().items())


def test_safetensors_loads_tied_weights(tmp_path: Path) -> None:
    wp.init.write_checkpoint(Tied, tmp_path)
    model = Tied()
    assert not any(load_model(model, tmp_path / "model-00001-of-00001.safetensors"))
    assert all(same_bytes(value, model.state_dict()[name]) for name, value in started(Tied, None).items())


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_distributed_checkpoint_reads_it_under_every_name(tmp_path: Path) -> None:
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    wp.init.write_checkpoint(Tied, tmp_path, seed=5, shard_size=300, file_format="dcp")
    state = {name: torch.zeros_like(value) for name, value in Tied().state_dict().items()}
    load(state, storage_reader=HuggingFaceStorageReader(str(tmp_path)))
    assert {"embed.weight", "head.weight"} <= state.keys()
    assert all(same_bytes(state[name], value) for name, value in started(Tied, None, seed=5).items())


# What is stopped, and goes on


MODULE = """
import torch
from torch import nn

def make():
    layers = []
    for _ in range(6):
        layers += [nn.Linear(300, 300), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(300, 9))

def nothing():
    return 3

def broken():
    raise ValueError("no\\nsuch table")

def unknown():
    model = nn.Linear(3, 3)
    model.register_buffer("table", torch.randn(4))
    return model

def left():
    return nn.Embedding.from_pretrained(torch.randn(3, 4))

number = 3
"""
COMMAND = ("fresh_models:make", "--out", "out", "--dtype", "bfloat16", "--shard-size", "100KB")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "fresh_models.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(contents, "PIECE", 2**20)
    monkeypatch.delitem(sys.modules, "fresh_models", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def begin(*arguments: str, first: str = "pass") -> "subprocess.Popen[str]":
    code = f"import sys; {first}; from wellposed.__main__ import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "init", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def call(*arguments: str, first: str = "pass") -> tuple[int, str, str]:
    process = begin(*arguments, first=first)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def whole(folder: Path) -> dict[str, bytes]:
    """What the command leaves when nobody stops it."""
    from wellposed.init.checkpoints.factories import factory_from

    made = folder / "whole"
    build = factory_from("fresh_models:make")
    wp.init.write_checkpoint(build, made, dtype=torch.bfloat16, shard_size="100KB")
    return digest(made)


# Forks processes that are killed before one of the calls by which a file comes to be.
KILLS = """
import os, random, signal, sys
from pathlib import Path
import torch
import wellposed as wp
from fresh_models import make
from wellposed.init.checkpoints import claims, contents, writing

torch.set_num_threads(1)
contents.PIECE, writing._WAITING = 4096, 65536

def write(moment):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = [moment]
    def stopped(real):
        def call(*arguments, **options):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)
        return call
    for home, name in ((writing, "_write_out"), (os, "fsync"), (claims.Path, "rename"), (claims.Path, "unlink")):
        setattr(home, name, stopped(getattr(home, name)))
    try:
        wp.init.write_checkpoint(make, "out", dtype=torch.bfloat16, shard_size="100KB")
        os._exit(0)
    finally:
        os._exit(1)

def state():
    return {path.name: path.read_bytes() for path in Path("out").iterdir()} if Path("out").exists() else {}

assert write(0) == 0
expected, chance, kills = state(), random.Random(0), []
while len(kills) < 20:
    for path in Path("out").iterdir():
        path.unlink()
    for moment in chance.choices(range(1, 330), k=3):
        code = write(moment)
        assert code in (0, -signal.SIGKILL), code
        kills += [moment] * (code != 0)
        assert all(name.startswith(".") or data == expected[name] for name, data in state().items()), moment
    assert write(0) == 0
    assert state() == expected
print(len(kills))
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLS], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 20


@pytest.mark.slow
def test_killed_from_outside_it_goes_on_to_the_same_bytes(folder: Path) -> None:
    expected = whole(folder)
    slowly = "from wellposed.init.checkpoints import contents, writing; contents.PIECE = writing._WAITING = 4096"
    for wait in (0.0, 0.05):
        process = begin(*COMMAND, first=slowly)
        while process.poll() is None and len(list((folder / "out").glob("*.safetensors"))) < 2:
            time.sleep(0.001)
        time.sleep(wait)
        process.kill()
        process.communicate()
    assert call(*COMMAND)[0] == 0
    assert digest(folder / "out") == expected


def test_two_processes_share_the_work(folder: Path) -> None:
    expected = whole(folder)
    told = (
        "exec('import time; from wellposed.init.checkpoints import writing; real = writing._write\\n"
        'def slow(file, shard):\\n print("wrote", shard.name); time.sleep(0.3); yield from real(file, shard)\\n'
        "writing._write = slow')"
    )
    both = [begin(*COMMAND, first=told) for _ in range(2)]
    outs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], outs
    wrote = [[line for line in out.splitlines() if line.startswith("wrote")] for out, _ in outs]
    assert all(wrote)
    assert len(set(wrote[0] + wrote[1])) == len(wrote[0] + wrote[1]) == len(expected) - 2
    assert digest(folder / "out") == expected


def test_an_interrupt_leaves_no_draft(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done > 5200:
            raise KeyboardInterrupt

    build = MODELS["linear layers"]
    with pytest.raises(KeyboardInterrupt):
        wp.init.write_checkpoint(build, tmp_path, shard_size=700, progress=stop)
    assert not list(tmp_path.glob(".*"))
    assert not (tmp_path / INDEX).exists()
    seen: list[tuple[int, int]] = []
    wp.init.write_checkpoint(build, tmp_path, shard_size=700, progress=lambda *told: seen.append(told))
    assert 0 < seen[0][0] < seen[0][1]
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.fixture
def files_of_at_most(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, old)


def test_a_disk_that_is_full_in_the_middle(tmp_path: Path, files_of_at_most: Callable[[int], None]) -> None:
    build = MODELS["linear layers"]
    files_of_at_most(3000)
    with pytest.raises(wp.WellposedError, match="cannot be written to: File too large; files that are finished stay"):
        wp.init.write_checkpoint(build, tmp_path, shard_size=700)  # the largest weight has 4800 bytes
    assert {path.name for path in tmp_path.iterdir()} == {"wellposed-init.json"}
    files_of_at_most(10**6)
    wp.init.write_checkpoint(build, tmp_path, shard_size=700)
    assert wp.init.verify_checkpoint(build, tmp_path) == {}


def test_a_disk_that_is_full_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(wp.WellposedError, match=r"0.0 GB free, and 0.0 GB are to be written; make room"):
        wp.init.write_checkpoint(MODELS["linear layers"], tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_what_was_changed_is_named(tmp_path: Path) -> None:
    build = MODELS["linear layers"]
    wp.init.write_checkpoint(build, tmp_path, shard_size=4900)
    path = tmp_path / "model-00001-of-00002.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert wp.init.verify_checkpoint(build, tmp_path) == {"0.weight": "has other values"}
    path.write_bytes(data[:-1])
    wrong = wp.init.verify_checkpoint(build, tmp_path)
    assert wrong[path.name] == "is not a whole safetensors file"
    assert wrong["0.weight"] == "is missing"
    path.unlink()
    (tmp_path / INDEX).unlink()
    wrong = wp.init.verify_checkpoint(lambda: nn.Sequential(nn.Linear(40, 30, bias=False)), tmp_path)
    assert wrong == {
        INDEX: "is missing: the files were not finished",
        "0.weight": "is missing",
        "0.bias": "is not a tensor of this model",
        "2.weight": "is not a tensor of this model",
        "2.bias": "is not a tensor of this model",
    }


def test_what_another_program_saved_is_checked(tmp_path: Path) -> None:
    from safetensors.torch import save_model

    model = Tied()
    wp.initialize(model, seed=2)
    save_model(model, str(tmp_path / "model.safetensors"))
    assert wp.init.verify_checkpoint(Tied, tmp_path, seed=2) == {}
    assert set(wp.init.verify_checkpoint(Tied, tmp_path)) == {"embed.weight"}


# What is refused


class Kept(nn.Linear):
    def get_extra_state(self) -> object:
        return {"a": 1}

    def set_extra_state(self, state: object) -> None: ...


class Table(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.randn(3))


REFUSED: dict[str, tuple[Build, dict[str, object], str]] = {
    "no model": (lambda: 3, {}, "write_checkpoint was given 3; expected a torch.nn.Module"),  # type: ignore[dict-item, return-value]
    "a buffer that nobody knows": (Table, {}, "^table: nothing says what these start as"),
    "a weight that a rule leaves": (MODELS["linear layers"], {"rules": {"2.*": None}}, "^2.weight, 2.bias: nothing"),
    "a frozen weight": (lambda: nn.Linear(2, 2).requires_grad_(False), {}, "^weight, bias: nothing says"),
    "what is no tensor": (lambda: Kept(2, 2), {}, "^_extra_state: not tensors"),
    "a fitted scheme": (MODELS["linear layers"], {"scheme": "lsuv"}, "'lsuv' fits the weights to data"),
    "no such scheme": (MODELS["linear layers"], {"scheme": "best"}, "there is no scheme 'best'"),
    "a dtype of integers": (MODELS["linear layers"], {"dtype": torch.int8}, "dtype was given torch.int8"),
    "no such format": (MODELS["linear layers"], {"file_format": "pickle"}, "the file format 'pickle' was given"),
    "a size in words": (MODELS["linear layers"], {"shard_size": "big"}, "shard_size was given 'big'; expected bytes"),
    "a size of nothing": (MODELS["linear layers"], {"shard_size": 0}, "shard_size was given 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_written_is_refused_before_anything_is(name: str, tmp_path: Path) -> None:
    build, options, told = REFUSED[name]
    with pytest.raises(wp.WellposedError, match=told):
        wp.init.write_checkpoint(build, tmp_path / "out", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"seed": 1}, "was made with the seed 0, and the seed 1 was given now"),
        ({"scheme": "he"}, "was made with the scheme 'auto', and the scheme 'he' was given now"),
        ({"dtype": torch.bfloat16}, "the dtype as the model has them, and the dtype bfloat16"),
        ({"shard_size": 701}, "files of 700 bytes, and files of 701 bytes"),
        ({"file_format": "dcp"}, "the format 'safetensors', and the format 'dcp'"),
        ({"rules": {"0.weight": wp.init.Zeros()}}, "a model, or rules, of the digest"),
    ],
)
def test_a_folder_of_something_else_is_refused(options: dict[str, object], told: str, tmp_path: Path) -> None:
    build = MODELS["linear layers"]
    wp.init.write_checkpoint(build, tmp_path, shard_size=700)
    before = digest(tmp_path)
    with pytest.raises(wp.WellposedError, match=told):
        wp.init.write_checkpoint(build, tmp_path, **{"shard_size": 700, **options})  # type: ignore[arg-type]
    assert digest(tmp_path) == before
    if not options.keys() & {"shard_size", "file_format", "rules"}:
        with pytest.raises(wp.WellposedError, match=told):
            wp.init.verify_checkpoint(build, tmp_path, **options)  # type: ignore[arg-type]


def test_weights_of_unknown_origin_are_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(wp.WellposedError, match=r"holds model.safetensors and no wellposed-init.json"):
        wp.init.write_checkpoint(MODELS["linear layers"], tmp_path)
    (tmp_path / "wellposed-init.json").write_text("{}")
    with pytest.raises(wp.WellposedError, match="is not as it was written"):
        wp.init.write_checkpoint(MODELS["linear layers"], tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == b""


def test_a_draft_that_another_process_finished_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with claims.claimed(path) as file, claims.claimed(path) as other:
        assert file is not None
        assert other is None
        file.write(b"1")
    assert claims.is_finished(path)
    with claims.claimed(path) as file:
        assert file is None
    assert digest(tmp_path) == {"a": b"1"}


SIZES = {"5GB": 5 * 10**9, "512MiB": 2**29, " 1.5 kb ": 1500, "7": 7, 7: 7, "2TB": 2 * 10**12, "3B": 3}


@pytest.mark.parametrize("size", SIZES)
def test_sizes(size: str | int) -> None:
    assert byte_count(size) == SIZES[size]


@pytest.mark.parametrize("size", ["", "GB", "-1", "1e3", "5 gigabytes", "0.1", True, 0])
def test_sizes_that_are_none(size: str | int) -> None:
    with pytest.raises(wp.WellposedError, match="shard_size was given"):
        byte_count(size)


# The command

TOML = '"0.weight" = "Orthogonal"\n"2.*" = { type = "Normal", std = 0.02 }\n'
BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "no colon": (("fresh_models", "--out", "o"), "'fresh_models' was given; expected what makes the model"),
    "no such module": (("no_such:make", "--out", "o"), "no_such cannot be imported (ModuleNotFoundError: "),
    "no such function": (("fresh_models:mak", "--out", "o"), "there is no mak in fresh_models"),
    "not to be called": (("fresh_models:number", "--out", "o"), "is int; expected a function or a class"),
    "no module": (("fresh_models:nothing", "--out", "o"), "made int; expected a torch.nn.Module"),
    "an error of its own": (
        ("fresh_models:broken", "--out", "o"),
        "makes no model without memory (ValueError: no such table)",
    ),
    "arguments wanting": (("torch.nn:Linear", "--out", "o"), "makes no model without memory (TypeError: "),
    "a buffer unknown": (("fresh_models:unknown", "--out", "o"), "table: nothing says what these start as"),
    "frozen and unknown": (("fresh_models:left", "--out", "o"), "weight: nothing says what these start as"),
    "no out": (("fresh_models:make",), "--out"),
    "no such dtype": (("fresh_models:make", "--out", "o", "--dtype", "int8"), "'int8' is not one of"),
    "no such format": (("fresh_models:make", "--out", "o", "--format", "pt"), "'pt' is not one of"),
    "no size": (("fresh_models:make", "--out", "o", "--shard-size", "big"), "shard_size was given 'big'"),
    "a fitted scheme": (("fresh_models:make", "--out", "o", "--scheme", "lsuv"), "fits the weights to data"),
    "out is a file": (("fresh_models:make", "--out", "fresh_models.py"), "cannot be written to: File exists"),
    "nothing to check": (("fresh_models:make", "--out", "none", "--verify"), "holds no safetensors files to check"),
    "no rules": (("fresh_models:make", "--out", "o", "--rules", "no.toml"), "'no.toml' cannot be read: No such file"),
    "rules of no kind": (("fresh_models:make", "--out", "o", "--rules", "fresh_models.py"), "is not JSON"),
    "a rule of no kind": (("fresh_models:make", "--out", "o", "--rules", "bad.toml"), "'Best'"),
    "a rule for nothing": (("fresh_models:make", "--out", "o", "--rules", "far.json"), "matches no parameter"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_2(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from wellposed.cli import main

    Path("bad.toml").write_text('"*" = "Best"\n')
    Path("far.json").write_text('{"head.*": null}')
    before = sorted(folder.rglob("[!_]*.py"))
    arguments, told = BAD[name]
    monkeypatch.setattr(sys, "argv", ["wellposed", "init", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capfd.readouterr()
    assert end.value.code == 2
    assert out == ""
    assert told in err
    assert err.startswith("wellposed: ")
    assert err.count("\n") == 1
    assert not Path("o").exists()
    assert sorted(folder.rglob("[!_]*.py")) == before


def test_the_command_writes_and_checks(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from wellposed.cli import main

    def run(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["wellposed", "init", *COMMAND, "--rules", "rules.toml", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, *capfd.readouterr()

    Path("rules.toml").write_text(TOML)
    code, out, err = run()
    assert (code, out) == (0, "The weights are in out, scheme auto, seed 0.\n")
    assert err.splitlines()[-1].endswith("written")
    rules = {"0.weight": wp.init.Orthogonal(), "2.*": wp.init.Normal(0.0, 0.02)}
    sys.path.insert(0, str(folder))
    import fresh_models  # type: ignore[import-not-found]

    expected = started(fresh_models.make, torch.bfloat16, rules=rules)
    assert all(same_bytes(value, expected[key]) for key, value in loaded(folder / "out").items())

    code, out, _ = run("--json")
    assert (code, json.loads(out)["plan"]["scheme"]) == (0, "auto")
    assert run("--verify")[:2] == (0, "All in out is as it should be.\n")
    Path("rules.toml").write_text(TOML.replace("0.02", "0.03"))
    code, out, _ = run("--verify")
    assert (code, out) == (1, "2.weight has other values\n2.bias has other values\n")
    code, out, _ = run("--verify", "--json")
    assert (code, json.loads(out)["wrong"].keys()) == (1, {"2.weight", "2.bias"})
    code, out, err = run()
    assert (code, out) == (2, "")
    assert "or rules, of the digest" in err


def test_a_rule_twice_is_refused(tmp_path: Path) -> None:
    from wellposed.cli.rule_files import rules_from

    path = tmp_path / "rules.json"
    path.write_text('{"a": null, "a": "Zeros"}')
    with pytest.raises(wp.WellposedError, match="has 'a' twice"):
        rules_from(path)
    path.write_text('{"a": null, "b": "Zeros"}')
    assert rules_from(path) == {"a": None, "b": wp.init.Zeros()}
    (tmp_path / "rules.toml").write_text('a = false\nb = "Zeros"')
    assert rules_from(tmp_path / "rules.toml") == rules_from(path)
