// Lines over time as SVG: mean as a line, least to greatest as a band.

import { el, svg } from "./dom.js";

const WIDTH = 600;
const HEIGHT = 140;
const LEFT = 46;
const BOTTOM = 18;

export function number(value) {
  const size = Math.abs(value);
  if (size >= 1e9) return `${(value / 1e9).toPrecision(3)} G`;
  if (size >= 1e6) return `${(value / 1e6).toPrecision(3)} M`;
  if (size >= 1e4) return `${(value / 1e3).toPrecision(3)} k`;
  return size >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
}

function clock(seconds, range) {
  const date = new Date(1000 * seconds);
  return range > 2 * 86400 ? date.toLocaleDateString([], { month: "short", day: "numeric" }) : date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

// series: [{label, points: [[time, mean, least, greatest], ...]}]; from, to: Unix seconds; step: seconds between rows.
export function chart(title, series, from, to, step) {
  const all = series.flatMap((s) => s.points.flatMap((p) => [p[2], p[3]]));
  const top = Math.max(...all, 0) || 1;
  const x = (time) => LEFT + ((time - from) / (to - from)) * (WIDTH - LEFT);
  const y = (value) => (HEIGHT - BOTTOM) * (1 - value / (1.08 * top)) + 2;
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  for (const share of [0, 0.5, 1]) {
    picture.append(svg("line", { class: "grid", x1: LEFT, x2: WIDTH, y1: y(share * top), y2: y(share * top) }));
    picture.append(svg("text", { x: LEFT - 4, y: y(share * top) + 4, "text-anchor": "end" }, number(share * top)));
  }
  for (const share of [0, 0.5, 1]) {
    const anchor = ["start", "middle", "end"][2 * share];
    picture.append(svg("text", { x: LEFT + share * (WIDTH - LEFT), y: HEIGHT - 4, "text-anchor": anchor }, clock(from + share * (to - from), to - from)));
  }
  const words = [];
  series.forEach((s, i) => {
    const color = `var(--series-${i + 1})`;
    for (const run of runs(s.points, step)) {
      const band = [...run.map((p) => `${x(p[0])},${y(p[3])}`), ...run.toReversed().map((p) => `${x(p[0])},${y(p[2])}`)];
      picture.append(svg("polygon", { class: "band", fill: color, points: band.join(" ") }));
      const line = run.length > 1 ? run : [run[0], [run[0][0] + step / 2, run[0][1]]];
      picture.append(svg("polyline", { class: "line", stroke: color, points: line.map((p) => `${x(p[0])},${y(p[1])}`).join(" ") }));
    }
    const last = s.points.at(-1);
    if (last) words.push(`${s.label} ${number(last[1])}`);
  });
  picture.setAttribute("aria-label", `${title}: ${words.join(", ") || "no data in this range"}`);
  const keys = series.map((s, i) => el("span", { class: "key", style: `--c:var(--series-${i + 1})` }, s.points.length ? `${s.label} ${number(s.points.at(-1)[1])}` : `${s.label} –`));
  return el("figure", {}, el("figcaption", {}, el("strong", {}, title), ...keys), picture);
}

// Stretches without a gap: where nothing was measured no line is drawn.
function runs(points, step) {
  const out = [];
  for (const point of points) {
    if (!out.length || point[0] - out.at(-1).at(-1)[0] > 2.5 * step) out.push([]);
    out.at(-1).push(point);
  }
  return out;
}
