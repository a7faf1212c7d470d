/** Several sweeps' curves in one figure. */

import { follow, get, pages } from "./api.js";
import { chart, curvesOf, hoverCard } from "./charts.js";
import {
  axisName,
  byId,
  fill,
  h,
  iNce,
  inWords,
  marksInWords,
  METRICS,
  number,
  reading,
  score,
  scoreInterval,
  viewsInWords,
  whenChanged,
} from "./dom.js";
import { ACTIVE, choice, offer, state, table } from "./parts.js";
import { firstPicture } from "./views.js";

const SHAPES = { inverted_u: "inverted U", half_u: "half U" };
const MOST = 6;
const chosen = (new URLSearchParams(location.search).get("sweeps") ?? "")
  .split(",")
  .filter((id) => /^swp_[0-9a-f]{32}$/.test(id))
  .slice(0, MOST);
const owners = new Map();
const card = hoverCard((datum) => firstPicture(datum.experiments));
const figure = chart(byId("curves"), {
  point: card,
  pick: (datum) => location.assign(`/experiments/${datum.experiments[0]}?sweep=${owners.get(datum.experiments[0])}`),
});
let task = null;
const FIRST = "";
let shown = [];

const address = (ids) => (ids.length ? `/compare?sweeps=${ids.join(",")}` : "/compare");

/** Names that differ, since they tell curves apart. */
function names(sweeps) {
  const plain = sweeps.map((sweep) => sweep.name || `${axisName(sweep.spec.axis.path)} on ${sweep.spec.base.dataset.name}`);
  return plain.map((name, index) =>
    plain.filter((other) => other === name).length > 1 ? `${name} (…${sweeps[index].id.slice(-4)})` : name,
  );
}

const showChosen = whenChanged((rows, others) => {
  const add = h(
    "select",
    {
      id: "add",
      "aria-label": "Add a sweep",
      onchange: (event) => event.target.value && location.assign(address([...chosen, event.target.value])),
    },
    h("option", { value: "" }, "Add a sweep…"),
    others.map((sweep) => h("option", { value: sweep.id }, `${sweep.name || sweep.id} (${sweep.state})`)),
  );
  const columns = [
    { title: "Sweep", class: "title-cell", cell: (row) => h("a", { href: `/sweeps/${row.id}`, id: `s-${row.id}` }, row.name) },
    { title: "State", cell: (row) => state(row.state) },
    { title: "Setting", cell: (row) => row.setting.map((words) => h("div", { class: "note" }, words)) },
    {
      title: "",
      cell: (row) =>
        h("a", { href: address(chosen.filter((id) => id !== row.id)), "aria-label": `Remove ${row.name}` }, "Remove"),
    },
  ];
  fill(
    byId("chosen"),
    h(
      "div",
      { class: "group" },
      rows.length
        ? table("Sweeps that are compared", columns, rows)
        : h("div", { class: "empty" }, h("p", {}, "Choose the sweeps to compare.")),
      chosen.length < MOST ? h("p", { class: "row group" }, add) : null,
    ),
  );
});

function draw() {
  const available = [...new Set(shown.flatMap(({ curve }) => Object.keys(curve.verdicts)))];
  const judged = shown.filter(({ curve }) => Object.keys(curve.verdicts).length);
  if (task !== FIRST && !available.includes(task))
    task = available.find((name) => judged.every(({ curve }) => curve.verdicts[name])) ?? FIRST;
  const choose = (name) => {
    task = name;
    draw();
  };
  fill(
    byId("choices"),
    available.length > 1
      ? h(
          "div",
          { class: "group" },
          choice("task", "Task", [[FIRST, "the first of each"], ...available.map((name) => [name, name])], task, choose),
        )
      : null,
  );
  const known = judged.map(({ name, curve }) => ({ name, curve, task: task === FIRST ? Object.keys(curve.verdicts)[0] : task }));
  const measuredAs = known.map(({ curve, task: own }) => curve.verdicts[own]?.metric).find(Boolean);
  const series = known.filter(({ curve, task: own }) => curve.verdicts[own]?.metric === measuredAs);
  byId("figure").hidden = !series.length;
  if (!series.length)
    return fill(byId("table"), shown.length ? h("p", { class: "note" }, "None of these sweeps has a task measured yet.") : null);
  const metric = measuredAs;
  figure.draw(
    curvesOf(series, metric),
    `${task || "The first task of each"} against mutual information of ${series.length} sweeps; the table has the numbers`,
  );
  fill(
    byId("legend"),
    "Hollow marks are saturated: read “at least”. Rings are sweet spots. ",
    "Point at a mark for its view pairs, click it for its experiment.",
  );
  showTable(series, metric);
  showDownloads(series, metric);
}

