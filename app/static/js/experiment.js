/** An experiment: how far it is, what it measures while it trains, and what it found. */

import { follow, get, getText, pages, post, remove } from "./api.js";
import { chart, linesOf } from "./charts.js";
import {
  axisLabel,
  axisName,
  byId,
  bytes,
  duration,
  fill,
  h,
  iNce,
  inWords,
  LOW,
  number,
  score,
  scoreInterval,
  titleOf,
  viewsInWords,
  when,
  whenChanged,
} from "./dom.js";
import {
  ACTIVE,
  action,
  download,
  facts,
  jsonDetails,
  progressBar,
  stageInWords,
  STAGES,
  state,
  stateTeller,
  table,
} from "./parts.js";
import { pictureOf } from "./views.js";

const id = byId("experiment").dataset.id;
const base = `/v1/experiments/${id}`;
const sweepId = /^swp_[0-9a-f]{32}$/.exec(new URLSearchParams(location.search).get("sweep") ?? "")?.[0];
const tellState = stateTeller("Experiment");
const KINDS = { lower: "lower bound", upper: "upper bound", neither: "no bound" };

const showStatus = whenChanged((experiment, membership) => {
  const moves = ACTIVE.includes(experiment.state);
  const { step, total } = experiment.progress;
  const words = experiment.state === "running" || experiment.state === "cancelling" ? stageInWords(experiment.progress) : "";
  const retried = async () => {
    const answer = await (await post(`${base}/retry`, undefined, { once: true })).json();
    location.assign(`/experiments/${answer.id}`);
  };
  const leave = async () => {
    await remove(base);
    location.assign("/");
  };
  fill(
    byId("status"),
    h(
      "div",
      { class: "status" },
      state(experiment.state),
      experiment.state === "running" ? progressBar(total ? step / total : 0, words) : null,
      h("span", { class: "words" }, words),
      experiment.progress.rate && moves ? h("span", { class: "words" }, `${number(experiment.progress.rate, 1)} steps/s`) : null,
      membership?.reused
        ? h("span", { class: "words" }, "reused: it was finished before this sweep, and not trained again")
        : null,
    ),
    experiment.error
      ? h("div", { class: "failure" }, h("strong", {}, experiment.error.code), " ", experiment.error.message)
      : null,
    h(
      "div",
      { class: "actions" },
      moves && experiment.state !== "cancelling"
        ? action("cancel", "Cancel", () => post(`${base}/cancel`).then(look), { confirm: "Cancel this experiment?" })
        : null,
      ["failed", "cancelled"].includes(experiment.state) ? action("retry", "Retry", retried) : null,
      h("a", { class: "button", href: `/new?from=${id}` }, "Use as a start"),
      moves || sweepId
        ? null
        : action("delete", "Delete", leave, { kind: "danger", confirm: "Delete this experiment and its files?" }),
    ),
  );
  byId("name").textContent = titleOf(experiment);
  document.title = `${titleOf(experiment)} · Sweetspot`;
});

const showCrumbs = whenChanged((sweep) => {
  const axis = sweep.spec.axis;
  const own = sweep.experiments.find((member) => member.id === id);
  const siblings = own ? sweep.experiments.filter((member) => member.index === own.index) : [];
  fill(
    byId("crumbs"),
    h("a", { href: "/" }, "Results"),
    " › ",
    h("a", { href: `/sweeps/${sweep.id}` }, sweep.name || "Sweep"),
    own ? ` › ${axisName(axis.path)} = ${axisLabel(axis, own.index, own.value)} · ` : null,
    siblings.map((member, index) => [
      index ? " · " : null,
      member.id === id
        ? h("span", { "aria-current": "page" }, `seed ${member.seed}`)
        : h("a", { href: `/experiments/${member.id}?sweep=${sweep.id}` }, `seed ${member.seed}`),
    ]),
  );
});

// Results --------------------------------------------------------------------------------------------------------------------

const nats = (estimate) => (estimate ? `${estimate.saturated ? "≥ " : ""}${number(estimate.value, 3)}` : "–");
const withError = (estimate) =>
  estimate ? [nats(estimate), " ", h("span", { class: "interval" }, `± ${number(estimate.stderr, 3)}`)] : "–";

