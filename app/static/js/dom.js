/** Elements and words. Text goes into the page as text alone, so that what a user typed is never read as HTML. */

/** An element with attributes (`on…` are listeners, `data` and `style` are objects) and children; null ones are left out. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "style") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else if (name === "value" && "value" in element) element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(4).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Give a node new children, and the focus back to the child that had it, known by its id. */
export function fill(node, ...children) {
  const focused = node.contains(document.activeElement) ? document.activeElement.id : "";
  const open = new Set([...node.querySelectorAll("details[open][id]")].map((one) => one.id));
  node.replaceChildren(...children.flat(4).filter((child) => child !== null && child !== undefined && child !== false));
  for (const id of open) byId(id)?.setAttribute("open", "");
  if (focused) byId(focused)?.focus({ preventScroll: true });
}

/** Do something with a part of the page only when what it shows has changed. */
export function whenChanged(act) {
  let last;
  return (value, ...rest) => {
    const words = JSON.stringify([value, ...rest]);
    if (words === last) return;
    last = words;
    act(value, ...rest);
  };
}

/** Say something to those who listen to the page. */
export function announce(words) {
  byId("announcer").textContent = words;
}

export function debounced(act, milliseconds) {
  let timer;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...given), milliseconds);
  };
}

// Numbers and times ------------------------------------------------------------------------------------------------------

export function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const words = value.toFixed(digits);
  return (Number(words) === 0 ? words.replace("-", "") : words).replace("-", "−");
}

/** A number as short as it can be read, for values of an axis and parameters. */
export function short(value) {
  return typeof value === "number" ? String(Number(value.toPrecision(4))) : String(value);
}

export const interval = (ci, digits = 3) => (ci ? `[${number(ci[0], digits)}, ${number(ci[1], digits)}]` : "");

/** How well a task is done, in its own unit. */
export function score(value, metric) {
  if (value === null || value === undefined) return "–";
  return metric === "pixels" ? `${number(value, 2)} px` : `${number(100 * value, 1)} %`;
}

/** I_NCE as the field writes it. */
export const iNce = () => ["I", h("sub", {}, "NCE")];

/** What a point's views share: `≥` before what is saturated, `*` behind what is low. */
export const reading = (point) => [
  point.saturated ? "≥ " : "",
  number(point.i_nce, 2),
  isLow(point) ? "*" : "",
  " ",
  h("span", { class: "interval" }, interval(point.i_nce_ci, 2)),
];

export const LOW = "probably low by more than 5 %";
export const isLow = (point) => point.low && !point.saturated;

/** A line under a table for the marks of its readings. */
export function marksInWords(points) {
  const words = [
    points.some((point) => point.saturated) ? "≥ saturated: within a nat of log K, read “at least”" : null,
    points.some(isLow) ? `* ${LOW}` : null,
  ].filter(Boolean);
  return words.length ? h("p", { class: "note marks" }, words.join(" · ")) : null;
}

export function scoreInterval(ci, metric) {
  if (!ci) return "";
  return metric === "pixels" ? interval(ci, 2) : `[${number(100 * ci[0], 1)}, ${number(100 * ci[1], 1)}]`;
}

export const METRICS = { accuracy: "Accuracy", pixels: "Localization error (px), less is better" };

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 1) return "under 1 s";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 36 * 3600) return `${number(seconds / 3600, 1)} h`;
  return `${number(seconds / 86400, 1)} days`;
}

export function bytes(size) {
  const units = ["B", "kB", "MB", "GB"];
  let step = 0;
  while (size >= 1000 && step < units.length - 1) {
    size /= 1000;
    step += 1;
  }
  return `${step ? number(size, 1) : size} ${units[step]}`;
}

/** A moment, said as how long ago it was; exactly where it is pointed at. */
export function when(moment) {
  if (!moment) return "–";
  const date = new Date(moment);
  const seconds = (Date.now() - date.getTime()) / 1000;
  const words = seconds < 45 ? "just now" : seconds < 36 * 3600 ? `${duration(seconds)} ago` : date.toLocaleDateString();
  return h("time", { datetime: moment, title: date.toLocaleString() }, words);
}

/** A value of an axis in words: a recipe by its kind and parameters, names with plus signs between them. */
export function inWords(value) {
  if (typeof value === "string") return value;
  if (typeof value === "number") return short(value);
  if (Array.isArray(value)) return value.map(inside).join(value.every((part) => typeof part === "string") ? " + " : ", ");
  if (value && typeof value === "object") {
    const part = ([key, one]) => (key === "kind" || key === "name" ? inWords(one) : `${key} ${inside(one)}`);
    return Object.entries(value).map(part).join(", ");
  }
  return JSON.stringify(value) ?? "";
}

const inside = (part) => (part && typeof part === "object" && !Array.isArray(part) ? `(${inWords(part)})` : inWords(part));

/** The label of a place on a sweep's axis. */
export function axisLabel(axis, index, value) {
  return axis.labels?.[index] ?? inWords(value ?? axis.values?.[index]);
}

/** The last word of an axis's path, as figures write it. */
export function axisName(path) {
  const name = path.split(".").pop();
  return name === "sigma" ? "σ" : name.replaceAll("_", " ");
}

/** What an experiment is, in a line: its name, or its views and dataset. */
export function titleOf(experiment) {
  if (experiment.name) return experiment.name;
  return `${viewsInWords(experiment.spec.views)} on ${experiment.spec.dataset.name}`;
}

const CHIEF = ["sigma", "area", "recipe", "size", "distance", "stride", "space", "gap", "shared", "mode", "base_space"];

/** A view recipe by its kind and chief parameters. */
export function viewsInWords(views) {
  const chief = views.kind === "augment" && !views.recipe ? ["crop_scale_min", "jitter"] : CHIEF;
  const named = chief.filter((key) => views[key] !== undefined && views[key] !== null);
  const parts = named.map((key) => `${key === "sigma" ? "σ" : key.replaceAll("_", " ")} ${inWords(views[key])}`);
  return [views.kind.replaceAll("_", " "), ...parts].join(", ");
}
