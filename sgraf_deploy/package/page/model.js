// Runs the bundle's text encoders and scorers in ONNX Runtime's WebAssembly build, on images that
// were encoded beforehand.

import { InferenceSession, Tensor, env } from "./runtime/ort.wasm.bundle.min.js";

const TILE = 16; // images that are scored at once
const PATIENCE = 30; // milliseconds until the page may draw and listen again

/** The files by path, as bytes. `progress` is called with (done, total) bytes. */
export async function download(files, progress) {
  const total = files.reduce((sum, file) => sum + file.bytes, 0);
  let done = 0;
  const advance = (bytes) => progress((done += bytes), total);
  const contents = files.map(async (file) => [file.path, await downloadOne(file, advance)]);
  return new Map(await Promise.all(contents));
}

async function downloadOne({ path, bytes }, advance) {
  const response = await fetch(path).catch((error) => {
    throw new Error(`The file ${path} could not be loaded: ${error.message}.`);
  });
  if (!response.ok) {
    throw new Error(`The file ${path} could not be loaded: the server answers ${response.status}.`);
  }
  const content = new Uint8Array(bytes);
  let length = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    if (length + value.length <= bytes) content.set(value, length);
    length += value.length;
    advance(value.length);
  }
  if (length !== bytes) {
    throw new Error(`The file ${path} is damaged: it has ${length} bytes in place of ${bytes}.`);
  }
  return content;
}

/** The members of a bundle and their encoded images, ready to score captions. */
export class Model {
  constructor(images, members) {
    this.images = images;
    this.members = members;
  }

  /** Open every graph; `page` is page.json, and `contents` are its downloads by path. */
  static async open(page, contents) {
    env.wasm.numThreads = 1; // more need headers that a plain file server does not send
    env.wasm.wasmBinary = contents.get(page.wasm);
    const members = [];
    for (const member of page.members) {
      const open = (path) => InferenceSession.create(contents.get(path));
      members.push({
        textEncoder: await open(member.text_encoder),
        scorer: await open(member.scorer),
        images: member.images.map(({ name, path, shape }) => ({
          name,
          shape,
          values: new Float32Array(contents.get(path).buffer),
        })),
      });
    }
    return new Model(page.names.length, members);
  }

  /**
   * The logits of all images for a caption's token ids; those of an ensemble are combined.
   * `progress` is called with (done, total) images; `signal` aborts between two tiles.
   */
  async score(tokenIds, { progress, signal }) {
    const total = this.images * this.members.length;
    const pause = pauses();
    const logits = [];
    for (const [index, member] of this.members.entries()) {
      const captions = await encodeCaption(member.textEncoder, tokenIds);
      const own = new Float32Array(this.images);
      for (let start = 0; start < this.images; start += TILE) {
        const stop = Math.min(start + TILE, this.images);
        own.set(await scoreTile(member, captions, start, stop), start);
        progress(index * this.images + stop, total);
        await pause();
        signal.throwIfAborted();
      }
      logits.push(own);
    }
    return combineLogits(logits);
  }
}

async function encodeCaption(session, tokenIds) {
  const lengths = new Tensor("int32", Int32Array.of(tokenIds.length), [1]);
  const ids = new Tensor("int32", Int32Array.from(tokenIds), [1, tokenIds.length]);
  return { ...(await session.run({ token_ids: ids, lengths })), lengths };
}

async function scoreTile({ scorer, images }, captions, start, stop) {
  const inputs = { ...captions };
  for (const { name, shape, values } of images) {
    const row = shape.reduce((product, size) => product * size, 1);
    const tile = values.subarray(start * row, stop * row);
    inputs[name] = new Tensor("float32", tile, [stop - start, ...shape]);
  }
  const { logits } = await scorer.run(inputs);
  return logits.data;
}

/** A function that lets the page draw and listen whenever it was kept from it for long enough. */
function pauses() {
  let last = performance.now();
  return async () => {
    if (performance.now() - last < PATIENCE) return;
    await new Promise((resume) => setTimeout(resume));
    last = performance.now();
  };
}

/**
 * The logit of the mean of the members' similarities. With s = log-sigmoid it is
 * logsumexp(s(x)) - logsumexp(s(-x)) over the members' logits x, in double precision.
 */
export function combineLogits(members) {
  if (members.length === 1) return members[0];
  return members[0].map((_, image) => {
    const logits = members.map((member) => member[image]);
    return logSumExp(logits.map(logSigmoid)) - logSumExp(logits.map((x) => logSigmoid(-x)));
  });
}

function logSigmoid(x) {
  return Math.min(x, 0) - Math.log1p(Math.exp(-Math.abs(x)));
}

function logSumExp(values) {
  const most = Math.max(...values);
  return most + Math.log(values.reduce((sum, value) => sum + Math.exp(value - most), 0));
}

/** The images from the best to the worst, equal ones in their order: row, logit, similarity. */
export function rankImages(logits) {
  const wrong = logits.findIndex(Number.isNaN);
  if (wrong >= 0) throw new Error(`The logit of image ${wrong} is not a number.`);
  return Array.from(logits, (logit, row) => ({ row, logit, similarity: 1 / (1 + Math.exp(-logit)) }))
    .sort((one, other) => other.logit - one.logit);
}
