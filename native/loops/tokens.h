// Dropout of tokens: those of the smallest words stay, in order. structured._move_by_operators.
#pragma once
#include "philox.h"

// How many of a row's words, by their upper 24 bits, are below the `kept`th smallest, and that one itself.
INLINE i64 below_kept(const u32* words, i64 count, i64 kept, u32& limit) {
    limit = 0;
    i64 below = 0;
    for (int shift = 24; shift > 0; shift -= 8) {  // byte by byte: counted, none is put in order
        i64 counts[256] = {};
        for (i64 i = 0; i < count; ++i)
            if (shift == 24 || words[i] >> (shift + 8) == limit >> (shift + 8)) ++counts[words[i] >> shift & 0xFF];
        u32 byte = 0;
        while (below + counts[byte] < kept) below += counts[byte++];
        limit |= byte << shift;
    }
    return below;
}

static void move(const Move& m, i64 first_row, i64 last_row) {
    const i64 head = m.prefix * m.token_bytes;
    for (i64 row = first_row; row < last_row; ++row) {
        const u32* words = m.words + row * m.others;
        i64 whole = row * (m.prefix + m.others) * m.token_bytes, part = row * (m.prefix + m.kept) * m.token_bytes;
        const char* from = (const char*)m.x + (m.back ? part : whole);
        char* to = (char*)m.out + (m.back ? whole : part);
        memcpy(to, from, head);
        u32 limit;
        i64 ties = m.kept - below_kept(words, m.others, m.kept, limit);  // of equal words the first stay
        from += head;
        to += head;
        for (i64 i = 0; i < m.others; ++i) {
            u32 word = words[i] & ~0xFFu;
            bool stays = word < limit || (word == limit && ties-- > 0);
            if (stays) memcpy(to, from, m.token_bytes);
            else if (m.back) memset(to, 0, m.token_bytes);
            if (stays || !m.back) from += m.token_bytes;
            if (stays || m.back) to += m.token_bytes;
        }
    }
}
