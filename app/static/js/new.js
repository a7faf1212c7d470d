/** The form: an experiment, a sweep or a preset, beside its views, its cost and its JSON. */

import { get, post, Problem } from "./api.js";
import { announce, axisName, byId, debounced, duration, fill, h, inWords } from "./dom.js";
import { asScalar, asText, Fields, marked, Store } from "./form.js";
import { choice } from "./parts.js";

const AXES = {
  noise: ["views.sigma", [0, 0.1, 0.2, 0.4, 0.7, 1, 1.6, 2.5]],
  crop: ["views.area", [0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1]],
  augment: ["views.crop_scale_min", [0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1]],
  patches: ["views.distance", [16, 32, 64, 128, 192, 256]],
  patch_grid: ["views.size", [8, 12, 16, 24]],
  color_split: ["views.space", ["rgb", "hsv", "lab", "yuv", "ydbdr"]],
  frequency: ["views.sigma", [0.3, 0.5, 0.7, 1, 1.5, 2.5]],
  temporal: ["views.gap", [1, 2, 4, 8]],
  factors: ["views.shared", [["digit"], ["background"], ["position"]]],
  learned: ["views.target_nats", [0.5, 1, 1.5, 2, 2.5]],
};
const PARTS = ["views", "method", "encoder", "pretrain", "mi"];
const START = {
  dataset: { name: "digits", image_size: 16 },
  views: { kind: "noise", sigma: 0.5 },
  pretrain: { steps: 300 },
  tasks: [{ kind: "classification", labels: 50 }],
};

const form = byId("form");
const json = byId("json");
const SAME = "The same specification; editing either changes the other.";
let unread = null;
let mode = "experiment";
let preset = null;
let errors = [];
let shownAt = "";
let catalogue;
let components;
let fields;

const store = new Store(structuredClone(START), (structural) => {
  if (structural) {
    refit();
    draw();
  }
  changed();
});

const basePath = () => (mode === "sweep" ? ["base"] : []);
const spec = () => (mode === "sweep" ? store.document.base : store.document);

// The document ---------------------------------------------------------------------------------------------------------------

async function choose(next) {
  if (next === "preset") await loadPresets();
  const document = store.document;
  if (mode !== next) {
    const single =
      mode === "experiment"
        ? document
        : mode === "sweep"
          ? { ...document.base, ...(document.name ? { name: document.name } : {}) }
          : structuredClone(START);
    if (next === "experiment") store.document = single;
    if (next === "sweep") {
      const { name, ...base } = single;
      const [path, values] = AXES[base.views?.kind] ?? ["views", []];
      store.document = { ...(name ? { name } : {}), base, axis: { path, values }, seeds: 3 };
    }
    if (next === "preset") store.document = {};
    mode = next;
  }
  errors = [];
  draw();
  changed();
}

/** An axis along a parameter that the chosen views do not have moves to one that they have. */
function refit() {
  const axis = mode === "sweep" ? store.document.axis : null;
  const own = axis?.path?.split(".").slice(0, 2).join(".");
  if (!own?.startsWith("views.") || axisPaths().includes(own)) return;
  const [path, values] = AXES[spec().views.kind] ?? ["views", []];
  store.document.axis = axis.search ? { path, search: { ...axis.search, ...rangeOf(values) } } : { path, values };
}

/** Where a search among such values would look. */
function rangeOf(values) {
  const above = values.filter((value) => typeof value === "number" && value > 0);
  if (above.length < 2) return { low: 0.1, high: 1 };
  const [low, high] = [Math.min(...above), Math.max(...above)];
  return { low, high, scale: high > 8 * low ? "log" : "linear" };
}

function changed() {
  if (document.activeElement !== json) writeJson();
  look();
}

function writeJson() {
  json.readOnly = mode === "preset"; // its own fields are few, and what it runs is more worth reading
  json.value = JSON.stringify(mode === "preset" ? chosenPreset().sweep : store.document, null, 2);
  tellUnread(null);
}

