/** Charts as Vega-Lite, in the colours of the page, drawn anew when their width or the system's colour scheme changes. */

import { axisName, h, interval, isLow, LOW, METRICS, number, score, scoreInterval } from "./dom.js";

const INFORMATION = "Mutual information of the views, I_NCE (nats)";
const SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"];
const REGIMES = { missing_information: "missing information", sweet_spot: "sweet spot", excess_noise: "excess noise" };
const scheme = window.matchMedia("(prefers-color-scheme: dark)");

// Files are drawn on white whatever the scheme of the system is.
const PAPER = {
  ink: "#1e2124",
  quiet: "#5b6168",
  faint: "#e1ded7",
  ground: "#ffffff",
  spot: "#d55e00",
  excess: "#9d9284",
  missing: "#4f93c4",
  series: ["#0072b2", "#00805c", "#a94f88", "#8a6d00", "#5b4bb5", "#3a3f45"],
  font: "Liberation Sans, Helvetica, Arial, sans-serif",
};
const OPTIONS = { actions: false, ast: true, renderer: "svg", defaultStyle: false, tooltip: false, mode: "vega-lite" };

function palette() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(`--${name}`).trim();
  return {
    ink: of("ink"),
    quiet: of("quiet"),
    faint: of("line"),
    ground: of("surface"),
    spot: of("spot"),
    excess: of("excess"),
    missing: of("missing"),
    series: [1, 2, 3, 4, 5, 6].map((index) => of(`series-${index}`)),
    font: style.getPropertyValue("--sans").trim(),
  };
}

/**
 * Draw into a node what `build(width, palette)` says: a Vega-Lite specification, or null for nothing. `point(datum, event)` is
 * told when a mark with experiments is pointed at (null: no more), `pick(datum)` when one is clicked.
 */
export function chart(node, { point = null, pick = null } = {}) {
  let build = null;
  let drawn = null;
  let width = 0;
  let turn = Promise.resolve();

  async function render() {
    width = node.clientWidth;
    const specification = build && width ? build(width, palette()) : null;
    drawn?.finalize();
    drawn = null;
    if (!specification) return node.replaceChildren();
    const stage = h("div", {});
    drawn = await window.vegaEmbed(stage, specification, OPTIONS);
    stage.querySelector("svg").setAttribute("aria-hidden", "true"); // the node around it says what is drawn
    node.replaceChildren(stage);
    point?.(null);
    if (point) {
      drawn.view.addEventListener("mouseover", (event, item) => item?.datum?.experiments && point(item.datum, event));
      drawn.view.addEventListener("mouseout", () => point(null));
    }
    if (pick) drawn.view.addEventListener("click", (_, item) => item?.datum?.experiments && pick(item.datum));
  }

  const redraw = () => {
    turn = turn.then(render);
    return turn;
  };
  scheme.addEventListener("change", redraw);
  new ResizeObserver(() => Math.abs(node.clientWidth - width) > 8 && redraw()).observe(node);
  return {
    draw(next, words) {
      build = next;
      node.setAttribute("role", "img");
      node.setAttribute("aria-label", words);
      return redraw();
    },
    /** The same for a file, and `on` answers what its view makes of it. */
    specification: (size) => ({ ...build(size, PAPER), background: "white" }),
    async file(size, on) {
      const { view, finalize } = await window.vegaEmbed(h("div", {}), this.specification(size), OPTIONS);
      const made = await on(view);
      finalize();
      return made;
    },
  };
}

