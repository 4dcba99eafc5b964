"""Operations by name, sorted by what they do to a signal: data for following one through a model."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# A weight's product with a signal, or two signals' with each other.
PRODUCTS = _words("""
    linear conv1d conv2d conv3d convolution conv_transpose1d conv_transpose2d conv_transpose3d matmul mm bmm addmm
    baddbmm addbmm einsum bilinear tensordot mv dot inner _grouped_mm grouped_mm _scaled_mm
""")
NORMS = _words("""
    layer_norm native_layer_norm batch_norm _native_batch_norm_legit group_norm native_group_norm instance_norm rms_norm
    local_response_norm normalize
""")
ATTENTION = _words("""
    scaled_dot_product_attention softmax _softmax log_softmax softmin gumbel_softmax cumsum cumprod topk sort argmax
""")
SUMS = _words("add sub rsub")
MULTIPLICATIONS = _words("mul div multiply")
MERGES = _words("""
    cat concat concatenate stack hstack vstack where lerp index_add index_put scatter maximum minimum setitem
    index_copy masked_scatter
""")
REDUCTIONS = _words("mean sum amax amin max min var std norm var_mean std_mean prod median logsumexp")
# Elements stay where they are, with what they hold.
STILL = _words("""
    contiguous clone detach to type_as type float half bfloat16 double cpu cuda dropout native_dropout identity _to_copy
    alias copy masked_fill alpha_dropout feature_alpha_dropout dropout1d dropout2d dropout3d feature_dropout drop_path
    checkpoint
""")
SPLITS = _words("chunk split split_with_sizes tensor_split unbind unsafe_split unsafe_chunk")
# Elements are moved about, or averaged with their neighbours; what comes out is read as what went in.
MOVES = STILL | _words("""
    view reshape flatten unflatten permute transpose t movedim moveaxis swapaxes expand expand_as repeat
    repeat_interleave squeeze unsqueeze chunk split split_with_sizes tensor_split unbind unsafe_split unsafe_chunk
    narrow select slice getitem index_select index gather take roll flip pad constant_pad_nd unfold fold pixel_shuffle
    pixel_unshuffle channel_shuffle interpolate upsample grid_sample max_pool1d max_pool2d max_pool3d
    max_pool2d_with_indices avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d getattr get view_as reshape_as
    ravel as_strided real view_as_complex view_as_real T mT H numpy_T
""")
# What these give is no longer the signal.
NOT_TENSORS = _words("""
    size shape dim ndim len numel nelement stride item tolist ndimension is_floating_point zeros_like empty_like
    ones_like full_like rand_like randn_like new_zeros new_ones new_empty new_full new_tensor
""")
VIEWS = _words("T mT H data")
# What these give may lie in the memory of their first argument, or in a part of it.
PARTS = SPLITS | _words("narrow select slice getitem as_strided diagonal")
ALIASES = PARTS | _words("""
    view reshape flatten unflatten permute transpose t movedim moveaxis swapaxes expand expand_as squeeze unsqueeze
    view_as reshape_as ravel detach alias contiguous getattr identity view_as_real view_as_complex T mT H
    numpy_T dropout
""")
IN_PLACE = _words("setitem iadd isub imul itruediv ipow imatmul")
SOFTMAXES = _words("softmax _softmax log_softmax softmin gumbel_softmax")


def plain_name(name: str) -> str:
    """An operation's name as the tables have it: ``__iadd__``, ``add_`` and ``add`` are one.

    Example:
        >>> plain_name("__iadd__"), plain_name("relu_"), plain_name("_softmax")
        ('add', 'relu', '_softmax')
    """
    if name.startswith("__") and name.endswith("__"):
        name = name[2:-2]
        for stem in ("add", "sub", "mul", "truediv", "matmul"):
            if name in (f"i{stem}", f"r{stem}"):
                name = stem
    elif not name.startswith("_"):
        name = name.rstrip("_")
    return {"truediv": "div", "true_divide": "div", "divide": "div"}.get(name, name)


def torch_name(fn: object) -> str:
    """The name of a torch function, method or operator.

    Example:
        >>> import torch
        >>> torch_name(torch.relu), torch_name(torch.ops.aten.gelu.default)
        ('relu', 'gelu')
    """
    fn = getattr(fn, "overloadpacket", fn)
    return str(getattr(fn, "__name__", type(fn).__name__))
