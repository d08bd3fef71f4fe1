// The Python module: arrays in and out, the GIL released while threads work.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "counter.hpp"
#include "kernel.hpp"
#include "pool.hpp"

namespace nb = nanobind;

namespace loso {
namespace {

template <class T, int Dimensions>
using In = nb::ndarray<const T, nb::ndim<Dimensions>, nb::c_contig, nb::device::cpu>;
template <class T, int Dimensions>
using Out = nb::ndarray<T, nb::ndim<Dimensions>, nb::c_contig, nb::device::cpu>;

const Kernel& kernel_called(const std::string& isa) {
  for (const Kernel* kernel : kernels_here())
    if (kernel->name == isa) return *kernel;
  throw nb::value_error(("this machine does not run " + isa).c_str());
}

void require(bool holds, const char* what) {
  if (!holds) throw nb::value_error(what);
}

std::size_t parameter_count(const Shape& shape) {
  const auto hidden = static_cast<std::size_t>(shape.hidden);
  const auto later = static_cast<std::size_t>(shape.depth - 1) * (hidden + 1) * hidden;
  return hidden * (static_cast<std::size_t>(shape.inputs) + 1) + later + hidden + 1;
}

// Called while the GIL is released: shows progress, lets Python handle Ctrl-C.
void report(const Watch& watch, const nb::callable& progress) {
  const nb::gil_scoped_acquire held;
  if (PyErr_CheckSignals() != 0) throw nb::python_error();
  progress(watch.steps.load(), watch.latest.load());
}

template <class T>
void train(const std::string& isa, const Recipe& recipe, const In<T, 2>& inputs,
           const In<T, 1>& target, const std::vector<In<std::int32_t, 1>>& train_rows,
           const In<T, 2>& mean, const In<T, 2>& std, const In<T, 2>& target_scale,
           const In<std::int64_t, 2>& address,
           const Out<T, 2>& parameters, const Out<double, 2>& losses, int threads,
           const nb::callable& progress) {
  const std::size_t count = train_rows.size();
  const auto width = static_cast<std::size_t>(recipe.shape.inputs);
  require(inputs.shape(1) == width && target.shape(0) == inputs.shape(0), "inputs and target");
  require(mean.shape(0) == count && mean.shape(1) == width, "mean");
  require(std.shape(0) == count && std.shape(1) == width, "std");
  require(target_scale.shape(0) == count && target_scale.shape(1) == 2, "target_scale");
  require(address.shape(0) == count && address.shape(1) == 2, "address");
  require(parameters.shape(0) == count && parameters.shape(1) == parameter_count(recipe.shape),
          "parameters");
  require(losses.shape(0) == count && losses.shape(1) == static_cast<std::size_t>(recipe.epochs),
          "losses");
  require(threads > 0, "threads");
  std::vector<Member<T>> members;
  for (std::size_t m = 0; m < count; ++m) {
    const In<std::int32_t, 1>& rows = train_rows[m];
    require(rows.shape(0) > 0, "a member without rows");
    for (std::size_t i = 0; i < rows.shape(0); ++i)
      require(rows(i) >= 0 && static_cast<std::size_t>(rows(i)) < inputs.shape(0),
              "a row that is not in the corpus");
    members.push_back({address(m, 0), address(m, 1), rows.data(),
                       static_cast<std::int64_t>(rows.shape(0)), &mean(m, 0), &std(m, 0),
                       target_scale(m, 0), target_scale(m, 1), &parameters(m, 0), &losses(m, 0)});
  }
  const Functions<T>& functions = functions_of<T>(kernel_called(isa));
  const nb::gil_scoped_release released;
  train_all<T>(functions, recipe, Corpus<T>{inputs.data(), target.data()}, members, threads,
               [&](const Watch& watch) { report(watch, progress); });
}

template <class T>
double loss_and_gradient(const std::string& isa, const Recipe& recipe, const In<T, 2>& inputs,
                         const In<T, 1>& target, std::uint64_t dropout_key,
                         const In<T, 1>& parameters, const Out<T, 1>& gradient) {
  require(inputs.shape(1) == static_cast<std::size_t>(recipe.shape.inputs), "inputs");
  require(target.shape(0) == inputs.shape(0) && inputs.shape(0) > 0, "target");
  require(parameters.shape(0) == parameter_count(recipe.shape), "parameters");
  require(gradient.shape(0) == parameters.shape(0), "gradient");
  return functions_of<T>(kernel_called(isa))
      .loss_and_gradient(recipe, Corpus<T>{inputs.data(), target.data()},
                         static_cast<int>(inputs.shape(0)), dropout_key, parameters.data(),
                         gradient.data());
}

template <class T>
void gelu(const std::string& isa, const In<T, 1>& x, const Out<T, 1>& value,
          const Out<T, 1>& slope) {
  require(value.shape(0) == x.shape(0) && slope.shape(0) == x.shape(0), "value and slope");
  functions_of<T>(kernel_called(isa))
      .gelu(x.data(), static_cast<std::int64_t>(x.shape(0)), value.data(), slope.data());
}

template <class T>
void define(nb::module_& m) {
  using nb::arg;
  m.def("train", train<T>, arg("isa"), arg("recipe"), arg("inputs"), arg("target"),
        arg("train_rows"), arg("mean"), arg("std"), arg("target_scale"), arg("address"),
        arg("parameters").noconvert(), arg("losses").noconvert(), arg("threads"),
        arg("progress"));
  m.def("loss_and_gradient", loss_and_gradient<T>, arg("isa"), arg("recipe"), arg("inputs"),
        arg("target"), arg("dropout_key"), arg("parameters"), arg("gradient").noconvert());
  m.def("gelu", gelu<T>, arg("isa"), arg("x"), arg("value").noconvert(), arg("slope").noconvert());
}

void shuffled(std::uint64_t key, const Out<std::uint32_t, 1>& places) {
  using portable::block_size;
  using portable::Order;
  const auto size = static_cast<std::uint32_t>(places.shape(0));
  const Order order(key, size);
  for (std::uint32_t start = 0; start < size; start += block_size)
    order.shuffled(start, static_cast<int>(std::min<std::uint32_t>(block_size, size - start)),
                   &places(start));
}

// Writes a block's masks, 32 samples x units.
void dropout_masks(const Recipe& recipe, std::uint64_t key, int block, const Out<float, 2>& masks) {
  using portable::block_size;
  require(masks.shape(0) == block_size, "masks");
  require(masks.shape(1) == static_cast<std::size_t>(recipe.shape.hidden), "masks");
  const portable::Dropout<float> dropout(recipe);
  const int width = portable::round_up(recipe.shape.hidden, portable::lanes<float>);
  std::vector<float> low(static_cast<std::size_t>(width));
  std::vector<float> high(low);
  for (int lane = 0; lane < block_size / 2; ++lane) {
    dropout.masks(key, block, lane, width, low.data(), high.data());
    std::copy_n(low.begin(), recipe.shape.hidden, &masks(lane, 0));
    std::copy_n(high.begin(), recipe.shape.hidden, &masks(lane + block_size / 2, 0));
  }
}

}  // namespace
}  // namespace loso

