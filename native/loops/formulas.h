// Words to values: reference.values, operation by operation. float32 takes a word an element, float64 two.
//
// Only operations that IEEE 754 rounds correctly, in the reference's order, with no fused multiply-add: the same bits
// on every processor. Where the reference branches, both sides are computed and one is selected.
#pragma once
#include "vector.h"

template <class T> struct Real;
template <> struct Real<float> {
    typedef f32s F;
    typedef i32s I;
    typedef u32s U;
    static constexpr int DIGITS = 23, UNIFORM_DIGITS = 24, BITS = 32;
    static constexpr i32 ROOT_HALF = 0x3F3504F3, LEAST = INT32_MIN;  // the bits of sqrt(1/2)
};
template <> struct Real<double> {
    typedef f64s F;
    typedef i64s I;
    typedef u64s U;
    static constexpr int DIGITS = 52, UNIFORM_DIGITS = 53, BITS = 64;
    static constexpr i64 ROOT_HALF = 0x3FE6A09E667F3BCD, LEAST = INT64_MIN;
};

// The constants of inverse_normal.py.
constexpr float LOG2[] = {1.4426948f,  -0.72135663f, 0.48093846f, -0.36010385f,
                          0.28672746f, -0.24992351f, 0.23674515f, -0.14598998f};
constexpr float NUMERATOR[] = {1.2533141f,     0.310315f,     0.043814152f, 0.004187615f,
                               0.00026466438f, 9.680853e-06f, 2.2090322e-08f};
constexpr float DENOMINATOR[] = {1.0f, 0.06612981f, 0.016697804f, 0.0007737197f, 5.8098656e-05f, 6.1574275e-07f};
constexpr float LN2 = 0.6931472f;
constexpr double LOG[] = {
    6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01, 2.222219843214978396e-01,
    1.818357216161805012e-01, 1.531383769920937332e-01, 1.479819860511658591e-01};
constexpr double LN2_HIGH = 6.93147180369123816490e-01, LN2_LOW = 1.90821492927058770002e-10;
constexpr double CENTRE_ABOVE[] = {
    3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
    4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3};
constexpr double CENTRE_BELOW[] = {
    1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
    2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3};
constexpr double TAIL_ABOVE[] = {
    1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
    1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4};
constexpr double TAIL_BELOW[] = {
    1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
    1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9};
constexpr double FAR_ABOVE[] = {
    6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
    2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7};
constexpr double FAR_BELOW[] = {
    1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
    7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15};

// The sum of c[k] * x^k, by Horner's rule.
template <class F, class T, int N> INLINE F polynomial(const T (&c)[N], F x) {
    F total = splat<F>(c[N - 1]);
#pragma GCC unroll 8
    for (int k = N - 2; k >= 0; --k) total = total * x + c[k];
    return total;
}

template <class F, class T> INLINE F clamp(F value, T bottom, T top) {
    F low = splat<F>(bottom), high = splat<F>(top);
    value = value < low ? low : value;
    return value > high ? high : value;
}

// The exponent e, and in place of x the fraction f, of x = 2^e (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)).
template <class T> INLINE typename Real<T>::F split(typename Real<T>::F& x) {
    typedef typename Real<T>::I I;
    typedef typename Real<T>::U U;
    typedef typename Real<T>::F F;
    U bits = (U)x;
    I exponent = (I)(bits - (U)splat<I>(Real<T>::ROOT_HALF)) >> Real<T>::DIGITS;
    x = (F)(bits - ((U)exponent << Real<T>::DIGITS)) - (T)1;
    return convert<F>(exponent);
}

INLINE f32s natural_log(f32s x) {
    f32s exponent = split<float>(x);
    return (exponent + x * polynomial(LOG2, x)) * LN2;
}
INLINE f64s natural_log(f64s x) {
    f64s exponent = split<double>(x), f = x;
    f64s s = f / (2.0 + f), z = s * s, half_square = 0.5 * f * f, series = z * polynomial(LOG, z);
    return exponent * LN2_HIGH - ((half_square - (s * (half_square + series) + exponent * LN2_LOW)) - f);
}