function styled(specification, colours) {
  return {
    $schema: "https://vega.github.io/schema/vega-lite/v6.json",
    background: "transparent",
    padding: { left: 2, right: 10, top: 4, bottom: 2 },
    autosize: { type: "fit", contains: "padding" },
    ...specification,
    config: {
      aria: false,
      font: colours.font,
      view: { stroke: null },
      axis: {
        labelFontSize: 12,
        titleFontSize: 12.5,
        titleFontWeight: "normal",
        titleColor: colours.ink,
        labelColor: colours.quiet,
        titlePadding: 10,
        gridColor: colours.faint,
        gridWidth: 0.8,
        domainColor: colours.faint,
        tickColor: colours.faint,
        tickSize: 4,
      },
      legend: {
        labelFontSize: 12.5,
        labelColor: colours.ink,
        labelLimit: 320,
        title: null,
        orient: "bottom",
        symbolSize: 90,
        offset: 8,
        columns: specification.width < 520 ? 1 : 2,
      },
    },
  };
}

// The curve ----------------------------------------------------------------------------------------------------------------

/** The places of a curve's points for one task, in the order of the axis where it has one. */
function places(curve, task) {
  const dots = curve.points
    .filter((point) => point.i_nce !== null && point.tasks[task])
    .map((point) => ({ point, x: point.i_nce, y: point.tasks[task].value, up: point.tasks[task].ci, across: point.i_nce_ci }));
  return curve.axis.ordered ? dots.sort((one, other) => one.point.value - other.point.value) : dots;
}

function nats(curves) {
  const points = curves.flatMap((curve) => curve.points);
  const ceilings = points.map((point) => point.log_k).filter((value) => value !== null);
  const readings = points.map((point) => point.i_nce).filter((value) => value !== null);
  const most = ceilings.length + readings.length ? Math.max(...ceilings, ...readings) : 1;
  const least = Math.min(0, ...readings);
  const margin = 0.03 * (most - least);
  return [least - margin, most + 2 * margin];
}

/** From worst to best: an error runs downwards. Intervals far wider than the curve is high are cut, for they would flatten it. */
function heights(dots, metric) {
  if (!dots.length) return [0, 1];
  const values = dots.map((dot) => dot.y);
  const least = Math.min(...values);
  const most = Math.max(...values);
  const span = Math.max(most - least, 0.12 * Math.max(Math.abs(most), 1e-9));
  const ends = dots.flatMap((dot) => dot.up ?? [dot.y]);
  let low = Math.max(Math.min(...ends), least - 0.6 * span) - 0.14 * span;
  let high = Math.min(Math.max(...ends), most + 0.6 * span) + 0.16 * span;
  if (metric === "accuracy") [low, high] = [Math.max(low, 0), Math.min(high, 1)];
  if (metric === "pixels") return [high, Math.max(low, 0)];
  return [low, high];
}

const clipped = (value, [one, other]) => Math.min(Math.max(value, Math.min(one, other)), Math.max(one, other));

function axes(xDomain, yDomain, yTitle, width, metric) {
  const percent = metric === "accuracy" ? { format: ".0%" } : {};
  return {
    x: (field = "x") => ({
      field,
      type: "quantitative",
      scale: { domain: xDomain, nice: false },
      axis: { tickCount: width < 500 ? 5 : 8, grid: false },
      title: width < 420 ? "I_NCE of the views (nats)" : INFORMATION,
    }),
    y: (field = "y") => ({
      field,
      type: "quantitative",
      scale: { domain: yDomain, nice: false },
      axis: { tickCount: 6, ...percent },
      title: yTitle,
    }),
  };
}

