// Colours: those of the theme from the style sheet; Okabe and Ito's for lines; viridis for tables of numbers.

const STOPS_OF_VIRIDIS = "440154 482878 3e4989 31688e 26828e 1f9e89 35b779 6ece58 b5de2b fde725"
  .split(" ")
  .map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
const VIRIDIS_CSS = `linear-gradient(90deg, ${STOPS_OF_VIRIDIS.map((rgb) => `rgb(${rgb})`).join(", ")})`;

function viridis(share) {
  const at = Math.min(1, Math.max(0, share)) * (STOPS_OF_VIRIDIS.length - 1);
  const low = Math.min(Math.floor(at), STOPS_OF_VIRIDIS.length - 2);
  return [0, 1, 2].map((i) => {
    const from = STOPS_OF_VIRIDIS[low][i];
    return Math.round(from + (at - low) * (STOPS_OF_VIRIDIS[low + 1][i] - from));
  });
}

function rgbOf(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

/** As a Uint32 of ImageData, whose bytes are red, green, blue, opacity on every machine in use. */
function packed([red, green, blue]) {
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

const known = new Map(); // colours of the theme in use

function colour(name) {
  if (!known.has(name))
    known.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  return known.get(name);
}

function useTheme() {
  const root = document.documentElement;
  if (state.theme) root.dataset.theme = state.theme;
  else delete root.dataset.theme;
  known.clear();
}

function isDark() {
  return state.theme ? state.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

/** The colour of each of the 65,536 codes of a grid, where `range` goes from dark to bright. */
function paletteOf(grid, range) {
  const palette = new Uint32Array(65536);
  const width = range[1] - range[0] || 1;
  const table = Uint32Array.from({ length: 1024 }, (_, i) => packed(viridis(i / 1023)));
  for (let code = LOWEST; code < INFINITE; code++) {
    const share = (grid.place(code) - range[0]) / width;
    palette[code] = table[Math.min(1023, Math.max(0, Math.round(share * 1023)))];
  }
  palette[UNKNOWN] = packed(rgbOf(colour("unknown")));
  palette[ZERO] = packed(rgbOf(colour("zero")));
  palette[INFINITE] = packed(rgbOf(colour("infinite")));
  return palette;
}

/** From where to where the colours go: all but the outermost values, twelve decades at most, one at least. */
function rangeOf(grids) {
  const places = [];
  for (const grid of grids) {
    const stride = Math.max(1, Math.floor(grid.codes.length / 50000));
    for (let i = 0; i < grid.codes.length; i += stride) {
      const code = grid.codes[i];
      if (code >= LOWEST && code < INFINITE) places.push(grid.place(code));
    }
  }
  if (!places.length) return [-6, 0];
  const sorted = Float64Array.from(places).sort();
  const most = sorted[Math.floor(0.999 * (sorted.length - 1))];
  const least = Math.max(sorted[Math.floor(0.005 * (sorted.length - 1))], most - 12);
  const short = Math.max(0, 1 - (most - least)) / 2;
  return [least - short, most + short];
}

/** What the colours mean, in words and a strip. */
function colourKey(range, scale, special, what) {
  const value = (place) => (scale === "log" ? number(10 ** place) : number(place));
  const middle = (range[0] + range[1]) / 2;
  const marks = [
    ["zero", "exactly 0"],
    ["infinite", "infinite"],
    ["unknown", "not known, or NaN"],
  ];
  return make(
    "div",
    { class: "key" },
    make("span", { class: "muted" }, what),
    make(
      "span",
      { class: "strip" },
      make("span", { class: "ramp", style: `background:${VIRIDIS_CSS}` }),
      make(
        "span",
        { class: "ends" },
        [range[0], middle, range[1]].map((place) => make("span", {}, value(place))),
      ),
    ),
    marks
      .filter(([name]) => special.has(name))
      .map(([name, text]) =>
        make("span", { class: "muted" }, make("span", { class: "cell", style: `background:var(--${name})` }), text),
      ),
  );
}

/** Which of the special cells a grid has, so that the key explains no others. */
function specialOf(grids) {
  const found = new Set();
  for (const grid of grids) {
    for (const code of grid.codes) {
      if (code === UNKNOWN) found.add("unknown");
      else if (code === ZERO) found.add("zero");
      else if (code === INFINITE) found.add("infinite");
      if (found.size === 3) return found;
    }
  }
  return found;
}