function readJson() {
  if (json.readOnly) return;
  let read;
  try {
    read = JSON.parse(json.value);
    if (read === null || typeof read !== "object" || Array.isArray(read)) throw new SyntaxError("a specification is an object");
  } catch (error) {
    return tellUnread(error.message);
  }
  const before = unread;
  tellUnread(null);
  if (before === null && JSON.stringify(read) === JSON.stringify(store.document)) return;
  mode = "base" in read || "axis" in read ? "sweep" : "experiment";
  store.document = read;
  draw();
  look();
}
const readSoon = debounced(readJson, 350);

/** While the JSON cannot be read, there is nothing that could be submitted or has a cost. */
function tellUnread(words) {
  unread = words;
  const said = words === null ? "" : `Not read: ${words}`;
  const note = mode === "preset" ? "The preset’s sweep at its standard size; edit it as a sweep to change it." : SAME;
  for (const [id, text] of Object.entries({
    "json-error": said,
    "json-note": said || note,
    "submit-note": said && "It cannot be submitted while the JSON cannot be read.",
  }))
    if (byId(id).textContent !== text) byId(id).textContent = text;
  if (words === null) {
    json.removeAttribute("aria-invalid");
    return byId("submit").removeAttribute("aria-disabled");
  }
  json.setAttribute("aria-invalid", "true");
  byId("submit").setAttribute("aria-disabled", "true");
  estimating?.abort();
  errors = [];
  showErrors();
  fill(byId("cost"), h("p", { class: "note" }, "Not known until the JSON can be read."));
}

// The form -------------------------------------------------------------------------------------------------------------------

const section = (title, pointer, ...children) =>
  h("fieldset", { data: { pointer } }, h("legend", {}, title), h("div", {}, children));

/** A part of the form that most leave as it is, folded to a line. */
const folded = (title, pointer, words, ...children) =>
  h(
    "fieldset",
    { class: "folded", data: { pointer }, "aria-label": title },
    h(
      "details",
      { id: `fold-${title.replaceAll(" ", "-")}` },
      h("summary", {}, title, h("small", {}, words)),
      h("div", {}, children),
    ),
  );

function draw() {
  const modes = [
    ["experiment", "One experiment"],
    ["sweep", "A sweep"],
    ["preset", "A preset"],
  ];
  const parts = [
    section("What to run", "", choice("mode", "Run", modes, mode, choose), mode === "preset" ? presetFields() : titleFields()),
  ];
  if (mode === "sweep") parts.push(section("Axis", "/axis", axisFields()));
  if (mode !== "preset") parts.push(...specFields());
  fill(form, parts);
  byId("submit").textContent = { experiment: "Submit the experiment", sweep: "Submit the sweep", preset: "Run the preset" }[mode];
  showErrors();
}

function titleFields() {
  const own = fields.plain({ $ref: mode === "sweep" ? "#/components/schemas/SweepSpec" : "#/components/schemas/ExperimentSpec" });
  return h(
    "div",
    { class: "fields" },
    fields.field("name", own.properties.name, ["name"]),
    mode === "sweep" && !store.document.axis?.search ? fields.field("seeds", own.properties.seeds, ["seeds"]) : null,
  );
}

function specFields() {
  const path = basePath();
  const own = components.ExperimentSpec.properties;
  const at = (name) => [...path, name];
  const pointer = (name) => `${path.length ? "/base" : ""}/${name}`;
  const union = (name, words) => fields.union(fields.plain(own[name]), at(name), words);
  const object = (name) => fields.object(fields.plain(own[name]), at(name));
  const tasks = fields.plain(own.tasks);
  return [
    section("Dataset", pointer("dataset"), datasetFields(at("dataset"))),
    section("Views", pointer("views"), union("views", "Family")),
    section(
      "Tasks",
      pointer("tasks"),
      spec().tasks ? null : h("p", { class: "about" }, "By default all that the dataset has targets for."),
      fields.list(tasks, at("tasks"), "task", { kind: "classification" }),
    ),
    folded("Method", pointer("method"), spec().method?.kind ?? own.method.default.kind, union("method", "Method")),
    folded(
      "Encoder",
      pointer("encoder"),
      (spec().encoder?.kind ?? "by default").replaceAll("_", " "),
      union("encoder", "Architecture"),
    ),
    folded(
      "Pretraining",
      pointer("pretrain"),
      lengthInWords(spec().pretrain ?? {}),
      h("p", { class: "about" }, marked(fields.plain(own.pretrain).description)),
      object("pretrain"),
    ),
    folded("Mutual information", pointer("mi"), (spec().mi?.estimators ?? ["infonce"]).join(", "), object("mi")),
    folded(
      "Seed and order",
      pointer("seed"),
      `seed ${spec().seed ?? 0}`,
      h(
        "div",
        { class: "fields" },
        ["seed", "priority", "tags"].map((name) => fields.field(name, own[name], at(name))),
        fields.field("seconds", fields.plain(own.limits).properties.seconds, [...at("limits"), "seconds"]),
      ),
    ),
  ];
}

