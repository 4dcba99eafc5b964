// How numbers lie in memory: one struct a dtype, its arithmetic in float32 but for float64. `ONE` are the bits of 1.
#pragma once
#include "vector.h"

// A vector of LANES float64 is two registers; their masks are made from those of as many words.
typedef VECTOR(double, LANES) f64pair;
typedef VECTOR(i64, LANES) i64pair;

struct Float32 {
    typedef float T;
    typedef float Number;
    typedef f32s F;
    typedef i32s Mask;
    typedef i32s Bits;
    static constexpr i32 ONE = 0x3F800000;
    INLINE static F read(const T* at) { return load<F>(at); }
    INLINE static void write(T* at, F v) { store(at, v); }
};

struct Float64 {
    typedef double T;
    typedef double Number;
    typedef f64pair F;
    typedef i64pair Mask;
    typedef i64pair Bits;
    static constexpr i64 ONE = 0x3FF0000000000000;
    INLINE static F read(const T* at) { return load<F>(at); }
    INLINE static void write(T* at, F v) { store(at, v); }
};

struct BFloat16 {
    typedef u16 T;
    typedef float Number;
    typedef f32s F;
    typedef i32s Mask;
    typedef u16s Bits;
    static constexpr u16 ONE = 0x3F80;
    INLINE static F read(const T* at) { return (f32s)(convert<u32s>(load<u16s>(at)) << 16); }
    INLINE static void write(T* at, F v) {  // to nearest, ties to even; a NaN must not round to infinity
        u32s bits = (u32s)v, rounded = bits + 0x7FFFu + ((bits >> 16) & 1u);
        store(at, convert<u16s>((v != v ? bits | 0x00400000u : rounded) >> 16));
    }
};

struct Float16 {
    typedef u16 T;
    typedef float Number;
    typedef f32s F;
    typedef i32s Mask;
    typedef u16s Bits;
    static constexpr u16 ONE = 0x3C00;
    INLINE static F read(const T* at) { return from_half(load<u16s>(at)); }
    INLINE static void write(T* at, F v) { store(at, to_half(v)); }
};

struct Byte {
    typedef u8 T;
    typedef u8s Bits;
    static constexpr u8 ONE = 1;
};

// f(memory) for the struct of a dtype that is scaled.
template <class F> INLINE void for_float(Dtype dtype, F f) {
    if (dtype == FLOAT32) f(Float32{});
    else if (dtype == FLOAT64) f(Float64{});
    else if (dtype == BFLOAT16) f(BFloat16{});
    else f(Float16{});
}
