// The page: curves, accuracy over parameters, time to the target, profile, sensitivity, table. `data` is what mod.rs wrote.
"use strict";

addEventListener("error", event => {
  element("p", { class: "broken" }, document.body, `This page could not be drawn: ${event.message}`);
});

const data = JSON.parse(document.getElementById("data").textContent);
const hidden = new Set();
const redraw = [];
const drawAll = () => redraw.forEach(draw => draw());

// The first of those that were recorded is shown at first; the order is that of src/report/measure.rs, then of importance.
const METRICS = {
  test_explained_beyond_linear: ["Explained of what a linear map leaves, test", false, significant],
  test_fact_loss: ["Test loss on facts (nats per answer)", false, significant],
  test_bits_per_character: ["Test bits per character", false, significant],
  test_accuracy: ["Test accuracy (share of rows)", false, significant],
  test_squared_error: ["Test squared error (per row)", false, significant],
  validation_accuracy: ["Validation accuracy (share of rows)", false, significant],
  train_accuracy: ["Training accuracy (share of rows)", false, significant],
  test_loss: [`Test loss (${data.loss_unit})`, false, significant],
  validation_loss: [`Validation loss (${data.loss_unit})`, false, significant],
  train_loss: [`Training loss (${data.loss_unit})`, false, significant],
  objective: [`Training objective (${data.loss_unit})`, false, significant],
  gap: [`Objective above the optimum (${data.loss_unit})`, true, significant],
  test_explained_variance: ["Explained variance of test outputs", false, significant],
  validation_explained_variance: ["Explained variance of validation outputs", false, significant],
  validation_explained_beyond_linear: ["Explained of what a linear map leaves, validation", false, significant],
  validation_squared_error: ["Validation squared error (per row)", false, significant],
  train_squared_error: ["Training squared error (per row)", false, significant],
  test_grammar_loss: ["Test loss of the grammar (nats per token)", false, significant],
  test_sum_loss: ["Test loss on sums (nats per digit)", false, significant],
  validation_bits_per_character: ["Validation bits per character", false, significant],
  validation_grammar_loss: ["Validation loss of the grammar (nats per token)", false, significant],
  validation_fact_loss: ["Validation loss on facts (nats per answer)", false, significant],
  validation_sum_loss: ["Validation loss on sums (nats per digit)", false, significant],
  gradient_norm: ["Largest element of the gradient", true, significant],
};
const rises = metric => metric.includes("accuracy") || metric.includes("explained");
const AXES = {
  seconds: ["Training time", true, seconds, "train_seconds"],
  steps: ["Steps", true, significant, "step"],
  passes: ["Passes over the training rows", true, significant, "data_passes"],
  gradients: ["Work (gradients over all rows)", true, significant, "gradient_equivalents"],
  flops: ["FLOPs", true, significant, "flops"],
  parameters: ["Parameters", true, count, "parameters_total"],
};
const SIZES = {
  parameters_total: ["Parameters in all", count],
  parameters_active: ["Parameters active for one row", count],
  parameters_nonzero: ["Parameters that are not zero", count],
  resident: ["Resident bytes: parameters and optimizer state", bytes],
  parameter_bytes: ["Bytes of the parameters", bytes],
  parameter_compressed_bytes: ["Bytes of the parameters, compressed without loss", bytes],
};

// Numbers of cells and series -------------------------------------------------------------------------------------------

const answered = cell => cell.status === "finished" || cell.status === "timed-out";

function median(values) {
  const sorted = values.filter(v => v !== null && v !== undefined && !Number.isNaN(v)).sort((a, b) => a - b);
  if (!sorted.length) return null;
  const [low, high] = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]];
  return low === high ? low : (low + high) / 2;
}

function valueOf(cell, metric) {
  if (metric === "gap") return aboveOptimum(cell, cell.result.objective ?? null);
  if (metric === "resident") {
    const own = cell.result.parameter_bytes;
    return own == null ? null : own + (cell.result.optimizer_state_bytes || 0);
  }
  return cell.result[metric] ?? null;
}
const medianOf = (series, metric) => median(series.cells.filter(answered).map(cell => valueOf(cell, metric)));