const lengthInWords = ({ steps, epochs }) => (steps ? `${steps} steps` : `${epochs ?? 100} epochs`);

function datasetFields(path) {
  const own = fields.plain(components.ExperimentSpec.properties.dataset);
  const chosen = store.at([...path, "name"]);
  const { present, uploads } = catalogue;
  const known = present.some(({ name }) => name === chosen) || uploads.some(({ id }) => id === chosen);
  const select = h(
    "select",
    { id: "f-dataset-name", required: true, onchange: (event) => store.put([...path, "name"], event.target.value, true) },
    known || !chosen ? null : h("option", { value: chosen }, chosen),
    present.map(({ name, facts }) =>
      h("option", { value: name }, facts ? `${name} (${facts.layout}, ${facts.image_size} px)` : name),
    ),
    uploads.length
      ? h(
          "optgroup",
          { label: "Uploads" },
          uploads.map(({ id, name, state }) => h("option", { value: id }, `${name}${state === "ready" ? "" : ` (${state})`}`)),
        )
      : null,
  );
  select.value = chosen ?? "";
  const facts = present.find(({ name }) => name === chosen);
  const classes = facts?.facts?.classes ? `${facts.facts.classes} classes` : "";
  return [
    h(
      "div",
      { class: "fields" },
      h(
        "div",
        { class: "field", data: { pointer: `${mode === "sweep" ? "/base" : ""}/dataset/name` } },
        h("label", { for: select.id }, "Dataset"),
        select,
      ),
      fields.field("image_size", own.properties.image_size, [...path, "image_size"]),
    ),
    h("p", { class: "about" }, [facts?.description, classes].filter(Boolean).join("; ")),
    chosen === "moving_mnist"
      ? h(
          "div",
          { class: "fields" },
          ["digits", "backgrounds"].map((name) => fields.field(name, own.properties[name], [...path, name])),
        )
      : null,
  ];
}

/** What the chosen dataset has: its targets, and no place to find where it knows of none. */
function offered(path, options) {
  const { present, uploads } = catalogue;
  const chosen = spec()?.dataset?.name;
  const known = [...present, ...uploads].find(({ name, id }) => (id ?? name) === chosen)?.facts;
  if (!known) return options;
  const targets = { ...(known.classes ? { label: known.classes } : {}), ...known.factors };
  const there = (option) => {
    if (option === store.at(path)) return true; // what was asked for stays to be seen, and the API tells what is wrong with it
    if (path.at(-1) === "target") return option in targets;
    return !path.includes("tasks") || path.at(-1) !== "kind" || option !== "localization" || "position" in targets;
  };
  return options.filter(there);
}

/** Dotted paths of the spec that can be an axis, as the chosen kinds have them. */
function axisPaths() {
  const own = components.ExperimentSpec.properties;
  const paths = ["views", "method", "encoder", "dataset.name", "dataset.image_size"];
  for (const part of PARTS) {
    let schema = fields.plain(own[part]);
    if (schema.discriminator)
      schema = fields.plain({ $ref: schema.discriminator.mapping[spec()[part]?.kind ?? schema.default?.kind ?? "noise"] });
    for (const name of Object.keys(schema.properties ?? {})) if (name !== "kind") paths.push(`${part}.${name}`);
  }
  return paths;
}

