// What the threads hand to a kernel: plain data, the same for every instruction set.
#pragma once

#include <atomic>
#include <cstdint>

namespace loso {

struct Shape {
  int inputs;
  int hidden;
  int depth;
};

struct Recipe {
  Shape shape;
  int epochs;
  int batch_size;
  double lr;
  double weight_decay;
  double beta1;
  double beta2;
  double epsilon;
  double dropout;
  std::uint32_t keep_threshold;  // of the 65,536 values of a dropout word's half
};

// Rows that all members share, as they stand in the corpus.
template <class T>
struct Corpus {
  const T* inputs;  // rows x inputs
  const T* target;
};

// One network to train. `parameters` are those of each linear layer in turn, weights (outputs x
// inputs) before biases; they are read at the start and written at the end.
template <class T>
struct Member {
  std::int64_t seed;
  std::int64_t fold;
  const std::int32_t* train;
  std::int64_t count;
  const T* mean;
  const T* std;
  T target_mean;
  T target_std;
  T* parameters;
  double* losses;  // one an epoch
};

// What the thread that waits and those that work tell each other.
struct Watch {
  std::atomic<bool> stop{false};
  std::atomic<std::int64_t> steps{0};
  std::atomic<std::int64_t> latest{-1};  // the last finished epoch: member * epochs + epoch
};

// The functions of one instruction set.
template <class T>
struct Functions {
  void (*train)(const Recipe&, const Corpus<T>&, const Member<T>&, std::int64_t index, Watch&);
  double (*loss_and_gradient)(const Recipe&, const Corpus<T>&, int rows, std::uint64_t dropout_key,
                              const T* parameters, T* gradient);
  void (*gelu)(const T* x, std::int64_t count, T* value, T* slope);
};

struct Kernel {
  const char* name;
  Functions<float> in_float;
  Functions<double> in_double;
  double (*fma_peak)(double seconds);  // floating-point operations a second on one core
};

}  // namespace loso
