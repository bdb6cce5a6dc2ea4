// Puts the page together, and lets everything follow the reader's choices.

const SECTIONS = [
  normSection,
  layersSection,
  () =>
    lineSection("loss", "Loss and learning rate", [
      ["loss", "Loss", "blue", { logarithm: false, height: 170 }],
      ["learning_rate", "Learning rate", "purple", { logarithm: false, height: 110 }],
    ]),
  memorySection,
  gatesSection,
  () =>
    lineSection("clipping", "Clipping and updates", [
      ["coefficient", "Clip coefficient", "orange", { logarithm: false, height: 110 }],
      ["moved", "Update / weight, of a sample", "green", { height: 120 }],
    ]),
];

let sections = [];

function drawCharts() {
  for (const panel of [...PANELS.values()]) panel.dispose();
  sections = SECTIONS.map((build) => build()).filter(Boolean);
  byId("charts").replaceChildren(...sections);
  for (const panel of PANELS.values()) panel.start();
  byId("toolbar").hidden = !PANELS.size;
  showStep();
}

function drawToolbar() {
  const step = make("input", {
    type: "number",
    id: "step",
    step: "1",
    "aria-label": "Chosen step",
    onchange: () => choose(Number(step.value)),
  });
  const pin = make("button", { type: "button", id: "pin", onclick: () => change({ pinned: !state.pinned }) }, "Pin");
  const reset = make("button", { type: "button", id: "reset", onclick: () => change({ zoom: null }) }, "Reset zoom");
  const zoomed = make("span", { id: "window", class: "muted" });
  const which =
    OPTIMIZERS.length > 1
      ? select(
          "Optimizer",
          OPTIMIZERS.map(({ name }, i) => [String(i), plain(name)]),
          String(state.optimizer),
          (i) => change({ optimizer: Number(i) }),
        )
      : null;
  const hint = make(
    "span",
    { class: "muted hint" },
    "Drag or Ctrl + wheel: zoom · click: pin a step · ← → step · / search · Esc clear",
  );
  byId("toolbar").replaceChildren(
    ...[which, make("label", {}, "Step ", step), pin, reset, zoomed, make("span", { class: "space" }), hint].filter(
      Boolean,
    ),
  );
}

let waiting = false;

/** What follows the chosen step: at most once a frame. */
function showStep() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    for (const panel of PANELS.values()) {
      if (panel.moveCursor) panel.moveCursor();
      if (panel.showStep) panel.showStep();
    }
    for (const head of document.querySelectorAll(".at"))
      head.textContent = `Step ${stepText(state.step)}${state.pinned ? ", pinned" : ""}`;
    if (document.activeElement !== byId("step")) byId("step").value = Math.round(state.step);
    byId("pin").setAttribute("aria-pressed", String(state.pinned));
  });
}

function showZoom() {
  for (const panel of PANELS.values()) if (panel.showWindow) panel.showWindow();
  byId("reset").disabled = !state.zoom;
  byId("window").textContent = state.zoom ? `${stepText(state.zoom[0])} to ${stepText(state.zoom[1])}` : "";
  showStep();
}

function showTheme() {
  useTheme();
  showThemeButton();
  for (const panel of PANELS.values()) panel.draw();
}

function showThemeButton() {
  const dark = isDark();
  byId("theme").textContent = dark ? "Light" : "Dark";
  byId("theme").setAttribute("aria-label", `Switch to ${dark ? "light" : "dark"} colours`);
}

function refresh() {
  for (const body of sections) if (body.redraw) body.redraw();
  const field = byId("search");
  if (field && field.value !== state.search) field.value = state.search;
  showStep();
}

const KEYS = {
  ArrowLeft: (event) => walk(event.shiftKey ? -10 : -1),
  ArrowRight: (event) => walk(event.shiftKey ? 10 : 1),
  Home: () => choose(STOPS[0]),
  End: () => choose(STOPS[STOPS.length - 1]),
  "+": () => zoomBy(0.7, state.step),
  "-": () => zoomBy(1 / 0.7, state.step),
  0: () => change({ zoom: null }),
  "/": () => byId("search") && byId("search").focus(),
};

function clearOne() {
  hideTip();
  if (state.search) change({ search: "" });
  else if (state.pinned) change({ pinned: false });
  else change({ zoom: null });
  if (document.activeElement && document.activeElement.matches("input")) document.activeElement.blur();
}

function pressed(event) {
  if (event.key === "Escape") return clearOne();
  const busy = event.target.closest && event.target.closest("input, select, textarea");
  const action = KEYS[event.key];
  if (busy || !action || event.ctrlKey || event.metaKey || event.altKey || !STOPS.length) return;
  if (["Home", "End"].includes(event.key) && !(event.target.closest && event.target.closest(".chart"))) return;
  event.preventDefault();
  action(event);
}

/** Draws the charts anew as wide as a sheet of paper, or as wide as the page. */
function fit(printing) {
  document.body.classList.toggle("printing", printing);
  for (const panel of PANELS.values()) (panel.resize(), panel.draw());
  showStep();
  for (const panel of PANELS.values()) if (panel.moveCursor) panel.moveCursor();
}

function onPrint() {
  const details = [...document.querySelectorAll(".finding details")];
  const [open, theme] = [details.map((item) => item.open), state.theme];
  details.forEach((item) => (item.open = true));
  change({ theme: "light" });
  fit(true);
  addEventListener(
    "afterprint",
    () => {
      details.forEach((item, i) => (item.open = open[i]));
      change({ theme });
      fit(false);
    },
    { once: true },
  );
}

function start() {
  startOver();
  drawHead();
  drawVerdict();
  drawToolbar();
  drawCharts();
  drawFindings();
  drawFacts();
  showThemeButton();
  showZoom();
  when(["optimizer"], () => (startOver(), drawToolbar(), drawCharts(), showZoom()));
  when(["memory", "gates"], drawCharts);
  when(["zoom"], showZoom);
  when(["step", "pinned"], showStep);
  when(["search", "quantity", "open"], refresh);
  when(["finding"], () => PANELS.forEach((panel) => panel instanceof ProfilePanel || panel.draw()));
  when(["theme"], showTheme);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
  addEventListener("keydown", pressed);
  addEventListener("beforeprint", onPrint);
  let width = document.documentElement.clientWidth;
  addEventListener("resize", () => {
    if (width === document.documentElement.clientWidth) return; // a phone's bars come and go
    width = document.documentElement.clientWidth;
    fit(false);
  });
}
