// Fills: reference.fill_, one body for the values of a formula, one for Bernoulli's zeros and ones.
#pragma once
#include "formulas.h"
#include "memory.h"
#include "philox.h"

template <class M, class Formula> struct Values {
    typedef typename M::T T;
    typedef typename Real<typename Formula::Number>::U U;
    static constexpr int PER = sizeof(typename Formula::Number) / 4;
    const T* x;
    T* out;
    Formula formula;
    INLINE Values from(i64 first) const { return {x, out + first, formula}; }
    INLINE void ahead(i64) const {}
    INLINE void operator()(i64 i, u32s words) const { write(out + i, formula((U)words)); }
    INLINE static void write(T* at, f32s v) { M::write(at, v); }
    INLINE static void write(T* at, f64s v) { store(at, v); }
};

template <class M> struct Successes {
    typedef typename M::T T;
    static constexpr int PER = 1;
    const T* x;
    T* out;
    u32 limit, all;
    INLINE Successes from(i64 first) const { return {x, out + first, limit, all}; }
    INLINE void ahead(i64) const {}
    INLINE void operator()(i64 i, u32s words) const {
        i32s success = (i32s)((u32s)(words < limit) | all);
        store(out + i, convert<typename M::Bits>(success) & M::ONE);
    }
};

template <class Formula, class M> INLINE void fill_values(const Fill& f, i64 first, i64 last, Formula formula, M) {
    run<Formula::LONG>(f.where, first, last, f.stream, Values<M, Formula>{0, (typename M::T*)f.out, formula});
}

template <class T, class M> INLINE void fill_floats(const Fill& f, i64 first, i64 last, M memory) {
    const T* c = (const T*)f.constants;
    if (f.kind == UNIFORM) fill_values(f, first, last, Uniform<T>{c[0], c[1], c[2], c[3]}, memory);
    else if (f.kind == NORMAL) fill_values(f, first, last, Normal<T>{c[0], c[1]}, memory);
    else if (f.kind == STRADDLING)
        fill_values(f, first, last, Straddling<T>{c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]}, memory);
    else {
        const T* series = c + 9;
        i64 terms = f.constant_count - 9;
        OneSided<T> tail = {c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8], series, terms};
        fill_values(f, first, last, tail, memory);
    }
}

template <class M> INLINE void fill_successes(const Fill& f, i64 first, i64 last, M) {
    u64 threshold = (u64) * (const double*)f.constants;
    Successes<M> body = {0, (typename M::T*)f.out, (u32)threshold, threshold >> 32 ? ~0u : 0u};
    run<false>(f.where, first, last, f.stream, body);
}

static void fill(const Fill& f, i64 first, i64 last) {
    if (f.kind == BITS) run<false>(f.where, first, last, f.stream, Keep{0, (u32*)f.out});
    else if (f.kind == BERNOULLI) {
        if (f.dtype == BYTE) fill_successes(f, first, last, Byte{});
        else for_float(f.dtype, [&](auto memory) { fill_successes(f, first, last, memory); });
    } else if (f.dtype == FLOAT32) fill_floats<float>(f, first, last, Float32{});
    else if (f.dtype == FLOAT64) fill_floats<double>(f, first, last, Float64{});
    else if (f.dtype == BFLOAT16) fill_floats<float>(f, first, last, BFloat16{});
    else fill_floats<float>(f, first, last, Float16{});
}
