// The page: a caption is typed, split into words, scored with every image, and the ranking shown.

import { Model, download, rankImages } from "./model.js";
import { CaptionError, Tokenizer, Vocabulary } from "./tokenizer.js";

const SHOWN = 20; // images of a ranking until more are asked for

const element = (id) => document.getElementById(id);
const number = (value) => value.toLocaleString("en");
const count = (value, noun) => `${number(value)} ${noun}${value === 1 ? "" : "s"}`;

/** A new element with properties and children, which are elements or texts. */
function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** Tells the state of things; `aside` is for those who hear the page and do not see it. */
function say(text, aside = "") {
  const parts = [text, make("span", { className: "spoken" }, aside)];
  element("status").replaceChildren(...(text === "" ? [] : parts));
}

function showProgress(done, total) {
  element("progress").hidden = done >= total;
  element("progress").value = done / total;
}

function showError(error) {
  element("error").textContent = error === null ? "" : error.message;
  element("error").hidden = error === null;
  if (error !== null) {
    element("progress").hidden = true;
    say("");
  }
}

async function load() {
  const response = await fetch("page.json").catch(() => null);
  if (!response?.ok) throw new Error("The file page.json could not be loaded.");
  const page = await response.json();
  describe(page);
  const bytes = page.downloads.reduce((sum, file) => sum + file.bytes, 0);
  say(`Loading the model and ${count(page.names.length, "image")}, ${(bytes / 1e6).toFixed(1)} MB…`);
  const contents = await download(page.downloads, showProgress);
  say("Opening the model…");
  const model = await Model.open(page, contents);
  const { most_words: mostWords, characters_per_word: charactersPerWord } = page.limits;
  const tokenizer = new Tokenizer({
    abbreviations: page.abbreviations,
    mostWords,
    charactersPerWord,
  });
  return { page, model, tokenizer, vocabulary: new Vocabulary(page.vocabulary) };
}

function describe(page) {
  document.title = page.title;
  element("title").textContent = page.title;
  const { name, module, members, sha256 } = page.bundle;
  element("footer").textContent =
    `${name}: ${module} (${members.join(" + ")}), sha256 ${sha256.slice(0, 16)}…, ` +
    `in ONNX Runtime Web ${page.runtime}, packaged by sgraf-deploy ${page.program}. ` +
    "Everything runs in this browser: what you type is sent nowhere.";
}

/** Splits a caption into words, and shows which of them the model does not know. */
function read(app, caption) {
  const words = app.tokenizer.tokenize(caption);
  const unknown = words.filter((word) => !app.vocabulary.has(word)).length;
  const chips = words.map((word) =>
    app.vocabulary.has(word)
      ? make("span", { className: "word" }, word)
      : make("span", { className: "word unknown", title: "not in the vocabulary" }, word),
  );
  const note =
    unknown === 0
      ? []
      : [
          make(
            "span",
            { className: "note" },
            unknown === words.length
              ? "The model knows none of these words: it sees only how many they are."
              : `${number(unknown)} of ${count(words.length, "word")} unknown to the model`,
          ),
        ];
  element("words").replaceChildren(...chips, ...note);
  element("words").hidden = false;
  return app.vocabulary.encode(words);
}

function row(app, { row: image, logit, similarity }, own) {
  const percent = similarity * 100;
  const bar = make("span", { className: "bar" });
  bar.style.width = `${percent.toFixed(2)}%`;
  const item = make(
    "li",
    {},
    make("span", { className: "name" }, app.page.names[image]),
    ...(image === own ? [make("span", { className: "own" }, "described by this example")] : []),
    make("span", { className: "track", ariaHidden: "true" }, bar),
    make("span", { className: "similarity", title: `logit ${logit.toFixed(3)}` },
      make("span", { className: "spoken" }, "similarity "), similarity.toFixed(4)),
  );
  Object.assign(item.dataset, { row: image, logit, similarity });
  return item;
}

function showRanking(app, ranking, own) {
  const items = ranking.map((image) => row(app, image, own));
  const more = element("more");
  element("ranking").replaceChildren(...items.slice(0, SHOWN));
  element("results").hidden = false;
  more.hidden = items.length <= SHOWN;
  more.textContent = `Show all ${count(items.length, "image")}`;
  more.onclick = () => {
    element("ranking").append(...items.slice(SHOWN));
    more.hidden = true;
    items[SHOWN].tabIndex = -1;
    items[SHOWN].focus();
  };
}

async function answer(app, caption, own, signal) {
  showError(null);
  const tokenIds = read(app, caption);
  const images = count(app.model.images, "image");
  element("results").ariaBusy = "true";
  say(`Ranking ${images}…`);
  const begin = performance.now();
  const logits = await app.model.score(tokenIds, { progress: showProgress, signal });
  const ranking = rankImages(logits);
  const seconds = ((performance.now() - begin) / 1000).toFixed(2);
  showRanking(app, ranking, own);
  element("results").ariaBusy = "false";
  const best = app.page.names[ranking[0].row];
  say(`Ranked ${images} in ${seconds} s.`, ` The best: ${best}`);
}

/** Answers one caption at a time: a newer one ends the work on the one before it. */
function listen(app) {
  let running = Promise.resolve();
  let controller = new AbortController();
  const ask = (caption, own = null) => {
    controller.abort();
    const { signal } = (controller = new AbortController());
    running = running.then(async () => {
      try {
        if (!signal.aborted) await answer(app, caption, own, signal);
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof CaptionError) {
          element("words").hidden = true;
          element("results").hidden = true;
        }
        showError(error);
      }
    });
  };
  element("form").addEventListener("submit", (event) => {
    event.preventDefault();
    const caption = element("caption").value;
    const example = app.page.examples.find((each) => each.caption === caption);
    ask(caption, example?.image);
  });
  for (const { caption } of app.page.examples) {
    const button = make("button", { type: "button" }, caption);
    button.addEventListener("click", () => {
      element("caption").value = caption;
      element("form").requestSubmit();
    });
    element("examples").append(button);
  }
  element("examples").hidden = app.page.examples.length === 0;
  for (const id of ["caption", "rank"]) element(id).disabled = false;
  element("caption").focus();
}

element("stuck").hidden = true;
try {
  const app = await load();
  listen(app);
  say(`Ready: ${count(app.model.images, "image")}. Type a caption, or take an example.`);
} catch (error) {
  showError(new Error(`${error.message} Load the page again, or look at how it is served.`));
}
