#include "npy.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <limits>
#include <regex>
#include <stdexcept>

namespace {

float from_half(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31;
  const auto fraction = static_cast<float>(bits & 1023);
  float value = std::ldexp(fraction, -24);  // zero and subnormal numbers
  if (exponent == 31) {
    value = fraction == 0 ? std::numeric_limits<float>::infinity()
                          : std::numeric_limits<float>::quiet_NaN();
  } else if (exponent > 0) {
    value = std::ldexp(1024 + fraction, exponent - 25);
  }
  return bits & 0x8000 ? -value : value;
}

// The text of a .npy file's header: its dtype, order and shape as a Python dictionary.
std::string read_header(std::ifstream& file) {
  unsigned char start[12] = {};  // magic, version, length of the header in 2 or 4 bytes
  file.read(reinterpret_cast<char*>(start), 8);
  if (!file || std::memcmp(start, "\x93NUMPY", 6) != 0) throw std::runtime_error("no .npy file");
  const int width = start[6] == 1 ? 2 : 4;
  file.read(reinterpret_cast<char*>(start + 8), width);
  std::size_t length = 0;
  for (int byte = width; byte-- > 0;) length = length << 8 | start[8 + byte];
  if (!file || length > 10000) throw std::runtime_error("a damaged header");
  std::string header(length, ' ');
  file.read(header.data(), static_cast<std::streamsize>(length));
  return header;
}

template <typename Stored>
std::vector<Stored> read_values(std::ifstream& file, std::size_t count) {
  std::vector<Stored> values(count);
  file.read(reinterpret_cast<char*>(values.data()),
            static_cast<std::streamsize>(count * sizeof(Stored)));
  if (!file) throw std::runtime_error("fewer values than its shape says");
  return values;
}

}  // namespace

Regions read_regions(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + ": cannot be read");
  try {
    const std::string header = read_header(file);
    const std::regex expected(
        R"(.*'descr': '<f([24])'.*'fortran_order': False.*'shape': \((\d+), (\d+), (\d+)\).*\s*)");
    std::smatch found;
    if (!std::regex_match(header, found, expected)) {
      throw std::runtime_error("expected (images, regions, dims), float32 or float16, got " + header);
    }
    Regions read{std::stoul(found[2]), std::stoul(found[3]), std::stoul(found[4]), {}};
    const std::size_t count = read.images * read.regions * read.dims;
    if (found[1] == "4") {
      read.values = read_values<float>(file, count);
    } else {
      for (const auto bits : read_values<std::uint16_t>(file, count)) {
        read.values.push_back(from_half(bits));
      }
    }
    return read;
  } catch (const std::exception& error) {
    throw std::runtime_error(path + ": " + error.what());
  }
}
