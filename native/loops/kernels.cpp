// All loops, compiled once for each instruction set into a namespace of its name.
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif
#include "../kernels.h"

#define STRING_OF(name) #name
#define STRING(name) STRING_OF(name)

namespace INSTRUCTION_SET {
#include "blocks.h"
#include "elastic.h"
#include "fill.h"
#include "thin.h"
#include "tokens.h"

extern const Kernels table;
const Kernels table = {STRING(INSTRUCTION_SET), fill, thin, paint, clear, move, elastic};
}  // namespace INSTRUCTION_SET