/** Accuracy, or the error of a task, against I_NCE. */
export function curveOf(curve, task) {
  return (width, colours) => {
    const metric = curve.verdicts[task].metric;
    const dots = places(curve, task);
    const height = Math.round(Math.min(Math.max(0.58 * width, 300), 430));
    const xDomain = nats([curve]);
    const yDomain = heights(dots, metric);
    const { x, y } = axes(
      xDomain,
      yDomain,
      METRICS[metric] === "Accuracy" ? "Accuracy on held-out items" : METRICS[metric],
      width,
      metric,
    );
    const spot = curve.verdicts[task].sweet_spot;
    const colour = colours.series[0];
    const layers = [];
    const values = (rows) => ({ data: { values: rows } });

    if (spot) {
      const [low, high] = spot.i_nce_ci;
      const bands = [["sweet_spot", Math.max(low, xDomain[0]), Math.min(high, xDomain[1]), colours.spot, 0.16]];
      if (curve.axis.along_information && dots.length) {
        bands.unshift(["missing_information", xDomain[0], bands[0][1], colours.missing, 0.14]);
        bands.push(["excess_noise", bands[1][2], xDomain[1], colours.excess, 0.14]);
      }
      for (const [name, left, right, shade, opacity] of bands) {
        const row = { x: left, x2: right, y: yDomain[0], y2: yDomain[1] };
        layers.push({
          ...values([row]),
          mark: { type: "rect", color: shade, opacity },
          encoding: { x: x(), x2: { field: "x2" }, y: y(), y2: { field: "y2" } },
        });
        const room = ((right - left) / (xDomain[1] - xDomain[0])) * (width - 70);
        if (room > 6.4 * REGIMES[name].length) {
          const title = { x: (left + right) / 2, y: yDomain[1], text: REGIMES[name] };
          const bold = name === "sweet_spot" ? { color: colours.ink, fontWeight: "bold" } : { color: colours.quiet };
          layers.push({
            ...values([title]),
            mark: { type: "text", baseline: "top", dy: 7, fontSize: 12, ...bold },
            encoding: { x: x(), y: y(), text: { field: "text" } },
          });
        }
      }
    }
    for (const ceiling of new Set(curve.points.map((point) => point.log_k).filter((value) => value !== null))) {
      const row = { x: ceiling, y: yDomain[0], y2: yDomain[1], text: `log K = ${number(ceiling, 2)}` };
      layers.push({
        ...values([row]),
        mark: { type: "rule", strokeDash: [5, 4], color: colours.quiet },
        encoding: { x: x(), y: y(), y2: { field: "y2" } },
      });
      layers.push({
        ...values([row]),
        mark: { type: "text", angle: 270, align: "left", baseline: "top", dx: 8, dy: 4, fontSize: 12, color: colours.quiet },
        encoding: { x: x(), y: y(), text: { field: "text" } },
      });
    }
    if (curve.axis.ordered && dots.length > 1) {
      const rows = dots.map((dot, order) => ({ x: dot.x, y: dot.y, order }));
      layers.push({
        ...values(rows),
        mark: { type: "line", strokeWidth: 1.6, opacity: 0.55, color: colour },
        encoding: { x: x(), y: y(), order: { field: "order", type: "quantitative" } },
      });
    }
    layers.push(...bars(dots, { x, y, xDomain, yDomain, colour }));
    const rows = dots.map(({ point, x: across, y: up }) => ({
      x: across,
      y: up,
      saturated: point.saturated,
      experiments: point.experiments,
      label: point.label,
      title: `${axisName(curve.axis.path)} = ${point.label}`,
      lines: [
        informationInWords(point),
        `${task}: ${score(up, metric)} ${scoreInterval(point.tasks[task].ci, metric)}, ${seedsInWords(point.tasks[task].seeds)}`,
        ...(point.task_information === null
          ? []
          : [`about the label ${number(point.task_information, 2)}, nuisance ${number(point.nuisance, 2)} nats`]),
        ...(REGIMES[point.regime] ? [REGIMES[point.regime]] : []),
      ],
    }));
    layers.push({
      ...values(rows.filter((row) => !row.saturated)),
      mark: { type: "point", filled: true, size: 70, opacity: 1, color: colour },
      encoding: { x: x(), y: y() },
    });
    layers.push({
      ...values(rows.filter((row) => row.saturated)),
      mark: { type: "point", filled: true, fill: colours.ground, stroke: colour, strokeWidth: 1.9, size: 66, opacity: 1 },
      encoding: { x: x(), y: y() },
    });
    if (spot) {
      layers.push({
        ...values([{ x: spot.i_nce, y: spot.accuracy }]),
        mark: {
          type: "point",
          filled: true,
          size: 190,
          color: colours.spot,
          stroke: colours.ground,
          strokeWidth: 1.6,
          opacity: 1,
        },
        encoding: { x: x(), y: y() },
      });
    }
    layers.push(
      ...labels(rows, spot, {
        x,
        y,
        xDomain,
        yDomain,
        width: width - 75,
        height: height - 55,
        colours,
        name: axisName(curve.axis.path),
        joined: curve.axis.ordered,
        dots,
      }),
    );
    layers.push({
      ...values(rows),
      name: "hits",
      mark: { type: "point", filled: true, size: 600, opacity: 0, cursor: "pointer" },
      encoding: { x: x(), y: y() },
    });
    if (!dots.length) layers.push(nothing(xDomain, yDomain, x, y, colours));
    return styled({ width, height, layer: layers }, colours);
  };
}

