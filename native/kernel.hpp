// The kernels that were built, the fastest first.
#pragma once

#include <vector>

#include "job.hpp"

namespace loso {

#if defined(LOSO_X86)
namespace avx512 {
extern const Kernel kernel;
}
namespace avx2 {
extern const Kernel kernel;
}
#endif
namespace portable {
extern const Kernel kernel;
}

}  // namespace loso
