// What the reader chose. Everything that is drawn follows from it; nothing of it outlives the page.

const state = {
  optimizer: 0,
  step: 0, // the chosen step: under the pointer, until a click pins it
  pinned: false,
  zoom: null, // [first, last] step that is shown; null: all
  quantity: "grad",
  search: "",
  open: new Set(), // modules whose layers are shown one by one
  linear: new Set(), // charts without a logarithm
  hidden: new Set(), // lines that were switched off
  finding: null, // [run, index] of the finding whose place is outlined
  memory: null,
  gates: null,
  theme: null, // null: as the system has it
};

let BOUNDS = [0, 1];
const listeners = [];

/** Calls `react` after any of `keys` has changed. */
function when(keys, react) {
  listeners.push({ keys, react });
}

function change(changes) {
  const changed = Object.keys(changes).filter((key) => state[key] !== changes[key]);
  Object.assign(state, changes);
  if (!changed.length) return;
  for (const { keys, react } of listeners) if (keys.some((key) => changed.includes(key))) react();
}

function shown() {
  return OPTIMIZERS.length ? OPTIMIZERS[state.optimizer].of : RUNS.map(() => null);
}

function findingOf([run, index]) {
  const optimizer = shown()[run];
  return optimizer ? optimizer.findings[index] : undefined;
}

/** The first and the last step that charts show. */
function stepsShown() {
  return state.zoom || BOUNDS;
}

function zoomTo(first, last) {
  const least = Math.max(first, BOUNDS[0]);
  const most = Math.min(last, BOUNDS[1]);
  const whole = BOUNDS[1] - BOUNDS[0];
  if (most - least < Math.min(2, whole)) return;
  change({ zoom: most - least > 0.999 * whole ? null : [least, most] });
}

/** Zooms by `factor` so that `step` stays where it is. */
function zoomBy(factor, step) {
  const [first, last] = stepsShown();
  const about = Math.min(last, Math.max(first, step));
  zoomTo(about - (about - first) * factor, about + (last - about) * factor);
}

/** The steps that arrow keys visit. */
let STOPS = [];

/** The recorded step next to a place. */
function seen(step) {
  const at = nearest(STOPS, step);
  return at < 0 ? Math.round(step) : STOPS[at];
}

function walk(by) {
  const at = nearest(STOPS, state.step);
  if (at >= 0) choose(STOPS[Math.min(STOPS.length - 1, Math.max(0, at + by))]);
}

/** Pins a step and brings it into view. */
function choose(step) {
  change({ step, pinned: true });
  const [first, last] = stepsShown();
  const width = last - first;
  if (step < first) zoomTo(step, step + width);
  if (step > last) zoomTo(step - width, step);
}

/** The worst finding comes first in a record; the step is one at which it can be seen. */
function startOver() {
  BOUNDS = boundsOf(shown());
  const grids = shown().flatMap((optimizer) => (optimizer ? [optimizer.layers.grad, optimizer.layers.ratio] : []));
  const lines = shown().map((optimizer) => optimizer && optimizer.series.grad_norm);
  const all = new Set([...grids, ...lines].flatMap((item) => (item ? item.x : [])));
  STOPS = [...all].sort((a, b) => a - b);
  const serious = shown().flatMap((optimizer, run) =>
    (optimizer ? optimizer.findings : []).map((finding, index) => ({ run, index, finding })),
  );
  serious.sort((a, b) => SEVERITIES.indexOf(a.finding.severity) - SEVERITIES.indexOf(b.finding.severity));
  const worst = serious.find(({ finding }) => finding.severity !== "info");
  const step = worst ? placeOf(worst.finding) : BOUNDS[1];
  Object.assign(state, {
    step: seen(step),
    pinned: false,
    zoom: null,
    finding: worst ? [worst.run, worst.index] : null,
  });
}

function placeOf(finding) {
  return finding.active ? finding.last_step : finding.first_step;
}
