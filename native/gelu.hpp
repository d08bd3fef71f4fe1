// The exact (erf) GELU, x * Phi(x), and its slope, Phi(x) + x * phi(x), in one pass.
#pragma once

#include "vector.hpp"

namespace loso::LOSO_ISA {

inline void gelu(Vec<double> x, Vec<double>& value, Vec<double>& slope) {
  constexpr double sqrt_half = 0.70710678118654752440;
  constexpr double density_at_0 = 0.39894228040143267794;  // 1/sqrt(2 pi)
  for (int i = 0; i < lanes<double>; ++i) {
    const double cumulative = 0.5 * __builtin_erfc(-x[i] * sqrt_half);
    value[i] = x[i] * cumulative;
    slope[i] = cumulative + x[i] * density_at_0 * __builtin_exp(-0.5 * x[i] * x[i]);
  }
}

// With a = |x|, the tail Phi(-a) is exp(-a*a/2) times a polynomial in a. Its coefficients are the
// minimax fit of the product, absolute error 7e-8 (a linear programme over 0..14); so are those of
// 2**f on -0.5..0.5, relative error 8e-8. No division and no branch.
inline void gelu(Vec<float> x, Vec<float>& value, Vec<float>& slope) {
  using V = Vec<float>;
  using Bits = VectorOf<std::int32_t, lanes<float>>::Type;
  constexpr float beyond = 12.0F;  // the tail is under 1e-30 there
  constexpr float minus_half_log2_e = -0.72134752F;
  constexpr float density_at_0 = 0.39894228F;
  constexpr float to_integer = 12582912.0F + 127.0F;  // 1.5 * 2**23, and the exponent's bias

  const Bits sign = __builtin_bit_cast(Bits, x) & INT32_MIN;
  V a = __builtin_bit_cast(V, __builtin_bit_cast(Bits, x) & INT32_MAX);
  a = a < beyond ? a : spread(beyond);
  const V a2 = a * a;

  const V power = a2 * minus_half_log2_e;
  const V rounded = power + to_integer;  // its low bits hold the biased exponent
  const V f = power - (rounded - to_integer);
  const V f2 = f * f;
  const V fraction = (1.00000007F + 0.693146967F * f) +
                     f2 * ((0.240221197F + 0.0555071329F * f) +
                           f2 * (0.00967554116F + 0.00132764663F * f));
  const V bell = fraction * __builtin_bit_cast(V, __builtin_bit_cast(Bits, rounded) << 23);

  const V even = 0.499999932F + a2 * (0.249922428F + a2 * (0.0611964199F + a2 * (0.00797014113F + a2 * (0.000342834637F + a2 * 1.65499328e-06F))));
  const V odd = -0.398937053F + a2 * (-0.132535314F + a2 * (-0.0243598683F + a2 * (-0.00198725155F + a2 * -3.56227357e-05F)));
  const V half = 0.5F - bell * (even + a * odd);
  const V steep = half + a * (bell * density_at_0);
  value = x * (0.5F + __builtin_bit_cast(V, __builtin_bit_cast(Bits, half) ^ sign));
  slope = 0.5F + __builtin_bit_cast(V, __builtin_bit_cast(Bits, steep) ^ sign);
}

}  // namespace loso::LOSO_ISA