const showResults = whenChanged((results, spec) => {
  if (!results) return fill(byId("results"));
  const first = results.mi.infonce;
  const names = spec.tasks.map((task) => task.name).filter((name) => results.tasks[name]);
  fill(
    byId("results"),
    h(
      "section",
      { "aria-labelledby": "results-title" },
      h("h2", { id: "results-title", class: "hidden-words" }, "Results"),
      h(
        "dl",
        { class: "headline" },
        h(
          "div",
          {},
          h("dt", {}, iNce(), " (nats)"),
          h(
            "dd",
            {},
            nats(first),
            h(
              "small",
              {},
              `± ${number(first.stderr, 3)}, ceiling log K ${number(first.log_k, 2)}`,
              cautionOf(first) ? `: ${cautionOf(first)}` : "",
            ),
          ),
        ),
        names.slice(0, 3).map((name) => {
          const task = results.tasks[name];
          return h(
            "div",
            {},
            h("dt", {}, name),
            h(
              "dd",
              {},
              score(task.value, task.metric),
              h("small", {}, `${scoreInterval(task.ci, task.metric)}, chance ${score(task.chance, task.metric)}`),
            ),
          );
        }),
      ),
      informationGroup(results.information),
      miGroup(results.mi, spec.mi.estimators),
      tasksGroup(results.tasks, names),
      qualityGroup(results.quality),
      learnedGroup(results.views),
      h("details", { id: "timing" }, h("summary", {}, "Time and hardware"), h("div", { class: "inside" }, timing(results))),
    ),
  );
});

const cautionOf = ({ saturated, low }) => (saturated ? "saturated, read “at least”" : low ? LOW : "");

const group = (title, ...children) => h("div", { class: "group" }, h("h3", {}, title), children);

function miGroup(mi, asked) {
  const order = [...new Set(["infonce", ...asked, ...Object.keys(mi)])].filter((name) => mi[name]);
  const columns = [
    { title: "estimator", cell: ([name]) => name },
    { title: "I(v1; v2) (nats)", numeric: true, cell: ([, found]) => withError(found) },
    { title: "kind", cell: ([, found]) => KINDS[found.kind] },
    {
      title: "log K",
      numeric: true,
      cell: ([, found]) => (found.log_k === null || found.log_k === undefined ? "–" : number(found.log_k, 2)),
    },
    {
      title: "caution",
      cell: ([, found]) => found.caution ?? cautionOf(found),
    },
  ];
  return group(
    "Mutual information of the views",
    table(
      "Estimates of the mutual information",
      columns,
      order.map((name) => [name, mi[name]]),
    ),
  );
}

const missingInWords = ({ holds, missing_v1: first, missing_v2: second, x }) =>
  `${holds ? "yes" : "no"}: v1 misses ${nats(first)}, v2 ${nats(second)} of ${nats(x)}`;

function informationGroup(information) {
  if (!information) return null;
  const { total, task, nuisance, probe, missing } = information;
  if (!task || !nuisance) return null;
  const about = Math.max(task.value, 0);
  const rest = Math.max(nuisance.value, 0);
  const share = about + rest > 0 ? about / (about + rest) : 0;
  const bar = h(
    "div",
    { class: "split", role: "img", "aria-label": `${number(about, 2)} nats about the label, ${number(rest, 2)} nats nuisance` },
    h("div", { class: "about", style: { width: `${100 * share}%` } }, share > 0.25 ? `about the label ${number(about, 2)}` : ""),
    h("div", { class: "nuisance", style: { width: `${100 * (1 - share)}%` } }, share < 0.75 ? `nuisance ${number(rest, 2)}` : ""),
  );
  const probed = probe
    ? [
        ["v1", probe.v1],
        ["v2", probe.v2],
        ["both", probe.both],
      ]
    : [];
  return group(
    "What the views share",
    bar,
    facts([
      [`Total I(v1; v2), on ${information.items} items`, withError(total)],
      [`About the label${(information.target ?? "label") === "label" ? "" : ` (${information.target})`}`, withError(task)],
      ["Nuisance I(v1; v2 | y)", withError(nuisance)],
      ...probed.map(([name, found]) => [`Probe I_V(${name}; y) of H(y) = ${number(probe.entropy, 2)}`, withError(found)]),
      ...(missing ? [["The views keep what the item says of its label", missingInWords(missing)]] : []),
    ]),
  );
}