const informationInWords = (point) =>
  [
    `I_NCE ${point.saturated ? "at least " : ""}${number(point.i_nce, 2)} nats ${interval(point.i_nce_ci, 2)}`,
    isLow(point) ? LOW : null,
  ]
    .filter(Boolean)
    .join(", ");

export const seedsInWords = (count) => `${count} seed${count === 1 ? "" : "s"}`;

function nothing(xDomain, yDomain, x, y, colours) {
  const row = { x: (xDomain[0] + xDomain[1]) / 2, y: (yDomain[0] + yDomain[1]) / 2, text: "no measurements yet" };
  return {
    data: { values: [row] },
    mark: { type: "text", fontSize: 14, color: colours.quiet },
    encoding: { x: x(), y: y(), text: { field: "text" } },
  };
}

function bars(dots, { x, y, xDomain, yDomain, colour }) {
  const up = dots
    .filter((dot) => dot.up)
    .map((dot) => ({ x: dot.x, y: clipped(dot.up[0], yDomain), y2: clipped(dot.up[1], yDomain), ...dot.series }));
  const across = dots
    .filter((dot) => dot.across)
    .map((dot) => ({ x: clipped(dot.across[0], xDomain), x2: clipped(dot.across[1], xDomain), y: dot.y, ...dot.series }));
  const painted = typeof colour === "string" ? {} : { color: colour };
  const mark = { type: "rule", strokeWidth: 1.3, opacity: 0.75, ...(typeof colour === "string" ? { color: colour } : {}) };
  return [
    { data: { values: up }, mark, encoding: { x: x(), y: y(), y2: { field: "y2" }, ...painted } },
    { data: { values: across }, mark, encoding: { x: x(), x2: { field: "x2" }, y: y(), ...painted } },
  ];
}

