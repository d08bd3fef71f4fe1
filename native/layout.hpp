// Where each parameter lies: layer after layer, a layer panel after panel of its outputs.
#pragma once

#include "job.hpp"
#include "product.hpp"

namespace loso::LOSO_ISA {

// A panel holds one row of `panel` outputs for each input of the layer. The last input is always 1:
// its weights are the biases. `width` is `hidden` rounded up to whole panels: the units beyond
// `hidden` are zero, get no gradient, and so stay zero. The layer that gives the score has one
// output; its weights are a single row.
template <class T>
class Layout {
 public:
  explicit Layout(const Shape& shape)
      : shape_(shape), panels_((shape.hidden + panel<T> - 1) / panel<T>) {}

  const Shape& shape() const { return shape_; }
  int panels() const { return panels_; }
  int width() const { return panels_ * panel<T>; }
  int inputs(int layer) const { return (layer == 0 ? shape_.inputs : width()) + 1; }

  std::int64_t weights(int layer, int p) const {
    const std::int64_t before =
        layer == 0 ? 0 : panels_ * (panel_size(0) + (layer - 1) * panel_size(1));
    return before + p * panel_size(layer);
  }
  std::int64_t score_weights() const { return weights(shape_.depth, 0); }
  std::int64_t score_bias() const { return score_weights() + width(); }
  std::int64_t size() const { return score_bias() + panel<T>; }

  // Calls visit(natural, place) for each parameter: its index in the order of job.hpp, and here.
  template <class Visit>
  void each(const Visit& visit) const {
    std::int64_t natural = 0;
    for (int layer = 0; layer < shape_.depth; ++layer) {
      const int used = layer == 0 ? shape_.inputs : shape_.hidden;
      for (int out = 0; out < shape_.hidden; ++out)
        for (int in = 0; in < used; ++in) visit(natural++, weight(layer, out, in));
      for (int out = 0; out < shape_.hidden; ++out)
        visit(natural++, weight(layer, out, inputs(layer) - 1));
    }
    for (int in = 0; in < shape_.hidden; ++in) visit(natural++, score_weights() + in);
    visit(natural, score_bias());
  }

 private:
  std::int64_t panel_size(int layer) const { return std::int64_t{inputs(layer)} * panel<T>; }
  std::int64_t weight(int layer, int out, int in) const {
    return weights(layer, out / panel<T>) + std::int64_t{in} * panel<T> + out % panel<T>;
  }

  Shape shape_;
  int panels_;
};

}  // namespace loso::LOSO_ISA
