// Recurrent networks: what is left of the gradient over lag and step, and how open the gates are.

/** A grid drawn upwards from row 0, with lines over it whose places are rows. */
class UpPanel extends StepPanel {
  /** ticks: [row, text] of the axis; lines: [{name, series, rowOf, dash}]. */
  constructor(name, label, height, { grid, range, ticks, lines, told }) {
    super(name, label, height);
    Object.assign(this, { grid, range, ticks, lines, tellValue: told });
    this.rows = Array.from({ length: grid.rows }, (_, i) => [grid.rows - 1 - i]); // the top row first
  }

  draw() {
    const { top, bottom } = this.margins();
    const each = Math.ceil((this.ticks.length * 14) / (this.height - top - bottom));
    const places = this.ticks.map(([row]) => row).filter((_, i) => i % each === 0);
    const words = new Map(this.ticks);
    const rowAxis = {
      type: "value",
      min: -0.5,
      max: this.grid.rows - 0.5,
      splitLine: false,
      axisTick: { customValues: places },
      axisLabel: { customValues: places, formatter: (row) => headOf(words.get(row) || "", 12), hideOverlap: true },
    };
    const drawn = this.lines
      .filter((line) => seriesHas(line.series))
      .flatMap(({ name, series, rowOf, dash }) => {
        const data = series.x.map((x, i) => [x, series.y[i] === null ? null : rowOf(series.y[i])]);
        const line = (color, width, kind) => ({
          type: "line",
          name,
          data,
          lineStyle: { color, width, type: kind },
          itemStyle: { color },
          silent: true,
          showSymbol: data.length < 3,
          symbolSize: 4,
          emphasis: { disabled: true },
          z: 3,
        });
        return [line("#000", 4, "solid"), line("#fff", 2, dash || "solid")];
      });
    this.set({
      grid: this.area(),
      xAxis: this.stepAxis(),
      yAxis: this.axis(rowAxis),
      dataZoom: this.zoomOption(),
      series: [picture(this.chart, this.grid, this.rows, paletteOf(this.grid, this.range)), ...drawn],
    });
  }

  told([step, share]) {
    const row = Math.floor((1 - share) * this.grid.rows);
    if (row < 0 || row >= this.grid.rows) return null;
    return [`Step ${stepText(step)}`, this.tellValue(row, step)];
  }
}

/** The row at which a lag lies, between those that were looked at. */
function lagRow(lags, lag) {
  const above = lags.findIndex((known) => known >= lag);
  if (above < 0) return lags.length - 1;
  if (above === 0) return 0;
  return above - 1 + (lag - lags[above - 1]) / (lags[above] - lags[above - 1]);
}

function memoryPanel(memory, run) {
  const grid = gridOf(memory.grid);
  const names = (memory.grid.y || memory.lags || Array.from({ length: grid.rows }, (_, i) => i)).map(String);
  const lags = names.map(Number);
  const rowOf = (lag) => lagRow(lags, lag);
  const told = (row, step) => [
    [null, "steps back", names[row]],
    [null, "share of the gradient left", number(grid.at(step, [row]))],
    [null, "1 % left at", `lag ${number(seriesAt(memory.horizon, step))}`],
  ];
  const lines = [
    { name: "1 % left", series: memory.horizon, rowOf },
    { name: "end of the sequence", series: memory.length, rowOf, dash: "dashed" },
  ];
  const label = withRun("Gradient left over lag and step", run);
  return new UpPanel(`memory${run}`, label, 220, {
    grid,
    range: [-6, 0],
    ticks: names.map((name, row) => [row, name]),
    lines,
    told,
  });
}

const CANDIDATES = ["g", "n", "h", "a"]; // letters of what a tanh makes: from -1 to 1
const GATES = {
  i: "input gate",
  f: "forget gate",
  o: "output gate",
  r: "reset gate",
  z: "update gate",
  u: "update gate",
};

