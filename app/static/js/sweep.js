/** A sweep: its curve grows point by point while its experiments finish. */

import { follow, get, post, remove } from "./api.js";
import { chart, curveOf, hoverCard, informationOf, seedsInWords, splitOf } from "./charts.js";
import {
  announce,
  axisLabel,
  axisName,
  byId,
  duration,
  fill,
  h,
  iNce,
  inWords,
  interval,
  marksInWords,
  number,
  reading,
  score,
  scoreInterval,
  short,
  when,
  whenChanged,
} from "./dom.js";
import {
  ACTIVE,
  action,
  choice,
  download,
  facts,
  jsonDetails,
  progressBar,
  stageInWords,
  state,
  stateTeller,
  table,
} from "./parts.js";
import { firstPicture } from "./views.js";

const id = byId("sweep").dataset.id;
const base = `/v1/sweeps/${id}`;
const REGIMES = {
  missing_information: "missing information",
  sweet_spot: "sweet spot",
  excess_noise: "excess noise",
  unknown: "–",
};
const experimentUrl = (experiment) => `/experiments/${experiment}?sweep=${id}`;
const card = hoverCard((datum) => firstPicture(datum.experiments));
const figure = chart(byId("curve"), { point: card, pick: (datum) => location.assign(experimentUrl(datum.experiments[0])) });
const tellState = stateTeller("Sweep");
let split = null;
let task = new URLSearchParams(location.search).get("task");
let curve = null;
let measured = null;

function showStatus(sweep) {
  const { step, total, eta_s: eta } = sweep.progress;
  const moves = ACTIVE.includes(sweep.state);
  const counts = Object.entries(sweep.counts).filter(([name, count]) => count && name !== "total");
  const words = counts.map(([name, count]) => `${count} ${name}`).join(", ");
  const left = moves && eta ? `, ${duration(eta)} left` : "";
  const again = sweep.counts.failed + sweep.counts.cancelled;
  const brokenOff = ["cancelled", "failed"].includes(sweep.search?.reason);
  const leave = async () => {
    await remove(base);
    location.assign("/");
  };
  fill(
    byId("status"),
    h(
      "div",
      { class: "status" },
      state(sweep.state),
      progressBar(step / total, `${number(step, 1)} of ${total} experiments`),
      h("span", { class: "words" }, words, left),
    ),
    h(
      "div",
      { class: "actions" },
      moves && sweep.state !== "cancelling"
        ? action("cancel", "Cancel", () => post(`${base}/cancel`).then(look), {
            confirm: "Cancel all experiments of this sweep that are not finished?",
          })
        : null,
      !moves && (again || brokenOff)
        ? action("retry", again ? `Retry ${again}` : "Retry", () => post(`${base}/retry`).then(look))
        : null,
      h("a", { class: "button", href: `/compare?sweeps=${id}` }, "Compare"),
      h("a", { class: "button", href: `/new?from=${id}` }, "Use as a start"),
      moves
        ? null
        : action("delete", "Delete", leave, {
            kind: "danger",
            confirm: "Delete this sweep, and the experiments that were made for it alone, with their files?",
          }),
    ),
  );
  byId("name").textContent = sweep.name || `${axisName(sweep.spec.axis.path)} on ${sweep.spec.base.dataset.name}`;
  document.title = `${byId("name").textContent} · Sweetspot`;
}

const capital = (words) => words.charAt(0).toUpperCase() + words.slice(1);

const showVerdict = whenChanged((verdicts, chosen) => {
  const names = Object.keys(verdicts);
  const said = names.filter((name) => name === chosen || names.length === 1);
  const words = said.map((name) =>
    h("p", { class: "verdict" }, names.length > 1 ? h("span", { class: "task" }, name) : null, capital(verdicts[name].words)),
  );
  fill(
    byId("verdict"),
    words.length ? words : h("p", { class: "verdict" }, "No verdict yet: no experiment has finished with a task."),
  );
  if (said.length) announce(verdicts[said[0]].words);
});

function showChoices(names) {
  const choose = (name) => {
    task = name;
    history.replaceState(null, "", `?${new URLSearchParams({ task: name })}`);
    showCurve();
  };
  fill(
    byId("choices"),
    names.length > 1
      ? choice(
          "task",
          "Task",
          names.map((name) => [name, name]),
          task,
          choose,
        )
      : null,
  );
}