/// Times to the target of the cells that count; a miss is infinity, and a cell that diverged has missed.
function timesToTarget(series) {
  return series.cells.filter(cell => answered(cell) || cell.status === "diverged")
    .map(cell => answered(cell) ? cell.result.time_to_target_seconds ?? Infinity : Infinity);
}

const place = cell => [cell.fold === null ? "" : `fold ${cell.fold}`, `seed ${cell.seed}`].filter(Boolean).join(", ");

const aboveOptimum = (cell, objective) => objective === null || cell.optimum === null ? null : Math.max(objective - cell.optimum, 0);

/// The recorded points of a cell: [x, y, whether it was before the first step].
function curve(cell, x, y) {
  const xs = cell.trace[x] || [];
  const ys = y === "gap" ? (cell.trace.objective || []).map(v => aboveOptimum(cell, v)) : cell.trace[y] || [];
  return xs.map((value, row) => [value, ys[row], cell.trace.step?.[row] === 0]).filter(p => p[0] !== null && p[1] !== null && p[1] !== undefined);
}

/// The median over cells on a grid with one place for each record, where the slowest has made it.
function middle(curves, worst) {
  const counted = curves.filter(c => c.points.length && !c.lost);
  const longest = Math.max(0, ...counted.map(c => c.points.length));
  const grid = [];
  for (let record = 0; record < longest; record++) {
    grid.push(Math.max(...counted.filter(c => c.points[record]).map(c => c.points[record][0])));
  }
  const result = [], next = counted.map(() => 0);
  for (const x of [...new Set(grid)].sort((a, b) => a - b)) {
    const values = counted.map((c, index) => {
      while (next[index] < c.points.length && c.points[next[index]][0] <= x) next[index] += 1;
      const last = c.points[next[index] - 1];
      if (!last) return null;
      const over = next[index] === c.points.length && x > last[0];
      return over && c.diverged ? worst : over && !c.holds ? null : last[1];
    });
    if (values.some(v => v === null)) { if (result.length) break; else continue; }
    const value = median(values);
    if (!Number.isFinite(value)) break;
    result.push([x, value, !result.length && counted.every(c => c.points[0][2])]);
  }
  return result;
}

// Small parts -----------------------------------------------------------------------------------------------------------

function select(parent, label, options, chosen, change) {
  const made = element("select", {}, element("label", {}, parent, label + " "));
  for (const [value, text] of options) {
    const option = element("option", { value }, made, text);
    option.selected = value === chosen;
  }
  made.addEventListener("change", () => change(made.value));
  return made;
}

function check(parent, label, checked, change) {
  const wrap = element("label", {}, parent), box = element("input", { type: "checkbox" }, wrap);
  wrap.append(label);
  box.checked = checked;
  box.addEventListener("change", () => change(box.checked));
  return box;
}

function section(title, note) {
  const made = element("section", {}, document.querySelector("main"));
  element("h2", {}, made, title);
  if (note) element("p", { class: "note" }, made, note);
  return made;
}

/// Every series of a dataset once, by name.
function names(dataset) {
  const all = new Map();
  dataset.models.forEach(model => model.series.forEach(series => all.has(series.name) || all.set(series.name, series.style)));
  return all;
}

function legend(parent, dataset, is_line) {
  const made = element("div", { class: "legend", role: "group", "aria-label": "Lines: press to hide or show, with Shift for one alone" }, parent);
  let shown = "";
  const alone = name => {
    const others = [...names(dataset()).keys()].filter(other => other !== name);
    const is_alone = others.every(other => hidden.has(other));
    others.forEach(other => is_alone ? hidden.delete(other) : hidden.add(other));
    hidden.delete(name);
    drawAll();
  };
  redraw.push(() => {
    const all = names(dataset()), wanted = JSON.stringify([isDark(), ...all.keys()]);
    // The buttons stay where they can: a click must not take away what the next one is for.
    if (wanted !== shown) {
      shown = wanted;
      made.replaceChildren();
      for (const [name, style] of all) {
        const button = element("button", { type: "button", title: "hide or show; with Shift or twice: this one alone" }, made);
        button.append(sample(style, is_line), name);
        button.addEventListener("click", event => {
          if (event.shiftKey) { alone(name); return; }
          hidden.has(name) ? hidden.delete(name) : hidden.add(name);
          drawAll();
        });
        button.addEventListener("dblclick", event => { if (!event.shiftKey) alone(name); });
      }
    }
    [...all.keys()].forEach((name, index) => made.children[index].setAttribute("aria-pressed", String(!hidden.has(name))));
  });
}