function axisFields() {
  const own = components.Axis.properties;
  const axis = store.document.axis ?? {};
  const how = axis.search ? "search" : axis.ablate ? "ablate" : "values";
  const ways = [
    ["values", "At these values"],
    ...(own.search ? [["search", "Search for the peak"]] : []),
    ...(own.ablate ? [["ablate", "Leave out each operation"]] : []),
  ];
  const turn = (next) => {
    const [, values] = AXES[spec().views?.kind] ?? ["views", []];
    const axes = {
      values: { path: axis.path, values },
      search: { path: axis.path, search: rangeOf(axis.values ?? values) },
      ablate: { path: axis.path === "base" ? "base" : "views", ablate: true },
    };
    store.put(["axis"], axes[next], true);
  };
  const path = h("input", {
    id: "f-axis-path",
    list: "axis-paths",
    required: true,
    autocomplete: "off",
    value: axis.path ?? "",
    oninput: (event) => store.put(["axis", "path"], event.target.value.trim()),
  });
  const values = h("textarea", {
    id: "f-axis-values",
    rows: 2,
    value: valuesAsText(axis.values ?? []),
    "aria-describedby": "f-axis-values-help",
  });
  const doubt = h("p", { class: "doubt", role: "status" }, doubtOf(values.value));
  values.addEventListener("input", () => {
    doubt.textContent = doubtOf(values.value);
    store.put(["axis", "values"], valuesFromText(values.value));
  });
  const labels = h("input", {
    id: "f-axis-labels",
    autocomplete: "off",
    placeholder: "none",
    value: axis.labels?.join(", ") ?? "",
  });
  labels.addEventListener("input", () =>
    store.put(["axis", "labels"], labels.value.trim() ? labels.value.split(",").map((one) => one.trim()) : undefined),
  );
  return [
    choice("how", "It runs", ways, how, turn),
    h(
      "div",
      { class: "fields" },
      h(
        "div",
        { class: "field", data: { pointer: "/axis/path" } },
        h("label", { for: path.id }, "What varies"),
        path,
        h(
          "datalist",
          { id: "axis-paths" },
          axisPaths().map((one) => h("option", { value: one })),
        ),
        h("p", { class: "help" }, "Dotted path of any node of the specification, whole recipes included."),
      ),
      how === "values"
        ? [
            h(
              "div",
              { class: "field broad", data: { pointer: "/axis/values" } },
              h("label", { for: values.id }, "Values"),
              values,
              h(
                "p",
                { class: "help", id: "f-axis-values-help" },
                "Numbers with a decimal point, commas between them; recipes and lists as a JSON array.",
              ),
              doubt,
            ),
            h(
              "div",
              { class: "field broad", data: { pointer: "/axis/labels" } },
              h("label", { for: labels.id }, "Labels"),
              labels,
              h("p", { class: "help" }, "A name for each value, for figures."),
            ),
          ]
        : null,
    ),
    how === "search" ? fields.object(fields.plain(own.search), ["axis", "search"]) : null,
    how === "ablate" ? h("p", { class: "about" }, marked(own.ablate.description)) : null,
  ];
}

const valuesAsText = (values) =>
  values.every((value) => typeof value !== "object" || value === null) ? asText(values) : JSON.stringify(values);

function valuesFromText(words) {
  if (words.trim().startsWith("[")) {
    try {
      return JSON.parse(words);
    } catch {
      return words;
    }
  }
  return words
    .split(",")
    .map((part) => part.trim())
    .filter(Boolean)
    .map(asScalar);
}

const HOW = "write numbers with a decimal point, commas between them";

/** What looks as if it were not read as it was meant. */
function doubtOf(words) {
  const values = valuesFromText(words);
  if (!Array.isArray(values)) return `Not read as a JSON array: ${HOW}, or mend the array.`;
  if (words.trim().startsWith("[")) return "";
  const odd = values.find((value) => typeof value === "string" && /^[-+.]?\d/.test(value));
  if (odd !== undefined) return `“${odd}” is no number: ${HOW}.`;
  const twice = values.find((value, index) => values.indexOf(value) < index);
  if (twice !== undefined) return `${inWords(twice)} stands there twice: ${HOW}.`;
  const commas = /\d,\d/.test(words) && /\d,\s/.test(words) && !words.includes(".");
  return commas ? `Read as ${values.map(inWords).join("; ")}: ${HOW}.` : "";
}

