#include "tensor/json.hpp"

#include <charconv>
#include <set>
#include <string_view>
#include <system_error>

#include "striate/error.hpp"
#include "striate/safetensors.hpp"

namespace striate {
namespace {

constexpr int kMostNested = 32;

void append_utf8(std::string& out, unsigned code) {
  const auto put = [&](unsigned byte) { out.push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6);
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3F));
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

class JsonReader : private JsonScanner {
 public:
  using JsonScanner::JsonScanner;

  Json read() {
    Json json = value(0);
    skip_space();
    if (at_ != end_) {
      refuse("nothing but spaces after the value");
    }
    return json;
  }

 private:
  Json value(int depth) {
    skip_space();
    if (at_ == end_) {
      refuse("a value");
    }
    if (depth > kMostNested) {
      refuse("lists and objects nested at most 32 deep");
    }
    switch (data_[at_]) {
      case '{':
        return members(depth);
      case '[': {
        Json::List list;
        array([&] { list.push_back(value(depth + 1)); });
        return {std::move(list)};
      }
      case '"':
        return {string()};
      default:
        return scalar();
    }
  }

  Json members(int depth) {
    Json::Object found;
    std::set<std::string> seen;
    object([&](std::string key, std::uint64_t position) {
      if (!seen.insert(key).second) {
        at_ = position;
        key_ = key;
        refuse("every key once");
      }
      key_ = key;
      Json read_value = value(depth + 1);
      found.push_back({std::move(key), std::move(read_value)});
    });
    return {std::move(found)};
  }

  Json scalar() {
    const std::uint64_t start = at_;
    const auto is_part = [](char c) {
      return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == '-' || c == '+' || c == '.' || c == 'E';
    };
    while (at_ < end_ && is_part(data_[at_])) {
      ++at_;
    }
    const std::string_view word(data_ + start, at_ - start);
    if (word == "null") {
      return {};
    }
    if (word == "true" || word == "false") {
      return {word == "true"};
    }
    const char* const last = word.data() + word.size();
    if (word.find_first_of(".eE") == std::string_view::npos) {
      std::int64_t whole = 0;
      const auto [end, error] = std::from_chars(word.data(), last, whole);
      if (end == last && error == std::errc()) {
        return {whole};
      }
    } else if (const char first = word.front() == '-' ? word[word.size() > 1 ? 1 : 0] : word.front();
               first >= '0' && first <= '9') {
      double real = 0;
      const auto [end, error] = std::from_chars(word.data(), last, real);
      if (end == last && error == std::errc()) {
        return {real};
      }
    }
    at_ = start;
    refuse("a number, text, list, object, true, false or null");
  }
};

}  // namespace

void JsonScanner::refuse(const char* expected) const {
  const std::string in_key = key_.empty() ? "" : text(" (key '", key_, "')");
  std::string got = "the end";
  if (at_ < end_) {
    const auto c = static_cast<unsigned char>(data_[at_]);
    got = c >= 0x20 && c < 0x7f ? text('\'', data_[at_], '\'') : text("byte value ", static_cast<int>(c));
  }
  throw FormatError(
      text(reader_, ": expected ", expected, " at byte ", at_, " of ", where_, in_key, ", got ", got, "; ", advice_));
}

void JsonScanner::skip_space() {
  while (at_ < end_ && (data_[at_] == ' ' || data_[at_] == '\n' || data_[at_] == '\r' || data_[at_] == '\t')) {
    ++at_;
  }
}

bool JsonScanner::take(char c) {
  skip_space();
  if (at_ < end_ && data_[at_] == c) {
    ++at_;
    return true;
  }
  return false;
}

void JsonScanner::need(char c, const char* expected) {
  if (!take(c)) {
    refuse(expected);
  }
}

unsigned JsonScanner::hex4() {
  unsigned value = 0;
  for (int i = 0; i < 4; ++i, ++at_) {
    const char c = at_ < end_ ? data_[at_] : '\0';
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (digit < 0) {
      refuse("four hexadecimal digits");
    }
    value = value * 16 + static_cast<unsigned>(digit);
  }
  return value;
}

