// Charts in SVG: axes, lines with markers, a cursor, zoom by pointer and keyboard. Nothing here knows what is drawn.
"use strict";

const HEIGHT = 400;

function element(tag, attributes, parent, text) {
  const is_svg = SVG_TAGS.has(tag);
  const made = is_svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}
const SVG_TAGS = new Set(["svg", "g", "path", "line", "rect", "circle", "text", "clipPath", "defs"]);

// Numbers -------------------------------------------------------------------------------------------------------------

const RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹";
const raised = n => String(n).replace(/-/, "⁻").replace(/\d/g, d => RAISED[d]);

function significant(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const exponent = Math.floor(Math.log10(Math.abs(Number(value.toPrecision(digits)))));
  let text;
  if (exponent < -4 || exponent >= 6) {
    const mantissa = Number((value / 10 ** exponent).toPrecision(digits));
    text = (mantissa === 1 ? "" : mantissa === -1 ? "−" : mantissa + "×") + "10" + raised(exponent);
  } else {
    text = String(Number(value.toPrecision(digits)));
  }
  return text.replace("-", "−");
}

function seconds(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return "∞";
  for (const [limit, scale, unit] of [[0.9995e-3, 1e-6, "µs"], [0.9995, 1e-3, "ms"], [119.5, 1, "s"], [7170, 60, "min"]]) {
    if (value !== 0 && Math.abs(value) < limit) return `${significant(value / scale, 3)} ${unit}`;
  }
  return value === 0 ? "0 s" : `${significant(value / 3600, 3)} h`;
}

function bytes(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  let unit = 0;
  while (value >= 999.5 && unit < 5) { value /= 1024; unit += 1; }
  return `${significant(value, 3)} ${["B", "KiB", "MiB", "GiB", "TiB", "PiB"][unit]}`;
}

const count = value => value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en-US");

// Scales --------------------------------------------------------------------------------------------------------------

/// A scale over [low, high]; a logarithmic one holds the logarithms.
function scale(values, log, zoom, room) {
  const into = log ? Math.log10 : v => v, back = log ? v => 10 ** v : v => v;
  let [low, high] = [Infinity, -Infinity];
  for (const value of zoom || values) {
    const at = into(value);
    if (Number.isFinite(at)) { low = Math.min(low, at); high = Math.max(high, at); }
  }
  if (low > high) [low, high] = [0, 1];
  if (!zoom) {
    // Around a single value there is room for ticks that differ.
    const pad = high > low ? (high - low) * room : log ? 0.2 : Math.abs(high) * 0.1 || 0.5;
    [low, high] = [low - pad, high + pad];
  }
  if (low === high) high = low + 1e-12 + Math.abs(low) * 1e-6;
  return { log, low, high, place: v => (into(v) - low) / (high - low), value: p => back(low + p * (high - low)) };
}

/// Ticks as [value, has a label].
function ticks(axis, most) {
  const result = [], { low, high, log } = axis;
  if (log && high - low >= 0.9) {
    const every = Math.max(1, Math.ceil((high - low) / most));
    for (let power = Math.floor(low); power <= Math.ceil(high); power++) {
      if (power >= low - 1e-9 && power <= high + 1e-9) result.push([10 ** power, power % every === 0]);
      if (every === 1) for (let digit = 2; digit < 10; digit++) {
        const at = power + Math.log10(digit);
        if (at > low && at < high) result.push([10 ** at, high - low < 1.7 && (digit === 2 || digit === 5)]);
      }
    }
    return result;
  }
  const [from, to] = log ? [10 ** low, 10 ** high] : [low, high];
  const rough = (to - from) / Math.max(2, most), power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(f => f * power).find(s => s >= rough * 0.999);
  const first = Math.ceil(from / step - 1e-9);
  // Bounded, for an axis so short that its numbers cannot be told apart.
  for (let k = 0; k < 100 && (first + k) * step <= to + step * 1e-9; k++) {
    result.push([Number(((first + k) * step).toPrecision(12)), true]);
  }
  return result;
}

// Marks ---------------------------------------------------------------------------------------------------------------

