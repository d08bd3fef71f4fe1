// Built once for each instruction set, with LOSO_ISA naming it.
#include "kernel.hpp"

#include <algorithm>
#include <chrono>

#include "model.hpp"

#define LOSO_QUOTE(name) #name
#define LOSO_NAME(name) LOSO_QUOTE(name)

namespace loso::LOSO_ISA {
namespace {

// Standardises rows as they are gathered from the corpus that all members share.
template <class T>
void gather(Model<T>& model, const Corpus<T>& corpus, const Member<T>& member, int inputs,
            const std::uint32_t* place, int samples, T* target) {
  const T* from[block_size];
  for (int b = 0; b < samples; ++b) {
    const std::int64_t row = member.train[place[b]];
    from[b] = corpus.inputs + row * inputs;
    // Rows lie anywhere in memory: ask for all of them before waiting for the first.
    constexpr int line = 64 / static_cast<int>(sizeof(T));
    for (int i = 0; i < inputs; i += line) __builtin_prefetch(from[b] + i);
    __builtin_prefetch(from[b] + inputs - 1);
    target[b] = (corpus.target[row] - member.target_mean) / member.target_std;
  }
  for (int b = 0; b < samples; ++b) {
    T* to = model.input_row(b);
    for (int i = 0; i < inputs; ++i) to[i] = (from[b][i] - member.mean[i]) / member.std[i];
  }
}

// Trains one member from its first step to its last, to its divergence, or until told to stop.
template <class T>
void train(const Recipe& recipe, const Corpus<T>& corpus, const Member<T>& member,
           std::int64_t index, Watch& watch) {
  Model<T> model(recipe, member.parameters);
  const std::uint64_t order_key = member_key(member.seed, member.fold, Purpose::order);
  const std::uint64_t dropout_key = member_key(member.seed, member.fold, Purpose::dropout);
  const auto count = static_cast<std::uint32_t>(member.count);
  const auto batch_size = static_cast<std::uint32_t>(recipe.batch_size);
  const std::int64_t steps = (count + batch_size - 1) / batch_size;
  std::int64_t step = 0;
  for (int epoch = 0; epoch < recipe.epochs; ++epoch) {
    const Order order(fold_in(order_key, static_cast<std::uint64_t>(epoch)), count);
    double sum = 0.0;
    for (std::uint32_t start = 0; start < count; start += batch_size, ++step) {
      if (watch.stop.load(std::memory_order_relaxed)) return;
      const std::uint32_t size = std::min(batch_size, count - start);
      const std::uint64_t key = fold_in(dropout_key, static_cast<std::uint64_t>(step));
      for (std::uint32_t done = 0; done < size; done += block_size) {
        const auto samples = static_cast<int>(std::min<std::uint32_t>(block_size, size - done));
        std::uint32_t place[block_size];
        T target[block_size];
        order.shuffled(start + done, samples, place);
        gather(model, corpus, member, recipe.shape.inputs, place, samples, target);
        const auto block = static_cast<int>(done / block_size);
        sum += model.add_block(block, samples, target, T{1} / static_cast<T>(size), key);
      }
      if (!__builtin_isfinite(sum)) {
        // Diverged: this epoch's loss and the later ones stay NaN, other members go on.
        watch.steps += steps * recipe.epochs - step;
        model.copy_parameters(member.parameters);
        return;
      }
      model.step();
      watch.steps.fetch_add(1, std::memory_order_relaxed);
    }
    member.losses[epoch] = sum / count;
    watch.latest = index * recipe.epochs + epoch;
  }
  model.copy_parameters(member.parameters);
}

template <class T>
double loss_and_gradient(const Recipe& recipe, const Corpus<T>& corpus, int rows,
                         std::uint64_t dropout_key, const T* parameters, T* gradient) {
  Model<T> model(recipe, parameters);
  double sum = 0.0;
  for (int block = 0; block * block_size < rows; ++block) {
    const int first = block * block_size;
    const int samples = std::min(block_size, rows - first);
    for (int b = 0; b < samples; ++b)
      __builtin_memcpy(model.input_row(b),
                       corpus.inputs + std::ptrdiff_t{first + b} * recipe.shape.inputs,
                       sizeof(T) * static_cast<std::size_t>(recipe.shape.inputs));
    sum += model.add_block(block, samples, corpus.target + first, T{1} / static_cast<T>(rows),
                           dropout_key);
  }
  model.copy_gradient(gradient);
  return sum / rows;
}

template <class T>
void gelu_of(const T* x, std::int64_t count, T* value, T* slope) {
  for (std::int64_t start = 0; start < count; start += lanes<T>) {
    const auto used =
        static_cast<std::size_t>(std::min<std::int64_t>(lanes<T>, count - start)) * sizeof(T);
    Vec<T> v{};
    Vec<T> y;
    Vec<T> dy;
    __builtin_memcpy(&v, x + start, used);
    gelu(v, y, dy);
    __builtin_memcpy(value + start, &y, used);
    __builtin_memcpy(slope + start, &dy, used);
  }
}

// Takes as many independent sums as hide the latency, and the best of many short runs: others may
// be using the core.
double fma_peak(double seconds) {
  constexpr int chains = registers - 4;
  constexpr int turns = 10'000;
  constexpr double operations = 2.0 * turns * chains * lanes<float>;
  using Clock = std::chrono::steady_clock;
  const auto started = Clock::now();
  const auto passed = [&] { return std::chrono::duration<double>(Clock::now() - started).count(); };
  Vec<float> sums[chains]{};
  double best = 0.0;
  for (double before = passed(); before < seconds;) {
    for (int turn = 0; turn < turns; ++turn) {
#pragma GCC unroll 32
      for (Vec<float>& sum : sums) sum = sum * 0.5F + 1.0F;
    }
    const double after = passed();
    best = std::max(best, operations / (after - before));
    before = after;
  }
  float total = 0.0F;  // sums that nobody reads would not be computed
  for (const Vec<float>& sum : sums) total += sum[0];
  return total > 0.0F ? best : 0.0;
}

}  // namespace

extern const Kernel kernel{
    LOSO_NAME(LOSO_ISA),
    {train<float>, loss_and_gradient<float>, gelu_of<float>},
    {train<double>, loss_and_gradient<double>, gelu_of<double>},
    fma_peak,
};

}  // namespace loso::LOSO_ISA