/** The sizes that a preset has, with what each takes, and in what the chosen one is not as published. */
function sizeFields(sizes) {
  const size = store.document.size ?? "standard";
  const words = ([name, { cost, trainings }]) =>
    `${name}: ${trainings} training${trainings === 1 ? "" : "s"}${cost ? `, ${duration(cost.seconds)}` : ""}`;
  const takes = sizes[size];
  const notes = [takes?.reason, takes?.differs ? `Not as published: ${takes.differs}.` : null].filter(Boolean);
  return h(
    "div",
    { data: { pointer: "/size" } },
    choice(
      "size",
      "Size",
      Object.entries(sizes).map((one) => [one[0], words(one)]),
      size,
      (name) => store.put(["size"], name === "standard" ? undefined : name, true),
    ),
    notes.map((note) => h("p", { class: "about" }, note)),
  );
}

const chosenPreset = () => catalogue.presets.find(({ name }) => name === preset) ?? catalogue.presets[0];

function presetFields() {
  const own = components.PresetRun.properties;
  const chosen = chosenPreset();
  preset = chosen.name;
  const select = h(
    "select",
    {
      id: "f-preset",
      onchange: (event) => {
        preset = event.target.value;
        delete store.document.size;
        draw();
        changed();
      },
    },
    catalogue.presets.map(({ name, sweep }) => h("option", { value: name }, `${sweep.name} (${name})`)),
  );
  select.value = preset;
  const take = h(
    "button",
    {
      type: "button",
      id: "take-preset",
      class: "quiet",
      onclick: () => {
        mode = "sweep";
        store.document = structuredClone(chosen.sweep);
        errors = [];
        draw();
        changed();
      },
    },
    "Edit it as a sweep",
  );
  return [
    h("div", { class: "field" }, h("label", { for: select.id }, "Preset"), select),
    h("p", { class: "about" }, chosen.description),
    chosen.sizes && own.size ? sizeFields(chosen.sizes) : null,
    h(
      "div",
      { class: "fields" },
      Object.keys(own).map((name) => (name === "size" ? null : fields.field(name, own[name], [name]))),
    ),
    chosen.paper ? h("p", { class: "about" }, `Published: ${chosen.paper.finding} (${chosen.paper.source})`) : null,
    h("p", { class: "row" }, take),
  ];
}

// Views, cost and problems ---------------------------------------------------------------------------------------------------

const target = () =>
  mode === "preset" ? `/v1/presets/${encodeURIComponent(preset)}/run` : mode === "sweep" ? "/v1/sweeps" : "/v1/experiments";
let estimating = null;
let previewing = null;
let lastPreview = "";

const trainingsInWords = (count) => (count === 1 ? "One training" : `${count} trainings one after another`);

async function estimate() {
  estimating?.abort();
  if (unread !== null) return;
  estimating = new AbortController();
  const { signal } = estimating;
  try {
    const { cost } = await (await post(`${target()}?dry_run=true`, store.document, { signal })).json();
    errors = [];
    fill(
      byId("cost"),
      h("p", { class: "big" }, `about ${duration(cost.seconds)}`),
      h("p", { class: "note" }, `${trainingsInWords(cost.trainings)} on one worker; from ${cost.basis}.`),
    );
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Problem)) throw error;
    const fits = NOT_OF_THE_SPEC.has(error.status);
    errors = error.errors.length ? error.errors : fits ? [] : [{ pointer: "", message: error.message }];
    fill(byId("cost"), h("p", { class: "note" }, fits ? marked(error.message) : "Not known until the specification fits."));
  }
  showErrors();
}

const baseViews = () => (mode === "preset" ? chosenPreset().sweep.base : spec());

/** The dataset and views to show, at a value of the axis where the views vary along it. */
function pictured() {
  const { dataset, views } = structuredClone(baseViews()) ?? {};
  const axis = mode === "preset" ? chosenPreset().sweep.axis : store.document.axis;
  const shown = { dataset, views };
  if (mode === "experiment" || !axis?.path?.startsWith("views") || !Array.isArray(axis.values) || !axis.values.length)
    return { shown, options: [] };
  const options = axis.values.map((value, index) => axis.labels?.[index] ?? inWords(value));
  const at = shownAt === "" ? Math.floor(axis.values.length / 2) : Math.min(Number(shownAt), axis.values.length - 1);
  const keys = axis.path.split(".");
  if (keys.length === 1) shown.views = axis.values[at];
  else if (shown.views) {
    const holder = keys.slice(0, -1).reduce((node, key) => (node[key] ??= {}), shown);
    holder[keys.at(-1)] = axis.values[at];
  }
  return { shown, options, at, name: axisName(axis.path) };
}

