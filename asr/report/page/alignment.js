// An alignment as columns: a word (a character, a token) of the reference, and below it what each system made of it.

const data = JSON.parse(document.getElementById("data").textContent);
const words = data.unit !== "character"; // tokens of mixed text stand apart as words do
const MOST_LETTERS = 80; // of one word

const tokens = (text) => (text === "" ? [] : words ? text.split(" ") : Array.from(text));
const joined = (parts) => parts.join(words ? " " : "");

// What shows nothing, or turns what stands beside it, is shown by its number. The joiners of Persian, of India's
// scripts and of emoji are left alone between letters; Arabic has visible signs in the same class.
const UNSEEN = /[\p{Cc}\p{Zl}\p{Zp}\p{Cs}]|(?![\u200c\u200d\u0600-\u0605\u06dd\u070f\u08e2])\p{Cf}|^[\u200c\u200d]+$/gu;

function visible(text) {
  if (text === " ") return "␣";
  const shown = text.replace(UNSEEN, (c) => Array.from(c, (x) => `\\u{${x.codePointAt(0).toString(16)}}`).join(""));
  return /^\p{M}/u.test(shown) ? `◌${shown}` : shown;
}

const shortened = (text, most) =>
  text.length > most ? `${Array.from(text.slice(0, 2 * most)).slice(0, most).join("")}…` : text;

// The text of a system, which the runs of its alignment and the reference give together.
function hypothesis(row, system) {
  const refs = tokens(row.ref);
  const found = [];
  let at = 0;
  for (const [mark, what] of row.hyps[system]) {
    if (mark === "=") for (const token of refs.slice(at, at + what)) found.push(token);
    if (mark === "S" || mark === "I") for (const token of tokens(what)) found.push(token);
    at += mark === "I" ? 0 : mark === "S" ? tokens(what).length : what;
  }
  return joined(found);
}

// Columns { ref, cells }: `ref` is null where a system inserts, a cell is [mark, text], or null where nothing stands.
function columns(row, systems) {
  const refs = tokens(row.ref);
  const found = refs.map((ref) => ({ ref, cells: [] }));
  const inserted = new Map(); // place in the reference -> columns before it
  for (const [nth, system] of systems.entries()) {
    let at = 0;
    for (const [mark, what] of row.hyps[system]) {
      if (mark === "I") {
        const there = inserted.get(at) ?? inserted.set(at, []).get(at);
        for (const [i, token] of tokens(what).entries()) {
          there[i] ??= { ref: null, cells: [] };
          there[i].cells[nth] = ["I", token];
        }
      } else if (mark === "S") {
        for (const token of tokens(what)) found[at++].cells[nth] = ["S", token];
      } else {
        const cell = (ref) => (mark === "D" ? ["D", ""] : ["", ref]);
        for (const column of found.slice(at, at + what)) column.cells[nth] = cell(column.ref);
        at += what;
      }
    }
  }
  if (inserted.size === 0) return found;
  return [...found, null].flatMap((column, at) => [...(inserted.get(at) ?? []), ...(column ? [column] : [])]);
}

// The same for those who do not see columns.
function inWords(shown, nth) {
  const name = (token) => visible(shortened(token, MOST_LETTERS));
  const said = shown.flatMap(({ ref, cells }) => {
    const [mark, token] = cells[nth] ?? [""];
    if (mark === "S") return `${name(ref)} became ${name(token)}`;
    if (mark === "D") return `${name(ref)} deleted`;
    return mark === "I" ? `${name(token)} inserted` : [];
  });
  return said.join(", ") || "no error";
}

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// The columns as elements, for so many systems.
function drawn(shown, count) {
  const cell = (className, token) => element("span", { className }, visible(shortened(token, MOST_LETTERS)));
  return shown.map(({ ref, cells }) => {
    const column = element("span", { className: "column" }, cell("ref", ref ?? ""));
    for (let nth = 0; nth < count; nth++) {
      const [mark, token] = cells[nth] ?? ["", ""];
      column.append(cell(mark ? `hyp ${mark}` : "hyp", token));
      if (mark) column.lastChild.append(element("sub", {}, mark));
    }
    return column;
  });
}

// Which way a row runs: as its first letter does.
const STRONG = /[\p{L}]/u;
const RIGHT_TO_LEFT = /[\p{sc=Arabic}\p{sc=Hebrew}\p{sc=Syriac}\p{sc=Thaana}\p{sc=Nko}\p{sc=Adlam}]/u;
const direction = (row) =>
  RIGHT_TO_LEFT.test(STRONG.exec(row.ref || hypothesis(row, 0))?.[0] ?? "") ? "rtl" : "ltr";
