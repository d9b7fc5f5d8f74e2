// Reads region features from the .npy files that NumPy writes.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

// Features of images: (images, regions, dims), in row-major order.
struct Regions {
  std::size_t images;
  std::size_t regions;
  std::size_t dims;
  std::vector<float> values;
};

// Reads a file of three axes, float32 or float16, little-endian as this machine must be.
// Throws std::runtime_error for any other file.
Regions read_regions(const std::string& path);
