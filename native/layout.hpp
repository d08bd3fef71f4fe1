// Where each parameter lies: layer after layer, a layer panel after panel of its outputs.
#pragma once

#include "job.hpp"
#include "product.hpp"

namespace loso::LOSO_ISA {

// A panel holds one row of `panel` outputs for each input of the layer, then their biases. Outputs
// beyond `hidden` fill the last panel: they are zero, get no gradient, and so stay zero. The layer
// that gives the score has one output; its weights are a single row, padded likewise.
template <class T>
class Layout {
 public:
  explicit Layout(const Shape& shape)
      : shape_(shape), panels_((shape.hidden + panel<T> - 1) / panel<T>) {}

  const Shape& shape() const { return shape_; }
  int panels() const { return panels_; }
  int width() const { return panels_ * panel<T>; }
  int inputs(int layer) const { return layer == 0 ? shape_.inputs : shape_.hidden; }

  std::int64_t weights(int layer, int p) const {
    const std::int64_t before = layer == 0 ? 0 : panels_ * (panel_size(0) + (layer - 1) * panel_size(1));
    return before + p * panel_size(layer);
  }
  std::int64_t biases(int layer, int p) const {
    return weights(layer, p) + std::int64_t{inputs(layer)} * panel<T>;
  }
  std::int64_t score_weights() const { return weights(shape_.depth, 0); }
  std::int64_t score_bias() const { return score_weights() + width(); }
  std::int64_t size() const { return score_bias() + panel<T>; }

  // Calls visit(natural, place) for each parameter: its index in the order of job.hpp, and here.
  template <class Visit>
  void each(const Visit& visit) const {
    std::int64_t natural = 0;
    for (int layer = 0; layer < shape_.depth; ++layer) {
      for (int out = 0; out < shape_.hidden; ++out)
        for (int in = 0; in < inputs(layer); ++in)
          visit(natural++, weights(layer, out / panel<T>) + std::int64_t{in} * panel<T> + out % panel<T>);
      for (int out = 0; out < shape_.hidden; ++out)
        visit(natural++, biases(layer, out / panel<T>) + out % panel<T>);
    }
    for (int in = 0; in < shape_.hidden; ++in) visit(natural++, score_weights() + in);
    visit(natural, score_bias());
  }

 private:
  std::int64_t panel_size(int layer) const {
    return std::int64_t{inputs(layer) + 1} * panel<T>;
  }

  Shape shape_;
  int panels_;
};

}  // namespace loso::LOSO_ISA
