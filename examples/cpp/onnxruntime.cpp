#include <onnxruntime_cxx_api.h>

#include "score.h"

Scores score(const std::string& graph, Regions regions, std::vector<std::int32_t> token_ids) {
  const Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "rerank");
  Ort::Session session(env, graph.c_str(), Ort::SessionOptions{});

  const auto words = static_cast<std::int64_t>(token_ids.size());
  const std::vector<std::int64_t> region_shape{static_cast<std::int64_t>(regions.images),
                                               static_cast<std::int64_t>(regions.regions),
                                               static_cast<std::int64_t>(regions.dims)};
  const std::vector<std::int64_t> caption_shape{1, words};
  std::vector<std::int32_t> lengths{static_cast<std::int32_t>(words)};
  const std::vector<std::int64_t> length_shape{1};

  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const auto tensor = [&memory](auto& values, const std::vector<std::int64_t>& shape) {
    return Ort::Value::CreateTensor(memory, values.data(), values.size(), shape.data(),
                                    shape.size());
  };
  const Ort::Value inputs[] = {tensor(regions.values, region_shape),
                               tensor(token_ids, caption_shape), tensor(lengths, length_shape)};
  const char* const input_names[] = {"regions", "token_ids", "lengths"};
  const char* const output_names[] = {"logits", "similarities"};
  const auto outputs =
      session.Run(Ort::RunOptions{nullptr}, input_names, inputs, 3, output_names, 2);

  const auto values = [&outputs, &regions](std::size_t output) {
    const auto* first = outputs[output].GetTensorData<float>();  // (images, 1)
    return std::vector<float>(first, first + regions.images);
  };
  return {values(0), values(1)};
}
