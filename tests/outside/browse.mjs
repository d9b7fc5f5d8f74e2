// Opens a packaged page in Chromium, types captions and reports what it shows:
// `node browse.mjs URL NODE_MODULES CHROMIUM <PLAN.json >REPORT.json`.
//
// The plan may hold `captions` to type; `all`, to have whole rankings shown; `dead`, for a page that
// cannot start; `screenshots`, paths by colour scheme; and the window's `width` and `height`. The
// report has `opening`, what the page showed once it was ready or had failed; `answers`, one for
// each caption; `requests`, every URL that was asked for; and `problems`, what the console and the
// page's errors said.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [url, nodeModules, executablePath] = process.argv.slice(2);
const plan = JSON.parse(readFileSync(0, "utf8"));
const require = createRequire(`${nodeModules}/`);
const { default: puppeteer } = await import(pathToFileURL(require.resolve("puppeteer-core")));

const browser = await puppeteer.launch({
  executablePath,
  args: ["--no-sandbox", "--disable-background-networking", "--disable-component-update"],
});
try {
  const page = await browser.newPage();
  const { width = 1000, height = 900 } = plan;
  await page.setViewport({ width, height });
  const requests = [];
  const problems = [];
  page.on("request", (request) => requests.push(request.url()));
  page.on("requestfailed", (request) => problems.push(`failed: ${request.url()}`));
  page.on("pageerror", (error) => problems.push(`${error}`));
  page.on("console", (message) => {
    if (["error", "warn", "warning"].includes(message.type())) problems.push(message.text());
  });
  await page.goto(url);
  if (plan.dead) {
    await page.waitForFunction(
      () => getComputedStyle(document.getElementById("stuck")).visibility === "visible",
    );
  } else {
    await page.waitForFunction(
      () => !document.getElementById("rank").disabled || !document.getElementById("error").hidden,
    );
  }
  const opening = await page.evaluate(shown);
  const answers = [];
  for (const caption of plan.captions ?? []) answers.push(await ask(page, caption));
  for (const [scheme, path] of Object.entries(plan.screenshots ?? {})) {
    await page.emulateMediaFeatures([
      { name: "prefers-color-scheme", value: scheme },
      { name: "prefers-reduced-motion", value: "reduce" },
    ]);
    await page.screenshot({ path });
  }
  process.stdout.write(JSON.stringify({ opening, answers, requests, problems }));
} finally {
  await browser.close();
}

/** Types a caption, submits it with the keyboard, and waits until the page has answered. */
async function ask(page, caption) {
  await page.evaluate(() => (document.getElementById("status").textContent = "typed"));
  await page.focus("#caption");
  await page.$eval("#caption", (input) => input.select());
  await page.keyboard.sendCharacter(caption);
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => {
    const [status, error, results] = ["status", "error", "results"].map((id) =>
      document.getElementById(id),
    );
    return !error.hidden || (status.textContent.startsWith("Ranked") && !results.hidden);
  });
  if (await page.$eval("#more", (more) => !more.hidden && more.offsetParent !== null)) {
    if (plan.all) await page.click("#more");
  }
  return page.evaluate(shown);
}

/** What the page shows: its texts, the unknown words, and the ranking. */
function shown() {
  const text = (id) => {
    const found = document.getElementById(id);
    return found.hidden ? null : found.textContent;
  };
  return {
    title: document.title,
    status: text("status"),
    error: text("error"),
    stuck: text("stuck"),
    unknown: [...document.querySelectorAll(".word.unknown")].map((word) => word.textContent),
    words: [...document.querySelectorAll(".word")].map((word) => word.textContent),
    ranking: [...document.querySelectorAll("#ranking li")].map((item) => ({
      row: Number(item.dataset.row),
      logit: Number(item.dataset.logit),
      similarity: Number(item.dataset.similarity),
      name: item.querySelector(".name").textContent,
      shown: item.querySelector(".similarity").lastChild.textContent,
    })),
    resultsHidden: document.getElementById("results").hidden,
  };
}