function gateWords(letter) {
  const word = CANDIDATES.includes(letter)
    ? "candidate"
    : Object.prototype.hasOwnProperty.call(GATES, letter) && GATES[letter];
  return word ? `${word.charAt(0).toUpperCase()}${word.slice(1)} (${letter})` : plain(letter);
}

function gatePanel(gate, name, run) {
  const grid = gridOf(gate.grid);
  const signed = CANDIDATES.includes(gate.gate);
  const [low, high] = signed ? [-1, 1] : [0, 1];
  const edge = (row) => number(low + ((high - low) * row) / grid.rows);
  const ticks = [
    [-0.5, number(low)],
    [grid.rows / 2 - 0.5, number((low + high) / 2)],
    [grid.rows - 0.5, number(high)],
  ];
  const told = (row, step) => [
    [null, `values from ${edge(row)} to ${edge(row + 1)}`, percent(grid.at(step, [row]))],
    [null, "mean", number(seriesAt(gate.mean, step))],
  ];
  const rowOf = (value) => ((value - low) / (high - low)) * grid.rows - 0.5;
  const range = rangeOf([grid]);
  const lines = [{ name: "mean", series: gate.mean, rowOf }];
  return new UpPanel(name, withRun(`Values of ${plain(gate.gate)} over steps`, run), 118, {
    grid,
    range: [0, range[1]],
    ticks,
    lines,
    told,
  });
}

function percent(share) {
  return share === null ? "–" : `${number(100 * share)} %`;
}

/** The names of layers that any of the runs has under `key`. */
function layersUnder(key) {
  return [...new Set(shown().flatMap((optimizer) => (optimizer ? optimizer[key].map((item) => item.layer) : [])))];
}

const MEMORY_NOTE =
  "White: the lag from which on less than 1 % is left; dashed: the end of the sequence. " +
  "Bright up to far back means that distant steps can be learnt.";

function memorySection() {
  const layers = layersUnder("memory");
  if (!layers.length) return null;
  const chosen = layers.includes(state.memory) ? state.memory : layers[0];
  const rows = shown().flatMap((optimizer, run) => {
    const memory = optimizer && optimizer.memory.find((item) => item.layer === chosen);
    if (!memory) return [];
    const panel = memoryPanel(memory, run);
    const side = make("div", {}, sideNote(run), make("p", { class: "muted" }, MEMORY_NOTE));
    return [[panel, side]];
  });
  const grids = rows.map(([panel]) => panel.grid);
  const tools = [
    layerChoice(layers, chosen, "memory"),
    colourKey([-6, 0], "log", specialOf(grids), "share of the largest gradient"),
  ];
  return section(
    "memory",
    "Gradient left, going back in time",
    "Steps back from the end (upwards) over training steps.",
    tools,
    rows,
  );
}

function gatesSection() {
  const layers = layersUnder("gates");
  if (!layers.length) return null;
  const chosen = layers.includes(state.gates) ? state.gates : layers[0];
  const found = shown().map((optimizer) => (optimizer ? optimizer.gates.filter((gate) => gate.layer === chosen) : []));
  const names = [...new Set(found.flat().map((gate) => gate.gate))];
  const rows = names.flatMap((name, i) =>
    found.flatMap((gates, run) => {
      const gate = gates.find((item) => item.gate === name);
      if (!gate) return [];
      const panel = gatePanel(gate, `gate${i}_${run}`, run);
      return [[panel, make("div", {}, make("h3", {}, gateWords(name)), sideNote(run))]];
    }),
  );
  const tools = [layerChoice(layers, chosen, "gates")];
  return section(
    "gates",
    "How open the gates are",
    "Bright: many values. White line: the mean. A gate whose values all lie at an end is stuck.",
    tools,
    rows,
  );
}

function layerChoice(layers, chosen, key) {
  return layers.length > 1
    ? select(
        "Layer",
        layers.map((name) => [name, plain(name)]),
        chosen,
        (layer) => change({ [key]: layer }),
      )
    : plain(layers[0]);
}

function sideNote(run) {
  return COMPARED ? make("p", { class: `run ${runWord(run)}` }, runWord(run)) : null;
}
