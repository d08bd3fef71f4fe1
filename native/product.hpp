// A panel of a matrix product: `rows` x `panel` sums over `depth` terms, held in registers.
#pragma once

#include "vector.hpp"

namespace loso::LOSO_ISA {

// Columns of a panel: two vectors. Matrices that are multiplied from the right are stored panel
// after panel, so that the innermost loop walks through memory without a jump.
template <class T>
inline constexpr int panel = 2 * lanes<T>;

// Two vectors of the panel, a broadcast, and the sums fill the registers.
inline constexpr int tile_rows = (registers - 4) / 2;

template <class T>
struct RowMajor {
  const T* data;
  std::ptrdiff_t stride;
  T at(std::ptrdiff_t row, std::ptrdiff_t term) const { return data[row * stride + term]; }
};

template <class T>
struct Transposed {
  const T* data;
  std::ptrdiff_t stride;
  T at(std::ptrdiff_t row, std::ptrdiff_t term) const { return data[term * stride + row]; }
};

template <class T>
struct FromZero {
  Vec<T> operator()(std::ptrdiff_t, int) const { return Vec<T>{}; }
};

template <int Rows, class T, class Left, class Start, class Finish>
inline void tile(std::ptrdiff_t row, int depth, const Left& left, const T* right,
                 std::ptrdiff_t stride, const Start& start, const Finish& finish) {
  Vec<T> sum[Rows][2];
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
    sum[r][0] = start(row + r, 0);
    sum[r][1] = start(row + r, lanes<T>);
  }
  for (int k = 0; k < depth; ++k) {
    const Vec<T> one = load(right + k * stride);
    const Vec<T> two = load(right + k * stride + lanes<T>);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
      const T factor = left.at(row + r, k);
      sum[r][0] += factor * one;
      sum[r][1] += factor * two;
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
    finish(row + r, 0, sum[r][0]);
    finish(row + r, lanes<T>, sum[r][1]);
  }
}

template <int Rows, class T, class Left, class Start, class Finish>
inline void tile_of(int height, std::ptrdiff_t row, int depth, const Left& left, const T* right,
                    std::ptrdiff_t stride, const Start& start, const Finish& finish) {
  if (height == Rows)
    tile<Rows>(row, depth, left, right, stride, start, finish);
  else if constexpr (Rows > 1)
    tile_of<Rows - 1>(height, row, depth, left, right, stride, start, finish);
}

// Calls finish(row, column, sums) with start(row, column) + sum over k of left(row, k) *
// right[k * stride + column], a vector of columns of the panel at a time.
template <class T, class Left, class Start, class Finish>
inline void product(int rows, int depth, const Left& left, const T* right, std::ptrdiff_t stride,
                    const Start& start, const Finish& finish) {
  // Tiles of nearly equal height: a low last one would wait for its few sums.
  const int tiles = (rows + tile_rows - 1) / tile_rows;
  const int low = rows / tiles;
  const int higher = rows % tiles;
  std::ptrdiff_t row = 0;
  for (int t = 0; t < tiles; ++t) {
    const int height = t < higher ? low + 1 : low;
    tile_of<tile_rows>(height, row, depth, left, right, stride, start, finish);
    row += height;
  }
}

}  // namespace loso::LOSO_ISA