function tasksGroup(tasks, names) {
  if (!names.length) return null;
  const columns = [
    { title: "task", cell: (name) => name },
    {
      title: "score",
      numeric: true,
      cell: (name) => [
        score(tasks[name].value, tasks[name].metric),
        " ",
        h("span", { class: "interval" }, scoreInterval(tasks[name].ci, tasks[name].metric)),
      ],
    },
    {
      title: "metric",
      cell: (name) => (tasks[name].metric === "pixels" ? "mean distance in px, less is better" : tasks[name].metric),
    },
    { title: "chance", numeric: true, cell: (name) => score(tasks[name].chance, tasks[name].metric) },
    { title: "supervised", numeric: true, cell: (name) => score(tasks[name].supervised, "accuracy") },
    {
      title: "per class",
      cell: (name) =>
        tasks[name].per_class
          ? tasks[name].per_class.map((value) => (value === null ? "–" : number(100 * value, 0))).join(" ")
          : "",
    },
  ];
  return group("Tasks", table("Results of the tasks", columns, names));
}

function qualityGroup(quality) {
  if (!quality) return null;
  const words = {
    lidar: ["LiDAR", "dimensions that tell items apart; more is better"],
    rankme: ["RankMe", "dimensions in use; more is better"],
    alignment: ["Alignment", "squared distance of a pair; less is better"],
    uniformity: ["Uniformity", "log potential of strangers; less is better"],
    alpha_req: ["alpha-ReQ", "decay of the spectrum; nearer to 1 is better"],
  };
  const known = Object.entries(words).filter(([name]) => quality[name] !== null && quality[name] !== undefined);
  return group(
    "Quality without labels",
    facts(known.map(([name, [title, note]]) => [title, [number(quality[name], 3), h("div", { class: "note" }, note)]])),
  );
}

function learnedGroup(views) {
  if (!views) return null;
  return group(
    "Learned views",
    facts([
      ["Steps", String(views.steps)],
      ["I_NCE as the game reads it (nats)", views.i_nce === null ? null : number(views.i_nce, 3)],
      ["Largest error of the inverse", views.inverse_error.toExponential(1)],
      [
        "log|det J| (nats)",
        `${number(views.log_abs_det.mean, 2)}, from ${number(views.log_abs_det.min, 2)} to ${number(views.log_abs_det.max, 2)}`,
      ],
    ]),
  );
}

function timing({ timing: times, hardware }) {
  const seconds = Object.entries(times).map(([name, value]) => [
    name.replaceAll("_", " "),
    typeof value === "number" ? (name.includes("per_second") ? number(value, 0) : duration(value)) : inWords(value),
  ]);
  const machine = Object.entries(hardware ?? {}).map(([name, value]) => [name.replaceAll("_", " "), inWords(value)]);
  return facts([...seconds, ...machine]);
}

// Training -------------------------------------------------------------------------------------------------------------------

const SORTS = [
  ["Loss", (name) => name === "loss", { title: "Loss (nats)" }],
  [
    "Accuracy while training",
    (name) => name === "knn_accuracy" || name === "probe_accuracy",
    { title: "Accuracy", percent: true },
  ],
  ["Learning rate", (name) => name === "learning_rate", { title: "Learning rate" }],
];
const NAMES = { knn_accuracy: "online kNN", probe_accuracy: "online linear probe" };
const figures = new Map();