/** The value on the axis beside each point, at the first of twelve places where it covers nothing; else it is left out. */
function labels(rows, spot, { x, y, xDomain, yDomain, width, height, colours, name, joined, dots }) {
  const place = (row) => [
    ((row.x - xDomain[0]) / (xDomain[1] - xDomain[0])) * width,
    (1 - (row.y - yDomain[0]) / (yDomain[1] - yDomain[0])) * height,
  ];
  const taken = dots.flatMap((dot) => {
    const [across, down] = place(dot);
    const [bottom, top] = (dot.up ?? [dot.y, dot.y])
      .map((end) => place({ x: dot.x, y: clipped(end, yDomain) })[1])
      .sort((one, other) => other - one);
    const [left, right] = (dot.across ?? [dot.x, dot.x]).map((end) => place({ x: clipped(end, xDomain), y: dot.y })[0]);
    return [
      [across - 7, down - 7, across + 7, down + 7],
      [across - 3, top, across + 3, bottom],
      [left, down - 2, right, down + 2],
    ];
  });
  for (let index = 1; joined && index < dots.length; index += 1) {
    const [from, to] = [place(dots[index - 1]), place(dots[index])];
    const pieces = Math.max(Math.ceil(Math.hypot(to[0] - from[0], to[1] - from[1]) / 6), 1);
    for (let piece = 0; piece <= pieces; piece += 1) {
      const [across, down] = [0, 1].map((side) => from[side] + (piece / pieces) * (to[side] - from[side]));
      taken.push([across - 2, down - 2, across + 2, down + 2]);
    }
  }
  const chosen = { bold: [], light: [] };
  const isSpot = (row) => spot && row.label === spot.label;
  for (const row of [...rows].sort((one, other) => isSpot(other) - isSpot(one))) {
    const text = isSpot(row) || rows.length === 1 ? `${name} = ${row.label}` : row.label;
    const [across, down] = place(row);
    const wide = 6.6 * text.length;
    const lefts = [across - wide / 2, across + 9, across - wide / 2, across - 9 - wide];
    const tops = [down - 24, down - 6, down + 11, down - 6];
    const corners = [
      [across + 7, down - 20],
      [across - 7 - wide, down - 20],
      [across + 7, down + 8],
      [across - 7 - wide, down + 8],
    ];
    const far = [
      [across + 12, down - 34],
      [across - 12 - wide, down - 34],
      [across + 12, down + 20],
      [across - 12 - wide, down + 20],
    ];
    const spots = [...lefts.map((left, index) => [left, tops[index]]), ...corners, ...far];
    const free = spots.find(([left, top]) => {
      const box = [left, top, left + wide, top + 13];
      const inside = left > 0 && box[2] < width && top > 22 && box[3] < height;
      return inside && !taken.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3]);
    });
    if (!free) continue;
    taken.push([free[0], free[1], free[0] + wide, free[1] + 13]);
    chosen[isSpot(row) ? "bold" : "light"].push({
      x: xDomain[0] + ((free[0] + wide / 2) / width) * (xDomain[1] - xDomain[0]),
      y: yDomain[0] + (1 - (free[1] + 6.5) / height) * (yDomain[1] - yDomain[0]),
      text,
    });
  }
  return Object.entries(chosen).map(([weight, texts]) => ({
    data: { values: texts },
    mark: { type: "text", fontSize: 12, color: colours.ink, fontWeight: weight === "bold" ? "bold" : "normal" },
    encoding: { x: x(), y: y(), text: { field: "text" } },
  }));
}

/** I_NCE over the axis, where there is no task to set it against. */
export function informationOf(curve) {
  return (width, colours) => {
    const points = curve.axis.ordered ? [...curve.points].sort((one, other) => one.value - other.value) : curve.points;
    const names = points.map((point) => point.label);
    const rows = points
      .filter((point) => point.i_nce !== null)
      .map((point) => ({
        label: point.label,
        y: point.i_nce,
        low: point.i_nce_ci?.[0] ?? point.i_nce,
        high: point.i_nce_ci?.[1] ?? point.i_nce,
        experiments: point.experiments,
        title: `${axisName(curve.axis.path)} = ${point.label}`,
        lines: [informationInWords(point)],
      }));
    const x = {
      field: "label",
      type: "ordinal",
      scale: { domain: names },
      sort: null,
      title: axisName(curve.axis.path),
      axis: { labelAngle: names.join("").length * 8 > width ? -35 : 0, labelLimit: 180 },
    };
    const domain = nats([curve]);
    const y = (field) => ({
      field,
      type: "quantitative",
      scale: { domain, nice: false },
      title: "I_NCE (nats)",
      axis: { tickCount: 6 },
    });
    const ceilings = [...new Set(points.map((point) => point.log_k).filter((value) => value !== null))].map((value) => ({
      y: value,
    }));
    const layer = [
      { data: { values: ceilings }, mark: { type: "rule", strokeDash: [5, 4], color: colours.quiet }, encoding: { y: y("y") } },
      {
        data: { values: rows },
        mark: { type: "rule", color: colours.series[0], strokeWidth: 1.3 },
        encoding: { x, y: y("low"), y2: { field: "high" } },
      },
      {
        data: { values: rows },
        mark: { type: "point", filled: true, size: 70, opacity: 1, color: colours.series[0] },
        encoding: { x, y: y("y") },
      },
      {
        data: { values: rows },
        name: "hits",
        mark: { type: "point", filled: true, size: 600, opacity: 0, cursor: "pointer" },
        encoding: { x, y: y("y") },
      },
    ];
    if (rows.length) return styled({ width, height: 320, layer }, colours);
    const words = {
      mark: { type: "text", fontSize: 14, color: colours.quiet },
      encoding: { text: { value: "no measurements yet" } },
    };
    return styled({ width, height: 160, data: { values: [{}] }, ...words }, colours);
  };
}

