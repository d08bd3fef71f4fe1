// Built once for each instruction set, with LOSO_ISA naming it.
#include <chrono>

#include "kernel.hpp"
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
    target[b] = corpus.target[row];
  }
  for (int b = 0; b < samples; ++b) {
    T* to = model.input_row(b);
    for (int i = 0; i < inputs; ++i) to[i] = (from[b][i] - member.mean[i]) / member.std[i];
  }
}

template <class T>
void train(const Recipe& recipe, const Corpus<T>& corpus, const Member<T>& member,
           std::int64_t index, Watch& watch) {
  Model<T> model(recipe, member.parameters);
  const std::uint64_t order_key = member_key(member.seed, member.fold, Purpose::order);
  const std::uint64_t dropout_key = member_key(member.seed, member.fold, Purpose::dropout);
  const std::int64_t steps = (member.count + recipe.batch_size - 1) / recipe.batch_size;
  std::uint64_t step = 0;
  for (int epoch = 0; epoch < recipe.epochs; ++epoch) {
    const Order order(fold_in(order_key, static_cast<std::uint64_t>(epoch)),
                      static_cast<std::uint32_t>(member.count));
    double sum = 0.0;
    for (std::int64_t start = 0; start < member.count; start += recipe.batch_size, ++step) {
      const auto size =
          static_cast<int>(std::min<std::int64_t>(recipe.batch_size, member.count - start));
      const std::uint64_t key = fold_in(dropout_key, step);
      for (int block = 0; block * block_size < size; ++block) {
        const int samples = std::min(block_size, size - block * block_size);
        std::uint32_t place[block_size];
        T target[block_size];
        order.shuffled(static_cast<std::uint32_t>(start) + static_cast<std::uint32_t>(block * block_size), samples, place);
        gather(model, corpus, member, recipe.shape.inputs, place, samples, target);
        sum += model.add_block(block, samples, target, T{1} / static_cast<T>(size), key);
      }
      if (!__builtin_isfinite(sum)) {  // the losses that remain stay NaN
        watch.steps += steps * (recipe.epochs - epoch) - start / recipe.batch_size;
        model.copy_parameters(member.parameters);
        return;
      }
      model.step();
      watch.steps.fetch_add(1, std::memory_order_relaxed);
      if (watch.stop.load(std::memory_order_relaxed)) return;
    }
    member.losses[epoch] = sum / static_cast<double>(member.count);
    watch.last_member = index;
    watch.last_epoch = epoch;
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
    sum += model.add_block(block, samples, corpus.target + first, T{1} / static_cast<T>(rows), dropout_key);
  }
  model.copy_gradient(gradient);
  return sum / rows;
}

template <class T>
void gelu_of(const T* x, std::int64_t count, T* value, T* slope) {
  for (std::int64_t start = 0; start < count; start += lanes<T>) {
    const auto used = static_cast<std::size_t>(std::min<std::int64_t>(lanes<T>, count - start)) * sizeof(T);
    Vec<T> v{};
    Vec<T> y;
    Vec<T> dy;
    __builtin_memcpy(&v, x + start, used);
    gelu(v, y, dy);
    __builtin_memcpy(value + start, &y, used);
    __builtin_memcpy(slope + start, &dy, used);
  }
}

double fma_peak(double seconds) {
  constexpr int chains = registers - 4;
  constexpr int turns = 10'000;
  Vec<float> sum[chains]{};
  const Vec<float> shrink = spread(0.5F);
  const Vec<float> grow = spread(1.0F);
  using Clock = std::chrono::steady_clock;
  const auto started = Clock::now();
  double operations = 0.0;
  double elapsed = 0.0;
  while (elapsed < seconds) {
    for (int turn = 0; turn < turns; ++turn) {
#pragma GCC unroll 32
      for (int i = 0; i < chains; ++i) sum[i] = sum[i] * shrink + grow;
    }
    operations += 2.0 * turns * chains * lanes<float>;
    elapsed = std::chrono::duration<double>(Clock::now() - started).count();
  }
  volatile float sink = 0.0F;
  for (const Vec<float>& s : sum) sink = s[0];
  return operations / elapsed;
}

bool runs_here() {
#if defined(__AVX512F__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("fma");
#elif defined(__AVX2__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return true;
#endif
}

}  // namespace

extern const Kernel kernel{
    LOSO_NAME(LOSO_ISA),
    runs_here,
    {train<float>, loss_and_gradient<float>, gelu_of<float>},
    {train<double>, loss_and_gradient<double>, gelu_of<double>},
    fma_peak,
};

}  // namespace loso::LOSO_ISA
