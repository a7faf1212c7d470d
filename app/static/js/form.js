/** A form from a JSON Schema: what is filled in stands in a document, what is left empty takes its default. */

import { h, inWords } from "./dom.js";

const UNITS = {
  image_size: "px",
  size: "px",
  distance: "px",
  stride: "px",
  gap: "frames",
  frames: "frames",
  rotate_degrees: "degrees",
  target_nats: "nats",
  floor_nats: "nats",
  seconds: "s",
  blur_sigma: "px",
};
const FIRST = {
  Dataset: ["name", "image_size"],
  Augment: ["recipe", "crop_scale_min", "jitter", "flip_p", "grayscale_p", "blur_p"],
  Learned: ["mode", "flow", "base_space", "labels", "steps", "target_nats"],
  Pretrain: ["steps", "epochs", "batch_size", "optimiser", "learning_rate"],
  MutualInformation: ["estimators", "k"],
  Classification: ["target", "labels", "name"],
  KNN: ["target", "k", "name"],
  Search: ["low", "high", "scale", "trainings"],
};
const HIDDEN = ["kind", "spec_version", "version"];

/** Words with `code` in backticks, as nodes. */
export const marked = (words) => words.split("`").map((part, index) => (index % 2 ? h("code", {}, part) : part));

const titled = (name) =>
  name
    .replaceAll("_", " ")
    .replace(/ p$/, ", chance")
    .replace(/^(.)/, (letter) => letter.toUpperCase());
const escaped = (key) => String(key).replaceAll("~", "~0").replaceAll("/", "~1");
const pointerOf = (path) => path.map((key) => `/${escaped(key)}`).join("");
const idOf = (path) => `f-${path.join("-")}`;

/** Reads and writes a document at paths. */
export class Store {
  constructor(document, changed) {
    this.document = document;
    this.changed = changed;
  }

  at(path) {
    return path.reduce((node, key) => (node === null || node === undefined ? undefined : node[key]), this.document);
  }

  /** Put a value at a path, or take away what is there; `structural` where other fields come and go with it. */
  put(path, value, structural = false) {
    const parents = path.slice(0, -1);
    let node = this.document;
    for (const [index, key] of parents.entries()) {
      if (node[key] === undefined || node[key] === null) {
        if (value === undefined) return;
        node[key] = typeof path[index + 1] === "number" ? [] : {};
      }
      node = node[key];
    }
    const last = path.at(-1);
    if (value === undefined && !Array.isArray(node)) delete node[last];
    else if (value === undefined) node.splice(last, 1);
    else node[last] = value;
    for (let depth = parents.length; depth > 0 && value === undefined; depth -= 1) {
      const parent = this.at(parents.slice(0, depth));
      const holder = this.at(parents.slice(0, depth - 1));
      if (!parent || Array.isArray(parent) || Object.keys(parent).length || Array.isArray(holder)) break;
      delete holder[parents[depth - 1]];
    }
    this.changed(structural);
  }
}

/** Draws fields of the components of an OpenAPI document into the store's document. */
export class Fields {
  /** `offered(path, options)` answers which of a choice's options there are as things stand. */
  constructor(components, store, offered = (_, options) => options) {
    this.components = components;
    this.store = store;
    this.offered = offered;
  }

  /** A schema without references, and without null among its choices. */
  plain(schema) {
    let found = schema;
    let nullable = false;
    let { default: preset, description, title } = schema;
    for (;;) {
      if (found.$ref) found = this.components[found.$ref.split("/").pop()];
      else if (found.allOf?.length === 1) found = found.allOf[0];
      else if (found.anyOf) {
        const others = found.anyOf.filter((one) => one.type !== "null");
        nullable ||= others.length < found.anyOf.length;
        if (others.length !== 1) break;
        [found] = others;
      } else break;
      description ??= found.description;
      preset = preset === undefined ? found.default : preset;
      title = found.title ?? title;
    }
    return { ...found, description, default: preset, nullable, title };
  }

  /** The fields of an object, those that matter most first and the others folded away. */
  object(schema, path, { only = null, without = [] } = {}) {
    const names = Object.keys(schema.properties).filter(
      (name) => !HIDDEN.includes(name) && !without.includes(name) && (!only || only.includes(name)),
    );
    const chief = FIRST[schema.title]?.filter((name) => names.includes(name)) ?? names.slice(0, names.length <= 5 ? 5 : 4);
    const rest = names.filter((name) => !chief.includes(name));
    const draw = (name) => this.field(name, schema.properties[name], [...path, name], schema.required?.includes(name));
    const inUse = rest.filter((name) => !this.isDefault(schema.properties[name], this.store.at([...path, name]))).length;
    return [
      h("div", { class: "fields" }, chief.map(draw)),
      rest.length
        ? h(
            "details",
            { id: `more-${idOf(path)}` },
            h("summary", {}, `${rest.length} more${inUse ? `, ${inUse} set` : ""}`),
            h("div", { class: "fields" }, rest.map(draw)),
          )
        : null,
    ];
  }

