#include "striate/safetensors.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <memory>
#include <set>
#include <string_view>
#include <system_error>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tensor/copy_elements.hpp"
#include "tensor/json.hpp"

namespace striate {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors stores little-endian numbers");

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // what the reference reader accepts
constexpr const char* kMetadata = "__metadata__";

struct TypeName {
  DType dtype;
  std::string_view name;
};
constexpr TypeName kTypeNames[kDTypes] = {{DType::float32, "F32"},   {DType::float64, "F64"}, {DType::float16, "F16"},
                                          {DType::bfloat16, "BF16"}, {DType::int8, "I8"},     {DType::uint8, "U8"},
                                          {DType::int32, "I32"},     {DType::int64, "I64"},   {DType::boolean, "BOOL"}};

[[noreturn]] void throw_system(const char* what, const std::string& path) {
  throw std::system_error(errno, std::generic_category(), std::string("safetensors: ") + what + " '" + path + "'");
}

class Descriptor {
 public:
  Descriptor(const std::string& path, int flags, mode_t mode = 0) : fd_(::open(path.c_str(), flags | O_CLOEXEC, mode)) {
    if (fd_ < 0) {
      throw_system("cannot open", path);
    }
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { ::close(fd_); }
  [[nodiscard]] int get() const { return fd_; }

 private:
  int fd_;
};

class Map {
 public:
  explicit Map(const std::string& path) {
    const Descriptor file(path, O_RDONLY);
    struct stat status {};
    if (::fstat(file.get(), &status) != 0) {
      throw_system("cannot examine", path);
    }
    if (S_ISDIR(status.st_mode)) {
      errno = EISDIR;
      throw_system("cannot read", path);
    }
    bytes_ = static_cast<std::uint64_t>(status.st_size);
    if (bytes_ > 0) {
      data_ = ::mmap(nullptr, bytes_, PROT_READ, MAP_PRIVATE, file.get(), 0);
      if (data_ == MAP_FAILED) {
        data_ = nullptr;
        throw_system("cannot map", path);
      }
    }
  }
  Map(const Map&) = delete;
  Map& operator=(const Map&) = delete;
  ~Map() {
    if (data_ != nullptr) {
      ::munmap(data_, bytes_);
    }
  }
  [[nodiscard]] const char* data() const { return static_cast<const char*>(data_); }
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  std::uint64_t bytes_ = 0;
};

struct Entry {
  std::string key;
  DType dtype = DType::float32;
  Extents shape;
  std::uint64_t begin = 0;  // in the buffer
  std::uint64_t end = 0;
  std::uint64_t position = 0;  // of the key, in the file
};

// Reads the one shape of JSON that a header has: no recursion, so no nesting can exhaust the stack.
class HeaderParser : private JsonScanner {
 public:
  HeaderParser(const std::string& path, const char* file, std::uint64_t begin, std::uint64_t end)
      : JsonScanner("safetensors", text("'", path, "'"), "the file is damaged or not safetensors", file, begin, end) {}

  void parse(std::vector<Entry>& entries, std::map<std::string, std::string>& metadata) {
    if (at_ == end_ || data_[at_] != '{') {
      refuse("a header that starts with '{'");
    }
    std::set<std::string> seen;
    object([&](std::string key, std::uint64_t position) {
      if (!seen.insert(key).second) {
        at_ = position;
        key_ = key;
        refuse("every key once");
      }
      key_ = key;
      if (key == kMetadata) {
        parse_metadata(metadata);
      } else {
        Entry entry;
        entry.key = std::move(key);
        entry.position = position;
        parse_tensor(entry);
        entries.push_back(std::move(entry));
      }
      key_.clear();
    });
    skip_space();
    if (at_ != end_) {
      refuse("nothing but spaces after the header's '}'");
    }
  }

 private:
  [[noreturn]] void refuse_at(std::uint64_t position, const std::string& expected, const std::string& got) const {
    throw FormatError(text("safetensors: expected ", expected, " at byte ", position, " of ", where(), " (key '", key_,
                           "'), got ", got, "; the file is damaged or of a type striate does not read"));
  }

  void parse_metadata(std::map<std::string, std::string>& metadata) {
    object([&](std::string name, std::uint64_t position) {
      skip_space();
      std::string value = string();
      if (!metadata.emplace(std::move(name), std::move(value)).second) {
        at_ = position;
        refuse("every key of the metadata once");
      }
    });
  }

  void parse_dtype(Entry& entry) {
    skip_space();
    const std::uint64_t position = at_;
    const std::string name = string();
    const auto* found =
        std::find_if(std::begin(kTypeNames), std::end(kTypeNames), [&](const TypeName& t) { return t.name == name; });
    if (found == std::end(kTypeNames)) {
      refuse_at(position, "a dtype of F32, F64, F16, BF16, I8, U8, I32, I64 or BOOL", text('\'', name, '\''));
    }
    entry.dtype = found->dtype;
  }

