// Elements of the page, made without HTML in strings.

/** make("button", {class: "x", onclick: f}, "text", child, ...): null and false children are left out. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat(2).filter((child) => child !== null && child !== false && child !== undefined));
  return element;
}

function byId(id) {
  return document.getElementById(id);
}

function badge(state, word) {
  return make(
    "span",
    { class: `badge ${state}` },
    make("span", { class: "icon", "aria-hidden": "true" }, ICONS[state]),
    word,
  );
}

/** Text on one line. Nothing in it becomes a link: a layer may be called like an address. */
function prose(text) {
  return [plain(text.replace(/\s+/g, " "))];
}

function swatch(colour, dash) {
  const style = `border-top:${dash === "dotted" ? 2 : 3}px ${dash || "solid"} ${colour}`;
  return make("span", { class: "swatch", style, "aria-hidden": "true" });
}

function toggle(label, on, change, title) {
  const box = make("input", { type: "checkbox", checked: on, onchange: () => change(box.checked) });
  return make("label", { class: "toggle", title }, box, label);
}

/** Buttons of which one is pressed. */
function choice(label, options, chosen, change) {
  const buttons = Object.entries(options).map(([key, text]) =>
    make(
      "button",
      { type: "button", "aria-pressed": String(key === chosen()), "data-key": key, onclick: () => pick(key) },
      text,
    ),
  );
  const pick = (key) => {
    change(key);
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.key === chosen())));
  };
  return make("span", { class: "choice", role: "group", "aria-label": label }, buttons);
}

function select(label, options, chosen, change) {
  const list = make("select", { "aria-label": label, onchange: () => change(list.value) });
  list.append(...options.map(([key, text]) => make("option", { value: key, selected: key === chosen }, text)));
  return make("label", { class: "select" }, `${label} `, list);
}

const TIP = byId("tip");

/** Shows `title` and lines of [swatch or null, label, value] beside the pointer. */
function showTip(event, title, lines) {
  const rows = lines.map(([mark, label, value]) =>
    make(
      "tr",
      {},
      make("td", {}, mark || ""),
      make("th", { scope: "row" }, label),
      make("td", { class: "value" }, value),
    ),
  );
  TIP.replaceChildren(make("strong", {}, plain(title)), make("table", {}, make("tbody", {}, rows)));
  TIP.hidden = false;
  const { width, height } = TIP.getBoundingClientRect();
  const room = document.documentElement;
  const left = event.clientX + 16 + width < room.clientWidth ? event.clientX + 16 : event.clientX - 16 - width;
  const top = event.clientY + 16 + height < room.clientHeight ? event.clientY + 16 : event.clientY - 16 - height;
  TIP.style.left = `${Math.max(4, left)}px`;
  TIP.style.top = `${Math.max(4, top)}px`;
}

function hideTip() {
  TIP.hidden = true;
}
