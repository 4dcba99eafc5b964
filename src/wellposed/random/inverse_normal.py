"""The inverse normal distribution function: the constants that every backend evaluates, and exact truncation.

Everything here is computed on the host, once for each distribution. The backends' work on each element uses add,
subtract, multiply, divide and square root only, in one fixed order, so that every backend gives the same bits.

With x in (-1, 1) the centred uniform (x = 2F - 1) and t = 1 - |x| twice the smaller tail, the quantile is

    z = x R(l),    l = -log2(t (2 - t)),

where R(l) = z / x is smooth down to l = 0 and grows like the square root of l in the tails: no branch, no square root.

The constants are computed with ``decimal``, whose results are correctly rounded on every platform; the mathematics
library's ``erfc`` may differ in its last bit from one platform to the next.
"""

import decimal
import functools
from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple

# log2(1 + g) / g on [sqrt(1/2) - 1, sqrt(2) - 1], absolute error of the logarithm 5e-8 (weighted minimax fit).
LOG2 = (1.4426948, -0.72135663, 0.48093846, -0.36010385, 0.28672746, -0.24992351, 0.23674515, -0.14598998)
# R(l) = z / x for l in [0, 33.5], relative error 1.2e-8 (weighted minimax fit to scipy.special.ndtri_exp).
NUMERATOR = (1.2533141, 0.310315, 0.043814152, 0.004187615, 0.00026466438, 9.680853e-06, 2.2090322e-08)
DENOMINATOR = (1.0, 0.06612981, 0.016697804, 0.0007737197, 5.8098656e-05, 6.1574275e-07)