void JsonScanner::escape(std::string& out) {
  const char c = at_ < end_ ? data_[at_] : '\0';
  constexpr std::string_view from = "\"\\/bfnrt";
  constexpr std::string_view to = "\"\\/\b\f\n\r\t";
  if (const auto i = from.find(c); c != '\0' && i != std::string_view::npos) {
    out.push_back(to[i]);
    ++at_;
    return;
  }
  if (c != 'u') {
    refuse("an escape of JSON");
  }
  ++at_;
  unsigned code = hex4();
  if (code >= 0xD800 && code < 0xDC00) {
    if (at_ + 1 >= end_ || data_[at_] != '\\' || data_[at_ + 1] != 'u') {
      refuse("the second half of a surrogate pair");
    }
    at_ += 2;
    const unsigned low = hex4();
    if (low < 0xDC00 || low >= 0xE000) {
      refuse("the second half of a surrogate pair before this place");
    }
    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
  } else if (code >= 0xDC00 && code < 0xE000) {
    refuse("a surrogate pair that is whole before this place");
  }
  append_utf8(out, code);
}

// One code point of well-formed UTF-8 (no overlong forms, no surrogates).
void JsonScanner::multibyte(std::string& out) {
  const auto first = static_cast<unsigned char>(data_[at_]);
  const int n = first >= 0xF0 && first <= 0xF4  ? 4
                : first >= 0xE0 && first < 0xF0 ? 3
                : first >= 0xC2 && first < 0xE0 ? 2
                                                : 0;
  if (n == 0 || at_ + static_cast<std::uint64_t>(n) > end_) {
    refuse("UTF-8");
  }
  unsigned code = first & (0xFFU >> (n + 1));
  for (int i = 1; i < n; ++i) {
    const auto next = static_cast<unsigned char>(data_[at_ + static_cast<std::uint64_t>(i)]);
    if ((next & 0xC0) != 0x80) {
      refuse("UTF-8");
    }
    code = code << 6 | (next & 0x3F);
  }
  if ((n == 3 && code < 0x800) || (n == 4 && (code < 0x10000 || code > 0x10FFFF)) || (code >= 0xD800 && code < 0xE000)) {
    refuse("UTF-8");
  }
  out.append(data_ + at_, static_cast<std::size_t>(n));
  at_ += static_cast<std::uint64_t>(n);
}

std::string JsonScanner::string() {
  need('"', "a string");
  std::string out;
  while (true) {
    if (at_ == end_) {
      refuse("the '\"' that ends a string");
    }
    const auto c = static_cast<unsigned char>(data_[at_]);
    if (c == '"') {
      ++at_;
      return out;
    }
    if (c < 0x20) {
      refuse("a character that may stand in a JSON string");
    }
    if (c == '\\') {
      ++at_;
      escape(out);
    } else if (c < 0x80) {
      out.push_back(static_cast<char>(c));
      ++at_;
    } else {
      multibyte(out);
    }
  }
}

std::uint64_t JsonScanner::number() {
  skip_space();
  const std::uint64_t start = at_;
  std::uint64_t value = 0;
  for (; at_ < end_ && data_[at_] >= '0' && data_[at_] <= '9'; ++at_) {
    const auto digit = static_cast<std::uint64_t>(data_[at_] - '0');
    if (__builtin_mul_overflow(value, std::uint64_t{10}, &value) || __builtin_add_overflow(value, digit, &value) ||
        value > std::uint64_t{1} << 62) {
      at_ = start;
      refuse("an integer below 2^62");
    }
  }
  if (at_ == start || (data_[start] == '0' && at_ > start + 1)) {
    at_ = start;
    refuse("an integer of at least 0");
  }
  return value;
}

Json parse_json(const std::string& source, const std::string& reader, const std::string& where) {
  return JsonReader(reader, where, "the file is damaged", source.data(), 0, source.size()).read();
}

void append_json_string(std::string& out, const std::string& value) {
  constexpr const char* digits = "0123456789abcdef";
  out.push_back('"');
  for (const char c : value) {
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(c);
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += "\\u00";
      out.push_back(digits[static_cast<unsigned char>(c) >> 4]);
      out.push_back(digits[static_cast<unsigned char>(c) & 15]);
    } else {
      out.push_back(c);
    }
  }
  out.push_back('"');
}

}  // namespace striate
