// Words: Philox4x32-10 (Salmon et al., 2011), and the loops that hand them out. reference.philox, reference.words.
#pragma once
#include "vector.h"

constexpr int BLOCKS = LANES / 2;    // Philox blocks, one a 64-bit lane
constexpr int STEP = 2 * LANES;      // their words
constexpr int CHUNK = 4096;          // words that stay in the first-level cache

struct Words {
    u32s low, high;
};

// The numbers of the blocks of a step, in the order in which even() and odd() put their words in order.
INLINE u64s block_numbers(u64 first) {
    u64s v;
    for (int i = 0; i < BLOCKS; ++i) v[i] = first + (i & 1) * (BLOCKS / 2) + i / 2;
    return v;
}

// The words of the blocks with these numbers. The upper halves of b and d are noise, which nothing reads.
INLINE Words philox(u64s number, Stream stream) {
    const u64s m0 = splat<u64s>(0xD2511F53ull), m1 = splat<u64s>(0xCD9E8D57ull);
    u64s a = number, b = number >> 32;
    u64s c = splat<u64s>(stream.call & 0xFFFFFFFFull), d = splat<u64s>(stream.call >> 32);
    u32 k0 = stream.key[0], k1 = stream.key[1];
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
        u64s p = widening(a, m0), q = widening(c, m1);
        a = (q >> 32) ^ b ^ splat<u64s>((u64)k0);
        b = q;
        c = (p >> 32) ^ d ^ splat<u64s>((u64)k1);
        d = p;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    u64s ab = (a & 0xFFFFFFFFull) | b << 32, cd = (c & 0xFFFFFFFFull) | d << 32;
    return {even(ab, cd), odd(ab, cd)};
}

// A body is what a loop does to the elements at `i` with a vector of their words: body(i, words). It takes `PER` words
// an element and has the addresses `x` (0 where nothing is read) and `out`, of elements of type T; `from` moves them
// on, and `ahead` may ask for what a later step reads.

// The body for fewer words than a vector has: in memory of our own.
template <class Body> INLINE void part(Body body, i64 i, const u32* words, i64 count) {
    typedef typename Body::T T;
    T x[LANES] = {}, out[LANES];
    u32 padded[LANES] = {};
    memcpy(padded, words, 4 * count);
    i64 elements = count / Body::PER;
    if (body.x) memcpy(x, body.x + i, sizeof(T) * elements);
    T* target = body.out + i;
    body.x = x;
    body.out = out;
    body(0, load<u32s>(padded));
    memcpy(target, out, sizeof(T) * elements);
}

// The body for words in memory.
template <class Body> INLINE void over(const u32* words, i64 count, Body body) {
    i64 at = 0;
    for (; at + LANES <= count; at += LANES) body(at / Body::PER, load<u32s>(words + at));
    if (at < count) part(body, at / Body::PER, words + at, count - at);
}

// The body for `count` words of the stream from `first` on, as they are made.
template <class Body> INLINE void each(u64 first, i64 count, Stream stream, Body body) {
    u64s numbers = block_numbers(first >> 2);
    u32 some[STEP];
    i64 at = 0, skip = first & 3;
    if (skip) {  // the rest of a block
        Words w = philox(numbers, stream);
        store(some, w.low);
        at = count < 4 - skip ? count : 4 - skip;
        part(body, 0, some + skip, at);
        numbers += splat<u64s>((u64)1);
    }
    for (; at + STEP <= count; at += STEP, numbers += splat<u64s>((u64)BLOCKS)) {
        body.ahead(at / Body::PER);
        Words w = philox(numbers, stream);
        body(at / Body::PER, w.low);
        body((at + LANES) / Body::PER, w.high);
    }
    if (at < count) {
        Words w = philox(numbers, stream);
        store(some, w.low);
        store(some + LANES, w.high);
        over(some, count - at, body.from(at / Body::PER));
    }
}

struct Keep {  // words to memory
    typedef u32 T;
    static constexpr int PER = 1;
    const u32* x;
    u32* out;
    INLINE Keep from(i64 first) const { return {x, out + first}; }
    INLINE void ahead(i64) const {}
    INLINE void operator()(i64 i, u32s w) const { store(out + i, w); }
};

INLINE void words(u32* out, u64 first, i64 count, Stream stream) { each(first, count, stream, Keep{0, out}); }

INLINE i64 least(i64 a, i64 b) { return a < b ? a : b; }

// Of a layout whose innermost elements share their index, the layout of those that differ.
INLINE Layout groups_of(Layout where) {
    where.rank -= 1;
    if (where.rank == 1 && where.strides[0] == 1) where.rank = 0;
    return where;
}

// The words of elements first to first + count of a layout, `per` an element; may write LANES words too many.
static void layout_words(u32* out, i64 first, i64 count, Layout where, int per, Stream stream) {
    if (where.rank == 0) return words(out, (u64)(where.start + first) * per, count * per, stream);
    const i64 inner = where.sizes[where.rank - 1], step = where.strides[where.rank - 1];
    if (step == 0) {  // elements in a row share a word, as those of dropout do alone
        u32 shared[CHUNK / 8 + LANES];
        while (count > 0) {
            i64 group = first / inner, skip = first % inner, groups = least((skip + count - 1) / inner + 1, CHUNK / 8);
            layout_words(shared, group, groups, groups_of(where), per, stream);
            for (i64 g = 0; g < groups; ++g, skip = 0) {
                i64 length = least(inner - skip, count);
                for (i64 i = 0; i < length; i += LANES) store(out + i, splat<u32s>(shared[g]));
                out += length;
                first += length;
                count -= length;
            }
        }
        return;
    }
    while (count > 0) {
        i64 row = first / inner, column = first % inner, length = least(inner - column, count);
        i64 index = where.start + column * step;
        for (i64 d = where.rank - 2; d >= 0; row /= where.sizes[d--]) index += row % where.sizes[d] * where.strides[d];
        if (step == 1) words(out, (u64)index * per, length * per, stream);
        else
            for (i64 i = 0; i < length; ++i) words(out + per * i, (u64)(index + i * step) * per, per, stream);
        out += per * length;
        first += length;
        count -= length;
    }
}

// The body for elements first to last of a layout. Bodies of long arithmetic get their words from memory, since in one
// loop with their making the processor would wait for each vector's long chain.
template <bool LONG, class Body> INLINE void run(Layout where, i64 first, i64 last, Stream stream, Body body) {
    constexpr int PER = Body::PER;
    if (where.rank == 0 && !LONG)
        return each((u64)(where.start + first) * PER, (last - first) * PER, stream, body.from(first));
    alignas(64) u32 some[CHUNK + LANES];
    while (first < last) {
        i64 count = least(last - first, CHUNK / PER);
        layout_words(some, first, count, where, PER, stream);
        over(some, count * PER, body.from(first));
        first += count;
    }
}