function chooseDataset(parent, change) {
  if (data.datasets.length < 2) return;
  select(parent, "Data", data.datasets.map((d, index) => [String(index), d.name]), "0", value => change(data.datasets[Number(value)]));
}

// Curves ----------------------------------------------------------------------------------------------------------------

function curves() {
  const has = key => data.datasets.some(d => d.models.some(m => m.series.some(s => s.cells.some(c => key === "gap" ? c.optimum !== null && c.trace.objective : (c.trace[key] || []).some(v => v !== null)))));
  const metrics = Object.keys(METRICS).filter(has);
  if (!metrics.length) return;
  const wanted = new URLSearchParams(location.hash.slice(1));
  const made = section("Curves", "Drag to zoom, double-click to see everything again. Thick: the median over seeds and folds; thin: every cell; ×: it diverged. From the keyboard: Tab to a plot, then arrows, +, − and 0.");
  const controls = element("div", { class: "controls" }, made);
  const state = { dataset: data.datasets[0], y: metrics.includes(wanted.get("y")) ? wanted.get("y") : metrics[0], x: Object.hasOwn(AXES, wanted.get("x")) ? wanted.get("x") : "seconds", traces: true };
  const chart = { zoom: null, changed: () => draw(), x: {}, y: {} };
  const axes = () => {
    const [title, log, format] = AXES[state.x], [y_title, y_log, y_format] = METRICS[state.y];
    chart.x = { title, log, format };
    chart.y = { title: y_title, log: y_log, format: y_format };
    chart.zoom = null;
    log_x.checked = log; log_y.checked = y_log;
    // Where a page within a page may not have an address, that is no reason to stop.
    try { history.replaceState(null, "", `#x=${state.x}&y=${state.y}`); } catch { /* the choice is not kept */ }
  };
  chooseDataset(controls, dataset => { state.dataset = dataset; chart.zoom = null; drawAll(); });
  select(controls, "What", metrics.map(key => [key, METRICS[key][0]]), state.y, value => { state.y = value; axes(); draw(); }).id = "choose-y";
  select(controls, "Over", Object.entries(AXES).map(([key, [title]]) => [key, title]), state.x, value => { state.x = value; axes(); draw(); }).id = "choose-x";
  const log_x = check(controls, "logarithmic across", true, on => { chart.x.log = on; chart.zoom = null; draw(); });
  const log_y = check(controls, "logarithmic up", false, on => { chart.y.log = on; chart.zoom = null; draw(); });
  check(controls, "every cell", true, on => { state.traces = on; draw(); });
  element("button", { type: "button" }, controls, "Show everything").addEventListener("click", () => { chart.zoom = null; draw(); });
  legend(made, () => state.dataset, true);
  const panels = element("div", { class: "panels" }, made);
  const draw = () => {
    panels.replaceChildren();
    const groups = state.x === "parameters"
      ? [{ name: "", lines: sizeLines(state.dataset, state.y, "parameters_total") }]
      : state.dataset.models.map(model => ({ name: model.name, lines: modelLines(model, state) }));
    if (state.x !== "parameters" && chart.x.log) enterAtLeft(groups.flatMap(group => group.lines));
    panels.classList.toggle("single", groups.length === 1);
    chart.scatter = state.x === "parameters";
    chart.all = [0, 1].map(axis => groups.flatMap(g => g.lines.flatMap(l => [...l.curves, ...(l.middle ? [l.middle] : [])].flatMap(c => c.points.filter(p => p[axis] > 0 || !chart[axis ? "y" : "x"].log).map(p => p[axis])))));
    const figures = groups.map(({ name }) => {
      const figure = element("figure", { class: "panel", "data-name": name }, panels);
      if (groups.length > 1) element("figcaption", {}, figure, name);
      return figure;
    });
    // Only when all stand there do they have their widths.
    figures.forEach((figure, index) => drawPanel(figure, chart, groups[index].lines));
  };
  axes();
  redraw.push(draw);
}

