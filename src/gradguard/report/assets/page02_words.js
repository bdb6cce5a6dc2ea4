// Numbers and names as text. Nothing here is HTML: what comes from a record goes in by textContent.

const SEVERITIES = ["critical", "warning", "info"];
const ICONS = { healthy: "✓", info: "i", warning: "!", critical: "✕", empty: "–" };
const STATES = {
  healthy: "Healthy",
  info: "Notes only",
  warning: "Warning",
  critical: "Critical",
  empty: "Nothing seen",
};
const WORDS = { critical: "Critical", warning: "Warning", info: "Note" };
const QUANTITIES = { grad: "Gradient norm", ratio: "Update ratio" };

function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "Inf" : "-Inf";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e-3 && size < 1e5) return String(Number(value.toPrecision(3)));
  const [digits, exponent] = value.toExponential(1).split("e");
  return `${digits.replace(/\.0$/, "")}e${Number(exponent)}`;
}

const RAISED = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };

/** Places of the ticks of a logarithmic axis: powers of ten, with 2 and 5 between them where these are few. */
function logTicks(least, most, count) {
  const [low, high] = [Math.log10(least), Math.log10(most)];
  const each = Math.max(1, Math.ceil((high - low) / count));
  const digits = high - low < 2.2 ? (high - low < 0.8 ? [1, 1.5, 2, 3, 4, 5, 6, 8] : [1, 2, 5]) : [1];
  const ticks = [];
  for (let exponent = Math.floor(low); exponent <= high + 1e-9; exponent++) {
    if (exponent % each) continue;
    for (const digit of digits) {
      const value = Number(`${digit}e${exponent}`);
      if (value >= least * (1 - 1e-9) && value <= most * (1 + 1e-9)) ticks.push(value);
    }
  }
  return ticks;
}

/** Powers of ten of an axis. */
function power(value) {
  const exponent = Math.log10(value);
  if (Math.abs(exponent - Math.round(exponent)) > 1e-9 || Math.abs(exponent) < 2.5) return number(value);
  return `10${[...String(Math.round(exponent))].map((sign) => RAISED[sign]).join("")}`;
}

function stepText(step) {
  const whole = Math.round(step);
  return Math.abs(whole) < 10000 ? String(whole) : whole.toLocaleString("en-GB");
}

function spanText(finding) {
  const { first_step: first, last_step: last } = finding;
  if (finding.active) return `since step ${stepText(first)}, ongoing`;
  return `${first === last ? `step ${stepText(first)}` : `steps ${stepText(first)} to ${stepText(last)}`}, over`;
}

/** A few words for a finding: its title, or the name of its symptom where the title is a sentence. */
function headline(finding) {
  const { symptom, title } = finding;
  if (title.length <= 60 && !title.startsWith(symptom)) return plain(title);
  return symptomWords(symptom);
}

function symptomWords(symptom) {
  const words = plain(symptom).replace(/_/g, " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** A name on a line of its own, without characters that would break or turn it round. */
function plain(name) {
  return name.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, "�");
}

/** The end of a layer's name says more than its beginning. */
function shortened(name, most) {
  const signs = [...plain(name)];
  return signs.length <= most ? signs.join("") : `…${signs.slice(signs.length - most + 1).join("")}`;
}

function counted(count, one, many = `${one}s`) {
  return `${count.toLocaleString("en-GB")} ${count === 1 ? one : many}`;
}

function listed(names, most) {
  const shown = names.slice(0, most).map(plain).join(", ");
  return names.length > most ? `${shown} and ${names.length - most} more` : shown;
}

function runWord(index) {
  return COMPARED ? ["before", "after"][index] : "";
}

function withRun(label, index) {
  return COMPARED ? `${label}, ${runWord(index)}` : label;
}
