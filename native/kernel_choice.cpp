// Asked from code that every machine runs: a kernel's own code may hold instructions that are not
// there.
#include "kernel.hpp"

namespace loso {

std::vector<const Kernel*> kernels_here() {
  std::vector<const Kernel*> kernels;
#if defined(LOSO_X86)
  const bool fma = __builtin_cpu_supports("fma");
  if (fma && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
    kernels.push_back(&avx512::kernel);
  if (fma && __builtin_cpu_supports("avx2")) kernels.push_back(&avx2::kernel);
#endif
  kernels.push_back(&portable::kernel);
  return kernels;
}

}  // namespace loso
