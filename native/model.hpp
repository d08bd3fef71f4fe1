// One network: the loss of a block of samples, its gradient, and a step along it.
#pragma once

#include "adam.hpp"
#include "buffer.hpp"
#include "counter.hpp"
#include "gelu.hpp"
#include "layout.hpp"

namespace loso::LOSO_ISA {

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
      : dropout_(recipe),
        layout_(recipe.shape),
        stride_(row_stride<T>(layout_.width() + 1)),
        input_stride_(row_stride<T>(layout_.inputs(0))),
        parameters_(layout_.size()),
        gradient_(layout_.size()),
        turned_(std::int64_t{recipe.shape.depth - 1} * turned_size()),
        inputs_(block_size * input_stride_),
        outputs_(recipe.shape.depth * block_size * stride_),
        slopes_(recipe.shape.depth * block_size * stride_),
        masks_(2 * layout_.width()),
        adam_(recipe, layout_.size()) {
    for (int i = 0; i < 2 * layout_.width(); ++i) *masks_.at(i) = 1;
    layout_.each([&](std::int64_t i, std::int64_t place) { *parameters_.at(place) = natural[i]; });
    for (int b = 0; b < block_size; ++b) {
      *inputs_.at(b * input_stride_ + recipe.shape.inputs) = 1;
      for (int layer = 0; layer < recipe.shape.depth; ++layer)
        output(layer)[b * stride_ + layout_.width()] = 1;
    }
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
      T* sums = slope(layer) + p * panel<T>;
      product(samples, layout_.inputs(layer), RowMajor<T>{fed(layer), fed_stride(layer)},
              parameters_.at(layout_.weights(layer, p)), panel<T>, FromZero<T>{},
              [&](std::ptrdiff_t row, int column, Vec<T> sum) {
                store(sums + row * stride_ + column, sum);
              });
    }
  }

  void activate(int layer, int block, int samples, std::uint64_t key) {
    for (int lane = 0; lane < samples && lane < 16; ++lane) {
      if (dropout_.any)
        dropout_.masks(key, block, lane, layout_.width(), masks_.at(0), masks_.at(layout_.width()));
      activate(layer, lane, masks_.at(0));
      if (lane + 16 < samples) activate(layer, lane + 16, masks_.at(layout_.width()));
    }
  }

  void activate(int layer, int sample, const T* masks) {
    const std::ptrdiff_t width = layout_.width();
    T* value = output(layer) + sample * stride_;
    T* derivative = slope(layer) + sample * stride_;
    for (std::ptrdiff_t unit = 0; unit < width; unit += half) {
      Vec<T> v;
      Vec<T> d;
      gelu(load(derivative + unit), v, d);
      const Vec<T> mask = load(masks + unit);
      store(value + unit, v * mask);
      store(derivative + unit, d * mask);
    }
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
      loss += static_cast<double>(error * error);
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
      const auto so_far = [&](std::ptrdiff_t row, int column) {
        return load(gradient + row * panel<T> + column);
      };
      const auto put = [&](std::ptrdiff_t row, int column, Vec<T> sum) {
        store(gradient + row * panel<T> + column, sum);
      };
      const Transposed<T> left{fed(layer), fed_stride(layer)};
      const T* right = slope(layer) + p * panel<T>;
      if (add)
        product(layout_.inputs(layer), samples, left, right, stride_, so_far, put);
      else
        product(layout_.inputs(layer), samples, left, right, stride_, FromZero<T>{}, put);
    }
  }

  // The slopes of the layer before become those of the loss.
  void input_gradient(int layer, int samples) {
    for (int p = 0; p < layout_.panels(); ++p) {
      T* steep = slope(layer - 1) + p * panel<T>;
      product(samples, layout_.width(), RowMajor<T>{slope(layer), stride_},
              turned(layer) + std::int64_t{p} * layout_.width() * panel<T>, panel<T>, FromZero<T>{},
              [&](std::ptrdiff_t row, int column, Vec<T> sum) {
                T* to = steep + row * stride_ + column;
                store(to, load(to) * sum);
              });
    }
  }

  // Copies a layer's weights with outputs and inputs exchanged: panels of inputs.
  void turn(int layer) {
    const int width = layout_.width();
    for (int out = 0; out < width; out += half) {
      const T* from = parameters_.at(layout_.weights(layer, out / panel<T>)) + out % panel<T>;
      for (int in = 0; in < width; in += half) {
        T* to =
            turned(layer) + (std::int64_t{in / panel<T>} * width + out) * panel<T> + in % panel<T>;
        Vec<T> square[lanes<T>];
        for (int i = 0; i < half; ++i) square[i] = load(from + std::ptrdiff_t{in + i} * panel<T>);
        transpose<T>(square);
        for (int i = 0; i < half; ++i) store(to + std::ptrdiff_t{i} * panel<T>, square[i]);
      }
    }
  }

  std::int64_t turned_size() const { return std::int64_t{layout_.width()} * layout_.width(); }
  T* turned(int layer) { return turned_.at((layer - 1) * turned_size()); }

  Dropout<T> dropout_;
  Layout<T> layout_;
  std::ptrdiff_t stride_;
  std::ptrdiff_t input_stride_;
  Buffer<T> parameters_;
  Buffer<T> gradient_;
  Buffer<T> turned_;
  Buffer<T> inputs_;
  Buffer<T> outputs_;  // of each hidden layer, after dropout: samples x width
  Buffer<T> slopes_;   // sums, then slopes of the activations, then slopes of the loss
  Buffer<T> masks_;    // of dropout, for two samples
  Adam<T> adam_;
};

}  // namespace loso::LOSO_ISA
