// Which instruction set's loops this processor runs: asked of the processor itself, once, since not every compiler's
// runtime can tell.
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include "kernels.h"

namespace baseline { extern const Kernels table; }
#if defined(__x86_64__)
namespace v3 { extern const Kernels table; }
namespace v4 { extern const Kernels table; }

// The level of x86-64 (System V psABI): 4, 3, or 1 for what all have. Registers count if the system saves them, too.
static int level() {
    unsigned a, b, c, d, saved, high;
    const unsigned fma = 1u << 12, movbe = 1u << 22, osxsave = 1u << 27, avx = 1u << 28, f16c = 1u << 29;
    const unsigned first = fma | movbe | osxsave | avx | f16c;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & first) != first) return 1;
    __asm__("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
    const unsigned bmi = 1u << 3, avx2 = 1u << 5, bmi2 = 1u << 8;
    const unsigned avx512 = 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31;  // F, DQ, CD, BW, VL
    if ((saved & 0x06) != 0x06 || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 1;
    if ((b & (bmi | avx2 | bmi2)) != (bmi | avx2 | bmi2)) return 1;
    unsigned more, lzcnt = 1u << 5;
    if (!__get_cpuid(0x80000001, &a, &more, &c, &d) || !(c & lzcnt)) return 1;
    return (saved & 0xE6) == 0xE6 && (b & avx512) == avx512 ? 4 : 3;
}
#endif

static const Kernels& choose() {
#if defined(__x86_64__)
    const char* most = getenv("WELLPOSED_INSTRUCTION_SET");  // so that tests reach each that the machine has
    int best = level();
    if (most && strcmp(most, "v3") == 0 && best > 3) best = 3;
    if (most && strcmp(most, "baseline") == 0) best = 1;
    if (best == 4) return v4::table;
    if (best == 3) return v3::table;
#endif
    return baseline::table;
}

const Kernels& kernels() {
    static const Kernels* chosen = nullptr;  // threads that come together choose the same
    if (!chosen) chosen = &choose();
    return *chosen;
}
