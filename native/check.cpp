// Trains networks of many shapes, for a build with sanitizers: they find what arithmetic hides.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>

#include "kernel.hpp"
#include "pool.hpp"

namespace {

using loso::Kernel;

template <class T>
struct Task {
  loso::Recipe recipe;
  std::vector<T> inputs;
  std::vector<T> target;
  std::vector<std::int32_t> rows;
  std::vector<T> mean;
  std::vector<T> std;
  std::vector<T> first;

  Task(const loso::Shape& shape, int batch_size, double dropout, int count)
      : recipe{shape, 2, batch_size, 1e-2, 1e-5, 0.9, 0.999, 1e-8, dropout, 0},
        mean(static_cast<std::size_t>(shape.inputs), T(0.5)),
        std(static_cast<std::size_t>(shape.inputs), T(2)) {
    recipe.keep_threshold = static_cast<std::uint32_t>(std::lround((1.0 - dropout) * 65536));
    const std::int64_t hidden = shape.hidden;
    const std::int64_t parameters =
        hidden * (shape.inputs + 1) + (shape.depth - 1) * hidden * (hidden + 1) + hidden + 1;
    fill(inputs, std::int64_t{count} * shape.inputs);
    fill(target, count);
    fill(first, parameters);
    for (std::int32_t row = 0; row < count; ++row) rows.push_back(row);
  }

  // The parameters of three members of different size, one after another.
  std::vector<T> trained(const Kernel& kernel, int threads) const {
    constexpr std::size_t members = 3;
    std::vector<T> parameters;
    std::vector<double> losses(members * static_cast<std::size_t>(recipe.epochs), NAN);
    for (std::size_t m = 0; m < members; ++m)
      parameters.insert(parameters.end(), first.begin(), first.end());
    std::vector<loso::Member<T>> list;
    for (std::size_t m = 0; m < members; ++m)
      list.push_back({7, static_cast<std::int64_t>(m), rows.data(),
                      static_cast<std::int64_t>(rows.size() - std::min(m, rows.size() - 1)),
                      mean.data(), std.data(), T(0.25), T(2), &parameters[m * first.size()],
                      &losses[m * static_cast<std::size_t>(recipe.epochs)]});
    loso::train_all<T>(loso::functions_of<T>(kernel), recipe, {inputs.data(), target.data()}, list,
                       threads, [](const loso::Watch&) {});
    return parameters;
  }

 private:
  static void fill(std::vector<T>& values, std::int64_t count) {
    std::mt19937 random(1);
    for (std::int64_t i = 0; i < count; ++i)
      values.push_back(static_cast<T>(random() % 2001) / 2000 - T(0.5));
  }
};

template <class T>
bool same_bytes(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

template <class T>
int failures(const Kernel& kernel) {
  int failed = 0;
  for (const int inputs : {1, 20})
    for (const int hidden : {1, 13, 33})
      for (const int depth : {1, 3})
        for (const int batch_size : {1, 32, 70})
          for (const double dropout : {0.0, 0.5}) {
            const Task<T> task({inputs, hidden, depth}, batch_size, dropout, 75);
            if (same_bytes(task.trained(kernel, 1), task.trained(kernel, 3))) continue;
            std::printf("threads change bytes: %d-%d, depth %d, batch %d, dropout %g\n", inputs,
                        hidden, depth, batch_size, dropout);
            ++failed;
          }
  Task<T> one_row({3, 5, 2}, 32, 0.1, 1);
  one_row.trained(kernel, 1);
  Task<T> not_a_number({3, 5, 2}, 32, 0.1, 50);
  not_a_number.inputs[4] = static_cast<T>(NAN);
  if (!same_bytes(not_a_number.trained(kernel, 1), not_a_number.trained(kernel, 2))) ++failed;
  return failed;
}

}  // namespace

int main() {
  const Kernel& kernel = loso::LOSO_ISA::kernel;
  const int failed = failures<float>(kernel) + failures<double>(kernel);
  std::printf("%s: %d failures\n", kernel.name, failed);
  return failed == 0 ? 0 : 1;
}
