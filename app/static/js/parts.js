/** Pieces that several pages share. */

import { announce, byId, duration, h } from "./dom.js";
import { Problem } from "./api.js";

const MARKS = { queued: "○", running: "◐", cancelling: "◌", succeeded: "✓", failed: "✕", cancelled: "–" };
export const ACTIVE = ["queued", "running", "cancelling"];

/** A state as a mark and a word. */
export function state(name, words = name) {
  return h("span", { class: `state ${name}` }, h("span", { "aria-hidden": "true", class: "mark" }, MARKS[name] ?? "·"), words);
}

export function progressBar(share, words) {
  const percent = Math.round(100 * Math.min(Math.max(share || 0, 0), 1));
  return h(
    "div",
    {
      class: "progress",
      role: "progressbar",
      "aria-valuemin": 0,
      "aria-valuemax": 100,
      "aria-valuenow": percent,
      "aria-label": words,
    },
    h("div", { style: { width: `${percent}%` } }),
  );
}

export const STAGES = {
  data: "loading data",
  views: "learning the views",
  pretrain: "pretraining",
  information: "measuring information",
  quality: "measuring quality",
  tasks: "evaluating tasks",
};

/** What an experiment is doing, in words. */
export function stageInWords({ stage, step, total, eta_s: eta }) {
  if (!stage) return "starting";
  const where = total && total > 1 ? ` ${step} of ${total}` : "";
  return `${STAGES[stage] ?? stage}${where}${eta && eta >= 1 ? `, ${duration(eta)} left` : ""}`;
}

/** A table from columns [{title, cell, numeric, note}] and rows; it scrolls within itself where it is too wide. */
export function table(caption, columns, rows, { rowAttributes = () => ({}), header = 0 } = {}) {
  const head = columns.map((column) =>
    h("th", { scope: "col", class: column.numeric ? "numeric" : null, title: column.note }, column.title),
  );
  const body = rows.map((row, index) =>
    h(
      "tr",
      rowAttributes(row, index),
      columns.map((column, place) => {
        const attributes = { class: [column.numeric && "numeric", column.class].filter(Boolean).join(" ") || null };
        if (place === header) return h("th", { ...attributes, scope: "row" }, column.cell(row, index));
        return h("td", attributes, column.cell(row, index));
      }),
    ),
  );
  return h(
    "div",
    { class: "scroller", tabindex: 0, role: "region", "aria-label": caption },
    h("table", {}, h("caption", { class: "hidden-words" }, caption), h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)),
  );
}

/** Facts as terms and their values; null values are left out. */
export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h(
    "dl",
    { class: "facts" },
    known.map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", {}, value))),
  );
}

export function download(url, words, name) {
  return h("a", { href: url, download: name ?? "", class: "chip" }, words);
}

/** A file made here, offered for download. */
export function offer(name, type, content) {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = h("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/** A button that does something which may fail, and says so beside itself. */
export function action(id, words, act, { kind = "", confirm = null } = {}) {
  const button = h("button", { type: "button", id, class: kind }, words);
  button.addEventListener("click", async () => {
    if (confirm && !(await agreed(confirm, words))) return;
    button.disabled = true;
    try {
      await act();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      complain(error.message);
    } finally {
      button.disabled = false;
      if (document.activeElement === document.body) (byId(id) ?? byId("name"))?.focus(); // the button may be gone by now
    }
  });
  return button;
}

/** Ask before something that cannot be undone. */
function agreed(question, words) {
  return new Promise((answer) => {
    const dialog = h(
      "dialog",
      { "aria-labelledby": "question" },
      h("p", { id: "question" }, question),
      h(
        "form",
        { method: "dialog", class: "row" },
        h("button", { value: "yes", class: "danger" }, words),
        h("button", { value: "no", class: "quiet", autofocus: true }, "Keep"),
      ),
    );
    dialog.addEventListener("close", () => {
      answer(dialog.returnValue === "yes");
      dialog.remove();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

function complain(words) {
  document.querySelector(".complaint")?.remove();
  const said = h("div", { class: "complaint", role: "alert" }, h("p", {}, words));
  said.append(h("button", { type: "button", class: "quiet", onclick: () => said.remove() }, "Dismiss"));
  byId("main").prepend(said);
  said.scrollIntoView({ block: "nearest" });
}

/** Say when a state changes. */
export function stateTeller(what) {
  let last = null;
  return (name) => {
    if (last !== null && last !== name) announce(`${what}: ${name}`);
    last = name;
  };
}

export function jsonDetails(id, words, value) {
  return h(
    "details",
    { id },
    h("summary", {}, words),
    h("pre", { tabindex: 0, "aria-label": words }, JSON.stringify(value, null, 2)),
  );
}

/** Radio buttons in a row, of which one is chosen. */
export function choice(name, words, options, chosen, choose) {
  return h(
    "fieldset",
    { class: "segments" },
    h("legend", {}, words),
    options.map(([value, label]) => {
      const input = h("input", { type: "radio", name, value, id: `${name}-${value}`, onchange: () => choose(value) });
      input.checked = value === chosen;
      return h("label", { for: `${name}-${value}` }, input, h("span", {}, label));
    }),
  );
}