function drawMetrics(title, rows, { title: axis, percent = false }, note) {
  if (!figures.has(title)) {
    const node = h("div", { class: "plot" });
    const numbers = h("div", {});
    const details = h("details", { id: `numbers-${title.replaceAll(" ", "-")}` }, h("summary", {}, "As a table"), numbers);
    byId("metrics").append(
      h("figure", { class: "chart" }, h("h3", {}, title), node, note ? h("figcaption", {}, note) : null, details),
    );
    figures.set(title, { figure: chart(node), numbers });
  }
  const { figure, numbers } = figures.get(title);
  const last = rows.at(-1);
  const inUnit = (value) => (percent ? score(value, "accuracy") : brief(value));
  figure.draw(
    linesOf(rows, axis, { percent }),
    `${title} by step, last ${inUnit(last.value)} at step ${last.step}; a table follows`,
  );
  const columns = [
    { title: "step", cell: (row) => row.step },
    { title: "metric", cell: (row) => row.name },
    { title: "value", numeric: true, cell: (row) => inUnit(row.value) },
  ];
  fill(numbers, table(`${title} by step`, columns, rows));
}

const brief = (value) => String(Number(value.toPrecision(4)));

const showMetrics = whenChanged((data, moves) => {
  const rows = data
    .filter((row) => row.value !== null)
    .map((row) => ({ ...row, name: NAMES[row.name] ?? row.name, key: row.name }));
  if (!rows.length)
    return fill(byId("metrics"), h("p", { class: "note" }, moves ? "Nothing is measured yet." : "Nothing was measured."));
  if (!figures.size) fill(byId("metrics"));
  for (const [title, belongs, options] of SORTS) {
    const found = rows.filter((row) => belongs(row.key));
    if (found.length && title !== "Learning rate")
      drawMetrics(
        title,
        found,
        options,
        options.percent ? "On training items that are set apart; no held-out item is looked at." : null,
      );
  }
  for (const name of new Set(rows.map((row) => row.key))) {
    if (SORTS.some(([, belongs]) => belongs(name))) continue;
    drawMetrics(
      name.replaceAll("_", " "),
      rows.filter((row) => row.key === name),
      { title: name.replaceAll("_", " ") },
    );
  }
});

// The rest -------------------------------------------------------------------------------------------------------------------

const showViews = whenChanged((url, views) => {
  if (!url) return fill(byId("views"));
  fill(
    byId("views"),
    h(
      "section",
      { "aria-labelledby": "views-title" },
      h("h2", { id: "views-title" }, "Views"),
      h("p", { class: "note" }, "Pairs v1 | v2 as the encoder saw them."),
      h("div", { class: "views-picture" }, h("img", { src: url, alt: `View pairs: ${viewsInWords(views)}` })),
    ),
  );
});

const showArtifacts = whenChanged((artifacts, moves) => {
  if (!artifacts.length)
    return fill(
      byId("artifacts"),
      h("p", { class: "note" }, moves ? "Files are kept once it has succeeded." : "It left no files."),
    );
  const columns = [
    {
      title: "file",
      cell: (artifact) => h("a", { href: artifact.url, download: artifact.name, id: `f-${artifact.name}` }, artifact.name),
    },
    { title: "type", cell: (artifact) => artifact.media_type },
    { title: "size", numeric: true, cell: (artifact) => bytes(artifact.size) },
    { title: "SHA-256", cell: (artifact) => h("code", { title: artifact.sha256 }, `${artifact.sha256.slice(0, 12)}…`) },
  ];
  fill(
    byId("artifacts"),
    table("Files", columns, artifacts),
    h(
      "div",
      { class: "chips" },
      download(base, "Experiment as JSON", "experiment.json"),
      download(`${base}/metrics`, "Metrics as JSON", "metrics.json"),
      download(`${base}/reproduce`, "How to reproduce it", "reproduce.json"),
    ),
  );
});

const TOLD = { worker: "by", retry_of: "a retry of", waits_for: "waits for", dataset: "on" };

function eventInWords(type, name, value) {
  if (name === "stage") return STAGES[value] ?? value;
  return name === type ? inWords(value) : `${TOLD[name] ?? name.replaceAll("_", " ")} ${inWords(value)}`;
}

