// Runs a combined graph of `sgraf-deploy export --combined`; onnxruntime.cpp and openvino.cpp each
// implement it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "npy.h"

// Of every image: the logit, by which images are ranked, and its similarity in 0 … 1.
struct Scores {
  std::vector<float> logits;
  std::vector<float> similarities;
};

// Scores all images with one caption, given by its token ids, <start> and <end> included.
Scores score(const std::string& graph, Regions regions, std::vector<std::int32_t> token_ids);
