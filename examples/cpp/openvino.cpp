#include <openvino/openvino.hpp>

#include "score.h"

Scores score(const std::string& graph, Regions regions, std::vector<std::int32_t> token_ids) {
  ov::Core core;
  // Where a processor has bfloat16, OpenVINO would compute in it.
  auto model = core.compile_model(graph, "CPU", ov::hint::inference_precision(ov::element::f32));
  auto request = model.create_infer_request();

  std::vector<std::int32_t> lengths{static_cast<std::int32_t>(token_ids.size())};
  request.set_tensor("regions", {ov::element::f32,
                                 {regions.images, regions.regions, regions.dims},
                                 regions.values.data()});
  request.set_tensor("token_ids", {ov::element::i32, {1, token_ids.size()}, token_ids.data()});
  request.set_tensor("lengths", {ov::element::i32, {1}, lengths.data()});
  request.infer();

  const auto values = [&request](const char* output) {
    const auto tensor = request.get_tensor(output);  // (images, 1)
    const auto* first = tensor.data<float>();
    return std::vector<float>(first, first + tensor.get_size());
  };
  return {values("logits"), values("similarities")};
}
