// Trains all members, a thread working on one member at a time.
#pragma once

#include <functional>
#include <vector>

#include "job.hpp"

namespace loso {

// The calling thread calls `poll` now and then while others work, and once at the end; an exception
// from it stops them within a step and is passed on.
template <class T>
void train_all(const Functions<T>& functions, const Recipe& recipe, const Corpus<T>& corpus,
               const std::vector<Member<T>>& members, int threads,
               const std::function<void(const Watch&)>& poll);

}  // namespace loso
