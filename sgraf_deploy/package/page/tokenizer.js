// Splits captions into words exactly as the bundle's tokenizer does in Python: Punkt's sentences,
// with the vocabulary's abbreviations, and then NLTK's words of each sentence.

// Two regular-expression libraries of Python take part, whose classes of characters differ.
const SPACE = "\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const ANY_SPACE = `${SPACE}\\x1c-\\x1f`;
const WORD = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}";
const LETTER_OR_NUMBER = "\\p{L}\\p{N}_";

const BLANKS = new RegExp(`[${ANY_SPACE}]+`, "u");

/** A caption that cannot be read; its message is for the person who typed it. */
export class CaptionError extends Error {}

/** Splits captions of at most `mostWords` words, `<start>` and `<end>` included; null: of any. */
export class Tokenizer {
  constructor({ abbreviations, mostWords, charactersPerWord }) {
    this.abbreviations = new Set(abbreviations);
    this.mostWords = mostWords;
    this.charactersPerWord = charactersPerWord;
  }

  /** The words of a caption, in order; throws CaptionError for one without words or too long. */
  tokenize(caption) {
    this.checkText(caption);
    const text = caption.toLowerCase();
    const words = sentencesOf(text, this.abbreviations).flatMap(wordsOf);
    if (words.length === 0) throw new CaptionError("Type a caption of at least one word.");
    this.checkWords(words.length + 2);
    return words;
  }

  /** What is too long however it is split is refused before it is split, which takes its time. */
  checkText(caption) {
    if (this.mostWords === null) return;
    const most = this.charactersPerWord * this.mostWords;
    const length = [...caption].length;
    if (length > most) {
      const [has, limit] = [length, most].map((number) => number.toLocaleString("en"));
      throw new CaptionError(`The caption has ${has} characters; at most ${limit} are read.`);
    }
    this.checkWords(parts(caption).length + 2);
  }

  checkWords(words) {
    if (this.mostWords === null || words <= this.mostWords) return;
    const [has, limit] = [words, this.mostWords].map((number) => number.toLocaleString("en"));
    throw new CaptionError(
      `The caption has ${has} words, counting <start> and <end>; at most ${limit} are read.`,
    );
  }
}

/** Words and their ids, which are their places. */
export class Vocabulary {
  constructor(words) {
    this.ids = new Map(words.map((word, id) => [word, id]));
  }

  has(word) {
    return this.ids.has(word);
  }

  /** The ids of the words between those of `<start>` and `<end>`; unknown words are `<unk>`. */
  encode(words) {
    const unknown = this.ids.get("<unk>");
    const found = words.map((word) => this.ids.get(word) ?? unknown);
    return [this.ids.get("<start>"), ...found, this.ids.get("<end>")];
  }
}

/** What Python's str.split() gives. */
function parts(text) {
  return text.split(BLANKS).filter((part) => part !== "");
}

// ---- Sentences: Punkt without trained parameters ------------------------------------------------

const CLOSING = "[)\";}\\]*:@'({\\[‘’“”«»?!]"; // may stand right behind a sentence's last character
const DOTS_OR_DASHES = `(?:-{2,}|\\.{2,}|(?:\\.[${SPACE}]){2,}\\.)`;
const WORD_END = `(?:$|[${SPACE}]|${CLOSING}|${DOTS_OR_DASHES})`;

/** A character that may end a sentence, with what follows it. */
const POSSIBLE_END = new RegExp(
  `[.?!](?=(?<after>${CLOSING}|[${SPACE}]+(?<next>[^${SPACE}]+)))`,
  "gu",
);
const PUNKT_TOKEN = new RegExp(
  `${DOTS_OR_DASHES}` +
    `|(?!["(\`{[:;&#*@)}\\]\\-,])[^${SPACE}]+?(?=${WORD_END}|,${WORD_END})` +
    `|[^${SPACE}]`,
  "gu",
);
const NUMBER = /^-?[.,]?\p{Nd}[\p{Nd},.-]*$/u;
const INITIAL = new RegExp(`^(?!\\p{Nd})[${WORD}]\\.$`, "u");
const DOTS = /^\.\.+$/;
const NO_START = new Set([";", ":", ",", ".", "!", "?"]);
const LEFT_OVER = new RegExp(`^(["')\\]}‘’“”«»]+?)(?:[${SPACE}]+|(?=--)|$)`, "u");

function sentencesOf(text, abbreviations) {
  const pieces = [];
  let start = 0;
  for (const { context, end, next } of possibleEnds(text)) {
    if (!isBroken(context, abbreviations)) continue;
    pieces.push({ start, end });
    start = next;
  }
  pieces.push({ start, end: trimmedEnd(text) });
  return withClosings(text, pieces);
}

/** The places where a sentence may end: of several in one word the last, each with its context. */
function possibleEnds(text) {
  const found = [];
  let word = { start: 0, end: 0 };
  let last = null;
  for (const match of text.matchAll(POSSIBLE_END)) {
    const space = lastBlank(text, word.end, match.index);
    const start = space > word.end ? space + 1 : word.start;
    if (last !== null && word.end <= start) found.push(last);
    word = { start, end: match.index };
    const end = match.index + 1;
    const { after, next } = match.groups;
    last = {
      context: text.slice(start, end) + after,
      end,
      next: next === undefined ? end : end + after.length - next.length,
    };
  }
  if (last !== null) found.push(last);
  return found;
}

