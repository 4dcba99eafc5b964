// Threads: torch's own, by its C interface. The workers of a second team would wait for torch's, which keep their cores
// for a while after every operator: 30 times the time between two of them.
#pragma once
#include "kernels.h"

typedef i32 (*ParallelFor)(i64 begin, i64 end, i64 grain, void (*part)(i64 first, i64 last, void* data), void* data);
static ParallelFor parallel_for = nullptr;  // torch_parallel_for; without it there is one thread

constexpr i64 UNIT = 64;         // elements, of which threads take whole numbers: no two write to one cache line
constexpr i64 WORTH = 1 << 15;   // elements that are worth a thread

// f(first, last) over `count` things that are worth `elements` usual elements each; whether the threads could be had.
template <class F> static bool split(i64 count, i64 elements, const F& f) {
    i64 unit = elements >= UNIT ? 1 : UNIT, units = (count + unit - 1) / unit;
    i64 grain = WORTH / (unit * elements) > 0 ? WORTH / (unit * elements) : 1;
    if (!parallel_for || units < 2 * grain) {
        f(0, count);
        return true;
    }
    struct Work {
        const F* f;
        i64 count, unit;
    } work = {&f, count, unit};
    auto part = [](i64 first, i64 last, void* data) {
        const Work& w = *(const Work*)data;
        i64 end = last * w.unit;
        (*w.f)(first * w.unit, end < w.count ? end : w.count);
    };
    return parallel_for(0, units, grain, part, &work) == 0;
}
