// What the loops are asked for: addresses, counts and numbers. Nothing here knows Python, tensors or threads.
//
// Each kernel works on a part of its elements, from `first` to `last`, so that several threads can share the rest; no
// value depends on how the work was divided. The truth that each must equal bit for bit is plain torch:
// src/wellposed/random/reference.py.
#pragma once
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t i32;
typedef int64_t i64;

enum Dtype { FLOAT32, FLOAT64, BFLOAT16, FLOAT16, BYTE, WORD };                // draw.CODES
enum Kind { BITS, UNIFORM, NORMAL, STRADDLING, ONE_SIDED, BERNOULLI };         // draw.Kind

// Philox4x32-10: the words of the key, and the upper half of every counter.
struct Stream {
    u32 key[2];
    u64 call;
};

// Which global index each element of a block has; box.Layout. Element (j_1, ..., j_n) of `sizes` has the index
// start + sum of j_d * strides[d]; with rank 0 the block is one run of indices.
struct Layout {
    i64 start, rank;
    const i64 *sizes, *strides;
};

struct Fill {  // reference.fill_
    void* out;
    Dtype dtype;
    Layout where;
    Stream stream;
    Kind kind;
    const void* constants;  // float, or double for FLOAT64; of a Bernoulli draw its threshold, a double
    i64 constant_count;
};

struct Thin {  // reference.thin
    const void* x;
    void* out;
    Dtype dtype;
    Layout where;
    Stream stream;
    u64 threshold;  // words below it drop their elements; 2^32 drops all
    double scale, shift, floor;  // -0 adds nothing, not even to the sign of a zero
};

struct Paint {  // blocks.clear_by_operators: where blocks lie
    u8* painted;  // zeroed, a byte an element
    i64 side[3], block[3];
    i64 start;  // the word of the first map's first corner
    Stream stream;
    u64 threshold;
};

struct Clear {  // blocks.clear_by_operators: what becomes of the elements
    const void* x;
    void* out;
    Dtype dtype;
    const u8* painted;
    i64 size, shared;  // the elements of a map; maps in a row that share their painted bytes
    double scale;
};

struct Move {  // structured._move_by_operators
    const void* x;
    void* out;
    const u32* words;  // of every token that may be left out
    i64 token_bytes, prefix, others, kept;
    bool back;  // tokens return to where they were taken from, and the rest is 0
};

enum Pass { PROX_BY_NUMBER, PROX_BY_ROOT, ACCUMULATE };

struct Job {  // separable.py; one tensor's part of a pass over many
    i64 pieces_before, count;
    void* changed;
    const void* read;
    i64 is_double;
    double numbers[5];
};

constexpr i64 PIECE = 1 << 18;  // elements of a job that are summed by themselves, whoever does it

struct Elastic {
    Pass pass;
    const Job* jobs;
    i64 job_count;
    double* results;  // for each piece the penalty's value and whether a NaN was met
};

struct Kernels {
    const char* name;
    void (*fill)(const Fill&, i64 first, i64 last);
    void (*thin)(const Thin&, i64 first, i64 last);
    i64 (*paint)(const Paint&, i64 first_map, i64 last_map);  // how many elements are painted
    void (*clear)(const Clear&, i64 first, i64 last);
    void (*move)(const Move&, i64 first_row, i64 last_row);
    void (*elastic)(const Elastic&, i64 first_piece, i64 last_piece);
};

const Kernels& kernels();  // the best that this processor runs
