// The gradient norm, and below it lanes of what happened when: findings, clipped and skipped steps.

const LANE = 17; // px
const MOST_LANES = 8; // of findings

/** Lanes as {label, kind, run, finding, index, steps, events}. */
function lanesOf() {
  return shown().flatMap((optimizer, run) => {
    if (!optimizer) return [];
    const lanes = optimizer.findings.slice(0, MOST_LANES).map((finding, index) => ({
      label: withRun(headline(finding), run),
      kind: finding.severity,
      finding,
      index,
      run,
      end: Math.max(finding.last_step, optimizer.steps),
      events: optimizer.events.filter((event) => event.finding === index),
    }));
    const bad = new Set(Object.values(optimizer.series).flatMap((series) => (series && series.bad) || []));
    const marks = [
      ["Clipped", "clipped", optimizer.marks.clipped],
      ["Skipped", "skipped", optimizer.marks.skipped],
      ["Not finite", "critical", [...bad].sort((a, b) => a - b)],
      ["Statistics begun anew", "reanchored", optimizer.marks.reanchored],
    ];
    for (const [label, kind, steps] of marks) {
      if (steps && steps.length) lanes.push({ label: withRun(label, run), kind, steps, run });
    }
    return lanes;
  });
}

class NormPanel extends LinePanel {
  constructor() {
    const lines = linesOf({
      grad_norm: ["Gradient norm", "blue"],
      clipped_norm: ["after clipping", "green", COMPARED ? { width: 1 } : {}],
      threshold: ["threshold", "orange", { dash: "dotted" }],
    });
    const lanes = lanesOf();
    super("norm", "Gradient norm over steps, with findings and clipped steps", 316 + LANE * lanes.length, lines);
    this.lanes = lanes;
  }

  get laneHeight() {
    return this.lanes.length * LANE;
  }

  margins() {
    return { ...super.margins(), bottom: 58 };
  }

  option() {
    const { left, right, bottom } = this.margins();
    const plot = this.area({ bottom: bottom + this.laneHeight + (this.lanes.length ? 8 : 0) });
    const room = isNarrow() ? 15 : 25;
    const lanes = {
      type: "category",
      data: this.lanes.map((_, i) => i),
      inverse: true,
      gridIndex: 1,
      axisTick: { show: false },
      splitLine: false,
      axisLabel: { interval: 0, formatter: (i) => laneText(this.lanes[i], room) },
    };
    return {
      grid: [plot, this.area({ top: "auto", height: Math.max(1, this.laneHeight) })],
      xAxis: [this.stepAxis({ axisLabel: { show: false } }), this.stepAxis({ gridIndex: 1 })],
      yAxis: [this.valueAxis(), this.axis(lanes)],
      dataZoom: [...this.zoomOption([0, 1]), this.slider(left, right)],
      series: [...this.lineSeries(), ...this.lanes.map((lane, i) => laneSeries(lane, i))],
    };
  }

  slider(left, right) {
    const [startValue, endValue] = stepsShown();
    const line = colour("line");
    return {
      type: "slider",
      xAxisIndex: [0, 1],
      filterMode: "none",
      startValue,
      endValue,
      left,
      right,
      bottom: 6,
      height: 22,
      showDetail: false,
      borderColor: line,
      fillerColor: colour("filler"),
      brushSelect: false,
      handleIcon: "path://M0,0h8v22h-8z",
      handleSize: "110%",
      moveHandleSize: 0,
      dataBackground: { lineStyle: { color: colour("muted"), opacity: 0.5 }, areaStyle: { opacity: 0.1 } },
      selectedDataBackground: { lineStyle: { color: colour("blue") }, areaStyle: { opacity: 0.1 } },
      handleStyle: { color: colour("card"), borderColor: colour("muted") },
    };
  }

  laneAt(share) {
    const { top, bottom } = this.margins();
    const fromEnd = (1 - share) * (this.height - top - bottom);
    return this.lanes[this.lanes.length - 1 - Math.floor(fromEnd / LANE)];
  }

  told([step, share], event) {
    const lane = this.laneAt(share);
    if (lane && lane.finding)
      return [plain(lane.label), [[badge(lane.kind, ""), spanText(lane.finding), "click: show it"]]];
    if (lane)
      return [
        plain(lane.label),
        [
          [
            null,
            counted(lane.steps.length, "mark"),
            `nearest: step ${stepText(lane.steps[nearest(lane.steps, step)])}`,
          ],
        ],
      ];
    const [title, lines] = super.told([step, share], event);
    for (const other of this.lanes) {
      const { finding } = other;
      if (finding && finding.first_step <= step && step <= finding.last_step)
        lines.push([badge(finding.severity, ""), plain(other.label), ""]);
    }
    return [title, lines];
  }

  clicked(place) {
    const lane = place && this.laneAt(place[1]);
    if (!lane || !lane.finding) return false;
    change({ finding: [lane.run, lane.index], step: placeOf(lane.finding), pinned: true });
    return true;
  }
}

/** The title of a finding, or the shorter name of its symptom where there is no room. */
function laneText({ label, finding, run }, room) {
  const short = finding && label.length > room ? withRun(symptomWords(finding.symptom), run) : label;
  return headOf(short, room);
}

function headOf(text, most) {
  const signs = [...plain(text)];
  return signs.length <= most ? signs.join("") : `${signs.slice(0, most - 1).join("")}…`;
}

/** A bar from the first to the last step of a finding with dots at its events, or ticks at steps. */
function laneSeries(lane, row) {
  const base = {
    type: "custom",
    name: lane.label,
    xAxisIndex: 1,
    yAxisIndex: 1,
    encode: { x: 0, y: 1 },
    clip: true,
    silent: true,
  };
  const tone = colour(lane.kind);
  if (lane.finding) {
    const { first_step: first, last_step: last } = lane.finding;
    const renderItem = (parameters, api) => {
      const [x0, y] = api.coord([first, row]);
      const [x1] = api.coord([last, row]);
      const chosen = isChosen(lane.run, lane.index);
      const height = chosen ? 11 : 7;
      const bar = { x: x0 - 1, y: y - height / 2, width: Math.max(4, x1 - x0 + 2), height, r: 2 };
      const stroke = chosen ? colour("text") : "none";
      const [end] = api.coord([lane.finding.active ? lane.end : last, row]); // it holds on, though no one looked since
      const tail = { x: x1, y: y - 1.5, width: Math.max(0, end - x1), height: 3 };
      const dots = lane.events.map((event) => ({
        type: "circle",
        shape: { cx: api.coord([event.step, row])[0], cy: y, r: 3.5 },
        style: {
          fill: event.active ? tone : colour("card"),
          stroke: event.active ? colour("card") : tone,
          lineWidth: 1.5,
        },
      }));
      return {
        type: "group",
        children: [
          { type: "rect", shape: tail, style: { fill: tone, opacity: 0.5 } },
          { type: "rect", shape: bar, style: { fill: tone, stroke, lineWidth: 1.5 } },
          ...dots,
        ],
      };
    };
    return { ...base, data: [[first, row, last]], renderItem };
  }
  const renderItem = (parameters, api) => {
    if (parameters.dataIndexInside !== 0) return null;
    const y = api.coord([lane.steps[0], row])[1];
    const pathData = lane.steps.map((step) => `M${api.coord([step, row])[0]} ${y - 5}v10`).join("");
    return {
      type: "path",
      shape: { pathData },
      style: { stroke: tone, lineWidth: lane.steps.length > 300 ? 1 : 2, fill: "none" },
    };
  };
  return { ...base, data: lane.steps.map((step) => [step, row]), renderItem };
}