function showCurve() {
  const names = Object.keys(curve.verdicts);
  if (!names.includes(task)) task = names[0] ?? null;
  showChoices(names);
  showVerdict(curve.verdicts, task);
  const known = curve.points.filter((point) => point.i_nce !== null);
  const words = task
    ? `${task} against mutual information, ${known.length} of ${curve.points.length} points: ${curve.verdicts[task].words}`
    : `I_NCE over ${axisName(curve.axis.path)}, ${known.length} points`;
  figure.draw(task ? curveOf(curve, task) : informationOf(curve), `${words}. The table of points has the numbers.`);
  const notes = [
    known.some((point) => point.saturated) ? "○ saturated: within a nat of log K, read “at least”" : null,
    curve.verdicts[task]?.sweet_spot ? "large dot: the sweet spot, with its interval shaded" : null,
    known.length ? "bars: 95 % intervals; point at a dot for its view pairs, click it for its experiment" : null,
  ];
  fill(byId("legend"), notes.filter(Boolean).join(" · "));
  showDownloads(names, known.length > 0);
  showPoints();
  showSplit();
  showPredictors(curve.predictors);
  showAblation(curve.ablation ?? null, curve.ablation_words ?? null);
}

const takeaway = (of) =>
  h(
    "div",
    { class: "chips" },
    h("span", { class: "label" }, curve.verdicts[task]?.sweet_spot ? "Winning recipe to take away" : "Best recipe so far"),
    [
      ["torchvision", "recipe.py"],
      ["lightly", "recipe.py"],
      ["json", "recipe.json"],
    ].map(([form, name]) => download(`${base}/recipe?format=${form}${of}`, form === "json" ? "JSON" : form, name)),
  );

function showDownloads(names, known) {
  const of = names.length > 1 && task ? `?task=${encodeURIComponent(task)}` : "";
  const pictures = [
    ["svg", "SVG"],
    ["png", "PNG"],
    ["pdf", "PDF"],
    ["vl.json", "Vega-Lite"],
  ];
  fill(
    byId("downloads"),
    h(
      "div",
      { class: "chips" },
      h("span", { class: "label" }, "Download"),
      download(`${base}/curve.json`, "JSON", "curve.json"),
      download(`${base}/curve.csv`, "CSV", "curve.csv"),
      pictures.map(([suffix, words]) => download(`${base}/curve.${suffix}${of}`, words, `curve.${suffix}`)),
      download(`${base}/report.html`, "Report", "report.html"),
    ),
    known ? takeaway(names.length > 1 && task ? `&task=${encodeURIComponent(task)}` : "") : null,
  );
}

function showPoints() {
  const names = Object.keys(curve.verdicts);
  const one = (point, name) => {
    const found = point.tasks[name];
    if (!found) return "–";
    return [score(found.value, found.metric), " ", h("span", { class: "interval" }, scoreInterval(found.ci, found.metric))];
  };
  const classes = curve.points.some((point) => point.task_information !== null);
  const columns = [
    { title: axisName(curve.axis.path), cell: (point) => point.label },
    {
      title: [iNce(), " (nats)"],
      numeric: true,
      cell: reading,
    },
    classes ? { title: "about the label (nats)", numeric: true, cell: (point) => number(point.task_information, 2) } : null,
    classes ? { title: "nuisance (nats)", numeric: true, cell: (point) => number(point.nuisance, 2) } : null,
    ...names.map((name) => ({ title: name, numeric: true, cell: (point) => one(point, name) })),
    names.length ? { title: "regime", cell: (point) => REGIMES[point.regime] } : null,
    {
      title: "experiments",
      cell: (point) =>
        point.experiments.map((experiment, index) => [
          index ? " " : "",
          h(
            "a",
            { href: experimentUrl(experiment), id: `p-${experiment}`, "aria-label": `${point.label}, experiment ${index + 1}` },
            `${index + 1}`,
          ),
        ]),
    },
  ].filter(Boolean);
  const spot = curve.verdicts[task]?.sweet_spot;
  const rowAttributes = (point) => {
    const datum = { title: `${axisName(curve.axis.path)} = ${point.label}`, lines: [], experiments: point.experiments };
    const shown = point.experiments.length > 0;
    return {
      class: spot && spot.label === point.label ? "spot" : null,
      onmouseenter: shown ? (event) => card(datum, event) : null,
      onmouseleave: () => card(null),
    };
  };
  fill(
    byId("points"),
    !curve.points.length
      ? h("p", { class: "note" }, "No values are chosen yet.")
      : [table("Points of the curve", columns, curve.points, { rowAttributes }), marksInWords(curve.points)],
  );
}

function showSplit() {
  if (!curve.points.some((point) => point.nuisance !== null)) return;
  if (!split) {
    const node = h("div", { class: "plot" });
    byId("split-figure").replaceChildren(
      h(
        "div",
        { class: "group" },
        h("h3", {}, "What the views share"),
        h("figure", { class: "chart" }, node, h("figcaption", {}, "Good views share what is about the label, and little else.")),
      ),
    );
    split = chart(node);
  }
  split.draw(
    splitOf(curve),
    "Information shared by the views at each point, about the label and nuisance; the table of points has the numbers",
  );
}

