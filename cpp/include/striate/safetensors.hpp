// The safetensors format: 8 bytes of header length (little-endian), a JSON header, then one buffer without holes.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "striate/tensor.hpp"

namespace striate {

// A file that breaks the format. The text names the file, the byte and, where there is one, the key.
struct FormatError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

struct SafetensorsFile {
  std::vector<std::pair<std::string, Array>> tensors;  // in the order of the buffer
  std::map<std::string, std::string> metadata;
};

// Maps a file and checks all of its header before any tensor is made. Tensors are row-major, read-only views of the map,
// which lives as long as one of them; a tensor that the file misaligns is copied. Throws FormatError, or std::system_error
// when the system refuses. The file must not be truncated by others while it is in use.
[[nodiscard]] SafetensorsFile read_safetensors(const std::string& path);

// Writes a file whose bytes depend on the arguments only: tensors by falling item size, then key; metadata by key.
// Atomic: writes a temporary file beside `path`, flushes it to the disk, renames it, and flushes the folder.
void write_safetensors(const std::string& path, const std::vector<std::pair<std::string, Array>>& tensors,
                       const std::map<std::string, std::string>& metadata);

}  // namespace striate
