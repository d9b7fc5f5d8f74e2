// Splits captions with the page's tokenizer: `node tokenize.mjs TOKENIZER.js <CASES.json`.
// A case is {tokenizer: {…}, captions: […]}; the answer has, for each caption, words or null.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const { CaptionError, Tokenizer } = await import(pathToFileURL(process.argv[2]));
const { tokenizer, captions } = JSON.parse(readFileSync(0, "utf8"));
const made = new Tokenizer(tokenizer);

function words(caption) {
  try {
    return made.tokenize(caption);
  } catch (error) {
    if (!(error instanceof CaptionError)) throw error;
    return null;
  }
}

process.stdout.write(JSON.stringify(captions.map(words)));
