// The fleet's table. Only the visible rows exist.

import { ago, late, make, mark, setMark, speed, states, text, until } from "./format.js";

const rowHeight = 34; // as the style has it
const spare = 6; // rows beyond the edges, for scrolling
const calm = 3000; // how long the order is held after the pointer moved over rows

const columns = [
  { key: "name", label: "Device", hint: "Name and id; the mark is its state, as on the map", order: (d) => d.rank },
  { key: "age", label: "Fix age", hint: "Age of the newest fix, by the device's own clock", number: true, order: (d) => (d.fix ? -d.fix : Infinity) },
  { key: "next", label: "Next poll", hint: "When the bridge polls the device again", number: true, order: (d) => d.next || Infinity },
  { key: "speed", label: "Speed", hint: "Of the newest fix", number: true, order: (d) => (d.speed < 0 ? Infinity : -d.speed) },
  { key: "alerts", label: "Alerts", hint: "Raised now; in amber, consecutive failed polls", order: (d) => -d.alerts.length * 1e3 - d.failures },
];

export class Table {
  constructor(fleet, choose) {
    Object.assign(this, { fleet, choose, list: [], lines: [], chosen: "", sort: "name", down: false, ranked: -1, pointed: 0, picked: -calm });
    const by = (id) => document.getElementById(id);
    Object.assign(this, {
      grid: by("grid"), scroll: by("grid"), sizer: by("sizer"), filter: by("filter"), only: by("only"),
      shown: by("shown"), empty: by("empty"), held: by("held"),
    });
    this.head = by("grid-head");
    this.header(this.head);
    this.only.append(new Option("All states", ""), ...Object.entries(states).map(([state, s]) => new Option(s.label, state)));
    this.filter.addEventListener("input", () => this.refresh(true));
    this.only.addEventListener("change", () => this.refresh(true));
    this.scroll.addEventListener("scroll", () => requestAnimationFrame(() => this.draw()), { passive: true });
    this.scroll.addEventListener("pointermove", () => { this.pointed = performance.now(); }, { passive: true });
    this.scroll.addEventListener("pointerleave", () => { this.pointed = 0; });
    this.grid.addEventListener("keydown", (e) => this.key(e));
    this.sizer.addEventListener("click", (e) => {
      const line = e.target.closest(".line");
      if (line) this.choose(line.dataset.id, true);
    });
    new ResizeObserver(() => {
      // The details of the device that was just chosen take room from the table.
      if (performance.now() - this.picked < calm) this.show(this.chosen);
      else this.draw();
    }).observe(this.scroll);
  }

  header(head) {
    for (const c of columns) {
      const button = make("button", "", c.label);
      button.type = "button";
      button.title = c.hint;
      c.cell = make("div", c.number ? "number" : "", button);
      c.cell.setAttribute("role", "columnheader");
      button.addEventListener("click", () => {
        this.down = this.sort === c.key && !this.down;
        this.sort = c.key;
        this.refresh(true);
      });
      head.append(c.cell);
    }
  }

  // refresh filters and orders the rows. Unless the user asked for it, the order is
  // kept under a moving pointer, because moving rows cannot be clicked.
  refresh(asked) {
    const held = !asked && performance.now() - this.pointed < calm && this.pointed > 0;
    this.held.hidden = !held || this.sort === "name";
    if (!held) this.arrange();
    for (const c of columns) {
      if (c.key === this.sort) c.cell.setAttribute("aria-sort", this.down ? "descending" : "ascending");
      else c.cell.removeAttribute("aria-sort");
    }
    if (asked) this.scroll.scrollTop = 0;
    this.draw();
  }

  arrange() {
    this.rank();
    const words = this.filter.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const only = this.only.value;
    const list = [];
    for (const d of this.fleet.devices.values()) {
      if (only && d.state !== only) continue;
      if (words.length > 0 && !words.every((w) => d.search.includes(w) || d.alerts.some((a) => a.toLowerCase().includes(w)))) continue;
      list.push(d);
    }
    const order = columns.find((c) => c.key === this.sort).order;
    for (const d of list) d.order = order(d);
    const sign = this.down ? -1 : 1;
    list.sort((a, b) => (a.order === b.order ? a.rank - b.rank : a.order < b.order ? -sign : sign));
    this.list = list;
    const all = this.fleet.devices.size;
    text(this.shown, list.length === all ? all.toLocaleString("en") + (all === 1 ? " device" : " devices")
      : list.length.toLocaleString("en") + " of " + all.toLocaleString("en") + " devices");
    this.empty.hidden = list.length > 0;
    text(this.empty, all === 0 ? "This replica polls no device. plaspy-bridge check shows the account's devices and those that are left out." : "No device matches.");
  }