/** What the views share, split into what is about the label and what is nuisance. */
export function splitOf(curve) {
  return (width, colours) => {
    const points = (curve.axis.ordered ? [...curve.points].sort((one, other) => one.value - other.value) : curve.points).filter(
      (point) => point.task_information !== null && point.nuisance !== null,
    );
    if (!points.length) return null;
    const parts = ["about the label", "nuisance"];
    const rows = points.flatMap((point) => [
      { label: point.label, part: parts[0], order: 0, nats: Math.max(point.task_information, 0) },
      { label: point.label, part: parts[1], order: 1, nats: Math.max(point.nuisance, 0) },
    ]);
    const names = points.map((point) => point.label);
    return styled(
      {
        width,
        height: 220,
        data: { values: rows },
        mark: { type: "bar", stroke: colours.ground, strokeWidth: 1.5, cornerRadiusEnd: 0 },
        encoding: {
          x: {
            field: "label",
            type: "ordinal",
            sort: names,
            title: axisName(curve.axis.path),
            axis: { labelAngle: names.join("").length * 8 > width ? -35 : 0, labelLimit: 160 },
            scale: { paddingInner: 0.35 },
          },
          y: { field: "nats", type: "quantitative", title: "Shared (nats)", axis: { tickCount: 4 } },
          color: { field: "part", type: "nominal", scale: { domain: parts, range: [colours.series[0], colours.excess] } },
          order: { field: "order", type: "quantitative" },
        },
      },
      colours,
    );
  };
}

// Several curves -------------------------------------------------------------------------------------------------------------

/** Curves of several sweeps for tasks of one metric: [{name, curve, task}]. */
export function curvesOf(series, metric) {
  return (width, colours) => {
    const dots = series.flatMap(({ name, curve, task }) =>
      places(curve, task).map((dot, order) => ({ ...dot, order, series: { name }, sweep: name, path: curve.axis.path })),
    );
    const xDomain = nats(series.map(({ curve }) => curve));
    const yDomain = heights(dots, metric);
    const { x, y } = axes(xDomain, yDomain, METRICS[metric] ?? metric, width, metric);
    const names = series.map(({ name }) => name);
    const scale = { domain: names, range: names.map((_, index) => colours.series[index % colours.series.length]) };
    const shapes = { domain: names, range: names.map((_, index) => SHAPES[index % SHAPES.length]) };
    const legend = { symbolOpacity: 1, symbolStrokeWidth: 0 };
    const colour = { field: "name", type: "nominal", scale, legend };
    const shape = { field: "name", type: "nominal", scale: shapes, legend };
    const rows = dots.map((dot) => ({
      x: dot.x,
      y: dot.y,
      order: dot.order,
      name: dot.sweep,
      saturated: dot.point.saturated,
      experiments: dot.point.experiments,
      title: `${dot.sweep}: ${axisName(dot.path)} = ${dot.point.label}`,
      lines: [informationInWords(dot.point), score(dot.y, metric)],
    }));
    const joined = rows.filter((row) => series.find(({ name }) => name === row.name).curve.axis.ordered);
    const spots = series.flatMap(({ name, curve, task }) => {
      const spot = curve.verdicts[task]?.sweet_spot;
      return spot ? [{ x: spot.i_nce, y: spot.accuracy, name }] : [];
    });
    const layer = [
      {
        data: { values: joined },
        mark: { type: "line", strokeWidth: 1.6, opacity: 0.55 },
        encoding: { x: x(), y: y(), color: colour, order: { field: "order", type: "quantitative" } },
      },
      ...bars(dots, { x, y, xDomain, yDomain, colour }),
      {
        data: { values: spots },
        mark: { type: "point", size: 420, strokeWidth: 2, opacity: 1, shape: "circle", stroke: colours.spot },
        encoding: { x: x(), y: y() },
      },
      {
        data: { values: rows.filter((row) => !row.saturated) },
        mark: { type: "point", filled: true, size: 85, opacity: 1 },
        encoding: { x: x(), y: y(), color: colour, shape },
      },
      {
        data: { values: rows.filter((row) => row.saturated) },
        mark: { type: "point", filled: false, size: 85, strokeWidth: 1.9, opacity: 1 },
        encoding: { x: x(), y: y(), color: colour, shape },
      },
      {
        data: { values: rows },
        name: "hits",
        mark: { type: "point", filled: true, size: 500, opacity: 0, cursor: "pointer" },
        encoding: { x: x(), y: y() },
      },
    ];
    if (!dots.length) layer.push(nothing(xDomain, yDomain, x, y, colours));
    return styled({ width, height: Math.round(Math.min(Math.max(0.6 * width, 320), 480)), layer }, colours);
  };
}

