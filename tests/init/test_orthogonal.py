"""Orthogonal, identity and sparse initializers: what makes them what they are."""

from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import wellposed as wp
from wellposed.init import Axes

KEY = wp.Key(7)
DOUBLE = torch.float64


def gram_error(rows: Tensor) -> float:
    return float((rows @ rows.mT - torch.eye(rows.shape[-2], dtype=rows.dtype)).abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1), (64, 64), (40, 64), (64, 40), (1, 50), (50, 1)])
def test_the_shorter_side_is_orthonormal(shape: tuple[int, int], dtype: torch.dtype) -> None:
    q = wp.init.Orthogonal()(shape, KEY, dtype=dtype)
    assert gram_error(q if shape[0] <= shape[1] else q.mT) < 30 * torch.finfo(dtype).eps


def test_as_close_to_orthogonal_as_torchs() -> None:
    torch.manual_seed(0)
    theirs = nn.init.orthogonal_(torch.empty(300, 300))
    assert gram_error(wp.init.Orthogonal()((300, 300), KEY)) <= 1.5 * gram_error(theirs)


READ_AS: list[tuple[tuple[int, ...], Axes, Any]] = [
    ((32, 16, 3, 3), Axes(), lambda w: w.reshape(32, -1)),
    ((8, 20, 30), Axes(out=1, in_=2, batch=0), lambda w: w),
    ((8, 30, 20), Axes(out=2, in_=1, batch=0), lambda w: w.mT),
    ((60, 40), Axes(groups=3), lambda w: w.view(3, 20, 40)),
    ((40, 60), Axes(out=1, in_=0, groups=3), lambda w: w.view(40, 3, 20).permute(1, 2, 0)),
    (
        (12, 8, 3),
        Axes(out=1, in_=0, groups=2, grouped=0),
        lambda w: w.view(2, 6, 8, 3).transpose(1, 2).reshape(2, 8, 18),
    ),
    ((4, 5, 30), Axes(out=(0, 1), in_=2), lambda w: w.reshape(20, 30)),
]


@pytest.mark.parametrize(("shape", "axes", "matrices"), READ_AS, ids=[f"{shape}-{axes}" for shape, axes, _ in READ_AS])
def test_each_matrix_of_a_weight_is_orthogonal(shape: tuple[int, ...], axes: Axes, matrices: Any) -> None:
    read = matrices(wp.init.Orthogonal(0.5)(shape, KEY, axes=axes, dtype=DOUBLE)) / 0.5
    assert gram_error(read) < 1e-14


def test_haar() -> None:
    """Entries of the first column squared are Beta(1/2, (n - 1)/2), and rotations by a fixed matrix change nothing."""
    n, copies = 3, 4000
    q = wp.init.Orthogonal()((copies, n, n), KEY, axes=Axes(out=1, in_=2, batch=0), dtype=DOUBLE)
    fixed = torch.linalg.qr(torch.arange(9.0, dtype=DOUBLE).view(3, 3).sin())[0]
    for sample in (q, fixed @ q, q @ fixed):
        for i in range(n):
            for j in range(n):
                assert stats.kstest(sample[:, i, j].square().numpy(), stats.beta(0.5, (n - 1) / 2).cdf).pvalue > 1e-5
                assert stats.binomtest(int((sample[:, i, j] > 0).sum()), copies).pvalue > 1e-5
    assert stats.binomtest(int((torch.linalg.det(q) > 0).sum()), copies).pvalue > 1e-5


def test_threads_do_not_matter_beyond_rounding() -> None:
    made = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        made.append(wp.init.Orthogonal()((200, 150), KEY, dtype=DOUBLE))
    torch.testing.assert_close(*made, rtol=0, atol=1e-13)


@pytest.mark.slow
def test_delta_orthogonal_keeps_norms_over_a_thousand_layers() -> None:
    x = wp.random.normal((1, 8, 4, 4), KEY.fold("x"), dtype=DOUBLE)
    y = x
    for layer in range(1000):
        kernel = wp.init.DeltaOrthogonal()((8, 8, 3, 3), KEY.fold(layer), dtype=DOUBLE)
        y = nn.functional.conv2d(y, kernel, padding=1)
    assert float(y.norm() / x.norm()) == pytest.approx(1, abs=1e-11)


