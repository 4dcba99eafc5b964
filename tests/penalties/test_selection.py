"""Which parameters a penalty acts on: roles, names and dimensions."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

import wellposed as wp
from peers import peer
from penalty_tools import network, state, step
from wellposed.penalties import L1, L2, PenaltyPlan, plan_regularize, regularize
from wellposed.penalties.optim.selection import Where

SGD = torch.optim.SGD


def plan(model: Any, penalty: Any = None, where: Any = "all", **options: Any) -> PenaltyPlan:
    """The plan for a model or for pairs of names and parameters."""
    parameters = model.parameters() if isinstance(model, nn.Module) else [p for _, p in model]
    return plan_regularize(SGD(parameters, lr=0.1), model, penalty or L1(0.1), where=where, **options)


def chosen(model: Any, where: Where | list[Where]) -> set[str]:
    return {row.name for row in plan(model, where=where) if row.penalty is not None}


class Everything(nn.Module):
    """A parameter of every role that torch's modules have, and some of a user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4, padding_idx=0)
        self.lstm = nn.LSTM(4, 3, proj_size=2)
        self.attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)
        self.convolution = nn.Conv1d(4, 4, 3, bias=False)
        self.norm = nn.LayerNorm((4, 2))
        self.activation = nn.PReLU(4)
        self.cls_token = nn.Parameter(torch.ones(1, 1, 4))
        self.pos_embed = nn.Parameter(torch.ones(1, 5, 4))
        self.query_tokens = nn.Parameter(torch.ones(3, 4))
        self.word_embeddings = nn.Parameter(torch.ones(9, 4))
        self.kernel = nn.Parameter(torch.ones(4, 4))
        self.kernel_bias = nn.Parameter(torch.ones(2, 4))
        self.mix = nn.Parameter(torch.ones(4))


ROLES = {
    "weights": {
        "lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.weight_hr_l0", "attention.in_proj_weight",
        "attention.out_proj.weight", "convolution.weight", "kernel",
    },
    "biases": {
        "lstm.bias_ih_l0", "lstm.bias_hh_l0", "attention.in_proj_bias", "attention.out_proj.bias", "kernel_bias",
    },
    "norms": {"norm.weight", "norm.bias"},
    "embeddings": {"table.weight", "word_embeddings"},
    "tokens": {"attention.bias_k", "attention.bias_v", "cls_token", "pos_embed", "query_tokens"},
}  # fmt: skip


@pytest.mark.parametrize("where", ROLES)
def test_a_role_selects_its_parameters_and_no_others(where: str) -> None:
    assert chosen(Everything(), where) == ROLES[where]


def test_all_are_all_the_roles_and_what_has_none() -> None:
    assert chosen(Everything(), "all") == set().union(*ROLES.values()) | {"activation.weight", "mix"}
    assert chosen(Everything(), ["biases", "norms"]) == ROLES["biases"] | ROLES["norms"]


def test_rows_say_what_a_parameter_is_and_how_that_is_known() -> None:
    rows = {row.name: row for row in plan(Everything(), where="weights")}
    assert {name: rows[name].role for name in ("lstm.weight_hh_l0", "lstm.bias_ih_l0", "table.weight", "mix")} == {
        "lstm.weight_hh_l0": "recurrent",
        "lstm.bias_ih_l0": "bias, forget",
        "table.weight": "embedding",
        "mix": "vector",
    }
    assert rows["activation.weight"].role == "slope"
    assert rows["kernel"].reason == "where='weights'; no role claims it: by its name and dimensions"
    assert rows["convolution.weight"].reason == "where='weights'"
    assert "not selected" in rows["pos_embed"].reason


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: parametrizations.weight_norm(nn.Linear(3, 2)), {"original0", "original1"}),
        (lambda: parametrizations.orthogonal(nn.Linear(3, 2)), {"original"}),
        (lambda: parametrizations.spectral_norm(nn.Linear(3, 2)), {"original"}),
        (lambda: weight_norm(nn.Linear(3, 2)), {"weight_g", "weight_v"}),
        (lambda: spectral_norm(nn.Linear(3, 2)), {"weight_orig"}),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_a_weight_is_computed_from_is_left_out_unless_named(make: Any, names: set[str]) -> None:
    model = nn.Sequential(make(), nn.Linear(2, 2))
    rows = {row.name: row for row in plan(model, where="all")}
    computing = {name for name, row in rows.items() if row.role == "parametrised"}
    assert {name.rpartition(".")[2] for name in computing} == names
    assert all(rows[name].penalty is None and "0.weight is computed from it" in rows[name].reason for name in computing)
    assert chosen(model, "weights") == {"1.weight"}
    one = min(computing)
    assert chosen(model, one) == {one}


