// JSON as the files of this library use it: read strictly, refused with the byte at fault.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace striate {

// Walks a text by its grammar. Every refusal is a FormatError that names the place.
class JsonScanner {
 public:
  // Reads bytes `begin` to `end` of `data`; `where` is what these are called, `advice` what ends each refusal.
  JsonScanner(std::string reader, std::string where, std::string advice, const char* data, std::uint64_t begin,
              std::uint64_t end)
      : data_(data),
        at_(begin),
        end_(end),
        reader_(std::move(reader)),
        where_(std::move(where)),
        advice_(std::move(advice)) {}

 protected:
  [[noreturn]] void refuse(const char* expected) const;
  [[nodiscard]] const std::string& where() const { return where_; }

  void skip_space();
  [[nodiscard]] bool take(char c);  // after spaces
  void need(char c, const char* expected);
  std::string string();
  std::uint64_t number();  // a whole number

  // Calls f(key, position) behind each "key": of an object; f reads the value.
  template <class F>
  void object(F&& f) {
    need('{', "'{'");
    if (take('}')) {
      return;
    }
    do {
      skip_space();
      const std::uint64_t position = at_;
      std::string key = string();
      need(':', "':'");
      f(std::move(key), position);
    } while (take(','));
    need('}', "',' or '}'");
  }

  // Calls f() before each entry of an array; f reads it.
  template <class F>
  void array(F&& f) {
    need('[', "'['");
    if (take(']')) {
      return;
    }
    do {
      f();
    } while (take(','));
    need(']', "',' or ']'");
  }

  const char* data_;
  std::uint64_t at_;
  std::uint64_t end_;
  std::string key_;  // that is being read, for refusals

 private:
  unsigned hex4();
  void escape(std::string& out);
  void multibyte(std::string& out);

  std::string reader_;
  std::string where_;
  std::string advice_;
};

// Any JSON value. A number without fraction and exponent is an integer.
struct JsonMember;
struct Json {
  using List = std::vector<Json>;
  using Object = std::vector<JsonMember>;  // no pair, which Clang 14 would complete before Json is
  std::variant<std::monostate, bool, std::int64_t, double, std::string, List, Object> value;

  template <class T>
  [[nodiscard]] const T* as() const {
    return std::get_if<T>(&value);
  }
};

struct JsonMember {
  std::string first;
  Json second;
};

// Throws FormatError for anything but one value, nested at most 32 deep, whose objects have each key once.
[[nodiscard]] Json parse_json(const std::string& source, const std::string& reader, const std::string& where);

void append_json_string(std::string& out, const std::string& value);

}  // namespace striate