const MARKERS = {
  circle: r => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0Z`,
  square: r => ring(4, Math.PI / 4, () => r * 1.25),
  diamond: r => ring(4, 0, () => r * 1.32),
  up: r => ring(3, -Math.PI / 2, () => r * 1.46),
  down: r => ring(3, Math.PI / 2, () => r * 1.46),
  hexagon: r => ring(6, 0, () => r * 1.1),
  star: r => ring(10, -Math.PI / 2, k => r * (k % 2 ? 0.62 : 1.45)),
  plus: r => {
    const a = 1.2 * r, b = 0.42 * r;
    return `M${-b},${-a}H${b}V${-b}H${a}V${b}H${b}V${a}H${-b}V${b}H${-a}V${-b}H${-b}Z`;
  },
};

function ring(corners, start, reach) {
  let path = "";
  for (let k = 0; k < corners; k++) {
    const angle = start + 2 * Math.PI * k / corners;
    path += `${k ? "L" : "M"}${(reach(k) * Math.cos(angle)).toFixed(2)},${(reach(k) * Math.sin(angle)).toFixed(2)}`;
  }
  return path + "Z";
}

function isDark() {
  const theme = document.documentElement.dataset.theme;
  const printing = matchMedia("print").matches;
  return !printing && (theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
}

/// A series' colour as it can be seen on the paper of the page.
function inkOf([r, g, b]) {
  if (isDark()) {
    const light = (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255;
    const white = light < 0.06 ? 0.92 : light < 0.45 ? 0.38 : 0.08;
    [r, g, b] = [r, g, b].map(c => Math.round(c + (255 - c) * white));
  }
  return `rgb(${r},${g},${b})`;
}

function sample(style, is_line) {
  const svg = element("svg", { width: is_line ? 34 : 14, height: 14, viewBox: is_line ? "0 0 34 14" : "10 0 14 14", "aria-hidden": "true" });
  const ink = inkOf(style.color);
  if (is_line) element("path", { d: "M1,7H33", stroke: ink, "stroke-width": 2, "stroke-dasharray": style.dash.join(" "), fill: "none" }, svg);
  element("path", { d: MARKERS[style.marker](4.4), fill: ink, transform: "translate(17,7)" }, svg);
  return svg;
}

// A panel -------------------------------------------------------------------------------------------------------------

/// Draws lines into `figure`. `chart` holds what panels of one chart share: axes { title, log, format, categories } for x and y, the
/// zoom, and `changed()` to draw again. A line: { style, curves: [{ points, of, end }], middle: { points, of }, mark: "line" | "point" };
/// a point: [x, y, text].
function drawPanel(figure, chart, lines) {
  const width = Math.round(Math.max(300, figure.clientWidth || 600));
  figure.querySelector("svg")?.remove();
  const all = axis => lines.flatMap(line => [...line.curves, ...(line.middle ? [line.middle] : [])].flatMap(c => c.points.map(p => p[axis])));
  const shared = axis => chart.all ? chart.all[axis] : all(axis);
  const room = chart.scatter ? 0.06 : 0.02;
  const x = scale(shared(0), chart.x.log, chart.zoom?.[0], room), y = scale(shared(1), chart.y.log, chart.zoom?.[1], 0.05);
  if (!chart.zoom) chart.whole = [x.high - x.low, y.high - y.low];
  const y_ticks = ticks(y, 7), x_ticks = ticks(x, width / 90);
  const longest = Math.max(...y_ticks.filter(t => t[1]).map(t => chart.y.format(t[0]).length), 3);
  const left = Math.min(110, 38 + longest * 7.6), right = 14, top = 8, bottom = 50, height = HEIGHT;
  const inner = { width: width - left - right, height: height - top - bottom };
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "img",
    "aria-label": `${figure.dataset.name || "Plot"}: ${chart.y.title} over ${chart.x.title}. Arrow keys move a cursor from point to point and from line to line, plus and minus zoom, arrow keys with Shift move what is shown, 0 shows everything.` }, figure);
  const to = ([px, py]) => [left + x.place(px) * inner.width, top + (1 - y.place(py)) * inner.height];

  for (const [value, labelled] of x_ticks) {
    const [at] = to([value, 0]);
    if (at < left - 0.5 || at > left + inner.width + 0.5) continue;
    if (labelled) {
      element("line", { class: "grid", x1: at, x2: at, y1: top, y2: top + inner.height }, svg);
      element("text", { x: at, y: top + inner.height + 20, "text-anchor": "middle" }, svg, chart.x.format(value));
    }
    element("line", { class: "axis", x1: at, x2: at, y1: top + inner.height, y2: top + inner.height + (labelled ? 5 : 3) }, svg);
  }
  for (const [value, labelled] of y_ticks) {
    const at = top + (1 - y.place(value)) * inner.height;
    if (at < top - 0.5 || at > top + inner.height + 0.5) continue;
    if (labelled) {
      element("line", { class: "grid", x1: left, x2: left + inner.width, y1: at, y2: at }, svg);
      element("text", { x: left - 8, y: at + 4.5, "text-anchor": "end" }, svg, chart.y.format(value));
    }
  }
  element("path", { class: "axis", d: `M${left},${top}V${top + inner.height}H${left + inner.width}`, fill: "none" }, svg);
  element("text", { class: "title x-title", x: left + inner.width / 2, y: height - 8, "text-anchor": "middle" }, svg, chart.x.title);
  element("text", { class: "title y-title", transform: `translate(15,${top + inner.height / 2}) rotate(-90)`, "text-anchor": "middle" }, svg, chart.y.title);

  const clip = `clip-${++drawPanel.count}`;
  element("rect", { x: left - 1, y: top - 1, width: inner.width + 2, height: inner.height + 2 }, element("clipPath", { id: clip }, element("defs", {}, svg)));
  const area = element("g", { "clip-path": `url(#${clip})`, fill: "none" }, svg);
  const targets = drawLines(area, lines, to, inner, left, x, y);
  if (!targets.length) element("text", { x: left + inner.width / 2, y: top + inner.height / 2, "text-anchor": "middle" }, svg, "nothing recorded");
  interact(svg, chart, { x, y, left, top, inner, width, height }, targets);
}
drawPanel.count = 0;

/// Draws the lines and answers their points for the cursor: [x, y, text, line].
function drawLines(area, lines, to, inner, left, x, y) {
  const targets = [];
  const usable = points => points.filter(p => Number.isFinite(p[1]) && Number.isFinite(p[0]) && (!x.log || p[0] > 0) && (!y.log || p[1] > 0));
  const aside = sideBySide(lines.filter(line => line.mark === "point").flatMap(line => line.curves.flatMap(c => usable(c.points))), p => to(p)[0]);
  const placed = p => { const [px, py] = to(p); return [px + (aside.get(p) ?? aside.get(p[3]) ?? 0), py]; };
  const route = points => points.map(p => placed(p).map(v => Math.max(-1e5, Math.min(1e5, v)).toFixed(1)).join(",")).join("L");
  lines.forEach((line, index) => {
    const ink = inkOf(line.style.color), dash = line.style.dash.join(" ");
    const several = line.middle !== undefined;
    for (const curve of line.curves) {
      const points = usable(curve.points);
      if (!points.length) continue;
      if (line.mark === "line") {
        element("path", { d: "M" + route(points), stroke: ink, "stroke-width": several ? 1 : 2, "stroke-opacity": several ? 0.35 : 1, "stroke-dasharray": several ? "" : dash, "stroke-linejoin": "round" }, area);
      }
      points.forEach(p => targets.push([...placed(p), p[2], index]));
      if (curve.end) {
        const [cx, cy] = to(points[points.length - 1]);
        element("path", { d: `M${cx - 4},${cy - 4}L${cx + 4},${cy + 4}M${cx - 4},${cy + 4}L${cx + 4},${cy - 4}`, stroke: ink, "stroke-width": 2 }, area);
      }
    }
    const main = usable((line.middle || line.curves[0] || { points: [] }).points);
    if (line.middle && main.length) {
      element("path", { d: "M" + route(main), stroke: ink, "stroke-width": 2.2, "stroke-dasharray": dash, "stroke-linejoin": "round" }, area);
      main.forEach(p => targets.push([...placed(p), p[2], index]));
    }
    if (line.mark === "front") return;
    const marked = line.mark === "point" ? line.curves.flatMap(c => usable(c.points)).map(placed) : spaced(main.map(to), left + 12 + 70 * ((index * 0.37) % 1));
    for (const [px, py] of marked) {
      element("path", { d: MARKERS[line.style.marker](line.mark === "point" ? 5.4 : 4.2), fill: ink, transform: `translate(${px.toFixed(1)},${py.toFixed(1)})` }, area);
    }
  });
  return targets;
}

/// How far points at the same place across are moved, so that each can be seen. A corner of a line that goes with a point
/// names it: [x, y, text, point].
function sideBySide(points, across) {
  const columns = new Map(), moved = new Map();
  for (const point of points) {
    const column = Math.round(across(point));
    columns.set(column, [...(columns.get(column) || []), point]);
  }
  for (const column of columns.values()) {
    const step = Math.min(14, 90 / column.length);
    column.forEach((point, k) => moved.set(point, step * (k - (column.length - 1) / 2)));
  }
  return moved;
}

/// Some of a line's points, about 80 apart, the last among them.
function spaced(points, next) {
  const chosen = [];
  for (const point of points) {
    if (point[0] >= next) { chosen.push(point); next = point[0] + 80; }
  }
  const last = points[points.length - 1];
  if (last) {
    while (chosen.length && Math.hypot(chosen.at(-1)[0] - last[0], chosen.at(-1)[1] - last[1]) < 14) chosen.pop();
    chosen.push(last);
  }
  return chosen;
}

// Cursor and zoom -----------------------------------------------------------------------------------------------------

let readout = null;

function tell(lines, x, y) {
  readout ??= element("div", { class: "readout", role: "status", "aria-live": "polite" }, document.body);
  readout.replaceChildren();
  lines.forEach((line, index) => element(index ? "div" : "strong", {}, readout, line));
  readout.hidden = false;
  const box = readout.getBoundingClientRect();
  readout.style.left = `${Math.max(4, x + 16 + box.width > innerWidth ? x - 16 - box.width : x + 16)}px`;
  readout.style.top = `${Math.max(4, Math.min(innerHeight - box.height - 4, y + 14))}px`;
}

function silence() { if (readout) readout.hidden = true; }

function interact(svg, chart, frame, targets) {
  const cursor = element("circle", { class: "cursor", r: 7, visibility: "hidden" }, svg);
  let current = -1, start = null, band = null;
  const inSvg = event => {
    const box = svg.getBoundingClientRect();
    return [(event.clientX - box.left) * frame.width / box.width, (event.clientY - box.top) * frame.height / box.height];
  };
  const show = index => {
    current = index;
    const target = targets[index];
    if (!target) { cursor.setAttribute("visibility", "hidden"); silence(); return; }
    cursor.setAttribute("cx", target[0]); cursor.setAttribute("cy", target[1]); cursor.setAttribute("visibility", "visible");
    const box = svg.getBoundingClientRect();
    tell(target[2](), box.left + target[0] * box.width / frame.width, box.top + target[1] * box.height / frame.height);
  };
  const visible = ([px, py]) => px >= frame.left - 2 && px <= frame.left + frame.inner.width + 2 && py >= frame.top - 2 && py <= frame.top + frame.inner.height + 2;
  const nearest = ([px, py], reach) => {
    let best = -1, distance = reach;
    targets.forEach((target, index) => {
      const own = Math.hypot(target[0] - px, target[1] - py);
      if (own < distance && visible(target)) { best = index; distance = own; }
    });
    return best;
  };
  const valueAt = ([px, py]) => [frame.x.value((px - frame.left) / frame.inner.width), frame.y.value(1 - (py - frame.top) / frame.inner.height)];
  const zoomTo = (a, b) => {
    const [from, to] = [valueAt(a), valueAt(b)];
    const shares = [(b[0] - a[0]) / frame.inner.width * (frame.x.high - frame.x.low), (b[1] - a[1]) / frame.inner.height * (frame.y.high - frame.y.low)]
      .map((length, axis) => Math.abs(length) / chart.whole[axis]);
    // Below a millionth there is nothing to see; beyond everything, everything is shown.
    if (shares.some(share => share < 1e-6)) return;
    if (shares.every(share => share >= 1)) { chart.zoom = null; silence(); chart.changed(); return; }
    chart.zoom = [0, 1].map(axis => [Math.min(from[axis], to[axis]), Math.max(from[axis], to[axis])]);
    silence();
    chart.changed();
  };
  svg.addEventListener("pointermove", event => {
    const at = inSvg(event);
    if (start) {
      const [x0, y0] = start;
      band ??= element("rect", { class: "zoom" }, svg);
      for (const [name, value] of Object.entries({ x: Math.min(x0, at[0]), y: Math.min(y0, at[1]), width: Math.abs(at[0] - x0), height: Math.abs(at[1] - y0) })) band.setAttribute(name, value);
      return;
    }
    show(nearest(at, 45));
  });
  svg.addEventListener("pointerleave", () => { if (!start) show(-1); });
  svg.addEventListener("pointerdown", event => {
    if (event.button === 0 && event.pointerType !== "touch") { start = inSvg(event); svg.setPointerCapture(event.pointerId); }
  });
  svg.addEventListener("pointerup", event => {
    const from = start, end = inSvg(event);
    start = null; band?.remove(); band = null;
    if (from && Math.abs(end[0] - from[0]) > 8 && Math.abs(end[1] - from[1]) > 8) zoomTo(from, end);
  });
  svg.addEventListener("dblclick", () => { chart.zoom = null; chart.changed(); });
  svg.addEventListener("blur", () => show(-1));
  svg.addEventListener("keydown", event => keys(event, chart, frame, targets, { current: () => current, show, zoomTo, visible }));
}

function keys(event, chart, frame, targets, { current, show, zoomTo, visible }) {
  const { left, top, inner } = frame;
  const order = targets.map((target, index) => index).filter(index => visible(targets[index]))
    .sort((a, b) => targets[a][3] - targets[b][3] || targets[a][0] - targets[b][0]);
  const here = order.indexOf(current());
  const line = here >= 0 ? targets[order[here]][3] : -1;
  const center = here >= 0 ? targets[order[here]] : [left + inner.width / 2, top + inner.height / 2];
  const zoom = factor => {
    const [w, h] = [inner.width * factor / 2, inner.height * factor / 2];
    zoomTo([center[0] - w, center[1] - h], [center[0] + w, center[1] + h]);
  };
  const move = (right, down) => {
    const [x, y] = [left + right * inner.width, top + down * inner.height];
    if (chart.zoom) zoomTo([x, y], [x + inner.width, y + inner.height]);
  };
  const other = step => {
    const lines = [...new Set(order.map(index => targets[index][3]))];
    const wanted = lines[(lines.indexOf(line) + step + lines.length) % lines.length];
    const own = order.filter(index => targets[index][3] === wanted);
    own.sort((a, b) => Math.abs(targets[a][0] - center[0]) - Math.abs(targets[b][0] - center[0]));
    if (own.length) show(own[0]);
  };
  const actions = {
    ArrowRight: () => show(order[Math.min(order.length - 1, here + 1)] ?? -1),
    ArrowLeft: () => show(order[Math.max(0, here - 1)] ?? -1),
    ArrowDown: () => other(1), ArrowUp: () => other(-1),
    "+": () => zoom(0.6), "=": () => zoom(0.6), "-": () => zoom(1.7),
    0: () => { chart.zoom = null; chart.changed(); }, Escape: () => { chart.zoom = null; chart.changed(); },
  };
  const moves = { ArrowRight: () => move(0.2, 0), ArrowLeft: () => move(-0.2, 0), ArrowDown: () => move(0, 0.2), ArrowUp: () => move(0, -0.2) };
  const action = (event.shiftKey && moves[event.key]) || actions[event.key];
  if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  const place = [...document.querySelectorAll(".panel svg")].indexOf(event.currentTarget);
  action();
  // A chart that was drawn again keeps the keyboard.
  document.querySelectorAll(".panel svg")[place]?.focus({ preventScroll: true });
}
