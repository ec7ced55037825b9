// The page: what stands in it, what is searched, sorted, heard and looked at.

const rows = JSON.parse(document.getElementById("lines").textContent);
const all = data.letters.map((_, system) => system);
const one = all.length === 1;
const by = (id) => document.getElementById(id);

const FIRST_COLUMNS = 300;
const MORE_COLUMNS = 1000;
const unfolded = new WeakMap(); // row -> how many of its columns are shown
const written = new WeakSet(); // rows whose plain texts are shown

// --- media, each a text in the page -------------------------------------------------------------------

const media = new Map(); // number of the utterance -> its elements
for (const node of document.querySelectorAll("script[data-of]")) {
  const number = Number(node.dataset.of);
  media.set(number, [...(media.get(number) ?? []), node]);
}
const heard = (row) => media.get(row.number)?.find((node) => node.dataset.kind === "audio");
const seen = (row) => media.get(row.number)?.filter((node) => node.dataset.kind !== "audio") ?? [];

function play(row) {
  by("player").hidden = false;
  by("playing").textContent = visible(row.id);
  by("audio").src = heard(row).textContent;
  by("audio").play().catch(() => {}); // another was asked for meanwhile, or the browser wants its own button pressed
}

function look(row) {
  by("gallery-head").textContent = visible(row.id);
  const picture = (node) =>
    element("img", { src: node.textContent, alt: `${node.dataset.kind} of ${visible(row.id)}` });
  by("pictures").replaceChildren(...seen(row).map(picture));
  by("gallery").showModal();
}

if (by("player")) {
  by("close").onclick = () => {
    by("audio").pause();
    by("player").hidden = true;
  };
  by("done").onclick = () => by("gallery").close();
}

// --- which systems, and what of a row is counted ------------------------------------------------------

let systems = all;
const errorsOf = (counts) => counts[1] + counts[2] + counts[3];
const lengthOf = (row) => row.counts[0][0] + row.counts[0][1] + row.counts[0][2];
const errors = (row) => systems.reduce((sum, system) => sum + errorsOf(row.counts[system]), 0);
const rate = (row) => errors(row) / systems.length / Math.max(1, lengthOf(row));
const apart = (row) => {
  const counts = row.counts.map(errorsOf);
  return Math.max(...counts) - Math.min(...counts);
};

const names = new Intl.Collator("en", { numeric: true });
const orders = {
  id: (a, b) => names.compare(a.id, b.id),
  length: (a, b) => lengthOf(a) - lengthOf(b),
  errors: (a, b) => errors(a) - errors(b) || rate(a) - rate(b),
  rate: (a, b) => rate(a) - rate(b) || errors(a) - errors(b),
  apart: (a, b) => apart(a) - apart(b),
};

// --- a row --------------------------------------------------------------------------------------------

const cell = (className, ...children) => element("div", { role: "gridcell", className }, ...children);
const button = (name, text, onclick) => element("button", { type: "button", "aria-label": name, onclick }, text);
const label = (system) => (one ? "HYP" : data.letters[system]);
const grouped = (number) => number.toLocaleString("en");

function draw(row) {
  const made = element("div", { role: "row", className: "row" });
  const each = systems.map((system) => `${data.letters[system]} ${errorsOf(row.counts[system])}`);
  const id = element("bdi", { title: visible(shortened(row.id, 500)) }, visible(shortened(row.id, 120)));
  made.append(
    element("div", { role: "rowheader", className: "id" }, id),
    cell("n", grouped(lengthOf(row))),
    cell("n errors", grouped(errors(row)), element("small", {}, each.length > 1 ? each.join(" · ") : "")),
    cell("n", (100 * rate(row)).toFixed(1)),
    ...(one ? [] : [cell("n", grouped(apart(row)))]),
    cell("tools", ...tools(row)),
    cell("texts", ...texts(row)),
  );
  return made;
}

function tools(row) {
  const found = [button(`Plain texts of ${visible(row.id)}`, "Texts", () => toggle(row))];
  found[0].setAttribute("aria-expanded", written.has(row));
  if (heard(row)) found.unshift(button(`Play ${visible(row.id)}`, "▶", () => play(row)));
  if (seen(row).length) found.push(button(`Pictures of ${visible(row.id)}`, "▤", () => look(row)));
  return found;
}

function toggle(row) {
  if (!written.delete(row)) written.add(row);
  list.redraw(row, "[aria-expanded]");
}

