// Randomness as a function of its address: bit for bit what loso/engine/counter.py gives, where
// the sources of the mixers stand.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "job.hpp"
#include "vector.hpp"

namespace loso::LOSO_ISA {

inline constexpr int block_size = 32;  // samples that are computed together
inline constexpr std::uint64_t golden = 0x9E3779B97F4A7C15;

enum class Purpose : std::uint64_t { weights = 1, order = 2, dropout = 3 };

inline std::uint64_t fold_in(std::uint64_t key, std::uint64_t word) {
  std::uint64_t z = key + (word + 1) * golden;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

inline std::uint64_t member_key(std::int64_t seed, std::int64_t fold, Purpose purpose) {
  std::uint64_t key = fold_in(0, static_cast<std::uint64_t>(seed));
  key = fold_in(key, static_cast<std::uint64_t>(fold));
  return fold_in(key, static_cast<std::uint64_t>(purpose));
}

// A keyed permutation of 0..size-1, asked for `count` places from `start` on, a block at a time.
class Order {
 public:
  Order(std::uint64_t key, std::uint32_t size) : size_(size) {
    const std::uint32_t domain = size < smallest_domain ? smallest_domain : size;
    const auto bits = static_cast<std::uint32_t>(std::bit_width(domain - 1));
    low_bits_ = bits / 2;
    high_bits_ = bits - low_bits_;
    for (std::uint64_t i = 0; i < rounds; ++i)
      round_key_[i] = static_cast<std::uint32_t>(fold_in(key, i) >> 32);
  }

  // Writes where positions start..start+count-1 go; count is at most `block_size`.
  void shuffled(std::uint32_t start, int count, std::uint32_t* place) const {
    std::uint32_t value[block_size];
    for (std::uint32_t i = 0; i < block_size; ++i) value[i] = start + i;
    for (int i = count; i < block_size; ++i) value[i] = 0;
    // Every lane takes each turn, so that the loops are vectors; lanes that are home stay there.
    std::uint32_t outside = 1;
    bool first = true;
    while (outside != 0) {
      std::uint32_t next[block_size];
      feistel(value, next);
      outside = 0;
      for (int i = 0; i < block_size; ++i) {
        value[i] = first || value[i] >= size_ ? next[i] : value[i];
        outside |= value[i] >= size_ ? 1U : 0U;
      }
      first = false;
    }
    for (int i = 0; i < count; ++i) place[i] = value[i];
  }

 private:
  static constexpr std::uint32_t smallest_domain = 64;
  static constexpr int rounds = 8;

  void feistel(const std::uint32_t* from, std::uint32_t* to) const {
    const std::uint32_t low_mask = (1U << low_bits_) - 1;
    std::uint32_t low[block_size];
    std::uint32_t high[block_size];
    for (int i = 0; i < block_size; ++i) {
      low[i] = from[i] & low_mask;
      high[i] = from[i] >> low_bits_;
    }
    for (int r = 0; r < rounds; r += 2) {
      for (int i = 0; i < block_size; ++i)
        low[i] ^= mix(high[i], round_key_[r]) >> (32 - low_bits_);
      for (int i = 0; i < block_size; ++i)
        high[i] ^= mix(low[i], round_key_[r + 1]) >> (32 - high_bits_);
    }
    for (int i = 0; i < block_size; ++i) to[i] = (high[i] << low_bits_) | low[i];
  }

  static std::uint32_t mix(std::uint32_t value, std::uint32_t key) {
    std::uint32_t x = value ^ key;
    x = (x ^ (x >> 16)) * 0x7FEB352D;
    x = (x ^ (x >> 15)) * 0x846CA68B;
    return x ^ (x >> 16);
  }

  std::uint32_t size_;
  std::uint32_t low_bits_;
  std::uint32_t high_bits_;
  std::uint32_t round_key_[rounds];
};

// What to multiply units with: 0 where they are dropped, 1 / (1 - dropout) where they are kept.
template <class T>
class Dropout {
 public:
  explicit Dropout(const Recipe& recipe)
      : any(recipe.dropout > 0.0),
        threshold_(static_cast<std::int32_t>(recipe.keep_threshold)),
        units_(static_cast<std::uint32_t>(recipe.shape.hidden)),
        scale_(static_cast<T>(1) / static_cast<T>(1.0 - recipe.dropout)) {}

  const bool any;

  // Writes `width` masks for each of two samples of a block of 32: a word's low half is for sample
  // `lane`, its high half for sample `lane + 16`.
  void masks(std::uint64_t key, int block, int lane, int width, T* low, T* high) const {
    const auto first =
        (static_cast<std::uint32_t>(block) * units_ * 16 + static_cast<std::uint32_t>(lane)) *
            stride +
        static_cast<std::uint32_t>(key);
    const auto key_high = static_cast<std::uint32_t>(key >> 32);
    Words<T> counter{};
    for (int i = 0; i < lanes<T>; ++i)
      counter[i] = first + 16 * stride * static_cast<std::uint32_t>(i);
    for (std::ptrdiff_t unit = 0; unit < width; unit += lanes<T>) {
      Words<T> x = counter;
      x = (x ^ (x >> 16)) * 0x7FEB352D;
      x = (x ^ (x >> 15) ^ key_high) * 0x846CA68B;
      x = x ^ (x >> 16);
      store(low + unit, mask(x & 0xFFFF));
      store(high + unit, mask(x >> 16));
      counter += 16 * stride * static_cast<std::uint32_t>(lanes<T>);
    }
  }

 private:
  static constexpr std::uint32_t stride = golden >> 32;

  Vec<T> mask(Words<T> bits) const {
    using Long = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
    using Longs = typename VectorOf<Long, lanes<T>>::Type;
    using Ints = typename VectorOf<std::int32_t, lanes<T>>::Type;
    const Ints kept = __builtin_bit_cast(Ints, bits) < threshold_;
    const Longs scale = __builtin_bit_cast(Longs, spread(scale_));
    return __builtin_bit_cast(Vec<T>, __builtin_convertvector(kept, Longs) & scale);
  }

  std::int32_t threshold_;
  std::uint32_t units_;
  T scale_;
};

}  // namespace loso::LOSO_ISA
