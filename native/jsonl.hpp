// JSON lines that are all made alike become columns; of any other content the reader says no more
// than that it is not of this kind.
//
// The first line is a form: what stands between its values stands, byte for byte, on every other
// line too. So a line is read by comparing the text before each value and reading the value, which
// is a number in a column of numbers and a plain text in a column of texts.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cfloat>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <future>
#include <memory>
#include <optional>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace loso::jsonl {

enum class Kind { integers, doubles, texts };

// A column, one word a row. Numbers are the bits of an int64 or of a double; of texts there are
// codes, which count the distinct ones in the order of their first appearance.
struct Column {
  std::string_view name;
  Kind kind = Kind::integers;
  std::unique_ptr<std::uint64_t[]> numbers;
  std::unique_ptr<std::uint32_t[]> codes;
  std::vector<std::string_view> distinct;
};

struct Table {
  std::size_t rows = 0;
  std::vector<Column> columns;
};

inline constexpr std::size_t most_distinct = std::size_t{1} << 20U;

inline bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Tells whether `text` is UTF-8: no overlong form, no surrogate, nothing over U+10FFFF.
inline bool is_utf8(std::string_view text) {
  const auto byte = [&](std::size_t at) -> unsigned {
    return at < text.size() ? static_cast<unsigned char>(text[at]) : 0U;
  };
  for (std::size_t at = 0; at < text.size();) {
    const unsigned first = byte(at);
    if (first < 0x80U) {
      ++at;
      continue;
    }
    const std::size_t length = first < 0xE0U ? 2 : first < 0xF0U ? 3 : 4;
    if (first < 0xC2U || first > 0xF4U) return false;
    for (std::size_t next = 1; next < length; ++next)
      if ((byte(at + next) & 0xC0U) != 0x80U) return false;
    const unsigned second = byte(at + 1);
    if ((first == 0xE0U && second < 0xA0U) || (first == 0xEDU && second > 0x9FU) ||
        (first == 0xF0U && second < 0x90U) || (first == 0xF4U && second > 0x8FU))
      return false;
    at += length;
  }
  return true;
}

// So many characters hold at most 15 digits beside a point, and every such integer is a double.
inline constexpr std::ptrdiff_t longest_exact = 16;
inline constexpr double powers_of_ten[] = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                           1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};

struct Number {
  std::uint64_t bits;
  bool integer;
};

// A place in a text. Each reader moves past what it returns, or returns nothing.
class Cursor {
 public:
  explicit Cursor(std::string_view text) : at_(text.data()), end_(at_ + text.size()) {}

  [[nodiscard]] const char* place() const { return at_; }
  [[nodiscard]] bool at_end() const { return at_ == end_; }
  [[nodiscard]] bool sees(char c) const { return at_ != end_ && *at_ == c; }
  [[nodiscard]] bool sees_digit() const { return at_ != end_ && is_digit(*at_); }

  void skip_space() {
    while (sees(' ') || sees('\t') || sees('\r')) ++at_;
  }

  bool skip(char c) {
    if (!sees(c)) return false;
    ++at_;
    return true;
  }

  bool skip(std::string_view text) {
    if (static_cast<std::size_t>(end_ - at_) < text.size()) return false;
    if (std::memcmp(at_, text.data(), text.size()) != 0) return false;
    at_ += text.size();
    return true;
  }

  // A text in quotes, without them; none that needs decoding.
  std::optional<std::string_view> text() {
    if (!skip('"')) return std::nullopt;
    const char* const start = at_;
    bool ascii = true;
    for (; at_ != end_ && *at_ != '"'; ++at_) {
      const auto byte = static_cast<unsigned char>(*at_);
      if (byte < 0x20U || byte == '\\') return std::nullopt;
      ascii = ascii && byte < 0x80U;
    }
    const std::string_view found(start, static_cast<std::size_t>(at_ - start));
    if (!skip('"') || !(ascii || is_utf8(found))) return std::nullopt;
    return found;
  }

  // A number by JSON's grammar: an integer of 64 bits, or a finite double, correctly rounded.
  std::optional<Number> number() {
    const char* const start = at_;
    const bool negative = skip('-');
    std::uint64_t digits = 0;  // the number without its point; too long a one is converted anew
    if (!skip('0') && !skip_digits(digits)) return std::nullopt;
    const char* const point = at_;
    const bool fraction = skip('.');
    if (fraction && !skip_digits(digits)) return std::nullopt;
    const auto places = static_cast<std::size_t>(at_ - point);  // the point is one of them
    const bool is_short = at_ - start <= longest_exact;
    if (skip('e') || skip('E')) {
      std::uint64_t power = 0;
      if (!skip('+')) skip('-');
      if (!skip_digits(power)) return std::nullopt;
      return converted<double>(start);
    }
    if (!fraction) {
      if (!is_short) return converted<std::int64_t>(start);
      const auto value = static_cast<std::int64_t>(digits);
      return Number{std::bit_cast<std::uint64_t>(negative ? -value : value), true};
    }
    // Two exact doubles: their quotient is rounded once, as the number itself would be.
    if (!is_short || FLT_EVAL_METHOD != 0) return converted<double>(start);
    const double value = static_cast<double>(digits) / powers_of_ten[places - 1];
    return Number{std::bit_cast<std::uint64_t>(negative ? -value : value), false};
  }

