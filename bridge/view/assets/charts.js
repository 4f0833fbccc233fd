// The charts of the last 15 minutes.

import { count, figure, make, span, text, when } from "./format.js";
import { ink } from "./ink.js";

const reach = 15 * 60e3;
const gap = 13e3; // between samples: a longer time is a hole

const charts = [
  { title: "Polls", hint: "Answers of the API to polls of this replica, by result", unit: "per second", stacked: true, show: figure, lines: [
    { key: "unchanged", label: "unchanged", ink: "strong" }, { key: "changed", label: "changed", ink: "accent" }, { key: "failed", label: "failed", ink: "bad" }] },
  { title: "Messages", hint: "Events published to NATS (locations, alerts), and inbound messages posted to the API or given up (dead)", unit: "per second", show: figure, lines: [
    { key: "locations", label: "locations", ink: "accent" }, { key: "alerts", label: "alerts", ink: "odd" }, { key: "posted", label: "posted", ink: "blue" }, { key: "dead", label: "dead", ink: "bad", rare: true }] },
  { title: "Request budget", hint: "Requests of this replica to the API, and its share of PLASPY_RATE_LIMIT", unit: "requests per minute", filled: true, show: count, lines: [
    { key: "requests", label: "sent", ink: "blue", times: 60 }, { key: "budget", label: "budget", ink: "odd", dashed: true, absent: "no limit" }, { key: "throttled", label: "throttled", ink: "bad", times: 60, rare: true }] },
  { title: "Fix age at publication", hint: "Age of fixes by their own time when they were published, over the last minute", unit: "over a minute", show: span, lines: [
    { key: "age50", label: "half below", ink: "accent" }, { key: "age95", label: "95% below", ink: "violet" }] },
];

export class Charts {
  constructor(fleet) {
    this.fleet = fleet;
    this.columns = {};
    this.samples = [];
    this.plots = charts.map((c) => new Plot(c, this));
    document.getElementById("charts").append(...this.plots.map((p) => p.card));
    ink.changed(() => this.draw());
  }

  begin(columns, samples) {
    this.columns = Object.fromEntries(columns.map((name, i) => [name, i + 1]));
    this.samples = samples;
    this.draw();
  }

  add(sample) {
    this.samples.push(sample);
    while (this.samples.length > 0 && this.samples[0][0] < sample[0] - reach) this.samples.shift();
    this.draw();
  }

  last(key) { return this.value(this.samples.at(-1), key); }

  value(sample, key) {
    const v = sample?.[this.columns[key]];
    return v === null || v === undefined ? NaN : v;
  }

  // minutes returns the span of the charts: 15 minutes, or less if the bridge has not
  // run for that long.
  minutes() {
    const known = this.samples.length > 1 ? this.samples.at(-1)[0] - this.samples[0][0] : 0;
    return [1, 2, 5, 10].find((m) => known <= m * 60e3) ?? 15;
  }

  draw() { for (const p of this.plots) p.redraw(); }
}

class Plot {
  constructor(chart, all) {
    Object.assign(this, { chart, all, pointed: NaN });
    this.canvas = make("canvas");
    this.canvas.setAttribute("role", "img");
    this.figures = make("dl");
    for (const l of chart.lines) {
      l.out = make("dd");
      this.figures.append(make("div", "ink-" + l.ink, make("dt", "", l.label), l.out));
    }
    this.note = make("small", "", chart.unit);
    this.plot = make("div", "plot", this.canvas);
    this.card = make("article", "chart", make("h2", "", make("span", "", chart.title), this.note), this.figures, this.plot);
    this.card.firstChild.title = chart.hint;
    new ResizeObserver(() => this.redraw()).observe(this.plot);
    this.canvas.addEventListener("pointermove", (e) => {
      this.pointed = e.offsetX;
      this.redraw();
    });
    this.canvas.addEventListener("pointerleave", () => {
      this.pointed = NaN;
      this.redraw();
    });
  }

