"""``wp.convert_dropout`` on models of torch, timm, torchvision and transformers."""

import json
import pickle
import warnings
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import wellposed as wp
from peers import peer
from wellposed.dropouts.naming.streams import Stochastic


class Home(nn.Module):
    """Dropout of every kind that torch has, some shared, some in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Dropout(0.1)
        self.inner = nn.Sequential(nn.Dropout1d(0.2), nn.Dropout2d(0.3).eval(), nn.Dropout3d(0.4))
        self.alpha, self.feature = nn.AlphaDropout(0.5), nn.FeatureAlphaDropout(0.6)
        self.again = self.a
        self.ours = wp.DropPath(0.7)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.again(self.a(x))
        return y


def test_torchs_modules_are_swapped_in_place_and_named() -> None:
    model = Home()
    assert wp.convert_dropout(model) is model
    kinds = {
        path: (type(m), m.p, m.training, m.stream) for path, m in model.named_modules() if isinstance(m, Stochastic)
    }
    wanted: dict[str, object] = {
        "a": (wp.Dropout, 0.1, True, "a"),
        "inner.0": (wp.Dropout1d, 0.2, True, "inner.0"),
        "inner.1": (wp.Dropout2d, 0.3, False, "inner.1"),
        "inner.2": (wp.Dropout3d, 0.4, True, "inner.2"),
        "alpha": (wp.AlphaDropout, 0.5, True, "alpha"),
        "feature": (wp.FeatureAlphaDropout, 0.6, True, "feature"),
        "ours": (wp.DropPath, 0.7, True, "ours"),
    }
    assert kinds == wanted
    assert model.again is model.a
    with wp.keyed(0):
        y = wp.convert_dropout(model).a(torch.ones(64))
    assert torch.equal(y == 0, wp.random.bernoulli(64, wp.Key(0).fold("a"), 0.1))


def test_seeds_set_streams_apart() -> None:
    one, two = wp.convert_dropout(Home(), seed=1), wp.convert_dropout(Home(), seed=2)
    with wp.keyed(0):
        assert not torch.equal(one(torch.ones(64)), two(torch.ones(64)))


def test_streams_are_named_without_wrappers() -> None:
    plain = wp.convert_dropout(Home())
    for wrapped in (torch.compile(Home(), backend="eager"), nn.Sequential(nn.DataParallel(Home()))[0]):
        wp.convert_dropout(cast(nn.Module, wrapped))
        streams = [m.stream for m in cast(nn.Module, wrapped).modules() if isinstance(m, Stochastic)]
        assert streams == [m.stream for m in plain.modules() if isinstance(m, Stochastic)]


def test_channels_are_dropped_of_every_input_that_torch_takes() -> None:
    """With torch's warnings about some numbers of dimensions, in training and outside it."""
    for kind in (nn.Dropout2d, nn.Dropout3d):
        for rank in (2, 3, 4, 5, 6):
            torchs, x = kind(0.5), torch.ones((64, 32, 2, 2, 2, 2)[:rank])
            ours = wp.convert_dropout(nn.Sequential(kind(0.5)))
            assert torch.equal(ours.eval()(x), x)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                outputs = [module.train()(x) != 0 for module in (torchs, ours)]
            # Which dimensions a mask varies over: those along which not all that is kept is kept together.
            varies = [[bool((kept.any(dim) != kept.all(dim)).any()) for dim in range(rank)] for kept in outputs]
            assert varies[0] == varies[1], (kind, rank)


def paths(plan: wp.dropouts.DropoutPlan, *what: str) -> set[str]:
    return {row.path for row in plan if row.what in what}


def reasons(plan: wp.dropouts.DropoutPlan) -> dict[str, str]:
    """Path -> why it is left."""
    return {row.path: row.reason for row in plan if row.what == "left"}


def kinds(plan: wp.dropouts.DropoutPlan) -> set[str]:
    """The classes that are swapped in."""
    return {row.new.partition("(")[0] for row in plan if row.what == "swapped"}


def test_the_plan_touches_nothing() -> None:
    model = Home()
    before = {path: (module, dict(vars(module))) for path, module in model.named_modules(remove_duplicate=False)}
    for example in (None, torch.ones(4)):
        wp.plan_convert_dropout(model, seed=3, example=example)
    after = {path: (module, dict(vars(module))) for path, module in model.named_modules(remove_duplicate=False)}
    assert before == after


