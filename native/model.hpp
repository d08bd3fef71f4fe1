// One network: the loss of a block of samples, its gradient, and a step along it.
#pragma once

#include "adam.hpp"
#include "buffer.hpp"
#include "counter.hpp"
#include "gelu.hpp"
#include "layout.hpp"

namespace loso::LOSO_ISA {

inline constexpr int block_size = 32;  // samples at once, and a block of dropout bits

// Rows of activations stand an odd number of cache lines apart, so that a column of them does not
// fall into a few sets of the cache.
template <class T>
constexpr std::ptrdiff_t row_stride(int width) {
  constexpr int line = 64 / static_cast<int>(sizeof(T));
  return std::ptrdiff_t{(round_up(width, line) / line) | 1} * line;
}

template <class T>
class Model {
 public:
  Model(const Recipe& recipe, const T* natural)
      : recipe_(recipe),
        layout_(recipe.shape),
        stride_(row_stride<T>(layout_.width())),
        input_stride_(row_stride<T>(recipe.shape.inputs)),
        parameters_(layout_.size()),
        gradient_(layout_.size()),
        turned_(std::int64_t{recipe.shape.depth - 1} * turned_size()),
        inputs_(block_size * input_stride_),
        outputs_(recipe.shape.depth * block_size * stride_),
        slopes_(recipe.shape.depth * block_size * stride_),
        adam_(recipe, layout_.size()) {
    layout_.each([&](std::int64_t i, std::int64_t place) { *parameters_.at(place) = natural[i]; });
  }

  void copy_parameters(T* natural) const {
    layout_.each([&](std::int64_t i, std::int64_t place) { natural[i] = *parameters_.at(place); });
  }
  void copy_gradient(T* natural) const {
    layout_.each([&](std::int64_t i, std::int64_t place) { natural[i] = *gradient_.at(place); });
  }

  // Where the standardised inputs of a sample of the next block belong.
  T* input_row(int sample) { return inputs_.at(sample * input_stride_); }

  // Adds the gradient of share * (sum of squared errors) over one block of a batch; returns that
  // sum. `dropout_key` is the key of the step; `block` numbers the blocks of the batch from 0 on.
  double add_block(int block, int samples, const T* target, T share, std::uint64_t dropout_key) {
    for (int layer = 0; layer < layout_.shape().depth; ++layer) {
      linear(layer, samples);
      activate(layer, block, samples, fold_in(dropout_key, static_cast<std::uint64_t>(layer)));
    }
    T score_slope[block_size];
    const double loss = score(samples, target, share, score_slope);
    score_gradient(block > 0, samples, score_slope);
    for (int layer = layout_.shape().depth - 1; layer >= 0; --layer) {
      weight_gradient(block > 0, layer, samples);
      bias_gradient(block > 0, layer, samples);
      if (layer > 0) {
        if (block == 0) turn(layer);
        input_gradient(layer, samples);
      }
    }
    return loss;
  }

  void step() { adam_.step(gradient_.at(0), parameters_.at(0)); }

 private:
  static constexpr int half = lanes<T>;

  T* output(int layer) { return outputs_.at(layer * block_size * stride_); }
  T* slope(int layer) { return slopes_.at(layer * block_size * stride_); }
  const T* fed(int layer) { return layer == 0 ? inputs_.at(0) : output(layer - 1); }
  std::ptrdiff_t fed_stride(int layer) const { return layer == 0 ? input_stride_ : stride_; }

  // Sums before the activation, into the place of the slopes.
  void linear(int layer, int samples) {
    for (int p = 0; p < layout_.panels(); ++p) {
      const T* bias = parameters_.at(layout_.biases(layer, p));
      T* sums = slope(layer) + p * panel<T>;
      product(
          samples, layout_.inputs(layer), RowMajor<T>{fed(layer), fed_stride(layer)},
          parameters_.at(layout_.weights(layer, p)), panel<T>,
          [&](int, int column) { return load(bias + column); },
          [&](int row, int column, Vec<T> sum) { store(sums + row * stride_ + column, sum); });
    }
  }

  void activate(int layer, int block, int samples, std::uint64_t key) {
    const bool dropout = recipe_.dropout > 0.0;
    for (int lane = 0; lane < samples && lane < 16; ++lane) {
      const DropoutWords<T> words(key, block, layout_.shape().hidden, lane);
      const int other = lane + 16;
      for (int unit = 0; unit < layout_.width(); unit += half) {
        const Words<T> bits = dropout ? words.of(unit) : Words<T>{};
        activate_at(layer, lane, unit, bits & 0xFFFF);
        if (other < samples) activate_at(layer, other, unit, bits >> 16);
      }
    }
  }

  void activate_at(int layer, int sample, int unit, Words<T> bits) {
    T* out = output(layer) + sample * stride_ + unit;
    T* steep = slope(layer) + sample * stride_ + unit;
    Vec<T> value;
    Vec<T> derivative;
    gelu(load(steep), value, derivative);
    const auto scale = static_cast<T>(1) / static_cast<T>(1.0 - recipe_.dropout);
    const Vec<T> mask = bits_below(bits, recipe_.keep_threshold, scale);
    store(out, value * mask);
    store(steep, derivative * mask);
  }

