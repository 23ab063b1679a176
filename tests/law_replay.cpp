// Runs the cases that tests/write_cases.py wrote, on every instruction set of this machine and on 1, 2 and 3 threads.
//
//   law_replay FILE
//
// Each result must have its shape and dtype, lie within its bound of the oracle's, and have the same bits for any number of
// threads. Prints every failure and one line at the end; exits with 1 after a failure.
#include <charconv>
#include <cmath>
#include <cstring>
#include <exception>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "program/call.hpp"
#include "striate/machine.hpp"
#include "striate/ops.hpp"
#include "striate/safetensors.hpp"

namespace striate {
namespace {

// A word as an attribute: a whole number or a number where all of it is one, else itself.
Attribute attribute_of(const std::string& word) {
  const char* const end = word.data() + word.size();
  std::int64_t whole = 0;
  if (const auto [stop, error] = std::from_chars(word.data(), end, whole); error == std::errc() && stop == end) {
    return whole;
  }
  double real = 0;
  if (const auto [stop, error] = std::from_chars(word.data(), end, real); error == std::errc() && stop == end) {
    return real;
  }
  return word;
}

// Results to check, by the numbers of result, expected values and bound.
struct Check {
  int tensor;
  int expected;
  int bound;
};

struct Outcome {
  std::map<int, Array> values;
  std::vector<Check> checks;
};

Outcome run(const std::string& program, const std::map<int, Array>& given) {
  Outcome out{.values = given, .checks = {}};
  set_conv_algorithm(ConvAlgorithm::direct);
  std::istringstream words(program);
  std::string kind;
  while (words >> kind) {
    if (kind == "algorithm") {
      int m = 0;
      words >> m;
      set_conv_algorithm(m == 2   ? ConvAlgorithm::winograd2
                         : m == 4 ? ConvAlgorithm::winograd4
                         : m == 5 ? ConvAlgorithm::winograd5
                                  : ConvAlgorithm::winograd6);
    } else if (kind == "check") {
      Check check{};
      words >> check.tensor >> check.expected >> check.bound;
      out.checks.push_back(check);
    } else {
      const auto numbers = [&] {
        std::size_t n = 0;
        words >> n;
        std::vector<int> read(n);
        for (int& number : read) {
          words >> number;
        }
        return read;
      };
      std::string name;
      words >> name;
      std::vector<const Array*> operands;
      for (const int i : numbers()) {
        operands.push_back(i < 0 ? nullptr : &out.values.at(i));
      }
      const std::vector<int> outputs = numbers();
      std::size_t n_attributes = 0;
      words >> n_attributes;
      Attributes::Entries attributes;
      for (std::size_t i = 0; i < n_attributes; ++i) {
        std::string key;
        std::size_t n = 0;
        words >> key >> n;
        Attribute::List values;
        for (std::size_t k = 0; k < n; ++k) {
          std::string word;
          words >> word;
          values.push_back(attribute_of(word));
        }
        attributes.emplace_back(key, std::move(values));
      }
      std::vector<Array> results(outputs.size());
      make_call(Attributes(name, attributes))(operands, results);
      for (std::size_t i = 0; i < outputs.size(); ++i) {
        out.values.insert_or_assign(outputs[i], results[i]);
      }
    }
  }
  return out;
}

// What is wrong with a result, or nothing.
std::string complaint(const Array& y, const Array& expected, const Array& bound) {
  const DType dtype = is_floating(expected.dtype()) ? DType::float32 : expected.dtype();
  if (y.dtype() != dtype || !(y.shape() == expected.shape())) {
    return text("expected ", dtype_name(dtype), " ", to_string(expected.shape()), ", got ", dtype_name(y.dtype()), " ",
                to_string(y.shape()));
  }
  const Array got = relayout(convert(y, DType::float64), Layout::row_major);
  const Array wanted = convert(expected, DType::float64);
  const auto* a = got.data<double>();
  const auto* e = wanted.data<double>();
  const auto* limit = bound.data<double>();
  std::ptrdiff_t n_off = 0;
  std::ptrdiff_t worst = 0;
  double worst_ratio = -1;
  for (std::ptrdiff_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(a[i] - e[i]);
    const bool is_odd = !std::isfinite(a[i]) || !std::isfinite(e[i]);
    if (is_odd ? a[i] == e[i] || (std::isnan(a[i]) && std::isnan(e[i])) : error <= limit[i]) {
      continue;
    }
    n_off += 1;
    const double ratio = is_odd ? HUGE_VAL : error / limit[i];
    if (ratio > worst_ratio) {
      worst_ratio = ratio;
      worst = i;
    }
  }
  return n_off == 0 ? ""
                    : text(n_off, " of ", got.size(), " elements are off; worst number ", worst, " = ", a[worst],
                           ", expected ", e[worst], ", ", worst_ratio, " of its bound");
}

std::string bits(const Outcome& outcome) {
  std::string all;
  for (const Check& check : outcome.checks) {
    const Array y = relayout(outcome.values.at(check.tensor), Layout::row_major);
    all.append(reinterpret_cast<const char*>(y.bytes()), static_cast<std::size_t>(y.size() * item_bytes(y.dtype())));
  }
  return all;
}

int replay(const std::string& path) {
  const SafetensorsFile file = read_safetensors(path);
  std::map<std::string, std::map<int, Array>> given;
  for (const auto& [key, tensor] : file.tensors) {
    const std::size_t slash = key.rfind('/');
    given[key.substr(0, slash)].emplace(std::stoi(key.substr(slash + 1)), tensor);
  }
  check<std::invalid_argument>(!file.metadata.empty(), "law_replay: expected cases in ", path, ", got none");
  int n_failures = 0;
  std::size_t n_checks = 0;
  const auto fail = [&](const std::string& name, const std::string& what) {
    n_failures += 1;
    std::cout << isa_name(active_isa()) << " " << name << ": " << what << "\n";
  };
  for (const Isa isa : available_isas()) {
    set_isa(isa);
    for (const auto& [name, program] : file.metadata) {
      try {
        std::string first;
        for (const int n_threads : {1, 2, 3}) {
          set_thread_count(n_threads);
          const Outcome outcome = run(program, given[name]);
          if (n_threads > 1) {
            if (bits(outcome) != first) {
              fail(name, text(n_threads, " threads give other bits than one"));
            }
            continue;
          }
          first = bits(outcome);
          check<std::invalid_argument>(!outcome.checks.empty(), "expected a check, got none");
          for (const Check& c : outcome.checks) {
            n_checks += 1;
            const std::string what =
                complaint(outcome.values.at(c.tensor), outcome.values.at(c.expected), outcome.values.at(c.bound));
            if (!what.empty()) {
              fail(name, text("tensor ", c.tensor, ": ", what));
            }
          }
        }
      } catch (const std::exception& error) {
        fail(name, error.what());
      }
    }
  }
  std::cout << file.metadata.size() << " cases, " << available_isas().size() << " instruction sets (" << build_description()
            << "), " << n_checks << " results checked: " << n_failures << " failures\n";
  return n_failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace striate

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: law_replay FILE\n";
    return 2;
  }
  try {
    return striate::replay(argv[1]);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 2;
  }
}