function modelLines(model, { x, y, traces }) {
  const column = AXES[x][3], [x_title, , x_format] = AXES[x], [y_title, , y_format] = METRICS[y];
  const worst = rises(y) ? -Infinity : Infinity;
  return model.series.filter(series => !hidden.has(series.name)).map(series => {
    const label = (cell, p) => () => [series.name, cell ? place(cell) : `median of ${series.cells.length}`, `${y_title}: ${y_format(p[1], 5)}`, `${x_title}: ${x_format(p[0])}`];
    const own = series.cells.map(cell => ({ cell, points: curve(cell, column, y), holds: cell.status === "finished", diverged: cell.status === "diverged", lost: !answered(cell) && cell.status !== "diverged" }));
    const several = own.filter(c => c.points.length).length > 1;
    const named = (points, cell) => points.map(p => [p[0], p[1], label(cell, p), p[2]]);
    return {
      style: series.style, mark: "line",
      curves: own.filter(() => traces || !several).map(c => ({ points: named(c.points, c.cell), end: c.diverged })),
      middle: several ? { points: named(middle(own, worst), null) } : undefined,
    };
  });
}

/// A logarithmic axis has no start: what was recorded before the first step, however long its clock ran, enters where the first
/// step of any line stands.
function enterAtLeft(lines) {
  const all = lines.flatMap(line => [...line.curves, ...(line.middle ? [line.middle] : [])]).map(c => c.points).filter(points => points.length > 1 && points[0][3]);
  const first = Math.min(...all.map(points => points[1][0]).filter(x => x > 0));
  if (Number.isFinite(first)) for (const points of all) points[0][0] = Math.min(first, points[1][0]);
}

// Accuracy over parameters ----------------------------------------------------------------------------------------------

function sizeLines(dataset, metric, size) {
  const lines = new Map();
  for (const model of dataset.models) for (const series of model.series) {
    if (hidden.has(series.name)) continue;
    const own = medianOf(series, metric);
    const at = medianOf(series, size);
    if (own === null || at === null) continue;
    const format = size === "parameters_total" ? count : SIZES[size][1];
    const point = [at, own, () => [series.name, model.name, `${METRICS[metric][0]}: ${significant(own, 5)}`, `${size === "parameters_total" ? "Parameters" : SIZES[size][0]}: ${format(at)}`]];
    if (!lines.has(series.name)) lines.set(series.name, { style: series.style, mark: "point", curves: [{ points: [] }] });
    lines.get(series.name).curves[0].points.push(point);
  }
  return [...lines.values()];
}

/// The points that no other beats in both: fewer parameters and a better value.
function front(points, higher) {
  const sorted = [...points].sort((a, b) => a[0] - b[0] || (higher ? b[1] - a[1] : a[1] - b[1]));
  const kept = [];
  for (const p of sorted) if (!kept.length || (higher ? p[1] > kept.at(-1)[1] : p[1] < kept.at(-1)[1])) kept.push(p);
  return kept;
}