function texts(row) {
  const found = columns(row, systems);
  const count = unfolded.get(row) ?? FIRST_COLUMNS;
  const shown = found.slice(0, count);
  const labels = ["REF", ...systems.map(label)];
  const lines = element("div", { className: words ? "columns" : "columns letters" }, ...drawn(shown, systems.length));
  const drawing = element("div", { className: "drawing", "aria-hidden": "true", dir: direction(row) });
  drawing.append(gutter(labels, guessedLines(row, list.box.clientWidth)), lines);
  const spoken = [`Reference: ${visible(joined(shown.flatMap(({ ref }) => ref ?? [])).slice(0, 2000)) || "empty"}.`];
  for (const [nth, system] of systems.entries()) spoken.push(`${label(system)}: ${inWords(shown, nth)}.`);
  const parts = [drawing, element("p", { className: "hidden" }, spoken.join(" "))];
  if (found.length > count) {
    const left = found.length - count;
    const text = `${grouped(Math.min(left, MORE_COLUMNS))} more of ${grouped(left)}`;
    const more = () => {
      unfolded.set(row, count + MORE_COLUMNS);
      list.redraw(row, ".texts > button");
    };
    parts.push(button(`Show more of ${visible(row.id)}`, text, more));
  }
  if (written.has(row)) parts.push(plain(row));
  return parts;
}

// The names of the lines, as often as lines may break: what is too much is cut off below.
function gutter(labels, times) {
  const set = element("div", {}, ...labels.map((label) => element("span", {}, label)));
  const sets = Array.from({ length: 2 * times + 1 }, () => set.cloneNode(true));
  return element("div", { className: "gutter" }, ...sets);
}

// The texts as they are, to be copied.
function plain(row) {
  const lines = [["REF", row.ref], ...systems.map((system) => [label(system), hypothesis(row, system)])];
  const shown = ([name, text]) =>
    element("p", {}, element("b", {}, name), " ", element("bdi", { dir: "auto" }, visible(text)));
  return element("div", { className: "plain" }, ...lines.map(shown));
}

// About how high a row is: a line of numbers, and lines of columns as wide as their letters.
function guess(row, width) {
  return 70 + guessedLines(row, width) * (22 * (1 + systems.length) + 10);
}

function guessedLines(row, width) {
  const letters = Math.min(row.ref.length, 8 * (unfolded.get(row) ?? FIRST_COLUMNS));
  return Math.ceil((letters * (words ? 10 : 18) + 1) / Math.max(200, width - 80));
}

const list = new Rows(by("rows"), draw, guess);

// --- search, filters, order ---------------------------------------------------------------------------

const haystacks = new WeakMap();
function haystack(row) {
  if (!haystacks.has(row)) {
    const texts = [row.id, row.ref, ...all.map((system) => hypothesis(row, system))];
    haystacks.set(row, texts.join("\n").normalize("NFC").toLowerCase());
  }
  return haystacks.get(row);
}

const chosen = data.fields.map((field, nth) => {
  if (!field.values.length) return null;
  const names = ["all", ...field.values.map((name) => visible(shortened(name, 60)))];
  const select = element("select", {}, ...names.map((name, nth) => element("option", { value: nth - 1 }, name)));
  by("fields").append(element("label", {}, `${visible(field.name)} `, select));
  return (row) => select.value === "-1" || row.groups[nth] === Number(select.value);
});

const order = { key: "errors", descending: true };

function refresh() {
  const which = by("system")?.value ?? "";
  systems = which === "" ? all : [Number(which)];
  const wanted = by("search").value.normalize("NFC").toLowerCase();
  const filters = chosen.filter(Boolean);
  if (by("errors").checked) filters.push((row) => errors(row) > 0);
  if (by("audible")?.checked) filters.push((row) => media.has(row.number));
  if (wanted) filters.push((row) => haystack(row).includes(wanted));
  const found = rows.filter((row) => filters.every((fits) => fits(row)));
  const sign = order.descending ? -1 : 1;
  found.sort((a, b) => sign * orders[order.key](a, b) || a.number - b.number);
  for (const head of document.querySelectorAll("[data-sort]")) {
    const state = head.dataset.sort !== order.key ? "none" : order.descending ? "descending" : "ascending";
    head.parentElement.setAttribute("aria-sort", state);
  }
  by("grid").setAttribute("aria-rowcount", found.length + 1);
  by("found").textContent = `${grouped(found.length)} of ${grouped(rows.length)} utterances`;
  list.show(found);
}

let waiting = 0;
by("controls").addEventListener("submit", (event) => event.preventDefault());
by("controls").addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(refresh, 120);
});
for (const head of document.querySelectorAll("[data-sort]")) {
  head.onclick = () => {
    const key = head.dataset.sort;
    order.descending = order.key === key ? !order.descending : key !== "id";
    order.key = key;
    refresh();
  };
}
by("rows").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !event.target.matches("[data-place]")) return;
  event.target.querySelector(".tools button")?.click();
});

// Texts of the files that stand in the page itself: nothing unseen in them, either.
for (const node of document.querySelectorAll(".said")) node.textContent = visible(node.textContent);
refresh();