// The normal quantile of F = (1 + x) / 2, where 1 - |x| = t.
INLINE f32s quantile(f32s x, f32s t) {
    f32s g = t * (2.0f - t), exponent = split<float>(g), l = -(exponent + g * polynomial(LOG2, g));
    return x * (polynomial(NUMERATOR, l) / polynomial(DENOMINATOR, l));
}
INLINE f64s quantile(f64s x, f64s t) {
    f64s half = 0.5 * x, z = 0.180625 - half * half, r = root(-natural_log(0.5 * t)), near = r - 1.6, far = r - 5.0;
    i64s is_near = r <= 5.0, is_centre = (half < 0.0 ? -half : half) <= 0.425;
    f64s above = is_near ? polynomial(TAIL_ABOVE, near) : polynomial(FAR_ABOVE, far);
    f64s below = is_near ? polynomial(TAIL_BELOW, near) : polynomial(FAR_BELOW, far);
    above = is_centre ? polynomial(CENTRE_ABOVE, z) : above;
    below = is_centre ? polynomial(CENTRE_BELOW, z) : below;
    f64s ratio = above / below;
    return is_centre ? half * ratio : x < 0.0 ? -ratio : ratio;
}

// The centred uniform x in [-1, 1] of a word, and twice the smaller tail t in (0, 1].
template <class T> INLINE typename Real<T>::F centred(typename Real<T>::U word, typename Real<T>::F& t) {
    typedef typename Real<T>::I I;
    typedef typename Real<T>::F F;
    constexpr T unit = sizeof(T) == 4 ? (T)0x1p-31 : (T)0x1p-63;
    I s = (I)word, from_end = s ^ (s >> (Real<T>::BITS - 1)), from_centre = s ^ splat<I>(Real<T>::LEAST);
    t = (convert<F>(from_end) + (T)0.5) * unit;
    return (convert<F>(from_centre) + (T)0.5) * unit;
}

// One struct a distribution: its constants, and the value of a word.
template <class T> struct Uniform {
    typedef T Number;
    static constexpr bool LONG = false;
    T low, span, bottom, top;
    INLINE typename Real<T>::F operator()(typename Real<T>::U word) const {
        typedef typename Real<T>::F F;
        typedef typename Real<T>::I I;
        constexpr T unit = sizeof(T) == 4 ? (T)0x1p-24 : (T)0x1p-53;
        F u = convert<F>((I)(word >> (Real<T>::BITS - Real<T>::UNIFORM_DIGITS))) * unit;
        return clamp<F, T>(low + span * u, bottom, top);
    }
};

template <class T> struct Normal {
    typedef T Number;
    static constexpr bool LONG = true;
    T mean, std;
    INLINE typename Real<T>::F operator()(typename Real<T>::U word) const {
        typename Real<T>::F t, x = centred<T>(word, t);
        return mean + std * quantile(x, t);
    }
};

template <class T> struct Straddling {  // normal, truncated to an interval around its mean
    typedef T Number;
    static constexpr bool LONG = true;
    T mean, std, middle, half, lower_tail, upper_tail, bottom, top;
    INLINE typename Real<T>::F operator()(typename Real<T>::U word) const {
        typedef typename Real<T>::F F;
        F t, x0 = centred<T>(word, t), x = middle + half * x0;
        auto below = x < (T)0;
        t = (below == (x0 < (T)0)) ? t : (T)2 - t;
        t = (below ? splat<F>(lower_tail) : splat<F>(upper_tail)) + half * t;
        return clamp<F, T>(mean + std * quantile(x, t), bottom, top);
    }
};

template <class T> struct OneSided {  // normal, truncated to an interval beyond its mean
    typedef T Number;
    static constexpr bool LONG = true;
    T anchor, amplitude, mass, rest, bend, scale, shift, bottom, top;
    const T* series;
    i64 terms;
    INLINE typename Real<T>::F operator()(typename Real<T>::U word) const {
        typedef typename Real<T>::F F;
        typedef typename Real<T>::I I;
        F t, x = centred<T>(word, t), other = (T)2 - t;
        I lower = x < (T)0, near = amplitude > (T)0 ? lower : ~lower;
        F left = mass * ((T)0.5 * (near ? t : other));  // the part of the mass between the anchor and the value
        F right = rest + mass * ((T)0.5 * (near ? other : t));
        F y = -natural_log(right), gone = (T)1 - right;
        y = left < (T)0.5 ? (gone == (T)0 ? left : y * (left / gone)) : y;
        F s = root((T)1 + bend * y), z = clamp<F, T>(scale * s + shift, (T)-1, (T)1), upper = {}, lowered = {};
        for (i64 k = terms - 1; k > 0; --k) {  // the Chebyshev sum, by Clenshaw's rule
            F total = series[k] + ((z + z) * upper - lowered);
            lowered = upper;
            upper = total;
        }
        return clamp<F, T>(anchor + amplitude * (y / ((T)1 + s) * (series[0] + (z * upper - lowered))), bottom, top);
    }
};
