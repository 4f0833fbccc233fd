// The actions of pointers, the wheel and keys on the map.

// handle makes a map follow pointers, the wheel and keys.
export function handle(map) {
  const at = (e) => [e.offsetX, e.offsetY];
  const down = new Map();
  let moved = 0;
  map.marks.addEventListener("wheel", (e) => {
    e.preventDefault();
    const lines = e.deltaMode === 1 ? 30 : 1;
    map.zoomBy(Math.max(-1, Math.min(1, -e.deltaY * lines / 240)), ...at(e), false);
  }, { passive: false });
  map.marks.addEventListener("pointerdown", (e) => {
    map.marks.setPointerCapture(e.pointerId);
    down.set(e.pointerId, at(e));
    moved = 0;
  });
  map.marks.addEventListener("pointermove", (e) => {
    const last = down.get(e.pointerId), here = at(e);
    if (!last) return map.hover(map.pointer = here);
    moved += Math.abs(here[0] - last[0]) + Math.abs(here[1] - last[1]);
    if (down.size === 2) pinch(map, down, e.pointerId, here);
    else if (moved > 4) map.pan(here[0] - last[0], here[1] - last[1]);
    if (moved > 4) {
      down.set(e.pointerId, here);
      map.marks.classList.add("drag");
      map.leave();
    }
  });
  const up = (e) => {
    if (down.delete(e.pointerId) && e.type === "pointerup" && moved <= 4) {
      const crowd = map.crowdAt(...at(e)), d = crowd ? null : map.near(...at(e));
      if (crowd) map.open(crowd);
      else map.choose(d ? d.id : "", true);
    }
    map.marks.classList.toggle("drag", down.size > 0);
  };
  map.marks.addEventListener("pointerup", up);
  map.marks.addEventListener("pointercancel", up);
  map.marks.addEventListener("pointerleave", () => map.leave());
  map.marks.addEventListener("dblclick", (e) => map.zoomBy(1, ...at(e)));
  map.marks.addEventListener("keydown", (e) => key(map, e));
}

function pinch(map, down, id, here) {
  const other = [...down].find(([key]) => key !== id)[1], last = down.get(id);
  const far = (p) => Math.max(1, Math.hypot(p[0] - other[0], p[1] - other[1]));
  map.zoomBy(Math.log2(far(here) / far(last)), (here[0] + other[0]) / 2, (here[1] + other[1]) / 2, false);
  down.set(id, here);
}

function key(map, e) {
  const step = 80;
  const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  if (e.key in moves) map.pan(...moves[e.key]);
  else if (e.key === "+" || e.key === "=") map.zoomBy(1);
  else if (e.key === "-") map.zoomBy(-1);
  else if (e.key === "0" || e.key === "Home") map.fit(true);
  else return;
  e.preventDefault();
}
