/** Lists of sweeps and of experiments, filtered and paged; what they show is looked at again and again. */

import { follow, get, pages } from "./api.js";
import { byId, debounced, fill, h, iNce, inWords, number, score, titleOf, viewsInWords, when, whenChanged } from "./dom.js";
import { ACTIVE, progressBar, stageInWords, state, table } from "./parts.js";

const SWEEPS = 12;
const EXPERIMENTS = 25;
const query = new URLSearchParams(location.search);
const form = byId("filters");
const picked = new Set();

form.q.value = query.get("q") ?? "";
form.state.value = query.get("state") ?? "";

/** A list whose pages are turned by cursors: `load(cursor)` answers {data, next_cursor}. */
function pager(node, load, draw) {
  let before = [];
  let cursor = null;
  const show = whenChanged((page) => {
    fill(node, draw(page.data), page.next_cursor || before.length ? turner(page) : null);
    node.removeAttribute("aria-busy");
  });

  function turner(page) {
    const turn = (act) => () => {
      act();
      look();
      node.scrollIntoView({ block: "nearest" });
    };
    const newer = h(
      "button",
      { type: "button", id: `${node.id}-newer`, class: "quiet", onclick: turn(() => (cursor = before.pop())) },
      "← Newer",
    );
    const older = h(
      "button",
      {
        type: "button",
        id: `${node.id}-older`,
        class: "quiet",
        onclick: turn(() => (before.push(cursor), (cursor = page.next_cursor))),
      },
      "Older →",
    );
    newer.disabled = !before.length;
    older.disabled = !page.next_cursor;
    return h("div", { class: "pager" }, h("span", {}, `Page ${before.length + 1}`), newer, older);
  }

  async function look() {
    const asked = cursor;
    const page = await load(cursor);
    if (asked === cursor) show(page, before.length);
    return page.data.some((row) => ACTIVE.includes(row.state));
  }
  const restart = () => {
    before = [];
    cursor = null;
    node.setAttribute("aria-busy", "true");
    return look();
  };
  return { look, restart };
}

const filters = () => ({ q: form.q.value.trim(), state: form.state.value });

/** A page of sweeps. The API lists all of them, so words and states are sought here, page after page. */
async function loadSweeps(cursor) {
  const { q, state: wanted } = filters();
  const from = (limit) => `/v1/sweeps?limit=${limit}${cursor ? `&cursor=${cursor}` : ""}`;
  if (!q && !wanted) return get(from(SWEEPS));
  const words = q.toLowerCase();
  const found = [];
  for await (const sweep of pages("/v1/sweeps?limit=200")) {
    if (cursor && sweep.id >= cursor) continue;
    if (wanted && sweep.state !== wanted) continue;
    if (words && !sweep.name.toLowerCase().includes(words) && sweep.id !== q) continue;
    if (found.length === SWEEPS) return { data: found, next_cursor: found.at(-1).id };
    found.push(sweep);
  }
  return { data: found, next_cursor: null };
}

function loadExperiments(cursor) {
  const asked = new URLSearchParams({ limit: EXPERIMENTS });
  for (const [name, value] of Object.entries({ ...filters(), cursor })) if (value) asked.set(name, value);
  return get(`/v1/experiments?${asked}`);
}

const empty = (words) =>
  h(
    "div",
    { class: "empty" },
    h("p", {}, filters().q || filters().state ? "Nothing fits these filters." : words),
    h("p", {}, h("a", { href: "/new" }, "Start one")),
  );

function drawSweeps(data) {
  if (!data.length) return empty("There are no sweeps yet.");
  const box = (sweep) => {
    const input = h("input", { type: "checkbox", id: `pick-${sweep.id}`, "aria-label": `Compare ${sweep.name || sweep.id}` });
    input.checked = picked.has(sweep.id);
    input.addEventListener("change", () => {
      picked[input.checked ? "add" : "delete"](sweep.id);
      offerComparison();
    });
    return input;
  };
  const finished = ({ counts }) => counts.succeeded + counts.failed + counts.cancelled;
  const columns = [
    {
      title: "Sweep",
      class: "title-cell",
      cell: (row) => h("a", { href: `/sweeps/${row.id}`, id: `a-${row.id}` }, row.name || `Sweep …${row.id.slice(-8)}`),
    },
    { title: "State", cell: (row) => state(row.state) },
    {
      title: "Experiments",
      cell: (row) => [
        progressBar(finished(row) / row.counts.total, `${finished(row)} of ${row.counts.total} finished`),
        h(
          "span",
          { class: "interval" },
          `${finished(row)} of ${row.counts.total}${row.counts.failed ? `, ${row.counts.failed} failed` : ""}`,
        ),
      ],
    },
    { title: "Submitted", cell: (row) => when(row.created_at) },
    { title: "Compare", cell: box },
  ];
  return table("Sweeps, newest first", columns, data);
}

function drawExperiments(data) {
  if (!data.length) return empty("There are no experiments yet.");
  const columns = [
    {
      title: "Experiment",
      class: "title-cell",
      cell: (row) => [
        h("a", { href: `/experiments/${row.id}`, id: `a-${row.id}` }, titleOf(row)),
        h("span", { class: "note" }, settingOf(row)),
      ],
    },
    { title: "State", cell: (row) => state(row.state) },
    {
      title: [iNce(), " (nats)"],
      numeric: true,
      cell: (row) => {
        const found = row.results?.mi.infonce;
        return found ? `${found.saturated ? "≥ " : ""}${number(found.value, 2)}` : "–";
      },
    },
    { title: "First task", cell: firstTask },
    { title: "Submitted", cell: (row) => when(row.created_at) },
  ];
  return table("Experiments, newest first", columns, data);
}

function settingOf({ name, spec }) {
  const training = `${spec.method.kind}, ${spec.encoder.kind}, seed ${spec.seed}`;
  return name ? `${viewsInWords(spec.views)} on ${spec.dataset.name} · ${training}` : training;
}

function firstTask(row) {
  if (row.state === "running") {
    const { step, total } = row.progress;
    const words = stageInWords(row.progress);
    return [progressBar(total ? step / total : 0, words), h("span", { class: "interval" }, words)];
  }
  if (row.state === "failed") return h("span", { class: "interval" }, row.error?.code ?? "");
  const name = row.spec.tasks[0]?.name;
  const found = name && row.results?.tasks[name];
  return found ? [score(found.value, found.metric), " ", h("span", { class: "interval" }, inWords(name))] : "–";
}

function offerComparison() {
  byId("compare").href = picked.size ? `/compare?sweeps=${[...picked].join(",")}` : "/compare";
  byId("compare").textContent = picked.size ? `Compare ${picked.size}` : "Compare";
}

const sweeps = pager(byId("sweeps"), loadSweeps, drawSweeps);
const experiments = pager(byId("experiments"), loadExperiments, drawExperiments);
follow(sweeps.look, { quick: 2000, slow: 6000 });
follow(experiments.look, { quick: 2000, slow: 6000 });

const filter = () => {
  const kept = Object.entries(filters()).filter(([, value]) => value);
  history.replaceState(null, "", kept.length ? `?${new URLSearchParams(kept)}` : location.pathname);
  sweeps.restart();
  experiments.restart();
};
form.q.addEventListener("input", debounced(filter, 250));
form.state.addEventListener("change", filter);
form.addEventListener("reset", () => setTimeout(filter));
form.addEventListener("submit", (event) => {
  event.preventDefault();
  filter();
});