function parameters() {
  const metrics = ["test_explained_beyond_linear", "test_fact_loss", "test_bits_per_character", "test_accuracy", "test_squared_error", "test_explained_variance", "test_loss", "test_sum_loss", "test_grammar_loss", "validation_accuracy", "validation_loss", "train_loss"]
    .filter(key => data.datasets.some(d => d.models.some(m => m.series.some(s => medianOf(s, key) !== null))));
  const sizes = Object.keys(SIZES).filter(key => data.datasets.some(d => d.models.some(m => m.series.some(s => medianOf(s, key) !== null))));
  if (!metrics.length || !sizes.length) return;
  const made = section("What parameters buy", "Medians over seeds and folds. Markers side by side are of equal size. The line joins the fits that none of fewer parameters equals (the Pareto front).");
  const controls = element("div", { class: "controls" }, made);
  const state = { dataset: data.datasets[0], metric: metrics[0], size: sizes[0] };
  const chart = { zoom: null, scatter: true, changed: () => draw(), x: {}, y: {} };
  const reset = () => { chart.zoom = null; draw(); };
  chooseDataset(controls, dataset => { state.dataset = dataset; chart.zoom = null; drawAll(); });
  select(controls, "What", metrics.map(key => [key, METRICS[key][0]]), state.metric, value => { state.metric = value; reset(); });
  select(controls, "Over", sizes.map(key => [key, SIZES[key][0]]), state.size, value => { state.size = value; reset(); });
  const log = check(controls, "logarithmic across", true, reset), log_up = check(controls, "logarithmic up", false, reset);
  legend(made, () => state.dataset, false);
  const figure = element("figure", { class: "panel", "data-name": "What parameters buy" }, made);
  const draw = () => {
    const [title, format] = SIZES[state.size], [y_title, , y_format] = METRICS[state.metric];
    Object.assign(chart, { x: { title, log: log.checked, format }, y: { title: y_title, log: log_up.checked, format: y_format } });
    const lines = sizeLines(state.dataset, state.metric, state.size);
    const best = front(lines.flatMap(line => line.curves[0].points), rises(state.metric));
    const steps = best.flatMap((p, k) => k ? [[p[0], best[k - 1][1], p[2], p], p] : [p]);
    if (best.length > 1) lines.unshift({ style: { color: [128, 128, 128], dash: [2, 3], marker: "circle" }, mark: "front", curves: [], middle: { points: steps } });
    chart.all = undefined;
    drawPanel(figure, chart, lines);
  };
  redraw.push(draw);
}

// Time to the target ----------------------------------------------------------------------------------------------------

function timeToTarget() {
  const with_target = data.datasets.filter(d => d.target);
  if (!with_target.length) return;
  const made = section("Time to the target", "Seconds of training until the target was first reached, medians over seeds and folds; ∞: not reached, which counts as infinitely long.");
  for (const dataset of with_target) {
    const rows = dataset.models.flatMap(model => model.series.map(series => ({ model, series, times: timesToTarget(series) }))).filter(row => row.times.length);
    const columns = [
      { title: "model", text: row => row.model.name, key: row => row.model.name },
      { title: "optimizer", node: row => named(row.series), key: row => row.series.name },
      { title: "median", number: true, text: row => seconds(median(row.times)), key: row => median(row.times) },
      { title: "reached", number: true, text: row => `${row.times.filter(Number.isFinite).length} of ${row.times.length}`, key: row => row.times.filter(Number.isFinite).length / row.times.length },
      { title: "fastest", number: true, text: row => seconds(Math.min(...row.times)), key: row => Math.min(...row.times) },
      { title: "slowest", number: true, text: row => seconds(Math.max(...row.times)), key: row => Math.max(...row.times) },
    ];
    element("p", {}, made, `${dataset.name}: ${dataset.target}`);
    table(made, columns.filter((c, index) => index > 0 || dataset.models.length > 1), rows, dataset.models.length > 1 ? 2 : 1);
  }
  profile(made);
}

