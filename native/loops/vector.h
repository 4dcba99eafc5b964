// Vectors of the widest kind that the instruction set has, and what has to be said in its own words.
//
// Everything else is written with the compilers' vector extension, which is the same on all of them: loops that are
// left to be vectorised took twice the time.
#pragma once
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif
#include "../kernels.h"

#define INLINE inline __attribute__((always_inline))

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX2__)
#define BYTES 32
#else
#define BYTES 16
#endif
constexpr int LANES = BYTES / 4;  // a step of every loop is so many elements

#define VECTOR(type, count) __attribute__((vector_size(sizeof(type) * (count)))) type
typedef VECTOR(u8, LANES) u8s;
typedef VECTOR(u16, LANES) u16s;
typedef VECTOR(u32, LANES) u32s;
typedef VECTOR(i32, LANES) i32s;
typedef VECTOR(float, LANES) f32s;
typedef VECTOR(u64, LANES / 2) u64s;
typedef VECTOR(i64, LANES / 2) i64s;
typedef VECTOR(double, LANES / 2) f64s;

template <class V, class T> INLINE V load(const T* address) {
    V v;
    memcpy(&v, address, sizeof v);
    return v;
}
template <class V, class T> INLINE void store(T* address, V v) { memcpy(address, &v, sizeof v); }
template <class V, class T> INLINE V splat(T number) {
    auto element = V{}[0];  // of the type of the vector's elements
    element = number;
    return V{} + element;
}
template <class W, class V> INLINE W convert(V v) { return __builtin_convertvector(v, W); }

// widening: the products of the lower halves of 64-bit lanes. even, odd: of two vectors, interleaved, the 64-bit lanes
// with even numbers and those with odd ones. root: rounded correctly. half: float16 and back, to nearest, ties to even.
#if BYTES == 64
INLINE u64s widening(u64s a, u64s b) { return (u64s)_mm512_mul_epu32((__m512i)a, (__m512i)b); }
INLINE u32s even(u64s a, u64s b) { return (u32s)_mm512_unpacklo_epi64((__m512i)a, (__m512i)b); }
INLINE u32s odd(u64s a, u64s b) { return (u32s)_mm512_unpackhi_epi64((__m512i)a, (__m512i)b); }
INLINE f32s root(f32s v) { return (f32s)_mm512_sqrt_ps((__m512)v); }
INLINE f64s root(f64s v) { return (f64s)_mm512_sqrt_pd((__m512d)v); }
INLINE f32s from_half(u16s v) { return (f32s)_mm512_cvtph_ps((__m256i)v); }
INLINE u16s to_half(f32s v) { return (u16s)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
#elif BYTES == 32
INLINE u64s widening(u64s a, u64s b) { return (u64s)_mm256_mul_epu32((__m256i)a, (__m256i)b); }
INLINE u32s even(u64s a, u64s b) { return (u32s)_mm256_unpacklo_epi64((__m256i)a, (__m256i)b); }
INLINE u32s odd(u64s a, u64s b) { return (u32s)_mm256_unpackhi_epi64((__m256i)a, (__m256i)b); }
INLINE f32s root(f32s v) { return (f32s)_mm256_sqrt_ps((__m256)v); }
INLINE f64s root(f64s v) { return (f64s)_mm256_sqrt_pd((__m256d)v); }
INLINE f32s from_half(u16s v) { return (f32s)_mm256_cvtph_ps((__m128i)v); }
INLINE u16s to_half(f32s v) { return (u16s)_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT); }
#elif defined(__x86_64__)
INLINE u64s widening(u64s a, u64s b) { return (u64s)_mm_mul_epu32((__m128i)a, (__m128i)b); }
INLINE u32s even(u64s a, u64s b) { return (u32s)_mm_unpacklo_epi64((__m128i)a, (__m128i)b); }
INLINE u32s odd(u64s a, u64s b) { return (u32s)_mm_unpackhi_epi64((__m128i)a, (__m128i)b); }
INLINE f32s root(f32s v) { return (f32s)_mm_sqrt_ps((__m128)v); }
INLINE f64s root(f64s v) { return (f64s)_mm_sqrt_pd((__m128d)v); }
#elif defined(__aarch64__)
INLINE u64s widening(u64s a, u64s b) {
    return (u64s)vmull_u32(vmovn_u64((uint64x2_t)a), vmovn_u64((uint64x2_t)b));
}
INLINE u32s even(u64s a, u64s b) { return (u32s)vtrn1q_u64((uint64x2_t)a, (uint64x2_t)b); }
INLINE u32s odd(u64s a, u64s b) { return (u32s)vtrn2q_u64((uint64x2_t)a, (uint64x2_t)b); }
INLINE f32s root(f32s v) { return (f32s)vsqrtq_f32((float32x4_t)v); }
INLINE f64s root(f64s v) { return (f64s)vsqrtq_f64((float64x2_t)v); }
INLINE f32s from_half(u16s v) { return (f32s)vcvt_f32_f16((float16x4_t)v); }
INLINE u16s to_half(f32s v) { return (u16s)vcvt_f16_f32((float32x4_t)v); }
#else
INLINE u64s widening(u64s a, u64s b) { return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu); }
INLINE u32s even(u64s a, u64s b) { return (u32s)u64s{a[0], b[0]}; }
INLINE u32s odd(u64s a, u64s b) { return (u32s)u64s{a[1], b[1]}; }
INLINE f32s root(f32s v) {
    for (int i = 0; i < LANES; ++i) v[i] = __builtin_sqrtf(v[i]);
    return v;
}
INLINE f64s root(f64s v) {
    for (int i = 0; i < LANES / 2; ++i) v[i] = __builtin_sqrt(v[i]);
    return v;
}
#endif

#if BYTES == 16 && !defined(__aarch64__)
INLINE f32s from_half(u16s v) {
    u32s h = convert<u32s>(v), size = h & 0x7FFFu, quiet = (u32s)(size > 0x7C00u) & 0x00400000u;
    f32s small = convert<f32s>((i32s)size) * 0x1p-24f;
    u32s usual = (size << 13) + 0x38000000u, special = (size << 13) | 0x7F800000u | quiet;
    u32s bits = (i32s)size < 0x0400 ? (u32s)small : (i32s)size < 0x7C00 ? usual : special;
    return (f32s)(bits | (h & 0x8000u) << 16);
}
INLINE u16s to_half(f32s v) {
    u32s bits = (u32s)v, size = bits & 0x7FFFFFFFu;
    // Below 2^-14 float16 has the fixed unit 2^-24; with 0.5 added, float32 rounds at that very unit.
    u32s small = (u32s)((f32s)size + 0.5f) - 0x3F000000u;
    u32s usual = (size - 0x38000000u + 0xFFFu + ((size >> 13) & 1u)) >> 13;
    u32s large = (i32s)size > 0x7F800000 ? 0x7E00u | ((size >> 13) & 0x3FFu) : splat<u32s>(0x7C00u);
    u32s half = (i32s)size < 0x38800000 ? small : (i32s)size < 0x47800000 ? usual : large;
    return convert<u16s>(half | ((bits >> 16) & 0x8000u));
}
#endif
