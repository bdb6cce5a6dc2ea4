// Starts the page. window.gradguard is for tests of the page: what is drawn, without reading pixels.

const began = performance.now();
start();

window.gradguard = {
  data: DATA,
  began,
  drawn: performance.now() - began, // ms

  get charts() {
    return Object.fromEntries([...PANELS].map(([name, panel]) => [name, panel.chart]));
  },

  state() {
    const map = [...PANELS.values()].find((panel) => panel instanceof MapPanel);
    const profile = PANELS.get("profile");
    return {
      ...state,
      open: [...state.open],
      linear: [...state.linear],
      hidden: [...state.hidden],
      bounds: BOUNDS,
      window: stepsShown(),
      dark: isDark(),
      rows: map ? map.table.rows.map((row) => ({ label: row.label, layers: row.members.length })) : [],
      range: map ? map.table.range : null, // of the colours: exponents of 10
      profile: profile ? RUNS.map((_, run) => profile.values(run)) : [], // by row, at the chosen step
    };
  },

  /** The values of one row of a grid, as the page has decoded them: run 0, "grad", row 3. */
  row(run, quantity, row) {
    const grid = gridOf(shown()[run].layers[quantity]);
    return grid.x.map((_, column) => grid.value(grid.code(row, column)));
  },

  /** Where on the screen a step and a row of a chart lie: [x, y], for the mouse of a test. */
  at(name, step, share = 0.5) {
    const panel = PANELS.get(name);
    const area = panel.canvas.getBoundingClientRect();
    const { top, bottom } = panel.margins();
    return [area.left + panel.pixelOf(step), area.top + top + share * (area.height - top - bottom)];
  },

  choose,
  zoomTo,
};