  static Vec<T> bits_below(Words<T> bits, std::uint32_t threshold, T scale) {
    using Signed = VectorOf<std::int32_t, lanes<T>>::Type;
    const Signed kept = __builtin_bit_cast(Signed, bits) < static_cast<std::int32_t>(threshold);
    return -__builtin_convertvector(kept, Vec<T>) * scale;
  }

  double score(int samples, const T* target, T share, T* score_slope) {
    const T* weights = parameters_.at(layout_.score_weights());
    const T* last = output(layout_.shape().depth - 1);
    double loss = 0.0;
    for (int b = 0; b < samples; ++b) {
      Vec<T> sum{};
      for (int i = 0; i < layout_.width(); i += half)
        sum += load(weights + i) * load(last + b * stride_ + i);
      const T error = sum_of<T>(sum) + *parameters_.at(layout_.score_bias()) - target[b];
      loss += static_cast<double>(error) * static_cast<double>(error);
      score_slope[b] = 2 * share * error;
    }
    return loss;
  }

  // Gradient of the last layer; the slopes of the last activations become those of the loss.
  void score_gradient(bool add, int samples, const T* score_slope) {
    const T* weights = parameters_.at(layout_.score_weights());
    T* gradient = gradient_.at(layout_.score_weights());
    const T* last = output(layout_.shape().depth - 1);
    T* steep = slope(layout_.shape().depth - 1);
    for (int i = 0; i < layout_.width(); i += half) {
      const Vec<T> weight = load(weights + i);
      Vec<T> sum = add ? load(gradient + i) : Vec<T>{};
      for (int b = 0; b < samples; ++b) {
        const std::ptrdiff_t at = b * stride_ + i;
        sum += score_slope[b] * load(last + at);
        store(steep + at, load(steep + at) * (score_slope[b] * weight));
      }
      store(gradient + i, sum);
    }
    T* bias = gradient_.at(layout_.score_bias());
    if (!add) *bias = 0;
    for (int b = 0; b < samples; ++b) *bias += score_slope[b];
  }

  void weight_gradient(bool add, int layer, int samples) {
    for (int p = 0; p < layout_.panels(); ++p) {
      T* gradient = gradient_.at(layout_.weights(layer, p));
      product(
          layout_.inputs(layer), samples, Transposed<T>{fed(layer), fed_stride(layer)},
          slope(layer) + p * panel<T>, stride_,
          [&](int row, int column) {
            return add ? load(gradient + std::ptrdiff_t{row} * panel<T> + column) : Vec<T>{};
          },
          [&](int row, int column, Vec<T> sum) {
            store(gradient + std::ptrdiff_t{row} * panel<T> + column, sum);
          });
    }
  }

  void bias_gradient(bool add, int layer, int samples) {
    for (int i = 0; i < layout_.width(); i += half) {
      T* gradient = gradient_.at(layout_.biases(layer, i / panel<T>)) + i % panel<T>;
      Vec<T> sum = add ? load(gradient) : Vec<T>{};
      for (int b = 0; b < samples; ++b) sum += load(slope(layer) + b * stride_ + i);
      store(gradient, sum);
    }
  }

  // The slopes of the layer before become those of the loss.
  void input_gradient(int layer, int samples) {
    for (int p = 0; p < layout_.panels(); ++p) {
      T* steep = slope(layer - 1) + p * panel<T>;
      product(
          samples, layout_.shape().hidden, RowMajor<T>{slope(layer), stride_},
          turned(layer) + std::int64_t{p} * layout_.shape().hidden * panel<T>, panel<T>,
          [](int, int) { return Vec<T>{}; },
          [&](int row, int column, Vec<T> sum) {
            T* to = steep + row * stride_ + column;
            store(to, load(to) * sum);
          });
    }
  }

  // Copies a layer's weights with outputs and inputs exchanged: panels of inputs.
  void turn(int layer) {
    const int hidden = layout_.shape().hidden;
    for (int out = 0; out < hidden; ++out) {
      const T* from = parameters_.at(layout_.weights(layer, out / panel<T>)) + out % panel<T>;
      for (int in = 0; in < hidden; ++in)
        turned(layer)[(std::int64_t{in / panel<T>} * hidden + out) * panel<T> + in % panel<T>] =
            from[std::ptrdiff_t{in} * panel<T>];
    }
  }

  std::int64_t turned_size() const { return std::int64_t{layout_.width()} * layout_.shape().hidden; }
  T* turned(int layer) { return turned_.at((layer - 1) * turned_size()); }

  Recipe recipe_;
  Layout<T> layout_;
  std::ptrdiff_t stride_;
  std::ptrdiff_t input_stride_;
  Buffer<T> parameters_;
  Buffer<T> gradient_;
  Buffer<T> turned_;
  Buffer<T> inputs_;
  Buffer<T> outputs_;  // of each hidden layer, after dropout: samples x width
  Buffer<T> slopes_;   // sums, then slopes of the activations, then slopes of the loss
  Adam<T> adam_;
};

}  // namespace loso::LOSO_ISA