/// The share of problems that each optimizer solves within so many times the fastest time (Dolan and Moré 2002).
function profile(parent) {
  const problems = data.datasets.flatMap(dataset => dataset.models.filter(() => dataset.target).map(model => ({
    name: data.datasets.length > 1 ? `${dataset.name}, ${model.name}` : model.name,
    times: new Map(model.series.map(series => [series.name, median(timesToTarget(series)) ?? Infinity])),
  })));
  if (problems.length < 2 || !problems.some(problem => [...problem.times.values()].some(Number.isFinite))) return;
  element("h2", {}, parent, "Performance profile");
  element("p", { class: "note" }, parent, "The share of problems solved within so many times the time of the fastest on each. The fastest is of those shown here alone: the times themselves stand beside it.");
  const beside = element("div", { class: "beside" }, parent);
  const figure = element("figure", { class: "panel", "data-name": "Performance profile" }, beside);
  const styles = new Map(data.datasets.flatMap(d => [...names(d)]));
  // What nobody solves is a problem too: none of them has its share of it.
  const ratio = (times, name) => {
    const own = times.get(name) ?? Infinity, best = Math.min(...times.values());
    return own === best && own < Infinity ? 1 : own === Infinity || best === 0 ? Infinity : own / best;
  };
  const ratios = name => problems.map(p => ratio(p.times, name)).sort((a, b) => a === b ? 0 : a - b);
  const farthest = Math.max(2, ...[...styles.keys()].flatMap(name => ratios(name).filter(Number.isFinite))) * 1.2;
  const chart = { zoom: null, changed: () => draw(), x: { title: "Times the fastest time", log: true, format: v => significant(v, 3) }, y: { title: "Share of problems", log: false, format: v => significant(v, 3) } };
  const draw = () => {
    const lines = [...styles].filter(([name]) => !hidden.has(name)).map(([name, style]) => {
      const own = ratios(name), share = t => own.filter(r => r <= t * (1 + 1e-12)).length / own.length;
      const at = (x, y) => [x, y, () => [name, `${significant(100 * y, 3)} % of problems`, `within ${significant(x, 3)} times the fastest`]];
      const points = [at(1, share(1))];
      own.filter(r => r > 1 && Number.isFinite(r)).forEach(r => points.push(at(r, points.at(-1)[1]), at(r, share(r))));
      points.push(at(farthest, points.at(-1)[1]));
      return { style, mark: "line", curves: [{ points }] };
    });
    chart.all = [[1, farthest], [0, 1]];
    drawPanel(figure, chart, lines);
  };
  redraw.push(draw);
  const columns = [{ title: "problem", text: row => row.name, key: row => row.name }];
  for (const name of styles.keys()) columns.push({ title: name, number: true, text: row => seconds(row.times.get(name)), key: row => row.times.get(name) ?? Infinity });
  table(beside, columns, problems, 0);
}

// Sensitivity -----------------------------------------------------------------------------------------------------------

/// Hyperparameters of which a model's optimizer was run with several values, all else equal.
function grids() {
  const found = new Map();
  for (const dataset of data.datasets) for (const model of dataset.models) {
    const keys = new Set(model.series.flatMap(s => Object.keys(s.settings).filter(k => typeof s.settings[k] === "number")));
    for (const key of keys) {
      const groups = new Map();
      for (const series of model.series) {
        if (typeof series.settings[key] !== "number") continue;
        const rest = JSON.stringify([series.optimizer, { ...series.settings, [key]: 0 }]);
        groups.set(rest, [...(groups.get(rest) || []), series]);
      }
      const own = [...groups.values()].filter(group => new Set(group.map(s => s.settings[key])).size > 2);
      if (own.length) found.set(key, [...(found.get(key) || []), ...own.map(group => ({ dataset, model, group }))]);
    }
  }
  return found;
}

function sensitivity() {
  const found = grids();
  if (!found.size) return;
  const made = section("Sensitivity to settings", "What each value of a setting came to, all else equal; medians over seeds and folds. A value at which every cell diverged has no point.");
  const controls = element("div", { class: "controls" }, made);
  const metrics = ["validation_loss", "validation_bits_per_character", "validation_fact_loss", "validation_accuracy", "validation_explained_variance", "train_loss", "validation_squared_error", "time_to_target_seconds"].filter(key => data.datasets.some(d => d.models.some(m => m.series.some(s => medianOf(s, key) !== null))));
  const keys = [...found.keys()].sort((a, b) => (b === "learning_rate") - (a === "learning_rate"));
  const state = { key: keys[0], metric: metrics[0] };
  const chart = { zoom: null, scatter: true, changed: () => draw(), x: {}, y: {} };
  select(controls, "Setting", keys.map(key => [key, key.replaceAll("_", " ")]), state.key, value => { state.key = value; chart.zoom = null; draw(); });
  select(controls, "What", metrics.map(key => [key, METRICS[key]?.[0] || "Time to the target"]), state.metric, value => { state.metric = value; chart.zoom = null; draw(); });
  const log = check(controls, "logarithmic across", true, () => { chart.zoom = null; draw(); });
  const log_up = check(controls, "logarithmic up", true, () => { chart.zoom = null; draw(); });
  const key_list = element("div", { class: "legend" }, made);
  const figure = element("figure", { class: "panel", "data-name": "Sensitivity" }, made);
  const draw = () => {
    const groups = found.get(state.key);
    Object.assign(chart, { x: { title: state.key.replaceAll("_", " "), log: log.checked, format: v => significant(v, 3) }, y: { title: METRICS[state.metric]?.[0] || "Time to the target", log: log_up.checked, format: state.metric === "time_to_target_seconds" ? seconds : significant } });
    key_list.replaceChildren();
    const lines = groups.map(({ dataset, model, group }, index) => {
      const name = [group[0].optimizer, data.datasets.length > 1 ? dataset.name : "", dataset.models.length > 1 ? model.name : "", restOf(group, groups, state.key)].filter(Boolean).join(", ");
      const style = data.styles[index % data.styles.length];
      const label = element("span", { class: "sample" }, key_list);
      label.append(sample(style, true), name);
      const points = group.map(s => [s.settings[state.key], medianOf(s, state.metric), () => [name, `${state.key}: ${significant(s.settings[state.key], 4)}`, significant(medianOf(s, state.metric), 5)]]).filter(p => p[1] !== null).sort((a, b) => a[0] - b[0]);
      return { style, mark: "line", curves: [{ points }] };
    });
    chart.all = undefined;
    drawPanel(figure, chart, lines);
  };
  redraw.push(draw);
}