async function preview() {
  const { shown, options, at, name } = pictured();
  if (mode === "preset" && store.document.dataset) shown.dataset = { name: store.document.dataset };
  const asked = JSON.stringify([shown, options]);
  if (asked === lastPreview) return;
  lastPreview = asked;
  previewing?.abort();
  previewing = new AbortController();
  const { signal } = previewing;
  const place = byId("preview");
  place.setAttribute("aria-busy", "true");
  const chooser = options.length
    ? h(
        "p",
        { class: "field" },
        h("label", { for: "preview-at" }, `At ${name} =`),
        h(
          "select",
          {
            id: "preview-at",
            onchange: (event) => {
              shownAt = event.target.value;
              preview();
            },
          },
          options.map((words, index) => h("option", { value: index, selected: index === at }, words)),
        ),
      )
    : null;
  const say = (...content) => {
    fill(place, chooser, content);
    place.removeAttribute("aria-busy");
  };
  if (!place.querySelector("img")) fill(place, chooser, h("p", { class: "note" }, "Making view pairs…"));
  try {
    const picture = await made(shown, signal);
    if (!picture) return say(h("p", { class: "note" }, "No worker has made the preview yet; is one running?"));
    const url = URL.createObjectURL(picture);
    const old = place.querySelector("img")?.src;
    if (old) URL.revokeObjectURL(old);
    const image = h("img", { src: url, alt: `View pairs, v1 beside v2: ${inWords(shown.views)}` });
    say(
      h("a", { href: url, target: "_blank", title: "At full size" }, image),
      h("p", { class: "note" }, "Pairs v1 | v2 as the encoder would receive them."),
    );
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Problem)) throw error;
    say(h("p", { class: "note" }, `No preview: ${error.message}`));
  }
}

/** A preview's picture, waited for as long as a worker may take to begin. */
async function made(asked, signal) {
  let response = await post("/v1/previews", asked, { signal });
  for (let tries = 0; response.status === 202 && tries < 6; tries += 1) {
    response = await fetch(response.headers.get("Location"), { headers: { Prefer: "wait=10" }, signal, cache: "no-store" });
    if (!response.ok) throw new Problem(response.status, await response.json());
  }
  return response.status === 200 ? response.blob() : null;
}

const isUnknown = (message) => message === "unknown field";

/** The fields that a problem is about: the one that its pointer names, or the nearest around it, or none. */
function fieldsOf({ pointer, message }) {
  if (isUnknown(message)) return [];
  const at = (one) => form.querySelector(`[data-pointer="${CSS.escape(one)}"]`);
  const several = {
    "/axis": /^labels/i.test(message) ? ["/axis/labels"] : ["/axis/values"],
    "/axis/search": ["/axis/search/low", "/axis/search/high"],
  };
  for (let near = pointer; near; near = near.slice(0, near.lastIndexOf("/"))) {
    const found = (several[near] ?? [near]).map(at).filter(Boolean);
    if (found.length) return found;
  }
  return [];
}

/** A single input and what belongs to it, unlike a part of the form. */
const isField = (found) => found.matches(".field:not(fieldset)");

function unfold(field) {
  for (
    let fold = field.closest("details") ?? field.querySelector(":scope > details");
    fold;
    fold = fold.parentElement.closest("details")
  )
    fold.open = true;
}

/** Answers that find no fault with what was asked: a state, a key, a limit or a server forbids it now. */
const NOT_OF_THE_SPEC = new Map([
  [403, "This key may not do that"],
  [409, "This cannot be run now"],
  [429, "Not now"],
  [503, "Not now"],
]);