function showTable(series, metric) {
  const verdicts = [
    { title: "Sweep", class: "title-cell", cell: ({ name }) => name },
    { title: "Task", cell: (one) => one.task },
    { title: "Shape", cell: (one) => SHAPES[verdict(one).shape] ?? verdict(one).shape },
    {
      title: "Sweet spot",
      cell: (one) => (verdict(one).sweet_spot ? `${axisName(one.curve.axis.path)} = ${verdict(one).sweet_spot.label}` : "–"),
    },
    { title: [iNce(), " there (nats)"], numeric: true, cell: (one) => number(verdict(one).sweet_spot?.i_nce, 2) },
    { title: metric === "pixels" ? "Least error" : "Best", numeric: true, cell: (one) => score(best(one, metric), metric) },
  ];
  const rows = points(series);
  const columns = [
    { title: "Sweep", class: "title-cell", cell: (row) => row.name },
    { title: "value", cell: (row) => row.point.label },
    {
      title: [iNce(), " (nats)"],
      numeric: true,
      cell: (row) => reading(row.point),
    },
    {
      title: METRICS[metric] ?? metric,
      numeric: true,
      cell: (row) => [score(row.found.value, metric), " ", h("span", { class: "interval" }, scoreInterval(row.found.ci, metric))],
    },
  ];
  fill(
    byId("table"),
    h("div", { class: "group" }, h("h2", {}, "Verdicts"), table("Verdicts", verdicts, series)),
    h(
      "div",
      { class: "group" },
      h("h2", {}, "Points"),
      table("Points of all curves", columns, rows),
      marksInWords(rows.map(({ point }) => point)),
    ),
  );
}

const points = (series) =>
  series.flatMap(({ name, curve, task: own }) =>
    curve.points
      .filter((point) => point.i_nce !== null && point.tasks[own])
      .map((point) => ({ name, path: curve.axis.path, task: own, point, found: point.tasks[own] })),
  );

const verdict = ({ curve, task: own }) => curve.verdicts[own];

function best({ curve, task: own }, metric) {
  const values = curve.points.filter((point) => point.tasks[own]).map((point) => point.tasks[own].value);
  return metric === "pixels" ? Math.min(...values) : Math.max(...values);
}

function showDownloads(series, metric) {
  const button = (words, act) => h("button", { type: "button", class: "chip", onclick: act }, words);
  const picture = async (form) => {
    if (form === "svg") return offer("comparison.svg", "image/svg+xml", await figure.file(760, (view) => view.toSVG()));
    const canvas = await figure.file(760, (view) => view.toCanvas(2));
    return canvas.toBlob((blob) => offer("comparison.png", "image/png", blob));
  };
  fill(
    byId("downloads"),
    h(
      "div",
      { class: "chips" },
      h("span", { class: "label" }, "Download"),
      button("JSON", () =>
        offer(
          "comparison.json",
          "application/json",
          JSON.stringify(
            series.map(({ name, curve }) => ({ name, curve })),
            null,
            2,
          ),
        ),
      ),
      button("CSV", () => offer("comparison.csv", "text/csv", asCsv(series, metric))),
      button("SVG", () => picture("svg")),
      button("PNG", () => picture("png")),
      button("Vega-Lite", () => offer("comparison.vl.json", "application/json", JSON.stringify(figure.specification(760)))),
    ),
  );
}