def test_the_plan_is_a_value_that_prints_and_can_be_kept() -> None:
    plan = wp.plan_convert_dropout(Home())
    assert plan == wp.plan_convert_dropout(Home())
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert len(plan) == len(list(plan)) == 8
    assert paths(plan, "named") == {"ours"}
    lines = [line.split() for line in plan.table().text(width=0).splitlines()]
    assert ["inner.1", "swapped", "Dropout2d(p=0.3)"] in lines
    kept = json.loads(json.dumps(plan.to_dict()))
    first = {"path": "a", "what": "swapped", "new": "Dropout(p=0.1)", "stream": "a", "reason": "", "p": 0.1}
    assert kept["rows"][0] == first
    assert kept["notes"] == list(plan.notes)


def test_the_plan_prints_for_people() -> None:
    """Blocks that repeat are one line, also with a seed; where nothing drops, that is the line."""
    blocks = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1)) for _ in range(30)))
    for seed in (0, 3):
        lines = str(wp.plan_convert_dropout(blocks, seed=seed)).splitlines()
        assert sum("swapped  " in line for line in lines) == 1
        assert "0-29.1" in lines[2]
        assert max(map(len, lines)) <= 100
    nothing = nn.Sequential(nn.Dropout(0.0), wp.Dropout(0.0), nn.MultiheadAttention(4, 2))
    assert str(wp.plan_convert_dropout(nothing)) == "nothing drops: p = 0 in all 2 dropout modules"
    assert str(wp.plan_convert_dropout(nn.Linear(2, 2))).splitlines()[0] == "0 swapped of 0 found"


def test_a_conversion_is_undone() -> None:
    """The very modules come back, with the p and the mode that stand now, and with them what they were made with."""
    layer = nn.TransformerEncoderLayer(8, 2, 8, 0.3)
    model = nn.ModuleDict({"home": Home(), "layer": nn.Sequential(layer, layer), "own": nn.Dropout(0.5, inplace=True)})
    before = dict(model.named_modules(remove_duplicate=False))
    wp.convert_dropout(model, seed=3)
    home: Any = model["home"]
    home.alpha.p = 0.25
    model["own"].eval()
    plan = wp.plan_convert_dropout(model, back=True)
    assert paths(plan, "left") == {"home.ours"}
    with pytest.warns(UserWarning, match="home.ours: no conversion put it there"):
        wp.convert_dropout(model, back=True)
    after = dict(model.named_modules(remove_duplicate=False))
    assert before.keys() == after.keys()
    assert all(before[path] is after[path] for path in before)
    assert home.alpha.p == 0.25
    assert not model["own"].training
    assert cast(nn.Dropout, model["own"]).inplace
    assert type(wp.convert_dropout(wp.convert_dropout(nn.Dropout(0.3)), back=True)) is nn.Dropout


def test_the_plan_says_what_only_an_example_tells() -> None:
    plain, seen = wp.plan_convert_dropout(Home()), wp.plan_convert_dropout(Home(), example=torch.ones(4))
    assert "give an example to find dropout that is called as a function" in plain.table().text(width=0)
    assert seen.notes == ()
    assert plain.rows == seen.rows


@pytest.mark.parametrize("seed", [0, 5])
def test_what_is_done_is_what_was_planned(seed: int) -> None:
    """By path: the module that stands there and its stream; nothing else has changed."""
    named = wp.Dropout(0.5)
    named.stream = "mine"
    layer = nn.TransformerEncoderLayer(8, 2, 8, 0.3)
    model = nn.ModuleDict({"home": Home(), "mine": named, "layer": nn.Sequential(layer, layer), "lstm": nn.LSTM(3, 3)})
    before = dict(model.named_modules(remove_duplicate=False))
    plan = wp.plan_convert_dropout(model, seed=seed)
    wp.convert_dropout(model, seed=seed)
    after = dict(model.named_modules(remove_duplicate=False))
    swapped = paths(plan, "swapped")
    assert {path for path in before if before[path] is not after[path]} == swapped
    assert paths(plan, "named") == {"home.ours", "mine"}
    for row in plan:
        module = after[row.path]
        if isinstance(module, Stochastic):
            assert (module.stream, row.new or repr(module)) == (row.stream, repr(module))
        else:
            assert isinstance(module, wp.MultiheadAttention)
            assert (module.drop.stream, row.new) == (row.stream, "MultiheadAttention(dropout=0.3)")
    streams = {row.stream for row in plan}
    assert {"mine", "home.a" if seed == 0 else "5/home.a"} <= streams


class Functional(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.dropout(x, 0.5, self.training)
        return torch.nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=0.5 if self.training else 0.0)


