"use strict";
// Draws the charts: each at the width of its page, in the colours of the reader's choice. `charts` holds what is drawn;
// `also` what other scripts draw whenever all is drawn anew.
const charts = {}, also = [];
const stored = (id) => JSON.parse(document.getElementById(id).textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const draw = async (figure, spec, renderer = "svg") => {
  const name = figure.id.slice("chart-".length);
  const host = figure.querySelector(".canvas");
  const room = figure.clientWidth - 10;
  const width = Math.max(room - (figure.dataset.side || 0), 120);
  const mode = dark.matches ? "dark" : "light";
  const fitted = (part) => {
    if (Array.isArray(part)) return part.map(fitted);
    if (part === null || typeof part !== "object") return part;
    return Object.fromEntries(Object.entries(part).map(([key, value]) => {
      if (key === "width" && value === "container") return [key, width];
      if (key === "legend" && value?.columns) {
        const longest = Array.isArray(part.scale?.domain) ? Math.max(...part.scale.domain.map((name) => String(name).length)) : 16;
        const columns = Math.max(1, Math.min(value.columns, Math.floor(width / (50 + 6.8 * longest))));
        return [key, { ...value, columns, labelLimit: width / columns - 40 }];
      }
      return [key, key === "datasets" || key === "values" ? value : fitted(value)];
    }));
  };
  if (+figure.dataset.cell) spec.columns = Math.max(1, Math.floor(room / figure.dataset.cell));
  if (charts[name]) charts[name].finalize();
  charts[name] = await vegaEmbed(host, fitted(spec), {
    mode: spec.marks ? "vega" : "vega-lite", ast: true, renderer, config: stored("configs")[mode],
    tooltip: { theme: mode }, actions: false,
  });
  host.firstElementChild.setAttribute("aria-label", figure.querySelector("figcaption").textContent);
  return charts[name].view;
};
{
  // One after the other, so that a page of many charts answers meanwhile.
  const all = [...document.querySelectorAll("figure.chart:not([data-own])")];
  let wanted = 0;
  const drawAll = async () => {
    const mine = ++wanted;
    for (const figure of all) {
      if (mine !== wanted) return;
      await draw(figure, stored(`spec-${figure.id.slice("chart-".length)}`));
    }
    for (const other of also) await other();
    document.documentElement.dataset.drawn = all.length;
  };
  addEventListener("DOMContentLoaded", drawAll);
  dark.addEventListener("change", drawAll);
  let seen = innerWidth, waiting;
  addEventListener("resize", () => {
    if (innerWidth === seen) return;
    seen = innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(drawAll, 200);
  });
}
