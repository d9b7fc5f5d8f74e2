// Runs a graph once in ONNX Runtime for browsers: `node run_graph.mjs NODE_MODULES GRAPH FOLDER`.
//
// FOLDER holds inputs.json, {NAME: [TYPE, SHAPE]}, and the values of every input raw in a file of
// its name. The outputs are written beside them in the same way, with outputs.json.
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [nodeModules, graph, folder] = process.argv.slice(2);
const ort = createRequire(`${nodeModules}/`)("onnxruntime-web");
ort.env.wasm.numThreads = 1;

const arrays = { float32: Float32Array, int32: Int32Array };
const feeds = {};
for (const [name, [type, shape]] of Object.entries(read("inputs.json"))) {
  const bytes = new Uint8Array(readFileSync(join(folder, name))).buffer;
  feeds[name] = new ort.Tensor(type, new arrays[type](bytes), shape);
}
const session = await ort.InferenceSession.create(readFileSync(graph), {
  executionProviders: ["wasm"],
});
const described = {};
for (const [name, tensor] of Object.entries(await session.run(feeds))) {
  writeFileSync(join(folder, name), tensor.data);
  described[name] = [tensor.type, tensor.dims];
}
writeFileSync(join(folder, "outputs.json"), JSON.stringify(described));

function read(name) {
  return JSON.parse(readFileSync(join(folder, name), "utf8"));
}