// Training -------------------------------------------------------------------------------------------------------------------

/** Metrics over the steps of a training: [{name, step, value}]. */
export function linesOf(rows, title, { percent = false, steps = null } = {}) {
  return (width, colours) => {
    const names = [...new Set(rows.map((row) => row.name))];
    const several = names.length > 1;
    const series = { field: "name", type: "nominal", ...(several ? {} : { legend: null }) };
    const encoding = {
      x: {
        field: "step",
        type: "quantitative",
        title: "Step",
        scale: steps ? { domain: [0, steps], nice: false } : {},
        axis: { tickCount: 5, grid: false },
      },
      y: {
        field: "value",
        type: "quantitative",
        title,
        scale: { zero: false },
        axis: { tickCount: 5, ...(percent ? { format: ".0%" } : {}) },
      },
      color: { ...series, scale: { domain: names, range: names.map((_, index) => colours.series[index % 6]) } },
    };
    const shape = { ...series, scale: { domain: names, range: names.map((_, index) => SHAPES[index]) } };
    return styled(
      {
        width,
        height: 210,
        data: { values: rows },
        layer: [
          { mark: { type: "line", strokeWidth: 1.8 }, encoding: { ...encoding, strokeDash: series } },
          {
            mark: { type: "point", filled: true, size: several ? 42 : 20, opacity: 1 },
            encoding: several ? { ...encoding, shape } : encoding,
          },
        ],
      },
      colours,
    );
  };
}

// Pointing at points ---------------------------------------------------------------------------------------------------------

/** A card beside the pointer with what a point is, and its view pairs when `picture(datum)` has found them. */
export function hoverCard(picture) {
  const card = h("div", { class: "hover-card", hidden: true, "aria-hidden": "true" });
  document.body.append(card);
  let shown = null;
  return async (datum, event) => {
    shown = datum;
    if (!datum) {
      card.hidden = true;
      return;
    }
    const frame = h("div", { class: "hover-picture" });
    card.replaceChildren(h("strong", {}, datum.title), ...datum.lines.map((line) => h("div", {}, line)), frame);
    card.hidden = false;
    const beside = () => {
      const left =
        event.clientX + 18 + card.offsetWidth > window.innerWidth ? event.clientX - card.offsetWidth - 14 : event.clientX + 18;
      const top = Math.min(event.clientY - 20, window.innerHeight - card.offsetHeight - 10);
      card.style.left = `${Math.max(left, 8)}px`;
      card.style.top = `${Math.max(top, 8)}px`;
    };
    beside();
    const url = await picture(datum);
    if (url && shown === datum) {
      const image = h("img", { src: url, alt: "" });
      image.addEventListener("load", beside);
      frame.replaceChildren(image);
    }
  };
}