class Unreached(nn.Module):
    """Layers of which only the first is called, and one whose function is called in another way than as a module."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Functional() for _ in range(2)])
        self.wrapped = nn.Sequential(nn.Sequential(nn.Linear(4, 4), Functional()), nn.Dropout(0.1))
        self.other, self.own, self.lstm = Functional(), Own(0.5), nn.LSTM(4, 4, 2, dropout=0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.other.forward(self.layers[0](x))


def test_what_the_example_does_not_reach_is_unseen_unless_its_class_tells() -> None:
    plan = wp.plan_convert_dropout(Unreached(), example=torch.ones(2, 4))
    assert paths(plan, "unseen") == {"layers.1", "wrapped.0.1"}
    assert paths(plan, "left") == {"layers.0", "other", "own", "lstm"}
    assert paths(plan, "swapped") == {"wrapped.1"}
    with pytest.warns() as caught:
        wp.convert_dropout(Unreached(), example=torch.ones(2, 4))
    left, unseen = (str(warning.message) for warning in caught)
    assert "layers.0: Functional draws" in left
    assert "layers.1: Functional was not called" in unseen


class Attention(nn.MultiheadAttention):
    """A class of its own that extends torch's."""


class Own(nn.Dropout):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def test_what_is_left_is_named_and_warned_of() -> None:
    hooked = nn.Dropout(0.5)
    hooked.register_forward_hook(lambda *_: None)
    before, after = nn.Dropout(0.5), nn.Dropout(0.5)
    before.register_forward_pre_hook(lambda *_: None)
    after.register_full_backward_hook(lambda *_: None)
    ahead = nn.Dropout(0.5)
    ahead.register_full_backward_pre_hook(lambda *_: None)
    model = nn.ModuleDict(
        {
            "attention": Attention(4, 2, dropout=0.1),
            "quiet": nn.MultiheadAttention(4, 2),
            "lstm": nn.LSTM(3, 3, 2, dropout=0.2),
            "hooked": hooked,
            "hooked before": before,
            "hooked after": after,
            "hooked ahead": ahead,
            "fine": nn.Dropout(0.1),
        }
    )
    with pytest.warns(UserWarning, match="left dropout as it is"):
        wp.convert_dropout(model)
    left = reasons(wp.plan_convert_dropout(model))
    hooks = ["hooked", "hooked after", "hooked ahead", "hooked before"]
    assert sorted(left) == ["attention", *hooks, "lstm"]
    assert isinstance(model["fine"], wp.Dropout)
    assert model["hooked"] is hooked


def test_dropout_that_is_called_as_a_function_is_found_by_running() -> None:
    model = nn.Sequential(nn.Linear(4, 4), Functional())
    assert len(wp.plan_convert_dropout(model)) == 0
    left = reasons(wp.plan_convert_dropout(model, example=torch.ones(2, 4)))
    assert list(left) == ["1"]
    assert "nn.functional.dropout(x, 0.5, self.training)" in left["1"]
    assert "scaled_dot_product_attention" in left["1"]
    with pytest.warns(UserWarning, match="left dropout as it is: 1: Functional draws at"):
        wp.convert_dropout(model, example=torch.ones(2, 4))


def test_a_subclass_with_its_own_forward_is_not_taken_for_its_parent() -> None:
    own = Own(0.5)
    model = nn.Sequential(own)
    with pytest.warns(UserWarning, match="0: Own is a class of its own"):
        wp.convert_dropout(model)
    assert model[0] is own


def test_a_lone_dropout_is_replaced() -> None:
    assert isinstance(wp.convert_dropout(nn.Dropout(0.3)), wp.Dropout)


def check(model: nn.Module, example: Any, swapped: set[str], left: dict[str, str] | None = None) -> None:
    """The right kinds are swapped and what is left is named; then no other mask than those is drawn, all of them keyed.

    ``left`` maps a path to a part of the reason.
    """

    def run() -> Tensor:
        output = model(**example) if isinstance(example, dict) else model(example)
        tensor: Tensor = output if isinstance(output, Tensor) else output[0]
        return tensor

    model.eval()
    before = run()
    plan = wp.plan_convert_dropout(model, example=example)
    assert kinds(plan) == swapped
    why = reasons(plan)
    assert why.keys() == (left or {}).keys()
    assert all(part in why[path] for path, part in (left or {}).items())
    wp.convert_dropout(model, example=example)
    assert torch.allclose(run(), before, atol=1e-5)
    for module in model.modules():
        if isinstance(module, Stochastic):
            module.train()
    state = torch.get_rng_state()
    outputs = []
    for step in (0, 0, 1):
        with wp.keyed(0, step):
            outputs.append(run())
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[0], before)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.filterwarnings("ignore")
def test_timms_transformers() -> None:
    timm = peer("timm")
    rates = ("drop_path_rate", "proj_drop_rate", "attn_drop_rate", "pos_drop_rate", "drop_rate", "patch_drop_rate")
    options = dict.fromkeys(rates, 0.3) | {"depth": 2, "embed_dim": 24, "num_heads": 2, "num_classes": 5}
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, **options)
    check(model, torch.ones(2, 3, 64, 64), {"Dropout", "DropPath", "TokenDropout", "Attention"})


