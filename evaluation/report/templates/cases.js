"use strict";
// Texts of data become text nodes and nothing else; pictures are addressed by their hashes.
const { cases, models } = JSON.parse(document.getElementById("data").textContent);
const OTHER = "any";
const state = new Map(new URLSearchParams(location.hash.slice(1)));
let shown = [];
let place = 0;

function element(name, text = "", kind = "") {
  const made = document.createElement(name);
  if (text !== "") made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

const verdictOf = (answer) => answer.right === null || answer.right === undefined ? "not scored"
  : answer.right ? "right" : answer.said === "" ? "unread" : "wrong";
const of = (one, model) => one.answers.filter((answer) => models[answer.model] === model);

const values = (pick) => [...new Set(cases.flatMap(pick))].filter((value) => value !== undefined && value !== "").sort();
const tags = values((one) => Object.keys(one.tags)).filter((tag) => values((one) => [one.tags[tag]]).length > 1);
const IS = { right: ["right"], "not right": ["wrong", "unread"], unread: ["unread"] };
const filters = [
  ["kind", "kind", values((one) => [one.kind])],
  ["specialty", "specialty", values((one) => [one.specialty])],
  ...tags.map((tag) => [`tag ${tag}`, tag, values((one) => [one.tags[tag]])]),
  ["a", "model A", models], ["is", "is", [...Object.keys(IS), "differs from B"]],
  ["b", "model B", models], ["and", "is", Object.keys(IS)],
];
const SORTS = {
  "as asked": null,
  "most often wrong": (one) => -share(one),
  "most often right": share,
  "most disputed": (one) => -Math.abs(share(one) - 0.5),
};

function share(one) {
  const scored = one.answers.filter((answer) => verdictOf(answer) !== "not scored");
  return scored.length ? scored.filter((answer) => answer.right).length / scored.length : 0.5;
}

function fits(one) {
  const want = (key) => state.get(key) ?? "";
  if (want("kind") && one.kind !== want("kind")) return false;
  if (want("specialty") && one.specialty !== want("specialty")) return false;
  if (tags.some((tag) => want(`tag ${tag}`) && one.tags[tag] !== want(`tag ${tag}`))) return false;
  for (const [model, is] of [["a", "is"], ["b", "and"]]) {
    if (!want(model)) continue;
    const answers = of(one, want(model));
    if (!answers.length) return false;
    if (IS[want(is)] && !answers.some((answer) => IS[want(is)].includes(verdictOf(answer)))) return false;
  }
  if (want("is") === "differs from B" && want("a") && want("b")) {
    const right = ["a", "b"].map((key) => of(one, want(key)).map((answer) => answer.right).join());
    if (right[0] === right[1]) return false;
  }
  const text = want("text").toLowerCase();
  return !text || [one.question, one.id, ...one.options, ...one.answers.map((answer) => answer.text)]
    .some((held) => held.toLowerCase().includes(text));
}

function control(key, title, options) {
  const label = element("label", title);
  const select = element("select");
  select.name = key;
  for (const value of ["", ...options]) {
    const option = element("option", value === "" ? OTHER : value);
    option.value = value;
    select.append(option);
  }
  select.value = state.get(key) ?? "";
  select.addEventListener("change", () => change(key, select.value));
  label.append(select);
  return label;
}

function change(key, value) {
  if (value === "") state.delete(key); else state.set(key, value);
  choose(0);
}

function choose(at) {
  shown = cases.filter(fits);
  const key = SORTS[state.get("sort")];
  if (key) shown = shown.map((one, i) => [key(one), i, one]).sort((a, b) => b[0] - a[0] || a[1] - b[1]).map((one) => one[2]);
  go(at);
}

function go(at) {
  place = Math.max(0, Math.min(at, shown.length - 1));
  const told = new URLSearchParams([...state].filter(([key]) => key !== "at"));
  if (place) told.set("at", place);
  location.replace(`#${told}`);
  document.getElementById("count").textContent = shown.length
    ? `${place + 1} of ${shown.length}${shown.length < cases.length ? `, filtered from ${cases.length}` : ""}` : "no case fits";
  draw(shown[place]);
}

function draw(one) {
  const main = document.getElementById("case");
  main.replaceChildren();
  if (!one) return;
  const question = element("div", "", "question");
  const pictures = element("div", "", "pictures");
  for (const name of one.pictures) {
    if (!/^[0-9a-f]{32}\.jpg$/.test(name)) continue;
    const picture = element("img");
    picture.src = `pictures/${name}`;
    picture.alt = "picture of the question";
    pictures.append(picture);
  }
  const words = element("div", "", "words");
  words.append(element("p", one.question || "(the question's text is not known here)", "stem"));
  const options = element("ul", "", "options");
  one.options.forEach((text, i) => {
    const letter = "ABCDEFGHIJ"[i];
    options.append(element("li", `${letter}) ${text}${letter === one.gold ? "  ✓" : ""}`, letter === one.gold ? "gold" : ""));
  });
  words.append(options);
  if (!one.options.length) words.append(element("p", `right answer: ${one.answer}`));
  for (const [name, text] of Object.entries(one.reference)) {
    const held = element("details");
    held.append(element("summary", `reference, ${name}`), element("pre", text));
    words.append(held);
  }
  const facts = [one.kind, one.specialty, one.id, one.patient && `patient ${one.patient}`, ...Object.entries(one.tags).map((tag) => tag.join(": "))];
  words.append(element("p", facts.filter(Boolean).join(" · "), "meta"));
  if (one.pictures.length) question.append(pictures);
  question.append(words);
  const answers = element("div", "", "answers");
  const rank = (answer) => models[answer.model] === state.get("a") ? 0 : models[answer.model] === state.get("b") ? 1 : 2;
  [...one.answers].sort((x, y) => rank(x) - rank(y)).forEach((answer) => answers.append(drawAnswer(answer, rank(answer) < 2)));
  main.append(question, answers);
}

function drawAnswer(answer, chosen) {
  const verdict = verdictOf(answer);
  const box = element("div", "", `answer ${verdict === "unread" ? "wrong" : verdict.replace(" ", "-")}${chosen ? " chosen" : ""}`);
  const head = element("h4");
  head.append(element("span", { right: "✓", "not scored": "–" }[verdict] ?? "✗", "mark"), models[answer.model]);
  const facts = [verdict, answer.said && `said ${answer.said}`, answer.reason, answer.guideline !== "neutral" && answer.guideline,
    answer.sample && `sample ${answer.sample}`, answer.cut && "cut off", answer.fault];
  box.append(head, element("div", facts.filter(Boolean).join(" · "), "meta"));
  for (const key of ["rewards", "losses"]) {
    if (!answer[key]) continue;
    const told = Object.entries(answer[key]).map(([name, value]) => `${name} ${value === null ? "–" : Number(value).toFixed(2)}`);
    box.append(element("div", `${key}: ${told.join(", ")}`, "meta"));
  }
  box.append(element("pre", answer.text || "(empty)"));
  return box;
}

const form = document.getElementById("filters");
form.addEventListener("submit", (event) => event.preventDefault());
for (const [key, title, options] of filters) if (options.length > 1) form.append(control(key, title, options));
form.append(control("sort", "order", Object.keys(SORTS).slice(1)));
form.lastChild.querySelector("option").textContent = "as asked";
const words = element("label", "text");
const search = element("input");
search.type = "search"; search.name = "text"; search.value = state.get("text") ?? "";
search.addEventListener("input", () => change("text", search.value));
words.append(search);
form.append(words);
document.getElementById("previous").addEventListener("click", () => go(place - 1));
document.getElementById("next").addEventListener("click", () => go(place + 1));
addEventListener("keydown", (event) => {
  if (event.target.closest("select, input, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "ArrowRight" || event.key === "j") go(place + 1);
  if (event.key === "ArrowLeft" || event.key === "k") go(place - 1);
});
choose(Number(state.get("at") ?? 0));
