// Dropout of blocks of maps: corners are drawn and blocks painted into a map of bytes, then what is painted is cleared.
// blocks.clear_by_operators.
#pragma once
#include "memory.h"
#include "philox.h"

static i64 paint(const Paint& p, i64 first_map, i64 last_map) {
    const i64 d = p.side[0], h = p.side[1], w = p.side[2], bd = p.block[0], bh = p.block[1], bw = p.block[2];
    const i64 rows = h - bh + 1, columns = w - bw + 1, places = (d - bd + 1) * rows * columns, size = d * h * w;
    u32 corners[CHUNK + LANES];
    i64 count = 0;
    for (i64 i = first_map * places; i < last_map * places; i += count) {
        count = least(last_map * places - i, CHUNK);
        words(corners, (u64)(p.start + i), count, p.stream);
        for (i64 c = 0; c < count; ++c) {
            if (corners[c] >= p.threshold) continue;
            i64 place = (i + c) % places, plane = place / (rows * columns), row = place / columns % rows;
            u8* at = p.painted + (i + c) / places * size + (plane * h + row) * w + place % columns;
            for (i64 a = 0; a < bd; ++a)
                for (i64 b = 0; b < bh; ++b) memset(at + (a * h + b) * w, 1, bw);
        }
    }
    i64 painted = 0;
    for (i64 i = first_map * size; i < last_map * size; ++i) painted += p.painted[i];
    return painted;
}

template <class M, class T> INLINE void clear_step(const T* x, T* out, const u8* painted, typename M::Number scale) {
    i32s kept = convert<i32s>(load<u8s>(painted)) - 1;
    M::write(out, (typename M::F)((typename M::Mask)(M::read(x) * scale) & convert<typename M::Mask>(kept)));
}

template <class M, class T>
INLINE void clear_run(const T* x, T* out, const u8* painted, i64 count, typename M::Number scale) {
    for (i64 i = 0; i + LANES <= count; i += LANES) clear_step<M>(x + i, out + i, painted + i, scale);
    if (count % LANES == 0) return;
    if (count >= LANES) {  // some elements twice
        clear_step<M>(x + count - LANES, out + count - LANES, painted + count - LANES, scale);
        return;
    }
    T read[LANES] = {}, written[LANES];
    u8 bytes[LANES] = {};
    memcpy(read, x, sizeof(T) * count);
    memcpy(bytes, painted, count);
    clear_step<M>(read, written, bytes, scale);
    memcpy(out, written, sizeof(T) * count);
}

static void clear(const Clear& c, i64 first, i64 last) {
    for_float(c.dtype, [&](auto memory) {
        typedef decltype(memory) M;
        typedef typename M::T T;
        for (i64 i = first; i < last;) {
            i64 map = i / c.size, end = c.shared == 1 ? last : least(last, (map + 1) * c.size);
            const u8* painted = c.painted + map / c.shared * c.size + i % c.size;
            clear_run<M>((const T*)c.x + i, (T*)c.out + i, painted, end - i, (typename M::Number)c.scale);
            i = end;
        }
    });
}
