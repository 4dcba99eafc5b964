"""The models of the census: a small variant of every family of timm, and every architecture of transformers, shrunken.

A configuration of transformers is shrunken by the names of its entries, its parts' configurations too, in several
degrees: the first that builds and runs counts, for what one architecture needs small another computes from the rest.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchmarks.peers import peer

BATCH, LENGTH, VOCABULARY = 4, 32, 1000
MOST = 60_000_000  # parameters of a model that is built at the smaller width
WIDTH = 64

Options = dict[str, Any]


@dataclass(frozen=True)
class Specimen:
    """A model of the census.

    Attributes:
        library: "timm" or "transformers".
        family: The module of timm, or the architecture of transformers.
        name: The variant, or the class.
        ways: How to build it at a width and what to give it, the smallest first.
        is_language: Whether its output is a distribution over the vocabulary for each place.
    """

    library: str
    family: str
    name: str
    ways: Callable[[int], "Iterator[tuple[Callable[[], nn.Module], Any]]"]
    is_language: bool = False


def specimens(library: str) -> list[Specimen]:
    """All models of a library, in an order that does not change."""
    return list({"timm": _pictures, "transformers": _architectures}[library]())


_SIZES = (
    "test atto femto pico nano xxs xxt xtiny tiny ti t0 m0 s0 b0 a0 f0 l0 xs mini small s  base b medium m large l "
    "huge h giant xl"
)
_RANKS = {word: rank for rank, word in enumerate(_SIZES.split(" "))}  # the empty word stands for no word of size


def _pictures() -> Iterator[Specimen]:
    timm = peer("timm")
    families: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in timm.list_models():
        module = timm.models.model_entrypoint(name).__module__.rpartition(".")[2]
        families[module, re.split(r"[\d_]", name)[0]].append(name)
    for (module, _), names in sorted(families.items()):
        yield _picture(timm, module, min(names, key=_size))


def _size(name: str) -> tuple[int, list[int], str]:
    """Where a variant stands among its family, by the words and the numbers of its name."""
    ranks = [_RANKS[word] for word in name.split("_") if word in _RANKS]
    return max(ranks, default=_RANKS[""]), [int(number) for number in re.findall(r"\d+", name)], name


def _picture(timm: Any, module: str, name: str) -> Specimen:
    def ways(_: int) -> Iterator[tuple[Callable[[], nn.Module], Any]]:
        size = timm.models.get_pretrained_cfg(name).input_size or (3, 224, 224)
        images = torch.randn(BATCH, *size, generator=torch.Generator().manual_seed(0))
        for options in ({}, {"depth": 2}):
            yield (lambda options=options: timm.create_model(name, **options)), images  # type: ignore[misc]

    return Specimen("timm", module, name, ways)


# Mappings of transformers from architectures to classes, the one whose head says most first.
_HEADS = (
    "SEQ_TO_SEQ_CAUSAL_LM",
    "SPEECH_SEQ_2_SEQ",
    "CAUSAL_LM",
    "MASKED_LM",
    "IMAGE_TEXT_TO_TEXT",
    "IMAGE_CLASSIFICATION",
    "OBJECT_DETECTION",
    "CTC",
    "AUDIO_CLASSIFICATION",
    "VIDEO_CLASSIFICATION",
    "SEMANTIC_SEGMENTATION",
    "UNIVERSAL_SEGMENTATION",
    "DEPTH_ESTIMATION",
    "PRETRAINING",
    "SEQUENCE_CLASSIFICATION",
)
_LANGUAGE = _HEADS[:4]


def _architectures() -> Iterator[Specimen]:
    transformers = peer("transformers")
    transformers.logging.set_verbosity_error()
    auto = transformers.models.auto.modeling_auto
    tables = [(head, getattr(auto, f"MODEL_FOR_{head}_MAPPING_NAMES", {})) for head in _HEADS]
    tables += [("", auto.MODEL_MAPPING_NAMES)]
    seen = set()
    for head, table in tables:
        for family, names in table.items():
            name = names[0] if isinstance(names, tuple | list) else names
            if family not in seen and hasattr(transformers, name):
                seen.add(family)
                yield Specimen("transformers", family, name, _ways(transformers, family, name), head in _LANGUAGE)


def _ways(transformers: Any, family: str, name: str) -> Callable[[int], Any]:
    cls, mapping = getattr(transformers, name), transformers.models.auto.configuration_auto.CONFIG_MAPPING

    def ways(width: int) -> Iterator[tuple[Callable[[], nn.Module], Any]]:
        for names in _DEGREES:
            options = _shrunken(mapping[family](), width, names)
            options |= {key: value(width) for key, value in _SPECIAL.get(family, {}).items()}
            try:
                config = mapping[family](**options)
            except Exception:  # some configurations look whether their entries fit together
                if not names:
                    raise
                continue
            for example in _inputs(config, cls):
                yield (lambda config=config: cls._from_config(config, attn_implementation="eager")), example  # type: ignore[misc]

    return ways


Size = Callable[[int], int]
_TOKEN = re.compile(r".*_token_(id|index)")
# Of the entries that are whole numbers: names, and what they become at a width where they are larger.
_LAYERS: dict[str, Size] = {
    r"num_hidden_layers|n_layers?|num_layers|(num_)?(en|de)coder_layers|num_(en|de)coder_layers|depth|layers": (
        lambda width: 2
    ),
    r"\w*vocab_size\w*": lambda width: VOCABULARY,
    r"\w*experts|n_routed_experts|moe_num_experts": lambda width: 4,
    r"(num_experts_per_tok|moe_topk|top_k|moe_k)": lambda width: 2,
    r"(image|input)_size|max_img_size": lambda width: 224,
}
_WIDTHS: dict[str, Size] = {
    r"(text_|vision_|audio_|(en|de)coder_|out_|cross_)?hidden_size|d_model|n_embd|dim": lambda width: width,
    r"(word_)?embed(ding)?_(dim|size)|word_embed_proj_dim|(text_)?projection_dim": lambda width: width,
    r"emb_dim|hidden_dim|attention_hidden_size|lru_width|bottleneck_size": lambda width: width,
    r"(moe_|shared_expert_|shared_|decoder_)?intermediate_size|((en|de)coder_)?ffn_dim|d_ff|mlp_dim|ffn_hidden_size": (
        lambda width: 2 * width
    ),
    r"(num_|n_|encoder_|decoder_|num_attention_)*(attention_)?heads?": lambda width: 4,
    r"head_dim|d_kv|v_head_dim|swa_head_dim|qk_nope_head_dim": lambda width: width // 4,
    r"qk_rope_head_dim|rotary_dim": lambda width: width // 8,
    r"num_key_value_heads": lambda width: 2,
    r"(kv|q)_lora_rank": lambda width: width // 2,
    r"mamba_(num|n)_heads": lambda width: 8,
    r"mamba_(head_dim|d_head)": lambda width: width // 4,
    r"linear_(key|value)_head_dim": lambda width: width // 4,
    r"linear_num_(key|value)_heads": lambda width: 4,
}
_DEGREES: tuple[dict[str, Size], ...] = (_LAYERS | _WIDTHS, _LAYERS, {})
# What some architectures need beside, by name.
_SPECIAL: dict[str, dict[str, Callable[[int], Any]]] = {
    "gpt_neo": {"attention_types": lambda width: [[["global", "local"], 1]]},
}


def _shrunken(config: Any, width: int, names: Mapping[str, Size]) -> Options:
    """What to build a configuration with instead of its defaults."""
    options: Options = {}
    tokens = iter(range(VOCABULARY - 1, 0, -1))
    for name, value in vars(config).items():
        if hasattr(value, "to_dict"):
            options[name] = _shrunken(value, width, names)
            if getattr(value, "model_type", ""):
                options[name]["model_type"] = value.model_type
        elif isinstance(value, bool) or not isinstance(value, int | list | tuple):
            continue
        elif isinstance(value, int):
            if _TOKEN.fullmatch(name) and names:
                options |= {name: next(tokens)} if value >= VOCABULARY - 100 else {}
                continue
            size = next((size(width) for pattern, size in names.items() if re.fullmatch(pattern, name)), value)
            if size < value or (size != value and width > WIDTH and names is _DEGREES[0]):
                options[name] = size
        elif name == "depths" and names:
            options[name] = type(value)(min(depth, 2) for depth in value)
    kinds = getattr(config, "layer_types", None) or []
    deepest = max((kinds.index(kind) + 1 for kind in set(map(str, kinds))), default=0) if kinds else 0
    if "num_hidden_layers" in options and 2 < deepest <= 8:
        options["num_hidden_layers"] = deepest  # a layer of each kind
    if "qk_rope_head_dim" in options and "head_dim" in options:
        options["head_dim"] = options["qk_rope_head_dim"]  # one number under two names
        options["num_key_value_heads"] = options.get("num_attention_heads", config.num_attention_heads)
    return options


def _inputs(config: Any, cls: Any) -> Iterator[Any]:
    """What the model may be given, by the name of its main input."""
    draw = torch.Generator().manual_seed(0)
    text = getattr(config, "get_text_config", lambda: config)()
    ids = torch.randint(10, VOCABULARY - 100, (BATCH, LENGTH), generator=draw)
    ids = ids % max(2, min(getattr(text, "vocab_size", None) or VOCABULARY, VOCABULARY))
    main = getattr(cls, "main_input_name", "input_ids")
    shapes: dict[str, list[tuple[int, ...]]] = {
        "pixel_values": _image_shapes(config),
        "pixel_values_videos": [(BATCH, 8, *shape[1:]) for shape in _image_shapes(config)],
        "input_values": [(BATCH, 16000), (BATCH, 1, 16000), (BATCH, 1024, 128)],
        "input_features": [
            (BATCH, getattr(config, "num_mel_bins", 80) or 80, 2 * (getattr(config, "max_source_positions", 64) or 64)),
            (BATCH, 128, getattr(config, "num_mel_bins", 80) or 80),
        ],
    }
    for shape in shapes.get(main, []):
        values = torch.randn(*shape, generator=draw)
        yield {main: values}
        yield {main: values, "decoder_input_ids": ids}
        yield {main: values, "input_ids": ids}
    if getattr(config, "is_encoder_decoder", False):
        yield {"input_ids": ids, "decoder_input_ids": ids}
    yield {"input_ids": ids}


def _image_shapes(config: Any) -> list[tuple[int, ...]]:
    parts = [config, getattr(config, "vision_config", None), getattr(config, "backbone_config", None)]
    size = next((size for part in parts if (size := getattr(part, "image_size", None))), 224)
    height, width = (size if isinstance(size, list | tuple) else (size, size))[:2]
    channels = next((count for part in parts if (count := getattr(part, "num_channels", None))), 3)
    return [(BATCH, channels, height, width)]