  redraw() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      this.draw();
    });
  }

  draw() {
    const w = this.plot.clientWidth, h = this.plot.clientHeight, dense = window.devicePixelRatio || 1;
    if (!w || !h) return;
    if (this.canvas.width !== Math.round(w * dense) || this.canvas.height !== Math.round(h * dense)) {
      this.canvas.width = Math.round(w * dense);
      this.canvas.height = Math.round(h * dense);
    }
    const g = this.canvas.getContext("2d");
    g.setTransform(dense, 0, 0, dense, 0, 0);
    g.clearRect(0, 0, w, h);
    const rows = this.rows();
    const area = { left: 42, top: 5, right: w - 2, bottom: h - 16, end: this.all.samples.at(-1)?.[0] ?? this.all.fleet.now() };
    area.minutes = this.all.minutes();
    area.x = (at) => area.right - (area.end - at) / (area.minutes * 60e3) * (area.right - area.left);
    this.axes(g, area, rows);
    for (const l of this.chart.lines) l.out.parentNode.hidden = Boolean(l.rare) && !rows.some((r) => r.values[l.key] > 0);
    for (const l of [...this.chart.lines].reverse()) if (!l.out.parentNode.hidden) this.trace(g, area, rows, l);
    this.point(g, area, rows);
    if (rows.length > 0) return;
    g.textAlign = "center";
    g.fillText("the first values arrive within 10 s", (area.left + area.right) / 2, (area.top + area.bottom) / 2 - 6);
  }

  // rows are the samples with this chart's values; smoothed, since seconds differ
  // by chance.
  rows() {
    const { samples } = this.all;
    return samples.map((s, i) => {
      const row = { at: s[0], values: {}, tops: {} };
      let top = 0;
      for (const l of this.chart.lines) {
        let v = this.all.value(s, l.key) * (l.times ?? 1);
        const before = i > 0 && s[0] - samples[i - 1][0] < gap ? this.all.value(samples[i - 1], l.key) * (l.times ?? 1) : NaN;
        if (l.times && !Number.isNaN(before)) v = (v + before) / 2;
        row.values[l.key] = v;
        row.tops[l.key] = this.chart.stacked ? (top += v || 0) : v;
      }
      return row;
    });
  }

  axes(g, area, rows) {
    let most = 0;
    for (const r of rows) for (const l of this.chart.lines) if (r.tops[l.key] > most) most = r.tops[l.key];
    const minutes = this.chart.show === span && most >= 120 ? 60 : 1; // scales in minutes have round minutes
    const max = nice(most / minutes || 1) * minutes;
    area.y = (v) => area.bottom - Math.min(v / max, 1.02) * (area.bottom - area.top);
    g.font = "10.5px " + ink.font;
    g.fillStyle = ink.quiet;
    g.strokeStyle = ink.line;
    g.lineWidth = 1;
    g.textBaseline = "middle";
    g.textAlign = "right";
    for (const part of [0, 0.5, 1]) {
      const y = Math.round(area.y(max * part)) + 0.5;
      g.beginPath();
      g.moveTo(area.left, y);
      g.lineTo(area.right, y);
      g.stroke();
      g.fillText(short(max * part, this.chart.show === span), area.left - 6, Math.max(6, y));
    }
    g.textBaseline = "alphabetic";
    for (const part of area.minutes === 15 ? [1, 2 / 3, 1 / 3, 0] : [1, 0.5, 0]) {
      const x = area.x(area.end - part * area.minutes * 60e3);
      g.textAlign = part === 1 ? "left" : part === 0 ? "right" : "center";
      g.fillText(part ? "−" + +(part * area.minutes).toFixed(1) + " min" : "now", x, area.bottom + 13);
    }
  }

  trace(g, area, rows, l) {
    const filled = this.chart.stacked || this.chart.filled && !l.dashed;
    const runs = [];
    let last = null;
    for (const r of rows) {
      const v = r.tops[l.key];
      if (Number.isNaN(v)) {
        last = null;
        continue;
      }
      if (!last || r.at - last > gap) runs.push([]);
      runs.at(-1).push([area.x(r.at), area.y(v)]);
      last = r.at;
    }
    g.setLineDash(l.dashed ? [5, 4] : []);
    for (const run of runs) {
      if (filled) {
        g.beginPath();
        g.moveTo(run[0][0], area.bottom);
        for (const p of run) g.lineTo(...p);
        g.lineTo(run.at(-1)[0], area.bottom);
        g.closePath();
        g.fillStyle = ink.panel;
        if (this.chart.stacked) g.fill();
        g.fillStyle = ink[l.ink];
        g.globalAlpha = this.chart.stacked ? 0.5 : 0.18;
        g.fill();
        g.globalAlpha = 1;
      }
      g.beginPath();
      for (const p of run) g.lineTo(...p);
      g.strokeStyle = ink[l.ink];
      g.lineWidth = 1.6;
      g.lineJoin = "round";
      g.stroke();
      if (run.length === 1) {
        g.fillStyle = ink[l.ink];
        g.fillRect(run[0][0] - 1, run[0][1] - 1, 2, 2);
      }
    }
    g.setLineDash([]);
  }

  // point shows the values of the sample under the pointer, or of the last one.
  point(g, area, rows) {
    let row = rows.at(-1), near = Infinity;
    if (!Number.isNaN(this.pointed)) {
      for (const r of rows) {
        const far = Math.abs(area.x(r.at) - this.pointed);
        if (far < near) [row, near] = [r, far];
      }
    }
    if (row && near < Infinity) {
      const x = Math.round(area.x(row.at)) + 0.5;
      g.strokeStyle = ink.quiet;
      g.beginPath();
      g.moveTo(x, area.top);
      g.lineTo(x, area.bottom);
      g.stroke();
    }
    text(this.note, near < Infinity && row ? when(row.at, this.all.fleet.now()) : this.chart.unit);
    for (const l of this.chart.lines) {
      const v = row ? row.values[l.key] : NaN;
      text(l.out, row && Number.isNaN(v) && l.absent || this.chart.show(v));
    }
    this.canvas.setAttribute("aria-label", this.chart.title + ", " + this.chart.unit + ", the last 15 minutes. " + this.chart.hint);
  }
}

// nice is the least round number that is not less.
function nice(v) {
  const power = 10 ** Math.floor(Math.log10(v));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((n) => n * power >= v * 0.999) * power;
}

function short(v, seconds) {
  if (seconds && v >= 120) return +(v / 60).toPrecision(3) + " min";
  if (v >= 1e6) return +(v / 1e6).toFixed(1) + "M";
  if (v >= 1e4) return +(v / 1e3).toFixed(1) + "k";
  return String(+v.toPrecision(3)) + (seconds && v ? " s" : "");
}
