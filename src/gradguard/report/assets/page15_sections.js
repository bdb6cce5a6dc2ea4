// The cards of charts, from the gradient norm down to what was less asked for.

/** rows: [panel, side element], the side one to the right of the chart, or below it on a narrow screen. */
function section(name, head, note, tools, rows) {
  const bodies = rows.map(([panel, side]) =>
    make("div", { class: "row" }, make("div", {}, panel.caption, panel.box), make("div", { class: "side" }, side)),
  );
  return make(
    "section",
    { class: "card", id: `section-${name}`, "aria-label": head },
    make("div", { class: "heading" }, make("h2", {}, head), make("div", { class: "tools" }, tools)),
    note ? make("p", { class: "note muted" }, note) : null,
    bodies,
  );
}

function logToggle(panel) {
  return toggle("log scale", !state.linear.has(panel.name), (on) => {
    if (on) state.linear.delete(panel.name);
    else state.linear.add(panel.name);
    panel.draw();
  });
}


function normSection() {
  const panel = new NormPanel();
  if (!panel.lines.length) {
    PANELS.delete(panel.name);
    return null;
  }
  const clipped = shown().flatMap((optimizer, run) => {
    const marks = optimizer ? optimizer.marks : {};
    return ["clipped", "skipped"].flatMap((kind) => {
      const count = (marks[kind] || []).length;
      if (!count) return [];
      return [make("li", {}, withRun(`${optimizer.merged ? "at least " : ""}${counted(count, "step")} ${kind}`, run))];
    });
  });
  const side = make(
    "div",
    {},
    make("h3", { class: "at" }, ""),
    panel.legend,
    make("ul", { class: "muted plain" }, clipped),
  );
  return section("norm", "Gradient norm", null, [logToggle(panel)], [[panel, side]]);
}

/** lines: [key, label, colour, {logarithm, height}] of one chart each. */
function lineSection(name, head, lines) {
  const panels = lines.map(
    ([key, label, tone, more]) =>
      new LinePanel(key, `${label} over steps`, more.height || 150, linesOf({ [key]: [label, tone] }), more),
  );
  const kept = panels.filter((panel) => panel.lines.length);
  panels.filter((panel) => !panel.lines.length).forEach((panel) => PANELS.delete(panel.name));
  if (!kept.length) return null;
  const rows = kept.map((panel) => [panel, make("div", {}, panel.legend, logToggle(panel))]);
  return section(name, head, null, [], rows);
}

function layersSection() {
  const optimizers = shown().filter(Boolean);
  const has = (key) => optimizers.some(({ layers }) => layers[key] && layers[key].x.length && layers.names.length);
  const options = Object.fromEntries(Object.entries(QUANTITIES).filter(([key]) => has(key)));
  if (!Object.keys(options).length) return null;
  if (!options[state.quantity]) state.quantity = Object.keys(options)[0];
  const table = new Layers();
  const maps = shown()
    .map((_, run) => new MapPanel(table, run))
    .filter(({ run }) => table.grids[run]);
  const profile = new ProfilePanel(table);
  const key = make("div", {});
  const found = make("span", { class: "muted", id: "matches" });
  const tools = [
    choice(
      "Quantity",
      options,
      () => state.quantity,
      (quantity) => change({ quantity }),
    ),
    searchField(table, found),
  ];
  const head = make("h3", { class: "at" }, "");
  const rows = maps.map((panel, i) => [panel, i === 0 ? [runKey(), profile.box] : null]);
  for (const panel of maps) panel.caption = sideNote(panel.run);
  const body = section(
    "layers",
    "Layers",
    "First layer at the top. The curve at the right is all layers at the chosen step: a click in a chart pins a step.",
    tools,
    rows,
  );
  body.querySelector(".note").after(make("div", { class: "keyline" }, key, head));
  const redraw = () => {
    table.update();
    const parts = table.grids.filter(Boolean);
    const most = table.layers.names.length;
    const folded = table.rows.some((row) => row.members.length > 1);
    const left = table.rows.reduce((sum, row) => sum + row.members.length, 0);
    const all = counted(most, "layer");
    found.textContent =
      (left < most ? `${left} of ${all}` : all) + (folded ? ` in ${counted(table.rows.length, "row")}` : "");
    key.replaceChildren(
      parts.length ? colourKey(table.range, parts[0].scale, specialOf(parts), QUANTITIES[state.quantity]) : "",
    );
    body.classList.toggle("nothing", !table.rows.length);
    for (const button of body.querySelectorAll(".choice button")) {
      button.setAttribute("aria-pressed", String(button.dataset.key === state.quantity));
    }
    for (const panel of [...maps, profile]) if (panel.chart) (panel.resize(table.height), panel.draw());
    drawModules(body, table);
  };
  body.redraw = redraw;
  redraw();
  return body;
}

function searchField(table, found) {
  const list = make(
    "datalist",
    { id: "prefixes" },
    prefixesOf(table.layers.names).map((prefix) => make("option", { value: prefix })),
  );
  const field = make("input", {
    type: "search",
    id: "search",
    value: state.search,
    placeholder: "Search layers ( / )",
    "aria-label": "Search layers, by any part of their names",
    list: "prefixes",
    spellcheck: "false",
    autocomplete: "off",
    oninput: () => change({ search: field.value }),
  });
  return make("span", { class: "search" }, field, list, found);
}

/** Which curve of a comparison is which. */
function runKey() {
  if (!COMPARED) return null;
  const words = RUNS.map((_, run) => [
    swatch(`var(--${runWord(run)})`, run === 0 ? "dashed" : "solid"),
    `${runWord(run)} `,
  ]);
  return make("p", { class: "run" }, words);
}

/** Keyboard and screen reader open modules here; the mouse also does it at the names beside the map. */
function drawModules(body, table) {
  const modules = [...new Set(table.rows.map((row) => row.module).filter(Boolean))];
  const old = body.querySelector(".modules");
  const wasOpen = old ? old.open : false;
  if (old) old.remove();
  if (!modules.length) return;
  const buttons = modules.map((module) =>
    make(
      "button",
      {
        type: "button",
        "aria-pressed": String(state.open.has(module)),
        onclick: () => openModules([module], !state.open.has(module)),
      },
      plain(module),
    ),
  );
  const all = make("button", { type: "button", onclick: () => openModules(modules, false) }, "Close all");
  body.append(
    make(
      "details",
      { class: "modules", open: wasOpen },
      make("summary", {}, `Open modules: ${counted(modules.length, "module")}`),
      make("div", { class: "many" }, all, buttons),
    ),
  );
}