/// The other settings in which a group differs from those beside it.
function restOf(group, groups, key) {
  const own = group[0].settings, rivals = groups.map(g => g.group[0]).filter(s => s.optimizer === group[0].optimizer);
  return Object.keys(own).filter(k => k !== key && rivals.some(r => r.settings[k] !== own[k])).map(k => `${k.replaceAll("_", " ")} ${own[k]}`).join(", ");
}

// The table -------------------------------------------------------------------------------------------------------------

function named(series) {
  const made = element("span", { class: "sample" });
  made.append(sample(series.style, true), series.name);
  return made;
}

/// A table that a click on a title sorts. A column: { title, number, text or node, key }. `chosen` is told by what.
function table(parent, columns, rows, sorted_by, descending = false, chosen = {}) {
  const made = element("table", {}, element("div", { class: "scroll" }, parent)), head = element("tr", {}, element("thead", {}, made)), body = element("tbody", {}, made);
  let sorted = sorted_by;
  const draw = () => {
    const { key } = columns[sorted];
    const order = [...rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      const missing = v => v === null || v === undefined || Number.isNaN(v);
      if (missing(x) || missing(y)) return missing(x) - missing(y);
      const by = typeof x === "number" && typeof y === "number" ? (x === y ? 0 : x - y) : String(x).localeCompare(String(y), "en", { numeric: true });
      return descending ? -by : by;
    });
    body.replaceChildren(...order.map(row => {
      const line = element("tr", {});
      for (const column of columns) {
        const cell = element("td", column.number ? { class: "number" } : {}, line);
        cell.append(column.node ? column.node(row) : column.text(row));
        if (cell.textContent.length < 48) cell.classList.add("short");
      }
      return line;
    }));
    [...head.children].forEach((cell, index) => index === sorted ? cell.setAttribute("aria-sort", descending ? "descending" : "ascending") : cell.removeAttribute("aria-sort"));
  };
  columns.forEach((column, index) => {
    const cell = element("th", { scope: "col", ...(column.number ? { class: "number" } : {}) }, head);
    element("button", { type: "button" }, cell, column.title).addEventListener("click", () => {
      descending = sorted === index ? !descending : false;
      sorted = index;
      Object.assign(chosen, { title: column.title, descending });
      draw();
    });
  });
  draw();
  redraw.push(draw);
}