function showErrors(status) {
  for (const old of form.querySelectorAll(".error")) old.remove();
  for (const old of form.querySelectorAll("[aria-invalid]")) old.removeAttribute("aria-invalid");
  const items = errors.map(({ pointer, message }, index) => {
    const found = fieldsOf({ pointer, message });
    const [field] = found;
    const said = isUnknown(message) ? `there is no field “${pointer.split("/").pop()}”` : message;
    if (!field) return h("li", {}, pointer ? h("code", {}, pointer) : null, marked(pointer ? `: ${said}` : said));
    const words = h("p", { class: "error", id: `error-${index}` }, marked(said));
    if (isField(field)) field.append(words);
    else (field.querySelector(":scope > legend, :scope > details > summary") ?? field.firstElementChild).after(words);
    for (const one of found.filter(isField)) {
      const control = one.querySelector("input, select, textarea");
      control?.setAttribute("aria-invalid", "true");
      control?.setAttribute("aria-errormessage", words.id);
    }
    unfold(field);
    const control = field.querySelector("input, select, textarea");
    const open = (event) => {
      event.preventDefault();
      unfold(field);
      control?.focus();
    };
    return h("li", {}, h("a", { href: `#${control?.id ?? ""}`, onclick: open }, pointer), marked(`: ${said}`));
  });
  fill(
    byId("problems"),
    items.length ? h("div", { class: "failure" }, h("strong", {}, NOT_OF_THE_SPEC.get(status) ?? "This cannot be run as it is"), h("ul", {}, items)) : null,
  );
}

const look = debounced(() => {
  estimate();
  preview();
}, 450);

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (unread !== null) return json.focus();
  byId("submit").disabled = true;
  try {
    const answer = await (await post(target(), store.document, { once: true })).json();
    announce("Submitted");
    location.assign(mode === "experiment" ? `/experiments/${answer.id}` : `/sweeps/${answer.id}`);
  } catch (error) {
    byId("submit").disabled = false;
    if (!(error instanceof Problem)) throw error;
    errors = error.errors.length ? error.errors : [{ pointer: "", message: error.message }];
    showErrors(error.status);
    (form.querySelector("[aria-invalid]") ?? byId("problems")).focus();
  }
});
json.addEventListener("input", readSoon);
json.addEventListener("blur", () => {
  readJson();
  if (unread === null) writeJson();
});
byId("copy-json").addEventListener("click", async () => {
  json.select();
  try {
    await navigator.clipboard.writeText(json.value);
    announce("Copied");
  } catch {
    announce("Selected: copy it with the keyboard");
  }
});

// The start ------------------------------------------------------------------------------------------------------------------

/** Presets are asked for once somebody wants one, for they take long to list. */
async function loadPresets() {
  catalogue.presets ??= (await get("/v1/catalog/presets")).data;
}

async function origin() {
  const query = new URLSearchParams(location.search);
  const from = query.get("from") ?? "";
  if (query.get("preset")) {
    await loadPresets();
    [mode, preset, store.document] = ["preset", query.get("preset"), {}];
  } else if (/^exp_[0-9a-f]{32}$/.test(from)) {
    const { spec: found, name } = await get(`/v1/experiments/${from}`);
    store.document = structuredClone(found);
    fill(
      byId("origin"),
      "Begins as ",
      h("a", { href: `/experiments/${from}` }, name || "an experiment"),
      ", with everything resolved as it was run.",
    );
  } else if (/^swp_[0-9a-f]{32}$/.test(from)) {
    const { spec: found, name } = await get(`/v1/sweeps/${from}`);
    [mode, store.document] = ["sweep", structuredClone(found)];
    if (!found.axis.search) delete store.document.axis.search;
    else delete store.document.axis.values;
    if (!found.axis.labels) delete store.document.axis.labels;
    if (!found.axis.ablate) delete store.document.axis.ablate;
    else for (const made of ["values", "labels"]) delete store.document.axis[made];
    fill(byId("origin"), "Begins as ", h("a", { href: `/sweeps/${from}` }, name || "a sweep"), ", as it was run.");
  }
}

const [document_, datasets, uploads] = await Promise.all([
  get("/openapi.json"),
  get("/v1/catalog/datasets"),
  get("/v1/datasets?limit=200"),
]);
components = document_.components.schemas;
catalogue = { present: datasets.data.filter(({ present }) => present), presets: null, uploads: uploads.data };
fields = new Fields(components, store, offered);
try {
  await origin();
} catch (error) {
  if (!(error instanceof Problem)) throw error;
  fill(byId("origin"), `What it should begin as is not there: ${error.message}`);
}
draw();
changed();
