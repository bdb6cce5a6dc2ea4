// The rows of the map of layers: all layers, those that the search leaves, or whole modules where there are too many.

const MOST_ROWS = 1000; // above, modules are shown in place of their layers
const MOST_MODULES = 200;

/** The layers of all runs, first layer first, and for each run where in its own grid each of them stands. */
function layersOf(optimizers) {
  const names = [];
  const places = new Map();
  for (const optimizer of optimizers) {
    for (const name of optimizer ? optimizer.layers.names : []) {
      if (!places.has(name)) {
        places.set(name, names.length);
        names.push(name);
      }
    }
  }
  const rowIn = optimizers.map((optimizer) => {
    const rows = new Int32Array(names.length).fill(-1);
    if (optimizer) optimizer.layers.names.forEach((name, row) => (rows[places.get(name)] = row));
    return rows;
  });
  return { names, rowIn, modules: modulesOf(names) };
}

/** For each layer the module that stands for it: as deep as leaves at most MOST_MODULES. Neighbours only are joined. */
function modulesOf(names) {
  let best = names.map((name) => name.split(".")[0]);
  for (let depth = 2; depth < 8; depth++) {
    const next = names.map((name) => name.split(".").slice(0, depth).join("."));
    if (runsOf(next).length > MOST_MODULES) break;
    best = next;
  }
  return best;
}

function runsOf(keys) {
  const runs = [];
  keys.forEach((key, i) => {
    const last = runs[runs.length - 1];
    if (last && last.key === key) last.members.push(i);
    else runs.push({ key, members: [i] });
  });
  return runs;
}

function matches(name, search) {
  const lower = name.toLowerCase();
  return search
    .toLowerCase()
    .split(/\s+/)
    .every((term) => lower.includes(term));
}

/** Rows as {label, members, module}: `members` index `layers.names`; `module` where the row can be opened or closed. */
function rowsOf(layers) {
  const kept = layers.names.map((_, i) => i).filter((i) => matches(layers.names[i], state.search.trim()));
  const single = (i, module = null) => ({ label: layers.names[i], members: [i], module });
  if (kept.length <= MOST_ROWS) return kept.map((i) => single(i));
  return runsOf(kept.map((i) => layers.modules[i])).flatMap(({ key, members }) => {
    const all = members.map((i) => kept[i]);
    if (all.length === 1) return [single(all[0])];
    if (state.open.has(key)) return all.map((i) => single(i, key));
    return [{ label: key, members: all, module: key }];
  });
}

function rowText(row, most) {
  return row.members.length > 1
    ? `▸ ${shortened(row.label, most - 4)} (${row.members.length})`
    : shortened(row.label, most);
}

/** Prefixes of names that a search may ask for. */
function prefixesOf(names) {
  const prefixes = new Set();
  for (const name of names) {
    const parts = name.split(".");
    for (let depth = 1; depth < parts.length && prefixes.size < 300; depth++)
      prefixes.add(`${parts.slice(0, depth).join(".")}.`);
  }
  return [...prefixes];
}

/** Which rows of what is shown a finding names, as stretches [first, last]. */
function stretchesOf(rows, layers, run, finding) {
  const named = new Set(finding.layers);
  const hit = rows.map((row) => row.members.some((i) => named.has(layers.rowIn[run][i])));
  const stretches = [];
  hit.forEach((is, row) => {
    if (!is) return;
    const last = stretches[stretches.length - 1];
    if (last && last[1] === row - 1) last[1] = row;
    else stretches.push([row, row]);
  });
  return stretches;
}
