// Runs a program that Python saved.
//
//   run_program FILE [INPUT]
//
// INPUT holds the float32 numbers of all inputs one after another, in logical order (N, C, H, W); without it they are zeros.
// Inputs have the sizes of the recorded example. Prints each result's shape and its five largest values with their places.
#include <algorithm>
#include <cstdint>
#include <exception>
#include <fstream>
#include <iostream>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "striate/ops.hpp"
#include "striate/program.hpp"

namespace {

striate::Array read_input(const striate::Value& value, std::istream* source) {
  const striate::Array x = striate::Array::empty(striate::DType::float32, values(value.shape));
  const auto n = static_cast<std::size_t>(x.size());
  std::fill_n(x.data<float>(), n, 0.0F);
  if (source != nullptr) {
    source->read(reinterpret_cast<char*>(x.data<float>()), static_cast<std::streamsize>(n * sizeof(float)));
    striate::check<std::runtime_error>(source->good(), "run_program: expected ", n, " numbers for '", value.name,
                                       "', got the end of the file");
  }
  return x;
}

void print(const striate::Array& result) {
  using striate::DType;
  using striate::Layout;
  const striate::Array y = relayout(convert(result, DType::float32), Layout::row_major);
  const std::span<const float> numbers(y.data<float>(), static_cast<std::size_t>(y.size()));
  std::vector<std::size_t> order(numbers.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto n_shown = static_cast<std::ptrdiff_t>(std::min<std::size_t>(order.size(), 5));
  std::partial_sort(order.begin(), order.begin() + n_shown, order.end(),
                    [&](std::size_t a, std::size_t b) { return numbers[a] > numbers[b]; });
  std::cout << to_string(result.shape()) << '\n';
  for (const std::size_t i : std::span(order).first(static_cast<std::size_t>(n_shown))) {
    std::cout << "  " << i << ": " << numbers[i] << '\n';
  }
}

void run(const std::string& path, std::istream* source) {
  striate::GraphFile file = striate::load_graph(path);
  const striate::Program program(std::move(file.graph), {}, std::move(file.pinned));
  const striate::Graph& graph = program.graph();
  std::vector<striate::Array> inputs;
  for (const striate::ValueId id : graph.inputs()) {
    inputs.push_back(read_input(graph.value(id), source));
  }
  for (const striate::Array& result : program.run(inputs, {})) {
    print(result);
  }
}

}  // namespace

int main(int n_arguments, char** arguments) {
  if (n_arguments < 2 || n_arguments > 3) {
    std::cerr << "usage: run_program FILE [INPUT]\n";
    return 2;
  }
  try {
    std::ifstream input;
    if (n_arguments == 3) {
      input.open(arguments[2], std::ios::binary);
    }
    run(arguments[1], n_arguments == 3 ? &input : nullptr);
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