  /** Whether a field stands at what it would be if it were left out. */
  isDefault(raw, value) {
    return value === undefined || value === null || JSON.stringify(value) === JSON.stringify(this.plain(raw).default);
  }

  /** A choice among kinds, and the fields of the one that is chosen. */
  union(schema, path, words, { remember = true } = {}) {
    const value = this.store.at(path);
    const kinds = this.offered([...path, "kind"], Object.keys(schema.discriminator.mapping));
    const chosen = value?.kind ?? schema.default?.kind ?? kinds[0];
    const member = this.plain({ $ref: schema.discriminator.mapping[chosen] ?? schema.oneOf[0].$ref });
    const select = h(
      "select",
      {
        id: idOf([...path, "kind"]),
        onchange: (event) =>
          this.store.put(path, remember ? this.kept(path, event.target.value, schema) : { kind: event.target.value }, true),
      },
      kinds.map((kind) => h("option", { value: kind }, kind.replaceAll("_", " "))),
    );
    select.value = chosen;
    return [
      h(
        "div",
        { class: "field", data: { pointer: pointerOf([...path, "kind"]) } },
        h("label", { for: select.id }, words),
        select,
      ),
      h("p", { class: "about" }, marked(member.description?.split("\n\n")[0] ?? "")),
      this.object(member, path),
    ];
  }

  /** A recipe of another kind, with those of its fields that both kinds have. */
  kept(path, kind, schema) {
    const fields = this.plain({ $ref: schema.discriminator.mapping[kind] }).properties;
    const before = Object.entries(this.store.at(path) ?? {}).filter(([name]) => name === "before" && fields[name]);
    return { kind, ...Object.fromEntries(before) };
  }

  field(name, raw, path, required = false) {
    const schema = this.plain(raw);
    if (schema.const !== undefined) return null;
    if (schema.discriminator) return this.nested(name, schema, path, () => this.union(schema, path, "Kind"));
    if (schema.type === "object" && schema.properties) return this.nested(name, schema, path, () => this.object(schema, path));
    const items = schema.items ? this.plain(schema.items) : null;
    if (schema.type === "array" && items?.enum) return this.checks(name, schema, items.enum, path);
    if (schema.enum) return this.select(name, schema, schema.enum, path, required);
    if (schema.type === "boolean") return this.select(name, schema, [true, false], path, required);
    return this.input(name, schema, path, required);
  }

  frame(name, schema, path, control, { broad = false } = {}) {
    const unit = UNITS[name] && !schema.enum ? h("span", { class: "unit" }, ` (${UNITS[name]})`) : null;
    const help = schema.description ? h("p", { class: "help", id: `${control.id}-help` }, marked(schema.description)) : null;
    if (help) control.setAttribute("aria-describedby", help.id);
    return h(
      "div",
      { class: broad ? "field broad" : "field", data: { pointer: pointerOf(path) } },
      h("label", { for: control.id }, titled(name).replace(/ nats$/, ""), unit),
      control,
      help,
    );
  }

  input(name, schema, path, required) {
    const value = this.store.at(path);
    const numeric = schema.type === "number" || schema.type === "integer";
    const list = schema.type === "array";
    const preset =
      schema.default === null || schema.default === undefined || schema.default === ""
        ? schema.nullable
          ? "by default"
          : ""
        : asText(schema.default);
    const control = h("input", {
      id: idOf(path),
      type: numeric ? "number" : "text",
      step: numeric ? (schema.type === "integer" ? 1 : "any") : null,
      min: numeric ? (schema.minimum ?? schema.exclusiveMinimum) : null,
      max: numeric ? (schema.maximum ?? schema.exclusiveMaximum) : null,
      maxlength: schema.maxLength,
      placeholder: preset,
      required,
      autocomplete: "off",
      value: value === undefined || value === null ? "" : asText(value),
    });
    control.addEventListener("input", () => {
      const words = control.value.trim();
      const read = () => {
        if (words === "") return undefined;
        if (numeric) return Number(words);
        return list ? asList(words, schema) : control.value;
      };
      this.store.put(path, read());
    });
    return this.frame(name, schema, path, control);
  }

