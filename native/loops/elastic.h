// Elastic nets in one pass over weights: the prox, with a number or an adaptive optimizer's step sizes, and the
// gradient with the value. separable.py.
#pragma once
#include "formulas.h"
#include "memory.h"

constexpr int SUMS = 16;           // lanes that every instruction set adds up in, so that sums are the same on all
constexpr i64 SHORT_SUM = 4096;    // elements whose sum is taken in the weight's own precision

template <class T> struct Pack {  // SUMS numbers, in as many vectors as it takes
    typedef typename Real<T>::F F;
    typedef typename Real<T>::I I;
    static constexpr int VECTORS = SUMS * sizeof(T) / BYTES, EACH = SUMS / VECTORS;
};

// f(i) for each vector of w[0 ... count], and for the rest of it with memory of our own: `read` is 0 or as long.
template <class T, class F> INLINE void vectors(T* changed, const T* read, i64 count, F f) {
    typedef Pack<T> P;
    i64 i = 0;
    for (; i + SUMS <= count; i += SUMS)
        for (int v = 0; v < P::VECTORS; ++v) f(v, changed + i + v * P::EACH, read + i + v * P::EACH);
    if (i == count) return;
    T c[SUMS] = {}, r[SUMS] = {};
    memcpy(c, changed + i, sizeof(T) * (count - i));
    if (read != changed) memcpy(r, read + i, sizeof(T) * (count - i));
    for (int v = 0; v < P::VECTORS; ++v) f(v, c + v * P::EACH, r + v * P::EACH);
    memcpy(changed + i, c, sizeof(T) * (count - i));
}

template <class T> INLINE bool any(typename Real<T>::I mask) {
    i64 bits = 0;
    for (int i = 0; i < BYTES / 8; ++i) bits |= ((i64s)mask)[i];
    return bits != 0;
}

// x - clamp(x, -threshold, threshold): NaN if either is.
template <class F> INLINE F shrink(F x, F threshold) {
    F bounded = x <= threshold ? x : threshold;
    return x - (bounded < -threshold ? -threshold : bounded);
}

template <class T> INLINE bool prox_by_number(T* w, i64 count, const double* n) {
    typedef typename Real<T>::F F;
    typename Real<T>::I bad = {};
    const F threshold = splat<F>((T)n[0]);
    const T kept = (T)n[1];
    vectors(w, (const T*)w, count, [&](int, T* at, const T*) {
        F x = shrink(load<F>(at), threshold) * kept;
        bad |= x != x;
        store(at, x);
    });
    return any<T>(bad);
}

template <class T> INLINE bool prox_by_root(T* w, const T* second, i64 count, const double* n) {
    typedef typename Real<T>::F F;
    typename Real<T>::I bad = {};
    const T numerator = (T)n[0], scale = (T)n[1], eps = (T)n[2], l1 = (T)n[3], twice_l2 = (T)n[4];
    const bool squares = twice_l2 != 0;  // without them there is one division less
    vectors(w, second, count, [&](int, T* at, const T* of) {
        F step = numerator / (root(load<F>(of)) * scale + eps), x = shrink(load<F>(at), step * l1);
        if (squares) x = x / ((T)1 + step * twice_l2);
        bad |= x != x;
        store(at, x);
    });
    return any<T>(bad);
}

// Adds slope1 * sign(w) + slope2 * w to the gradient; l1 * |w| + l2 * w^2 is the value.
template <class T> INLINE bool accumulate(T* gradient, const T* w, i64 count, const double* n, double& value) {
    typedef typename Real<T>::F F;
    typedef typename Real<T>::I I;
    const T l1 = (T)n[0], l2 = (T)n[1], slope1 = (T)n[2], slope2 = (T)n[3];
    I bad = {};
    for (i64 first = 0; first < count; first += SHORT_SUM) {
        F sums[Pack<T>::VECTORS] = {}, squares[Pack<T>::VECTORS] = {};
        vectors(gradient + first, w + first, least(SHORT_SUM, count - first), [&](int v, T* at, const T* of) {
            F x = load<F>(of), sign = x > (T)0 ? splat<F>(slope1) : x < (T)0 ? splat<F>(-slope1) : x;
            sums[v] += x < (T)0 ? -x : x;
            squares[v] += x * x;
            F g = load<F>(at) + (sign + slope2 * x);
            bad |= g != g;
            store(at, g);
        });
        T s[SUMS], q[SUMS];
        memcpy(s, sums, sizeof s);
        memcpy(q, squares, sizeof q);
        for (int half = SUMS / 2; half > 0; half /= 2)
            for (int i = 0; i < half; ++i) {
                s[i] += s[i + half];
                q[i] += q[i + half];
            }
        value += (double)(l1 * s[0] + l2 * q[0]);
    }
    return any<T>(bad);
}

template <class T> INLINE bool pass_over(Pass pass, const Job& job, i64 first, i64 count, double& value) {
    T* changed = (T*)job.changed + first;
    const T* read = (const T*)job.read + first;
    if (pass == PROX_BY_NUMBER) return prox_by_number(changed, count, job.numbers);
    if (pass == PROX_BY_ROOT) return prox_by_root(changed, read, count, job.numbers);
    return accumulate(changed, read, count, job.numbers, value);
}

static void elastic(const Elastic& e, i64 first_piece, i64 last_piece) {
    const Job* job = e.jobs;
    for (i64 piece = first_piece; piece < last_piece; ++piece) {
        while (job + 1 < e.jobs + e.job_count && (job + 1)->pieces_before <= piece) ++job;
        i64 first = (piece - job->pieces_before) * PIECE, count = least(PIECE, job->count - first);
        double value = 0;
        bool bad = job->is_double ? pass_over<double>(e.pass, *job, first, count, value)
                                  : pass_over<float>(e.pass, *job, first, count, value);
        e.results[2 * piece] = value;
        e.results[2 * piece + 1] = bad;
    }
}