class Raw(nn.Module):
    """Uses its parameters as tensors, some of them unlike what their dimensions suggest."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.ones(4, 6))
        self.queries = nn.Parameter(torch.ones(1, 3, 4))
        self.shift = nn.Parameter(torch.ones(1, 1, 4))
        self.stretch = nn.Parameter(torch.ones(1, 1, 4))
        self.unused = nn.Parameter(torch.ones(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.queries.expand(x.shape[0], -1, -1), x * self.stretch + self.shift], 1)
        out: torch.Tensor = x @ self.kernel
        return out


def test_parameters_without_a_row_go_by_how_they_are_used() -> None:
    rows = {row.name: (row.role, row.reason.partition("; ")[2]) for row in plan(Raw(), where="weights")}
    used, left = "by how it enters the forward pass", "no role claims it: by its name and dimensions"
    assert rows == {
        "kernel": ("weight", used),
        "queries": ("token", used),
        "shift": ("bias", used),
        "stretch": ("normalisation", used),
        "unused": ("weight", left),
    }
    assert chosen(Raw(), "weights") == {"kernel", "unused"}


@pytest.mark.parametrize("head_first", [False, True])
def test_a_table_that_is_an_output_layer_too_is_a_weight_and_an_embedding(head_first: bool) -> None:
    head, table = nn.Linear(4, 6, bias=False), nn.Embedding(6, 4)
    head.weight = table.weight
    model = nn.Sequential(*((head, table) if head_first else (table, head)))
    for where in ("weights", "embeddings"):
        assert chosen(model, where) == {"0.weight"}
    (row,) = plan(model)
    assert set(row.role.split(", ")) == {"embedding", "weight"}
    assert "multiplies signals too; tied: 1.weight" in row.reason


def test_pairs_have_names_and_dimensions_only() -> None:
    pairs = list(Everything().named_parameters())
    rows = {row.name: row for row in plan(pairs, where="weights")}
    assert all(row.reason.endswith("by its name and dimensions") for row in rows.values())
    assert {rows[name].role for name in ROLES["tokens"] - {"attention.bias_k", "attention.bias_v"}} == {"token"}
    assert {rows[name].role for name in ("kernel", "convolution.weight", "lstm.weight_ih_l0")} == {"weight"}
    assert rows["word_embeddings"].role == "embedding"
    assert rows["activation.weight"].role == rows["mix"].role == "vector"
    assert {rows[name].role for name in ROLES["biases"]} == {"bias"}
    names = ("token_embedding.weight", "head.weight")
    assert chosen([(name, nn.Parameter(torch.ones(2, 2))) for name in names], "weights") == {"head.weight"}


def test_a_glob_begins_at_any_part_of_a_name() -> None:
    assert chosen(nn.Linear(2, 2), "*.weight") == {"weight"}
    assert chosen(network(), "*.weight") == {"0.weight", "1.weight", "3.weight"}


def test_frozen_parameters_are_left_out_and_said() -> None:
    model = network()
    model[0].weight.requires_grad_(False)
    assert [row.reason for row in plan(model, where="weights") if row.name == "0.weight"] == [
        "frozen (requires_grad is False)"
    ]


def test_a_vision_transformers_weights_are_its_matrices() -> None:
    model = peer("timm").create_model("vit_tiny_patch16_224", img_size=32, depth=1)
    rows = {row.name: row for row in plan(model, where="weights")}
    assert {name for name, row in rows.items() if row.penalty is not None} == {
        "patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.0.attn.proj.weight", "blocks.0.mlp.fc1.weight",
        "blocks.0.mlp.fc2.weight", "head.weight",
    }  # fmt: skip
    assert rows["pos_embed"].role == rows["cls_token"].role == "token"
    assert rows["blocks.0.norm1.weight"].role == "normalisation"


CALLS: list[dict[str, Any]] = [
    {},
    {"penalty": {"*": L1(0.1), "3.*": None}},
    {"penalty": L2(0.3), "where": ["norms", "0.*"], "mode": "decoupled", "schedule": 0.5},
    {"penalty": L2(0.3), "mode": "gradient"},
    {"metric": "euclidean"},
]


@pytest.mark.parametrize("call", CALLS)
def test_a_plan_is_what_the_handle_would_have_and_touches_nothing(call: dict[str, Any]) -> None:
    arguments = {"penalty": L1(0.1)} | call
    model, counterpart = network(), network()
    ours, theirs = (SGD(m.parameters(), lr=0.1) for m in (model, counterpart))
    before = {name: dict(vars(ours))[name] for name in vars(ours)}
    kept = state(model)
    planned = plan_regularize(ours, model, **arguments)
    assert vars(ours) == before
    assert all(p.equal(kept[name]) for name, p in model.named_parameters())
    step(model, ours)
    step(counterpart, theirs)
    assert all(a.equal(b) for a, b in zip(model.parameters(), counterpart.parameters(), strict=True))
    assert planned == regularize(ours, model, **arguments).plan
    assert wp.plan_regularize is plan_regularize


@pytest.mark.parametrize(
    "call",
    [{"mode": "sideways"}, {"where": "decoder.*"}, {"penalty": 0.1}, {"schedule": -1.0}, {"penalty": {"*": None}}],
)
def test_a_plan_refuses_what_the_verb_refuses(call: dict[str, Any]) -> None:
    arguments = {"penalty": L1(0.1)} | call
    messages = []
    for verb in (plan_regularize, regularize):
        model = network()
        with pytest.raises(wp.WellposedError) as refusal:
            verb(SGD(model.parameters(), lr=0.1), model, **arguments)
        messages.append(str(refusal.value))
    assert messages[0] == messages[1]


def test_a_plan_sees_the_penalty_that_is_there() -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    regularize(optimizer, model, L1(0.1))
    with pytest.raises(wp.WellposedError, match="proximal penalty already"):
        plan_regularize(optimizer, model, L1(0.1))


def test_names_tell_biases_before_all_else() -> None:
    given = [(name, nn.Parameter(torch.ones(3, 2))) for name in ("relative_position_bias_table", "w")]
    assert [row.role for row in plan(given)] == ["bias", "weight"]
