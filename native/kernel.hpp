// The kernels that were built.
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

// Those that this machine runs, the fastest first.
std::vector<const Kernel*> kernels_here();

template <class T>
const Functions<T>& functions_of(const Kernel& kernel) {
  if constexpr (sizeof(T) == sizeof(float))
    return kernel.in_float;
  else
    return kernel.in_double;
}

}  // namespace loso