 private:
  bool skip_digits(std::uint64_t& number) {
    if (!sees_digit()) return false;
    for (; sees_digit(); ++at_) number = 10 * number + static_cast<std::uint64_t>(*at_ - '0');
    return true;
  }

  template <class T>
  [[nodiscard]] std::optional<Number> converted(const char* start) const {
    T value{};
    const auto [stop, error] = std::from_chars(start, at_, value);
    if (error != std::errc{} || stop != at_) return std::nullopt;
    return Number{std::bit_cast<std::uint64_t>(value), std::is_integral_v<T>};
  }

  const char* at_;
  const char* end_;
};

// What the first line says about all: the names, and the text before each value and after the last.
struct Form {
  struct Field {
    std::string_view name;
    std::string_view before;
    bool is_text;
  };
  std::vector<Field> fields;
  std::string_view after;
};

inline std::optional<Form> form_of(std::string_view line) {
  Form form;
  Cursor cursor(line);
  std::unordered_set<std::string_view> names;
  cursor.skip_space();
  const char* start = cursor.place();
  const auto since_start = [&] {
    return std::string_view(start, static_cast<std::size_t>(cursor.place() - start));
  };
  if (!cursor.skip('{')) return std::nullopt;
  do {
    cursor.skip_space();
    const auto name = cursor.text();
    if (!name || !names.insert(*name).second) return std::nullopt;
    cursor.skip_space();
    if (!cursor.skip(':')) return std::nullopt;
    cursor.skip_space();
    form.fields.push_back({*name, since_start(), cursor.sees('"')});
    if (cursor.sees('"') ? !cursor.text() : !cursor.number()) return std::nullopt;
    start = cursor.place();
    cursor.skip_space();
  } while (cursor.skip(','));
  if (!cursor.skip('}')) return std::nullopt;
  form.after = since_start();
  return form;
}

// Codes for the texts of one column in one part of the content.
class Codes {
 public:
  [[nodiscard]] const std::vector<std::string_view>& distinct() const { return distinct_; }

  std::uint32_t of(std::string_view text) {
    const auto next = static_cast<std::uint32_t>(distinct_.size());
    const auto [place, is_new] = codes_.try_emplace(text, next);
    if (is_new) distinct_.push_back(text);
    return place->second;
  }

  std::optional<std::uint32_t> read(Cursor& cursor) {
    if (!latest_.empty() && cursor.skip(latest_)) return latest_code_;
    const char* const start = cursor.place();
    const auto text = cursor.text();
    if (!text) return std::nullopt;
    latest_ = {start, text->size() + 2};
    latest_code_ = of(*text);
    return latest_code_;
  }

 private:
  std::unordered_map<std::string_view, std::uint32_t> codes_;
  std::vector<std::string_view> distinct_;
  std::string_view latest_;  // with its quotes: rows of one clip repeat its texts
  std::uint32_t latest_code_ = 0;
};

// The lines that one thread reads, which rows of the table they are, and of each column: whether
// its numbers here are doubles, the codes of its texts here, and those codes in the whole table.
struct Part {
  std::string_view content;
  std::size_t first = 0;
  std::size_t rows = 0;
  std::vector<char> doubles;
  std::vector<Codes> codes;
  std::vector<std::vector<std::uint32_t>> final_codes;
};

// Calls `use` with each line that is not blank, without its end, while that returns true.
template <class Use>
bool each_line(std::string_view content, const Use& use) {
  while (!content.empty()) {
    const std::string_view line = content.substr(0, content.find('\n'));
    content.remove_prefix(std::min(line.size() + 1, content.size()));
    Cursor cursor(line);
    cursor.skip_space();
    if (!cursor.at_end() && !use(line)) return false;
  }
  return true;
}

// Cuts the content at line ends.
inline std::vector<Part> parts_of(std::string_view content, std::size_t count) {
  std::vector<Part> parts(count);
  std::size_t start = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t wanted = std::max(start, content.size() / count * (i + 1));
    const std::size_t found = i + 1 < count ? content.find('\n', wanted) : content.npos;
    const std::size_t stop = found == content.npos ? content.size() : found + 1;
    parts[i].content = content.substr(start, stop - start);
    start = stop;
  }
  return parts;
}

template <class Work>
void in_threads(std::vector<Part>& parts, const Work& work) {
  std::vector<std::future<void>> running;
  for (Part& part : parts) running.push_back(std::async(std::launch::async, [&] { work(part); }));
  for (std::future<void>& one : running) one.get();
}