const showPredictors = whenChanged((predictors) => {
  const names = Object.keys(predictors).filter((name) => Object.values(predictors[name]).some(Boolean));
  const measures = [
    ...new Set(names.flatMap((name) => Object.keys(predictors[name]).filter((measure) => predictors[name][measure]))),
  ];
  if (!measures.length) return fill(byId("predictors"));
  const words = {
    i_nce: "I_NCE",
    task_information: "about the label",
    nuisance: "nuisance",
    lidar: "LiDAR",
    rankme: "RankMe",
    alpha_req: "alpha-ReQ",
  };
  const cell = (found) =>
    found
      ? [number(found.rho, 2), " ", h("span", { class: "interval" }, `p ${found.p < 0.001 ? "< 0.001" : number(found.p, 3)}`)]
      : "–";
  const columns = [
    { title: "measure", cell: (measure) => words[measure] ?? measure },
    ...names.map((name) => ({ title: name, numeric: true, cell: (measure) => cell(predictors[name][measure]) })),
  ];
  fill(
    byId("predictors"),
    h(
      "details",
      { id: "predictors-details" },
      h("summary", {}, "Which measures predict the tasks"),
      h(
        "div",
        { class: "inside" },
        h("p", { class: "note" }, "Spearman’s rank correlation with how well the task is done, over the points."),
        table("Predictors", columns, measures),
      ),
    ),
  );
});

const showAblation = whenChanged((ablation, words) => {
  if (!ablation) return fill(byId("ablation"));
  const cost = (value, metric) => (metric === "pixels" ? `${number(value, 2)} px` : `${number(100 * value, 1)} points`);
  const tables = Object.entries(ablation).map(([name, rows]) => {
    const columns = [
      { title: "rank", numeric: true, cell: (_, index) => index + 1 },
      { title: "without", cell: (row) => row.operation },
      {
        title: "costs",
        numeric: true,
        cell: (row) => [
          cost(row.cost.value, row.metric),
          " ",
          h("span", { class: "interval" }, scoreInterval(row.cost.ci, row.metric)),
        ],
      },
      {
        title: "p",
        numeric: true,
        cell: (row) => (row.p === null || row.p === undefined ? "–" : row.p < 0.001 ? "< 0.001" : number(row.p, 3)),
      },
      {
        title: "the views share more by (nats)",
        numeric: true,
        cell: (row) =>
          row.nats ? [number(row.nats.value, 2), " ", h("span", { class: "interval" }, interval(row.nats.ci, 2))] : "–",
      },
      { title: "seeds", numeric: true, cell: (row) => row.seeds },
    ];
    const said = words?.[name] ? h("p", { class: "note" }, capital(words[name])) : null;
    return h(
      "div",
      { class: "group" },
      h("h3", {}, name),
      said,
      table(`What each operation is worth for ${name}`, columns, rows, { header: 1 }),
    );
  });
  fill(
    byId("ablation"),
    h(
      "section",
      { "aria-labelledby": "ablation-title" },
      h("h2", { id: "ablation-title" }, "What each operation is worth"),
      tables,
    ),
  );
});

const REASONS = {
  tolerance: "ended: the peak is known as well as was asked",
  trainings: "ended: its trainings are spent",
  cancelled: "was cancelled",
  failed: "failed",
};

const estimateInWords = ({ level }) =>
  `The search’s own estimate (${number(100 * level, 0)} % interval); whether there is a peak at all is the verdict above.`;

const showSearch = whenChanged((search, axis, metric, trained) => {
  if (!search) return fill(byId("search"));
  const { peak } = search;
  const columns = [
    { title: "order", numeric: true, cell: (_, index) => index + 1 },
    { title: axisName(axis.path), cell: (place) => short(place.value) },
    { title: "trainings", numeric: true, cell: (_, index) => trained[index] ?? 0 },
    { title: "length", cell: (place) => (place.short ? "short" : "whole") },
  ];
  const told = [REASONS[search.reason] ?? "goes on", search.error].filter(Boolean).join(": ");
  fill(
    byId("search"),
    h(
      "section",
      { "aria-labelledby": "search-title" },
      h("h2", { id: "search-title" }, "Search for the peak"),
      h("p", { class: "note" }, peak ? estimateInWords(peak) : "Whether there is a peak at all is the verdict above."),
      h(
        "dl",
        { class: "headline" },
        h(
          "div",
          {},
          h("dt", {}, search.finished ? "Peak" : "Peak so far"),
          h(
            "dd",
            {},
            peak ? `${axisName(axis.path)} = ${short(peak.value)}` : "not yet known",
            peak ? h("small", {}, `${number(100 * peak.level, 0)} % interval ${peak.value_ci.map(short).join(" to ")}`) : null,
          ),
        ),
        h(
          "div",
          {},
          h("dt", {}, "Expected there"),
          h("dd", {}, peak ? score(peak.accuracy, metric) : "–", peak ? h("small", {}, peak.task) : null),
        ),
        h(
          "div",
          {},
          h("dt", {}, "Spent"),
          h("dd", {}, `${short(search.spent)} of ${search.trainings}`, h("small", {}, "trainings")),
        ),
        h(
          "div",
          {},
          h("dt", {}, "State"),
          h("dd", { class: "sentence" }, told),
        ),
      ),
      h(
        "details",
        { id: "places" },
        h("summary", {}, `What was tried (${search.places.length})`),
        table("Values that were tried, in their order", columns, search.places, { header: 1 }),
      ),
    ),
  );
});