  void parse_tensor(Entry& entry) {
    bool has_dtype = false;
    bool has_shape = false;
    bool has_offsets = false;
    object([&](const std::string& field, std::uint64_t position) {
      bool& has = field == "dtype" ? has_dtype : field == "shape" ? has_shape : has_offsets;
      if (has || (field != "dtype" && field != "shape" && field != "data_offsets")) {
        refuse_at(position, "dtype, shape and data_offsets, each once", text('\'', field, '\''));
      }
      has = true;
      if (field == "dtype") {
        parse_dtype(entry);
      } else if (field == "shape") {
        array([&] {
          const std::uint64_t extent = number();
          if (entry.shape.rank() == kMaxRank) {
            refuse_at(position, text("at most ", kMaxRank, " axes"), "more");
          }
          entry.shape.push_back(static_cast<std::ptrdiff_t>(extent));
        });
      } else {
        std::uint64_t offsets[2] = {0, 0};
        int n = 0;
        array([&] {
          if (n == 2) {
            refuse("two data_offsets");
          }
          offsets[n++] = number();
        });
        if (n != 2) {
          refuse("two data_offsets before this place");
        }
        entry.begin = offsets[0];
        entry.end = offsets[1];
      }
    });
    if (!has_dtype || !has_shape || !has_offsets) {
      refuse_at(entry.position, "dtype, shape and data_offsets",
                text("no ", !has_dtype   ? "dtype"
                            : !has_shape ? "shape"
                                         : "data_offsets"));
    }
    auto bytes = static_cast<std::uint64_t>(item_bytes(entry.dtype));
    bool is_empty = false;
    bool overflows = false;
    for (const std::ptrdiff_t extent : entry.shape) {
      is_empty = is_empty || extent == 0;
      overflows = overflows || __builtin_mul_overflow(bytes, static_cast<std::uint64_t>(extent > 0 ? extent : 1), &bytes);
    }
    bytes = is_empty ? 0 : bytes;
    if ((overflows && !is_empty) || entry.end < entry.begin || entry.end - entry.begin != bytes) {
      refuse_at(entry.position,
                text("data_offsets that hold shape ", to_string(entry.shape), " of ", dtype_name(entry.dtype)),
                text("[", entry.begin, ", ", entry.end, "]"));
    }
  }
};

// Offsets must tile the buffer: no gap, no overlap, nothing behind the last tensor.
void check_tiling(const std::string& path, const std::vector<Entry>& entries, std::uint64_t buffer_begin,
                  std::uint64_t buffer_bytes) {
  std::uint64_t expected = 0;
  for (const Entry& entry : entries) {
    if (entry.begin != expected || entry.end > buffer_bytes) {
      throw FormatError(text("safetensors: expected the tensors to fill the ", buffer_bytes,
                             " bytes of data without gap or ", "overlap, the next one at offset ", expected,
                             ", got offsets [", entry.begin, ", ", entry.end, "] at byte ", entry.position, " of '", path,
                             "' (key '", entry.key, "'); the file is damaged or cut off"));
    }
    expected = entry.end;
  }
  if (expected != buffer_bytes) {
    throw FormatError(text("safetensors: expected the data to end with the last tensor at byte ", buffer_begin + expected,
                           " of '", path, "', got a file of ", buffer_begin + buffer_bytes, " bytes; the file is damaged"));
  }
}

void write_all(int fd, const void* data, std::uint64_t bytes, const std::string& path) {
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::write(fd, at, static_cast<std::size_t>(std::min<std::uint64_t>(bytes, 1U << 30)));
    if (n < 0) {
      if (errno == EINTR) {
        continue;
      }
      throw_system("cannot write", path);
    }
    at += n;
    bytes -= static_cast<std::uint64_t>(n);
  }
}

void flush(int fd, const std::string& path) {
  if (::fsync(fd) != 0 && errno != EINVAL && errno != EROFS) {  // some file systems cannot flush a folder
    throw_system("cannot flush", path);
  }
}

std::string header(const std::vector<const std::pair<std::string, Array>*>& order,
                   const std::map<std::string, std::string>& metadata) {
  std::string out = "{";
  if (!metadata.empty()) {
    append_json_string(out, kMetadata);
    out += ":{";
    for (const auto& [name, value] : metadata) {
      out += out.back() == '{' ? "" : ",";
      append_json_string(out, name);
      out.push_back(':');
      append_json_string(out, value);
    }
    out.push_back('}');
  }
  std::ptrdiff_t offset = 0;
  for (const auto* item : order) {
    const Array& array = item->second;
    out += out.size() == 1 ? "" : ",";
    append_json_string(out, item->first);
    const auto* type = std::find_if(std::begin(kTypeNames), std::end(kTypeNames),
                                    [&](const TypeName& t) { return t.dtype == array.dtype(); });
    out += text(":{\"dtype\":\"", type->name, "\",\"shape\":[");
    for (int axis = 0; axis < array.rank(); ++axis) {
      out += text(axis > 0 ? "," : "", array.shape(axis));
    }
    const std::ptrdiff_t end = offset + array.size() * item_bytes(array.dtype());
    out += text("],\"data_offsets\":[", offset, ",", end, "]}");
    offset = end;
  }
  out.push_back('}');
  out.resize((out.size() + 7) / 8 * 8, ' ');  // so that the buffer is aligned
  return out;
}

}  // namespace

