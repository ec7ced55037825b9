// A long list of rows of any height, of which only those in view stand in the document.
//
// Heights are guessed until a row has been drawn, then known; what is above and below is empty space. When a guess was
// wrong the page is scrolled by as much, so that what one looks at stays where it is.

const BEYOND_PX = 600;

const atEnd = () => scrollY > 0 && scrollY + innerHeight >= document.documentElement.scrollHeight - 2;

class Rows {
  #items = [];
  #starts = new Float64Array(1); // where each row begins, and the last one ends, in pixels
  #heights = new Map(); // of the items that have been drawn
  #nodes = new Map(); // place -> element
  #current = 0; // the row that Tab reaches
  #width = 0;

  // box: the element that holds the rows.  draw(item, place): makes one.  guess(item, width): its height in pixels.
  constructor(box, draw, guess) {
    this.box = box;
    this.grid = box.parentElement; // has the focus where the row that had it is gone
    this.draw = draw;
    this.guess = guess;
    this.observer = new ResizeObserver(() => this.#measure());
    addEventListener("scroll", () => this.#update(), { passive: true });
    new ResizeObserver(() => this.#resized()).observe(box);
    this.grid.addEventListener("keydown", (event) => this.#pressed(event));
    box.addEventListener("focusin", (event) => this.#focused(event));
  }

  show(items) {
    this.#items = items;
    this.#current = 0;
    this.#width = this.box.clientWidth;
    this.#clear();
    this.#place();
    const top = this.box.getBoundingClientRect().top;
    if (top < 0) scrollBy(0, top - 80); // another list is read from its beginning
    this.#update();
  }

  // Draw anew, for an item has changed; what had the focus, or `focus` in its place, has it again.
  redraw(item, focus) {
    this.#heights.delete(item);
    const place = this.#items.indexOf(item);
    const old = this.#nodes.get(place);
    if (!old) return;
    const had = old.contains(document.activeElement);
    this.observer.unobserve(old);
    old.replaceWith(this.#made(place));
    const made = this.#nodes.get(place);
    made.tabIndex = place === this.#current ? 0 : -1;
    if (had) ((focus && made.querySelector(focus)) || made).focus({ preventScroll: true });
    this.#measure();
  }

  #clear() {
    this.observer.disconnect();
    this.#nodes.clear();
    this.box.replaceChildren();
  }

  #resized() {
    if (this.box.clientWidth === this.#width) return;
    this.#width = this.box.clientWidth;
    this.#heights.clear(); // lines break elsewhere now
    this.#place();
    this.#update();
  }

  #place() {
    const starts = new Float64Array(this.#items.length + 1);
    for (const [i, item] of this.#items.entries()) {
      starts[i + 1] = starts[i] + (this.#heights.get(item) ?? this.guess(item, this.#width));
    }
    this.#starts = starts;
  }

  // The row at a height, by bisection.
  #at(y) {
    let low = 0;
    let high = this.#items.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#starts[middle] <= y) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  #top() {
    return -this.box.getBoundingClientRect().top;
  }

  #update() {
    if (!this.#items.length) {
      this.box.style.paddingTop = this.box.style.paddingBottom = "0";
      return;
    }
    const top = this.#top();
    const ended = atEnd();
    const first = this.#at(top - BEYOND_PX);
    const last = this.#at(top + innerHeight + BEYOND_PX);
    for (const [place, node] of this.#nodes) {
      if (place < first || place > last) this.#drop(place, node);
    }
    let next = null;
    for (let place = last; place >= first; place--) {
      const node = this.#nodes.get(place) ?? this.#made(place);
      if (!node.isConnected) this.box.insertBefore(node, next);
      next = node;
    }
    this.#space(first, last);
    this.#reachable(first, last, top);
    this.#measure(ended);
  }

  #made(place) {
    const node = this.draw(this.#items[place], place);
    node.setAttribute("aria-rowindex", place + 2); // the heads are row 1
    node.dataset.place = place;
    node.tabIndex = -1;
    this.#nodes.set(place, node);
    this.observer.observe(node);
    return node;
  }

  #drop(place, node) {
    const had = node.contains(document.activeElement);
    this.observer.unobserve(node);
    node.remove();
    this.#nodes.delete(place);
    if (had) this.grid.focus({ preventScroll: true });
  }

  #space(first, last) {
    this.box.style.paddingTop = `${this.#starts[first]}px`;
    this.box.style.paddingBottom = `${this.#starts[this.#items.length] - this.#starts[last + 1]}px`;
  }

  // One row can be reached by Tab: the current one, or the first in view.
  #reachable(first, last, top) {
    if (this.#current < first || this.#current > last) this.#current = Math.max(first, this.#at(Math.max(0, top)));
    for (const [place, node] of this.#nodes) node.tabIndex = place === this.#current ? 0 : -1;
  }

  // Look how high the rows are, and mend the guesses.  ended: the window stood at the end of the page, and stays there.
  #measure(ended = false) {
    let wrong = false;
    const top = this.#top();
    const anchor = this.#at(Math.max(0, top));
    const before = this.#starts[anchor];
    for (const [place, node] of this.#nodes) {
      const height = node.offsetHeight;
      if (Math.abs(height - (this.#starts[place + 1] - this.#starts[place])) < 1) continue;
      this.#heights.set(this.#items[place], height);
      wrong = true;
    }
    if (!wrong) return;
    this.#place();
    const places = [...this.#nodes.keys()];
    this.#space(Math.min(...places), Math.max(...places));
    if (ended) scrollTo(0, document.documentElement.scrollHeight);
    else if (top > 0) scrollBy(0, this.#starts[anchor] - before);
    this.#update();
  }

  #focused(event) {
    const row = event.target.closest("[data-place]");
    if (!row) return;
    this.#nodes.get(this.#current)?.setAttribute("tabindex", -1);
    this.#current = Number(row.dataset.place);
    row.tabIndex = 0;
  }

  #pressed(event) {
    if (event.target !== this.grid && !event.target.matches("[data-place]")) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const last = this.#items.length - 1;
    const to = { ArrowDown: this.#current + 1, ArrowUp: this.#current - 1, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.#go(Math.min(last, Math.max(0, to)));
  }

  #go(place) {
    this.#current = place;
    if (!this.#nodes.has(place)) {
      scrollBy(0, this.#starts[place] - this.#top() - innerHeight / 3);
      this.#update();
    }
    this.#nodes.get(place)?.focus();
  }
}