const showPaper = whenChanged((paper) => {
  if (!paper) return fill(byId("paper"));
  const columns = [
    { title: "place", cell: (row) => row.label },
    { title: "task", cell: (row) => row.task ?? "–" },
    {
      title: "published",
      numeric: true,
      cell: (row) => (row.metric === "sweet_spot" ? `sweet spot at ${short(row.value)}` : score(row.value, row.metric)),
    },
    { title: "measured on", cell: (row) => row.setting },
  ];
  fill(
    byId("paper"),
    h(
      "section",
      { "aria-labelledby": "paper-title" },
      h("h2", { id: "paper-title" }, "What was published"),
      h("p", {}, paper.finding),
      paper.numbers.length ? table("Published numbers", columns, paper.numbers) : null,
      h("p", { class: "note group" }, [paper.source, paper.note].filter(Boolean).join(". ")),
    ),
  );
});

/** The experiments by their place on the axis, with what each is doing. */
const showMembers = whenChanged((members, axis) => {
  const places = {};
  for (const member of members) (places[member.index] ??= []).push(member);
  const rows = Object.values(places);
  const one = (member) => {
    const words = member.state === "running" ? stageInWords(member.progress) : member.state;
    return h(
      "a",
      { class: "seed", href: experimentUrl(member.id), id: `m-${member.id}` },
      `seed ${member.seed}`,
      state(member.state, member.reused ? "reused" : words),
    );
  };
  const notes = (row) =>
    row
      .filter((member) => member.error)
      .map((member) => h("div", { class: "interval" }, `seed ${member.seed}: ${member.error.code}, ${member.error.message}`));
  const columns = [
    { title: axisName(axis.path), cell: ([first]) => axisLabel(axis, first.index, first.value) },
    { title: "Experiments", cell: (row) => [h("div", { class: "seeds" }, row.map(one)), notes(row)] },
  ];
  fill(
    byId("members"),
    members.length
      ? table("Experiments of this sweep", columns, rows)
      : h("p", { class: "note" }, "None is queued yet: a worker chooses the first values."),
  );
});

const showSpec = whenChanged((spec, created, finished) => {
  const axis = spec.axis;
  const takes = axis.search
    ? `searched from ${short(axis.search.low)} to ${short(axis.search.high)}, ${axis.search.scale}`
    : axis.ablate
      ? "less each operation in turn"
      : axis.values.map((value, index) => axisLabel(axis, index, value)).join(", ");
  fill(
    byId("spec"),
    h(
      "section",
      { "aria-labelledby": "spec-title" },
      h("h2", { id: "spec-title" }, "Specification"),
      facts([
        ["Dataset", spec.base.dataset.name],
        ["Views", inWords(spec.base.views.kind)],
        ["Method", spec.base.method.kind],
        ["Encoder", spec.base.encoder.kind],
        ["Axis", `${axis.path}: ${takes}`],
        ["Seeds", axis.search ? null : seedsInWords(spec.seeds)],
        ["Submitted", when(created)],
        ["Finished", finished ? when(finished) : null],
      ]),
      jsonDetails("spec-json", "As JSON", spec),
    ),
  );
});

async function look() {
  const sweep = await get(base);
  tellState(sweep.state);
  showStatus(sweep);
  const { succeeded, failed, cancelled } = sweep.counts;
  const ended = `${succeeded + failed + cancelled} of ${sweep.counts.total}`;
  if (ended !== measured) {
    curve = await get(`${base}/curve.json`);
    measured = ended;
    showCurve();
  }
  showMembers(sweep.experiments, sweep.spec.axis);
  const trained = {};
  for (const member of sweep.experiments) trained[member.index] = (trained[member.index] ?? 0) + 1;
  showSearch(sweep.search ?? null, sweep.spec.axis, curve.verdicts[sweep.search?.peak?.task]?.metric ?? "accuracy", trained);
  showPaper(sweep.paper ?? null);
  showSpec(sweep.spec, sweep.created_at, sweep.finished_at);
  return ACTIVE.includes(sweep.state);
}

follow(look, { quick: 1500, slow: 15000 });