const showEvents = whenChanged((events) => {
  const words = (event) => {
    const { message, code, ...rest } = event.data;
    const said = Object.entries(rest).map(([name, value]) => eventInWords(event.type, name, value));
    if (message || code) said.unshift(message ? `${message}${code ? ` (${code})` : ""}` : code);
    return [
      h("strong", {}, event.type.replaceAll("_", " ")),
      said.length ? `: ${said.join(", ")}` : "",
      event.attempt > 1 ? ` (attempt ${event.attempt})` : "",
    ];
  };
  fill(
    byId("events"),
    h(
      "ol",
      { class: "timeline", tabindex: 0, "aria-label": "History" },
      events.map((event) => h("li", {}, when(event.at), h("span", {}, words(event)))),
    ),
  );
});

const showSpec = whenChanged((spec, experiment) => {
  fill(
    byId("spec"),
    h(
      "section",
      { "aria-labelledby": "spec-title" },
      h("h2", { id: "spec-title" }, "Specification"),
      facts([
        ["Dataset", `${spec.dataset.name}${spec.dataset.image_size ? `, ${spec.dataset.image_size} px` : ""}`],
        ["Views", viewsInWords(spec.views)],
        ["Method", spec.method.kind],
        ["Encoder", spec.encoder.kind],
        [
          "Pretraining",
          spec.pretrain.steps
            ? `${spec.pretrain.steps} steps of ${spec.pretrain.batch_size ?? "?"}`
            : spec.pretrain.epochs
              ? `${spec.pretrain.epochs} epochs`
              : null,
        ],
        ["Candidates K", spec.mi.k ? String(spec.mi.k) : null],
        ["Seed", String(spec.seed)],
        ["Tags", spec.tags.join(", ")],
        ["Attempts", String(experiment.attempt)],
        [
          "Retry of",
          experiment.retry_of
            ? h("a", { href: `/experiments/${experiment.retry_of}` }, `…${experiment.retry_of.slice(-8)}`)
            : null,
        ],
        ["Submitted", when(experiment.created_at)],
        ["Finished", experiment.finished_at ? when(experiment.finished_at) : null],
        ["Id", h("code", {}, id)],
      ]),
      jsonDetails("spec-json", "As JSON", spec),
    ),
  );
});

let attempt = 0;

async function showLogs() {
  const shown = byId("logs").querySelector("pre");
  const words = (await getText(`${base}/logs`)) || "It has printed nothing.";
  if (words === shown.textContent) return;
  const atEnd = shown.scrollTop + shown.clientHeight >= shown.scrollHeight - 8;
  shown.textContent = words;
  if (atEnd) shown.scrollTop = shown.scrollHeight;
}
byId("logs").addEventListener("toggle", () => byId("logs").open && showLogs());

async function history() {
  const events = [];
  for await (const event of pages(`${base}/events?limit=200`)) events.push(event);
  return events;
}

async function look() {
  const [experiment, sweep] = await Promise.all([get(base), sweepId ? get(`/v1/sweeps/${sweepId}`).catch(() => null) : null]);
  if (experiment.attempt !== attempt) {
    figures.clear();
    attempt = experiment.attempt;
  }
  const membership = sweep?.experiments.find((member) => member.id === id);
  tellState(experiment.state);
  if (sweep)
    showCrumbs({
      id: sweep.id,
      name: sweep.name,
      spec: sweep.spec,
      experiments: sweep.experiments.map(({ id: own, index, seed, value }) => ({ id: own, index, seed, value })),
    });
  showStatus(experiment, membership ? { reused: membership.reused } : null);
  showResults(experiment.results, experiment.spec);
  showSpec(experiment.spec, {
    attempt: experiment.attempt,
    retry_of: experiment.retry_of,
    created_at: experiment.created_at,
    finished_at: experiment.finished_at,
  });
  const [metrics, artifacts, events] = await Promise.all([get(`${base}/metrics`), get(`${base}/artifacts`), history()]);
  const moves = ACTIVE.includes(experiment.state);
  showMetrics(metrics.data, moves);
  showArtifacts(artifacts.data, moves);
  showEvents(events);
  showViews(artifacts.data.length ? await pictureOf(id) : null, experiment.spec.views);
  if (byId("logs").open) await showLogs();
  return moves;
}

follow(look, { quick: 1000, slow: 20000 });