const COLUMNS = [
  ["test_accuracy", "test accuracy", significant], ["validation_accuracy", "validation accuracy", significant], ["train_accuracy", "training accuracy", significant],
  ["test_auc", "test AUC", significant], ["test_loss", "test loss", significant], ["train_loss", "training loss", significant], ["objective", "objective", v => significant(v, 6)],
  ["test_bits_per_character", "test bits per character", significant], ["test_fact_loss", "test loss on facts", significant], ["test_sum_loss", "test loss on sums", significant],
  ["test_explained_variance", "test explained", significant], ["test_explained_beyond_linear", "beyond linear", significant],
  ["test_squared_error", "test squared error", significant], ["train_squared_error", "training squared error", significant],
  ["train_seconds", "training time", seconds], ["time_to_target_seconds", "to target", seconds], ["steps", "steps", count], ["data_passes", "passes", significant],
  ["gradient_equivalents", "gradients", significant], ["flops", "FLOPs", v => significant(v, 3)], ["parameters_total", "parameters", count], ["parameters_active", "active", count], ["parameters_nonzero", "not zero", count],
  ["parameter_compressed_bytes", "compressed", bytes], ["optimizer_state_bytes", "optimizer state", bytes], ["peak_resident_bytes", "peak memory", bytes],
];

function results() {
  const made = section("All results", "Only what differs has a column; the rest stands below. A click on a title sorts.");
  const controls = element("div", { class: "controls" }, made), inside = element("div", {}, made);
  let every = false;
  const chosen = {};
  check(controls, "a row for every cell", false, on => { every = on; draw(); });
  const draw = () => {
    inside.replaceChildren();
    const rows = data.datasets.flatMap(dataset => dataset.models.flatMap(model => model.series.flatMap(series =>
      every ? series.cells.map(cell => ({ dataset, model, series, cells: [cell] })) : [{ dataset, model, series, cells: series.cells }])));
    const value = (row, key) => key === "time_to_target_seconds" && row.dataset.target ? median(timesToTarget({ cells: row.cells })) : median(row.cells.filter(answered).map(cell => valueOf(cell, key)));
    if (!rows.length) return;
    const differs = key => rows.length === 1 ? (key(rows[0]) ?? null) !== null : new Set(rows.map(key)).size > 1;
    const columns = [], same = [];
    const add = (title, key, more = {}) => {
      const column = { title, key, text: row => String(key(row) ?? "–"), ...more };
      if (more.always || differs(key)) columns.push(column);
      else if ((key(rows[0]) ?? null) !== null) same.push(`${title} ${column.text(rows[0])}`);
    };
    add("data", row => row.dataset.name);
    add("model", row => row.model.name);
    add("optimizer", row => row.series.name, { always: true, node: row => named(row.series) });
    if (every) { add("fold", row => row.cells[0].fold, { number: true }); add("seed", row => row.cells[0].seed, { number: true }); add("cell", row => row.cells[0].id); }
    else add("cells", row => row.cells.length, { number: true });
    add("status", row => [...new Set(row.cells.map(cell => cell.status))].join(", "));
    for (const [key, title, format] of COLUMNS) add(title, row => value(row, key), { number: true, text: row => format(value(row, key)) });
    for (const [title, key] of Object.entries({ why: row => row.cells.find(cell => cell.reason && !answered(cell))?.reason })) add(title, key);
    const at = title => columns.findIndex(column => column.title === title);
    const first = at("test accuracy");
    if (at(chosen.title) >= 0) table(inside, columns, rows, at(chosen.title), chosen.descending, chosen);
    else table(inside, columns, rows, Math.max(first, 0), first >= 0, chosen);
    redraw.pop();
    if (same.length) element("p", { class: "note" }, inside, `The same in every row: ${same.join("; ")}.`);
  };
  draw();
  redraw.push(draw);
}

// Theme and start -------------------------------------------------------------------------------------------------------

document.querySelector(".theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  drawAll();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
matchMedia("print").addEventListener("change", drawAll);
let unfolded = [];
addEventListener("beforeprint", () => {
  unfolded = [...document.querySelectorAll("details:not([open])")];
  unfolded.forEach(details => { details.open = true; });
});
addEventListener("afterprint", () => unfolded.forEach(details => { details.open = false; }));
let shown_width = innerWidth;
addEventListener("resize", () => requestAnimationFrame(() => {
  if (innerWidth !== shown_width) { shown_width = innerWidth; drawAll(); }
}));

[curves, parameters, timeToTarget, sensitivity, results].forEach(part => part());
drawAll();
document.querySelector("main").append(document.getElementById("after"));