NB_MODULE(_kernel, m) {
  using namespace loso;
  using nb::arg;
  nb::class_<Recipe>(m, "Recipe")
      .def(
          "__init__",
          [](Recipe* to, int inputs, int hidden, int depth, int epochs, int batch_size, double lr,
             double weight_decay, double beta1, double beta2, double epsilon, double dropout,
             std::uint32_t keep_threshold) {
            require(inputs > 0 && hidden > 0 && depth > 0 && epochs >= 0 && batch_size > 0,
                    "a size under 1");
            new (to) Recipe{{inputs, hidden, depth},
                            epochs,
                            batch_size,
                            lr,
                            weight_decay,
                            beta1,
                            beta2,
                            epsilon,
                            dropout,
                            keep_threshold};
          },
          nb::kw_only(), arg("inputs"), arg("hidden"), arg("depth"), arg("epochs"),
          arg("batch_size"), arg("lr"), arg("weight_decay"), arg("beta1"), arg("beta2"),
          arg("epsilon"), arg("dropout"), arg("keep_threshold"));
  define<float>(m);
  define<double>(m);
  m.def("instruction_sets", [] {
    std::vector<std::string> names;
    for (const Kernel* kernel : kernels_here()) names.emplace_back(kernel->name);
    return names;
  });
  m.def(
      "fma_peak",
      [](const std::string& isa, double seconds) {
        const Kernel& kernel = kernel_called(isa);
        const nb::gil_scoped_release released;
        return kernel.fma_peak(seconds);
      },
      arg("isa"), arg("seconds"));
  m.def("member_key", [](std::int64_t seed, std::int64_t fold, std::uint64_t purpose) {
    return portable::member_key(seed, fold, static_cast<portable::Purpose>(purpose));
  });
  m.def("fold_in", portable::fold_in);
  m.def("shuffled", shuffled, arg("key"), arg("places").noconvert());
  m.def("dropout_masks", dropout_masks, arg("recipe"), arg("key"), arg("block"),
        arg("masks").noconvert());
}