SafetensorsFile read_safetensors(const std::string& path) {
  const auto map = std::make_shared<const Map>(path);
  std::uint64_t header_bytes = 0;
  if (map->bytes() < kLengthBytes) {
    throw FormatError(text("safetensors: expected ", kLengthBytes, " bytes of header length at byte 0 of '", path,
                           "', got a file of ", map->bytes(), " bytes; the file is cut off or not safetensors"));
  }
  std::memcpy(&header_bytes, map->data(), kLengthBytes);
  if (header_bytes > kMaxHeaderBytes || header_bytes > map->bytes() - kLengthBytes) {
    throw FormatError(text("safetensors: expected a header length of at most ",
                           std::min(kMaxHeaderBytes, map->bytes() - kLengthBytes), " at byte 0 of '", path, "', got ",
                           header_bytes, "; the file is cut off or not safetensors"));
  }
  const std::uint64_t buffer_begin = kLengthBytes + header_bytes;
  SafetensorsFile file;
  std::vector<Entry> entries;
  HeaderParser(path, map->data(), kLengthBytes, buffer_begin).parse(entries, file.metadata);
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
  check_tiling(path, entries, buffer_begin, map->bytes() - buffer_begin);
  for (Entry& entry : entries) {
    auto* data = const_cast<char*>(map->data()) + buffer_begin + entry.begin;  // the storage is marked read-only
    const auto bytes = static_cast<std::ptrdiff_t>(entry.end - entry.begin);
    if (entry.dtype == DType::boolean) {
      const auto* bad = std::find_if(data, data + bytes, [](char c) { return c != 0 && c != 1; });
      if (bad != data + bytes) {
        throw FormatError(text("safetensors: expected 0 or 1 at byte ", bad - map->data(), " of '", path, "' (key '",
                               entry.key, "' of bool), got ", static_cast<int>(static_cast<unsigned char>(*bad)),
                               "; the file is damaged"));
      }
    }
    Array array;
    if (reinterpret_cast<std::uintptr_t>(data) % static_cast<std::uintptr_t>(item_bytes(entry.dtype)) == 0) {
      array = Array::view(StorageRef(Storage::borrow_mapped(data, bytes, [map] {})), entry.dtype, entry.shape,
                          dense_strides(entry.shape, Layout::row_major), 0);
    } else {
      array = Array::empty(entry.dtype, entry.shape);
      std::memcpy(array.bytes(), data, static_cast<std::size_t>(bytes));
    }
    file.tensors.emplace_back(std::move(entry.key), std::move(array));
  }
  return file;
}

void write_safetensors(const std::string& path, const std::vector<std::pair<std::string, Array>>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<const std::pair<std::string, Array>*> order;
  for (const auto& item : tensors) {
    if (item.first == kMetadata) {
      throw std::invalid_argument("safetensors: expected a key other than '__metadata__', got it; the format reserves it");
    }
    order.push_back(&item);
  }
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    const std::ptrdiff_t a_bytes = item_bytes(a->second.dtype());
    const std::ptrdiff_t b_bytes = item_bytes(b->second.dtype());
    return a_bytes != b_bytes ? a_bytes > b_bytes : a->first < b->first;
  });
  const std::string head = header(order, metadata);
  const std::uint64_t head_bytes = head.size();
  if (head_bytes > kMaxHeaderBytes) {
    throw std::invalid_argument(text("safetensors: expected a header of at most ", kMaxHeaderBytes, " bytes, got ",
                                     head_bytes, "; use shorter keys or less metadata"));
  }
  const std::string temporary = text(path, ".", ::getpid(), ".tmp");
  try {
    const Descriptor file(temporary, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    write_all(file.get(), &head_bytes, kLengthBytes, temporary);
    write_all(file.get(), head.data(), head_bytes, temporary);
    for (const auto* item : order) {
      Array array = item->second;
      if (!array.is_dense(Layout::row_major)) {
        Array copy = Array::empty(array.dtype(), array.shape());
        copy_elements(array, copy);
        array = std::move(copy);
      }
      write_all(file.get(), array.bytes(), static_cast<std::uint64_t>(array.size() * item_bytes(array.dtype())), temporary);
    }
    flush(file.get(), temporary);
    if (::rename(temporary.c_str(), path.c_str()) != 0) {
      throw_system("cannot rename to", path);
    }
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  const auto slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const Descriptor directory(folder, O_RDONLY | O_DIRECTORY);
  flush(directory.get(), folder);
}

}  // namespace striate