function asCsv(series, metric) {
  const cell = (value) => {
    const words = value === null || value === undefined ? "" : String(value);
    return /[",\n]/.test(words) ? `"${words.replaceAll('"', '""')}"` : words;
  };
  const head = [
    "sweep",
    "axis",
    "value",
    "label",
    "i_nce",
    "i_nce_low",
    "i_nce_high",
    "log_k",
    "saturated",
    "task",
    metric,
    `${metric}_low`,
    `${metric}_high`,
    "seeds",
    "experiments",
  ];
  const rows = points(series).map(({ name, path, task: own, point, found }) => [
    name,
    path,
    JSON.stringify(point.value),
    point.label,
    point.i_nce,
    point.i_nce_ci?.[0],
    point.i_nce_ci?.[1],
    point.log_k,
    point.saturated,
    own,
    found.value,
    found.ci?.[0],
    found.ci?.[1],
    found.seeds,
    point.experiments.join(" "),
  ]);
  return [head, ...rows].map((row) => row.map(cell).join(",")).join("\n") + "\n";
}

const showCurves = whenChanged((found) => {
  shown = found;
  draw();
});

const ASIDE = ["name", "tags", "priority", "limits", "spec_version"]; // change no number
const SHOWN = ["dataset.name", "dataset.image_size", "views.kind", "method.kind", "encoder.kind", "encoder.width", "mi.k"];
const LENGTH = ["pretrain.steps", "pretrain.epochs", "pretrain.batch_size"];

/** Dotted paths of an object's fields, with their values. */
function leaves(node, path = "") {
  if (node === null || typeof node !== "object" || Array.isArray(node)) return [[path, node]];
  return Object.entries(node).flatMap(([key, value]) => leaves(value, path ? `${path}.${key}` : key));
}

/** What is fixed in a sweep: its views, data, encoder, method and length, the K it was read with, and what else differs. */
function settingOf({ spec: { base, axis } }, curve, bases) {
  const { dataset, views, encoder, method, pretrain, mi } = base;
  const varies = (path) => axis.path === path || axis.path.startsWith(`${path}.`);
  const fixed = Object.fromEntries(Object.entries(views).filter(([key]) => !varies(`views.${key}`)));
  const ks = [...new Set(curve.points.filter((point) => point.log_k !== null).map((point) => Math.round(Math.exp(point.log_k))))];
  const size = dataset.image_size ? `${dataset.image_size} px` : null;
  const length = pretrain.steps ? `${pretrain.steps} steps` : pretrain.epochs ? `${pretrain.epochs} epochs` : "epochs by default";
  return [
    axis.path === "views" ? "views vary" : `views ${viewsInWords(fixed)}`,
    [
      axis.path === "dataset.name" ? "dataset varies" : dataset.name,
      size,
      axis.path === "encoder" ? "encoder varies" : [encoder.kind.replaceAll("_", " "), encoder.width].filter(Boolean).join(" "),
      axis.path === "method" ? "method varies" : method.kind,
    ],
    [
      varies("pretrain.steps") || varies("pretrain.epochs") ? "length varies" : length,
      `batch size ${varies("pretrain.batch_size") ? "varies" : (pretrain.batch_size ?? "by default")}`,
      `K ${ks.join(" or ") || mi.k || "not known yet"}`,
    ],
    differences(base, bases, varies),
  ]
    .map((part) => (Array.isArray(part) ? part.filter(Boolean).join(", ") : part))
    .filter(Boolean);
}

/** What is not named of a sweep's base yet and is not alike in all of them. */
function differences(base, bases, varies) {
  const fields = bases.map((one) => Object.fromEntries(leaves(one)));
  const alike = (path) => new Set(fields.map((own) => JSON.stringify(own[path] ?? null))).size === 1;
  const told = (path) => [...ASIDE, ...SHOWN, ...LENGTH].some((one) => path === one || path.startsWith(`${one}.`));
  const otherKind = (path) =>
    ["views", "method", "encoder"].some((part) => path.startsWith(`${part}.`) && !alike(`${part}.kind`));
  return leaves(base)
    .filter(([path, value]) => value !== null && !told(path) && !varies(path) && !otherKind(path) && !alike(path))
    .map(([path, value]) => `${path} ${inWords(value)}`);
}

async function others() {
  const found = [];
  for await (const sweep of pages("/v1/sweeps?limit=100")) {
    if (!chosen.includes(sweep.id)) found.push({ id: sweep.id, name: sweep.name, state: sweep.state });
    if (found.length === 100) break;
  }
  return found;
}

async function look() {
  const sweeps = (
    await Promise.all(
      chosen.map((id) => get(`/v1/sweeps/${id}`).catch((error) => (error.status === 404 ? null : Promise.reject(error)))),
    )
  ).filter(Boolean);
  const titles = names(sweeps);
  for (const sweep of sweeps) for (const member of sweep.experiments) owners.set(member.id, sweep.id);
  const curves = await Promise.all(sweeps.map((sweep) => get(`/v1/sweeps/${sweep.id}/curve.json`)));
  const bases = sweeps.map((sweep) => sweep.spec.base);
  const rows = sweeps.map((sweep, index) => ({
    id: sweep.id,
    name: titles[index],
    state: sweep.state,
    setting: settingOf(sweep, curves[index], bases),
  }));
  showChosen(rows, await others());
  showCurves(curves.map((curve, index) => ({ name: titles[index], curve })));
  return sweeps.some((sweep) => ACTIVE.includes(sweep.state));
}

follow(look, { quick: 3000, slow: 20000 });
