// A chart with its place in the page. Those over steps share zoom, chosen step and pointer.

const PANELS = new Map(); // by name, in the order of the page
const NARROW = 720; // px of the page below which side panels go under their chart
let syncing = false;

function isNarrow() {
  return document.documentElement.clientWidth < NARROW || document.body.classList.contains("printing");
}

class Panel {
  constructor(name, label, height) {
    this.name = name;
    this.canvas = make("div", { class: "canvas", style: `height:${height}px` });
    this.box = make(
      "div",
      { class: "chart", tabindex: "0", role: "img", "aria-label": label, id: `chart-${name}` },
      this.canvas,
    );
    PANELS.set(name, this);
  }

  /** Called once the box is in the page: ECharts measures it. */
  start() {
    this.chart = echarts.init(this.canvas, null, { renderer: "canvas" });
    this.draw();
  }

  get height() {
    return this.canvas.clientHeight;
  }

  resize(height = this.height) {
    this.canvas.style.height = `${height}px`;
    this.chart.resize({ width: this.canvas.clientWidth, height });
  }

  /** Where the axes lie: exactly there, or the cursors of different charts would not meet. */
  area(more = {}) {
    const { left, right, top, bottom } = this.margins();
    return { left, right, top, bottom, outerBoundsMode: "none", ...more };
  }

  margins() {
    return { left: isNarrow() ? 96 : 150, right: 18, top: 12, bottom: 26 };
  }

  set(option) {
    const text = { color: colour("muted"), fontFamily: "inherit", fontSize: 11 };
    this.chart.setOption(
      { animation: false, textStyle: text, tooltip: { show: false }, ...option },
      { notMerge: true },
    );
  }

  axis({ ticks, ...more }) {
    const line = colour("line");
    const at = ticks ? { customValues: ticks } : {};
    return {
      axisLine: { lineStyle: { color: line } },
      axisTick: { lineStyle: { color: line }, ...at },
      axisLabel: { color: colour("muted"), fontSize: 11, ...at, ...more.axisLabel },
      splitLine: { show: more.splitLine !== false, lineStyle: { color: line, opacity: 0.6 }, ...at },
      ...Object.fromEntries(Object.entries(more).filter(([key]) => !["axisLabel", "splitLine"].includes(key))),
    };
  }

  draw() {}
  dispose() {
    this.chart.dispose();
    PANELS.delete(this.name);
  }
}

/** A chart whose axis to the right is the step. */
class StepPanel extends Panel {
  start() {
    this.cursor = make("div", { class: "cursor" });
    this.pick = make("div", { class: "pick", hidden: true });
    this.box.append(this.cursor, this.pick);
    super.start();
    this.chart.on("datazoom", () => this.zoomed());
    listen(this);
    this.moveCursor();
  }

  stepAxis(more = {}) {
    const labels = {
      formatter: stepText,
      hideOverlap: true,
      showMinLabel: !state.zoom,
      showMaxLabel: false,
      ...more.axisLabel,
    };
    return this.axis({
      type: "value",
      min: BOUNDS[0],
      max: BOUNDS[1],
      minInterval: 1,
      splitNumber: isNarrow() ? 3 : 8,
      splitLine: false,
      ...more,
      axisLabel: labels,
    });
  }

  zoomOption(axes = [0]) {
    const [startValue, endValue] = stepsShown();
    return [{ type: "inside", xAxisIndex: axes, disabled: true, filterMode: "none", startValue, endValue }];
  }

  zoomed() {
    if (syncing) return;
    const { startValue, endValue } = this.chart.getOption().dataZoom[0];
    zoomTo(startValue, endValue);
  }

  showWindow() {
    const [startValue, endValue] = stepsShown();
    const now = this.chart.getOption().dataZoom[0];
    const near = (BOUNDS[1] - BOUNDS[0]) * 1e-4;
    if (Math.abs(now.startValue - startValue) < near && Math.abs(now.endValue - endValue) < near) return;
    syncing = true;
    this.chart.dispatchAction({ type: "dataZoom", dataZoomIndex: 0, startValue, endValue });
    syncing = false;
  }

  /** [step, share of the height from the top] under a pointer, or null outside of the axes. */
  under(event) {
    const area = this.canvas.getBoundingClientRect();
    const { left, right, top, bottom } = this.margins();
    const [x, y] = [event.clientX - area.left, event.clientY - area.top];
    const [width, height] = [area.width - left - right, area.height - top - bottom];
    if (x < left - 1 || x > left + width + 1 || y < top || y > top + height) return null;
    const [first, last] = stepsShown();
    return [first + ((x - left) / width) * (last - first), (y - top) / height];
  }

  pixelOf(step) {
    const { left, right } = this.margins();
    const [first, last] = stepsShown();
    return left + ((step - first) / (last - first)) * (this.canvas.clientWidth - left - right);
  }

  moveCursor() {
    const [first, last] = stepsShown();
    const { top, bottom } = this.margins();
    const outside = state.step < first || state.step > last;
    this.cursor.hidden = outside;
    this.cursor.classList.toggle("pinned", state.pinned);
    const height = this.height - top - bottom;
    this.cursor.style.cssText = `left:${this.pixelOf(state.step)}px;top:${top}px;height:${height}px`;
  }

  /** [title, lines] of the tip at a step. */
  told() {
    return null;
  }

  /** What a label beside the axes, under a pointer, stands for. */
  labelled() {
    return null;
  }

  /** A click at a place; true where it did something better than to pin the step. */
  clicked() {
    return false;
  }
}
