// A table of numbers as one picture behind the axes of a chart: half a million rectangles would take seconds, this
// takes milliseconds. It is painted anew at each zoom at the screen's own resolution.

/** Which entries lie under each pixel: those from spans[p] up to, but without, spans[p + 1], and at least one. */
function spansOf(edges, pixels, start, perPixel) {
  const spans = new Int32Array(pixels + 1);
  const last = edges.length - 1;
  let at = 0;
  for (let pixel = 0; pixel <= pixels; pixel++) {
    const step = start + pixel * perPixel;
    while (at < last && edges[at + 1] <= step + 1e-9) at++;
    spans[pixel] = step < edges[0] - 1e-9 ? -1 : at;
  }
  return spans;
}

/** The highest code of the members of the rows first..last - 1 under each pixel: a spike of one step stays visible. */
function pooled(grid, rows, first, last, spans, out) {
  const { codes, columns } = grid;
  out.fill(UNKNOWN);
  for (let row = first; row < last; row++) {
    for (const member of rows[row]) {
      if (member < 0) continue;
      const base = member * columns;
      for (let x = 0; x < out.length; x++) {
        const left = spans[x];
        if (left < 0 || left >= columns) continue;
        const right = Math.max(spans[x + 1], left + 1);
        for (let column = left; column < right; column++) {
          const code = codes[base + column];
          if (code > out[x]) out[x] = code;
        }
      }
    }
  }
}

/** Paints `rows` (each a list of rows of the grid) between the steps `first` and `last`; row 0 is at the top. */
function paint(canvas, grid, rows, [first, last], palette) {
  const { width, height } = canvas;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const spans = spansOf(grid.edges, width, first, (last - first) / width);
  const codes = new Uint16Array(width);
  let painted = "";
  for (let y = 0; y < height && rows.length; y++) {
    const top = Math.min(rows.length - 1, Math.floor((y * rows.length) / height));
    const bottom = Math.max(top + 1, Math.floor(((y + 1) * rows.length) / height));
    if (`${top} ${bottom}` === painted) {
      pixels.copyWithin(y * width, (y - 1) * width, y * width);
      continue;
    }
    pooled(grid, rows, top, bottom, spans, codes);
    for (let x = 0; x < width; x++) pixels[y * width + x] = palette[codes[x]];
    painted = `${top} ${bottom}`;
  }
  context.putImageData(image, 0, 0);
}

/** A series of ECharts that is such a picture. Rows that are drawn from the bottom up are given in that order. */
function picture(chart, grid, rows, palette) {
  const canvas = document.createElement("canvas");
  const middle = [(BOUNDS[0] + BOUNDS[1]) / 2, 0];

  function renderItem(parameters, api) {
    const { x, y, width, height } = parameters.coordSys;
    const ratio = chart.getDevicePixelRatio();
    canvas.width = Math.max(1, Math.round(width * ratio));
    canvas.height = Math.max(1, Math.round(height * ratio));
    const [left] = api.coord([BOUNDS[0], 0]);
    const [right] = api.coord([BOUNDS[1], 0]);
    const perPixel = (BOUNDS[1] - BOUNDS[0]) / (right - left);
    const first = BOUNDS[0] + (x - left) * perPixel;
    paint(canvas, grid, rows, [first, first + width * perPixel], palette);
    return { type: "image", silent: true, style: { image: canvas, x, y, width, height } };
  }

  return { type: "custom", name: "picture", data: [middle], encode: { x: 0, y: 1 }, renderItem, silent: true, z: 1 };
}

/** Outlines rectangles [first step, last step, first row, last row] on a picture. */
function outlines(places) {
  function renderItem(parameters, api) {
    const [x0, x1, row0, row1] = places[parameters.dataIndex];
    const [left, top] = api.coord([x0, row0]);
    const [right, bottom] = api.coord([x1, row1]);
    const half = Math.abs(api.size([0, 1])[1]) / 2;
    const shape = echarts.graphic.clipRectByRect(
      {
        x: left - 2,
        y: Math.min(top, bottom) - half,
        width: Math.max(4, right - left + 4),
        height: Math.abs(bottom - top) + 2 * half,
      },
      parameters.coordSys,
    );
    if (!shape) return null;
    const line = (stroke, lineWidth) => ({
      type: "rect",
      shape,
      style: { fill: "none", stroke, lineWidth },
      silent: true,
    });
    return { type: "group", children: [line("#000", 4), line("#fff", 2)], silent: true };
  }

  const data = places.map(([x0, x1, row0]) => [(x0 + x1) / 2, row0, x0, x1]);
  return { type: "custom", name: "place of the finding", data, encode: { x: 0, y: 1 }, renderItem, silent: true, z: 3 };
}