  select(name, schema, options, path, required) {
    const value = this.store.at(path);
    const words = (option) => (option === true ? "yes" : option === false ? "no" : option === null ? "none" : inWords(option));
    const known = this.offered(
      path,
      options.filter((option) => option !== null),
    );
    const preset =
      schema.default === null || schema.default === undefined
        ? "by default"
        : known.includes(schema.default)
          ? `${words(schema.default)} (default)`
          : "choose one";
    const control = h(
      "select",
      {
        id: idOf(path),
        onchange: (event) => this.store.put(path, event.target.value === "" ? undefined : known[Number(event.target.value)]),
      },
      required ? null : h("option", { value: "" }, preset),
      known.map((option, index) => h("option", { value: index }, words(option))),
    );
    control.value = value === undefined || value === null ? "" : String(known.indexOf(value));
    if (required && value === undefined) control.selectedIndex = -1;
    return this.frame(name, schema, path, control);
  }

  checks(name, schema, options, path) {
    const preset = schema.default ?? [];
    const boxes = options.map((option) => {
      const box = h("input", { type: "checkbox", id: `${idOf(path)}-${option}` });
      box.checked = (this.store.at(path) ?? preset).includes(option);
      box.addEventListener("change", () => {
        const before = this.store.at(path) ?? preset;
        const after = options.filter((one) => (one === option ? box.checked : before.includes(one)));
        this.store.put(path, after);
      });
      return h("label", { for: box.id }, box, option.replaceAll("_", " "));
    });
    return h(
      "div",
      { class: "field broad", role: "group", "aria-label": titled(name), data: { pointer: pointerOf(path) } },
      h("span", { class: "label" }, titled(name)),
      h("div", { class: "checks" }, boxes),
      schema.description ? h("p", { class: "help" }, marked(schema.description)) : null,
    );
  }

  /** An object inside another: where it may be null, it is there once it is asked for. */
  nested(name, schema, path, draw) {
    const value = this.store.at(path);
    const toggle = h("input", { type: "checkbox", id: `${idOf(path)}-on` });
    toggle.checked = value !== undefined && value !== null;
    const first = schema.discriminator
      ? { kind: Object.keys(schema.discriminator.mapping)[0] }
      : schema.properties?.kind?.const
        ? { kind: schema.properties.kind.const }
        : {};
    toggle.addEventListener("change", () => this.store.put(path, toggle.checked ? first : undefined, true));
    return h(
      "fieldset",
      { class: "field broad", data: { pointer: pointerOf(path) } },
      h("legend", {}, titled(name)),
      schema.nullable ? h("div", { class: "checks" }, h("label", { for: toggle.id }, toggle, "set it")) : null,
      schema.description ? h("p", { class: "help" }, marked(schema.description.split("\n\n")[0])) : null,
      !schema.nullable || toggle.checked ? draw() : null,
    );
  }

  /** A list of things of several kinds, such as tasks. */
  list(schema, path, words, first) {
    const union = this.plain(schema.items);
    const value = this.store.at(path);
    const add = h("button", { type: "button", id: `${idOf(path)}-add`, class: "quiet" }, `Add a ${words}`);
    add.addEventListener("click", () => this.store.put([...path, (value ?? []).length], first, true));
    return [
      (value ?? []).map((_, index) => {
        const away = h(
          "button",
          { type: "button", id: `${idOf(path)}-${index}-remove`, class: "quiet", "aria-label": `Remove ${words} ${index + 1}` },
          "Remove",
        );
        away.addEventListener("click", () => {
          const left = value.filter((__, other) => other !== index);
          this.store.put(path, left.length ? left : undefined, true);
        });
        return h(
          "fieldset",
          { data: { pointer: pointerOf([...path, index]) } },
          h("legend", {}, `${titled(words)} ${index + 1}`),
          this.union(union, [...path, index], "Kind", { remember: false }),
          h("p", { class: "row" }, away),
        );
      }),
      h("p", { class: "row" }, add),
    ];
  }
}

/** A value as it is typed: lists with commas, anything deeper as JSON. */
export function asText(value) {
  if (Array.isArray(value) && value.every((part) => typeof part !== "object" && !String(part).includes(",")))
    return value.map(String).join(", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

function asList(words, schema) {
  if (words.startsWith("[")) {
    try {
      return JSON.parse(words);
    } catch {
      return words;
    }
  }
  const items = schema.prefixItems?.[0] ?? schema.items ?? {};
  const parts = words
    .split(",")
    .map((part) => part.trim())
    .filter(Boolean);
  return items.type === "string" ? parts : parts.map(asScalar);
}

/** A number, true, false or null as such; anything else as text. */
export function asScalar(part) {
  if (part !== "" && !Number.isNaN(Number(part))) return Number(part);
  return { true: true, false: false, null: null }[part] ?? (part === "null" ? null : part);
}