@pytest.mark.filterwarnings("ignore")
def test_timms_convolutions() -> None:
    timm = peer("timm")
    options = {"drop_block_rate": 0.2, "drop_path_rate": 0.4, "zero_init_last": False}
    check(timm.create_model("resnet18", **options), torch.ones(4, 3, 64, 64), {"DropBlock2d", "DropPath"})
    layers = peer("timm.layers")
    block = wp.convert_dropout(nn.Sequential(layers.DropBlock2d(0.2, 3), layers.PatchDropout(0.5, num_prefix_tokens=1)))
    assert repr(block[0]) == "DropBlock2d(p=0.2, block_size=3, couple_channels=True)"
    assert repr(block[1]) == "TokenDropout(p=0.5, prefix=1)"


@pytest.mark.filterwarnings("ignore")
def test_what_timm_has_beyond_its_kin_is_found_only_by_running() -> None:
    patches = peer("timm.layers").PatchDropoutWithIndices(0.5)
    model = nn.Sequential(nn.Identity(), patches)
    assert reasons(wp.plan_convert_dropout(model)) == {}
    left = reasons(wp.plan_convert_dropout(model, example=torch.ones(2, 9, 4)))
    assert list(left) == ["1"]
    assert "torch.randn" in left["1"]


@pytest.mark.filterwarnings("ignore")
def test_torchvision() -> None:
    ops, models = peer("torchvision.ops"), peer("torchvision.models")
    model = nn.Sequential(ops.StochasticDepth(0.5, "row"), ops.StochasticDepth(0.2, "batch"), ops.DropBlock2d(0.3, 3))
    check(model, torch.ones(8, 3, 8, 8), {"DropPath", "DropBlock2d"})
    assert [repr(m) for m in model] == [
        "DropPath(p=0.5, mode='row')",
        "DropPath(p=0.2, mode='batch')",
        "DropBlock2d(p=0.3, block_size=3, couple_channels=False)",
    ]
    check(nn.Sequential(ops.DropBlock3d(0.3, 3)), torch.ones(8, 2, 4, 4, 4), {"DropBlock3d"})
    check(models.efficientnet_b0(num_classes=5), torch.ones(2, 3, 32, 32), {"Dropout", "DropPath"})
    vit = models.VisionTransformer(32, 16, 2, 2, 8, 16, dropout=0.1, attention_dropout=0.1, num_classes=5)
    nn.init.normal_(vit.heads[0].weight)
    check(vit, torch.ones(2, 3, 32, 32), {"Dropout", "MultiheadAttention"})


SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.mark.filterwarnings("ignore")
def test_transformers() -> None:
    transformers = peer("transformers")
    beit = transformers.BeitModel(transformers.BeitConfig(**SMALL, image_size=32, drop_path_rate=0.4))
    check(beit, torch.ones(4, 3, 32, 32), {"DropPath", "Dropout"})
    words = {"input_ids": torch.arange(12).reshape(2, 6)}
    options = {**SMALL, "vocab_size": 40, "attn_implementation": "eager"}
    check(
        transformers.BertModel(transformers.BertConfig(**options, attention_probs_dropout_prob=0.0)), words, {"Dropout"}
    )
    model = transformers.BertModel(transformers.BertConfig(**options))
    left = reasons(wp.plan_convert_dropout(model, example=words))
    assert list(left) == [f"encoder.layer.{layer}.attention.self" for layer in range(2)]
    assert all("nn.functional.dropout" in why for why in left.values())