/** The index of the last blank of ASCII in a part of a text, or -1. */
function lastBlank(text, from, to) {
  for (let index = to - 1; index >= from; index -= 1) {
    if (" \t\n\r\v\f".includes(text[index])) return index;
  }
  return -1;
}

/** Whether a sentence ends before the last token of a context. */
function isBroken(context, abbreviations) {
  const tokens = context
    .split("\n")
    .filter((line) => parts(line).length > 0)
    .flatMap((line) => line.match(PUNKT_TOKEN) ?? []);
  return tokens
    .slice(0, -1)
    .some((token, index) => endsSentence(token, tokens[index + 1], abbreviations));
}

function endsSentence(token, next, abbreviations) {
  if (token === "?" || token === "!") return true;
  if (!token.endsWith(".") || DOTS.test(token)) return false;
  const stem = token.slice(0, -1);
  if (abbreviations.has(stem) || abbreviations.has(stem.split("-").at(-1))) return false;
  const initial = INITIAL.test(token);
  if (!initial && !NUMBER.test(token)) return true;
  // After an initial or an ordinal number, in lower case, the sentence most likely goes on.
  if (NO_START.has(next) || /^\p{Lowercase}/u.test(next)) return false;
  return !(initial && /^\p{Uppercase}/u.test(next));
}

/** The sentences of pieces: quotes and brackets that close one belong to it, not to the next. */
function withClosings(text, pieces) {
  const sentences = [];
  let skipped = 0;
  pieces.forEach(({ start, end }, index) => {
    const next = pieces[index + 1];
    const from = start + skipped;
    const closing = next && text.slice(next.start, Math.max(next.start, next.end)).match(LEFT_OVER);
    skipped = closing ? closing[0].length : 0;
    const to = closing ? next.start + closing[1].length : end;
    if (to > from) sentences.push(text.slice(from, to));
  });
  return sentences;
}

/** The length of a text without blanks at its end. */
function trimmedEnd(text) {
  return text.replace(new RegExp(`[${ANY_SPACE}]+$`, "u"), "").length;
}

// ---- Words: what NLTK's patterns replace, in their order ----------------------------------------

const rule = (pattern, replacement, flags = "") => [new RegExp(pattern, `gu${flags}`), replacement];
const END = "(?=\\n?$)"; // where Python's $ matches

/** A contraction of two parts, between other characters than those of words. */
const contraction = (first, second, before, after) =>
  rule(`${before}(${first})(${second})${after}`, " $1 $2 ", "i");
const [BEFORE, AFTER] = [`(?<![${LETTER_OR_NUMBER}])`, `(?![${LETTER_OR_NUMBER}])`];

const RULES = [
  // Opening quotes.
  rule("[«“‘„]|`+", " $& "),
  rule('^"', "``"),
  rule("``", " $& "),
  rule("([ ([{<])(?:\"|'{2})", "$1 `` "),
  rule(`(?<![${WORD}])'(?!(?:re|ve|ll|m|t|s|d|n)(?![${WORD}]))(?=[${WORD}])`, "$& ", "i"),
  // Punctuation; the look-ahead keeps the closing characters from being tried in parts.
  rule(`([^.])(\\.)(?=([\\])}>"'»”’ ]*))\\3[${SPACE}]*${END}`, "$1 $2 $3 "),
  rule("([:,])(\\P{Nd})", " $1 $2"),
  rule(`[:,]${END}`, " $& "),
  rule("\\.{2,}", " $& "),
  rule("[;@#$%&]", " $& "),
  rule("[\\u2012-\\u2015]", " $& "),
  rule(`([^.])(\\.)([\\])}>"']*)[${SPACE}]*${END}`, "$1 $2$3 "),
  rule("[?!]", " $& "),
  rule("([^'])' ", "$1 ' "),
  rule("\\*", " $& "),
  rule("[\\][(){}<>]", " $& "),
  rule("--", " -- "),
];

const LATER_RULES = [
  // Closing quotes, possessives and other endings.
  rule("[»”’]", " $& "),
  rule("''", " '' "),
  rule('"', " '' "),
  rule(`[${SPACE}]+`, " "),
  rule("([^' ])('[sS]|'[mM]|'[dD]|') ", "$1 $2 "),
  rule("([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", "$1 $2 "),
  // Contractions; Python takes a dotless i for an i here.
  contraction("can", "not", BEFORE, AFTER),
  contraction("d", "'ye", BEFORE, AFTER),
  contraction("g[iı]m", "me", BEFORE, AFTER),
  contraction("gon", "na", BEFORE, AFTER),
  contraction("got", "ta", BEFORE, AFTER),
  contraction("lem", "me", BEFORE, AFTER),
  contraction("more", "'n", BEFORE, AFTER),
  contraction("wan", "na", BEFORE, `(?=[${ANY_SPACE}])`),
  contraction("'t", "[iı]s", " ", AFTER),
  contraction("'t", "was", " ", AFTER),
];

function wordsOf(sentence) {
  const replaced = (text, rules) =>
    rules.reduce((now, [pattern, replacement]) => now.replace(pattern, replacement), text);
  return parts(replaced(` ${replaced(sentence, RULES)} `, LATER_RULES));
}