def test_identity_hands_on() -> None:
    x = torch.arange(12.0).view(3, 4)
    assert torch.equal(nn.functional.linear(x, wp.init.Identity()((4, 4), KEY)), x)
    assert torch.equal(
        x @ wp.init.Identity(2.0)((4, 6), KEY, axes=Axes(out=1, in_=0)), nn.functional.pad(2 * x, (0, 2))
    )


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("shape", [(8, 4, 3), (8, 8, 3, 3), (8, 12, 2, 4), (8, 2, 3, 3, 3)])
def test_dirac_is_torchs(shape: tuple[int, ...], groups: int) -> None:
    theirs = nn.init.dirac_(torch.empty(shape), groups)
    assert torch.equal(wp.init.Dirac(groups)(shape, KEY), theirs)
    # Groups given by the axes are the same: each is a matrix of its own.
    assert torch.equal(wp.init.Dirac()(shape, KEY, axes=Axes(groups=groups)), theirs)


@pytest.mark.parametrize("window", ["hann", "hamming", None])
def test_the_fourier_kernels_are_torchs_transform(window: str | None) -> None:
    length, n = 12, 16
    x = wp.random.normal((2, 60), KEY, dtype=DOUBLE)
    values = torch.ones(length, dtype=DOUBLE)
    if window is not None:
        values = getattr(torch.signal.windows, window)(length, sym=False, dtype=DOUBLE)
    # Torch centres a window in a frame of n; ours starts the frame.
    frame = nn.functional.pad(values, (0, n - length))
    theirs = torch.stft(x, n, 4, window=frame, center=False, return_complex=True)
    kernels = [
        wp.init.STFT(side, window, None, True)((n // 2 + 1, 1, length), KEY, dtype=DOUBLE) for side in ("real", "imag")
    ]
    frames = theirs.shape[-1]
    real, imag = (nn.functional.conv1d(x[:, None], kernel, stride=4)[..., :frames] for kernel in kernels)
    torch.testing.assert_close(torch.complex(real, imag), theirs)


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.55, 1.0])
def test_sparse_has_as_many_zeros_in_each_column_as_torchs(sparsity: float) -> None:
    theirs = nn.init.sparse_(torch.empty(33, 20), sparsity)
    ours = wp.init.Sparse(sparsity)((33, 20), KEY)
    assert ((ours == 0).sum(0) == (theirs == 0).sum(0)).all()
    if 0 < sparsity < 1:
        rows = (wp.init.Sparse(sparsity)((33, 3000), KEY) == 0).double().mean(1)
        assert float(rows.std()) < 5 * (sparsity * (1 - sparsity) / 3000) ** 0.5


BAD: list[tuple[Any, tuple[int, ...], str]] = [
    (lambda: wp.init.Orthogonal(-1.0), (), "gain"),
    (lambda: wp.init.Identity(float("nan")), (), "gain"),
    (lambda: wp.init.Dirac(0), (), "groups"),
    (lambda: wp.init.Sparse(1.5), (), "sparsity"),
    (lambda: wp.init.Sparse(0.5, -1.0), (), "std"),
    (lambda: wp.init.Orthogonal(), (5,), "no dimension"),
    (lambda: wp.init.Identity(), (4, 4, 3), r"Dirac\(\)"),
    (lambda: wp.init.Dirac(), (4, 4), r"Identity\(\)"),
    (lambda: wp.init.Dirac(3), (4, 4, 3), "3 groups"),
    (lambda: wp.init.STFT("left"), (), "'real', 'imag'"),  # type: ignore[arg-type]
    (lambda: wp.init.STFT(window="round"), (), "'hann'"),
    (lambda: wp.init.STFT(), (4, 4), "one dimension"),
    (lambda: wp.init.STFT(), (1, 4, 4), "two outputs"),
    (lambda: wp.init.DeltaOrthogonal(), (4, 4), r"Orthogonal\(\)"),
    (lambda: wp.init.DeltaOrthogonal(), (4, 8, 3), r"Orthogonal\(\)"),
]


@pytest.mark.parametrize(("make", "shape", "message"), BAD)
def test_refused(make: Any, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(wp.WellposedError, match=message):
        make()(shape, KEY)