  // rank orders names once for all: comparing words is slow, numbers are not.
  rank() {
    if (this.ranked === this.fleet.names) return;
    this.ranked = this.fleet.names;
    const words = new Intl.Collator(undefined, { numeric: true });
    [...this.fleet.devices.values()].sort((a, b) => words.compare(a.title, b.title)).forEach((d, i) => { d.rank = i; });
  }

  draw() {
    const height = this.list.length * rowHeight;
    if (this.height !== height) this.sizer.style.height = (this.height = height) + "px";
    const top = this.scroll.scrollTop;
    const first = Math.max(0, Math.floor(top / rowHeight) - spare);
    const last = Math.min(this.list.length, Math.ceil((top + this.scroll.clientHeight) / rowHeight) + spare);
    this.grid.setAttribute("aria-rowcount", this.list.length + 1);
    while (this.lines.length < last - first) this.lines.push(this.line());
    const now = this.fleet.now();
    this.lines.forEach((line, i) => {
      const n = first + i;
      line.row.hidden = n >= last;
      if (n < last) this.fill(line, this.list[n], n, now);
    });
    const current = this.lines.find((l) => !l.row.hidden && l.row.dataset.id === this.chosen);
    if (current) this.grid.setAttribute("aria-activedescendant", current.row.id);
    else this.grid.removeAttribute("aria-activedescendant");
  }

  line() {
    const l = {
      mark: mark("none"), said: make("span", "unseen"), name: make("b"), id: make("small"), age: make("div", "number"), next: make("div", "number"),
      speed: make("div", "number"), alerts: make("div"), told: "",
    };
    l.alerts.className = "chips";
    const row = l.row = make("div", "line", make("div", "who", l.mark, l.said, l.name, l.id), l.age, l.next, l.speed, l.alerts);
    row.id = "row-" + this.lines.length;
    row.setAttribute("role", "row");
    for (const cell of row.children) cell.setAttribute("role", "gridcell");
    this.sizer.append(row);
    return l;
  }

  fill(l, d, n, now) {
    const y = n * rowHeight + "px";
    if (l.y !== y) l.row.style.top = l.y = y;
    if (l.row.dataset.id !== d.id) l.row.dataset.id = d.id;
    l.row.setAttribute("aria-rowindex", n + 2);
    l.row.setAttribute("aria-selected", String(d.id === this.chosen));
    setMark(l.mark, d.state);
    text(l.said, states[d.state].label);
    text(l.name, d.title);
    text(l.id, d.name && d.name !== d.id ? d.id : "");
    const whole = d.name && d.name !== d.id ? d.name + " (" + d.id + ")" : d.title;
    if (l.whole !== whole) l.name.parentNode.title = l.whole = whole;
    text(l.age, d.fix ? ago(now - d.fix) : "–");
    l.age.classList.toggle("faint", d.state === "old" || d.state === "none");
    text(l.next, d.next ? until(d.next - now) : d.polled ? "–" : "soon");
    l.next.classList.toggle("late", d.next > 0 && now - d.next > late);
    text(l.speed, speed(d.speed));
    l.speed.classList.toggle("faint", d.speed <= 0);
    const told = d.alerts.join("\n") + "\n" + (d.failures || "");
    if (l.told !== told) {
      l.told = told;
      l.alerts.replaceChildren(...d.alerts.map((a) => make("span", "chip", a)),
        ...(d.failures > 0 ? [make("span", "chip soft", d.failures === 1 ? "1 failure" : d.failures + " failures")] : []));
      l.alerts.title = d.alerts.join(", ");
    }
  }

  // filterBy shows one state alone.
  filterBy(state) {
    this.only.value = state;
    this.filter.value = "";
    this.refresh(true);
  }

  // show marks a device as chosen and scrolls to it.
  show(id) {
    if (this.chosen !== id) this.picked = performance.now();
    this.chosen = id;
    const n = this.list.findIndex((d) => d.id === id);
    if (n >= 0) {
      const y = n * rowHeight, view = this.scroll, room = view.clientHeight - this.head.offsetHeight;
      if (y < view.scrollTop) view.scrollTop = y;
      else if (y + rowHeight > view.scrollTop + room) view.scrollTop = y + rowHeight - room;
    }
    this.draw();
  }

  key(e) {
    if (e.target !== this.grid) return;
    const page = Math.max(1, Math.floor(this.scroll.clientHeight / rowHeight) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (e.key in steps && this.list.length > 0) {
      const at = this.list.findIndex((d) => d.id === this.chosen);
      const to = at < 0 && e.key !== "End" ? 0 : Math.max(0, Math.min(this.list.length - 1, at + steps[e.key]));
      this.pointed = performance.now();
      this.choose(this.list[to].id, false);
    } else if (e.key === "Enter" && this.chosen) {
      this.choose(this.chosen, true);
    } else {
      return;
    }
    e.preventDefault();
  }
}
