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

// With a = |x|, the tail Phi(-a) is the density phi(a) times Mills' ratio. Both are polynomials
// here, minimax fits by linear programming: the ratio's error, times the density, is under 9e-8 for
// any a; that of 2**f, |f| <= 1/2, in the density under 8e-8 of its value. No division, no branch.
inline void gelu(Vec<float> x, Vec<float>& value, Vec<float>& slope) {
  using V = Vec<float>;
  using Bits = VectorOf<std::int32_t, lanes<float>>::Type;
  constexpr std::int32_t beyond = 0x41400000;  // bits of 12.0F: the tail is under 1e-30 there
  constexpr float half_log2_e = 0.72134752F;
  constexpr float to_integer = 12582912.0F + 127.0F;  // 1.5 * 2**23, and the exponent's bias

  const Bits sign = __builtin_bit_cast(Bits, x) & INT32_MIN;
  const Bits magnitude = __builtin_bit_cast(Bits, x) & INT32_MAX;
  // Floats that are not negative are in the order of their bits.
  const V a = __builtin_bit_cast(V, magnitude < beyond ? magnitude : Bits{} + beyond);
  const V a2 = a * a;

  const V power = -half_log2_e * a2;
  const V rounded = power + to_integer;  // its low bits hold the biased exponent
  const V f = power - (rounded - to_integer);
  const V f2 = f * f;
  const V fraction =
      (0.398942309F + 0.276525632F * f) +
      f2 * ((0.0958343922F + 0.0221441422F * f) + f2 * (0.00385998245F + 0.000529654374F * f));
  const V density = fraction * __builtin_bit_cast(V, __builtin_bit_cast(Bits, rounded) << 23);

  const V even = 1.25331393F +
                 a2 * (0.626503448F +
                       a2 * (0.153847246F +
                             a2 * (0.020370254F + a2 * (0.000902395988F + a2 * 4.49007419e-06F))));
  const V odd =
      -0.999988977F +
      a2 * (-0.332418345F + a2 * (-0.0616091866F + a2 * (-0.0051503324F + a2 * -9.52332512e-05F)));
  const V half = 0.5F - density * (even + a * odd);
  const V steep = half + a * density;
  value = 0.5F * x + __builtin_bit_cast(V, magnitude) * half;
  slope = 0.5F + __builtin_bit_cast(V, __builtin_bit_cast(Bits, steep) ^ sign);
}

}  // namespace loso::LOSO_ISA
