"""What the parameters of peft's adapters are for, by the modules' names: peft is not imported.

An adapter starts as one that changes nothing: of the factors of its product one is 0, or a scale is 1.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from wellposed.models.fans import Axes
from wellposed.models.roles.registry import Part, Parts, role

_CLOSED, _ONE, _FACTOR = Part("fixed", start=0.0), Part("fixed", start=1.0), Part("weight")
_PRODUCT = {
    "lora_A": _FACTOR,
    "lora_B": _CLOSED,
    "lora_embedding_A": _CLOSED,
    "lora_embedding_B": _FACTOR,
}


@role("peft.tuners.lora.layer.LoraLayer")
def _low_rank(module: Any) -> Parts:
    return _of_adapters(module, _PRODUCT)


@role("peft.tuners.adalora.layer.AdaLoraLayer")
def _low_rank_with_singular_values(module: Any) -> Parts:
    return _of_adapters(module, _PRODUCT | {"lora_B": _FACTOR, "lora_E": _CLOSED})


@role("peft.tuners.ia3.layer.IA3Layer")
def _scaled(module: Any) -> Parts:
    return _of_adapters(module, {"ia3_l": _ONE})


@role("peft.tuners.loha.layer.LoHaLayer")
def _hadamard_product(module: Any) -> Parts:
    factor = Part("weight", Axes(out=1, in_=0))
    names = {"hada_w1_a": _FACTOR, "hada_w1_b": factor, "hada_w2_a": _FACTOR, "hada_w2_b": _CLOSED}
    return _of_adapters(module, names)


@role("peft.tuners.vera.layer.VeraLayer")
def _shared_random_factors(module: Any) -> Parts:
    return _of_adapters(module, {"vera_lambda_b": _CLOSED, "vera_lambda_d": Part("fixed", start=0.1)})


@role("peft.tuners.oft.layer.OFTLayer")
def _rotated(module: Any) -> Parts:
    return _of_adapters(module, {"oft_R": _CLOSED, "oft_embedding_R": _CLOSED})


@role("peft.tuners.boft.layer.BOFTLayer")
def _rotated_by_butterflies(module: Any) -> Parts:
    return _of_adapters(module, {"boft_R": _CLOSED, "boft_s": _ONE})


def _of_adapters(module: nn.Module, parts: Mapping[str, Part]) -> Parts:
    """The same part for each adapter of a layer, which keeps it as a parameter or in a module of its own."""
    found = {}
    for attribute, part in parts.items():
        for name, _ in getattr(module, attribute, nn.Module()).named_parameters():
            found[f"{attribute}.{name}"] = Part("bias") if name.endswith(".bias") else part
    return found
