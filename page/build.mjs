// Writes the chart library of a report, with its licences, to src/gradguard/report/assets.
//
//   npm ci && node build.mjs          writes the files and prints their sizes
//   npm ci && node build.mjs --check  says whether the files there equal a fresh build; exit status 1 where not
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const HERE = dirname(fileURLToPath(import.meta.url));
const ROOT = dirname(HERE);
const ASSETS = join(ROOT, "src", "gradguard", "report", "assets");

// What ends up in the bundle, whole or in part, and the text that has to go with it.
const LICENCES = {
  "echarts.LICENSE.txt": "echarts/LICENSE",
  "echarts.NOTICE.txt": "echarts/NOTICE",
  "d3.LICENSE.txt": "echarts/licenses/LICENSE-d3", // echarts/lib/util/number.js has its quantile
  "zrender.LICENSE.txt": "zrender/LICENSE",
  "tslib.LICENSE.txt": "tslib/LICENSE.txt",
};
const PACKAGES = ["echarts", "tslib", "zrender"];

function installed(path) {
  return readFileSync(join(HERE, "node_modules", path), "utf8");
}

function version(name) {
  return JSON.parse(installed(`${name}/package.json`)).version;
}

// A report is passed on as one file, so the notices that the licences ask for travel inside the script.
function notices() {
  const texts = ["echarts/NOTICE", "zrender/LICENSE", "echarts/licenses/LICENSE-d3", "tslib/LICENSE.txt"];
  const names = PACKAGES.map((name) => `${name} ${version(name)}`).join(", ");
  const head = `Made of ${names}. Apache ECharts: Apache License 2.0, https://www.apache.org/licenses/LICENSE-2.0`;
  const body = texts.map((path) => `---- ${path} ----\n${installed(path).trim()}`);
  return `/*!\n${[head, ...body].join("\n\n").replaceAll("*/", "*\\/").replaceAll("\r", "")}\n*/`;
}

// Inside <script> these would end the element, or keep it from ending. esbuild writes "<\/script" by itself; in a string
// or a regular expression "\x3c" means the same as "<".
function inlinable(script) {
  return script.replace(/<(?=\/script|script|!--)/gi, "\\x3c");
}

async function bundle() {
  const { outputFiles, metafile } = await build({
    absWorkingDir: HERE,
    entryPoints: ["charts.js"],
    outfile: "echarts.min.js",
    bundle: true,
    charset: "ascii", // the script reads the same in a page of any encoding
    define: { "process.env.NODE_ENV": '"production"' },
    footer: { js: notices() },
    format: "iife",
    globalName: "echarts",
    legalComments: "eof",
    metafile: true,
    minify: true,
    target: "es2018",
    write: false,
  });
  const paths = Object.keys(metafile.inputs).filter((path) => path.startsWith("node_modules/"));
  const unknown = new Set(paths.map((path) => path.split("/")[1]).filter((name) => !PACKAGES.includes(name)));
  if (unknown.size > 0) {
    throw new Error(`The bundle takes in ${[...unknown].join(", ")}. Add the licence to LICENCES and the name to PACKAGES.`);
  }
  return inlinable(outputFiles[0].text);
}

async function files() {
  const script = await bundle();
  const licences = Object.entries(LICENCES).map(([name, path]) => [name, `${installed(path).trimEnd()}\n`]);
  return Object.fromEntries([["echarts.min.js", script], ...licences]);
}

function write(fresh) {
  mkdirSync(ASSETS, { recursive: true });
  for (const [name, text] of Object.entries(fresh)) {
    writeFileSync(join(ASSETS, name), text);
    console.log(`${name}: ${Buffer.byteLength(text)} bytes, ${gzipSync(text, { level: 9 }).length} with gzip`);
  }
}

function check(fresh) {
  const same = (name) => existsSync(join(ASSETS, name)) && readFileSync(join(ASSETS, name), "utf8") === fresh[name];
  const stale = Object.keys(fresh).filter((name) => !same(name));
  if (stale.length > 0) {
    const names = stale.map((name) => relative(ROOT, join(ASSETS, name))).join(", ");
    console.error(`Not what a fresh build gives: ${names}. Run \`node build.mjs\` in page/ and commit what it writes.`);
    process.exitCode = 1;
  } else {
    console.log(`${Object.keys(fresh).length} files equal a fresh build.`);
  }
}

const fresh = await files();
if (process.argv.includes("--check")) {
  check(fresh);
} else {
  write(fresh);
}
