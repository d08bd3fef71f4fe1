// Vectors of the width that this instruction set has. Everything built once for each instruction
// set lives in a namespace named after it, so that the linker never merges two builds of a thing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#ifndef LOSO_ISA
#define LOSO_ISA portable
#endif

namespace loso::LOSO_ISA {

#if defined(__AVX512F__)
inline constexpr int vector_bytes = 64;
inline constexpr int registers = 32;
#elif defined(__AVX2__)
inline constexpr int vector_bytes = 32;
inline constexpr int registers = 16;
#else
inline constexpr int vector_bytes = 16;
#if defined(__aarch64__)
inline constexpr int registers = 32;
#else
inline constexpr int registers = 16;
#endif
#endif

template <class T>
inline constexpr int lanes = vector_bytes / static_cast<int>(sizeof(T));

template <class T, int N>
struct VectorOf {
  using Type __attribute__((vector_size(sizeof(T) * N))) = T;
};

template <class T>
using Vec = typename VectorOf<T, lanes<T>>::Type;

// As many 32-bit words as a vector has lanes.
template <class T>
using Words = typename VectorOf<std::uint32_t, lanes<T>>::Type;

template <class T>
inline Vec<T> load(const T* from) {
  Vec<T> v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

template <class T>
inline void store(T* to, Vec<T> v) {
  __builtin_memcpy(to, &v, sizeof v);
}

template <class T>
inline Vec<T> spread(T value) {
  return Vec<T>{} + value;
}

template <class T>
inline T sum_of(Vec<T> v) {
  T half[lanes<T>];
  store(half, v);
  for (int n = lanes<T> / 2; n > 0; n /= 2)
    for (int i = 0; i < n; ++i) half[i] += half[i + n];
  return half[0];
}

// Exchanges the off-diagonal halves of every square of 2 * Size x 2 * Size elements.
template <int Size, class V, std::size_t... I>
inline void exchange(V& upper, V& lower, std::index_sequence<I...>) {
  constexpr int n = sizeof...(I);
  const V left = __builtin_shufflevector(upper, lower, (I & Size ? n + I - Size : I)...);
  lower = __builtin_shufflevector(upper, lower, (I & Size ? n + I : I + Size)...);
  upper = left;
}

template <int Size, class T>
inline void transpose(Vec<T>* rows) {
#pragma GCC unroll 16
  for (int i = 0; i < lanes<T>; ++i)
    if ((i & Size) == 0)
      exchange<Size>(rows[i], rows[i + Size], std::make_index_sequence<lanes<T>>{});
  if constexpr (Size > 1) transpose<Size / 2, T>(rows);
}

// Transposes a square of as many vectors as a vector has lanes.
template <class T>
inline void transpose(Vec<T>* rows) {
  transpose<lanes<T> / 2, T>(rows);
}

constexpr int round_up(int value, int multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace loso::LOSO_ISA
