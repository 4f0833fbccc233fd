// The style's colours, for drawing on a canvas.

const names = {
  sea: "sea", land: "land", coast: "coast", border: "border", mesh: "mesh", place: "place", text: "text", quiet: "quiet",
  panel: "panel", line: "line", strong: "strong", accent: "accent", blue: "blue", violet: "violet", odd: "odd", bad: "bad",
  moving: "accent", parked: "blue", old: "quiet", trouble: "odd", alert: "bad",
};

export const ink = {
  font: "system-ui, sans-serif",
  changed(f) { listeners.push(f); },
};
const listeners = [];

function read() {
  // A custom property reads as light-dark(); only a colour in use is resolved.
  const probe = document.createElement("i");
  document.body.append(probe);
  for (const name in names) {
    probe.style.color = `var(--${names[name]})`;
    ink[name] = getComputedStyle(probe).color;
  }
  ink.font = getComputedStyle(document.body).fontFamily;
  probe.remove();
  for (const f of listeners) f();
}

for (const query of ["(prefers-color-scheme: dark)", "(prefers-contrast: more)"]) matchMedia(query).addEventListener("change", read);
read();
