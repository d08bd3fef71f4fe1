// Trains all members, a thread working on one member at a time.
#pragma once

#include <functional>
#include <vector>

#include "job.hpp"

namespace loso {

// `poll` is called from the calling thread every fiftieth of a second or so while others work; an
// exception from it stops them within a step and is passed on.
template <class T>
void train_all(const Functions<T>& functions, const Recipe& recipe, const Corpus<T>& corpus,
               const std::vector<Member<T>>& members, int threads,
               const std::function<void(const Watch&)>& poll);

}  // namespace loso
