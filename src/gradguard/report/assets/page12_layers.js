// All layers over all steps as a map, and all layers at the chosen step beside it, row by row.

const ROW = 15; // px, where there is room
const MAP_HEIGHT = [170, 560];

/** What both panels draw: rows of the current search, grids of the chosen quantity, one range of colours. */
class Layers {
  constructor() {
    this.layers = layersOf(shown());
    this.update();
  }

  update() {
    this.rows = rowsOf(this.layers);
    this.grids = shown().map((optimizer) => (optimizer ? gridOf(optimizer.layers[state.quantity]) : null));
    this.range = rangeOf(this.grids.filter(Boolean));
    this.inGrid = this.layers.rowIn.map((rowIn) => this.rows.map((row) => row.members.map((i) => rowIn[i])));
  }

  get height() {
    const most = COMPARED ? 380 : MAP_HEIGHT[1];
    return Math.min(most, Math.max(MAP_HEIGHT[0], this.rows.length * ROW + 38));
  }

  /** How many rows go without a name for each one that has room for it. */
  get skipped() {
    return Math.ceil((this.rows.length * 13) / (this.height - 38)) - 1;
  }

  rowAxis(panel, more) {
    const room = isNarrow() ? 15 : 24;
    const { rows } = this; // those of this drawing: a chart that is resized asks again, before it gets the next rows
    const labels = { formatter: (i) => rowText(rows[i], room), interval: this.skipped };
    return panel.axis({
      type: "category",
      inverse: true,
      data: this.rows.map((_, i) => i),
      axisTick: { show: false },
      splitLine: false,
      ...more,
      axisLabel: { ...labels, ...more.axisLabel },
    });
  }
}

class MapPanel extends StepPanel {
  constructor(table, run) {
    super(`layers${run}`, withRun("Layers over steps, as colours", run), table.height);
    Object.assign(this, { table, run });
  }

  draw() {
    const { table, run } = this;
    const grid = table.grids[run];
    this.set({
      grid: this.area(),
      xAxis: this.stepAxis(),
      yAxis: table.rowAxis(this, {}),
      dataZoom: this.zoomOption(),
      series: grid && table.rows.length ? [this.pictured(grid), outlines(this.places())] : [],
    });
  }

  pictured(grid) {
    return picture(this.chart, grid, this.table.inGrid[this.run], paletteOf(grid, this.table.range));
  }

  places() {
    const chosen = state.finding && state.finding[0] === this.run && findingOf(state.finding);
    if (!chosen) return [];
    const stretches = stretchesOf(this.table.rows, this.table.layers, this.run, chosen);
    return stretches.map(([first, last]) => [chosen.first_step, chosen.last_step, first, last]);
  }

  told([step, share]) {
    const { rows, grids, inGrid } = this.table;
    const at = Math.min(rows.length - 1, Math.floor(share * rows.length));
    if (at < 0 || !grids[this.run]) return null;
    const value = number(grids[this.run].at(step, inGrid[this.run][at]));
    const many =
      rows[at].members.length > 1 ? `largest of ${rows[at].members.length} layers` : QUANTITIES[state.quantity];
    return [
      plain(rows[at].label),
      [
        [null, many, value],
        [null, "step", stepText(step)],
      ],
    ];
  }

  labelled(event) {
    const area = this.canvas.getBoundingClientRect();
    const { left, top, bottom } = this.margins();
    const share = (event.clientY - area.top - top) / (area.height - top - bottom);
    if (event.clientX - area.left > left || share < 0 || share >= 1) return null;
    const { rows, skipped } = this.table;
    const named = Math.round((share * rows.length - 0.5) / (skipped + 1)) * (skipped + 1);
    const row = rows[Math.max(0, named)];
    return row && row.module ? row.module : null;
  }

  clicked(place, event) {
    const module = place ? null : this.labelled(event);
    if (module) openModules([module], !state.open.has(module));
    return Boolean(module);
  }
}

function openModules(modules, open) {
  const next = new Set(state.open);
  for (const module of modules) open ? next.add(module) : next.delete(module);
  change({ open: next });
}

class ProfilePanel extends Panel {
  constructor(table) {
    super("profile", "All layers at the chosen step", table.height);
    this.table = table;
  }

  margins() {
    return { ...super.margins(), left: isNarrow() ? 96 : 12, right: 22 };
  }

  /** Values of the rows of a run at the chosen step. */
  values(run) {
    const grid = this.table.grids[run];
    return this.table.rows.map((_, row) => (grid ? grid.at(state.step, this.table.inGrid[run][row]) : null));
  }

  draw() {
    const { table } = this;
    const [least, most] = this.extent();
    const ticks = logTicks(least, most, 5);
    const values = { type: "log", min: least, max: most, ticks, axisLabel: { formatter: power, hideOverlap: true } };
    this.set({
      grid: this.area(),
      xAxis: this.axis(values),
      yAxis: table.rowAxis(this, { axisLabel: { show: isNarrow() }, splitLine: table.rows.length <= 40 }),
      series: this.profiles(),
    });
  }

  /** The same at each step, so that what moves is the curve. */
  extent() {
    const [low, high] = this.table.range;
    return [10 ** Math.floor(low), 10 ** Math.ceil(high)];
  }

  showStep() {
    this.chart.setOption({ series: this.profiles() });
  }

  profiles() {
    return RUNS.map((_, run) => this.profile(run, ...this.extent()));
  }

  profile(run, least, most) {
    const { rows } = this.table;
    const tone = colour(COMPARED ? ["before", "after"][run] : "blue");
    const data = this.values(run).map((value, row) => ({
      value: [value === null ? null : Math.min(most, Math.max(least, value)), row],
      symbol: value === null || (value > 0 && value < Infinity) ? "circle" : "diamond",
      symbolSize: value === null || (value > 0 && value < Infinity) ? 5 : 9,
      itemStyle:
        value === 0
          ? { color: colour("card"), borderColor: colour("text"), borderWidth: 2 }
          : { color: value === Infinity ? colour("critical") : tone },
    }));
    return {
      type: "line",
      name: withRun(QUANTITIES[state.quantity], run),
      data,
      silent: true,
      showSymbol: true,
      showAllSymbol: rows.length <= 150,
      lineStyle: { color: tone, width: 1.5, type: COMPARED && run === 0 ? "dashed" : "solid" },
      emphasis: { disabled: true },
    };
  }

  start() {
    super.start();
    this.box.addEventListener("pointerleave", hideTip);
    this.box.addEventListener("pointermove", (event) => this.hover(event));
  }

  hover(event) {
    const area = this.canvas.getBoundingClientRect();
    const { top, bottom } = this.margins();
    const { rows } = this.table;
    const share = (event.clientY - area.top - top) / (area.height - top - bottom);
    const row = Math.floor(share * rows.length);
    if (share < 0 || !rows[row]) return hideTip();
    const lines = RUNS.map((_, run) => [null, withRun(QUANTITIES[state.quantity], run), number(this.values(run)[row])]);
    showTip(event, plain(rows[row].label), [...lines, [null, "step", stepText(state.step)]]);
  }
}
