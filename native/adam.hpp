// Adam as torch.optim.Adam computes it: L2 penalty inside the gradient, both moments corrected for
// their bias, epsilon beside the square root.
#pragma once

#include "buffer.hpp"
#include "job.hpp"

namespace loso::LOSO_ISA {

template <class T>
class Adam {
 public:
  Adam(const Recipe& recipe, std::int64_t size)
      : recipe_(recipe), size_(size), mean_(size), square_(size) {}

  void step(const T* __restrict gradient, T* __restrict parameters) {
    power1_ *= recipe_.beta1;
    power2_ *= recipe_.beta2;
    const auto decay = static_cast<T>(recipe_.weight_decay);
    const auto rate = static_cast<T>(recipe_.lr / (1.0 - power1_));
    const auto root = static_cast<T>(1.0 / __builtin_sqrt(1.0 - power2_));
    const auto epsilon = static_cast<T>(recipe_.epsilon);
    const auto new1 = static_cast<T>(1.0 - recipe_.beta1);
    const auto old2 = static_cast<T>(recipe_.beta2);
    const auto new2 = static_cast<T>(1.0 - recipe_.beta2);
    T* __restrict mean = mean_.at(0);
    T* __restrict square = square_.at(0);
    for (std::int64_t i = 0; i < size_; ++i) {
      const T g = gradient[i] + decay * parameters[i];
      mean[i] += new1 * (g - mean[i]);
      square[i] = old2 * square[i] + new2 * (g * g);
      parameters[i] -= rate * (mean[i] / (square_root(square[i]) * root + epsilon));
    }
  }

 private:
  static float square_root(float x) { return __builtin_sqrtf(x); }
  static double square_root(double x) { return __builtin_sqrt(x); }

  Recipe recipe_;
  std::int64_t size_;
  Buffer<T> mean_;
  Buffer<T> square_;
  double power1_ = 1.0;
  double power2_ = 1.0;
};

}  // namespace loso::LOSO_ISA
