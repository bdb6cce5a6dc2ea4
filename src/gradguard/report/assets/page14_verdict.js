// The words at the top: healthy, or what, where, since when, and what to try first. At the end: findings and facts.

function drawHead() {
  const theme = make(
    "button",
    { type: "button", id: "theme", onclick: () => change({ theme: isDark() ? "light" : "dark" }) },
    "Dark or light",
  );
  const version = make("span", { class: "muted" }, `GradGuard ${DATA.version}`);
  byId("head").replaceChildren(make("h1", {}, title()), make("span", { class: "space" }), version, theme);
}

function title() {
  const names = RUNS.map((run) => make("bdi", {}, plain(run.name)));
  return names.length > 1 ? [names[0], make("span", { class: "muted" }, " → "), names[1]] : names;
}

function drawVerdict() {
  byId("verdict").replaceChildren(...RUNS.map(verdictOf));
}

function verdictOf(run, index) {
  const { state: word, title: head, text, first } = run.verdict;
  const problems = run.problems.length
    ? make(
        "div",
        { class: "notice" },
        make("strong", {}, "Not all of the record could be read"),
        make(
          "ul",
          {},
          run.problems.map((problem) => make("li", {}, plain(problem))),
        ),
      )
    : null;
  return make(
    "article",
    { class: `card verdict ${word}` },
    make(
      "p",
      { class: "over" },
      badge(word, STATES[word]),
      COMPARED
        ? make("span", { class: `run ${runWord(index)}` }, `${runWord(index)}: `, make("bdi", {}, plain(run.name)))
        : null,
    ),
    make("h2", {}, plain(head)),
    make(
      "div",
      { class: first.length ? "two" : "" },
      make(
        "div",
        {},
        text.map((sentence) => make("p", {}, prose(sentence))),
      ),
      first.length
        ? make(
            "div",
            { class: "try" },
            make("h3", {}, "Try first"),
            make(
              "ol",
              {},
              first.map((advice) => make("li", {}, prose(advice))),
            ),
          )
        : null,
    ),
    jumps(run, index),
    problems,
  );
}

/** A button for each serious finding that leads to its place in the charts. */
function jumps(run, index) {
  const serious = run.optimizers.flatMap((optimizer) =>
    optimizer.findings
      .map((finding, at) => ({ finding, at, optimizer }))
      .filter(({ finding }) => finding.severity !== "info"),
  );
  if (!serious.length) return null;
  const buttons = serious
    .slice(0, 4)
    .map(({ finding, at, optimizer }) =>
      make(
        "button",
        { type: "button", class: `jump ${finding.severity}`, onclick: () => show(index, optimizer.name, at) },
        `Show: ${headline(finding)}`,
      ),
    );
  const more = serious.length > 4 ? make("a", { href: "#findings" }, `${serious.length - 4} more below`) : null;
  return make("p", { class: "jumps" }, buttons, more);
}

/** Where in the page a finding can be seen. */
function chartOf(finding) {
  const has = (name) => document.getElementById(`section-${name}`);
  const { symptom } = finding;
  if (symptom.endsWith("_time") && has("memory")) return "memory";
  if (symptom.includes("gates") && has("gates")) return "gates";
  if ((symptom.includes("loss") || symptom.includes("convergence")) && has("loss")) return "loss";
  return finding.layers.length && has("layers") ? "layers" : "norm";
}

/** The modules to open, so that the layers of a finding are seen one by one: none where these are too many. */
function modulesWith(run, finding) {
  const { names, modules } = layersOf(shown());
  if (names.length <= MOST_ROWS || finding.layers.length > 60) return [];
  const of = shown()[run].layers.names;
  return finding.layers.map((row) => modules[names.indexOf(of[row])]);
}

/** Leads to the place of a finding: its optimizer, layers and steps, and the chart that shows it. */
function show(run, optimizer, index) {
  const found = OPTIMIZERS.findIndex(({ of }) => of[run] && of[run].name === optimizer);
  if (found >= 0) change({ optimizer: found });
  const finding = findingOf([run, index]);
  if (!finding) return;
  const quantity = finding.symptom.startsWith("update") && shown()[run].layers.ratio ? "ratio" : "grad";
  const opened = modulesWith(run, finding);
  change({ finding: [run, index], quantity, search: "", zoom: null, open: new Set([...state.open, ...opened]) });
  change({ step: placeOf(finding), pinned: true });
  const target = document.getElementById(`section-${chartOf(finding)}`);
  if (target) {
    target.scrollIntoView({
      behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth",
      block: "start",
    });
    target.querySelector(".chart").focus({ preventScroll: true });
  }
}

function drawFindings() {
  const lists = RUNS.map((run, index) => {
    const items = run.optimizers.flatMap((optimizer) =>
      optimizer.findings.map((finding, at) => [optimizer, finding, at]),
    );
    const several = run.optimizers.length > 1;
    const body = items.length
      ? items.map(([optimizer, finding, at], order) => findingRow(index, optimizer, finding, at, order === 0, several))
      : [make("p", { class: "muted" }, "Nothing was found.")];
    return make("div", { class: "list" }, sideNote(index), body);
  });
  byId("findings").replaceChildren(make("div", { class: "card" }, make("h2", {}, "Findings"), lists));
}

function findingRow(run, optimizer, finding, at, open, several) {
  const summary = make(
    "summary",
    {},
    badge(finding.severity, WORDS[finding.severity]),
    make("strong", {}, headline(finding)),
    make(
      "span",
      { class: "where" },
      finding.where.length ? listed(finding.where, 2) : "the whole network",
      several ? `, of ${plain(optimizer.name)}` : "",
    ),
    make("span", { class: "muted since" }, spanText(finding)),
  );
  const evidence = make(
    "table",
    { class: "evidence" },
    make(
      "tbody",
      {},
      finding.evidence.map(([label, value]) =>
        make("tr", {}, make("th", { scope: "row" }, plain(label)), make("td", {}, plain(value))),
      ),
    ),
  );
  const body = make(
    "div",
    { class: "body" },
    make("p", {}, prose(finding.explanation)),
    make(
      "div",
      { class: "two" },
      finding.advice.length
        ? make(
            "div",
            {},
            make("h3", {}, "What to try, in this order"),
            make(
              "ol",
              {},
              finding.advice.map((advice) => make("li", {}, prose(advice))),
            ),
          )
        : null,
      finding.evidence.length ? make("div", {}, make("h3", {}, "Evidence"), evidence) : null,
    ),
    finding.where.length > 2 ? make("p", { class: "all muted" }, `Where: ${listed(finding.where, 30)}`) : null,
  );
  const button = make(
    "button",
    { type: "button", class: "place", onclick: () => show(run, optimizer.name, at) },
    "Show in the charts",
  );
  return make("div", { class: `finding ${finding.severity}` }, make("details", { open }, summary, body), button);
}

function drawFacts() {
  const tables = RUNS.map((run, index) => {
    const rows = run.facts.map(([label, value]) =>
      make("div", {}, make("dt", {}, plain(label)), make("dd", {}, plain(value))),
    );
    return make("div", {}, sideNote(index), make("dl", {}, rows));
  });
  byId("facts").replaceChildren(
    make(
      "div",
      { class: "card" },
      make("h2", {}, "About the run"),
      make("div", { class: COMPARED ? "two" : "" }, tables),
    ),
  );
}
