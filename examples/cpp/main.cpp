// Ranks images for a caption, as `sgraf-deploy rerank --caption` does.

#include <algorithm>
#include <cstdio>
#include <exception>
#include <numeric>
#include <string>
#include <vector>

#include "npy.h"
#include "score.h"

int main(int count, char** words) {
  if (count < 5) {
    std::fprintf(stderr, "usage: %s COMBINED.onnx REGIONS.npy TOP_K TOKEN_ID…\n", words[0]);
    return 2;
  }
  try {
    const auto top_k = static_cast<std::size_t>(std::stoul(words[3]));
    std::vector<std::int32_t> token_ids;
    for (int word = 4; word < count; ++word) token_ids.push_back(std::stoi(words[word]));

    // All images at once: give a large gallery in parts, so that memory does not grow with it.
    const Scores scores = score(words[1], read_regions(words[2]), token_ids);

    std::vector<std::size_t> rows(scores.logits.size());
    std::iota(rows.begin(), rows.end(), std::size_t{0});
    std::stable_sort(rows.begin(), rows.end(), [&scores](std::size_t one, std::size_t other) {
      return scores.logits[one] > scores.logits[other];
    });
    std::printf("rank  similarity      logit  row\n");
    for (std::size_t rank = 0; rank < std::min(top_k, rows.size()); ++rank) {
      const std::size_t row = rows[rank];
      std::printf("%4zu  %10.6f  %+9.6f  %3zu\n", rank + 1, scores.similarities[row],
                  scores.logits[row], row);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "Error: %s\n", error.what());
    return 1;
  }
  return 0;
}
