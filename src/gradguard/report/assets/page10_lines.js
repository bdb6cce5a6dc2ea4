// Numbers over steps as lines, with the least and most of each stretch of steps as a band, and a legend that has the
// values.

const BEGUN = new Set();

class LinePanel extends StepPanel {
  /** lines: [{key, label, series, colour, dash, run}] in the order in which they are drawn. */
  constructor(name, label, height, lines, { logarithm = true } = {}) {
    super(name, label, height);
    Object.assign(this, { lines: lines.filter((line) => seriesHas(line.series)) });
    if (!logarithm && !BEGUN.has(name)) state.linear.add(name);
    BEGUN.add(name); // made anew, it keeps what was chosen
    this.legend = make("ul", { class: "legend" });
  }

  isLog() {
    return !state.linear.has(this.name) && this.shownLines().some(({ series }) => series.y.some((y) => y > 0));
  }

  shownLines() {
    return this.lines.filter((line) => !state.hidden.has(`${this.name} ${line.key}`));
  }

  draw() {
    this.set(this.option());
    this.drawLegend();
  }

  option() {
    return {
      grid: this.area(),
      xAxis: this.stepAxis(),
      yAxis: this.valueAxis(),
      dataZoom: this.zoomOption(),
      series: this.lineSeries(),
    };
  }

  valueAxis(more = {}) {
    const splitNumber = this.height < 140 ? 3 : 5;
    if (!this.isLog())
      return this.axis({ type: "value", scale: true, splitNumber, axisLabel: { formatter: number }, ...more });
    const [min, max] = this.logExtent();
    const ticks = logTicks(min, max, splitNumber);
    return this.axis({ type: "log", min, max, ticks, axisLabel: { formatter: power, hideOverlap: true }, ...more });
  }

  /** From the least to the largest value above 0, and a little more. */
  logExtent() {
    let [min, max] = [Infinity, 0];
    for (const { series } of this.shownLines()) {
      for (const values of [series.y, series.low || [], series.high || []]) {
        for (const value of values) {
          if (value === null || value <= 0) continue;
          min = Math.min(min, value);
          max = Math.max(max, value);
        }
      }
    }
    const room = Math.max(1.1, (max / min) ** 0.05, max / min < 1.5 ? 1.5 : 1);
    return [min / room, max * room];
  }

  lineSeries() {
    const log = this.isLog();
    const value = (y) => (y === null || (log && y <= 0) ? null : y);
    const spans = { silent: true, data: spansShown() };
    return this.shownLines().flatMap((line, i) => {
      const { series } = line;
      const tone = colour(line.colour);
      const drawn = {
        type: "line",
        name: line.label,
        data: series.x.map((x, k) => [x, value(series.y[k])]),
        showSymbol: series.x.length < 3,
        symbolSize: 5,
        lineStyle: { color: tone, width: line.width || 1.6, type: line.dash || "solid" },
        itemStyle: { color: tone },
        emphasis: { disabled: true },
        silent: true,
        z: 3,
        markArea: i === 0 ? spans : undefined,
      };
      return [series.low && band(line, value, tone), series.bad && rug(series.bad), drawn].filter(Boolean);
    });
  }

  drawLegend() {
    this.cells = [];
    const items = this.lines.map((line) => {
      const id = `${this.name} ${line.key}`;
      const value = make("output", {});
      this.cells.push([value, line]);
      const flip = () => {
        if (!state.hidden.delete(id)) state.hidden.add(id);
        this.draw();
      };
      const pressed = String(!state.hidden.has(id));
      const mark = swatch(`var(--${line.colour})`, line.dash);
      const button = make(
        "button",
        { type: "button", "aria-pressed": pressed, onclick: flip, title: "Show or hide" },
        mark,
        line.label,
      );
      return make("li", {}, button, value);
    });
    this.legend.replaceChildren(...items);
    this.showStep();
  }

  showStep() {
    for (const [cell, { series }] of this.cells || []) cell.textContent = textAt(series, state.step);
  }

  told([step]) {
    const lines = this.shownLines().map((line) => [
      swatch(`var(--${line.colour})`, line.dash),
      line.label,
      textAt(line.series, step),
    ]);
    return [`Step ${stepText(step)}`, lines];
  }
}

function textAt(series, step) {
  const column = columnAt(series.x, step);
  if (column < 0) return "–";
  const value = series.y[column];
  if (value === null && series.bad && series.bad.length) return "not finite";
  if (!series.low || series.low[column] === series.high[column]) return number(value);
  return `${number(value)}  (${number(series.low[column])} to ${number(series.high[column])})`;
}

/** Least to most. One shape: its points are all of the data, drawn when the first one is asked for. */
function band(line, value, tone) {
  const { x, low, high } = line.series;
  const data = x
    .map((step, i) => [step, value(low[i]), value(high[i])])
    .filter(([, from, to]) => from !== null && to !== null);
  function renderItem(parameters, api) {
    if (parameters.dataIndexInside !== 0) return null;
    const up = data.map(([step, , to]) => api.coord([step, to]));
    const back = data.map(([step, from]) => api.coord([step, from])).reverse();
    return { type: "polygon", shape: { points: [...up, ...back] }, style: { fill: tone, opacity: 0.22 }, silent: true };
  }
  return {
    type: "custom",
    name: `${line.label}, range`,
    data,
    encode: { x: 0, y: [1, 2] },
    renderItem,
    clip: true,
    silent: true,
    z: 2,
  };
}

/** Ticks at the upper edge, at steps whose value was not finite. */
function rug(steps) {
  const style = { stroke: colour("critical"), lineWidth: 2 };
  function renderItem(parameters, api) {
    if (parameters.dataIndexInside !== 0) return null;
    const { y } = parameters.coordSys;
    const pathData = steps.map((step) => `M${api.coord([step, 1])[0]} ${y}v9`).join("");
    return { type: "path", shape: { pathData }, style: { ...style, fill: "none" }, silent: true };
  }
  const data = steps.map((step) => [step]);
  return {
    type: "custom",
    name: "not finite",
    data,
    encode: { x: 0, y: [] },
    renderItem,
    clip: true,
    silent: true,
    z: 4,
  };
}

/** The time of the finding that is outlined, as a shade; that of other serious ones, fainter. */
function spansShown() {
  const spans = shown().flatMap((optimizer, run) =>
    (optimizer ? optimizer.findings : []).map((finding, index) => ({ finding, chosen: isChosen(run, index) })),
  );
  return spans
    .filter(({ finding, chosen }) => chosen || finding.severity !== "info")
    .map(({ finding, chosen }) => [
      { xAxis: finding.first_step, itemStyle: { color: colour(finding.severity), opacity: chosen ? 0.1 : 0.03 } },
      { xAxis: finding.last_step },
    ]);
}

function isChosen(run, index) {
  return Boolean(state.finding && state.finding[0] === run && state.finding[1] === index);
}

/** One line a run: those of the run before are dashed. */
function linesOf(keys) {
  return shown().flatMap((optimizer, run) =>
    Object.entries(keys).map(([key, [label, tone, more]]) => ({
      key: `${key} ${run}`,
      label: withRun(label, run),
      series: optimizer && optimizer.series[key],
      colour: COMPARED ? ["before", "after"][run] : tone,
      dash: COMPARED && run === 0 ? "dashed" : "solid",
      run,
      ...more,
    })),
  );
}