inline std::uint64_t as_double(std::uint64_t integer) {
  return std::bit_cast<std::uint64_t>(static_cast<double>(std::bit_cast<std::int64_t>(integer)));
}

inline void make_doubles(Column& column, std::size_t first, std::size_t rows) {
  std::uint64_t* const start = column.numbers.get() + first;
  std::transform(start, start + rows, start, as_double);
}

inline bool read_line(const Form& form, std::string_view line, std::size_t row, Part& part,
                      Table& table) {
  Cursor cursor(line);
  cursor.skip_space();
  for (std::size_t i = 0; i < form.fields.size(); ++i) {
    Column& column = table.columns[i];
    if (!cursor.skip(form.fields[i].before)) return false;
    if (column.kind == Kind::texts) {
      const auto code = part.codes[i].read(cursor);
      if (!code || *code >= most_distinct) return false;
      column.codes[row] = *code;
    } else {
      const auto number = cursor.number();
      if (!number) return false;
      if (!number->integer && part.doubles[i] == 0) {
        make_doubles(column, part.first, row - part.first);
        part.doubles[i] = 1;
      }
      const bool widen = number->integer && part.doubles[i] != 0;
      column.numbers[row] = widen ? as_double(number->bits) : number->bits;
    }
  }
  if (!cursor.skip(form.after)) return false;
  cursor.skip_space();
  return cursor.at_end();
}

inline Table empty_table(const Form& form, std::size_t rows) {
  Table table{rows, {}};
  for (const Form::Field& field : form.fields) {
    Column& column = table.columns.emplace_back();
    column.name = field.name;
    column.kind = field.is_text ? Kind::texts : Kind::integers;
    if (field.is_text)
      column.codes = std::make_unique_for_overwrite<std::uint32_t[]>(rows);
    else
      column.numbers = std::make_unique_for_overwrite<std::uint64_t[]>(rows);
  }
  return table;
}

// Gives a column one type, or one list of distinct texts, in all parts.
inline void agree(std::size_t i, std::vector<Part>& parts, Table& table) {
  Column& column = table.columns[i];
  if (column.kind == Kind::texts) {
    Codes all;
    for (Part& part : parts)
      for (const std::string_view text : part.codes[i].distinct())
        part.final_codes[i].push_back(all.of(text));
    column.distinct = all.distinct();
  } else if (std::any_of(parts.begin(), parts.end(),
                         [&](const Part& part) { return part.doubles[i] != 0; })) {
    column.kind = Kind::doubles;
  }
}

// Brings the rows of a part to what `agree` has found.
inline void finish(const Part& part, Table& table) {
  for (std::size_t i = 0; i < table.columns.size(); ++i) {
    Column& column = table.columns[i];
    if (column.kind == Kind::texts) {
      std::uint32_t* const codes = column.codes.get() + part.first;
      std::transform(codes, codes + part.rows, codes,
                     [&](std::uint32_t code) { return part.final_codes[i][code]; });
    } else if (column.kind == Kind::doubles && part.doubles[i] == 0) {
      make_doubles(column, part.first, part.rows);
    }
  }
}

// The table in `content`, whose bytes it refers to; nothing where a line is not like the first.
inline std::optional<Table> read_flat(std::string_view content, std::size_t threads) {
  std::optional<Form> form;
  each_line(content, [&](std::string_view line) {
    form = form_of(line);
    return false;
  });
  if (!form) return std::nullopt;
  std::vector<Part> parts = parts_of(content, threads);
  in_threads(parts, [&](Part& part) {
    each_line(part.content, [&](std::string_view) {
      ++part.rows;
      return true;
    });
    part.doubles.resize(form->fields.size());
    part.codes.resize(form->fields.size());
    part.final_codes.resize(form->fields.size());
  });
  std::size_t rows = 0;
  for (Part& part : parts) {
    part.first = rows;
    rows += part.rows;
  }
  // A value has bytes of its own: more of them than bytes would fill the memory in vain.
  if (rows > content.size() / form->fields.size()) return std::nullopt;
  Table table = empty_table(*form, rows);
  std::atomic<bool> alike = true;
  in_threads(parts, [&](Part& part) {
    std::size_t row = part.first;
    const bool read = each_line(part.content, [&](std::string_view line) {
      return alike.load(std::memory_order_relaxed) && read_line(*form, line, row++, part, table);
    });
    if (!read) alike = false;
  });
  if (!alike) return std::nullopt;
  for (std::size_t i = 0; i < table.columns.size(); ++i) agree(i, parts, table);
  for (const Column& column : table.columns)
    if (column.distinct.size() > most_distinct) return std::nullopt;
  in_threads(parts, [&](const Part& part) { finish(part, table); });
  return table;
}

}  // namespace loso::jsonl
