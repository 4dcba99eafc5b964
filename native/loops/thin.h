// Dropout: reference.thin. Elements whose word is below the threshold become the floor, the others x * scale + shift.
#pragma once
#include "memory.h"
#include "philox.h"

constexpr i64 LONG_RUN = 1024;  // bytes of elements that share a word, from which on they are worth a loop of their own
constexpr i64 AHEAD = 2048;     // bytes: in a loop with so much arithmetic the processor does not foresee what it reads

struct Rule {  // which words keep their elements
    u32 limit, any;  // `any`: all bits, or none where the threshold is above every word
    INLINE bool drops(u32 word) const { return !(word >= limit && any); }
    INLINE i32s kept(u32s words) const { return (i32s)((u32s)(words >= limit) & any); }
};

template <class M> struct Scaled {
    typedef typename M::T T;
    typedef typename M::Number Number;
    typedef typename M::Mask Mask;
    static constexpr int PER = 1;
    const T* x;
    T* out;
    Rule rule;
    Number scale;
    INLINE Scaled from(i64 first) const { return {x + first, out + first, rule, scale}; }
    INLINE void ahead(i64 i) const {
        for (int at = 0; at < STEP * (int)sizeof(T); at += 64) __builtin_prefetch((const char*)(x + i) + AHEAD + at);
    }
    INLINE void operator()(i64 i, u32s words) const {
        M::write(out + i, (typename M::F)((Mask)(M::read(x + i) * scale) & convert<Mask>(rule.kept(words))));
    }
    INLINE void drop(i64 i, i64 count) const { memset(out + i, 0, sizeof(T) * count); }
};

template <class M> struct Floored {
    typedef typename M::T T;
    typedef typename M::Number Number;
    typedef typename M::F F;
    static constexpr int PER = 1;
    const T* x;
    T* out;
    Rule rule;
    Number scale, shift, floor;
    INLINE Floored from(i64 first) const { return {x + first, out + first, rule, scale, shift, floor}; }
    INLINE void ahead(i64) const {}
    INLINE void operator()(i64 i, u32s words) const {
        M::write(out + i, convert<typename M::Mask>(rule.kept(words)) ? M::read(x + i) * scale + shift : splat<F>(floor));
    }
    INLINE void drop(i64 i, i64 count) const {
        for (; count >= LANES; i += LANES, count -= LANES) M::write(out + i, splat<F>(floor));
        T some[LANES];
        M::write(some, splat<F>(floor));
        memcpy(out + i, some, sizeof(T) * count);
    }
};

// Elements that share their word in long runs: what is dropped is not read.
template <class Body> INLINE void runs(Layout where, i64 first, i64 last, Stream stream, Body body) {
    const i64 inner = where.sizes[where.rank - 1];
    u32 shared[CHUNK / 8 + LANES];
    const u32s kept = splat<u32s>(~0u);
    for (i64 i = first; i < last;) {
        i64 group = i / inner, groups = least((last - 1) / inner - group + 1, CHUNK / 8);
        layout_words(shared, group, groups, groups_of(where), 1, stream);
        for (i64 g = 0; g < groups; ++g) {
            i64 end = least((group + g + 1) * inner, last), count = end - i;
            if (body.rule.drops(shared[g])) body.drop(i, count);
            else if (count < LANES) {
                u32 words[LANES];
                store(words, kept);
                part(body, i, words, count);
            } else {
                for (i64 at = i; at + LANES <= end; at += LANES) body(at, kept);
                if (count % LANES) body(end - LANES, kept);  // some elements twice
            }
            i = end;
        }
    }
}

template <class Body> INLINE void thin_with(const Thin& t, i64 first, i64 last, Body body) {
    const Layout& where = t.where;
    const i64 size = sizeof(typename Body::T), inner = where.rank - 1;
    bool is_shared = where.rank > 0 && where.strides[inner] == 0;
    if (is_shared && where.sizes[inner] * size >= LONG_RUN) runs(where, first, last, t.stream, body);
    else run<false>(where, first, last, t.stream, body);
}

static void thin(const Thin& t, i64 first, i64 last) {
    for_float(t.dtype, [&](auto memory) {
        typedef decltype(memory) M;
        typedef typename M::T T;
        typedef typename M::Number Number;
        const T* x = (const T*)t.x;
        T* out = (T*)t.out;
        Rule rule = {(u32)t.threshold, t.threshold >> 32 ? 0u : ~0u};
        Number scale = (Number)t.scale;
        if (t.floor != 0 || t.shift != 0)
            thin_with(t, first, last, Floored<M>{x, out, rule, scale, (Number)t.shift, (Number)t.floor});
        else thin_with(t, first, last, Scaled<M>{x, out, rule, scale});
    });
}
