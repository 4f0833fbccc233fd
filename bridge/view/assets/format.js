// Formats of texts and numbers. Data of the API goes into the document only through
// text(), which sets textContent.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export function count(n) {
  return Number.isFinite(n) ? whole.format(n) : "–";
}

// figure formats a number with its significant digits.
export function figure(n) {
  if (!Number.isFinite(n)) return "–";
  const size = Math.abs(n);
  if (size >= 100 || n === 0) return whole.format(n);
  return n.toFixed(size >= 10 ? 1 : size >= 0.995 ? 1 : 2);
}

// span formats seconds in one unit, or in two if that helps.
export function span(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  const s = Math.abs(seconds);
  if (s > 0 && s < 0.0995) return Math.max(1, Math.round(s * 1000)) + " ms";
  if (s < 9.95 && s % 1 !== 0) return s.toFixed(1) + " s";
  if (s < 100) return Math.round(s) + " s";
  if (s < 600) return Math.floor(s / 60) + " min " + String(Math.floor(s % 60)).padStart(2, "0");
  if (s < 5940) return Math.round(s / 60) + " min";
  if (s < 36000) return Math.floor(s / 3600) + " h " + String(Math.floor((s % 3600) / 60)).padStart(2, "0");
  if (s < 172800) return Math.round(s / 3600) + " h";
  return count(Math.round(s / 86400)) + " days";
}

// ago and until show whole seconds, because they tick.
export function ago(ms) {
  const s = Math.round(ms / 1000);
  return s < 0 ? span(-s) + " ahead" : span(s);
}

export function until(ms) {
  const s = Math.round(ms / 1000);
  return s < -late / 1000 ? rough(-s) + " late" : s <= 0 ? "now" : "in " + span(s);
}

// rough formats seconds in one unit.
function rough(s) {
  if (s < 100) return s + " s";
  if (s < 5940) return Math.floor(s / 60) + " min";
  return s < 172800 ? Math.floor(s / 3600) + " h" : count(Math.floor(s / 86400)) + " days";
}

// late is the delay in milliseconds after which a poll is shown as late.
export const late = 10e3;

const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const dated = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

// when formats a time of day, with the date unless that is today.
export function when(ms, now) {
  if (!ms) return "–";
  return new Date(ms).toDateString() === new Date(now).toDateString() ? clock.format(ms) : dated.format(ms);
}

// stamp sets the full time as the tooltip of a time element.
export function stamp(element, ms) {
  const iso = ms > 0 ? new Date(ms).toISOString() : "";
  if (element.dateTime === iso) return;
  element.dateTime = iso;
  element.title = iso ? dated.format(ms) + " here, " + iso.slice(0, 19).replace("T", " ") + " UTC" : "";
}

// zone returns the name of the time zone.
export function zone() {
  const east = -new Date().getTimezoneOffset(), size = Math.abs(east);
  const off = "UTC" + (east === 0 ? "" : (east < 0 ? "−" : "+") + Math.floor(size / 60) + (size % 60 ? ":" + String(size % 60).padStart(2, "0") : ""));
  const name = Intl.DateTimeFormat().resolvedOptions().timeZone;
  return name && name !== "UTC" ? name + ", " + off : off;
}

// local converts the times in texts of the bridge from UTC to the page's time zone.
export function local(words, now) {
  const shift = new Date(now).getTimezoneOffset() * 60e3;
  return words.replace(/\b(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d\b/g, (utc) => new Date(Date.parse("2000-01-02T" + utc + "Z") - shift).toISOString().slice(11, 19));
}

export function place(lat, lon) {
  return Math.abs(lat).toFixed(5) + "° " + (lat < 0 ? "S" : "N") + ", " + Math.abs(lon).toFixed(5) + "° " + (lon < 0 ? "W" : "E");
}

export function speed(tenths) {
  return tenths < 0 ? "–" : whole.format(tenths / 10) + " km/h";
}

// text sets an element's text, and leaves the document alone if it is the same.
export function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

// make builds an element; children are elements or text.
export function make(name, className, ...children) {
  const e = document.createElement(name);
  if (className) e.className = className;
  e.append(...children);
  return e;
}

// The states of a device, worst first, with the path of their mark in 12 by 12.
export const states = {
  alert: { label: "Alert", path: "M6 .5 11.5 6 6 11.5 .5 6Z" },
  trouble: { label: "Trouble", path: "M2.2 2.2 9.8 9.8M9.8 2.2 2.2 9.8" },
  moving: { label: "Moving", path: "M6 .6 10.8 11 6 8.6 1.2 11Z" },
  parked: { label: "Parked", path: "M6 2a4 4 0 1 0 .01 0Z" },
  old: { label: "Quiet for 1 h", path: "M6 2a4 4 0 1 0 .01 0Z" },
  none: { label: "No fix yet", path: "M3 6h6" },
};

const svg = "http://www.w3.org/2000/svg";

export function mark(state) {
  const m = document.createElementNS(svg, "svg");
  m.setAttribute("viewBox", "0 0 12 12");
  m.setAttribute("aria-hidden", "true");
  m.append(document.createElementNS(svg, "path"));
  setMark(m, state);
  return m;
}

export function setMark(m, state) {
  if (m.dataset.mark === state) return;
  m.dataset.mark = state;
  m.setAttribute("class", "mark " + state);
  m.firstChild.setAttribute("d", states[state].path);
}
