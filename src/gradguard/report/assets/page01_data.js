// The numbers of the page, as the record has them: runs, series over steps, grids of layers over steps.

const DATA = JSON.parse(document.getElementById("gradguard-data").textContent);
const RUNS = DATA.runs;
const COMPARED = RUNS.length > 1;

const UNKNOWN = 0; // codes of a grid's cells that are no number between least and most
const ZERO = 1;
const INFINITE = 65535;
const LOWEST = 2;
const LEVELS = 65532;

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** The index of the entry of `sorted` that is nearest to `value`; -1 where it is empty. */
function nearest(sorted, value) {
  let low = 0;
  let high = sorted.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1;
    else high = middle;
  }
  if (low > 0 && value - sorted[low - 1] <= sorted[low] - value) return low - 1;
  return sorted.length ? low : -1;
}

/** The index nearest to `step`, or -1 where `step` lies well outside of what was recorded. */
function columnAt(x, step) {
  const found = nearest(x, step);
  if (found < 0 || x.length === 1) return found;
  const last = x.length - 1;
  const room = Math.max(x[1] - x[0], x[last] - x[last - 1], (x[last] - x[0]) / 100);
  return step < x[0] - room || step > x[last] + room ? -1 : found;
}

/** A table of values over steps, decoded once: `codes` holds row after row. */
class Grid {
  constructor({ x, rows, scale, least, most, data }) {
    Object.assign(this, { x, rows, scale, least, most, columns: x.length });
    this.codes = new Uint16Array(bytesOf(data).buffer);
    this.edges = edgesOf(x);
  }

  code(row, column) {
    return this.codes[row * this.columns + column];
  }

  /** Where a code lies between least and most: an exponent of 10 where the scale is a logarithm. */
  place(code) {
    return this.least + ((code - LOWEST) / LEVELS) * (this.most - this.least);
  }

  value(code) {
    if (code === UNKNOWN || code === undefined) return null;
    if (code === ZERO) return 0;
    if (code === INFINITE) return Infinity;
    return this.scale === "log" ? 10 ** this.place(code) : this.place(code);
  }

  /** The values of the rows at a step. Of several rows that are shown as one, the largest. */
  at(step, row) {
    const column = columnAt(this.x, step);
    if (column < 0) return null;
    let most = UNKNOWN;
    for (const member of row) if (member >= 0) most = Math.max(most, this.code(member, column));
    return this.value(most);
  }
}

/** Half-way between neighbours; at the ends as far out as the next one is in. */
function edgesOf(x) {
  const edges = new Float64Array(x.length + 1);
  for (let i = 1; i < x.length; i++) edges[i] = (x[i - 1] + x[i]) / 2;
  const last = x.length - 1;
  edges[0] = last > 0 ? x[0] - (x[1] - x[0]) / 2 : (x[0] || 0) - 0.5;
  edges[x.length] = last > 0 ? x[last] + (x[last] - x[last - 1]) / 2 : (x[last] || 0) + 0.5;
  return edges;
}

const decoded = new WeakMap();

function gridOf(raw) {
  if (!raw) return null;
  if (!decoded.has(raw)) decoded.set(raw, new Grid(raw));
  return decoded.get(raw);
}

function seriesAt(series, step) {
  if (!series) return null;
  const column = columnAt(series.x, step);
  return column < 0 ? null : series.y[column];
}

function seriesHas(series) {
  return Boolean(series && series.x.length);
}

/** The optimizers of all runs under one name; one that a run lacks is null. */
const OPTIMIZERS = (() => {
  const names = [...new Set(RUNS.flatMap((run) => run.optimizers.map((optimizer) => optimizer.name)))];
  const alone = RUNS.every((run) => run.optimizers.length <= 1);
  if (alone && names.length) return [{ name: names.join(" / "), of: RUNS.map((run) => run.optimizers[0] || null) }];
  const find = (run, name) => run.optimizers.find((optimizer) => optimizer.name === name) || null;
  return names.map((name) => ({ name, of: RUNS.map((run) => find(run, name)) }));
})();

/** First and last step of all that is drawn. */
function boundsOf(optimizers) {
  let least = Infinity;
  let most = -Infinity;
  const take = (x) => {
    if (!x || !x.length) return;
    least = Math.min(least, x[0]);
    most = Math.max(most, x[x.length - 1]);
  };
  for (const optimizer of optimizers) {
    if (!optimizer) continue;
    Object.values(optimizer.series).forEach((series) => take(series && series.x));
    Object.values(optimizer.marks).forEach(take);
    [optimizer.layers.grad, optimizer.layers.ratio].forEach((grid) => take(grid && grid.x));
    [...optimizer.memory, ...optimizer.gates].forEach((item) => take(item.grid.x));
    optimizer.findings.forEach((finding) => take([finding.first_step, finding.last_step]));
  }
  if (least > most) return [0, 1];
  return least === most ? [least - 0.5, most + 0.5] : [least, most];
}
