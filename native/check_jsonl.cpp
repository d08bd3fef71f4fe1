// Reads a file of JSON lines over and over, damaged in another way each time, for the sanitizers
// to watch; says how often the count of threads changed what was read.
#include <cstdio>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

#include "jsonl.hpp"

namespace {

using loso::jsonl::Column;
using loso::jsonl::Kind;
using loso::jsonl::Table;

bool equal(const std::optional<Table>& one, const std::optional<Table>& other) {
  if (!one || !other) return !one && !other;
  return std::equal(one->columns.begin(), one->columns.end(), other->columns.begin(),
                    other->columns.end(), [&](const Column& a, const Column& b) {
                      if (a.name != b.name || a.kind != b.kind || a.distinct != b.distinct)
                        return false;
                      return a.kind == Kind::texts
                                 ? std::equal(a.codes.get(), a.codes.get() + one->rows,
                                              b.codes.get(), b.codes.get() + other->rows)
                                 : std::equal(a.numbers.get(), a.numbers.get() + one->rows,
                                              b.numbers.get(), b.numbers.get() + other->rows);
                    });
}

}  // namespace

int main(int, char** words) {
  std::ifstream file(words[1], std::ios::binary);
  const std::string whole(std::istreambuf_iterator<char>(file), {});
  const std::string_view marks = "{}[]:,\"\\ \n\r\t0.-+eE\x80\xc3\xff";
  std::mt19937 random(7);
  const auto below = [&](std::size_t limit) { return random() % limit; };
  int failures = 0;
  for (int round = 0; round < 500; ++round) {
    std::string damaged = whole.substr(0, round % 3 == 0 ? below(whole.size()) : whole.size());
    for (std::size_t left = round == 1 ? 0 : below(3); left > 0 && !damaged.empty(); --left)
      damaged[below(damaged.size())] = marks[below(marks.size())];
    const std::vector<char> content(damaged.begin(), damaged.end());  // no byte beyond its end
    const std::string_view view(content.data(), content.size());
    const auto alone = loso::jsonl::read_flat(view, 1);
    if (round == 1 && !alone) ++failures;
    for (const std::size_t threads : {2, 5})
      if (!equal(alone, loso::jsonl::read_flat(view, threads))) ++failures;
  }
  std::printf("%d failures\n", failures);
}
