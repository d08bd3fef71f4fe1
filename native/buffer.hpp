// Memory of one member, zero at first and aligned to a cache line.
#pragma once

#include <cstddef>
#include <new>

#include "vector.hpp"

namespace loso::LOSO_ISA {

template <class T>
class Buffer {
 public:
  explicit Buffer(std::int64_t size)
      : data_(static_cast<T*>(::operator new (bytes(size), std::align_val_t{64}))) {
    __builtin_memset(data_, 0, bytes(size));
  }
  ~Buffer() { ::operator delete (data_, std::align_val_t{64}); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* at(std::int64_t index) { return data_ + index; }
  const T* at(std::int64_t index) const { return data_ + index; }

 private:
  static std::size_t bytes(std::int64_t size) { return static_cast<std::size_t>(size) * sizeof(T); }

  T* data_;
};

}  // namespace loso::LOSO_ISA