def causal(config: str, model: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        transformers = peer("transformers")
        made: nn.Module = getattr(transformers, model)(
            getattr(transformers, config)(**TOKENS, **options, attn_implementation="eager")
        )
        return made

    return make


def timms(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        made: nn.Module = peer("timm").create_model(name, num_classes=5, **options)
        return made

    return make


def torchvisions(name: str, *sizes: Any, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        made: nn.Module = getattr(peer("torchvision.models"), name)(*sizes, num_classes=5, **options)
        return made

    return make


TOKENS: dict[str, Any] = {"vocab_size": 40, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "use_cache": False}
IDS, IMAGE = torch.arange(3, 15).reshape(2, 6), wp.random.normal((2, 3, 32, 32), wp.Key(0))
BOTH = {"input_ids": IDS, "decoder_input_ids": IDS}
HEARD = {"input_features": wp.random.normal((2, 8, 16), wp.Key(1)), "decoder_input_ids": IDS}
SPEECH = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "num_mel_bins": 8, "max_source_positions": 8}
HEADS = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
SWIN: dict[str, Any] = {"embed_dim": 12, "depths": (1, 1), "num_heads": (2, 2)}

# name -> how it is made, an example, the kinds that are swapped, and which of what is left the paths end in
MODELS: dict[str, tuple[Callable[[], nn.Module], Any, set[str], set[str]]] = {
    "timm swin": (
        timms(
            "swin_tiny_patch4_window7_224",
            img_size=32,
            window_size=4,
            drop_path_rate=0.3,
            proj_drop_rate=0.2,
            attn_drop_rate=0.2,
            drop_rate=0.2,
            **SWIN,
        ),
        IMAGE,
        {"Dropout", "DropPath"},
        set(),
    ),
    "timm densenet": (
        timms("densenet121", block_config=(1, 2), growth_rate=4, proj_drop_rate=0.2, drop_rate=0.2),
        IMAGE,
        {"Dropout"},
        {"denselayer1", "denselayer2"},
    ),
    "torchvision swin": (
        torchvisions(
            "SwinTransformer",
            [4, 4],
            12,
            [1, 1],
            [2, 2],
            [4, 4],
            dropout=0.2,
            attention_dropout=0.2,
            stochastic_depth_prob=0.3,
        ),
        IMAGE,
        {"Dropout", "DropPath"},
        {"attn"},
    ),
    "torchvision densenet": (
        torchvisions("DenseNet", 4, (1, 2), 8, drop_rate=0.2),
        IMAGE,
        set(),
        {"denselayer1", "denselayer2"},
    ),
    "gpt2": (
        causal("GPT2Config", "GPT2Model", n_embd=16, n_layer=2, n_head=2),
        {"input_ids": IDS},
        {"Dropout"},
        {"attn"},
    ),
    "llama": (
        causal("LlamaConfig", "LlamaModel", **SMALL, attention_dropout=0.2),
        {"input_ids": IDS},
        set(),
        {"self_attn"},
    ),
    "llama without": (causal("LlamaConfig", "LlamaModel", **SMALL), {"input_ids": IDS}, set(), set()),
    "whisper": (
        causal(
            "WhisperConfig",
            "WhisperModel",
            **SPEECH,
            **HEADS,
            dropout=0.2,
            encoder_layerdrop=0.5,
            decoder_layerdrop=0.5,
        ),
        HEARD,
        set(),
        {"encoder", "decoder", "0", "1"},
    ),
    "t5": (
        causal("T5Config", "T5Model", d_model=16, d_ff=32, num_layers=2, num_heads=2, d_kv=8),
        BOTH,
        {"Dropout"},
        {"SelfAttention", "EncDecAttention"},
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_models_from_small_configurations(name: str) -> None:
    """What classes tell, running finds too; outside training nothing changes; what is swapped is keyed."""
    make, example, swapped, left = MODELS[name]
    model = make().eval()
    told, ran = wp.plan_convert_dropout(model), wp.plan_convert_dropout(model, example=example)
    assert kinds(ran) == swapped
    assert {path.rpartition(".")[2] for path in paths(ran, "left", "unseen")} == left
    assert set(told) <= set(ran)

    def run() -> Tensor:
        output = model(**example) if isinstance(example, dict) else model(example)
        tensor: Tensor = output if isinstance(output, Tensor) else output[0]
        return tensor.detach()

    before = run()
    wp.convert_dropout(model)
    assert torch.allclose(run(), before, atol=1e-5)
    drops: list[Any] = [module.train() for module in model.modules() if isinstance(module, Stochastic)]
    outputs = []
    for step in (0, 0, 1):
        with wp.keyed(0, step):
            outputs.append(run())
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2]) != any(drop.p for drop in drops)