# float64: PPND16 of algorithm AS 241 (Wichura, 1988), relative error 1e-16. The centre in 0.180625 - (x/2)^2, then two
# tails in r = sqrt(-log(t/2)), less 1.6 for r <= 5 and less 5 beyond.
CENTRE = (
    (3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
     4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3),
    (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
     2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3),
)  # fmt: skip
TAIL = (
    (1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
     1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
     1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
)  # fmt: skip
FAR_TAIL = (
    (6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
     2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7),
    (1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
     7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15),
)  # fmt: skip
# log(1 + f) in float64, with s = f / (2 + f): the even series of (log(1 + s) - log(1 - s)) / s - 2 (fdlibm, Sun, 1993).
LOG = (
    6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01, 2.222219843214978396e-01,
    1.818357216161805012e-01, 1.531383769920937332e-01, 1.479819860511658591e-01,
)  # fmt: skip
ROOT_HALF_32, ROOT_HALF_64 = 0x3F3504F3, 0x3FE6A09E667F3BCD  # the bits of sqrt(1/2)
LN2 = 0.6931472  # in float32
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10

_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")
_CONTEXT = decimal.Context(prec=60, Emin=decimal.MIN_EMIN, Emax=decimal.MAX_EMAX)
_SERIES_UP_TO = 6  # where the Taylor series of Mills' ratio hands over to its continued fraction
_FRACTION_TERMS = 120
_STRAIGHT_FROM = 10_000  # beyond, P = 1 to 17 digits and its argument would be all rounding


class Straddling(NamedTuple):
    """Truncation to an interval around the mean: x = middle + half * x0, t = tail + half * t0 on either side."""

    middle: float
    half: float
    lower_tail: float
    upper_tail: float


class OneSided(NamedTuple):
    """Truncation to an interval on one side of the mean, by the excess over the interval's near end.

    With S the upper tail, near end alpha and far end beta, the excess d solves S(alpha + d) / S(alpha) = 1 - mass * u,
    mass = 1 - rest. For y = -log of the right side it is

        d = 2 / hazard * y / (1 + s) * P(scale * s + shift),    s = sqrt(1 + bend * y),

    P a Chebyshev sum. What stands before P has the right first two derivatives at y = 0, so the relative error stays
    small however small d is.
    """

    mass: float
    rest: float
    hazard: float
    bend: float
    scale: float
    shift: float
    series: tuple[float, ...]


@functools.lru_cache(maxsize=1024)
def straddling(alpha: float, beta: float) -> Straddling:
    """The constants for truncation to [alpha, beta], alpha < 0 < beta, in standard deviations."""
    with decimal.localcontext(_CONTEXT):
        lower, upper = _both_tails(Decimal(-alpha)), _both_tails(Decimal(beta))
        return Straddling(float((lower - upper) / 2), float(1 - (lower + upper) / 2), float(lower), float(upper))


@functools.lru_cache(maxsize=1024)
def one_sided(alpha: float, width: float, depth: int, degree: int) -> OneSided:
    """The constants for truncation to [alpha, alpha + width], alpha >= 0, in standard deviations.

    Args:
        alpha: The near end.
        width: How far beyond it the far end lies, perhaps infinitely far.
        depth: The largest y that a draw can need, -log of the smallest uniform.
        degree: The degree of the Chebyshev sum.
    """
    near = Decimal(alpha)
    with decimal.localcontext(_CONTEXT) as context:
        context.prec += 4 * max(0, near.adjusted())  # hazard - near is about 1 / near
        mills = _mills(near)
        far = near + Decimal(width)
        ratio = ((near - far) * (near + far) / 2).exp() * _mills(far) / mills if far.is_finite() else Decimal(0)
        hazard = 1 / mills
        bend = 2 * (hazard - near) / hazard
        top = (1 + bend * depth).sqrt()
        series = _chebyshev_series(lambda x: _correction(near, hazard, bend, (1 + top + x * (top - 1)) / 2), degree)
        scale, shift = 2 / (top - 1), -(top + 1) / (top - 1)
        if near > _STRAIGHT_FROM:
            scale = shift = Decimal(0)
        head = map(float, (1 - ratio, ratio, hazard, bend, scale, shift))
        return OneSided._make((*head, series))


def _correction(near: Decimal, hazard: Decimal, bend: Decimal, s: Decimal) -> Decimal:
    """The exact excess over 2 / hazard * y / (1 + s), by Newton's method on a convex function."""
    y = (s * s - 1) / bend
    log_mills = (1 / hazard).ln()
    guess = excess = 2 * y / (hazard * (1 + s))
    step = excess
    while abs(step) > abs(excess) * Decimal("1e-30"):
        mills = _mills(near + excess)
        step = (excess * (near + excess / 2) - mills.ln() + log_mills - y) * mills
        excess -= step
    return excess / guess


def _chebyshev_series(fn: Callable[[Decimal], Decimal], degree: int) -> tuple[float, ...]:
    """Coefficients c with fn(x) = sum of c_j T_j(x) at the degree + 1 Chebyshev nodes of [-1, 1]."""
    nodes = degree + 1
    angle = _PI / (2 * nodes)
    cosine = [Decimal(1), _cosine(angle)]  # cosine[m] = cos(m * angle), for a full turn
    while len(cosine) < 4 * nodes:
        cosine.append(2 * cosine[1] * cosine[-1] - cosine[-2])
    values = [fn(cosine[2 * k + 1]) for k in range(nodes)]
    sums = [sum(v * cosine[j * (2 * k + 1) % (4 * nodes)] for k, v in enumerate(values)) for j in range(nodes)]
    return tuple(float(total * (1 if j == 0 else 2) / nodes) for j, total in enumerate(sums))


def _cosine(angle: Decimal) -> Decimal:
    """The cosine of a small angle, by its Taylor series."""
    total = term = Decimal(1)
    k = 0
    while abs(term) > Decimal("1e-60"):
        k += 2
        term *= -angle * angle / (k * (k - 1))
        total += term
    return total


def _mills(z: Decimal) -> Decimal:
    """Mills' ratio S(z) / phi(z) for z >= 0, to about 40 digits."""
    if z < _SERIES_UP_TO:
        total = term = z
        k = 1
        while term > Decimal("1e-60"):
            k += 2
            term *= z * z / k
            total += term
        return (z * z / 2).exp() * (_PI / 2).sqrt() - total
    ratio = z
    for k in range(_FRACTION_TERMS, 0, -1):
        ratio = z + k / ratio
    return 1 / ratio


def _both_tails(z: Decimal) -> Decimal:
    """2 S(z), the mass beyond +-z of a standard normal variable, for z >= 0."""
    return (-z * z / 2).exp() * _mills(z) * (2 / _PI).sqrt() if z.is_finite() else Decimal(0)
