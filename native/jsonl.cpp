// The Python module that reads JSON lines made alike: bytes in, columns out.
#include "jsonl.hpp"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

namespace nb = nanobind;

namespace loso {
namespace {

// An array that owns `words` and shows them as values of T.
template <class T, class Word>
nb::object array_of(std::unique_ptr<Word[]> words, std::size_t rows) {
  static_assert(sizeof(T) == sizeof(Word));
  Word* const data = words.get();
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<Word*>(p); });
  static_cast<void>(words.release());
  return nb::cast(nb::ndarray<nb::numpy, T, nb::ndim<1>>(data, {rows}, owner));
}

nb::str text_of(std::string_view text) { return nb::str(text.data(), text.size()); }

nb::object values_of(jsonl::Column& column, std::size_t rows) {
  if (column.kind == jsonl::Kind::integers)
    return array_of<std::int64_t>(std::move(column.numbers), rows);
  if (column.kind == jsonl::Kind::doubles) return array_of<double>(std::move(column.numbers), rows);
  nb::list distinct;
  for (const std::string_view text : column.distinct) distinct.append(text_of(text));
  return nb::make_tuple(array_of<std::uint32_t>(std::move(column.codes), rows), distinct);
}

nb::object read_flat(const nb::bytes& content, std::size_t threads) {
  if (threads == 0) throw nb::value_error("threads");
  std::optional<jsonl::Table> table;
  {
    const nb::gil_scoped_release released;
    table = jsonl::read_flat({content.c_str(), content.size()}, threads);
  }
  if (!table) return nb::none();
  nb::dict columns;
  for (jsonl::Column& column : table->columns)
    columns[text_of(column.name)] = values_of(column, table->rows);
  return columns;
}

}  // namespace
}  // namespace loso

NB_MODULE(_jsonl, m) {
  m.def("read_flat", loso::read_flat, nb::arg("content"), nb::arg("threads"));
}
