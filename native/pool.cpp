#include "pool.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

namespace loso {
namespace {

constexpr std::chrono::milliseconds between_polls{50};

class Workers {
 public:
  // Starts `count` threads that each call work() once.
  template <class Work>
  Workers(int count, Watch& watch, const Work& work) : watch_(watch), busy_(count) {
    threads_.reserve(static_cast<std::size_t>(count));
    for (int i = 0; i < count; ++i) {
      threads_.emplace_back([this, &work] {
        try {
          work();
        } catch (...) {
          fail(std::current_exception());
        }
        leave();
      });
    }
  }

  ~Workers() {
    watch_.stop = true;
    for (std::thread& thread : threads_) thread.join();
  }
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  // Returns whether all threads are done, after waiting for that a little.
  bool done() {
    std::unique_lock lock(mutex_);
    return left_.wait_for(lock, between_polls, [this] { return busy_ == 0; });
  }

  void rethrow() const {
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  void fail(std::exception_ptr failure) {
    const std::lock_guard lock(mutex_);
    failure_ = std::move(failure);
    watch_.stop = true;
  }

  void leave() {
    const std::lock_guard lock(mutex_);
    --busy_;
    left_.notify_all();
  }

  Watch& watch_;
  std::mutex mutex_;
  std::condition_variable left_;
  int busy_;
  std::exception_ptr failure_;
  std::vector<std::thread> threads_;
};

}  // namespace

template <class T>
void train_all(const Functions<T>& functions, const Recipe& recipe, const Corpus<T>& corpus,
               const std::vector<Member<T>>& members, int threads,
               const std::function<void(const Watch&)>& poll) {
  Watch watch;
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t i = next++; i < members.size() && !watch.stop; i = next++)
      functions.train(recipe, corpus, members[i], static_cast<std::int64_t>(i), watch);
  };
  const int useful = std::min(threads, static_cast<int>(members.size()));
  Workers workers(useful, watch, work);
  while (!workers.done()) poll(watch);
  workers.rethrow();
  poll(watch);
}

template void train_all<float>(const Functions<float>&, const Recipe&, const Corpus<float>&,
                               const std::vector<Member<float>>&, int,
                               const std::function<void(const Watch&)>&);
template void train_all<double>(const Functions<double>&, const Recipe&, const Corpus<double>&,
                                const std::vector<Member<double>>&, int,
                                const std::function<void(const Watch&)>&);

}  // namespace loso
